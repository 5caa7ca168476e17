/* Reads everything that an opened GGUF file offers, so that a sanitizer sees any read out of bounds. All here, since a
 * fuzz target is one file. */
#ifndef CMC_TESTS_GGUF_WALK_H
#define CMC_TESTS_GGUF_WALK_H
#include "base/gguf.h"
#include "base/mem.h"

#include <stdlib.h>
#include <string.h>

#define PROMISE(condition) do { if (!(condition)) { abort(); } } while (0)

static inline uint64_t sum_bytes(const void *data, size_t n) {
    uint64_t sum = n;
    for (size_t i = 0; i < n; i++) {
        sum = sum * 31 + ((const uint8_t *)data)[i];
    }
    return sum;
}

/* Through the getters, by a NUL-terminated copy of the name. */
static inline uint64_t walk_getters(const gguf *g, const gguf_kv *kv) {
    char *key = cmc_strndup(kv->key.s, kv->key.n);
    PROMISE(key != NULL);
    uint64_t sum = 0, u;
    double f;
    bool b;
    gguf_str s;
    cmc_error err = {0};
    PROMISE(gguf_find(g, key) == kv);
    sum += gguf_get_u64(g, key, &u) ? u : 1;
    sum += gguf_get_f64(g, key, &f) && f == f;
    sum += gguf_get_bool(g, key, &b) ? b : 3;
    sum += gguf_get_str(g, key, &s) ? sum_bytes(s.s, s.n) : 5;
    PROMISE(gguf_need_u64(g, key, 1, 100, &u, &err) != CMC_OK || (u >= 1 && u <= 100));
    PROMISE(gguf_need_f64(g, key, &f, &err) != CMC_OK || f - f == 0);
    free(key);
    return sum;
}

static inline uint64_t walk_key(const gguf *g, const gguf_kv *kv) {
    uint64_t sum = walk_getters(g, kv) + sum_bytes(kv->key.s, kv->key.n);
    const uint8_t *pos = NULL, *end = g->file.data + g->file.size;
    for (uint64_t i = 0; i < kv->n; i++) {
        if (kv->elem == GGUF_STRING) {
            gguf_str s = gguf_array_next_str(kv, &pos);
            PROMISE((const uint8_t *)s.s >= g->file.data && s.n <= (size_t)(end - (const uint8_t *)s.s));
            sum += sum_bytes(s.s, s.n);
        } else {
            sum += (uint64_t)gguf_array_i64(kv, i) + (gguf_array_f64(kv, i) > 0);
        }
    }
    return sum;
}

static inline uint64_t walk_tensor(const gguf *g, const gguf_tensor *t) {
    uint64_t elements = 1;
    PROMISE(t->n_dims >= 1 && t->n_dims <= 4 && t->name.n > 0);
    for (int i = 0; i < 4; i++) {
        PROMISE(t->ne[i] > 0 && t->ne[i] <= INT64_MAX / elements);
        elements *= t->ne[i];
    }
    PROMISE(t->offset >= g->header_bytes && t->offset <= g->file.size);
    if (t->data == NULL) {
        PROMISE(!cmc_type_supported(t->type));
        return sum_bytes(t->name.s, t->name.n);
    }
    PROMISE(t->data == g->file.data + t->offset && t->bytes <= g->file.size - t->offset);
    PROMISE(t->bytes == elements / t->ne[0] * cmc_type_row_bytes(t->type, t->ne[0]));
    return sum_bytes(t->name.s, t->name.n) + sum_bytes(t->data, t->bytes);
}

/* A value that hangs on every byte read; aborts where the file breaks what gguf.h promises. */
static inline uint64_t gguf_walk(const gguf *g) {
    uint64_t sum = g->version;
    PROMISE(g->header_bytes <= g->file.size);
    for (size_t i = 0; i < g->n_kv; i++) {
        sum = sum * 31 + walk_key(g, &g->kv[i]);
    }
    for (size_t i = 0; i < g->n_tensors; i++) {
        char *name = cmc_strndup(g->tensors[i].name.s, g->tensors[i].name.n);
        PROMISE(name != NULL && gguf_find_tensor(g, name) == &g->tensors[i]);
        free(name);
        sum = sum * 31 + walk_tensor(g, &g->tensors[i]);
    }
    PROMISE(gguf_find(g, "no such key, surely") == NULL && gguf_find_tensor(g, "") == NULL);
    return sum;
}
#endif
