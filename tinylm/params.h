/* The shape of a delta and where each of its parameters lies in one flat array of floats. */
#ifndef CMC_TINYLM_PARAMS_H
#define CMC_TINYLM_PARAMS_H
#include "base/error.h"

typedef struct params_shape {
    int32_t n_vocab, n_embd, n_layer, n_head, n_head_kv, head_dim, n_ff;
    float rms_eps, rope_base;
} params_shape;

typedef struct params_tensor {
    char name[48];           /* as in a llama GGUF */
    size_t off;              /* in floats */
    size_t n_out, n_in;      /* rows and columns; a norm is one row */
    bool matrix;             /* weight decay applies; stored in save_type */
    bool trained;            /* false: it stays as it is (select.h) */
} params_tensor;

/* Offsets of a layer's tensors. wq, wk, wv lie one after the other, and so do gate and up: each group is one gemm. */
typedef struct params_layer { size_t attn_norm, wq, wk, wv, wo, ffn_norm, gate, up, down; } params_layer;

typedef struct params {
    params_shape s;
    size_t embd, out_norm;   /* the output matrix is tied to the embedding */
    params_layer *layers;
    params_tensor *tensors; size_t n_tensors;
    size_t n;                /* floats in all */
    size_t n_trained;        /* of those that are trained */
    size_t lowest;           /* part of the model with something that is trained (select_lowest) */
} params;

/* The tensors: the embedding, those of each layer in this order, the output norm. */
enum {
    PARAMS_ATTN_NORM, PARAMS_Q, PARAMS_K, PARAMS_V, PARAMS_O, PARAMS_FFN_NORM, PARAMS_GATE, PARAMS_UP, PARAMS_DOWN,
    PARAMS_PER_LAYER
};
static inline const params_tensor *params_embedding(const params *p) { return p->tensors; }
static inline const params_tensor *params_of_layer(const params *p, int layer, size_t kind) {
    return p->tensors + 1 + (size_t)layer * PARAMS_PER_LAYER + kind;
}
static inline const params_tensor *params_out_norm(const params *p) { return p->tensors + p->n_tensors - 1; }

/* Checks the shape (positive, head_dim even, heads divisible, no overflow) and lays it out. */
cmc_status params_init(params *p, const params_shape *s, cmc_error *err);
void params_free(params *p);
/* Normal(0, 0.02), the two projections into the residual stream smaller by sqrt(2 n_layer) (GPT-2), norms 1. */
void params_randomise(const params *p, uint64_t seed, float *w);

/* Width of the joined q, k, v row of a token. */
static inline size_t params_qkv(const params_shape *s)
{
    return (size_t)(s->n_head + 2 * s->n_head_kv) * (size_t)s->head_dim;
}

/* SplitMix64: one step of the generator that everything random in training comes from. */
uint64_t params_random(uint64_t *state);
/* Two independent standard normal values from it. */
void params_normal2(uint64_t *rng, double out[2]);
#endif
