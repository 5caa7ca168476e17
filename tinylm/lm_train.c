/* cmc_tune: the run from steps, held-out scores and checkpoints to the saved model or adapter. */
#include "tinylm/lm_train.h"

#include <math.h>
#include <string.h>
#include <unistd.h>

#include "base/mem.h"
#include "tinylm/lm_added.h"
#include "tinylm/lm_save.h"

static cmc_train_progress tune_progress(const tune *t, const char *phase) {
    cmc_train_progress p = run_progress(&t->s, &t->pace, phase);
    p.held_out_host = t->held_base;
    p.memory_planned = t->planned;
    return p;
}

static cmc_status tune_kind_step(void *run, run_step *r, cmc_error *err) {
    return tune_step(run, r, err);
}

static cmc_status tune_kind_held_out(void *run, double *nll, cmc_error *err) {
    (void)err;
    tune *t = run;
    *nll = tune_score(t, &t->data, t->data.held, t->data.n_held);
    return CMC_OK;
}

static cmc_train_progress tune_kind_progress(const void *run, const char *phase) {
    return tune_progress(run, phase);
}

static cmc_status tune_kind_watch(void *run, trainlog_field f[DATA_WATCHED], size_t *n, cmc_error *err) {
    (void)err;
    tune *t = run;
    *n = t->o.how.keep.n_watch;
    for (size_t i = 0; i < *n; i++)
        f[i] = (trainlog_field){run_watched_name(i), tune_score(t, &t->watch[i], t->watch[i].train, t->watch[i].n_train)};
    return CMC_OK;
}

static const run_kind tune_kind = {tune_kind_step, tune_kind_held_out, tune_kind_progress, "held_out_base", tune_kind_watch};

/* What is watched, of the base: it is what the weights are before the first step. */
static cmc_status tune_log_base(tune *t, cmc_error *err) {
    trainlog_field f[1 + DATA_WATCHED] = {{"held_out_base", t->held_base}};
    if (t->resumed || !t->o.how.keep.n_watch)
        return CMC_OK;
    size_t n;
    CMC_TRY(tune_kind_watch(t, f + 1, &n, err));
    return trainlog_put(&t->log, "base", 0, f, 1 + n, err);
}


static cmc_status tune_all(tune *t, cmc_error *err) {
    trainlog_field f[] = {{"params", (double)lm_trained(&t->layout)->n_trained},
                          {"lora_rank", t->o.how.lora_rank},
                          {"expand_blocks", (double)t->layout.n_blocks},
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
    CMC_TRY(tune_log_base(t, err));
    run_view v = {.kind = &tune_kind, .run = t, .o = &t->o.how, .s = &t->s, .pace = &t->pace, .log = &t->log,
                  .arrays = {t->net.trained, t->best, t->adam.m, t->adam.v, lm_trained(&t->layout)->n_trained},
                  .checkpoint = t->checkpoint, .settings = t->settings, .n_held = t->data.n_held,
                  .held_beside = t->held_base, .cb = t->cb, .user = t->user};
    return run_steps(&v, err);
}

/* Before it is saved; the result's score is then of what is saved. */
static void tune_on_line(tune *t) {
    const size_t n = lm_trained(&t->layout)->n_trained;
    if (t->o.how.keep.wise_ft == 1.0)
        return;
    added_on_line(&t->o.how, &t->layout, t->start, t->best);
    memcpy(t->net.trained, t->best, n * sizeof(float));
    if (t->data.n_held > 0)
        t->s.best = tune_score(t, &t->data, t->data.held, t->data.n_held);
}

static cmc_status tune_finish(tune *t, cmc_error *err) {
    const char *path = t->o.how.out_path;
    tune_on_line(t);
    if (t->o.how.expand.kind)
        CMC_TRY(lm_save_expanded(path, &t->layout, t->base, &t->expand, t->net.w, t->best, t->save_type, NULL, err));
    else if (t->o.how.lora_rank)
        CMC_TRY(lm_save_lora(path, &t->layout, t->base, t->o.how.lora_alpha, t->best, t->save_type, err));
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
    CMC_TRY(run_report(t->cb, t->user, &plan, &t->s, &t->pace, err));
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
                                  .params = lm_trained(&t.layout)->n_trained,
                                  .trained = lm_trained(&t.layout)->n_trained,
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
