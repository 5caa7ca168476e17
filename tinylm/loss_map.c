/* The steered cross-entropy where host and delta have different vocabularies: whole rows go through the map. Threads share
 * columns for the matrix products and rows for what lies between. */
#include <math.h>
#include <string.h>

#include "tinylm/loss_job.h"
#include "tinylm/rowmath.h"

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

/* Row r's KL parts and their gradient, added to d. With p the host's and q the steered probabilities, equal in sum over the
 * mapped tokens M (P_M), equal one by one elsewhere: d KL(host || steered) / d delta[j] = alpha sum_{i: map[i]=j} (q_i - p_i);
 * d KL(steered || host) / d delta[j] = alpha sum_{i: map[i]=j} q_i (log(q_i / p_i) - KL / P_M). */
static double map_kl(const loss_job *j, size_t r, const float *steered, float *work, double log_sum, float *d) {
    const loss *l = j->l;
    const int32_t *to = l->map->to;
    const float *h = l->logits + r * l->n_vocab;
    size_t v = l->n_vocab, stride = (v + 15) / 16 * 16;
    float *p = work, *q = work + stride;
    double kl_host = 0.0, kl_steered = 0.0, mass = 0.0;
    memcpy(p, h, v * sizeof *p);
    memcpy(q, steered, v * sizeof *q);
    row_exp_sum(p, v, (float)log_sum);
    row_exp_sum(q, v, (float)log_sum);
    for (size_t i = 0; i < v; i++) {
        double ratio = to[i] < 0 || !(p[i] > 0.0f) ? 0.0 : (double)steered[i] - (double)h[i];
        kl_host -= (double)p[i] * ratio;
        kl_steered += (double)q[i] * ratio;
        mass += to[i] < 0 ? 0.0 : (double)q[i];
    }
    float a = j->scale * j->parts->kl_host, b = j->scale * j->parts->kl_steered;
    float mean = mass > 0.0 ? (float)(kl_steered / mass) : 0.0f;
    for (size_t i = 0; i < v; i++) {
        if (to[i] >= 0)
            d[to[i]] += a * (q[i] - p[i]) + b * q[i] * (p[i] > 0.0f ? steered[i] - h[i] - mean : 0.0f);
    }
    return (double)j->parts->kl_host * kl_host + (double)j->parts->kl_steered * kl_steered;
}

/* Row r's KL from the teacher and its gradient, likewise. With p the teacher's probabilities, P_M and Q_M its and the steered
 * host's sum over the mapped tokens, of which the second does not change: d KL(teacher || steered) / d delta[j] =
 * alpha sum_{i: map[i]=j} (q_i P_M / Q_M - p_i). */
static double map_teacher(const loss_job *j, size_t r, const float *steered, float *work, double log_sum, float *d) {
    const loss *l = j->l;
    const int32_t *to = l->map->to;
    size_t v = l->n_vocab, stride = (v + 15) / 16 * 16;
    const float *z = l->mixer.logits + r * v;
    float *p = work, *q = work + stride;
    double teacher_sum = shift_log_sum(z, (int32_t)v), kl = 0.0, p_mass = 0.0, q_mass = 0.0;
    memcpy(p, z, v * sizeof *p);
    memcpy(q, steered, v * sizeof *q);
    row_exp_sum(p, v, (float)teacher_sum);
    row_exp_sum(q, v, (float)log_sum);
    for (size_t i = 0; i < v; i++) {
        kl += p[i] > 0.0f ? (double)p[i] * (((double)z[i] - teacher_sum) - ((double)steered[i] - log_sum)) : 0.0;
        p_mass += to[i] < 0 ? 0.0 : (double)p[i];
        q_mass += to[i] < 0 ? 0.0 : (double)q[i];
    }
    float a = j->scale * j->parts->kl_teacher, ratio = q_mass > 0.0 ? (float)(p_mass / q_mass) : 0.0f;
    for (size_t i = 0; i < v; i++) {
        if (to[i] >= 0)
            d[to[i]] += a * (q[i] * ratio - p[i]);
    }
    return (double)j->parts->kl_teacher * kl;
}

/* Mixes row r of the mixer into the host's, which has had its own share taken (perturb.h). */
static void map_mix(const loss_job *j, int t, size_t r) {
    const loss *l = j->l;
    const loss_mixer *m = &l->mixer;
    float mix = j->parts->perturb[j->first + r].mix;
    shift_in in = {.map = m->map, .alpha = mix, .logits = m->logits + r * (size_t)m->model->p.n_vocab};
    if (j->parts->mixed[j->first + r] && mix > 0.0f)
        shift_apply(l->logits + r * l->n_vocab, (int32_t)l->n_vocab, &in, 1, false,
                    l->steered + (size_t)t * loss_steered_floats(l));
}

static void map_row(const loss_job *j, int t, size_t r) {
    loss *l = j->l;
    if (j->parts->mixed && j->parts->perturb)
        map_mix(j, t, r);
    float *d = l->delta + r * l->n_delta, *row = map_steer(j, t, r, j->alpha);
    double log_sum = shift_log_sum(l->logits + r * l->n_vocab, (int32_t)l->n_vocab);
    float share = loss_weight(j, r);
    l->sum[r] = j->parts->weight ? 0.0 : (double)share * map_nll(j, row, r, log_sum);
    memset(d, 0, l->n_delta * sizeof *d);
    if (share != 0.0f)
        shift_transpose(l->map, j->scale * share, false, NULL, row, j->b->targets[j->first + r], d);
    if (j->parts->kl_host != 0.0f || j->parts->kl_steered != 0.0f)
        l->sum[r] += map_kl(j, r, row, row + (l->n_vocab + 15) / 16 * 16, log_sum, d);
    if (j->parts->kl_teacher != 0.0f)
        l->sum[r] += map_teacher(j, r, row, row + (l->n_vocab + 15) / 16 * 16, log_sum, d);
}

void loss_map_train_worker(void *arg, int t, int nt) {
    const loss_job *j = arg;
    loss *l = j->l;
    size_t lo, hi;
    map_logits(j, t, nt);
    cmc_pool_share(j->rows, 1, t, nt, &lo, &hi);
    for (size_t r = lo; r < hi; r++)
        map_row(j, t, r);
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
    for (size_t r = 0; t == 0 && r < j->rows; r++) {
        for (size_t a = 0; a < j->n_alphas; a++) {
            j->nll[a] += l->sum[r * j->n_alphas + a];
            if (j->each)
                j->each[(j->first + r) * j->n_alphas + a] = l->sum[r * j->n_alphas + a];
        }
    }
}
