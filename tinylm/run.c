/* How far a training run is, which weights scored best, and its steps. */
#include "tinylm/run.h"

#include <math.h>
#include <string.h>

#include "base/mem.h"

const char *run_watched_name(size_t i) {
    static const char *const names[DATA_WATCHED] = {"watched_1", "watched_2", "watched_3", "watched_4",
                                                   "watched_5", "watched_6", "watched_7", "watched_8"};
    return names[i];
}

cmc_train_progress run_progress(const checkpoint_state *s, const run_pace *pace, const char *phase) {
    double done = (double)(s->step - pace->first_step);
    return (cmc_train_progress){
        .phase = phase,
        .step = s->step,
        .steps = pace->steps,
        .epoch = (double)s->step / (double)pace->steps_per_epoch,
        .loss = s->loss,
        .lr = NAN,
        .grad_norm = NAN,
        .tokens_per_second = pace->busy > 0.0 ? (double)pace->busy_tokens / pace->busy : NAN,
        .seconds_left = done > 0.0 ? (cmc_now() - pace->started) / done * (double)(pace->steps - s->step) : NAN,
        .held_out = s->held_out,
        .best = s->best,
        .memory = cmc_mem_resident(),
    };
}

cmc_status run_report(cmc_train_callback cb, void *user, const cmc_train_progress *p, const checkpoint_state *s,
                      const run_pace *pace, cmc_error *err) {
    if (!cb || cb(user, p))
        return CMC_OK;
    return cmc_fail(err, CMC_E_CANCELLED, "stopped at step %lld of %lld", (long long)s->step, (long long)pace->steps);
}

/* The log's line of a step. */
static cmc_status run_log_step(trainlog *log, const cmc_train_progress *p, cmc_error *err) {
    trainlog_field f[] = {{"epoch", p->epoch},
                          {"loss", p->loss},
                          {"lr", p->lr},
                          {"grad_norm", p->grad_norm},
                          {"tokens_per_second", p->tokens_per_second}};
    return trainlog_put(log, "step", p->step, f, sizeof f / sizeof *f, err);
}

/* Takes in a held-out score: the weights are kept if they are the best so far. */
static cmc_status run_scored(const run_view *v, double nll, cmc_error *err) {
    checkpoint_state *s = v->s;
    s->held_out = nll;
    if (!isfinite(nll))
        return cmc_fail(err, CMC_E_DIVERGED, "step %lld: the held-out loss is no finite number; use a lower lr than %g",
                        (long long)s->step, v->o->lr);
    if (s->best_step == 0 || nll < s->best) {
        s->best = nll;
        s->best_step = s->step;
        s->evals_since_best = 0;
        memcpy(v->arrays.best, v->arrays.w, v->arrays.n * sizeof(float));
    } else {
        s->evals_since_best++;
    }
    s->stopped = v->o->patience > 0 && s->evals_since_best >= v->o->patience;
    return CMC_OK;
}

static cmc_status run_evaluate(const run_view *v, cmc_error *err) {
    double nll;
    CMC_TRY(v->kind->held_out(v->run, &nll, err));
    CMC_TRY(run_scored(v, nll, err));
    trainlog_field f[4 + DATA_WATCHED] = {{"held_out", nll},
                                         {v->kind->beside, v->held_beside},
                                         {"best", v->s->best},
                                         {"best_step", (double)v->s->best_step}};
    size_t n;
    CMC_TRY(v->kind->watch(v->run, f + 4, &n, err));
    return trainlog_put(v->log, "eval", v->s->step, f, 4 + n, err);
}

static cmc_status run_one(const run_view *v, cmc_error *err) {
    run_step r;
    checkpoint_state *s = v->s;
    double began = cmc_now();
    CMC_TRY(v->kind->step(v->run, &r, err));
    v->pace->busy += cmc_now() - began;
    v->pace->busy_tokens += r.tokens;
    cmc_train_progress p = v->kind->progress(v->run, "train");
    p.lr = r.lr;
    p.grad_norm = r.grad_norm;
    CMC_TRY(run_log_step(v->log, &p, err));
    bool last = s->step == v->pace->steps;
    if (v->n_held > 0 && (last || s->step % v->o->eval_every == 0)) {
        CMC_TRY(run_evaluate(v, err));
        p.is_eval = true;
        p.held_out = s->held_out;
        p.best = s->best;
    }
    bool written = last || s->stopped || s->step % v->o->checkpoint_every == 0;
    if (written)
        CMC_TRY(checkpoint_write(v->checkpoint, v->settings, s, &v->arrays, err));
    cmc_status st = run_report(v->cb, v->user, &p, s, v->pace, err);
    if (st == CMC_E_CANCELLED && !written)
        CMC_TRY(checkpoint_write(v->checkpoint, v->settings, s, &v->arrays, err));
    return st;
}

cmc_status run_steps(const run_view *v, cmc_error *err) {
    v->pace->started = cmc_now();
    while (v->s->step < v->pace->steps && !v->s->stopped)
        CMC_TRY(run_one(v, err));
    if (v->n_held == 0) /* nothing to choose by: the last weights are the result */
        memcpy(v->arrays.best, v->arrays.w, v->arrays.n * sizeof(float));
    return CMC_OK;
}
