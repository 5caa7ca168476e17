/* The keys and values of one sequence, in chunks that are added as it grows and never move. */
#ifndef CMC_RUNTIME_KV_H
#define CMC_RUNTIME_KV_H
#include "runtime/vec.h"

#include "base/error.h"

#define KV_CHUNK 128  /* positions in a chunk, a multiple of VEC_PANEL */

/* float16 is half the memory of float32, and half of what has to be read of a long context; int8, a scale for every KV_BLOCK
 * dimensions of a position, a little more than half of that. */
typedef enum kv_type { KV_FLOAT, KV_HALF, KV_INT8 } kv_type;
enum { KV_BLOCK = 32 };

/* In a chunk, for each layer and K/V head: keys as panels [KV_CHUNK/16][head_k][16 positions], then values as panels
 * [ceil(head_v/16)][KV_CHUNK][16 dimensions]. So both scores (Q K) and outputs (P V) are products with contiguous panels
 * of 16 columns, and reading one head's positions touches nothing else. Behind int8 keys their scales as floats,
 * [ceil(head_k/32)][KV_CHUNK], and behind values likewise theirs. */
typedef struct kv_shape {
    size_t n_layer, n_head_kv, head_k, head_v;
    kv_type type;
    size_t k_bytes, v_bytes;     /* of one layer and head in a chunk */
    size_t chunk_bytes;
} kv_shape;

typedef struct kv_cache {
    kv_shape shape;
    uint8_t **chunk;
    size_t n_chunks, cap;
} kv_cache;

kv_shape kv_shape_of(size_t n_layer, size_t n_head_kv, size_t head_k, size_t head_v, kv_type type);
/* Bytes that n_pos positions take. */
uint64_t kv_bytes(const kv_shape *s, size_t n_pos);
/* Makes room for n_pos positions. */
cmc_status kv_reserve(kv_cache *kv, size_t n_pos, cmc_error *err);
/* Gives back the chunks that n_pos positions do not need. */
void kv_trim(kv_cache *kv, size_t n_pos);
/* Copies positions [0, n_pos) of `from` into `to`, which is empty and of the same shape. */
cmc_status kv_copy(kv_cache *to, const kv_cache *from, size_t n_pos, cmc_error *err);
void kv_free(kv_cache *kv);

/* The key and value panels of a layer and head in the chunk that holds position pos. */
static inline uint8_t *kv_keys(const kv_cache *kv, size_t layer, size_t head, size_t pos) {
    const size_t at = (layer * kv->shape.n_head_kv + head) * (kv->shape.k_bytes + kv->shape.v_bytes);
    return kv->chunk[pos / KV_CHUNK] + at;
}
static inline uint8_t *kv_values(const kv_cache *kv, size_t layer, size_t head, size_t pos) {
    return kv_keys(kv, layer, head, pos) + kv->shape.k_bytes;
}
/* Of int8 keys, or values, their scales; block b's of all positions of the chunk are [b * KV_CHUNK, ...). */
static inline float *kv_key_scales(const kv_shape *s, uint8_t *keys) { return (float *)(void *)(keys + KV_CHUNK * s->head_k); }
static inline float *kv_value_scales(const kv_shape *s, uint8_t *values) {
    return (float *)(void *)(values + KV_CHUNK * ((s->head_v + VEC_PANEL - 1) / VEC_PANEL * VEC_PANEL));
}
/* Stores the key k[head_k] and the value v[head_v] of one position. */
void kv_store(kv_cache *kv, const vec_ops *vec, size_t layer, size_t head, size_t pos, const float *k, const float *v);
#endif
