/* The output layer of a trainable model and its cross-entropy, a block of target rows against the whole vocabulary at a
 * time. */
#ifndef CMC_TINYLM_LM_LOSS_H
#define CMC_TINYLM_LM_LOSS_H
#include "tinylm/lm_net.h"

typedef struct lm_loss {
    cmc_pool *pool;
    const blas *blas;
    int nt;
    size_t n_vocab, embd;
    size_t rows;              /* target rows in a block */
    float *logits;            /* [rows][n_vocab], then their gradient */
    float *dh_part;           /* [nt][rows][embd] */
    float *max;               /* [nt][rows] */
    double *sum;              /* likewise */
    float *at_target;         /* [rows] */
    float *arena;
} lm_loss;

size_t lm_loss_bytes(const model_params *p, int threads);
cmc_status lm_loss_new(cmc_runtime *rt, const model_params *p, lm_loss *out, cmc_error *err);
void lm_loss_free(lm_loss *l);

/* Adds the NLL of the batch's targets to *nll; with `each`, [n_targets], every target's is left there as well. n->hidden holds
 * the batch's forward pass. */
void lm_loss_score(lm_loss *l, lm_net *n, const net_batch *b, double *nll, double *each);
/* The same sum, and the gradient of `scale` times it, each target's times weights[i] (NULL: all 1): that of
 * the output matrix is added to n->grad where it is trained, that of the hidden states goes to dhidden[n_targets][embd]. */
void lm_loss_train(lm_loss *l, lm_net *n, const net_batch *b, const float *weights, float scale, float *dhidden, double *nll);
#endif
