/* Cross-entropy against the whole vocabulary: each thread has columns of its own. */
#include "tinylm/lm_loss.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "base/mem.h"
#include "tinylm/rowmath.h"

/* A block's logits take about this much, so that the gemms are large and yet [tokens x vocabulary] never exists. */
enum { LM_BLOCK_BYTES = 96 << 20, LM_MIN_ROWS = 32, LM_MAX_ROWS = 256, LM_GRAIN = 64 };

typedef struct lm_loss_job {
    lm_loss *l;
    lm_net *n;
    const net_batch *b;
    size_t first, rows;       /* the block's targets */
    float scale;
    const float *weight;      /* [n_targets] or NULL */
    float *dhidden;           /* NULL: no gradient is wanted */
    double *nll, *each;
} lm_loss_job;

static size_t lm_loss_rows(const model_params *p) {
    size_t rows = (size_t)LM_BLOCK_BYTES / ((size_t)p->n_vocab * sizeof(float)) / 16 * 16;
    return rows < LM_MIN_ROWS ? LM_MIN_ROWS : rows > LM_MAX_ROWS ? LM_MAX_ROWS : rows;
}

static size_t lm_loss_floats(const model_params *p, size_t nt) {
    size_t rows = lm_loss_rows(p);
    return rows * ((size_t)p->n_vocab + nt * ((size_t)p->n_embd + 1) + 1);
}

size_t lm_loss_bytes(const model_params *p, int threads) {
    size_t nt = (size_t)threads;
    return lm_loss_floats(p, nt) * sizeof(float) + nt * lm_loss_rows(p) * sizeof(double);
}

cmc_status lm_loss_new(cmc_runtime *rt, const model_params *p, lm_loss *out, cmc_error *err) {
    memset(out, 0, sizeof *out);
    out->pool = rt->pool;
    out->blas = rt->exact ? NULL : rt->blas;
    out->nt = cmc_pool_threads(rt->pool);
    out->n_vocab = (size_t)p->n_vocab;
    out->embd = (size_t)p->n_embd;
    out->rows = lm_loss_rows(p);
    size_t nt = (size_t)out->nt, n = lm_loss_floats(p, nt);
    out->arena = cmc_alloc_aligned(n, sizeof(float));
    out->sum = cmc_alloc(nt * out->rows, sizeof *out->sum);
    if (!out->arena || !out->sum) {
        lm_loss_free(out);
        return cmc_fail_nomem(err, "the output layer's block of logits", n * sizeof(float));
    }
    out->logits = out->arena;
    out->dh_part = out->logits + out->rows * out->n_vocab;
    out->max = out->dh_part + nt * out->rows * out->embd;
    out->at_target = out->max + nt * out->rows;
    return CMC_OK;
}

void lm_loss_free(lm_loss *l) {
    free(l->arena);
    free(l->sum);
    memset(l, 0, sizeof *l);
}

/* Own columns: logits -> exp(logit - own max), with own max and sum kept for each row. */
static void lm_loss_exp(const lm_loss_job *j, int t, size_t lo, size_t hi) {
    lm_loss *l = j->l;
    size_t e = l->embd;
    if (hi > lo)
        blas_gemm(l->blas, false, false, j->rows, hi - lo, e, 1.0f, j->n->hidden + j->first * e, e,
                  j->n->w + j->n->l->head + lo * e, e, 0.0f, l->logits + lo, l->n_vocab);
    for (size_t r = 0; r < j->rows; r++) {
        float *row = l->logits + r * l->n_vocab;
        size_t y = (size_t)j->b->targets[j->first + r], i = (size_t)t * l->rows + r;
        if (y >= lo && y < hi)
            l->at_target[r] = row[y];
        l->max[i] = row_max(row + lo, hi - lo);
        l->sum[i] = hi > lo ? row_exp_sum(row + lo, hi - lo, l->max[i]) : 0.0;
    }
}

/* Joins the threads' (max, sum of exp) of row r; every thread gets the same bits. */
static double lm_loss_join(const lm_loss *l, size_t r, float *max) {
    float m = l->max[r];
    double sum = 0.0;
    for (int t = 1; t < l->nt; t++)
        m = l->max[(size_t)t * l->rows + r] > m ? l->max[(size_t)t * l->rows + r] : m;
    for (int t = 0; t < l->nt; t++) {
        double part = l->sum[(size_t)t * l->rows + r];
        if (part != 0.0) /* a thread without columns has max -inf; a NaN passes */
            sum += part * exp((double)l->max[(size_t)t * l->rows + r] - (double)m);
    }
    *max = m;
    return sum;
}

/* Own columns: exp -> gradient, where one is wanted; thread 0 sums the NLL. */
static void lm_loss_grad(const lm_loss_job *j, int t, size_t lo, size_t hi) {
    lm_loss *l = j->l;
    double nll = 0.0;
    for (size_t r = 0; r < j->rows; r++) {
        float *row = l->logits + r * l->n_vocab, max;
        size_t y = (size_t)j->b->targets[j->first + r];
        double sum = lm_loss_join(l, r, &max), one = (double)max + log(sum) - (double)l->at_target[r];
        nll += one;
        if (j->each && t == 0)
            j->each[j->first + r] = one;
        if (!j->dhidden)
            continue;
        float scale = j->weight ? j->scale * j->weight[j->first + r] : j->scale;
        if (hi > lo)
            row_scale(row + lo, hi - lo,
                      (float)(exp((double)l->max[(size_t)t * l->rows + r] - (double)max) / sum * (double)scale));
        if (y >= lo && y < hi)
            row[y] -= scale;
    }
    if (t == 0)
        *j->nll += nll;
}

/* Own columns of the logits' gradient: into the output matrix's, and thread t's part of the hidden states'. */
static void lm_loss_back(const lm_loss_job *j, int t, size_t lo, size_t hi) {
    const lm_loss *l = j->l;
    const lm_net *n = j->n;
    size_t e = l->embd, v = l->n_vocab, head = n->l->head + lo * e;
    float *part = l->dh_part + (size_t)t * l->rows * e;
    if (hi <= lo) {
        memset(part, 0, j->rows * e * sizeof(float));
        return;
    }
    if (lm_learns(n, n->l->head))
        blas_gemm(l->blas, true, true, hi - lo, e, j->rows, 1.0f, l->logits + lo, v, n->hidden + j->first * e, e, 1.0f,
                  n->grad + head, e);
    blas_gemm(l->blas, false, true, j->rows, e, hi - lo, 1.0f, l->logits + lo, v, n->w + head, e, 0.0f, part, e);
}

static void lm_loss_join_hidden(const lm_loss_job *j, int t, int nt) {
    const lm_loss *l = j->l;
    size_t lo, hi, e = l->embd;
    cmc_pool_share(j->rows, 1, t, nt, &lo, &hi);
    for (size_t r = lo; r < hi; r++) {
        float *dh = j->dhidden + (j->first + r) * e;
        memcpy(dh, l->dh_part + r * e, e * sizeof(float));
        for (int k = 1; k < nt; k++)
            for (size_t c = 0; c < e; c++)
                dh[c] += l->dh_part[((size_t)k * l->rows + r) * e + c];
    }
}

static void lm_loss_worker(void *arg, int t, int nt) {
    const lm_loss_job *j = arg;
    size_t lo, hi;
    cmc_pool_share(j->l->n_vocab, LM_GRAIN, t, nt, &lo, &hi);
    lm_loss_exp(j, t, lo, hi);
    cmc_pool_barrier(j->l->pool, t);
    lm_loss_grad(j, t, lo, hi);
    if (!j->dhidden)
        return;
    lm_loss_back(j, t, lo, hi);
    cmc_pool_barrier(j->l->pool, t);
    lm_loss_join_hidden(j, t, nt);
}

static void lm_loss_run(lm_loss_job *j) {
    for (j->first = 0; j->first < j->b->n_targets; j->first += j->rows) {
        size_t left = j->b->n_targets - j->first;
        j->rows = left < j->l->rows ? left : j->l->rows;
        cmc_pool_run(j->l->pool, lm_loss_worker, j);
    }
}

void lm_loss_score(lm_loss *l, lm_net *n, const net_batch *b, double *nll, double *each) {
    lm_loss_job j = {.l = l, .n = n, .b = b, .nll = nll, .each = each};
    lm_loss_run(&j);
}

void lm_loss_train(lm_loss *l, lm_net *n, const net_batch *b, const float *weights, float scale, float *dhidden, double *nll) {
    lm_loss_job j = {.l = l, .n = n, .b = b, .scale = scale, .weight = weights, .dhidden = dhidden, .nll = nll};
    lm_loss_run(&j);
}
