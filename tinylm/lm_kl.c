/* KL of two passes, a block of rows against the whole vocabulary at a time: each thread has rows of its own, and for the output
 * matrix's gradient columns. */
#include "tinylm/lm_kl.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "base/mem.h"
#include "tinylm/rowmath.h"

enum { KL_BLOCK_BYTES = 24 << 20, KL_MIN_ROWS = 16, KL_MAX_ROWS = 128 };

enum { KL_GRAIN = 64 };   /* columns that a thread takes together */

typedef struct lm_kl_job {
    const lm_kl *k;
    const lm_kl_side *side[2];
    size_t first, rows;      /* the block's */
    float scale;
    bool add;
    double each[KL_MAX_ROWS];
} lm_kl_job;

static size_t lm_kl_rows(const model_params *p) {
    size_t rows = (size_t)KL_BLOCK_BYTES / ((size_t)p->n_vocab * sizeof(float)) / 16 * 16;
    return rows < KL_MIN_ROWS ? KL_MIN_ROWS : rows > KL_MAX_ROWS ? KL_MAX_ROWS : rows;
}

size_t lm_kl_bytes(const model_params *p) {
    return 3 * lm_kl_rows(p) * (size_t)p->n_vocab * sizeof(float);
}

cmc_status lm_kl_new(cmc_runtime *rt, const model_params *p, lm_kl *out, cmc_error *err) {
    *out = (lm_kl){.pool = rt->pool, .blas = rt->exact ? NULL : rt->blas,
                   .n_vocab = (size_t)p->n_vocab, .embd = (size_t)p->n_embd, .rows = lm_kl_rows(p)};
    out->logits = cmc_alloc_aligned(3 * out->rows * out->n_vocab, sizeof(float));
    return out->logits ? CMC_OK : cmc_fail_nomem(err, "two passes' block of logits", lm_kl_bytes(p));
}

void lm_kl_free(lm_kl *k) {
    free(k->logits);
    memset(k, 0, sizeof *k);
}

/* Logits z1[v], z2[v] become the gradients of `scale` times the row's KL, which is returned; d[v] is scratch. */
static double kl_row(float *z1, float *z2, float *d, size_t v, float scale) {
    float max1 = row_max(z1, v), max2 = row_max(z2, v);
    float lse1 = max1 + (float)log(row_mix_exp_sum(z1, z1, 0.0f, max1, v));
    float lse2 = max2 + (float)log(row_mix_exp_sum(z2, z2, 0.0f, max2, v));
    double kl = 0.0;
    for (size_t c = 0; c < v; c++)
        d[c] = (z2[c] - lse2) - (z1[c] - lse1);
    row_exp_sum(z1, v, lse1);
    row_exp_sum(z2, v, lse2);
    for (size_t c = 0; c < v; c++)
        kl += (double)z2[c] * (double)d[c];
    for (size_t c = 0; c < v; c++) {
        float p2 = z2[c];
        z2[c] = scale * p2 * (d[c] - (float)kl);
        z1[c] = scale * (z1[c] - p2);
    }
    return kl;
}

/* Rows [lo, hi) of a side: its logits z. */
static void kl_logits(const lm_kl_job *j, const lm_kl_side *s, float *z, size_t lo, size_t hi) {
    size_t v = j->k->n_vocab, e = j->k->embd;
    if (hi > lo)
        blas_gemm(j->k->blas, false, false, hi - lo, v, e, 1.0f, s->h + (j->first + lo) * e, e, s->head, e, 0.0f, z + lo * v, v);
}

/* Rows [lo, hi) of z, now its gradient: into that of the states. */
static void kl_states(const lm_kl_job *j, const lm_kl_side *s, const float *z, size_t lo, size_t hi) {
    size_t v = j->k->n_vocab, e = j->k->embd;
    if (s->dh && hi > lo)
        blas_gemm(j->k->blas, false, true, hi - lo, e, v, 1.0f, z + lo * v, v, s->head, e, j->add ? 1.0f : 0.0f,
                  s->dh + (j->first + lo) * e, e);
}

/* When every thread's rows are there: columns [lo, hi), into that of the output matrix. */
static void kl_head(const lm_kl_job *j, const lm_kl_side *s, const float *z, size_t lo, size_t hi) {
    size_t v = j->k->n_vocab, e = j->k->embd;
    if (s->dhead && hi > lo)
        blas_gemm(j->k->blas, true, true, hi - lo, e, j->rows, 1.0f, z + lo, v, s->h + j->first * e, e, 1.0f,
                  s->dhead + lo * e, e);
}

static void kl_worker(void *arg, int t, int nt) {
    lm_kl_job *j = arg;
    const lm_kl *k = j->k;
    size_t v = k->n_vocab, lo, hi;
    float *z[2] = {k->logits, k->logits + k->rows * v}, *d = z[1] + k->rows * v;
    cmc_pool_share(j->rows, 1, t, nt, &lo, &hi);
    for (int i = 0; i < 2; i++)
        kl_logits(j, j->side[i], z[i], lo, hi);
    for (size_t r = lo; r < hi; r++)
        j->each[r] = kl_row(z[0] + r * v, z[1] + r * v, d + r * v, v, j->scale);
    for (int i = 0; i < 2; i++)
        kl_states(j, j->side[i], z[i], lo, hi);
    cmc_pool_barrier(k->pool, t);
    cmc_pool_share(v, KL_GRAIN, t, nt, &lo, &hi);
    for (int i = 0; i < 2; i++)
        kl_head(j, j->side[i], z[i], lo, hi);
}

double lm_kl_train(lm_kl *k, const lm_kl_side *p1, const lm_kl_side *p2, size_t rows, float scale, bool add) {
    lm_kl_job j = {.k = k, .side = {p1, p2}, .scale = scale, .add = add};
    double sum = 0.0;
    for (; j.first < rows; j.first += j.rows) {
        j.rows = rows - j.first < k->rows ? rows - j.first : k->rows;
        cmc_pool_run(k->pool, kl_worker, &j);
        for (size_t r = 0; r < j.rows; r++)
            sum += j.each[r];
    }
    return sum;
}
