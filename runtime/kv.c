/* The keys and values of one sequence: room, storing, copying. */
#include "runtime/kv.h"

#include <stdlib.h>
#include <string.h>

#include "base/mem.h"

kv_shape kv_shape_of(size_t n_layer, size_t n_head_kv, size_t head_k, size_t head_v) {
    kv_shape s = {.n_layer = n_layer, .n_head_kv = n_head_kv, .head_k = head_k, .head_v = head_v};
    s.k_floats = (size_t)KV_CHUNK * head_k;
    s.v_floats = (size_t)KV_CHUNK * ((head_v + VEC_PANEL - 1) / VEC_PANEL * VEC_PANEL);
    s.chunk_floats = n_layer * n_head_kv * (s.k_floats + s.v_floats);
    return s;
}

uint64_t kv_bytes(const kv_shape *s, size_t n_pos) {
    return (uint64_t)((n_pos + KV_CHUNK - 1) / KV_CHUNK) * s->chunk_floats * sizeof(float);
}

/* Memory that is zero, so that lanes past the last position hold numbers; the system hands such pages out lazily. */
static float *kv_chunk_new(const kv_shape *s) {
    return cmc_calloc(s->chunk_floats, sizeof(float));
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
        float *c = kv_chunk_new(&kv->shape);
        if (!c)
            return cmc_fail_nomem(err, "keys and values", kv->shape.chunk_floats * sizeof(float));
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
static void kv_copy_chunk(const kv_shape *s, float *to, const float *from, size_t n) {
    const size_t keys = (n + VEC_PANEL - 1) / VEC_PANEL * VEC_PANEL * s->head_k;
    const size_t stride = (size_t)KV_CHUNK * VEC_PANEL;
    for (size_t i = 0; i < s->n_layer * s->n_head_kv; i++) {
        const size_t at = i * (s->k_floats + s->v_floats);
        memcpy(to + at, from + at, keys * sizeof(float));
        for (size_t p = 0; p < s->v_floats; p += stride)
            memcpy(to + at + s->k_floats + p, from + at + s->k_floats + p, n * VEC_PANEL * sizeof(float));
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

void kv_store(kv_cache *kv, size_t layer, size_t head, size_t pos, const float *k, const float *v) {
    const kv_shape *s = &kv->shape;
    const size_t at = pos % KV_CHUNK;
    float *keys = kv_keys(kv, layer, head, pos) + at / VEC_PANEL * VEC_PANEL * s->head_k + at % VEC_PANEL;
    for (size_t d = 0; d < s->head_k; d++)
        keys[d * VEC_PANEL] = k[d];
    float *values = kv_values(kv, layer, head, pos) + at * VEC_PANEL;
    for (size_t d = 0; d < s->head_v; d += VEC_PANEL) {
        const size_t n = s->head_v - d < VEC_PANEL ? s->head_v - d : VEC_PANEL;
        memcpy(values + d * KV_CHUNK, v + d, n * sizeof(float));
    }
}
