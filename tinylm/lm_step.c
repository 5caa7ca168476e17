/* One step of tuning, and the held-out score. */
#include <math.h>
#include <string.h>

#include "tinylm/lm_added.h"
#include "tinylm/lm_train.h"

/* Those to replay in a step: *n of t->replay_order.batch. */
static const size_t *step_replay(tune *t, int64_t step, size_t *n) {
    const data_set *d = &t->replay;
    const cmc_train_opts *o = &t->o.how;
    size_t first = keep_replay_before(&o->keep, o->batch, step);
    *n = keep_replay_before(&o->keep, o->batch, step + 1) - first;
    return step_order_take(&t->replay_order, d->train, d->n_train, o->seed + 1, first, *n);
}

/* Examples that have one kind of loss in a step. */
typedef struct step_part {
    const data_set *d;
    const size_t *index; size_t n;
    objective_parts of;
    bool by_record;
    double share;             /* of the sum of their losses, in the step's */
} step_part;

/* What is trained and what it was change places; done twice they are the same bits again. */
static void step_swap_start(tune *t) {
    size_t n = lm_trained(&t->layout)->n_trained;
    float *now = t->net.trained, *was = t->start;
    for (size_t i = 0; i < n; i++) {
        float x = now[i];
        now[i] = was[i];
        was[i] = x;
    }
}

/* What the model as it was says of the piece: t->host, and t->host_nll where records are compared by it. It is computed anew in every
 * step: that needs no room for the data's length, and a run that is resumed has the same bits. */
static void piece_host(tune *t, bool compared) {
    const net_batch *b = &t->batch.b;
    double unused = 0.0;
    step_swap_start(t);
    lm_forward(&t->net, b);
    memcpy(t->host, t->net.hidden, b->n_targets * (size_t)t->layout.p.n_embd * sizeof *t->host);
    if (compared)
        lm_loss_score(&t->loss, &t->net, b, &unused, t->host_nll);
    step_swap_start(t);
}

/* Adds a KL part's sum over the piece to *sum, and its gradient times `scale` to t->dhidden, which is written where `first`. */
static void piece_kl(tune *t, objective_parts of, float scale, bool first, double *sum) {
    const lm_net *n = &t->net;
    size_t at = t->layout.head;
    bool learns = lm_learns(n, at), to_host = of.kl_host != 0.0f;
    float factor = to_host ? of.kl_host : of.kl_steered;
    lm_kl_side is = {n->hidden, n->w + at, t->dhidden, learns ? n->grad + at : NULL};
    lm_kl_side was = {.h = t->host, .head = learns ? t->start + at : n->w + at};
    double kl = lm_kl_train(&t->kl, to_host ? &is : &was, to_host ? &was : &is, t->batch.b.n_targets, scale * factor, !first);
    *sum += (double)factor * kl;
}

/* Forward and backward through a part's examples, piece by piece; adds their losses' sum to *sum, and the loss that holds blocks
 * to their layers to *align. */
static void step_pass(tune *t, const step_part *p, double *sum, double *align) {
    const objective_parts of = p->of;
    float scale = (float)p->share;
    bool kl = of.kl_host != 0.0f || of.kl_steered != 0.0f, compared = p->by_record && objective_record_has_host(&t->objective);
    for (size_t done = 0; done < p->n;) {
        const size_t *index = p->index + done;
        const net_batch *b = &t->batch.b;
        double nll = 0.0;
        size_t k = batch_pack(&t->batch, p->d, NULL, index, p->n - done, p->by_record ? objective_group(&t->objective) : 1);
        if (kl || compared)
            piece_host(t, compared);
        lm_forward(&t->net, b);
        if (p->by_record) {
            lm_loss_score(&t->loss, &t->net, b, &nll, t->nll);
            step_weights(&t->objective, p->d, index, k, t->nll, t->host_nll, 1, t->weights, sum);
        }
        if (of.nll != 0.0f)
            lm_loss_train(&t->loss, &t->net, b, p->by_record ? t->weights : NULL, scale * of.nll, t->dhidden, &nll);
        if (kl)
            piece_kl(t, of, scale, of.nll == 0.0f, sum);
        if (!p->by_record)
            *sum += (double)of.nll * nll;
        lm_backward(&t->net, b, t->dhidden);
        *align += lm_align_loss(&t->net);
        done += k;
    }
}

enum { STEP_PARTS = 3 };

/* What a step goes through: what is learnt or forgotten, what is replayed with it (sft alone), what is retained. */
static void step_parts(tune *t, const size_t *index, size_t n, step_part p[STEP_PARTS]) {
    const objective *o = &t->objective;
    const data_set *d = &t->data;
    bool by_record = objective_by_record(o);
    size_t n_main = n, n_kept = objective_needs(o, ROLE_RETAIN) ? n : 0, n_replay;
    const size_t *replay = step_replay(t, t->s.step, &n_replay), *kept = t->kept.batch;
    size_t count = by_record ? n : step_targets(d, index, n) + step_targets(&t->replay, replay, n_replay);
    if (n_kept)
        kept = step_order_take(&t->kept, d->retain, d->n_retain, t->o.how.seed + 1,
                               (uint64_t)t->s.step * (uint64_t)t->o.how.batch, n_kept);
    index = step_pairs(o, d, index, &n_main, t->pairs);
    p[0] = (step_part){d, index, n_main, objective_main(o), by_record, 1.0 / (double)count};
    p[1] = (step_part){&t->replay, replay, n_replay, p[0].of, by_record, p[0].share};
    p[2] = (step_part){d, kept, n_kept, objective_kept(o), false, o->retain_weight / (double)step_targets(d, kept, n_kept)};
}

double tune_gradient(tune *t, const size_t *index, size_t n, uint64_t *targets) {
    step_part part[STEP_PARTS];
    double total = 0.0, align = 0.0;
    size_t tokens = 0;
    *targets = step_targets(&t->data, index, n);
    step_parts(t, index, n, part);
    for (size_t i = 0; i < STEP_PARTS; i++) {
        *targets += i > 0 ? step_targets(part[i].d, part[i].index, part[i].n) : 0;
        tokens += step_tokens(part[i].d, part[i].index, part[i].n);
    }
    t->net.align_weight = added_align_weight(&t->o.how, &t->layout, tokens);
    for (size_t i = 0; i < STEP_PARTS; i++) {
        double sum = 0.0;
        step_pass(t, &part[i], &sum, &align);
        total += part[i].n ? part[i].share * sum : 0.0;
    }
    if (t->o.how.keep.l2_start > 0.0)
        adamw_pull(t->rt->pool, t->net.trained, t->start, lm_trained(&t->layout)->n_trained, t->o.how.keep.l2_start, t->net.grad);
    return total + align;
}

cmc_status tune_step(tune *t, run_step *r, cmc_error *err) {
    size_t n;
    const cmc_train_opts *o = &t->o.how;
    const params *p = lm_trained(&t->layout);
    const size_t *index = step_order_epoch(&t->order, &t->data, o->seed, (size_t)o->batch, t->s.step, &n);
    r->loss = tune_gradient(t, index, n, &r->tokens);
    step_update u = {t->rt->pool, &t->adam, p, t->net.trained, t->net.grad, p->n_trained, t->warmup, t->pace.steps};
    return step_apply(&u, o, &t->data, index, n, &t->s, r, err);
}

double tune_score(tune *t, const data_set *d, const size_t *index, size_t n) {
    double nll = 0.0;
    size_t targets = 0;
    for (size_t done = 0; done < n;) {
        done += batch_pack(&t->batch, d, NULL, index + done, n - done, 1);
        lm_forward(&t->net, &t->batch.b);
        lm_loss_score(&t->loss, &t->net, &t->batch.b, &nll, NULL);
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
