/* The forward pass of a batch: tokens of several sequences, one pass over the weights. */
#ifndef CMC_RUNTIME_GRAPH_H
#define CMC_RUNTIME_GRAPH_H
#include "runtime/session.h"

#define GRAPH_BATCH 512  /* tokens of one pass at most: what bounds the scratch */

/* Tokens ids[0..n) of one sequence at positions pos0.., in this pass; the last n_out of them give a row. The cache has room
 * for them and holds all positions before pos0. */
typedef struct graph_seq {
    kv_cache *kv;
    const int32_t *ids;
    size_t n, pos0, n_out;
    float strength;        /* of the model's expanded blocks; those with one other than 0 come before the others */
} graph_seq;

cmc_status graph_scratch_new(cmc_model *m, struct model_scratch **out, cmc_error *err);
void graph_scratch_free(struct model_scratch *s);

/* What the scratch takes for passes of n tokens, the matrix products' included. */
size_t graph_bytes(const cmc_model *m, size_t n);

/* Evaluates the sequences (together at most GRAPH_BATCH tokens). *rows: [sum of n_out][n_embd] final-norm hidden states, in
 * the sequences' order; the scratch's, until the next call. */
cmc_status graph_forward(cmc_model *m, const graph_seq *seqs, size_t n_seqs, const float **rows, cmc_error *err);
/* [n][n_vocab] (stride ld floats) logits of n final-norm hidden states. */
cmc_status graph_logits(cmc_model *m, const float *hidden, size_t n, float *logits, size_t ld, cmc_error *err);
/* A buffer of the scratch for n rows of logits. */
cmc_status graph_logits_buffer(cmc_model *m, size_t n, float **out, cmc_error *err);
#endif
