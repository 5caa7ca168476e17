/* The examples of a step, the losses of responses as wholes, and the step itself. */
#include "tinylm/step.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>

#include "base/mem.h"

bool step_order_new(size_t n, size_t most, step_order *out) {
    *out = (step_order){cmc_alloc(n, sizeof *out->v), cmc_alloc(most, sizeof *out->batch), -1};
    return out->v && out->batch;
}

void step_order_free(step_order *o) {
    free(o->v);
    free(o->batch);
}

static size_t order_at(step_order *o, const size_t *list, size_t n, uint64_t seed, uint64_t k) {
    int64_t epoch = (int64_t)(k / n);
    if (epoch != o->epoch) {
        data_shuffle(list, n, seed, (uint64_t)epoch, o->v);
        o->epoch = epoch;
    }
    return o->v[k % n];
}

const size_t *step_order_take(step_order *o, const size_t *list, size_t n_list, uint64_t seed, uint64_t first, size_t n) {
    for (size_t i = 0; i < n; i++)
        o->batch[i] = order_at(o, list, n_list, seed, first + i);
    return o->batch;
}

const size_t *step_order_epoch(step_order *o, const data_set *d, uint64_t seed, size_t most, int64_t step, size_t *n) {
    size_t steps = (d->n_train + most - 1) / most, epoch = (size_t)step / steps, first = (size_t)step % steps * most;
    *n = d->n_train - first < most ? d->n_train - first : most;
    return step_order_take(o, d->train, d->n_train, seed, epoch * d->n_train + first, *n);
}

const size_t *step_pairs(const objective *o, const data_set *d, const size_t *index, size_t *n, size_t *pairs) {
    if (objective_group(o) == 1)
        return index;
    for (size_t i = *n; i-- > 0;) {
        pairs[2 * i] = index[i];
        pairs[2 * i + 1] = d->v[index[i]].twin;
    }
    *n *= 2;
    return pairs;
}

size_t step_tokens(const data_set *d, const size_t *index, size_t n) {
    size_t count = 0;
    for (size_t i = 0; i < n; i++)
        count += d->v[index[i]].n_delta;
    return count;
}

size_t step_targets(const data_set *d, const size_t *index, size_t n) {
    size_t all = 0;
    for (size_t i = 0; i < n; i++)
        all += d->v[index[i]].n_targets;
    return all;
}

void step_weights(const objective *o, const data_set *d, const size_t *index, size_t n, const double *nll,
                  const double *host_nll, size_t stride, float *weights, double *sum) {
    objective_response r[2] = {{0}};
    size_t group = objective_group(o), at = 0, first[3] = {0};
    for (size_t i = 0; i < n; i += group) {
        for (size_t g = 0; g < group; g++) {
            r[g] = (objective_response){.n = d->v[index[i + g]].n_targets};
            first[g] = at;
            for (size_t k = 0; k < r[g].n; k++, at++) {
                r[g].nll += nll[at * stride];
                r[g].host_nll += host_nll[at * stride];
            }
            first[g + 1] = at;
        }
        double slope[2];
        *sum += objective_record(o, &r[0], &r[1], &slope[0], &slope[1]);
        for (size_t g = 0; g < group; g++)
            for (size_t k = first[g]; k < first[g + 1]; k++)
                weights[k] = (float)slope[g];
    }
}

/* "3, 17, 4": where the examples stand in the data. */
static void diverged_lines(const data_set *d, const size_t *index, size_t n, char *out, size_t size) {
    size_t at = 0;
    out[0] = '\0';
    for (size_t i = 0; i < n && at + 24 < size; i++)
        at += (size_t)snprintf(out + at, size - at, "%s%ld", i ? ", " : "", d->v[index[i]].line);
}

/* After `done` steps the loss or the gradient is no finite number. */
static cmc_status step_diverged(const data_set *d, const cmc_train_opts *o, int64_t done, const char *what, const size_t *index,
                         size_t n, cmc_error *err) {
    char lines[200];
    diverged_lines(d, index, n, lines, sizeof lines);
    return cmc_fail(err, CMC_E_DIVERGED,
                    "step %lld: the %s is no finite number (records of lines %s); use a lower lr than %g, or "
                    "a stronger clip than %g; the weights are as after step %lld",
                    (long long)done + 1, what, lines, o->lr, o->clip, (long long)done);
}

cmc_status step_apply(const step_update *u, const cmc_train_opts *o, const data_set *d, const size_t *index, size_t n,
                      checkpoint_state *s, run_step *r, cmc_error *err) {
    if (!isfinite(r->loss))
        return step_diverged(d, o, s->step, "loss", index, n, err);
    r->grad_norm = adamw_norm(u->pool, u->grad, u->n);
    if (!isfinite(r->grad_norm))
        return step_diverged(d, o, s->step, "gradient", index, n, err);
    double scale = o->clip > 0.0 && r->grad_norm > o->clip ? o->clip / r->grad_norm : 1.0;
    r->lr = adamw_lr(o->lr, o->min_lr, u->warmup, u->steps, s->step + 1);
    adamw_step(u->pool, u->adam, u->p, u->w, u->grad, scale, r->lr, s->step + 1);
    s->step++;
    s->tokens += r->tokens;
    s->loss = r->loss;
    return CMC_OK;
}
