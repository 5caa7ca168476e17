/* What the two ways through the layers share: graph.c for many tokens, graph_team.c for few. */
#ifndef CMC_RUNTIME_GRAPH_IMPL_H
#define CMC_RUNTIME_GRAPH_IMPL_H
#include "runtime/attention.h"
#include "runtime/graph.h"

#define GRAPH_TEAM 8           /* tokens that graph_team.c takes at most */

/* Activations, each [cap][width]; and what is known of each token of the batch. */
struct model_scratch {
    size_t cap;
    float *x, *h, *q, *k, *v, *o, *gate, *up;
    float *cos, *sin, *cos_local, *sin_local;   /* [cap][n_rot/2] */
    float *side;                /* of an expanded model: what goes through a block while x waits */
    float *logits;
    size_t logits_floats;
    attn_work attn;
    float *own;                 /* what graph_team.c keeps for each thread */
    size_t own_floats;
    matmul_team team;
    attn_seq seqs[GRAPH_BATCH];
    kv_cache *row_kv[GRAPH_BATCH];
    size_t row_pos[GRAPH_BATCH];
    int32_t row_id[GRAPH_BATCH];
    float row_strength[GRAPH_BATCH], row_share[GRAPH_BATCH];
};

/* One step of the pass, as its workers see it: rows [0, n) of the scratch. */
typedef struct graph_job {
    cmc_model *m;
    struct model_scratch *s;
    const vec_ops *vec;
    size_t n, il;               /* il: the layer's place in the caches */
    const model_layer *l;
    size_t side_n, side_seqs;   /* rows and sequences that go through expanded blocks: the first ones */
    const model_extra *extra;   /* of graph_side_row and graph_merge_row */
    const float *bias, *post_norm, *next_norm;   /* of graph_residual */
    attn_job attn;
} graph_job;

/* Token i's embedding into x, and the norm of it into h; the angles of its position into the scratch. */
void graph_embed_row(const graph_job *g, size_t i, float *x, float *h);
void graph_angles_row(const graph_job *g, size_t i);
/* Token i's K/V head `head`, and the query heads that share it: biases, head norms, RoPE; the key and value into the cache. */
void graph_qkv_head(graph_job *g, size_t i, size_t head);
/* x += h, with a bias before and a norm of its own where the family has them: h is then neither. */
void graph_add_row(const graph_job *g, float *x, float *h);

/* By all threads, where there are more than a few tokens. */
void graph_run(graph_job *g, cmc_pool_fn fn);
/* One layer, g->l: s->h holds the normed input, s->x the residual stream; afterwards s->h is x normed with `next_norm`.
 * `seqs`: behind it only the rows go on that they ask for; NULL: all. */
cmc_status graph_layer(graph_job *g, const graph_seq *seqs, size_t n_seqs, const float *next_norm, cmc_error *err);

/* graph_expand.c: likewise a layer with the block beside it or behind it; all rows go on. */
cmc_status graph_expanded(graph_job *g, const float *next_norm, cmc_error *err);
/* Takes a row of the stream aside for the block g->extra; gives the block's share, as far as it goes by that row. */
float graph_side_row(const graph_job *g, const float *x, float *side);
/* What the layer gave, x, merged with what the block gave; h = norm of it. `share` is graph_side_row's. */
void graph_merge_row(const graph_job *g, size_t i, float share, float *x, const float *block, float *h);
/* Moves the rows[..][width] that are asked for to the front. */
void graph_wanted_rows(const graph_seq *seqs, size_t n_seqs, float *rows, size_t width);

/* graph_team.c: whether it takes a pass of n tokens, and the pass; it returns the final-norm hidden states that are wanted. */
bool graph_team_takes(const cmc_model *m, size_t n);
cmc_status graph_team_reserve(cmc_model *m, cmc_error *err);
const float *graph_team_run(graph_job *g, const graph_seq *seqs, size_t n_seqs);
#endif
