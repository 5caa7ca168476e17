/* How far two passes over the same tokens are apart: KL(p2 || p1) of their predictions, and its gradient for either. What two
 * dropout masks make of it says which units matter (importance.h); a model that is tuned is held to what it was (lm_step.c). */
#ifndef CMC_TINYLM_LM_KL_H
#define CMC_TINYLM_LM_KL_H
#include "tinylm/lm_net.h"

typedef struct lm_kl {
    cmc_pool *pool;
    const blas *blas;
    size_t n_vocab, embd, rows;   /* rows of a block */
    float *logits;                /* [3][rows][n_vocab]: of pass 1, of pass 2, their difference as log-probabilities */
} lm_kl;

size_t lm_kl_bytes(const model_params *p);
cmc_status lm_kl_new(cmc_runtime *rt, const model_params *p, lm_kl *out, cmc_error *err);
void lm_kl_free(lm_kl *k);
/* One of the passes. */
typedef struct lm_kl_side {
    const float *h, *head;        /* [rows][embd] final-norm states; [n_vocab][embd] the output matrix */
    float *dh, *dhead;            /* their gradients, NULL: not wanted; the output matrix's is added to what is there */
} lm_kl_side;

/* Returns the sum over rows of KL(p2 || p1), p the softmax of a row's logits, and gives the gradients of `scale` times it; with
 * `add` those of the states are added too, not written. With z1, z2 the logits, a row's are p1 - p2 and
 * p2 (log p2 - log p1 - KL). */
double lm_kl_train(lm_kl *k, const lm_kl_side *p1, const lm_kl_side *p2, size_t rows, float scale, bool add);
#endif
