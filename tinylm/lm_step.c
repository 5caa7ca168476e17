/* One step of tuning, and the held-out score. */
#include <math.h>
#include <stdio.h>
#include <string.h>

#include "tinylm/lm_train.h"

/* The examples of a step: *n of t->order.batch; an epoch has its own order, and its last step may have fewer. */
static const size_t *step_examples(tune *t, int64_t step, size_t *n) {
    const data_set *d = &t->data;
    size_t most = (size_t)t->o.how.batch, first = (size_t)(step % t->pace.steps_per_epoch) * most;
    uint64_t epoch = (uint64_t)(step / t->pace.steps_per_epoch);
    *n = d->n_train - first < most ? d->n_train - first : most;
    for (size_t i = 0; i < *n; i++)
        t->order.batch[i] = train_order_at(&t->order, d->train, d->n_train, t->o.how.seed, epoch * d->n_train + first + i);
    return t->order.batch;
}

/* Those to replay in a step: *n of t->replay_order.batch. */
static const size_t *step_replay(tune *t, int64_t step, size_t *n) {
    const data_set *d = &t->replay;
    size_t first = keep_replay_before(&t->o.how.keep, t->o.how.batch, step);
    *n = keep_replay_before(&t->o.how.keep, t->o.how.batch, step + 1) - first;
    for (size_t i = 0; i < *n; i++)
        t->replay_order.batch[i] = train_order_at(&t->replay_order, d->train, d->n_train, t->o.how.seed + 1, first + i);
    return t->replay_order.batch;
}

static cmc_status step_diverged(const tune *t, const char *what, const size_t *index, size_t n, cmc_error *err) {
    char lines[200] = "";
    size_t at = 0;
    for (size_t i = 0; i < n && at + 24 < sizeof lines; i++)
        at += (size_t)snprintf(lines + at, sizeof lines - at, "%s%ld", i ? ", " : "", t->data.v[index[i]].line);
    return cmc_fail(err, CMC_E_DIVERGED,
                    "step %lld: the %s is no finite number (records of lines %s); use a lower lr than %g, or "
                    "a stronger clip than %g; the weights are as after step %lld",
                    (long long)t->s.step + 1, what, lines, t->o.how.lr, t->o.how.clip, (long long)t->s.step);
}

static size_t step_targets(const data_set *d, const size_t *index, size_t n) {
    size_t count = 0;
    for (size_t i = 0; i < n; i++)
        count += d->v[index[i]].n_targets;
    return count;
}

static size_t step_tokens(const data_set *d, const size_t *index, size_t n) {
    size_t count = 0;
    for (size_t i = 0; i < n; i++)
        count += d->v[index[i]].n_delta;
    return count;
}

/* Forward and backward through the examples, piece by piece; adds their targets' NLL to *nll, and the loss that holds blocks
 * to their layers to *align. */
static void step_pass(tune *t, const data_set *d, const size_t *index, size_t n, float scale, double *nll, double *align) {
    for (size_t done = 0; done < n;) {
        done += batch_pack(&t->batch, d, NULL, index + done, n - done, 1);
        lm_forward(&t->net, &t->batch.b);
        lm_loss_train(&t->loss, &t->net, &t->batch.b, scale, t->dhidden, nll);
        lm_backward(&t->net, &t->batch.b, t->dhidden);
        *align += lm_align_loss(&t->net);
    }
}

/* The gradient of a step: the mean NLL of its targets, what is replayed among them, and the mean alignment loss of its tokens
 * at an expanded model's merges. Their sum is returned. */
static double step_gradient(tune *t, const size_t *index, size_t n, uint64_t *targets) {
    double nll = 0.0, align = 0.0;
    size_t n_replay, n_trained = lm_trained(&t->layout)->n_trained;
    const size_t *replay = step_replay(t, t->s.step, &n_replay);
    *targets = step_targets(&t->data, index, n) + step_targets(&t->replay, replay, n_replay);
    float scale = (float)(1.0 / (double)*targets);
    size_t tokens = step_tokens(&t->data, index, n) + step_tokens(&t->replay, replay, n_replay);
    t->net.align_weight =
        t->layout.n_merges ? t->o.expand.align_weight / ((double)t->layout.n_merges * (double)tokens) : 0.0;
    step_pass(t, &t->data, index, n, scale, &nll, &align);
    step_pass(t, &t->replay, replay, n_replay, scale, &nll, &align);
    if (t->start)
        adamw_pull(t->rt->pool, t->net.trained, t->start, n_trained, t->o.how.keep.l2_start, t->net.grad);
    return nll / (double)*targets + align;
}

cmc_status tune_step(tune *t, run_step *r, cmc_error *err) {
    size_t n;
    const cmc_train_opts *o = &t->o.how;
    const params *p = lm_trained(&t->layout);
    const size_t *index = step_examples(t, t->s.step, &n);
    r->loss = step_gradient(t, index, n, &r->tokens);
    if (!isfinite(r->loss))
        return step_diverged(t, "loss", index, n, err);
    r->grad_norm = adamw_norm(t->rt->pool, t->net.grad, p->n_trained);
    if (!isfinite(r->grad_norm))
        return step_diverged(t, "gradient", index, n, err);
    double scale = o->clip > 0.0 && r->grad_norm > o->clip ? o->clip / r->grad_norm : 1.0;
    r->lr = adamw_lr(o->lr, o->min_lr, t->warmup, t->pace.steps, t->s.step + 1);
    adamw_step(t->rt->pool, &t->adam, p, t->net.trained, t->net.grad, scale, r->lr, t->s.step + 1);
    t->s.step++;
    t->s.tokens += r->tokens;
    t->s.loss = r->loss;
    return CMC_OK;
}

double tune_score(tune *t, const data_set *d, const size_t *index, size_t n) {
    double nll = 0.0;
    size_t targets = 0;
    for (size_t done = 0; done < n;) {
        done += batch_pack(&t->batch, d, NULL, index + done, n - done, 1);
        lm_forward(&t->net, &t->batch.b);
        lm_loss_score(&t->loss, &t->net, &t->batch.b, &nll);
        targets += t->batch.b.n_targets;
    }
    return targets ? nll / (double)targets : NAN;
}

/* The gradient, all zeros between steps, lends its room: what is trained of the base waits there while the base's own weights
 * stand in its place, or it is an adapter that adds nothing. */
double tune_held_out_base(tune *t) {
    lm_net *n = &t->net;
    size_t bytes = lm_trained(&t->layout)->n_trained * sizeof(float);
    float *trained = n->trained;
    if (t->data.n_held == 0)
        return NAN;
    if (lm_is_full(n)) {
        memcpy(n->grad, trained, bytes);
        lm_load(&t->layout, t->base, n->w);
        lm_expand_copy(&t->layout, n->w);
    } else {
        n->trained = n->grad;
    }
    double nll = tune_score(t, &t->data, t->data.held, t->data.n_held);
    if (lm_is_full(n))
        memcpy(trained, n->grad, bytes);
    n->trained = trained;
    memset(n->grad, 0, bytes);
    return nll;
}
