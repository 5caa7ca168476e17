/* One step of training, and the held-out score. */
#include <math.h>
#include <stdio.h>
#include <string.h>

#include "tinylm/train.h"

size_t train_order_at(train_order *o, const size_t *list, size_t n, uint64_t seed, uint64_t k) {
    int64_t epoch = (int64_t)(k / n);
    if (epoch != o->epoch) {
        data_shuffle(list, n, seed, (uint64_t)epoch, o->v);
        o->epoch = epoch;
    }
    return o->v[k % n];
}

const size_t *train_step_examples(train *t, int64_t step, size_t *n) {
    const data_set *d = train_data(t);
    size_t most = (size_t)t->o.batch, epoch = (size_t)(step / t->pace.steps_per_epoch);
    size_t first = (size_t)(step % t->pace.steps_per_epoch) * most;
    *n = d->n_train - first < most ? d->n_train - first : most;
    for (size_t i = 0; i < *n; i++)
        t->main.batch[i] = train_order_at(&t->main, d->train, d->n_train, t->o.seed, epoch * d->n_train + first + i);
    size_t from = keep_replay_before(&t->o.keep, t->o.batch, step), to = keep_replay_before(&t->o.keep, t->o.batch, step + 1);
    for (size_t k = from; k < to; k++)
        t->main.batch[(*n)++] = train_order_at(&t->kept, d->retain, d->n_retain, t->o.seed + 1, k);
    return t->main.batch;
}

const size_t *train_retain_examples(train *t, int64_t step, size_t n) {
    const data_set *d = train_data(t);
    for (size_t i = 0; i < n; i++)
        t->kept.batch[i] =
            train_order_at(&t->kept, d->retain, d->n_retain, t->o.seed + 1, (uint64_t)step * (uint64_t)t->o.batch + i);
    return t->kept.batch;
}

const size_t *train_pairs(train *t, const data_set *d, const size_t *index, size_t *n) {
    if (t->objective.kind != OBJECTIVE_DPO)
        return index;
    for (size_t i = *n; i-- > 0;) {
        t->pairs[2 * i] = index[i];
        t->pairs[2 * i + 1] = d->v[index[i]].twin;
    }
    *n *= 2;
    return t->pairs;
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

static size_t step_targets(const train_host *h, const size_t *index, size_t n) {
    size_t all = 0;
    for (size_t i = 0; i < n; i++)
        all += h->data.v[index[i]].n_targets;
    return all;
}

/* The losses of the piece's responses, and a weight for every target: d loss / d NLL of its response. */
static cmc_status piece_weights(train *t, train_host *h, const size_t *index, size_t n, double *sum, cmc_error *err) {
    const double alphas[2] = {t->o.alpha, 0.0};
    double unused[2] = {0}, *each = t->each;
    objective_response r[2] = {{0}};
    size_t group = t->objective.kind == OBJECTIVE_DPO ? 2 : 1, at = 0, first[3] = {0};
    CMC_TRY(loss_score(&h->loss, &t->net, &t->batch.b, alphas, 2, unused, each, err));
    for (size_t i = 0; i < n; i += group) {
        for (size_t g = 0; g < group; g++) {
            r[g] = (objective_response){.n = h->data.v[index[i + g]].n_targets};
            first[g] = at;
            for (size_t k = 0; k < r[g].n; k++, at++) {
                r[g].nll += each[2 * at];
                r[g].host_nll += each[2 * at + 1];
            }
            first[g + 1] = at;
        }
        double d[2];
        *sum += objective_record(&t->objective, &r[0], &r[1], &d[0], &d[1]);
        for (size_t g = 0; g < group; g++)
            for (size_t k = first[g]; k < first[g + 1]; k++)
                t->weights[k] = (float)d[g];
    }
    return CMC_OK;
}

/* Draws what is done to the host at the targets of a piece. */
static void piece_perturb(train *t, const train_host *h, const size_t *index, size_t n) {
    size_t at = 0;
    for (size_t i = 0; i < n; i++) {
        const data_example *x = &h->data.v[index[i]];
        perturb p = perturb_draw(&t->o, t->s.step, x->record);
        for (size_t k = 0; k < x->n_targets; k++, at++) {
            size_t row = t->mix ? t->mix_row[x->first_row + k] : SIZE_MAX;
            bool mixed = row != SIZE_MAX;
            t->perturb[at] = t->mix && !mixed ? perturb_unmixed(p) : p;
            if (t->mix)
                t->mixed[at] = mixed ? t->mix->states.rows + row * t->mix->states.row_bytes : NULL;
        }
    }
}

/* Forward and backward through the examples, piece by piece, beside one host. Adds the parts' sum (the responses' losses,
 * where `by_record`) to *sum. */
static cmc_status step_pass(train *t, train_host *h, const size_t *index, size_t n, loss_parts parts, bool by_record,
                            float scale, double *sum, cmc_error *err) {
    size_t group = by_record && t->objective.kind == OBJECTIVE_DPO ? 2 : 1;
    double unused = 0.0;
    parts.weight = by_record ? t->weights : NULL;
    parts.perturb = t->perturb;
    parts.mixed = t->mixed;
    parts.log_unigram = h->log_unigram;
    for (size_t done = 0; done < n;) {
        size_t k = batch_pack(&t->batch, &h->data, &h->states, index + done, n - done, group);
        t->net.dropout = (float)t->o.dropout;
        t->net.drop_key = t->o.seed * 0x9E3779B97F4A7C15u + ((uint64_t)t->s.step << 20) + t->piece++;
        net_forward(&t->net, &t->batch.b);
        if (t->perturb)
            piece_perturb(t, h, index + done, k);
        if (by_record)
            CMC_TRY(piece_weights(t, h, index + done, k, sum, err));
        CMC_TRY(loss_train(&h->loss, &t->net, &t->batch.b, &parts, (float)t->o.alpha, scale, t->dhidden,
                           by_record ? &unused : sum, err));
        net_backward(&t->net, &t->batch.b, t->dhidden);
        train_memory_forget_states(t, h);
        if (t->mix)
            train_memory_forget_states(t, t->mix);
        done += k;
    }
    return CMC_OK;
}

/* The examples to learn or to forget: a mean over targets, or over responses. */
static cmc_status step_main(train *t, train_host *h, const size_t *index, size_t n, double *total, cmc_error *err) {
    const objective *o = &t->objective;
    bool by_record = objective_by_record(o), away = o->kind == OBJECTIVE_GA || o->kind == OBJECTIVE_GRADDIFF ||
                                                    o->kind == OBJECTIVE_KL;
    double sum = 0.0, count = (double)(by_record ? n : step_targets(h, index, n));
    loss_parts parts = {.nll = away ? -1.0f : 1.0f, .kl_steered = (float)o->kl};
    index = train_pairs(t, &h->data, index, &n);
    CMC_TRY(step_pass(t, h, index, n, parts, by_record, (float)(h->weight / count), &sum, err));
    *total += h->weight * sum / count;
    return CMC_OK;
}

static cmc_status step_retain(train *t, train_host *h, const size_t *index, size_t n, double *total, cmc_error *err) {
    const objective *o = &t->objective;
    double sum = 0.0, count = (double)step_targets(h, index, n), share = h->weight * o->retain_weight;
    loss_parts parts = {.nll = o->retain == RETAIN_NLL ? 1.0f : 0.0f, .kl_host = o->retain == RETAIN_KL ? 1.0f : 0.0f};
    CMC_TRY(step_pass(t, h, index, n, parts, false, (float)(share / count), &sum, err));
    *total += share * sum / count;
    return CMC_OK;
}

cmc_status train_gradient(train *t, const size_t *index, size_t n, double *total, uint64_t *targets, cmc_error *err) {
    bool retain = objective_needs(&t->objective, ROLE_RETAIN);
    *total = 0.0;
    *targets = 0;
    t->piece = 0;
    if (retain)
        train_retain_examples(t, t->s.step, n);
    for (size_t k = 0; k < t->n_hosts; k++) {
        CMC_TRY(step_main(t, &t->hosts[k], index, n, total, err));
        *targets += step_targets(&t->hosts[k], index, n);
        if (retain) {
            CMC_TRY(step_retain(t, &t->hosts[k], t->kept.batch, n, total, err));
            *targets += step_targets(&t->hosts[k], t->kept.batch, n);
        }
    }
    return CMC_OK;
}

cmc_status train_step(train *t, run_step *r, cmc_error *err) {
    size_t n;
    const size_t *index = train_step_examples(t, t->s.step, &n);
    CMC_TRY(train_gradient(t, index, n, &r->loss, &r->tokens, err));
    if (t->start)
        adamw_pull(t->rt->pool, t->net.w, t->start, t->p.n, t->o.keep.l2_start, t->net.grad);
    if (!isfinite(r->loss))
        return step_diverged(t, "loss", index, n, err);
    r->grad_norm = adamw_norm(t->rt->pool, t->net.grad, t->p.n);
    if (!isfinite(r->grad_norm))
        return step_diverged(t, "gradient", index, n, err);
    double scale = t->o.clip > 0.0 && r->grad_norm > t->o.clip ? t->o.clip / r->grad_norm : 1.0;
    r->lr = adamw_lr(t->o.lr, t->o.min_lr, t->warmup, t->pace.steps, t->s.step + 1);
    adamw_step(t->rt->pool, &t->adam, &t->p, t->net.w, t->net.grad, scale, r->lr, t->s.step + 1);
    t->s.step++;
    t->s.tokens += r->tokens;
    t->s.loss = r->loss;
    return CMC_OK;
}

cmc_status train_held_out(train *t, train_host *h, const double *alphas, size_t n, double *nll, cmc_error *err) {
    return train_score(t, h, h->data.held, h->data.n_held, alphas, n, nll, err);
}

cmc_status train_score(train *t, train_host *h, const size_t *index, size_t n_index, const double *alphas, size_t n, double *nll,
                       cmc_error *err) {
    const data_set *d = &h->data;
    size_t targets = 0;
    t->net.dropout = 0.0f;
    memset(nll, 0, n * sizeof *nll);
    for (size_t done = 0; done < n_index;) {
        done += batch_pack(&t->batch, d, &h->states, index + done, n_index - done, 1);
        net_forward(&t->net, &t->batch.b);
        CMC_TRY(loss_score(&h->loss, &t->net, &t->batch.b, alphas, n, nll, NULL, err));
        targets += t->batch.b.n_targets;
        train_memory_forget_states(t, h);
    }
    for (size_t i = 0; i < n; i++)
        nll[i] = targets ? nll[i] / (double)targets : NAN;
    return CMC_OK;
}
