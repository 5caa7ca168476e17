/* The optimiser: one pass over weights, gradients and moments, each thread on its part of every tensor. */
#include "tinylm/adamw.h"

#include <math.h>

#include "tinylm/rowmath.h"

enum { ADAMW_GRAIN = 1024 };

typedef struct adamw_norm_job {
    const float *grad;
    size_t n;
    double part[CMC_POOL_MAX];
} adamw_norm_job;

static void adamw_norm_worker(void *arg, int t, int nt) {
    adamw_norm_job *j = arg;
    size_t lo, hi;
    cmc_pool_share(j->n, ADAMW_GRAIN, t, nt, &lo, &hi);
    j->part[t] = row_sum_squares(j->grad + lo, hi - lo);
}

double adamw_norm(cmc_pool *pool, const float *grad, size_t n) {
    adamw_norm_job j = {.grad = grad, .n = n};
    cmc_pool_run(pool, adamw_norm_worker, &j);
    double sum = 0.0;
    for (int t = 0; t < cmc_pool_threads(pool); t++)
        sum += j.part[t];
    return sqrt(sum);
}

typedef struct adamw_job {
    const adamw *a;
    const params *p;
    float *w, *grad;
    float grad_scale, lr, fix1, fix2; /* fix: 1 / (1 - beta^step) */
} adamw_job;

/* `factor`: the mask's. */
static void adamw_range(const adamw_job *j, size_t lo, size_t hi, float decay, float factor) {
    float of_grad = j->a->mask_gradient ? factor : 1.0f, lr = j->lr * (j->a->mask_gradient ? 1.0f : factor);
    float b1 = (float)j->a->beta1, b2 = (float)j->a->beta2, eps = (float)j->a->eps;
    float keep = 1.0f - lr * decay, rate = lr * j->fix1, fix2 = j->fix2, gs = j->grad_scale * of_grad;
    float *restrict w = j->w, *restrict grad = j->grad, *restrict m = j->a->m, *restrict v = j->a->v;
    for (size_t i = lo; i < hi; i++) {
        float g = grad[i] * gs;
        m[i] = b1 * m[i] + (1.0f - b1) * g;
        v[i] = b2 * v[i] + (1.0f - b2) * g * g;
        w[i] = w[i] * keep - rate * m[i] / (sqrtf(v[i] * fix2) + eps);
        grad[i] = 0.0f;
    }
}

/* Elements [lo, hi) of a tensor, row by row, each with its factor. */
static void adamw_rows(const adamw_job *j, const params_tensor *x, const float *mask, size_t lo, size_t hi, float decay) {
    while (lo < hi) {
        size_t row = lo / x->n_in, end = (row + 1) * x->n_in < hi ? (row + 1) * x->n_in : hi;
        adamw_range(j, x->off + lo, x->off + end, decay, mask[row]);
        lo = end;
    }
}

static void adamw_worker(void *arg, int t, int nt) {
    const adamw_job *j = arg;
    for (size_t i = 0; i < j->p->n_tensors; i++) {
        const params_tensor *x = &j->p->tensors[i];
        size_t lo, hi;
        if (!x->trained)
            continue;
        cmc_pool_share(x->n_out * x->n_in, ADAMW_GRAIN, t, nt, &lo, &hi);
        float decay = x->matrix ? (float)j->a->weight_decay : 0.0f;
        const float *mask = j->a->mask ? j->a->mask[i] : NULL;
        if (mask)
            adamw_rows(j, x, mask, lo, hi, decay);
        else
            adamw_range(j, x->off + lo, x->off + hi, decay, 1.0f);
    }
}

void adamw_step(cmc_pool *pool, const adamw *a, const params *p, float *w, float *grad, double grad_scale, double lr,
                int64_t step) {
    adamw_job j = {.a = a,
                   .p = p,
                   .w = w,
                   .grad = grad,
                   .grad_scale = (float)grad_scale,
                   .lr = (float)lr,
                   .fix1 = (float)(1.0 / (1.0 - pow(a->beta1, (double)step))),
                   .fix2 = (float)(1.0 / (1.0 - pow(a->beta2, (double)step)))};
    cmc_pool_run(pool, adamw_worker, &j);
}

typedef struct adamw_pull_job {
    const float *w, *start;
    float *grad;
    size_t n;
    float pull;
} adamw_pull_job;

static void adamw_pull_worker(void *arg, int t, int nt) {
    const adamw_pull_job *j = arg;
    size_t lo, hi;
    cmc_pool_share(j->n, ADAMW_GRAIN, t, nt, &lo, &hi);
    for (size_t i = lo; i < hi; i++)
        j->grad[i] += j->pull * (j->w[i] - j->start[i]);
}

void adamw_pull(cmc_pool *pool, const float *w, const float *start, size_t n, double pull, float *grad) {
    adamw_pull_job j = {w, start, grad, n, (float)pull};
    cmc_pool_run(pool, adamw_pull_worker, &j);
}

double adamw_lr(double lr, double min_lr, int64_t warmup, int64_t steps, int64_t step) {
    if (step <= warmup)
        return lr * (double)step / (double)warmup;
    double x = steps > warmup ? (double)(step - warmup) / (double)(steps - warmup) : 1.0;
    x = x > 1.0 ? 1.0 : x;
    return lr * (min_lr + (1.0 - min_lr) * 0.5 * (1.0 + cos(3.14159265358979323846 * x)));
}
