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
};

/* One step of the pass, as its workers see it: rows [0, n) of the scratch. */
typedef struct graph_job {
    cmc_model *m;
    struct model_scratch *s;
    const vec_ops *vec;
    size_t n, il;
    const model_layer *l;
    const float *bias, *post_norm, *next_norm;   /* of graph_residual */
    attn_job attn;
} graph_job;

/* Token i's embedding into x, and the norm of it into h; the angles of its position into the scratch. */
void graph_embed_row(const graph_job *g, size_t i, float *x, float *h);
void graph_angles_row(const graph_job *g, size_t i);
/* Token i's K/V head `head`, and the query heads that share it: biases, head norms, RoPE; the key and value into the cache. */
void graph_qkv_head(graph_job *g, size_t i, size_t head);
/* x += h (with a bias before and a norm of its own where the family has them), then h = norm of x for what follows. */
void graph_residual_row(const graph_job *g, float *x, float *h);

/* graph_team.c: whether it takes a pass of n tokens, and the pass; it returns the final-norm hidden states that are wanted. */
bool graph_team_takes(const cmc_model *m, size_t n);
cmc_status graph_team_reserve(cmc_model *m, cmc_error *err);
const float *graph_team_run(graph_job *g, const graph_seq *seqs, size_t n_seqs);
#endif
