/* The steered cross-entropy where host and delta have different vocabularies: whole rows go through the map. Threads share
 * columns for the matrix products and rows for what lies between. */
#include <math.h>
#include <string.h>

#include "tinylm/loss_job.h"

size_t loss_steered_floats(const loss *l) {
    return 3 * ((l->n_vocab + 15) / 16 * 16);
}

/* Both models' logits of the block; every thread's are there when it returns. */
static void map_logits(const loss_job *j, int t, int nt) {
    size_t lo, hi;
    cmc_pool_share(j->l->n_vocab, LOSS_GRAIN, t, nt, &lo, &hi);
    loss_host_columns(j, lo, hi);
    cmc_pool_share(j->l->n_delta, LOSS_GRAIN, t, nt, &lo, &hi);
    loss_delta_columns(j, lo, hi, 1.0f, 0.0f, j->l->delta);
    cmc_pool_barrier(j->l->pool, t);
}

/* Row r steered by alpha, in thread t's scratch. */
static float *map_steer(const loss_job *j, int t, size_t r, float alpha) {
    loss *l = j->l;
    float *row = l->steered + (size_t)t * loss_steered_floats(l);
    shift_in in = {.map = l->map, .alpha = alpha, .logits = l->delta + r * l->n_delta};
    memcpy(row, l->logits + r * l->n_vocab, l->n_vocab * sizeof *row);
    shift_apply(row, (int32_t)l->n_vocab, &in, alpha == 0.0f ? 0 : 1, false, row + (l->n_vocab + 15) / 16 * 16);
    return row;
}

/* The centred shift leaves the host's sum as it was, so it serves for the steered row too. */
static double map_nll(const loss_job *j, const float *steered, size_t r, double log_sum) {
    return log_sum - (double)steered[j->b->targets[j->first + r]];
}

void loss_map_train_worker(void *arg, int t, int nt) {
    const loss_job *j = arg;
    loss *l = j->l;
    size_t lo, hi;
    map_logits(j, t, nt);
    cmc_pool_share(j->rows, 1, t, nt, &lo, &hi);
    for (size_t r = lo; r < hi; r++) {
        float *d = l->delta + r * l->n_delta;
        const float *row = map_steer(j, t, r, j->alpha);
        double log_sum = shift_log_sum(l->logits + r * l->n_vocab, (int32_t)l->n_vocab);
        l->sum[r] = map_nll(j, row, r, log_sum);
        memset(d, 0, l->n_delta * sizeof *d);
        shift_transpose(l->map, j->scale, false, NULL, row, j->b->targets[j->first + r], d);
    }
    cmc_pool_barrier(l->pool, t);
    for (size_t r = 0; t == 0 && r < j->rows; r++)
        *j->nll += l->sum[r];
    cmc_pool_share(l->n_delta, LOSS_GRAIN, t, nt, &lo, &hi);
    loss_back_columns(j, t, l->delta, lo, hi);
    cmc_pool_barrier(l->pool, t);
    loss_join_hidden(j, t, nt);
}

void loss_map_score_worker(void *arg, int t, int nt) {
    const loss_job *j = arg;
    loss *l = j->l;
    size_t lo, hi;
    map_logits(j, t, nt);
    cmc_pool_share(j->rows, 1, t, nt, &lo, &hi);
    for (size_t r = lo; r < hi; r++) {
        double log_sum = shift_log_sum(l->logits + r * l->n_vocab, (int32_t)l->n_vocab);
        for (size_t a = 0; a < j->n_alphas; a++)
            l->sum[r * j->n_alphas + a] = map_nll(j, map_steer(j, t, r, (float)j->alphas[a]), r, log_sum);
    }
    cmc_pool_barrier(l->pool, t);
    for (size_t r = 0; t == 0 && r < j->rows; r++)
        for (size_t a = 0; a < j->n_alphas; a++)
            j->nll[a] += l->sum[r * j->n_alphas + a];
}
