/* The delta as something trainable: weights, gradients and the activations of one packed batch of sequences.
 *
 * Sequences lie one after the other: T tokens in all. Every function ending in _worker runs inside cmc_pool_run on all
 * threads at once; each thread does a fixed share, so that the same seed and thread count give the same bits. */
#ifndef CMC_TINYLM_NET_H
#define CMC_TINYLM_NET_H
#include "runtime/runtime.h"
#include "tinylm/params.h"

typedef struct net_batch {
    const int32_t *ids;          /* [n_tokens] */
    const size_t *start;         /* [n_seqs + 1]: where each sequence begins */
    const size_t *rows;          /* [n_targets]: the token whose state predicts the target, ascending */
    const int32_t *targets;      /* [n_targets] */
    const uint8_t *const *host;  /* [n_targets]: the host's state as hostcache packs it */
    size_t n_tokens, n_seqs, n_targets;
} net_batch;

/* What a layer keeps for its backward pass, a row a token. */
typedef struct net_layer {
    float *x0;      /* [T][E] residual stream before attention */
    float *n1, *r1; /* [T][E] normed, [T] 1/rms */
    float *qkv;     /* [T][(H + 2 Hkv) d], q and k rotated */
    float *att;     /* [T][H d] */
    float *lse;     /* [T][H] log-sum-exp of the attention scores */
    float *x1;      /* [T][E] residual stream before the feed-forward part */
    float *n2, *r2;
    float *gu;      /* [T][2 F] gate and up */
    float *act;     /* [T][F] */
} net_layer;

typedef struct net {
    const params *p;
    cmc_pool *pool;
    const blas *blas;            /* NULL: plain loops */
    int nt;
    float *w, *grad;             /* [p->n] each */
    size_t max_tokens, max_seq;
    net_layer *layers;
    float *x;                    /* [T][E] after the last layer */
    float *hidden, *rf;          /* [targets][E] final-norm states, [targets] 1/rms */
    float *rope;                 /* [max_seq][d/2][2] cosine, sine */
    uint32_t *pos;               /* [T] position in its sequence */
    float *dx, *dn, *dqkv, *datt, *dgu, *dact; /* backward scratch, [T][...]; dn: of the forward pass too */
    float *dd;                   /* [T][E] dx through a branch's dropout */
    float dropout;               /* share of each branch's output that is left out, the rest scaled up; 0: none */
    uint64_t drop_key;           /* decides which; the caller sets it anew for every batch */
    float *scores;               /* [nt][2][ATTEND_ROWS][max_seq] */
    float *arena;
    const net_batch *batch;      /* of the run that is going on */
    const float *dhidden;
} net;

/* Bytes that net_new would take. */
size_t net_bytes(const params *p, int threads, size_t max_tokens, size_t max_seq);
/* `p` must outlive the net. */
cmc_status net_new(cmc_runtime *rt, const params *p, size_t max_tokens, size_t max_seq, net *out, cmc_error *err);
void net_free(net *n);

/* Fills n->hidden[0 .. n_targets). The batch must fit max_tokens and max_seq. */
void net_forward(net *n, const net_batch *b);
/* Right after net_forward: adds the gradients of all but the output matrix to n->grad, given those of n->hidden. */
void net_backward(net *n, const net_batch *b, const float *dhidden);

/* The output side of a delta after a forward pass, whatever computed it. The output matrix is tied to the embedding. */
typedef struct net_out {
    const float *hidden;         /* [n_targets][E] final-norm states */
    const float *embd;           /* [vocabulary][E] */
    float *grad;                 /* its gradient, added to; NULL: it is not trained */
} net_out;
static inline net_out net_output(const net *n) {
    return (net_out){n->hidden, n->w + n->p->embd, params_embedding(n->p)->trained ? n->grad + n->p->embd : NULL};
}

/* net_attention.c: causal attention of the whole batch, a (sequence, key-value head) at a time. */
void net_attention_worker(net *n, const net_layer *l, int t);
/* datt -> dqkv, both for rotated q and k. */
void net_attention_back_worker(net *n, const net_layer *l, int t);

/* net_drop.c: branch 2 i is layer i's attention, 2 i + 1 its feed-forward part. Each row's mask depends on drop_key, branch
 * and row alone, so that it need not be kept. */
void net_drop_add(const net *n, size_t branch, const float *x, float *y, size_t lo, size_t hi);   /* y += mask * x */
void net_drop_mul(const net *n, size_t branch, const float *x, float *y, size_t lo, size_t hi);   /* y = mask * x */

/* net_forward.c */
void net_rope_rows(const net *n, float *qkv, size_t lo, size_t hi, bool inverse);
#endif
