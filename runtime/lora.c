/* The products of adapters: small beside those of the matrices they belong to, and done in one order of summation
 * whatever the batch is. */
#include "runtime/lora.h"

#include <stdlib.h>
#include <string.h>

#include "base/error.h"
#include "base/mem.h"
#include "runtime/quant_impl.h"
#include "runtime/vec.h"

enum {
    LORA_ALONE = 200000,   /* multiplies below which waking the other threads does not pay */
    LORA_DOT_COLS = 4,     /* columns that dot_exact takes at most */
    LORA_PANELS = 16       /* that a thread takes at a time */
};

void lora_set_free(lora_set *s) {
    for (size_t i = 0; i < s->n; i++) {
        free(s->v[i].a);
        free(s->v[i].b);
    }
    free(s->v);
    *s = (lora_set){0};
}

typedef struct lora_job {
    cmc_pool *pool;
    const quant_kernels *kernels;
    const vec_ops *vec;
    const matmul_out *outs;
    size_t n_w, n_in, ldx, t, width;   /* width: of u, the ranks of all outs */
    const float *x;
    float *u;                          /* [t][width] A x */
} lora_job;

static size_t lora_panels(const lora_weight *l) {
    return (l->n_out + VEC_PANEL - 1) / VEC_PANEL;
}

/* Rows [lo, hi) of one A against every column of x. */
static void lora_rows(const lora_job *j, const lora_weight *l, size_t at, size_t lo, size_t hi) {
    for (size_t r = lo; r < hi; r++)
        for (size_t c = 0; c < j->t; c += LORA_DOT_COLS) {
            size_t n = j->t - c < LORA_DOT_COLS ? j->t - c : LORA_DOT_COLS;
            j->kernels->dot_exact(l->a + r * l->n_in, j->x + c * j->ldx, j->ldx, l->n_in, n,
                                  j->u + c * j->width + at + r, j->width);
        }
}

/* Panels [lo, hi) of one B: 16 outputs each, for every column. */
static void lora_outputs(const lora_job *j, const matmul_out *o, size_t at, size_t lo, size_t hi) {
    const lora_weight *l = o->w->lora;
    for (size_t p = lo; p < hi; p++) {
        const float *b = l->b + p * l->rank * VEC_PANEL;
        size_t first = p * VEC_PANEL, n = l->n_out - first < VEC_PANEL ? l->n_out - first : VEC_PANEL;
        for (size_t c = 0; c < j->t; c++) {
            float *y = o->y + c * o->ldy + first, part[VEC_PANEL] = {0};
            const float *u = j->u + c * j->width + at;
            if (n == VEC_PANEL) {
                j->vec->panel(y, o->ldy, u, j->width, b, 1, l->rank, true);
            } else {
                memcpy(part, y, n * sizeof *y);
                j->vec->panel(part, VEC_PANEL, u, j->width, b, 1, l->rank, true);
                memcpy(y, part, n * sizeof *y);
            }
        }
    }
}

static void lora_worker(void *arg, int t, int nt) {
    const lora_job *j = arg;
    size_t lo, hi, at = 0;
    for (size_t i = 0; i < j->n_w; i++) {
        const lora_weight *l = j->outs[i].w->lora;
        if (!l)
            continue;
        cmc_pool_share(l->rank, 1, t, nt, &lo, &hi);
        lora_rows(j, l, at, lo, hi);
        at += l->rank;
    }
    if (nt > 1)
        cmc_pool_barrier(j->pool, t);
    at = 0;
    for (size_t i = 0; i < j->n_w; i++) {
        const lora_weight *l = j->outs[i].w->lora;
        if (!l)
            continue;
        cmc_pool_share(lora_panels(l), LORA_PANELS, t, nt, &lo, &hi);
        lora_outputs(j, &j->outs[i], at, lo, hi);
        at += l->rank;
    }
}

cmc_status lora_add(cmc_runtime *rt, matmul_work *work, const float *x, size_t ldx, size_t t, const matmul_out *outs,
                    size_t n_w, cmc_error *err) {
    lora_job j = {.pool = rt->pool, .kernels = quant_kernels_best(), .vec = rt->exact ? &vec_plain : vec_fast(),
                  .outs = outs, .n_w = n_w, .x = x, .ldx = ldx, .t = t};
    size_t multiplies = 0;
    for (size_t i = 0; i < n_w; i++) {
        const lora_weight *l = outs[i].w->lora;
        if (!l)
            continue;
        j.width += l->rank;
        multiplies += t * l->rank * (l->n_in + l->n_out);
    }
    if (j.width == 0)
        return CMC_OK;
    size_t need = t * j.width * sizeof(float);
    if (need > work->size) {
        matmul_work_free(work);
        work->buf = cmc_alloc_aligned(need, 1);
        if (!work->buf)
            return cmc_fail_nomem(err, "scratch of an adapter", need);
        work->size = need;
    }
    j.u = work->buf;
    if (multiplies <= LORA_ALONE)
        lora_worker(&j, 0, 1);
    else
        cmc_pool_run(rt->pool, lora_worker, &j);
    return CMC_OK;
}

void lora_merge_row(const lora_weight *l, size_t row, float *w) {
    const float *b = l->b + row / VEC_PANEL * l->rank * VEC_PANEL + row % VEC_PANEL;
    for (size_t r = 0; r < l->rank; r++)
        for (size_t c = 0; c < l->n_in; c++)
            w[c] += b[r * VEC_PANEL] * l->a[r * l->n_in + c];
}
