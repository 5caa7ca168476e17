/* One step of training, and the held-out score. */
#include <math.h>
#include <string.h>

#include "tinylm/train.h"

const size_t *train_step_examples(train *t, int64_t step, size_t *n) {
    const data_set *d = train_data(t);
    const size_t *index = step_order_epoch(&t->main, d, t->o.seed, (size_t)t->o.batch, step, n);
    size_t from = keep_replay_before(&t->o.keep, t->o.batch, step), to = keep_replay_before(&t->o.keep, t->o.batch, step + 1);
    if (to > from)
        memcpy(t->main.batch + *n, step_order_take(&t->kept, d->retain, d->n_retain, t->o.seed + 1, from, to - from),
               (to - from) * sizeof *t->main.batch);
    *n += to - from;
    return index;
}

const size_t *train_retain_examples(train *t, int64_t step, size_t n) {
    const data_set *d = train_data(t);
    return step_order_take(&t->kept, d->retain, d->n_retain, t->o.seed + 1, (uint64_t)step * (uint64_t)t->o.batch, n);
}

/* The losses of the piece's responses, and a weight for every target. */
static cmc_status piece_weights(train *t, train_host *h, const size_t *index, size_t n, double *sum, cmc_error *err) {
    const double alphas[2] = {t->o.alpha, 0.0};
    double unused[2] = {0};
    CMC_TRY(loss_score(&h->loss, body_output(&t->body), &t->batch.b, alphas, 2, unused, t->each, err));
    step_weights(&t->objective, &h->data, index, n, t->each, t->each + 1, 2, t->weights, sum);
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

/* What the teacher says at the targets of a piece: it has the host's tokens, and so all of them. */
static void piece_teacher(train *t, const train_host *h, const size_t *index, size_t n) {
    size_t at = 0;
    for (size_t i = 0; i < n; i++) {
        const data_example *x = &h->data.v[index[i]];
        for (size_t k = 0; k < x->n_targets; k++)
            t->mixed[at++] = t->mix->states.rows + t->mix_row[x->first_row + k] * t->mix->states.row_bytes;
    }
}

/* Forward and backward through the examples, piece by piece, beside one host. Adds the parts' sum (with `by_record`, in the
 * NLL's place, the responses' losses) to *sum. */
static cmc_status step_pass(train *t, train_host *h, const size_t *index, size_t n, objective_parts of, bool by_record,
                            float scale, double *sum, cmc_error *err) {
    bool taught = of.kl_teacher != 0.0f;
    loss_parts parts = {.nll = of.nll, .kl_host = of.kl_host, .kl_steered = of.kl_steered, .kl_teacher = of.kl_teacher,
                        .perturb = t->perturb, .weight = by_record ? t->weights : NULL,
                        .mixed = taught || t->perturb ? t->mixed : NULL, .log_unigram = h->log_unigram};
    for (size_t done = 0; done < n;) {
        size_t k = batch_pack(&t->batch, &h->data, &h->states, index + done, n - done,
                              by_record ? objective_group(&t->objective) : 1);
        body_forward(&t->body, &t->batch.b, t->o.dropout, t->o.seed * 0x9E3779B97F4A7C15u + ((uint64_t)t->s.step << 20) + t->piece++);
        if (t->perturb)
            piece_perturb(t, h, index + done, k);
        if (taught)
            piece_teacher(t, h, index + done, k);
        if (by_record)
            CMC_TRY(piece_weights(t, h, index + done, k, sum, err));
        CMC_TRY(loss_train(&h->loss, body_output(&t->body), &t->batch.b, &parts, (float)t->o.alpha, scale, t->dhidden, sum, err));
        body_backward(&t->body, &t->batch.b, t->dhidden);
        t->align_loss += body_align_loss(&t->body);
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
    bool by_record = objective_by_record(o);
    double sum = 0.0, count = (double)(by_record ? n : step_targets(&h->data, index, n));
    index = step_pairs(o, &h->data, index, &n, t->pairs);
    CMC_TRY(step_pass(t, h, index, n, objective_main(o), by_record, (float)(h->weight / count), &sum, err));
    *total += h->weight * sum / count;
    return CMC_OK;
}

static cmc_status step_retain(train *t, train_host *h, const size_t *index, size_t n, double *total, cmc_error *err) {
    const objective *o = &t->objective;
    double sum = 0.0, count = (double)step_targets(&h->data, index, n), share = h->weight * o->retain_weight;
    CMC_TRY(step_pass(t, h, index, n, objective_kept(o), false, (float)(share / count), &sum, err));
    *total += share * sum / count;
    return CMC_OK;
}

/* What the step goes through, beside all hosts. */
static size_t step_all_tokens(train *t, const size_t *index, size_t n, size_t n_kept) {
    size_t tokens = 0;
    for (size_t k = 0; k < t->n_hosts; k++) {
        const data_set *d = &t->hosts[k].data;
        size_t main = n;
        const size_t *all = step_pairs(&t->objective, d, index, &main, t->pairs);
        tokens += step_tokens(d, all, main) + step_tokens(d, t->kept.batch, n_kept);
    }
    return tokens;
}

cmc_status train_gradient(train *t, const size_t *index, size_t n, double *total, uint64_t *targets, cmc_error *err) {
    bool retain = objective_needs(&t->objective, ROLE_RETAIN);
    *total = 0.0;
    *targets = 0;
    t->piece = 0;
    t->align_loss = 0.0;
    if (retain)
        train_retain_examples(t, t->s.step, n);
    if (t->body.start)
        body_align_over(&t->body, &t->o, step_all_tokens(t, index, n, retain ? n : 0));
    for (size_t k = 0; k < t->n_hosts; k++) {
        CMC_TRY(step_main(t, &t->hosts[k], index, n, total, err));
        *targets += step_targets(&t->hosts[k].data, index, n);
        if (retain) {
            CMC_TRY(step_retain(t, &t->hosts[k], t->kept.batch, n, total, err));
            *targets += step_targets(&t->hosts[k].data, t->kept.batch, n);
        }
    }
    *total += t->align_loss;
    return CMC_OK;
}

cmc_status train_step(train *t, run_step *r, cmc_error *err) {
    size_t n;
    const size_t *index = train_step_examples(t, t->s.step, &n);
    CMC_TRY(train_gradient(t, index, n, &r->loss, &r->tokens, err));
    if (t->o.keep.l2_start > 0.0)
        adamw_pull(t->rt->pool, t->body.w, t->start, t->body.n, t->o.keep.l2_start, t->body.grad);
    step_update u = {t->rt->pool, &t->adam, t->body.p, t->body.w, t->body.grad, t->body.n, t->warmup, t->pace.steps};
    return step_apply(&u, &t->o, train_data(t), index, n, &t->s, r, err);
}

cmc_status train_held_out(train *t, train_host *h, const double *alphas, size_t n, double *nll, cmc_error *err) {
    return train_score(t, h, h->data.held, h->data.n_held, alphas, n, nll, err);
}

cmc_status train_score(train *t, train_host *h, const size_t *index, size_t n_index, const double *alphas, size_t n, double *nll,
                       cmc_error *err) {
    const data_set *d = &h->data;
    size_t targets = 0;
    memset(nll, 0, n * sizeof *nll);
    for (size_t done = 0; done < n_index;) {
        done += batch_pack(&t->batch, d, &h->states, index + done, n_index - done, 1);
        body_forward(&t->body, &t->batch.b, 0.0, 0);
        CMC_TRY(loss_score(&h->loss, body_output(&t->body), &t->batch.b, alphas, n, nll, NULL, err));
        targets += t->batch.b.n_targets;
        train_memory_forget_states(t, h);
    }
    for (size_t i = 0; i < n; i++)
        nll[i] = targets ? nll[i] / (double)targets : NAN;
    return CMC_OK;
}
