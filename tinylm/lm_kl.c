/* KL of two passes: each thread has rows of its own, a block against the whole vocabulary at a time. */
#include "tinylm/lm_kl.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "base/mem.h"
#include "tinylm/rowmath.h"

enum { KL_BLOCK_BYTES = 24 << 20, KL_MIN_ROWS = 16, KL_MAX_ROWS = 128 };

typedef struct lm_kl_job {
    const lm_kl *k;
    const lm_net *n;
    const float *h1, *h2;    /* the block's */
    float *dh1, *dh2;
    size_t rows;
    float scale;
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

static void kl_worker(void *arg, int t, int nt) {
    lm_kl_job *j = arg;
    const lm_kl *k = j->k;
    size_t v = k->n_vocab, e = k->embd, lo, hi;
    const float *head = j->n->w + j->n->l->head;
    float *z1 = k->logits, *z2 = z1 + k->rows * v, *d = z2 + k->rows * v;
    cmc_pool_share(j->rows, 1, t, nt, &lo, &hi);
    if (hi <= lo)
        return;
    blas_gemm(k->blas, false, false, hi - lo, v, e, 1.0f, j->h1 + lo * e, e, head, e, 0.0f, z1 + lo * v, v);
    blas_gemm(k->blas, false, false, hi - lo, v, e, 1.0f, j->h2 + lo * e, e, head, e, 0.0f, z2 + lo * v, v);
    for (size_t r = lo; r < hi; r++)
        j->each[r] = kl_row(z1 + r * v, z2 + r * v, d + r * v, v, j->scale);
    blas_gemm(k->blas, false, true, hi - lo, e, v, 1.0f, z1 + lo * v, v, head, e, 0.0f, j->dh1 + lo * e, e);
    blas_gemm(k->blas, false, true, hi - lo, e, v, 1.0f, z2 + lo * v, v, head, e, 0.0f, j->dh2 + lo * e, e);
}

double lm_kl_train(lm_kl *k, const lm_net *n, const float *h1, const float *h2, size_t rows, float scale, float *dh1,
                   float *dh2) {
    lm_kl_job j = {.k = k, .n = n, .scale = scale};
    double sum = 0.0;
    for (size_t first = 0; first < rows; first += j.rows) {
        size_t at = first * k->embd;
        j.rows = rows - first < k->rows ? rows - first : k->rows;
        j.h1 = h1 + at;
        j.h2 = h2 + at;
        j.dh1 = dh1 + at;
        j.dh2 = dh2 + at;
        cmc_pool_run(k->pool, kl_worker, &j);
        for (size_t r = 0; r < j.rows; r++)
            sum += j.each[r];
    }
    return sum;
}
