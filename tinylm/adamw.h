/* AdamW with decoupled weight decay (arXiv 1711.05101), the clipped gradient norm, and the learning-rate schedule. */
#ifndef CMC_TINYLM_ADAMW_H
#define CMC_TINYLM_ADAMW_H
#include "base/pool.h"
#include "tinylm/params.h"

typedef struct adamw {
    double beta1, beta2, eps, weight_decay;   /* decay on matrices only */
    float *m, *v;                             /* [as w] first and second moments */
} adamw;

/* The Euclidean norm of grad[n]; NaN or infinite where a gradient is. */
double adamw_norm(cmc_pool *pool, const float *grad, size_t n);
/* One update of what is trained of w with grad * grad_scale; `step` counts from 1. grad is set to 0 there, and is not looked
 * at elsewhere. */
void adamw_step(cmc_pool *pool, const adamw *a, const params *p, float *w, float *grad, double grad_scale, double lr,
                int64_t step);
/* Linear warm-up over `warmup` steps, then a cosine down to min_lr * lr at the last of `steps`; `step` from 1 on. */
double adamw_lr(double lr, double min_lr, int64_t warmup, int64_t steps, int64_t step);
#endif
