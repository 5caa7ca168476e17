/* How far two passes of one model over the same tokens are apart: KL(p2 || p1) of their predictions, and its gradient for
 * both passes' hidden states. What two dropout masks make of it says which units matter (importance.h). */
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
/* Over rows h1[n][embd] and h2[n][embd] of final-norm states: returns the sum of KL(p2 || p1), p the softmax of a row's logits,
 * and writes the gradients of `scale` times it to dh1 and dh2. With z1, z2 the logits, a row's are p1 - p2 and
 * p2 (log p2 - log p1 - KL). */
double lm_kl_train(lm_kl *k, const lm_net *n, const float *h1, const float *h2, size_t rows, float scale, float *dh1,
                   float *dh2);
#endif
