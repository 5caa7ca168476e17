/* The keys and values of one sequence: room, storing, copying. */
#include "runtime/kv.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "base/mem.h"

static const float KV_TINY = 1e-30f;   /* of smaller numbers 127 / most is none */

static size_t kv_elem(const kv_shape *s) {
    return s->type == KV_INT8 ? sizeof(int8_t) : s->type == KV_HALF ? sizeof(uint16_t) : sizeof(float);
}

static size_t kv_blocks(size_t dims) {
    return (dims + KV_BLOCK - 1) / KV_BLOCK;
}

/* Of keys or values in a chunk, `dims` of each of which are wanted and `room` stored. */
static size_t kv_part_bytes(const kv_shape *s, size_t dims, size_t room) {
    return KV_CHUNK * (room * kv_elem(s) + (s->type == KV_INT8 ? kv_blocks(dims) * sizeof(float) : 0));
}

kv_shape kv_shape_of(size_t n_layer, size_t n_head_kv, size_t head_k, size_t head_v, kv_type type) {
    kv_shape s = {.n_layer = n_layer, .n_head_kv = n_head_kv, .head_k = head_k, .head_v = head_v, .type = type};
    s.k_bytes = kv_part_bytes(&s, head_k, head_k);
    s.v_bytes = kv_part_bytes(&s, head_v, (head_v + VEC_PANEL - 1) / VEC_PANEL * VEC_PANEL);
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

/* The first n positions of one chunk: whole panels of keys, then the same positions of each panel of values. What has scales goes as
 * a whole: positions behind the first n are written before they count. */
static void kv_copy_chunk(const kv_shape *s, uint8_t *to, const uint8_t *from, size_t n) {
    if (s->type == KV_INT8) {
        memcpy(to, from, s->chunk_bytes);
        return;
    }
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

/* q[n] = x / scale, to nearest, of at most KV_BLOCK dimensions; gives the scale. What is no number makes it none, so that it is not
 * lost. */
static float kv_quantise(const float *x, size_t n, int8_t *q) {
    float most = 0.0f;
    bool finite = true;
    for (size_t i = 0; i < n; i++) {
        most = fmaxf(most, fabsf(x[i]));
        finite = finite && isfinite(x[i]);
    }
    const float by = finite && most > KV_TINY ? 127.0f / most : 0.0f;
    for (size_t i = 0; i < n; i++)
        q[i] = by > 0.0f ? (int8_t)lrintf(x[i] * by) : 0;
    return !finite ? NAN : by > 0.0f ? most / 127.0f : 0.0f;
}

/* `stride` apart from one dimension to the next, panels of VEC_PANEL dimensions `panel` apart. */
static void kv_put_int8(int8_t *to, size_t stride, size_t panel, float *scales, size_t at, const float *x, size_t n) {
    for (size_t d = 0; d < n; d += KV_BLOCK) {
        int8_t q[KV_BLOCK];
        const size_t some = n - d < KV_BLOCK ? n - d : KV_BLOCK;
        scales[d / KV_BLOCK * KV_CHUNK + at] = kv_quantise(x + d, some, q);
        for (size_t i = 0; i < some; i++)
            to[(d + i) / VEC_PANEL * panel + (d + i) % VEC_PANEL * stride] = q[i];
    }
}

void kv_store(kv_cache *kv, const vec_ops *vec, size_t layer, size_t head, size_t pos, const float *k, const float *v) {
    const kv_shape *s = &kv->shape;
    uint8_t *keys = kv_keys(kv, layer, head, pos), *values = kv_values(kv, layer, head, pos);
    const size_t at = pos % KV_CHUNK;
    switch (s->type) {
    case KV_HALF: kv_put_half(s, vec, (uint16_t *)(void *)keys, (uint16_t *)(void *)values, at, k, v); break;
    case KV_INT8:
        kv_put_int8((int8_t *)keys + at / VEC_PANEL * VEC_PANEL * s->head_k + at % VEC_PANEL, VEC_PANEL, VEC_PANEL * VEC_PANEL,
                    kv_key_scales(s, keys), at, k, s->head_k);
        kv_put_int8((int8_t *)values + at * VEC_PANEL, 1, KV_CHUNK * VEC_PANEL, kv_value_scales(s, values), at, v, s->head_v);
        break;
    case KV_FLOAT: kv_put_float(s, (float *)(void *)keys, (float *)(void *)values, at, k, v); break;
    }
}
