/* Checkpoints: a magic line, counts, settings, state, four arrays, and a hash over all of it (little-endian). */
#include "tinylm/checkpoint.h"

#include <errno.h>
#include <glob.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/file.h"

#define CHECKPOINT_MAGIC "cmc-checkpoint 1" /* 16 bytes */
enum { CHECKPOINT_HASH = 32, CHECKPOINT_PART = 8 << 20 };

typedef struct checkpoint_head {
    char magic[16];
    uint64_t settings, state, n;
} checkpoint_head;

bool checkpoint_exists(const char *path) {
    struct stat st;
    return lstat(path, &st) == 0;
}

cmc_status checkpoint_check(const char *path, bool resume, bool fresh, cmc_error *err) {
    if (resume && fresh)
        return cmc_fail(err, CMC_E_ARG, "resume and fresh exclude each other");
    if (!resume && !fresh && checkpoint_exists(path))
        return cmc_fail(err, CMC_E_ARG, "%s: a checkpoint of an unfinished run is there; --resume goes on with it, --fresh starts "
                        "again and replaces it", path);
    return CMC_OK;
}

typedef struct checkpoint_out {
    cmc_writer *w;
    cmc_hasher *h;
} checkpoint_out;

static cmc_status checkpoint_put(checkpoint_out *o, const void *p, size_t n, cmc_error *err) {
    cmc_hasher_add(o->h, p, n);
    return cmc_writer_put(o->w, p, n, err);
}

static cmc_status checkpoint_put_all(checkpoint_out *o, const char *settings, const checkpoint_state *s,
                                     const checkpoint_arrays *a, cmc_error *err) {
    checkpoint_head head = {.settings = strlen(settings), .state = sizeof *s, .n = a->n};
    memcpy(head.magic, CHECKPOINT_MAGIC, sizeof head.magic);
    CMC_TRY(checkpoint_put(o, &head, sizeof head, err));
    CMC_TRY(checkpoint_put(o, settings, strlen(settings), err));
    CMC_TRY(checkpoint_put(o, s, sizeof *s, err));
    const float *arrays[4] = {a->w, a->best, a->m, a->v};
    for (int i = 0; i < 4; i++)
        CMC_TRY(checkpoint_put(o, arrays[i], a->n * sizeof(float), err));
    return CMC_OK;
}

cmc_status checkpoint_write(const char *path, const char *settings, const checkpoint_state *s,
                            const checkpoint_arrays *a, cmc_error *err) {
    checkpoint_out o = {NULL, cmc_hasher_new()};
    char hash[40];
    if (!o.h)
        return cmc_fail_nomem(err, "a checkpoint's hash", CHECKPOINT_HASH);
    cmc_status st = cmc_writer_open(path, &o.w, err);
    if (st == CMC_OK)
        st = checkpoint_put_all(&o, settings, s, a, err);
    cmc_hasher_finish(o.h, hash);
    if (st == CMC_OK)
        st = cmc_writer_put(o.w, hash, CHECKPOINT_HASH, err);
    if (st == CMC_OK)
        return cmc_writer_commit(o.w, err);
    cmc_writer_abort(o.w);
    return st;
}

/* The first line in which the two texts differ decides what the message says. */
static cmc_status checkpoint_compare(const char *path, const char *have, size_t n, const char *want, cmc_error *err) {
    const char *end = have + n;
    while (have < end || *want) {
        const char *nl = have < end ? memchr(have, '\n', (size_t)(end - have)) : NULL;
        size_t hn = nl ? (size_t)(nl - have) : (size_t)(end - have), wn = strcspn(want, "\n");
        if (hn != wn || memcmp(have, want, hn) != 0)
            return cmc_fail(err, CMC_E_ARG,
                            "%s: was made with \"%.*s\" and this run has \"%.*s\"; resume with the same options "
                            "and data, or start again with --fresh",
                            path, (int)(hn > 120 ? 120 : hn), have, (int)(wn > 120 ? 120 : wn), want);
        have += hn + (nl ? 1 : 0);
        want += wn + (want[wn] ? 1 : 0);
    }
    return CMC_OK;
}

/* Hashes a map part by part, so that it is not in memory as a whole beside the arrays. */
static bool checkpoint_hash(const uint8_t *p, size_t n, char out[40]) {
    cmc_hasher *h = cmc_hasher_new();
    for (size_t at = 0; h && at < n;) {
        size_t part = n - at < CHECKPOINT_PART ? n - at : CHECKPOINT_PART;
        cmc_hasher_add(h, p + at, part);
        cmc_map_forget(p + at, part);
        at += part;
    }
    if (h)
        cmc_hasher_finish(h, out);
    return h != NULL;
}

/* Likewise; `to` NULL: not wanted. */
static void checkpoint_copy(void *to, const uint8_t *p, size_t n) {
    for (size_t at = 0; to && at < n;) {
        size_t part = n - at < CHECKPOINT_PART ? n - at : CHECKPOINT_PART;
        memcpy((uint8_t *)to + at, p + at, part);
        cmc_map_forget(p + at, part);
        at += part;
    }
}

static cmc_status checkpoint_parse(const cmc_file *f, const char *settings, checkpoint_state *s, checkpoint_arrays *a,
                                   cmc_error *err) {
    checkpoint_head head;
    const char *bad = "%s: not a whole checkpoint (%zu bytes): %s; remove it, or start again with --fresh";
    if (f->size < sizeof head + CHECKPOINT_HASH)
        return cmc_fail(err, CMC_E_FORMAT, bad, f->path, f->size, "too short");
    memcpy(&head, f->data, sizeof head);
    if (memcmp(head.magic, CHECKPOINT_MAGIC, sizeof head.magic) != 0)
        return cmc_fail(err, CMC_E_FORMAT, bad, f->path, f->size, "it does not begin with \"" CHECKPOINT_MAGIC "\"");
    size_t body = f->size - CHECKPOINT_HASH;
    char hash[40];
    if (!checkpoint_hash(f->data, body, hash))
        return cmc_fail_nomem(err, "a checkpoint's hash", CHECKPOINT_HASH);
    if (memcmp(hash, f->data + body, CHECKPOINT_HASH) != 0)
        return cmc_fail(err, CMC_E_FORMAT, bad, f->path, f->size, "its hash does not fit its bytes");
    if (head.settings > body - sizeof head || head.state != sizeof *s)
        return cmc_fail(err, CMC_E_FORMAT, bad, f->path, f->size, "its counts do not fit its size");
    const uint8_t *p = f->data + sizeof head;
    CMC_TRY(checkpoint_compare(f->path, (const char *)p, (size_t)head.settings, settings, err));
    size_t fixed = sizeof head + (size_t)head.settings + sizeof *s;
    if (fixed > body || head.n != a->n || body - fixed != 4 * a->n * sizeof(float))
        return cmc_fail(err, CMC_E_FORMAT, bad, f->path, f->size, "its counts do not fit its size");
    p += head.settings;
    memcpy(s, p, sizeof *s);
    p += sizeof *s;
    float *arrays[4] = {a->w, a->best, a->m, a->v};
    for (int i = 0; i < 4; i++, p += a->n * sizeof(float))
        checkpoint_copy(arrays[i], p, a->n * sizeof(float));
    return CMC_OK;
}

cmc_status checkpoint_read(const char *path, const char *settings, checkpoint_state *s, checkpoint_arrays *a,
                           cmc_error *err) {
    cmc_file f;
    CMC_TRY(cmc_file_map(path, &f, err));
    cmc_status st = checkpoint_parse(&f, settings, s, a, err);
    cmc_file_unmap(&f);
    return st;
}

void checkpoint_sweep(const char *path) {
    glob_t g = {0};
    char *pattern = NULL;
    if (asprintf(&pattern, "%s.tmp.*", path) < 0)
        return;
    bool any = glob(pattern, 0, NULL, &g) == 0;
    for (size_t i = 0; any && i < g.gl_pathc; i++) {
        long pid = strtol(g.gl_pathv[i] + strlen(pattern) - 1, NULL, 10);
        if (pid > 0 && kill((pid_t)pid, 0) != 0 && errno == ESRCH)
            unlink(g.gl_pathv[i]);
    }
    globfree(&g);
    free(pattern);
}
