/* One step of training, and the held-out score. */
#include <math.h>
#include <stdio.h>
#include <string.h>

#include "tinylm/train.h"

/* The examples of a step: *n of them from t->order on. */
static const size_t *step_examples(train *t, int64_t step, size_t *n) {
    int64_t epoch = step / t->steps_per_epoch, in_epoch = step % t->steps_per_epoch;
    size_t first = (size_t)in_epoch * (size_t)t->o.batch;
    if (epoch != t->order_epoch) {
        data_shuffle(train_data(t), t->o.seed, (uint64_t)epoch, t->order);
        t->order_epoch = epoch;
    }
    *n = train_data(t)->n_train - first < (size_t)t->o.batch ? train_data(t)->n_train - first : (size_t)t->o.batch;
    return t->order + first;
}

/* "3, 17, 4": where the examples stand in the data. */
static void step_lines(const train *t, const size_t *index, size_t n, char *out, size_t size) {
    size_t at = 0;
    out[0] = '\0';
    for (size_t i = 0; i < n && at + 24 < size; i++)
        at += (size_t)snprintf(out + at, size - at, "%s%ld", i ? ", " : "", train_data(t)->v[index[i]].line);
}

static cmc_status step_diverged(const train *t, const char *what, const size_t *index, size_t n, cmc_error *err) {
    char lines[200];
    step_lines(t, index, n, lines, sizeof lines);
    return cmc_fail(err, CMC_E_DIVERGED,
                    "step %lld: the %s is no finite number (records of lines %s); use a lower lr than %g, or "
                    "a stronger clip than %g; the weights are as after step %lld",
                    (long long)t->s.step + 1, what, lines, t->o.lr, t->o.clip, (long long)t->s.step);
}

/* Forward and backward through all pieces of the batch beside one host: gradients are added to the net's, the host's share
 * of the loss to *mean. */
static cmc_status step_host(train *t, train_host *h, const size_t *index, size_t n, double *mean, uint64_t *targets,
                            cmc_error *err) {
    double nll = 0.0;
    size_t all = 0;
    for (size_t i = 0; i < n; i++)
        all += h->data.v[index[i]].n_targets;
    float scale = (float)(h->weight / (double)all);
    for (size_t done = 0; done < n;) {
        done += batch_pack(&t->batch, &h->data, &h->states, index + done, n - done);
        net_forward(&t->net, &t->batch.b);
        CMC_TRY(loss_train(&h->loss, &t->net, &t->batch.b, (float)t->o.alpha, scale, t->dhidden, &nll, err));
        net_backward(&t->net, &t->batch.b, t->dhidden);
    }
    *mean += h->weight * nll / (double)all;
    *targets += all;
    return CMC_OK;
}

static cmc_status step_gradient(train *t, const size_t *index, size_t n, double *mean, uint64_t *targets,
                                cmc_error *err) {
    *mean = 0.0;
    *targets = 0;
    for (size_t k = 0; k < t->n_hosts; k++)
        CMC_TRY(step_host(t, &t->hosts[k], index, n, mean, targets, err));
    return CMC_OK;
}

cmc_status train_step(train *t, train_step_result *r, cmc_error *err) {
    size_t n;
    const size_t *index = step_examples(t, t->s.step, &n);
    CMC_TRY(step_gradient(t, index, n, &r->loss, &r->tokens, err));
    if (!isfinite(r->loss))
        return step_diverged(t, "loss", index, n, err);
    r->grad_norm = adamw_norm(t->rt->pool, t->net.grad, t->p.n);
    if (!isfinite(r->grad_norm))
        return step_diverged(t, "gradient", index, n, err);
    double scale = t->o.clip > 0.0 && r->grad_norm > t->o.clip ? t->o.clip / r->grad_norm : 1.0;
    r->lr = adamw_lr(t->o.lr, t->o.min_lr, t->warmup, t->steps, t->s.step + 1);
    adamw_step(t->rt->pool, &t->adam, &t->p, t->net.w, t->net.grad, scale, r->lr, t->s.step + 1);
    t->s.step++;
    t->s.tokens += r->tokens;
    t->s.loss = r->loss;
    return CMC_OK;
}

cmc_status train_held_out(train *t, train_host *h, const double *alphas, size_t n, double *nll, cmc_error *err) {
    const data_set *d = &h->data;
    size_t targets = 0;
    memset(nll, 0, n * sizeof *nll);
    for (size_t done = 0; done < d->n_held;) {
        done += batch_pack(&t->batch, d, &h->states, d->held + done, d->n_held - done);
        net_forward(&t->net, &t->batch.b);
        CMC_TRY(loss_score(&h->loss, &t->net, &t->batch.b, alphas, n, nll, err));
        targets += t->batch.b.n_targets;
    }
    for (size_t i = 0; i < n; i++)
        nll[i] = targets ? nll[i] / (double)targets : NAN;
    return CMC_OK;
}
