/* Reading a GGUF header. A file is a stranger's: nothing is used before it is checked, and no allocation is larger than
 * what the file could fill. */
#include "base/gguf.h"
#include "base/error.h"
#include "base/gguf_read.h"
#include "base/mem.h"
#include "base/utf8.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

enum {
    DEFAULT_ALIGNMENT = 32,
    MIN_KV_BYTES = 8 + 1 + 4 + 1,          /* key length, a key, type, a value */
    MIN_TENSOR_BYTES = 8 + 1 + 4 + 8 + 4 + 8,  /* name length, a name, dimensions, one size, type, offset */
    MAX_NAME = 65535                       /* the specification's bound on keys */
};

/* Keys and tensors by name: sorted pointers, which no choice of names makes slow. */
struct gguf_index { const gguf_kv **kv; const gguf_tensor **tensors; };

typedef struct reader { gguf *g; cmc_error *err; const char *path; const uint8_t *data; size_t size, pos; } reader;

static cmc_status read_fail_short(const reader *r, const char *what) {
    return cmc_fail(r->err, CMC_E_FORMAT, "%s: cut short: %s at byte %zu runs past the end of the file, at %zu",
                    r->path, what, r->pos, r->size);
}

static bool read_has(const reader *r, uint64_t n) { return n <= r->size - r->pos; }

static cmc_status read_number32(reader *r, const char *what, uint32_t *out) {
    if (!read_has(r, 4)) {
        return read_fail_short(r, what);
    }
    *out = read_u32(r->data + r->pos);
    r->pos += 4;
    return CMC_OK;
}

static cmc_status read_number64(reader *r, const char *what, uint64_t *out) {
    if (!read_has(r, 8)) {
        return read_fail_short(r, what);
    }
    *out = read_u64(r->data + r->pos);
    r->pos += 8;
    return CMC_OK;
}

static cmc_status read_string(reader *r, const char *what, gguf_str *out) {
    size_t at = r->pos;
    uint64_t n;
    CMC_TRY(read_number64(r, what, &n));
    if (!read_has(r, n)) {
        return cmc_fail(r->err, CMC_E_FORMAT, "%s: %s at byte %zu claims %" PRIu64 " bytes, %zu are left", r->path,
                        what, at, n, r->size - r->pos);
    }
    *out = (gguf_str){(const char *)r->data + r->pos, (size_t)n};
    r->pos += (size_t)n;
    return CMC_OK;
}

static cmc_status read_name(reader *r, const char *what, gguf_str *out) {
    size_t at = r->pos;
    CMC_TRY(read_string(r, what, out));
    if (out->n == 0 || out->n > MAX_NAME) {
        return cmc_fail(r->err, CMC_E_FORMAT, "%s: %s at byte %zu is %zu bytes long, 1 to %d would be right", r->path,
                        what, at, out->n, MAX_NAME);
    }
    if (!cmc_utf8_valid((const uint8_t *)out->s, out->n) || memchr(out->s, '\0', out->n) != NULL) {
        return cmc_fail(r->err, CMC_E_FORMAT, "%s: %s at byte %zu is not UTF-8 text", r->path, what, at);
    }
    return CMC_OK;
}

/* Magic, version and the two counts, each of which must fit in the bytes that follow. */
static cmc_status read_head(reader *r, uint64_t *n_tensors, uint64_t *n_kv) {
    if (!read_has(r, 4) || memcmp(r->data, "GGUF", 4) != 0) {
        return cmc_fail(r->err, CMC_E_FORMAT, "%s: is not a GGUF file: it does not begin with \"GGUF\"", r->path);
    }
    r->pos = 4;
    uint32_t version;
    CMC_TRY(read_number32(r, "the version", &version));
    if ((version & 0xffff) == 0 && version != 0) {
        return cmc_fail(r->err, CMC_E_UNSUPPORTED, "%s: is a big-endian GGUF file, only little-endian ones are read",
                        r->path);
    }
    if (version != 2 && version != 3) {
        return cmc_fail(r->err, CMC_E_UNSUPPORTED,
                        "%s: is of GGUF version %" PRIu32 " (byte 4), versions 2 and 3 are read", r->path, version);
    }
    r->g->version = version;
    CMC_TRY(read_number64(r, "the tensor count", n_tensors));
    CMC_TRY(read_number64(r, "the key count", n_kv));
    size_t left = r->size - r->pos;
    if (*n_tensors > left / MIN_TENSOR_BYTES) {
        return cmc_fail(r->err, CMC_E_FORMAT, "%s: claims %" PRIu64 " tensors (byte 8), %zu bytes cannot hold them",
                        r->path, *n_tensors, left);
    }
    if (*n_kv > left / MIN_KV_BYTES) {
        return cmc_fail(r->err, CMC_E_FORMAT, "%s: claims %" PRIu64 " keys (byte 16), %zu bytes cannot hold them",
                        r->path, *n_kv, left);
    }
    return CMC_OK;
}

/* Moves past n values of one type. Strings are walked, since each says its own length. */
static cmc_status skip_values(reader *r, const gguf_kv *kv, uint32_t type, uint64_t n) {
    char key[64];
    size_t at = r->pos, bytes = gguf_value_bytes(type), each = type == GGUF_STRING ? 8 : bytes;
    if (n > (r->size - r->pos) / each) {
        return cmc_fail(r->err, CMC_E_FORMAT,
                        "%s: key '%s' claims %" PRIu64 " values of type %s at byte %zu, %zu bytes are left", r->path,
                        gguf_show(kv->key, key), n, gguf_vtype_name(type), at, r->size - at);
    }
    if (type != GGUF_STRING) {
        r->pos += (size_t)n * bytes;
        for (size_t i = at; type == GGUF_BOOL && i < r->pos; i++) {
            if (r->data[i] > 1) {
                return cmc_fail(r->err, CMC_E_FORMAT,
                                "%s: key '%s' has a truth value of %d at byte %zu, 0 or 1 would be right", r->path,
                                gguf_show(kv->key, key), r->data[i], i);
            }
        }
        return CMC_OK;
    }
    const uint8_t *data = r->data;
    size_t pos = r->pos, size = r->size;
    for (uint64_t i = 0; i < n; i++) {
        uint64_t len = size - pos >= 8 ? read_u64(data + pos) : UINT64_MAX;
        if (size - pos < 8 || len > size - pos - 8) {
            return cmc_fail(r->err, CMC_E_FORMAT,
                            "%s: key '%s': string %" PRIu64 " at byte %zu runs past the end of the file, at %zu",
                            r->path, gguf_show(kv->key, key), i, pos, size);
        }
        pos += 8 + (size_t)len;
    }
    r->pos = pos;
    return CMC_OK;
}

static cmc_status read_kv(reader *r, gguf_kv *kv) {
    char key[64];
    uint32_t type;
    CMC_TRY(read_name(r, "a key", &kv->key));
    size_t at = r->pos;
    CMC_TRY(read_number32(r, "a value's type", &type));
    uint32_t elem = type;
    kv->n = 1;
    if (type == GGUF_ARRAY) {
        at = r->pos;
        CMC_TRY(read_number32(r, "an array's type", &elem));
        CMC_TRY(read_number64(r, "an array's length", &kv->n));
        if (elem == GGUF_ARRAY) {
            return cmc_fail(r->err, CMC_E_UNSUPPORTED,
                            "%s: key '%s' holds an array of arrays (byte %zu), which is not read", r->path,
                            gguf_show(kv->key, key), at);
        }
    }
    if (elem != GGUF_STRING && gguf_value_bytes(elem) == 0) {
        return cmc_fail(r->err, CMC_E_FORMAT, "%s: key '%s' is of type %" PRIu32 " (byte %zu), 0 to 12 would be right",
                        r->path, gguf_show(kv->key, key), elem, at);
    }
    kv->type = (gguf_vtype)type;
    kv->elem = (gguf_vtype)elem;
    kv->data = r->data + r->pos;
    return skip_values(r, kv, elem, kv->n);
}

static cmc_status read_keys(reader *r, uint64_t n) {
    size_t cap = 0;
    void *v = NULL;
    for (size_t i = 0; i < n; i++) {
        if (!cmc_grow(&v, &cap, i + 1, sizeof(gguf_kv))) {
            return cmc_fail_nomem(r->err, "a table of keys", (i + 1) * sizeof(gguf_kv));
        }
        r->g->kv = v;
        CMC_TRY(read_kv(r, &r->g->kv[i]));
        r->g->n_kv = i + 1;
    }
    return CMC_OK;
}

/* Sizes of a tensor: none zero, the product and the bytes representable, rows of whole blocks. */
static cmc_status check_shape(const reader *r, gguf_tensor *t, size_t at) {
    char name[64];
    uint64_t total = 1;
    for (uint32_t i = 0; i < 4; i++) {
        if (t->ne[i] == 0 || t->ne[i] > INT64_MAX / total) {
            return cmc_fail(r->err, CMC_E_FORMAT,
                            "%s: tensor '%s' at byte %zu has a size of %" PRIu64 " in dimension %" PRIu32
                            ", which is %s",
                            r->path, gguf_show(t->name, name), at, t->ne[i], i, t->ne[i] == 0 ? "nothing" : "too much");
        }
        total *= t->ne[i];
    }
    if (!cmc_type_supported(t->type)) {
        return CMC_OK; /* named by whoever wants to load it; its bytes are not known */
    }
    uint64_t block = cmc_type_block(t->type);
    if (t->ne[0] % block != 0) {
        return cmc_fail(r->err, CMC_E_FORMAT,
                        "%s: tensor '%s' at byte %zu has rows of %" PRIu64
                        " elements, no multiple of %s's block of %" PRIu64,
                        r->path, gguf_show(t->name, name), at, t->ne[0], cmc_type_name(t->type), block);
    }
    if (__builtin_mul_overflow(total / block, (uint64_t)cmc_type_block_bytes(t->type), &t->bytes) ||
        t->bytes > INT64_MAX) {
        return cmc_fail(r->err, CMC_E_FORMAT, "%s: tensor '%s' at byte %zu is too large: %" PRIu64 " elements", r->path,
                        gguf_show(t->name, name), at, total);
    }
    return CMC_OK;
}

/* Name, shape, type and offset; the offset stays relative to the data until that is known to begin somewhere. */
static cmc_status read_tensor(reader *r, gguf_tensor *t) {
    char name[64];
    size_t at = r->pos;
    *t = (gguf_tensor){.ne = {1, 1, 1, 1}};
    CMC_TRY(read_name(r, "a tensor's name", &t->name));
    CMC_TRY(read_number32(r, "a tensor's number of dimensions", &t->n_dims));
    if (t->n_dims < 1 || t->n_dims > 4) {
        return cmc_fail(r->err, CMC_E_FORMAT,
                        "%s: tensor '%s' at byte %zu has %" PRIu32 " dimensions, 1 to 4 would be right", r->path,
                        gguf_show(t->name, name), at, t->n_dims);
    }
    for (uint32_t i = 0; i < t->n_dims; i++) {
        CMC_TRY(read_number64(r, "a tensor's size", &t->ne[i]));
    }
    CMC_TRY(read_number32(r, "a tensor's type", &t->type));
    CMC_TRY(read_number64(r, "a tensor's offset", &t->offset));
    return check_shape(r, t, at);
}

static cmc_status read_tensors(reader *r, uint64_t n) {
    size_t cap = 0;
    void *v = NULL;
    for (size_t i = 0; i < n; i++) {
        if (!cmc_grow(&v, &cap, i + 1, sizeof(gguf_tensor))) {
            return cmc_fail_nomem(r->err, "a table of tensors", (i + 1) * sizeof(gguf_tensor));
        }
        r->g->tensors = v;
        CMC_TRY(read_tensor(r, &r->g->tensors[i]));
        r->g->n_tensors = i + 1;
    }
    return CMC_OK;
}

/* Where the data begins, and that every tensor lies within it. */
static cmc_status place_tensors(reader *r) {
    gguf *g = r->g;
    uint64_t align = DEFAULT_ALIGNMENT;
    if (gguf_find(g, "general.alignment") != NULL) {
        CMC_TRY(gguf_need_u64(g, "general.alignment", 8, UINT64_C(1) << 30, &align, r->err));
        if ((align & (align - 1)) != 0) {
            return cmc_fail(r->err, CMC_E_FORMAT,
                            "%s: key 'general.alignment' is %" PRIu64 ", a power of two would be right", r->path,
                            align);
        }
    }
    uint64_t start = (r->pos + align - 1) / align * align;
    for (size_t i = 0; i < g->n_tensors; i++) {
        char name[64];
        gguf_tensor *t = &g->tensors[i];
        if (t->offset % align != 0) {
            return cmc_fail(r->err, CMC_E_FORMAT,
                            "%s: tensor '%s' is at offset %" PRIu64 ", no multiple of the alignment, %" PRIu64, r->path,
                            gguf_show(t->name, name), t->offset, align);
        }
        /* a type that is not known has at least one byte */
        uint64_t bytes = t->bytes > 0 ? t->bytes : 1, room = start < r->size ? r->size - start : 0;
        if (t->offset > room || bytes > room - t->offset) {
            return cmc_fail(r->err, CMC_E_FORMAT,
                            "%s: tensor '%s' (%" PRIu64 " bytes at offset %" PRIu64
                            " of the data, which begins at byte %" PRIu64 ") runs past the end of the file, at %zu",
                            r->path, gguf_show(t->name, name), t->bytes, t->offset, start, r->size);
        }
        t->offset += start;
        t->data = t->bytes > 0 ? r->data + t->offset : NULL;
    }
    g->header_bytes = g->n_tensors > 0 ? (size_t)start : r->pos;
    return CMC_OK;
}

/* ---------------------------------------------------------------------------------------------------- index */

static int compare_str(gguf_str a, gguf_str b) {
    int c = memcmp(a.s, b.s, a.n < b.n ? a.n : b.n);
    return c != 0 ? c : (a.n > b.n) - (a.n < b.n);
}

static int compare_kv(const void *a, const void *b) {
    return compare_str((*(const gguf_kv *const *)a)->key, (*(const gguf_kv *const *)b)->key);
}

static int compare_tensor(const void *a, const void *b) {
    return compare_str((*(const gguf_tensor *const *)a)->name, (*(const gguf_tensor *const *)b)->name);
}

static cmc_status index_keys(reader *r) {
    gguf *g = r->g;
    const gguf_kv **v = cmc_alloc(g->n_kv, sizeof *v);
    if (v == NULL) {
        return cmc_fail_nomem(r->err, "an index of keys", g->n_kv * sizeof *v);
    }
    g->index->kv = v;
    for (size_t i = 0; i < g->n_kv; i++) {
        v[i] = &g->kv[i];
    }
    qsort(v, g->n_kv, sizeof *v, compare_kv);
    for (size_t i = 1; i < g->n_kv; i++) {
        if (compare_str(v[i - 1]->key, v[i]->key) == 0) {
            char key[64];
            return cmc_fail(r->err, CMC_E_FORMAT, "%s: key '%s' is there twice", r->path, gguf_show(v[i]->key, key));
        }
    }
    return CMC_OK;
}

static cmc_status index_tensors(reader *r) {
    gguf *g = r->g;
    const gguf_tensor **v = cmc_alloc(g->n_tensors, sizeof *v);
    if (v == NULL) {
        return cmc_fail_nomem(r->err, "an index of tensors", g->n_tensors * sizeof *v);
    }
    g->index->tensors = v;
    for (size_t i = 0; i < g->n_tensors; i++) {
        v[i] = &g->tensors[i];
    }
    qsort(v, g->n_tensors, sizeof *v, compare_tensor);
    for (size_t i = 1; i < g->n_tensors; i++) {
        if (compare_str(v[i - 1]->name, v[i]->name) == 0) {
            char name[64];
            return cmc_fail(r->err, CMC_E_FORMAT, "%s: tensor '%s' is there twice", r->path,
                            gguf_show(v[i]->name, name));
        }
    }
    return CMC_OK;
}

const gguf_kv *gguf_find(const gguf *g, const char *key) {
    gguf_kv wanted = {.key = {key, strlen(key)}};
    const gguf_kv *p = &wanted;
    const gguf_kv **found = bsearch(&p, g->index->kv, g->n_kv, sizeof p, compare_kv);
    return found != NULL ? *found : NULL;
}

const gguf_tensor *gguf_find_tensor(const gguf *g, const char *name) {
    gguf_tensor wanted = {.name = {name, strlen(name)}};
    const gguf_tensor *p = &wanted;
    const gguf_tensor **found = bsearch(&p, g->index->tensors, g->n_tensors, sizeof p, compare_tensor);
    return found != NULL ? *found : NULL;
}

/* ------------------------------------------------------------------------------------------------- open, free */

static cmc_status read_all(reader *r) {
    uint64_t n_tensors, n_kv;
    CMC_TRY(read_head(r, &n_tensors, &n_kv));
    CMC_TRY(read_keys(r, n_kv));
    CMC_TRY(index_keys(r));
    CMC_TRY(read_tensors(r, n_tensors));
    CMC_TRY(index_tensors(r));
    return place_tensors(r);
}

/* Takes over `file`, whatever happens. */
static cmc_status open_mapped(cmc_file file, gguf **out, cmc_error *err) {
    gguf *g = cmc_calloc(1, sizeof *g);
    struct gguf_index *index = cmc_calloc(1, sizeof *index);
    if (g == NULL || index == NULL) {
        free(g);
        free(index);
        cmc_file_unmap(&file);
        return cmc_fail_nomem(err, "a file's header", sizeof *g);
    }
    g->file = file;
    g->index = index;
    reader r = {.g = g, .err = err, .path = file.path, .data = file.data, .size = file.size};
    cmc_status status = read_all(&r);
    if (status != CMC_OK) {
        gguf_free(g);
        return status;
    }
    *out = g;
    return CMC_OK;
}

cmc_status gguf_open(const char *path, gguf **out, cmc_error *err) {
    *out = NULL;
    cmc_file file;
    CMC_TRY(cmc_file_map(path, &file, err));
    return open_mapped(file, out, err);
}

cmc_status gguf_open_memory(const uint8_t *data, size_t size, const char *name, gguf **out, cmc_error *err) {
    *out = NULL;
    cmc_file file = {.data = data, .size = size, .path = cmc_strndup(name, strlen(name)), .borrowed = true};
    if (file.path == NULL) {
        return cmc_fail_nomem(err, "a name", strlen(name));
    }
    return open_mapped(file, out, err);
}

void gguf_free(gguf *g) {
    if (g == NULL) {
        return;
    }
    cmc_file_unmap(&g->file);
    free(g->index->kv);
    free(g->index->tensors);
    free(g->index);
    free(g->kv);
    free(g->tensors);
    free(g);
}
