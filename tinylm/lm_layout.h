/* A language model to be trained: where each tensor of a model file lies in one flat array of floats, and where those
 * of a LoRA adapter lie in another (arXiv 2106.09685). */
#ifndef CMC_TINYLM_LM_LAYOUT_H
#define CMC_TINYLM_LM_LAYOUT_H
#include "runtime/model.h"
#include "tinylm/params.h"

#define LM_NONE SIZE_MAX     /* the offset of what a model does not have */

/* y = W x + bias, and + scale B (A x) where there is a rank. W [n_out][n_in], A [rank][n_in], B [n_out][rank]. */
typedef struct lm_linear {
    size_t n_in, n_out;
    size_t w, bias;          /* in the model's floats */
    size_t rank, a, b;       /* rank 0: none; in the adapter's floats */
    size_t u;                /* A x is columns [u, u + rank) of a layer's rows of them */
} lm_linear;

typedef struct lm_layer_layout {
    lm_linear q, k, v, o, gate, up, down;
    size_t attn_norm, ffn_norm, post_attn_norm, post_ffn_norm, q_norm, k_norm;
    bool swa;                /* its attention has the model's window */
    size_t block;            /* the expanded block that belongs to it, LM_NONE where there is none */
} lm_layer_layout;

/* An expanded block (runtime/expand.h). */
typedef struct lm_block {
    size_t layer;            /* beside it or behind it */
    bool stack;              /* behind */
    size_t f, w;             /* of the merge with a layer beside it, in the model's floats; LM_NONE where it has none */
} lm_block;

typedef struct lm_layout {
    model_params p;
    const float *rope_inv, *rope_inv_local;  /* the model's, which must outlive the layout */
    params base, lora;       /* tensors and counts only; lora is empty where the model itself is trained. In both, what is
                                trained lies first: gradients and moments are arrays of n_trained floats */
    lm_layer_layout *layers; /* [n_layer + n_blocks]: the blocks' behind the layers' */
    lm_block *blocks; size_t n_blocks;
    size_t n_merges;         /* blocks that stand beside a layer */
    expand_merge merge;
    size_t embd, head, out_norm;             /* head: the same as embd where tied */
    size_t u_width;          /* of a layer's A x: the ranks' sum */
    float scale;             /* alpha / rank */
    bool gates;              /* there is room for the gradients of gates, and nothing is trained */
} lm_layout;

/* What is trained: the model itself (rank 0), or an adapter on the matrices that `targets` names, a comma between them: q,
 * k, v, o, gate, up, down; NULL: all seven. In either case the layers that `layers` says, and of the model itself the
 * `modules` (select.h). */
typedef struct lm_trainable {
    int32_t rank;
    double alpha;
    const char *targets, *layers, *modules;
    bool gates;              /* nothing: gates on units get gradients instead (lm_net.h) */
    const expand_spec *expand;   /* in place of all that: blocks, which are added and alone are trained; NULL: none */
    bool learn_share;            /* f of their merges too; a merge's w always is */
    bool unfrozen;               /* and the model itself */
} lm_trainable;

cmc_status lm_layout_init(const cmc_model *m, const lm_trainable *what, lm_layout *out, cmc_error *err);
void lm_layout_free(lm_layout *l);
/* What the steps change: the first n_trained floats of it. */
static inline const params *lm_trained(const lm_layout *l) { return l->lora.n ? &l->lora : &l->base; }
/* The model's weights as floats: w[base.n]. */
void lm_load(const lm_layout *l, const cmc_model *m, float *w);
/* The start of an adapter: A normal with a variance of 1 / n_in, B zero. w[lora.n]. */
void lm_lora_start(const lm_layout *l, uint64_t seed, float *w);
/* The tensor of that name, NULL if there is none. */
const params_tensor *lm_find(const params *p, const char *name, size_t n);
#endif
