/* The keys and values of one sequence, in chunks that are added as it grows and never move. */
#ifndef CMC_RUNTIME_KV_H
#define CMC_RUNTIME_KV_H
#include "runtime/vec.h"

#include "base/error.h"

#define KV_CHUNK 128  /* positions in a chunk, a multiple of VEC_PANEL */

/* In a chunk, for each layer and K/V head: keys as panels [KV_CHUNK/16][head_k][16 positions], then values as panels
 * [ceil(head_v/16)][KV_CHUNK][16 dimensions]. So both scores (Q K) and outputs (P V) are products with contiguous panels
 * of 16 columns, and reading one head's positions touches nothing else. */
typedef struct kv_shape {
    size_t n_layer, n_head_kv, head_k, head_v;
    size_t k_floats, v_floats;   /* of one layer and head in a chunk */
    size_t chunk_floats;
} kv_shape;

typedef struct kv_cache {
    kv_shape shape;
    float **chunk;
    size_t n_chunks, cap;
} kv_cache;

kv_shape kv_shape_of(size_t n_layer, size_t n_head_kv, size_t head_k, size_t head_v);
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
static inline float *kv_keys(const kv_cache *kv, size_t layer, size_t head, size_t pos) {
    const size_t at = (layer * kv->shape.n_head_kv + head) * (kv->shape.k_floats + kv->shape.v_floats);
    return kv->chunk[pos / KV_CHUNK] + at;
}
static inline float *kv_values(const kv_cache *kv, size_t layer, size_t head, size_t pos) {
    return kv_keys(kv, layer, head, pos) + kv->shape.k_floats;
}
/* Stores the key k[head_k] and the value v[head_v] of one position. */
void kv_store(kv_cache *kv, size_t layer, size_t head, size_t pos, const float *k, const float *v);
#endif
