/* AdamW with decoupled weight decay (arXiv 1711.05101), the clipped gradient norm, and the learning-rate schedule. */
#ifndef CMC_TINYLM_ADAMW_H
#define CMC_TINYLM_ADAMW_H
#include "base/pool.h"
#include "tinylm/params.h"

typedef struct adamw {
    double beta1, beta2, eps, weight_decay;   /* decay on matrices only */
    float *m, *v;                             /* [as w] first and second moments */
    const float *const *mask;                 /* [n_tensors] of each tensor NULL or a factor for each of its rows; NULL: no mask */
    bool mask_gradient;                       /* the factor is the gradient's; else that of the step, decay included */
} adamw;

/* The Euclidean norm of grad[n]; NaN or infinite where a gradient is. */
double adamw_norm(cmc_pool *pool, const float *grad, size_t n);
/* One update of what is trained of w with grad * grad_scale; `step` counts from 1. grad is set to 0 there, and is not looked
 * at elsewhere. */
void adamw_step(cmc_pool *pool, const adamw *a, const params *p, float *w, float *grad, double grad_scale, double lr,
                int64_t step);
/* Adds the gradient of pull / 2 |w - start|^2 to grad[n] (L2-SP, arXiv 1802.01483). */
void adamw_pull(cmc_pool *pool, const float *w, const float *start, size_t n, double pull, float *grad);
/* Linear warm-up over `warmup` steps, then a cosine down to min_lr * lr at the last of `steps`; `step` from 1 on. */
double adamw_lr(double lr, double min_lr, int64_t warmup, int64_t steps, int64_t step);
#endif
