/* Writing a GGUF file: keys are laid out as they are put, tensors when the file is saved. */
#include "base/gguf.h"
#include "base/error.h"
#include "base/gguf_read.h"
#include "base/mem.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

enum { VERSION = 3, DEFAULT_ALIGNMENT = 32, MAX_ALIGNMENT = 1 << 16 };

typedef struct out_tensor { char *name; uint32_t type, n_dims; uint64_t ne[4], bytes; const void *data; } out_tensor;

struct gguf_writer {
    uint8_t *keys;               /* the key-value section, as it will be in the file */
    size_t n_bytes, cap_bytes;
    char **names;                /* keys, to find duplicates */
    size_t n_keys, cap_names;
    out_tensor *tensors;
    size_t n_tensors, cap_tensors;
    uint64_t align;
    cmc_error error;             /* the first failure; save reports it */
};

gguf_writer *gguf_writer_new(void) {
    gguf_writer *w = cmc_calloc(1, sizeof *w);
    if (w != NULL) {
        w->align = DEFAULT_ALIGNMENT;
    }
    return w;
}

void gguf_writer_free(gguf_writer *w) {
    if (w == NULL) {
        return;
    }
    for (size_t i = 0; i < w->n_keys; i++) {
        free(w->names[i]);
    }
    for (size_t i = 0; i < w->n_tensors; i++) {
        free(w->tensors[i].name);
    }
    free(w->names);
    free(w->tensors);
    free(w->keys);
    free(w);
}

static bool put_failed(gguf_writer *w) {
    if (w->error.status == CMC_OK) {
        cmc_fail_nomem(&w->error, "a file's header", w->n_bytes);
    }
    return false;
}

/* The caller's mistake, as against memory. */
static bool put_refused(gguf_writer *w, const char *what, const char *name) {
    if (w->error.status == CMC_OK) {
        cmc_fail(&w->error, CMC_E_ARG, "%s '%s' has a type or shape that cannot be written", what, name);
    }
    return false;
}

static void store_u32(uint8_t *p, uint32_t v) {
    for (int i = 0; i < 4; i++) {
        p[i] = (uint8_t)(v >> 8 * i);
    }
}

static void store_u64(uint8_t *p, uint64_t v) {
    store_u32(p, (uint32_t)v);
    store_u32(p + 4, (uint32_t)(v >> 32));
}

static bool put_bytes(gguf_writer *w, const void *data, size_t n) {
    void *v = w->keys;
    if (n > SIZE_MAX - w->n_bytes || !cmc_grow(&v, &w->cap_bytes, w->n_bytes + n, 1)) {
        return put_failed(w);
    }
    w->keys = v;
    if (n > 0) {
        memcpy(w->keys + w->n_bytes, data, n);
        w->n_bytes += n;
    }
    return true;
}

static bool put_u32(gguf_writer *w, uint32_t v) {
    uint8_t b[4];
    store_u32(b, v);
    return put_bytes(w, b, sizeof b);
}

static bool put_u64(gguf_writer *w, uint64_t v) {
    uint8_t b[8];
    store_u64(b, v);
    return put_bytes(w, b, sizeof b);
}

static bool put_string(gguf_writer *w, const char *s, size_t n) { return put_u64(w, n) && put_bytes(w, s, n); }

static bool put_key(gguf_writer *w, const char *key, size_t n, gguf_vtype type) {
    void *v = w->names;
    char *name = cmc_strndup(key, n);
    if (name == NULL || !cmc_grow(&v, &w->cap_names, w->n_keys + 1, sizeof *w->names)) {
        free(name);
        return put_failed(w);
    }
    w->names = v;
    w->names[w->n_keys++] = name;
    return put_string(w, key, n) && put_u32(w, type);
}

static bool put_value(gguf_writer *w, const char *key, gguf_vtype type, const void *value, size_t n) {
    return put_key(w, key, strlen(key), type) && put_bytes(w, value, n);
}

/* The file is laid out by the alignment that it claims. */
static void note_alignment(gguf_writer *w, gguf_str key, uint64_t v) {
    static const char name[] = "general.alignment";
    if (key.n != sizeof name - 1 || memcmp(key.s, name, key.n) != 0) {
        return;
    }
    if (v < 8 || v > MAX_ALIGNMENT || (v & (v - 1)) != 0) {
        if (w->error.status == CMC_OK) {
            cmc_fail(&w->error, CMC_E_ARG,
                     "general.alignment is %" PRIu64 ", a power of two from 8 to %d would be right", v, MAX_ALIGNMENT);
        }
        return;
    }
    w->align = v;
}

bool gguf_put_u32(gguf_writer *w, const char *key, uint32_t v) {
    uint8_t b[4];
    store_u32(b, v);
    note_alignment(w, (gguf_str){key, strlen(key)}, v);
    return put_value(w, key, GGUF_U32, b, sizeof b);
}

bool gguf_put_u64(gguf_writer *w, const char *key, uint64_t v) {
    uint8_t b[8];
    store_u64(b, v);
    note_alignment(w, (gguf_str){key, strlen(key)}, v);
    return put_value(w, key, GGUF_U64, b, sizeof b);
}

bool gguf_put_f32(gguf_writer *w, const char *key, float v) {
    uint32_t bits;
    uint8_t b[4];
    memcpy(&bits, &v, sizeof bits);
    store_u32(b, bits);
    return put_value(w, key, GGUF_F32, b, sizeof b);
}

bool gguf_put_f64(gguf_writer *w, const char *key, double v) {
    uint64_t bits;
    uint8_t b[8];
    memcpy(&bits, &v, sizeof bits);
    store_u64(b, bits);
    return put_value(w, key, GGUF_F64, b, sizeof b);
}

bool gguf_put_bool(gguf_writer *w, const char *key, bool v) {
    uint8_t b = v;
    return put_value(w, key, GGUF_BOOL, &b, 1);
}

bool gguf_put_str(gguf_writer *w, const char *key, const char *s, size_t n) {
    return put_key(w, key, strlen(key), GGUF_STRING) && put_string(w, s, n);
}

/* `data` is in the machine's order; the file is little-endian. */
bool gguf_put_array(gguf_writer *w, const char *key, gguf_vtype elem, const void *data, uint64_t n) {
    size_t size = gguf_value_bytes(elem);
    if (size == 0 || n > SIZE_MAX / size) {
        return put_refused(w, "array", key);
    }
    if (!put_key(w, key, strlen(key), GGUF_ARRAY) || !put_u32(w, elem) || !put_u64(w, n)) {
        return false;
    }
#if __BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__
    return put_bytes(w, data, (size_t)n * size);
#else
    for (size_t i = 0; i < n; i++) {
        uint8_t b[8];
        for (size_t j = 0; j < size; j++) {
            b[j] = ((const uint8_t *)data)[i * size + size - 1 - j];
        }
        if (!put_bytes(w, b, size)) {
            return false;
        }
    }
    return true;
#endif
}

bool gguf_put_str_array(gguf_writer *w, const char *key, const gguf_str *v, uint64_t n) {
    if (!put_key(w, key, strlen(key), GGUF_ARRAY) || !put_u32(w, GGUF_STRING) || !put_u64(w, n)) {
        return false;
    }
    for (uint64_t i = 0; i < n; i++) {
        if (!put_string(w, v[i].s, v[i].n)) {
            return false;
        }
    }
    return true;
}

bool gguf_put_kv(gguf_writer *w, const gguf_kv *kv) {
    size_t bytes = (size_t)kv->n * gguf_value_bytes(kv->elem);
    if (kv->elem == GGUF_STRING) {
        const uint8_t *pos = kv->data;
        for (uint64_t i = 0; i < kv->n; i++) {
            gguf_array_next_str(kv, &pos);
        }
        bytes = (size_t)(pos - kv->data);
    }
    if (kv->type == GGUF_U32 || kv->type == GGUF_U64) {
        note_alignment(w, kv->key, kv->type == GGUF_U32 ? read_u32(kv->data) : read_u64(kv->data));
    }
    if (!put_key(w, kv->key.s, kv->key.n, kv->type)) {
        return false;
    }
    if (kv->type == GGUF_ARRAY && (!put_u32(w, kv->elem) || !put_u64(w, kv->n))) {
        return false;
    }
    return put_bytes(w, kv->data, bytes);
}

static bool tensor_bytes(uint32_t type, const uint64_t *ne, uint32_t n_dims, uint64_t *bytes) {
    size_t block = cmc_type_block(type);
    if (block == 0 || n_dims < 1 || n_dims > 4 || ne[0] % block != 0) {
        return false;
    }
    *bytes = cmc_type_block_bytes(type);
    for (uint32_t i = 0; i < n_dims; i++) {
        if (ne[i] == 0 || __builtin_mul_overflow(*bytes, i == 0 ? ne[i] / block : ne[i], bytes)) {
            return false;
        }
    }
    return *bytes <= INT64_MAX;
}

bool gguf_put_tensor(gguf_writer *w, const char *name, uint32_t type, const uint64_t *ne, uint32_t n_dims,
                     const void *data) {
    out_tensor t = {.type = type, .n_dims = n_dims, .ne = {1, 1, 1, 1}, .data = data};
    if (!tensor_bytes(type, ne, n_dims, &t.bytes)) {
        return put_refused(w, "tensor", name);
    }
    memcpy(t.ne, ne, n_dims * sizeof *ne);
    void *v = w->tensors;
    t.name = cmc_strndup(name, strlen(name));
    if (t.name == NULL || !cmc_grow(&v, &w->cap_tensors, w->n_tensors + 1, sizeof t)) {
        free(t.name);
        return put_failed(w);
    }
    w->tensors = v;
    w->tensors[w->n_tensors++] = t;
    return true;
}

/* ------------------------------------------------------------------------------------------------------ saving */

static int compare_names(const void *a, const void *b) {
    return strcmp(*(const char *const *)a, *(const char *const *)b);
}

/* A name that is there twice would make a file that no reader takes. `names` is sorted on the way. */
static cmc_status check_twice(const char **names, size_t n, const char *what, const char *path, cmc_error *err) {
    qsort(names, n, sizeof *names, compare_names);
    for (size_t i = 0; i < n; i++) {
        if (names[i][0] == '\0') {
            return cmc_fail(err, CMC_E_ARG, "%s: a %s was put without a name", path, what);
        }
        if (i > 0 && strcmp(names[i - 1], names[i]) == 0) {
            return cmc_fail(err, CMC_E_ARG, "%s: %s '%s' was put twice", path, what, names[i]);
        }
    }
    return CMC_OK;
}

static cmc_status check_names(const gguf_writer *w, const char *path, cmc_error *err) {
    size_t n = w->n_keys > w->n_tensors ? w->n_keys : w->n_tensors;
    const char **names = cmc_alloc(n, sizeof *names);
    if (names == NULL) {
        return cmc_fail_nomem(err, "a table of names", n * sizeof *names);
    }
    for (size_t i = 0; i < w->n_keys; i++) {
        names[i] = w->names[i];
    }
    cmc_status status = check_twice(names, w->n_keys, "key", path, err);
    for (size_t i = 0; i < w->n_tensors; i++) {
        names[i] = w->tensors[i].name;
    }
    if (status == CMC_OK) {
        status = check_twice(names, w->n_tensors, "tensor", path, err);
    }
    free(names);
    return status;
}

static cmc_status save_u32(cmc_writer *f, uint32_t v, cmc_error *err) {
    uint8_t b[4];
    store_u32(b, v);
    return cmc_writer_put(f, b, sizeof b, err);
}

static cmc_status save_u64(cmc_writer *f, uint64_t v, cmc_error *err) {
    uint8_t b[8];
    store_u64(b, v);
    return cmc_writer_put(f, b, sizeof b, err);
}

static cmc_status save_padding(const gguf_writer *w, cmc_writer *f, cmc_error *err) {
    static const uint8_t zeros[256];
    for (uint64_t n = (w->align - cmc_writer_offset(f) % w->align) % w->align; n > 0;) {
        size_t part = n < sizeof zeros ? (size_t)n : sizeof zeros;
        CMC_TRY(cmc_writer_put(f, zeros, part, err));
        n -= part;
    }
    return CMC_OK;
}

static cmc_status save_tensor_info(const out_tensor *t, uint64_t offset, cmc_writer *f, cmc_error *err) {
    size_t n = strlen(t->name);
    CMC_TRY(save_u64(f, n, err));
    CMC_TRY(cmc_writer_put(f, t->name, n, err));
    CMC_TRY(save_u32(f, t->n_dims, err));
    for (uint32_t i = 0; i < t->n_dims; i++) {
        CMC_TRY(save_u64(f, t->ne[i], err));
    }
    CMC_TRY(save_u32(f, t->type, err));
    return save_u64(f, offset, err);
}

static cmc_status save_all(const gguf_writer *w, cmc_writer *f, cmc_error *err) {
    CMC_TRY(cmc_writer_put(f, "GGUF", 4, err));
    CMC_TRY(save_u32(f, VERSION, err));
    CMC_TRY(save_u64(f, w->n_tensors, err));
    CMC_TRY(save_u64(f, w->n_keys, err));
    CMC_TRY(cmc_writer_put(f, w->keys, w->n_bytes, err));
    uint64_t offset = 0;
    for (size_t i = 0; i < w->n_tensors; i++) {
        CMC_TRY(save_tensor_info(&w->tensors[i], offset, f, err));
        offset += (w->tensors[i].bytes + w->align - 1) / w->align * w->align;
    }
    CMC_TRY(save_padding(w, f, err));
    for (size_t i = 0; i < w->n_tensors; i++) {
        CMC_TRY(cmc_writer_put(f, w->tensors[i].data, (size_t)w->tensors[i].bytes, err));
        CMC_TRY(save_padding(w, f, err));
    }
    return CMC_OK;
}

cmc_status gguf_writer_save(gguf_writer *w, const char *path, cmc_error *err) {
    if (w->error.status != CMC_OK) {
        return cmc_fail(err, w->error.status, "%s: %s", path, w->error.message);
    }
    CMC_TRY(check_names(w, path, err));
    cmc_writer *f;
    CMC_TRY(cmc_writer_open(path, &f, err));
    cmc_status status = save_all(w, f, err);
    if (status != CMC_OK) {
        cmc_writer_abort(f);
        return status;
    }
    return cmc_writer_commit(f, err);
}

cmc_status gguf_writer_end(gguf_writer *w, bool ok, const char *what, size_t bytes, const char *path, cmc_error *err) {
    if (w == NULL || (!ok && w->error.status == CMC_OK)) {
        return cmc_fail_nomem(err, what, bytes);
    }
    return gguf_writer_save(w, path, err);
}
