/* A whole language model as something trainable: the graph of runtime/graph.c in float32 over a packed batch, forward
 * and backward. Sequences lie one after the other: T tokens in all. Functions ending in _worker run on all threads at
 * once; each thread does a fixed share, so that the same seed and thread count give the same bits. */
#ifndef CMC_TINYLM_LM_NET_H
#define CMC_TINYLM_LM_NET_H
#include "runtime/runtime.h"
#include "tinylm/attend.h"
#include "tinylm/lm_layout.h"
#include "tinylm/lm_merge.h"
#include "tinylm/net.h"

/* What a layer keeps for its backward pass, a row a token. Normed rows and activations are computed again. */
typedef struct lm_acts {
    float *x0, *r1;     /* [T][E] residual stream before attention, [T] 1/rms of it */
    float *qkv;         /* [T][H dk + Hkv dk + Hkv dv], q and k normed and rotated */
    float *qk, *rqk;    /* [T][H dk + Hkv dk] q and k before their norm, [T][H + Hkv] 1/rms; where they are normed */
    float *att;         /* [T][H dv] */
    float *lse;         /* [T][H] */
    float *o, *ro;      /* [T][E] attention's output before its post-norm, where there is one */
    float *x1, *r2;     /* residual stream before the feed-forward part */
    float *gu;          /* [T][2 F] gate and up */
    float *f, *rf;      /* [T][E] the feed-forward part's output before its post-norm, where there is one or there are gates */
    float *u;           /* [T][u_width] A x of the adapter */
} lm_acts;

/* What a merge keeps, a row a token. */
typedef struct lm_merge {
    float *p, *e;       /* [T][E] what layer and block gave */
    float *share, *dz;  /* [T] the block's share, and the gradient of the number whose sigmoid it is */
} lm_merge;

typedef struct lm_net {
    const lm_layout *l;
    cmc_pool *pool;
    const blas *blas;            /* NULL: plain loops */
    int nt;
    float *w;                    /* [base.n] */
    float *trained, *grad;       /* [lm_trained(l)->n_trained] each; trained is w itself where there is no adapter */
    size_t max_tokens, max_seq;
    lm_acts *acts;               /* [layers + blocks] */
    lm_merge *merges;            /* [blocks] */
    alignment align;             /* what holds blocks to the layers beside them */
    double align_weight;         /* of a token's distance at one of the merges, in the loss; 0: it is not computed */
    double *align_part;          /* [nt] the loss that it comes to, of the tokens of a thread */
    float *x;                    /* [T][E] after the last layer */
    float *hidden, *rh;          /* [targets][E] final-norm states, [targets] 1/rms */
    float *cos, *sin, *nsin;     /* [max_seq][n_rot / 2]; nsin = -sin turns back */
    float *cos_local, *sin_local, *nsin_local;   /* of the layers with a window */
    uint32_t *pos;               /* [T] position in its sequence */
    float *norm, *act;           /* [T][E] normed rows, [T][F] activations: of the layer at work */
    float *y;                    /* [T][E] a branch's output, or the gradient of it */
    float *dx, *dn, *dqkv, *datt, *dgu, *dact;   /* [T][...] gradients */
    float *dqk;                  /* [T][H dk + Hkv dk] gradients of normed q and k, where they are normed */
    float *du;                   /* [T][u_width] */
    float dropout;               /* of attention's weights and of the feed-forward part's output; 0: none. With gates only */
    uint64_t drop_key;           /* decides which; the caller sets it anew for every pass */
    float *dd;                   /* [T][E] a branch's gradient through its dropout */
    float *gates;                /* [n_seqs][layers][importance.h's units], the caller's: lm_backward adds to it the gradients
                                    of gates of 1, each sequence's on its own; NULL: none are wanted */
    float *side;                 /* [T][E] of a layer's output while its block's is propagated back, or of its block's input */
    float *scores;
    float *arena;
    const net_batch *batch;      /* of the run that is going on */
    const float *dhidden;
} lm_net;

/* Bytes that lm_new would take. */
size_t lm_bytes(const lm_layout *l, int threads, size_t max_tokens, size_t max_seq);
/* `l` must outlive the net. The weights are the caller's to fill. */
cmc_status lm_new(cmc_runtime *rt, const lm_layout *l, size_t max_tokens, size_t max_seq, lm_net *out, cmc_error *err);
void lm_free(lm_net *n);

/* Fills n->hidden[0 .. n_targets). The batch must fit max_tokens and max_seq; its host states are not looked at. */
void lm_forward(lm_net *n, const net_batch *b);
/* Right after lm_forward: adds the gradients of what is trained, but for the output matrix's as such, to n->grad, given
 * those of n->hidden. */
void lm_backward(lm_net *n, const net_batch *b, const float *dhidden);
/* The alignment loss of the last forward pass. */
double lm_align_loss(const lm_net *n);
/* lm_expand.c, the start of expanded blocks: copies of their layers; where they stand behind them, what leads back to the
 * stream is zero, so that they change nothing. w[base.n] holds the model's weights. */
void lm_expand_copy(const lm_layout *l, float *w);
/* And of merges: every f as given, w uniform within 1 / sqrt of its length. */
void lm_expand_gates(const lm_layout *l, double f, uint64_t seed, float *w);

/* ------------------------------------------------------------------ what lm_forward.c and lm_backward.c share */

static inline bool lm_is_full(const lm_net *n) { return n->trained == n->w; }
/* Whether the base's tensor at that offset is trained. */
static inline bool lm_learns(const lm_net *n, size_t off) { return off < n->l->base.n_trained; }
static inline size_t lm_qk_width(const model_params *p) {
    return (size_t)(p->n_head + p->n_head_kv) * (size_t)p->head_k;
}
static inline size_t lm_qkv_width(const model_params *p) {
    return lm_qk_width(p) + (size_t)p->n_head_kv * (size_t)p->head_v;
}
/* out = x * r * gain: row_norm with 1 / rms at hand, rows [lo, hi). */
void lm_norm_again(const float *x, const float *r, const float *gain, float *out, size_t n, size_t lo, size_t hi);
/* Rotates q and k of rows [lo, hi); back where `inverse`. */
void lm_rotate(const lm_net *n, bool swa, float *qkv, size_t lo, size_t hi, bool inverse);
/* y = mask x of layer il's feed-forward output, rows [lo, hi); nothing is done where there is no dropout. */
void lm_drop(const lm_net *n, size_t il, const float *x, float *y, size_t lo, size_t hi);
void lm_activate(const lm_net *n, const float *gu, float *act, size_t lo, size_t hi);
attend lm_attend(const lm_net *n, size_t il);
/* lm_expand.c: where the output of a layer, or of block il - n_layer, goes; the stream that the layer reads. */
float *lm_output(const lm_net *n, size_t il);
/* Of rows [lo, hi): what layer and block gave, merged; thread t's. */
void lm_merge_rows(lm_net *n, size_t block, int t, size_t lo, size_t hi);
/* n->dx, the gradient of what was merged, becomes that of the block's output, and n->side that of the layer's. */
void lm_merge_back(lm_net *n, size_t block, int t, size_t lo, size_t hi);
/* n->dx and n->side change places. */
void lm_merge_swap(const lm_net *n, size_t lo, size_t hi);
/* n->dx, that of the layer's input as the layer has it, takes up the block's part in n->side and the share's. */
void lm_merge_join(const lm_net *n, size_t block, size_t lo, size_t hi);
#endif
