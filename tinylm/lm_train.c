/* cmc_tune: the run from steps, held-out scores and checkpoints to the saved model or adapter. */
#include "tinylm/lm_train.h"

#include <math.h>
#include <string.h>
#include <unistd.h>

#include "base/mem.h"
#include "tinylm/lm_save.h"

static cmc_train_progress tune_progress(const tune *t, const char *phase) {
    cmc_train_progress p = run_progress(&t->s, &t->pace, phase);
    p.held_out_host = t->held_base;
    p.memory_planned = t->planned;
    return p;
}

static checkpoint_arrays tune_arrays(const tune *t) {
    return (checkpoint_arrays){t->net.trained, t->best, t->adam.m, t->adam.v, lm_trained(&t->layout)->n};
}

static cmc_status tune_checkpoint(const tune *t, cmc_error *err) {
    checkpoint_arrays a = tune_arrays(t);
    return checkpoint_write(t->checkpoint, t->settings, &t->s, &a, err);
}

/* Scores the held-out records, keeps the weights if they are the best so far. */
static cmc_status tune_evaluate(tune *t, cmc_error *err) {
    checkpoint_arrays a = tune_arrays(t);
    double nll = tune_held_out(t);
    CMC_TRY(run_scored(&t->s, &a, &t->o.how, nll, err));
    trainlog_field f[] = {
        {"held_out", nll}, {"held_out_base", t->held_base}, {"best", t->s.best}, {"best_step", (double)t->s.best_step}};
    return trainlog_put(&t->log, "eval", t->s.step, f, sizeof f / sizeof *f, err);
}

static cmc_status tune_report(tune *t, const cmc_train_progress *p, cmc_error *err) {
    if (!t->cb || t->cb(t->user, p))
        return CMC_OK;
    return cmc_fail(err, CMC_E_CANCELLED, "stopped at step %lld of %lld", (long long)t->s.step,
                    (long long)t->pace.steps);
}

/* One step with what belongs to it: log, score, checkpoint, report. A caller that stops gets a checkpoint first. */
static cmc_status tune_one(tune *t, cmc_error *err) {
    train_step_result r;
    double began = cmc_now();
    CMC_TRY(tune_step(t, &r, err));
    t->pace.busy += cmc_now() - began;
    t->pace.busy_tokens += r.tokens;
    cmc_train_progress p = tune_progress(t, "train");
    p.lr = r.lr;
    p.grad_norm = r.grad_norm;
    CMC_TRY(run_log_step(&t->log, &p, err));
    bool last = t->s.step == t->pace.steps;
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
                          {"steps", (double)t->pace.steps},
                          {"seed", (double)t->o.how.seed},
                          {"lr", t->o.how.lr},
                          {"batch", t->o.how.batch},
                          {"memory_planned", (double)t->planned}};
    if (!t->resumed)
        CMC_TRY(trainlog_put(&t->log, "start", 0, f, sizeof f / sizeof *f, err));
    t->held_base = tune_held_out_base(t);
    t->pace.started = cmc_now();
    while (t->s.step < t->pace.steps && !t->s.stopped)
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
    cmc_train_progress plan = tune_progress(t, "plan");
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
