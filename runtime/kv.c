/* The keys and values of one sequence: room, storing, copying. */
#include "runtime/kv.h"

#include <stdlib.h>
#include <string.h>

#include "base/mem.h"

static size_t kv_elem(const kv_shape *s) {
    return s->half ? sizeof(uint16_t) : sizeof(float);
}

kv_shape kv_shape_of(size_t n_layer, size_t n_head_kv, size_t head_k, size_t head_v, bool half) {
    kv_shape s = {.n_layer = n_layer, .n_head_kv = n_head_kv, .head_k = head_k, .head_v = head_v, .half = half};
    s.k_bytes = (size_t)KV_CHUNK * head_k * kv_elem(&s);
    s.v_bytes = (size_t)KV_CHUNK * ((head_v + VEC_PANEL - 1) / VEC_PANEL * VEC_PANEL) * kv_elem(&s);
    s.chunk_bytes = n_layer * n_head_kv * (s.k_bytes + s.v_bytes);
    return s;
}

uint64_t kv_bytes(const kv_shape *s, size_t n_pos) {
    return (uint64_t)((n_pos + KV_CHUNK - 1) / KV_CHUNK) * s->chunk_bytes;
}

/* Memory that is zero, so that lanes past the last position hold numbers; the system hands such pages out lazily. */
static uint8_t *kv_chunk_new(const kv_shape *s) {
    return cmc_calloc(s->chunk_bytes, 1);
}

cmc_status kv_reserve(kv_cache *kv, size_t n_pos, cmc_error *err) {
    const size_t need = (n_pos + KV_CHUNK - 1) / KV_CHUNK;
    if (need > kv->cap) {
        void *list = kv->chunk;
        if (!cmc_grow(&list, &kv->cap, need, sizeof *kv->chunk))
            return cmc_fail_nomem(err, "the list of a context's chunks", need * sizeof *kv->chunk);
        kv->chunk = list;
    }
    while (kv->n_chunks < need) {
        uint8_t *c = kv_chunk_new(&kv->shape);
        if (!c)
            return cmc_fail_nomem(err, "keys and values", kv->shape.chunk_bytes);
        kv->chunk[kv->n_chunks++] = c;
    }
    return CMC_OK;
}

void kv_trim(kv_cache *kv, size_t n_pos) {
    const size_t keep = (n_pos + KV_CHUNK - 1) / KV_CHUNK;
    while (kv->n_chunks > keep)
        free(kv->chunk[--kv->n_chunks]);
}

/* The first n positions of one chunk: whole panels of keys, then the same positions of each panel of values. */
static void kv_copy_chunk(const kv_shape *s, uint8_t *to, const uint8_t *from, size_t n) {
    const size_t keys = (n + VEC_PANEL - 1) / VEC_PANEL * VEC_PANEL * s->head_k * kv_elem(s);
    const size_t row = VEC_PANEL * kv_elem(s), stride = (size_t)KV_CHUNK * row;
    for (size_t i = 0; i < s->n_layer * s->n_head_kv; i++) {
        const size_t at = i * (s->k_bytes + s->v_bytes);
        memcpy(to + at, from + at, keys);
        for (size_t p = 0; p < s->v_bytes; p += stride)
            memcpy(to + at + s->k_bytes + p, from + at + s->k_bytes + p, n * row);
    }
}

cmc_status kv_copy(kv_cache *to, const kv_cache *from, size_t n_pos, cmc_error *err) {
    CMC_TRY(kv_reserve(to, n_pos, err));
    for (size_t pos = 0; pos < n_pos; pos += KV_CHUNK) {
        const size_t n = n_pos - pos < KV_CHUNK ? n_pos - pos : KV_CHUNK;
        kv_copy_chunk(&to->shape, to->chunk[pos / KV_CHUNK], from->chunk[pos / KV_CHUNK], n);
    }
    return CMC_OK;
}

void kv_free(kv_cache *kv) {
    kv_trim(kv, 0);
    free(kv->chunk);
    kv->chunk = NULL;
    kv->cap = 0;
}

/* Position `at` of a chunk: a key's dimensions are VEC_PANEL apart, a value's side by side in panels. */
static void kv_put_float(const kv_shape *s, float *keys, float *values, size_t at, const float *k, const float *v) {
    keys += at / VEC_PANEL * VEC_PANEL * s->head_k + at % VEC_PANEL;
    for (size_t d = 0; d < s->head_k; d++)
        keys[d * VEC_PANEL] = k[d];
    for (size_t d = 0; d < s->head_v; d += VEC_PANEL)
        memcpy(values + d * KV_CHUNK + at * VEC_PANEL, v + d, (s->head_v - d < VEC_PANEL ? s->head_v - d : VEC_PANEL) * sizeof *v);
}

static void kv_put_half(const kv_shape *s, const vec_ops *vec, uint16_t *keys, uint16_t *values, size_t at, const float *k,
                        const float *v) {
    keys += at / VEC_PANEL * VEC_PANEL * s->head_k + at % VEC_PANEL;
    for (size_t d = 0; d < s->head_k; d += VEC_PANEL) {
        const size_t n = s->head_k - d < VEC_PANEL ? s->head_k - d : VEC_PANEL;
        uint16_t some[VEC_PANEL];
        vec->to_half(some, k + d, n);
        for (size_t i = 0; i < n; i++)
            keys[(d + i) * VEC_PANEL] = some[i];
    }
    for (size_t d = 0; d < s->head_v; d += VEC_PANEL)
        vec->to_half(values + d * KV_CHUNK + at * VEC_PANEL, v + d, s->head_v - d < VEC_PANEL ? s->head_v - d : VEC_PANEL);
}

void kv_store(kv_cache *kv, const vec_ops *vec, size_t layer, size_t head, size_t pos, const float *k, const float *v) {
    void *keys = kv_keys(kv, layer, head, pos), *values = kv_values(kv, layer, head, pos);
    if (kv->shape.half)
        kv_put_half(&kv->shape, vec, keys, values, pos % KV_CHUNK, k, v);
    else
        kv_put_float(&kv->shape, keys, values, pos % KV_CHUNK, k, v);
}
