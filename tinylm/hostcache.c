/* The host's states of every response target in a checked, resumable, memory-mapped file. */
#include "tinylm/hostcache.h"

#include <errno.h>
#include <fcntl.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>
#include <xxhash.h>

#include "base/file.h"
#include "base/mem.h"
#include "runtime/graph.h"
#include "runtime/quant.h"

/* A group is evaluated as one batch of at most this many tokens (an example that is longer is a group of its own). */
enum { HOSTCACHE_GROUP_TOKENS = 512, HOSTCACHE_GROUP_EXAMPLES = 16 };
#define HOSTCACHE_MAGIC "cmc-host-states 2\n"

/* ---------------------------------------------------------------------------------------------- packing */

size_t hostcache_row_bytes(size_t n) {
    return (sizeof(float) + n * sizeof(uint16_t) + 7) / 8 * 8;
}

void hostcache_pack(const float *x, uint8_t *row, size_t n) {
    float max = 0.0f, scale = 1.0f;
    for (size_t i = 0; i < n; i++)
        max = fabsf(x[i]) > max ? fabsf(x[i]) : max;
    if (max > 0.0f && isfinite(max)) {
        int e;
        frexpf(max, &e);
        scale = ldexpf(1.0f, e - 14); /* the largest becomes 2^13 .. 2^14 */
    }
    memset(row, 0, hostcache_row_bytes(n));
    memcpy(row, &scale, sizeof scale);
    for (size_t i = 0; i < n; i++) {
        uint16_t h = quant_f32_to_f16(x[i] / scale);
        memcpy(row + sizeof scale + 2 * i, &h, sizeof h);
    }
}

void hostcache_unpack(const uint8_t *row, float *x, size_t n) {
    float scale;
    memcpy(&scale, row, sizeof scale);
    quant_decode_row(CMC_F16, row + sizeof scale, x, n);
    for (size_t i = 0; i < n; i++)
        x[i] *= scale;
}

/* ---------------------------------------------------------------------------------------------- filling */

typedef struct hostcache_group {
    size_t first, n, tokens;
} hostcache_group; /* examples */

typedef struct hostcache_fill {
    const char *path;
    int fd;
    cmc_model *host;
    const data_set *d;
    hostcache_group *groups;
    size_t n_groups;
    uint64_t *hashes;
    size_t row_bytes, n_embd, rows_off, file_size;
    cmc_session *sessions[HOSTCACHE_GROUP_EXAMPLES];
    int32_t n_ctx;
    float *states;
    size_t cap_states;
    uint8_t *packed;
    size_t cap_packed;
    size_t all_tokens, done_tokens;
} hostcache_fill;

static cmc_status hostcache_plan(hostcache_fill *f, cmc_error *err) {
    const data_set *d = f->d;
    f->groups = cmc_calloc(d->n, sizeof *f->groups);
    if (!f->groups)
        return cmc_fail_nomem(err, "the plan of the host's states", d->n * sizeof *f->groups);
    for (size_t i = 0; i < d->n; i++) {
        hostcache_group *g = f->n_groups ? &f->groups[f->n_groups - 1] : NULL;
        size_t t = d->v[i].n_host;
        if (!g || g->n == HOSTCACHE_GROUP_EXAMPLES || g->tokens + t > HOSTCACHE_GROUP_TOKENS) {
            g = &f->groups[f->n_groups++];
            g->first = i;
        }
        g->n++;
        g->tokens += t;
        f->all_tokens += t;
        if ((int64_t)t > f->n_ctx)
            f->n_ctx = (int32_t)t;
    }
    f->row_bytes = hostcache_row_bytes(f->n_embd);
    f->rows_off = HOSTCACHE_HEADER + (f->n_groups * sizeof(uint64_t) + 4095) / 4096 * 4096;
    f->file_size = f->rows_off + d->n_targets * f->row_bytes;
    f->hashes = cmc_calloc(f->n_groups, sizeof *f->hashes);
    return f->hashes ? CMC_OK : cmc_fail_nomem(err, "the hashes of the host's states", f->n_groups * sizeof *f->hashes);
}

static size_t hostcache_first_row(const data_example *x) {
    uint32_t first = x->host_row[0];
    for (size_t i = 1; i < x->n_targets; i++)
        first = x->host_row[i] < first ? x->host_row[i] : first;
    return first;
}

/* The groups' largest: keys and values of their sessions, states as they are asked for and as they are packed. */
static size_t hostcache_group_bytes(const hostcache_fill *f) {
    const kv_shape kv = session_kv_shape(f->host, 1.0f);
    size_t most = 0;
    for (size_t g = 0; g < f->n_groups; g++) {
        size_t n = 0;
        for (size_t i = 0; i < f->groups[g].n; i++) {
            const data_example *x = &f->d->v[f->groups[g].first + i];
            n += (size_t)kv_bytes(&kv, x->n_host) + (x->n_host - hostcache_first_row(x)) * f->n_embd * sizeof(float) +
                 x->n_targets * f->row_bytes;
        }
        most = n > most ? n : most;
    }
    return most;
}

cmc_status hostcache_bytes(cmc_model *host, const data_set *d, size_t *fill, size_t *file, cmc_error *err) {
    hostcache_fill f = {.path = "", .fd = -1, .host = host, .d = d, .n_embd = (size_t)cmc_model_n_embd(host)};
    size_t tokens = 0;
    cmc_status st = hostcache_plan(&f, err);
    for (size_t g = 0; g < f.n_groups; g++)
        tokens = f.groups[g].tokens > tokens ? f.groups[g].tokens : tokens;
    if (st == CMC_OK) {
        *fill = hostcache_group_bytes(&f) + graph_bytes(host, tokens);
        *file = f.file_size;
    }
    free(f.groups);
    free(f.hashes);
    return st;
}

const char *hostcache_arithmetic(const cmc_runtime *rt) {
    return rt->exact ? "exact" : !rt->integer_gemm ? "float" : rt->fine_batches ? "int15" : "int8";
}

static void hostcache_header(const hostcache_fill *f, char out[HOSTCACHE_HEADER]) {
    memset(out, 0, HOSTCACHE_HEADER);
    snprintf(out, HOSTCACHE_HEADER,
             HOSTCACHE_MAGIC
             "host=%s\ndata=%s\nrows=%s\ntemplate=%s\nexamples=%zu\ntargets=%zu\ngroups=%zu\nn_embd=%zu\narithmetic=%s\n",
             cmc_model_hash(f->host), f->d->all_hash, f->d->rows_hash, f->d->host_template, f->d->n, f->d->n_targets, f->n_groups, f->n_embd,
             hostcache_arithmetic(cmc_model_runtime(f->host)));
}

static cmc_status hostcache_write(const hostcache_fill *f, const void *data, size_t n, size_t off, cmc_error *err) {
    const uint8_t *p = data;
    while (n > 0) {
        ssize_t k = pwrite(f->fd, p, n, (off_t)off);
        if (k < 0 && errno == EINTR)
            continue;
        if (k <= 0)
            return cmc_fail(err, CMC_E_IO, "%s: cannot write at byte %zu: %s", f->path, off,
                            strerror(k < 0 ? errno : ENOSPC));
        p += k;
        off += (size_t)k;
        n -= (size_t)k;
    }
    return CMC_OK;
}

/* Evaluates a group and leaves its packed rows in f->packed. */
static cmc_status hostcache_eval_group(hostcache_fill *f, const hostcache_group *g, cmc_error *err) {
    cmc_eval_item items[HOSTCACHE_GROUP_EXAMPLES];
    size_t rows = 0;
    for (size_t i = 0; i < g->n; i++)
        rows += f->d->v[g->first + i].n_host - hostcache_first_row(&f->d->v[g->first + i]);
    if (!cmc_grow((void **)&f->states, &f->cap_states, rows * f->n_embd, sizeof *f->states))
        return cmc_fail_nomem(err, "the host's states of a batch", rows * f->n_embd * sizeof *f->states);
    float *out = f->states;
    for (size_t i = g->n; i < HOSTCACHE_GROUP_EXAMPLES; i++) { /* an idle one would keep its keys and values */
        cmc_session_free(f->sessions[i]);
        f->sessions[i] = NULL;
    }
    for (size_t i = 0; i < g->n; i++) {
        const data_example *x = &f->d->v[g->first + i];
        if (!f->sessions[i])
            CMC_TRY(cmc_session_new(f->host, f->n_ctx, &f->sessions[i], err));
        CMC_TRY(
            cmc_session_sync(f->sessions[i], NULL, 0, err)); /* nothing is kept: the bits do not depend on the past */
        CMC_TRY(cmc_session_sync(f->sessions[i], x->host_ids, x->n_host, err));
        items[i] = (cmc_eval_item){f->sessions[i], CMC_WANT_HIDDEN, x->n_host - hostcache_first_row(x), out};
        out += items[i].n_rows * f->n_embd;
    }
    CMC_TRY(cmc_eval(f->host, items, g->n, err));
    size_t targets = 0;
    for (size_t i = 0; i < g->n; i++)
        targets += f->d->v[g->first + i].n_targets;
    if (!cmc_grow((void **)&f->packed, &f->cap_packed, targets * f->row_bytes, 1))
        return cmc_fail_nomem(err, "the host's states of a batch", targets * f->row_bytes);
    uint8_t *p = f->packed;
    for (size_t i = 0; i < g->n; i++) {
        const data_example *x = &f->d->v[g->first + i];
        for (size_t k = 0; k < x->n_targets; k++, p += f->row_bytes)
            hostcache_pack(items[i].out + (x->host_row[k] - hostcache_first_row(x)) * f->n_embd, p, f->n_embd);
    }
    return CMC_OK;
}

/* The bytes of a group in the file. */
static void hostcache_group_extent(const hostcache_fill *f, size_t g, size_t *off, size_t *n) {
    const data_example *a = &f->d->v[f->groups[g].first];
    const data_example *b = &f->d->v[f->groups[g].first + f->groups[g].n - 1];
    *off = f->rows_off + a->first_row * f->row_bytes;
    *n = (b->first_row + b->n_targets - a->first_row) * f->row_bytes;
}

static uint64_t hostcache_hash(const void *p, size_t n) {
    uint64_t h = XXH3_64bits(p, n);
    return h ? h : 1; /* 0 says "not written" */
}

static cmc_status hostcache_fill_all(hostcache_fill *f, const uint8_t *map, hostcache_progress cb, void *user,
                                     cmc_error *err) {
    for (size_t g = 0; g < f->n_groups; g++) {
        size_t off, n;
        hostcache_group_extent(f, g, &off, &n);
        bool there = f->hashes[g] != 0 && hostcache_hash(map + off, n) == f->hashes[g];
        cmc_map_forget(map + off, n);
        if (!there) {
            CMC_TRY(hostcache_eval_group(f, &f->groups[g], err));
            CMC_TRY(hostcache_write(f, f->packed, n, off, err));
            f->hashes[g] = hostcache_hash(f->packed, n);
            CMC_TRY(hostcache_write(f, &f->hashes[g], sizeof f->hashes[g], HOSTCACHE_HEADER + g * sizeof f->hashes[g],
                                    err));
        }
        f->done_tokens += f->groups[g].tokens;
        if (!there && cb && !cb(user, f->done_tokens, f->all_tokens))
            return cmc_fail(err, CMC_E_CANCELLED,
                            "%s: stopped after %zu of %zu groups of host states; a new run goes on there", f->path,
                            g + 1, f->n_groups);
    }
    return CMC_OK;
}

/* ---------------------------------------------------------------------------------------------- opening */

/* Opens or makes the file and takes the lock that keeps a second run away from it. */
static cmc_status hostcache_lock(hostcache_fill *f, cmc_error *err) {
    f->fd = open(f->path, O_RDWR | O_CREAT | O_CLOEXEC, 0666);
    if (f->fd < 0)
        return cmc_fail(err, CMC_E_IO, "%s: cannot open for writing: %s", f->path, strerror(errno));
    if (flock(f->fd, LOCK_EX | LOCK_NB) != 0)
        return cmc_fail(err, CMC_E_IO, "%s: another run is using these host states; give it a cache folder of its own",
                        f->path);
    return CMC_OK;
}

static cmc_status hostcache_adopt(hostcache_fill *f, cmc_error *err) {
    char want[HOSTCACHE_HEADER], have[HOSTCACHE_HEADER];
    struct stat st;
    hostcache_header(f, want);
    if (fstat(f->fd, &st) != 0 || !S_ISREG(st.st_mode))
        return cmc_fail(err, CMC_E_IO, "%s: not a regular file", f->path);
    if (st.st_size > 0) {
        if (pread(f->fd, have, sizeof have, 0) != (ssize_t)sizeof have || memcmp(have, want, sizeof have) != 0)
            return cmc_fail(err, CMC_E_FORMAT,
                            "%s: not the host states of this host, data and template; remove the file or "
                            "name another cache folder",
                            f->path);
        if ((size_t)st.st_size == f->file_size) {
            size_t n = f->n_groups * sizeof *f->hashes;
            if (pread(f->fd, f->hashes, n, HOSTCACHE_HEADER) != (ssize_t)n)
                memset(f->hashes, 0, n);
            return CMC_OK;
        }
    }
    int rc = posix_fallocate(f->fd, 0, (off_t)f->file_size);
    if (rc != 0 || ftruncate(f->fd, (off_t)f->file_size) != 0)
        return cmc_fail(err, CMC_E_IO, "%s: no room for %zu bytes of host states: %s", f->path, f->file_size,
                        strerror(rc ? rc : errno));
    return hostcache_write(f, want, sizeof want, 0, err);
}

static cmc_status hostcache_run(hostcache_fill *f, hostcache_progress cb, void *user, hostcache *out, cmc_error *err) {
    CMC_TRY(hostcache_plan(f, err));
    CMC_TRY(hostcache_lock(f, err));
    CMC_TRY(hostcache_adopt(f, err));
    void *map = mmap(NULL, f->file_size, PROT_READ, MAP_SHARED, f->fd, 0);
    if (map == MAP_FAILED)
        return cmc_fail(err, CMC_E_IO, "%s: cannot map: %s", f->path, strerror(errno));
    out->map = map;
    out->size = f->file_size;
    out->rows = out->map + f->rows_off;
    out->row_bytes = f->row_bytes;
    out->n_rows = f->d->n_targets;
    return hostcache_fill_all(f, out->map, cb, user, err);
}

cmc_status hostcache_open(const char *path, cmc_model *host, const data_set *d, hostcache_progress cb, void *user,
                          hostcache *out, cmc_error *err) {
    hostcache_fill f = {.path = path, .fd = -1, .host = host, .d = d, .n_embd = (size_t)cmc_model_n_embd(host)};
    memset(out, 0, sizeof *out);
    out->fd = -1;
    out->path = cmc_strndup(path, strlen(path));
    cmc_status st = out->path ? hostcache_run(&f, cb, user, out, err) : cmc_fail_nomem(err, "a path", strlen(path));
    out->fd = f.fd; /* held open: the lock goes with it */
    for (size_t i = 0; i < HOSTCACHE_GROUP_EXAMPLES; i++)
        cmc_session_free(f.sessions[i]);
    free(f.groups);
    free(f.hashes);
    free(f.states);
    free(f.packed);
    if (st != CMC_OK)
        hostcache_close(out);
    return st;
}

bool hostcache_whole(const char *path, cmc_model *host, const data_set *d) {
    hostcache_fill f = {.path = path, .host = host, .d = d, .n_embd = (size_t)cmc_model_n_embd(host)};
    char want[HOSTCACHE_HEADER], have[HOSTCACHE_HEADER];
    f.fd = open(path, O_RDONLY | O_CLOEXEC);
    bool whole = f.fd >= 0 && hostcache_plan(&f, NULL) == CMC_OK;
    if (whole) {
        size_t n = f.n_groups * sizeof *f.hashes;
        hostcache_header(&f, want);
        whole = pread(f.fd, have, sizeof have, 0) == (ssize_t)sizeof have && memcmp(have, want, sizeof have) == 0 &&
                pread(f.fd, f.hashes, n, HOSTCACHE_HEADER) == (ssize_t)n;
    }
    for (size_t g = 0; whole && g < f.n_groups; g++)
        whole = f.hashes[g] != 0;
    free(f.groups);
    free(f.hashes);
    if (f.fd >= 0)
        close(f.fd);
    return whole;
}

void hostcache_close(hostcache *c) {
    if (c->map)
        munmap(c->map, c->size);
    if (c->fd >= 0)
        close(c->fd);
    free(c->path);
    memset(c, 0, sizeof *c);
    c->fd = -1;
}
