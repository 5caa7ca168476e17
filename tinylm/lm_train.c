/* cmc_tune: the run from steps, held-out scores and checkpoints to the saved model or adapter. */
#include "tinylm/lm_train.h"

#include <math.h>
#include <string.h>
#include <unistd.h>

#include "base/mem.h"
#include "tinylm/lm_save.h"

static cmc_train_progress tune_progress(const tune *t) {
    double done = (double)(t->s.step - t->first_step);
    return (cmc_train_progress){
        .phase = "train",
        .step = t->s.step,
        .steps = t->steps,
        .epoch = (double)t->s.step / (double)t->steps_per_epoch,
        .loss = t->s.loss,
        .lr = NAN,
        .grad_norm = NAN,
        .tokens_per_second = t->busy > 0.0 ? (double)t->busy_tokens / t->busy : NAN,
        .seconds_left = done > 0.0 ? (cmc_now() - t->started) / done * (double)(t->steps - t->s.step) : NAN,
        .held_out = t->s.held_out,
        .held_out_host = t->held_base,
        .best = t->s.best,
        .memory = cmc_mem_resident(),
        .memory_planned = t->planned,
    };
}

static cmc_status tune_checkpoint(const tune *t, cmc_error *err) {
    checkpoint_arrays a = {t->net.trained, t->best, t->adam.m, t->adam.v, lm_trained(&t->layout)->n};
    return checkpoint_write(t->checkpoint, t->settings, &t->s, &a, err);
}

/* Scores the held-out records, keeps the weights if they are the best so far. */
static cmc_status tune_evaluate(tune *t, cmc_error *err) {
    double nll = tune_held_out(t);
    t->s.held_out = nll;
    if (!isfinite(nll))
        return cmc_fail(err, CMC_E_DIVERGED, "step %lld: the held-out loss is no finite number; use a lower lr than %g",
                        (long long)t->s.step, t->o.how.lr);
    if (t->s.best_step == 0 || nll < t->s.best) {
        t->s.best = nll;
        t->s.best_step = t->s.step;
        t->s.evals_since_best = 0;
        memcpy(t->best, t->net.trained, lm_trained(&t->layout)->n * sizeof(float));
    } else {
        t->s.evals_since_best++;
    }
    t->s.stopped = t->o.how.patience > 0 && t->s.evals_since_best >= t->o.how.patience;
    trainlog_field f[] = {
        {"held_out", nll}, {"held_out_base", t->held_base}, {"best", t->s.best}, {"best_step", (double)t->s.best_step}};
    return trainlog_put(&t->log, "eval", t->s.step, f, sizeof f / sizeof *f, err);
}

static cmc_status tune_log_step(tune *t, const cmc_train_progress *p, cmc_error *err) {
    trainlog_field f[] = {{"epoch", p->epoch},
                          {"loss", p->loss},
                          {"lr", p->lr},
                          {"grad_norm", p->grad_norm},
                          {"tokens_per_second", p->tokens_per_second}};
    return trainlog_put(&t->log, "step", t->s.step, f, sizeof f / sizeof *f, err);
}

static cmc_status tune_report(tune *t, const cmc_train_progress *p, cmc_error *err) {
    if (!t->cb || t->cb(t->user, p))
        return CMC_OK;
    return cmc_fail(err, CMC_E_CANCELLED, "stopped at step %lld of %lld", (long long)t->s.step, (long long)t->steps);
}

/* One step with what belongs to it: log, score, checkpoint, report. A caller that stops gets a checkpoint first. */
static cmc_status tune_one(tune *t, cmc_error *err) {
    train_step_result r;
    double began = cmc_now();
    CMC_TRY(tune_step(t, &r, err));
    t->busy += cmc_now() - began;
    t->busy_tokens += r.tokens;
    cmc_train_progress p = tune_progress(t);
    p.lr = r.lr;
    p.grad_norm = r.grad_norm;
    CMC_TRY(tune_log_step(t, &p, err));
    bool last = t->s.step == t->steps;
    if (t->data.n_held > 0 && (last || t->s.step % t->o.how.eval_every == 0)) {
        CMC_TRY(tune_evaluate(t, err));
        p.is_eval = true;
        p.held_out = t->s.held_out;
        p.best = t->s.best;
    }
    bool written = last || t->s.stopped || t->s.step % t->o.how.checkpoint_every == 0;
    if (written)
        CMC_TRY(tune_checkpoint(t, err));
    cmc_status st = tune_report(t, &p, err);
    if (st == CMC_E_CANCELLED && !written)
        CMC_TRY(tune_checkpoint(t, err));
    return st;
}

static cmc_status tune_all(tune *t, cmc_error *err) {
    trainlog_field f[] = {{"params", (double)lm_trained(&t->layout)->n},
                          {"lora_rank", t->o.lora_rank},
                          {"records", (double)t->data.n_train},
                          {"records_held_out", (double)t->data.n_held},
                          {"steps", (double)t->steps},
                          {"seed", (double)t->o.how.seed},
                          {"lr", t->o.how.lr},
                          {"batch", t->o.how.batch},
                          {"memory_planned", (double)t->planned}};
    if (!t->resumed)
        CMC_TRY(trainlog_put(&t->log, "start", 0, f, sizeof f / sizeof *f, err));
    t->held_base = tune_held_out_base(t);
    t->started = cmc_now();
    while (t->s.step < t->steps && !t->s.stopped)
        CMC_TRY(tune_one(t, err));
    if (t->data.n_held == 0) /* nothing to choose by: the last weights are the result */
        memcpy(t->best, t->net.trained, lm_trained(&t->layout)->n * sizeof(float));
    return CMC_OK;
}

static cmc_status tune_finish(tune *t, cmc_error *err) {
    const char *path = t->o.how.out_path;
    if (t->o.lora_rank)
        CMC_TRY(lm_save_lora(path, &t->layout, t->base, t->o.lora_alpha, t->best, t->save_type, err));
    else
        CMC_TRY(lm_save_model(path, &t->layout, t->base, t->best, t->save_type, err));
    trainlog_field f[] = {
        {"best", t->s.best}, {"best_step", (double)t->s.best_step}, {"held_out_base", t->held_base},
        {"memory_peak", (double)cmc_mem_peak()}};
    CMC_TRY(trainlog_put(&t->log, "end", t->s.step, f, sizeof f / sizeof *f, err));
    unlink(t->checkpoint); /* its run is finished and saved */
    return CMC_OK;
}

static cmc_status tune_run(tune *t, cmc_error *err) {
    CMC_TRY(tune_setup(t, err));
    cmc_train_progress plan = tune_progress(t);
    plan.phase = "plan";
    CMC_TRY(tune_report(t, &plan, err));
    CMC_TRY(tune_start(t, err));
    CMC_TRY(tune_all(t, err));
    return tune_finish(t, err);
}

cmc_status cmc_tune(cmc_runtime *rt, const cmc_tune_opts *opts, cmc_train_callback cb, void *user,
                    cmc_train_result *out, cmc_error *err) {
    tune t = {.rt = rt, .o = *opts, .cb = cb, .user = user, .held_base = NAN, .s = {.best = NAN}};
    double began = cmc_now();
    cmc_status st = tune_run(&t, err);
    if (out)
        *out = (cmc_train_result){.steps = t.s.step,
                                  .params = lm_trained(&t.layout)->n,
                                  .tokens = t.s.tokens,
                                  .records = t.data.n_train,
                                  .records_held_out = t.data.n_held,
                                  .records_left_out = t.data.records.n - t.data.n,
                                  .targets = t.data.n_targets,
                                  .held_out_host = t.held_base,
                                  .held_out_steered = t.s.best,
                                  .alpha = NAN,
                                  .seconds = cmc_now() - began,
                                  .memory_planned = t.planned,
                                  .memory_peak = cmc_mem_peak(),
                                  .resumed = t.resumed,
                                  .finished = st == CMC_OK};
    tune_release(&t);
    return st;
}
