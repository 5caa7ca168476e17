/* The output layer and the steered cross-entropy with its gradient (arXiv 2410.17599, section 3). */
#include "tinylm/loss.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "base/mem.h"
#include "tinylm/carve.h"
#include "tinylm/hostcache.h"
#include "tinylm/loss_job.h"
#include "tinylm/rowmath.h"

enum { LOSS_MIN_ROWS = 32, LOSS_LEAST_ROWS = 2, LOSS_MAX_ROWS = 256 };

/* ---------------------------------------------------------------------------------------------- set-up */

/* A huge vocabulary has LOSS_MIN_ROWS in a block of the usual size, and fewer only in a block that was asked to be small. */
size_t loss_block_rows(const cmc_model *host, const cmc_map *map, size_t block) {
    size_t v = (size_t)host->p.n_vocab + (map ? (size_t)map->n_delta : 0), rows = block / (v * sizeof(float));
    size_t least = block < LOSS_BLOCK_BYTES ? LOSS_LEAST_ROWS : LOSS_MIN_ROWS;
    rows = rows >= 16 ? rows / 16 * 16 : rows / 2 * 2;
    return rows < least ? least : rows > LOSS_MAX_ROWS ? LOSS_MAX_ROWS : rows;
}

bool loss_integer_head(const cmc_model *host) {
    return host->rt->integer_gemm && quant_dot_uses_act(host->head.type);
}

static size_t loss_floats(size_t v, const cmc_map *map, size_t he, size_t e, size_t nt, bool head, size_t rows) {
    size_t mapped = map ? rows * (size_t)map->n_delta + nt * 3 * (v + 16) : 0;
    return rows * v + rows * he + nt * rows * e + nt * rows * LOSS_MAX_ALPHAS + rows * 2 + (head ? v * he : 0) + mapped +
           8 * 16;
}

size_t loss_bytes(const cmc_model *host, const cmc_map *map, size_t embd, int threads, bool decode_head, size_t block,
                  size_t targets) {
    size_t v = (size_t)host->p.n_vocab, nt = (size_t)threads, rows = loss_block_rows(host, map, block);
    size_t used = !map ? rows / 2 + (targets < rows / 2 ? targets : rows / 2) : targets; /* as scoring uses it */
    used = targets > used ? targets : used;
    rows = used < rows ? used : rows;
    return loss_floats(v, map, (size_t)host->p.n_embd, embd, nt, decode_head, rows) * sizeof(float) +
           nt * rows * LOSS_MAX_ALPHAS * sizeof(double);
}

static void loss_decode_worker(void *arg, int t, int nt) {
    loss *l = arg;
    size_t lo, hi;
    cmc_pool_share(l->n_vocab, 64, t, nt, &lo, &hi);
    for (size_t r = lo; r < hi; r++)
        weight_row(&l->host->head, r, l->head + r * l->host_embd);
}

cmc_status loss_new(cmc_model *host, const cmc_map *map, size_t embd, bool decode_head, size_t block, loss *out,
                    cmc_error *err) {
    memset(out, 0, sizeof *out);
    out->host = host;
    out->map = map;
    out->pool = host->rt->pool;
    out->blas = host->rt->exact ? NULL : host->rt->blas;
    out->nt = cmc_pool_threads(out->pool);
    out->n_vocab = (size_t)host->p.n_vocab;
    out->host_embd = (size_t)host->p.n_embd;
    out->embd = embd;
    out->n_delta = map ? (size_t)map->n_delta : out->n_vocab;
    out->rows = loss_block_rows(host, map, block);
    size_t nt = (size_t)out->nt, n = loss_floats(out->n_vocab, map, out->host_embd, embd, nt, decode_head, out->rows);
    out->arena = cmc_alloc_aligned(n, sizeof(float));
    out->sum = cmc_alloc(nt * out->rows * LOSS_MAX_ALPHAS, sizeof *out->sum);
    if (!out->arena || !out->sum) {
        loss_free(out);
        return cmc_fail_nomem(err, "the output layer's block of logits", n * sizeof(float));
    }
    carver c = {out->arena, 0};
    out->logits = carve(&c, out->rows, out->n_vocab);
    out->states = carve(&c, out->rows, out->host_embd);
    out->dh_part = carve(&c, nt * out->rows, embd);
    out->max = carve(&c, nt * out->rows, LOSS_MAX_ALPHAS);
    out->at_target = carve(&c, out->rows, 2);
    if (map) {
        out->delta = carve(&c, out->rows, out->n_delta);
        out->steered = carve(&c, nt, loss_steered_floats(out));
    }
    if (decode_head) {
        out->head = carve(&c, out->n_vocab, out->host_embd);
        cmc_pool_run(out->pool, loss_decode_worker, out);
    }
    return CMC_OK;
}

size_t loss_mixer_bytes(const cmc_model *model, size_t rows) {
    return rows * ((size_t)model->p.n_vocab + (size_t)model->p.n_embd) * sizeof(float);
}

cmc_status loss_mix_with(loss *l, cmc_model *model, const cmc_map *map, cmc_error *err) {
    size_t n = loss_mixer_bytes(model, l->rows) / sizeof(float);
    if (!l->map)
        return cmc_fail(err, CMC_E_ARG, "a mixer needs the path through a map");
    l->mixer = (loss_mixer){.model = model, .map = map, .logits = cmc_alloc_aligned(n, sizeof(float))};
    if (!l->mixer.logits)
        return cmc_fail_nomem(err, "the mixer's logits", n * sizeof(float));
    l->mixer.states = l->mixer.logits + l->rows * (size_t)model->p.n_vocab;
    return CMC_OK;
}

void loss_free(loss *l) {
    free(l->mixer.logits);
    free(l->arena);
    free(l->sum);
    memset(l, 0, sizeof *l);
}

/* ------------------------------------------------------------------------------------------ both passes */

/* A row's host state. A host's logits are linear in it (graph_logits: no bias, no cap), so it takes the temperature. */
static void loss_host_state(const loss_job *j, size_t r) {
    float *x = j->l->states + r * j->l->host_embd;
    const perturb *p = j->parts ? j->parts->perturb : NULL;
    hostcache_unpack(j->b->host[j->first + r], x, j->l->host_embd);
    if (p)
        row_scale(x, j->l->host_embd, p[j->first + r].scale);
}

/* The block's host states as floats, and its logits too where the head is not at hand. */
cmc_status loss_host_states(const loss_job *j, cmc_error *err) {
    const loss *l = j->l;
    for (size_t r = 0; r < j->rows; r++)
        loss_host_state(j, r);
    if (l->head)
        return CMC_OK;
    return cmc_model_logits(l->host, l->states, j->rows, l->logits, err);
}

cmc_status loss_mixer_logits(const loss_job *j, cmc_error *err) {
    const loss_mixer *m = &j->l->mixer;
    size_t e = (size_t)m->model->p.n_embd;
    for (size_t r = 0; r < j->rows; r++) {
        const uint8_t *state = j->parts->mixed[j->first + r];
        if (state)
            hostcache_unpack(state, m->states + r * e, e);
        else
            memset(m->states + r * e, 0, e * sizeof(float));
    }
    return cmc_model_logits(m->model, m->states, j->rows, m->logits, err);
}

/* logits[:, lo..hi) += mix * log u, a share for each row. */
static void loss_mix_columns(const loss_job *j, size_t lo, size_t hi) {
    for (size_t r = 0; r < j->rows; r++) {
        float *row = j->l->logits + r * j->l->n_vocab, mix = j->parts->perturb[j->first + r].mix;
        for (size_t c = lo; c < hi && mix > 0.0f; c++)
            row[c] += mix * j->parts->log_unigram[c];
    }
}

/* Columns [lo, hi) of the host's logits, where they are not there already, perturbed where the loss wants that. */
void loss_host_columns(const loss_job *j, size_t lo, size_t hi) {
    const loss *l = j->l;
    if (l->head && hi > lo)
        blas_gemm(l->blas, false, false, j->rows, hi - lo, l->host_embd, 1.0f, l->states, l->host_embd,
                  l->head + lo * l->host_embd, l->host_embd, 0.0f, l->logits + lo, l->n_vocab);
    if (j->parts && j->parts->perturb && j->parts->log_unigram)
        loss_mix_columns(j, lo, hi);
}

/* out[:, lo..hi) = alpha * delta's logits + beta * out. */
void loss_delta_columns(const loss_job *j, size_t lo, size_t hi, float alpha, float beta, float *out) {
    const loss *l = j->l;
    if (hi > lo)
        blas_gemm(l->blas, false, false, j->rows, hi - lo, l->embd, alpha, j->d.hidden + j->first * l->embd, l->embd,
                  j->d.embd + lo * l->embd, l->embd, beta, out + lo, l->n_delta);
}

void loss_back_columns(const loss_job *j, int t, const float *d, size_t lo, size_t hi) {
    const loss *l = j->l;
    size_t e = l->embd, v = l->n_delta;
    const float *h = j->d.hidden + j->first * e;
    float *part = l->dh_part + (size_t)t * l->rows * e;
    if (hi > lo) {
        if (j->d.grad)
            blas_gemm(l->blas, true, true, hi - lo, e, j->rows, 1.0f, d + lo, v, h, e, 1.0f, j->d.grad + lo * e, e);
        blas_gemm(l->blas, false, true, j->rows, e, hi - lo, 1.0f, d + lo, v, j->d.embd + lo * e, e, 0.0f, part, e);
    } else {
        memset(part, 0, j->rows * e * sizeof(float));
    }
}

void loss_join_hidden(const loss_job *j, int t, int nt) {
    const loss *l = j->l;
    size_t lo, hi, e = l->embd;
    cmc_pool_share(j->rows, 1, t, nt, &lo, &hi);
    for (size_t r = lo; r < hi; r++) {
        float *dh = j->dhidden + (j->first + r) * e;
        memcpy(dh, l->dh_part + r * e, e * sizeof(float));
        for (int k = 1; k < nt; k++) {
            const float *p = l->dh_part + ((size_t)k * l->rows + r) * e;
            for (size_t c = 0; c < e; c++)
                dh[c] += p[c];
        }
    }
}

/* Joins the threads' (max, sum of exp) of entry i; every thread gets the same bits. */
static double loss_join(const loss *l, size_t stride, size_t i, float *max) {
    float m = l->max[i];
    for (int t = 1; t < l->nt; t++)
        m = l->max[(size_t)t * stride + i] > m ? l->max[(size_t)t * stride + i] : m;
    double sum = 0.0;
    for (int t = 0; t < l->nt; t++) {
        double part = l->sum[(size_t)t * stride + i];
        if (part != 0.0) /* a thread without columns has max -inf; a NaN passes */
            sum += part * exp((double)l->max[(size_t)t * stride + i] - (double)m);
    }
    *max = m;
    return sum;
}

/* --------------------------------------------------------------------------------------------- training */

/* Own columns: logits -> exp(logit - own max), with own max and sum kept for each row. */
static void loss_exp_columns(const loss_job *j, int t, size_t lo, size_t hi) {
    loss *l = j->l;
    for (size_t r = 0; r < j->rows; r++) {
        float *row = l->logits + r * l->n_vocab;
        size_t y = (size_t)j->b->targets[j->first + r], i = (size_t)t * l->rows + r;
        if (y >= lo && y < hi)
            l->at_target[r] = row[y];
        l->max[i] = row_max(row + lo, hi - lo);
        l->sum[i] = hi > lo ? row_exp_sum(row + lo, hi - lo, l->max[i]) : 0.0;
    }
}

/* Own columns: exp -> gradient; thread 0 sums the NLL. */
static void loss_grad_columns(const loss_job *j, int t, size_t lo, size_t hi) {
    loss *l = j->l;
    double nll = 0.0;
    for (size_t r = 0; r < j->rows; r++) {
        float *row = l->logits + r * l->n_vocab, max;
        size_t y = (size_t)j->b->targets[j->first + r];
        double sum = loss_join(l, l->rows, r, &max);
        float share = loss_weight(j, r), scale = j->scale * share;
        if (hi > lo)
            row_scale(row + lo, hi - lo,
                      (float)(exp((double)l->max[(size_t)t * l->rows + r] - (double)max) / sum * (double)scale));
        if (y >= lo && y < hi)
            row[y] -= scale;
        nll += j->parts->weight ? 0.0 : (double)share * ((double)max + log(sum) - (double)l->at_target[r]);
    }
    if (t == 0)
        *j->nll += nll;
}

static void loss_train_worker(void *arg, int t, int nt) {
    const loss_job *j = arg;
    loss *l = j->l;
    size_t lo, hi;
    cmc_pool_share(l->n_vocab, LOSS_GRAIN, t, nt, &lo, &hi);
    loss_host_columns(j, lo, hi);
    loss_delta_columns(j, lo, hi, j->alpha, 1.0f, l->logits); /* host + alpha * delta in the one buffer */
    loss_exp_columns(j, t, lo, hi);
    cmc_pool_barrier(l->pool, t);
    loss_grad_columns(j, t, lo, hi);
    loss_back_columns(j, t, l->logits, lo, hi);
    cmc_pool_barrier(l->pool, t);
    loss_join_hidden(j, t, nt);
}

cmc_status loss_train(loss *l, net_out d, const net_batch *b, const loss_parts *parts, float alpha, float scale,
                      float *dhidden, double *sum, cmc_error *err) {
    /* d NLL / d delta logit = alpha * (q - onehot) */
    loss_job j = {.l = l, .d = d, .b = b, .parts = parts, .alpha = alpha, .scale = alpha * scale, .dhidden = dhidden,
                  .nll = sum};
    if (!l->map && (parts->kl_host != 0.0f || parts->kl_steered != 0.0f || parts->kl_teacher != 0.0f))
        return cmc_fail(err, CMC_E_ARG, "a KL part needs the path through a map");
    for (j.first = 0; j.first < b->n_targets; j.first += j.rows) {
        j.rows = b->n_targets - j.first < l->rows ? b->n_targets - j.first : l->rows;
        CMC_TRY(loss_host_states(&j, err));
        if (parts->mixed)
            CMC_TRY(loss_mixer_logits(&j, err));
        cmc_pool_run(l->pool, l->map ? loss_map_train_worker : loss_train_worker, &j);
    }
    return CMC_OK;
}

/* ---------------------------------------------------------------------------------------------- scoring */

static void loss_score_worker(void *arg, int t, int nt) {
    const loss_job *j = arg;
    loss *l = j->l;
    size_t lo, hi, v = l->n_vocab, stride = l->rows * LOSS_MAX_ALPHAS;
    float *delta = l->logits + l->rows / 2 * v;
    cmc_pool_share(v, LOSS_GRAIN, t, nt, &lo, &hi);
    loss_host_columns(j, lo, hi);
    loss_delta_columns(j, lo, hi, 1.0f, 0.0f, delta);
    for (size_t r = 0; r < j->rows; r++) {
        const float *h = l->logits + r * v, *d = delta + r * v;
        size_t y = (size_t)j->b->targets[j->first + r];
        if (y >= lo && y < hi) {
            l->at_target[2 * r] = h[y];
            l->at_target[2 * r + 1] = d[y];
        }
        for (size_t a = 0; a < j->n_alphas; a++) {
            size_t i = (size_t)t * stride + r * j->n_alphas + a;
            float alpha = (float)j->alphas[a];
            l->max[i] = row_mix_max(h + lo, d + lo, alpha, hi - lo);
            l->sum[i] = hi > lo ? row_mix_exp_sum(h + lo, d + lo, alpha, l->max[i], hi - lo) : 0.0;
        }
    }
    cmc_pool_barrier(l->pool, t);
    if (t != 0)
        return;
    for (size_t r = 0; r < j->rows; r++) {
        for (size_t a = 0; a < j->n_alphas; a++) {
            float max;
            double sum = loss_join(l, stride, r * j->n_alphas + a, &max);
            double at = (double)l->at_target[2 * r] + j->alphas[a] * (double)l->at_target[2 * r + 1];
            double nll = (double)max + log(sum) - at;
            j->nll[a] += nll;
            if (j->each)
                j->each[(j->first + r) * j->n_alphas + a] = nll;
        }
    }
}

cmc_status loss_score(loss *l, net_out d, const net_batch *b, const double *alphas, size_t n_alphas, double *nll,
                      double *each, cmc_error *err) {
    if (n_alphas > LOSS_MAX_ALPHAS)
        return cmc_fail(err, CMC_E_ARG, "at most %d strengths can be scored at once", LOSS_MAX_ALPHAS);
    loss_job j = {.l = l, .d = d, .b = b, .alphas = alphas, .n_alphas = n_alphas, .nll = nll, .each = each};
    size_t most = l->map ? l->rows : l->rows / 2; /* with a map the delta's logits have a block of their own */
    for (j.first = 0; j.first < b->n_targets; j.first += j.rows) {
        j.rows = b->n_targets - j.first < most ? b->n_targets - j.first : most;
        CMC_TRY(loss_host_states(&j, err));
        cmc_pool_run(l->pool, l->map ? loss_map_score_worker : loss_score_worker, &j);
    }
    return CMC_OK;
}
