/* cmc_train: the run from host states over steps, held-out scores and checkpoints to the saved delta. */
#include "tinylm/train.h"

#include <math.h>
#include <string.h>
#include <unistd.h>

#include "base/mem.h"
#include "tinylm/lm_added.h"

/* --------------------------------------------------------------------------------------------- reporting */

cmc_train_progress train_progress(const train *t, const char *phase) {
    cmc_train_progress p = run_progress(&t->s, &t->pace, phase);
    p.held_out_host = t->held_host;
    p.memory_planned = t->plan.planned;
    p.result = &t->counts;
    return p;
}

cmc_status train_report(train *t, const cmc_train_progress *p, cmc_error *err) {
    return run_report(t->cb, t->user, p, &t->s, &t->pace, err);
}

/* Several hosts' names and hashes, one after the other, as far as there is room. */
static void train_host_names(const train *t, cmc_delta_info *d) {
    size_t name = 0, hash = 0;
    for (size_t k = 0; k < t->n_hosts; k++) {
        const cmc_model *m = t->hosts[k].model;
        const char *comma = k ? ", " : "";
        if (name < sizeof d->trained_host)
            name += (size_t)snprintf(d->trained_host + name, sizeof d->trained_host - name, "%s%s", comma,
                                     cmc_model_name(m) ? cmc_model_name(m) : "");
        if (hash < sizeof d->trained_host_hash)
            hash += (size_t)snprintf(d->trained_host_hash + hash, sizeof d->trained_host_hash - hash, "%s%s", k ? "," : "",
                                     cmc_model_hash(m));
    }
}

cmc_delta_info train_info(const train *t) {
    cmc_delta_info d = {.format_version = 1,
                        .alpha = t->alpha_default,
                        .n_alphas = t->n_alphas,
                        .alphas = t->alphas,
                        .steps = (uint64_t)(t->s.best_step ? t->s.best_step : t->s.step),
                        .seed = t->o.seed};
    memcpy(d.host_template, train_data(t)->host_template, sizeof d.host_template);
    memcpy(d.delta_template, train_data(t)->delta_template, sizeof d.delta_template);
    memcpy(d.data_hash, train_data(t)->hash, sizeof d.data_hash);
    train_host_names(t, &d);
    snprintf(d.objective, sizeof d.objective, "%s", objective_name(t->objective.kind));
    d.gain = t->n_alphas ? t->alphas[0].gain : 0.0;
    return d;
}

/* ------------------------------------------------------------------------------------------- host states */

typedef struct train_fill {
    train *t;
    double began;
    size_t first;
} train_fill;

static bool train_fill_progress(void *user, size_t done, size_t all) {
    train_fill *f = user;
    double now = cmc_now();
    cmc_train_progress p = train_progress(f->t, "host states");
    if (f->first == 0)
        f->first = done;
    p.step = (int64_t)done;
    p.steps = (int64_t)all;
    p.epoch = 0.0;
    p.tokens_per_second = (double)(done - f->first) / (now - f->began);
    p.seconds_left = done > f->first ? (now - f->began) * (double)(all - done) / (double)(done - f->first) : NAN;
    return !f->t->cb || f->t->cb(f->t->user, &p);
}

/* ------------------------------------------------------------------------------------------------- steps */

static cmc_status train_kind_step(void *run, run_step *r, cmc_error *err) {
    return train_step(run, r, err);
}

/* Of all hosts, by weight. */
static cmc_status train_kind_held_out(void *run, double *nll, cmc_error *err) {
    train *t = run;
    *nll = 0.0;
    for (size_t k = 0; k < t->n_hosts; k++) {
        double one;
        CMC_TRY(train_held_out(t, &t->hosts[k], &t->o.alpha, 1, &one, err));
        *nll += t->hosts[k].weight * one;
    }
    return CMC_OK;
}

static cmc_train_progress train_kind_progress(const void *run, const char *phase) {
    return train_progress(run, phase);
}

/* Of each file that is watched the score of all hosts, by weight. */
static cmc_status train_kind_watch(void *run, trainlog_field f[DATA_WATCHED], size_t *n, cmc_error *err) {
    train *t = run;
    *n = t->o.keep.n_watch;
    for (size_t i = 0; i < *n; i++) {
        double all = 0.0, one;
        for (size_t k = 0; k < t->n_hosts; k++) {
            const data_set *d = &t->hosts[k].data;
            size_t from = d->watch_at[i], count = d->watch_at[i + 1] - from;
            CMC_TRY(train_score(t, &t->hosts[k], d->watch + from, count, &t->o.alpha, 1, &one, err));
            all += t->hosts[k].weight * one;
        }
        f[i] = (trainlog_field){run_watched_name(i), all};
    }
    return CMC_OK;
}

static const run_kind train_kind = {train_kind_step, train_kind_held_out, train_kind_progress, "held_out_host",
                                    train_kind_watch};

/* What is watched, at the start. */
static cmc_status train_log_start(train *t, cmc_error *err) {
    trainlog_field f[2 + DATA_WATCHED];
    double held_out;
    size_t n;
    if (t->resumed || !t->o.keep.n_watch)
        return CMC_OK;
    CMC_TRY(train_kind_held_out(t, &held_out, err));
    CMC_TRY(train_kind_watch(t, f + 2, &n, err));
    f[0] = (trainlog_field){"held_out", held_out};
    f[1] = (trainlog_field){"held_out_host", t->held_host};
    return trainlog_put(&t->log, "base", 0, f, 2 + n, err);
}

/* What the hosts score without the delta. */
static cmc_status train_hosts_alone(train *t, cmc_error *err) {
    double zero = 0.0;
    t->held_host = 0.0;
    for (size_t k = 0; k < t->n_hosts; k++) {
        CMC_TRY(train_held_out(t, &t->hosts[k], &zero, 1, &t->hosts[k].held_host, err));
        t->held_host += t->hosts[k].weight * t->hosts[k].held_host;
    }
    return CMC_OK;
}

static cmc_status train_all(train *t, cmc_error *err) {
    trainlog_field f[] = {
        {"params", (double)body_params(&t->body, &t->p)}, {"trained", (double)t->body.p->n_trained},       {"records", (double)train_data(t)->n_train},
        {"records_held_out", (double)train_data(t)->n_held},
        {"steps", (double)t->pace.steps}, {"seed", (double)t->o.seed}, {"lr", t->o.lr},
        {"batch", t->o.batch},            {"memory_planned", (double)t->plan.planned}};
    if (!t->resumed)
        CMC_TRY(trainlog_put(&t->log, "start", 0, f, sizeof f / sizeof *f, err));
    CMC_TRY(train_hosts_alone(t, err));
    CMC_TRY(train_log_start(t, err));
    run_view v = {.kind = &train_kind, .run = t, .o = &t->o, .s = &t->s, .pace = &t->pace, .log = &t->log,
                  .arrays = {t->body.w, t->best, t->adam.m, t->adam.v, t->body.n}, .checkpoint = t->checkpoint,
                  .settings = t->settings, .n_held = train_data(t)->n_held, .held_beside = t->held_host, .cb = t->cb,
                  .user = t->user};
    return run_steps(&v, err);
}

/* -------------------------------------------------------------------------------------------------- run */

/* Before it is saved, and its strength looked for; the result's score is then of what is saved. */
static cmc_status train_on_line(train *t, cmc_error *err) {
    if (t->o.keep.wise_ft == 1.0)
        return CMC_OK;
    if (t->body.start)
        added_on_line(&t->o, &t->body.layout, t->start, t->best);
    else
        keep_on_line(&t->o.keep, t->start, t->best, t->p.n);
    memcpy(t->body.w, t->best, t->body.n * sizeof(float));
    return train_data(t)->n_held ? train_kind_held_out(t, &t->s.best, err) : CMC_OK;
}

static cmc_status train_finish(train *t, cmc_error *err) {
    CMC_TRY(train_on_line(t, err));
    CMC_TRY(alpha_search(t, err));
    cmc_delta_info info = train_info(t);
    CMC_TRY(body_save(&t->body, t->o.out_path, &t->p, t->best, t->save_type, train_context(t), &t->vocab, &info, err));
    trainlog_field f[] = {{"alpha", t->alphas[0].alpha},
                          {"gain", t->alphas[0].gain},
                          {"alpha_default", t->alpha_default},
                          {"best_step", (double)t->s.best_step},
                          {"held_out_host", t->held_host},
                          {"memory_peak", (double)cmc_mem_peak()}};
    CMC_TRY(trainlog_put(&t->log, "end", t->s.step, f, sizeof f / sizeof *f, err));
    unlink(t->checkpoint); /* its run is finished and saved */
    for (size_t k = 0; k < train_n_seen(t) && t->own_cache; k++)
        unlink(t->hosts[k].cache);
    return CMC_OK;
}

static void train_result(const train *t, double seconds, bool finished, cmc_train_result *out) {
    const data_set none = {0}, *d = t->n_hosts ? train_data(t) : &none; /* it may have failed before there was any */
    size_t targets = 0, prefix = 0, left_out = 0;
    for (size_t k = 0; k < t->n_hosts; k++) {
        targets += t->hosts[k].data.n_targets;
        prefix += t->hosts[k].data.n_prefix;
        left_out += t->hosts[k].data.n_left_out;
    }
    *out = (cmc_train_result){
        .steps = t->s.step,
        .params = body_params(&t->body, &t->p),
        .trained = t->body.p ? t->body.p->n_trained : 0,
        .tokens = t->s.tokens,
        .records = d->n_train,
        .records_held_out = d->n_held,
        .records_left_out = d->records.n - d->n,
        .targets = targets,
        .targets_prefix = prefix,
        .targets_left_out = left_out,
        .held_out_host = t->held_host,
        .held_out_steered = t->s.best,
        .alpha = t->n_alphas ? t->alphas[0].alpha : t->o.alpha,
        .seconds = seconds,
        .memory_planned = t->plan.planned,
        .memory_peak = cmc_mem_peak(),
        .blas_flop = blas_work_of(t->rt->blas).flop,
        .blas_seconds = blas_work_of(t->rt->blas).seconds,
        .resumed = t->resumed,
        .finished = finished,
    };
}

static cmc_status train_run(train *t, cmc_error *err) {
    CMC_TRY(train_setup(t, err));
    CMC_TRY(train_start(t, err)); /* before the host's long work: a checkpoint that does not fit is told at once */
    t->held_host = NAN;
    t->pace.started = cmc_now();
    train_result(t, 0.0, false, &t->counts);
    cmc_train_progress plan = train_progress(t, "plan");
    CMC_TRY(train_report(t, &plan, err));
    for (size_t k = 0; k < train_n_seen(t); k++) {
        train_host *h = &t->hosts[k];
        train_fill fill = {t, cmc_now(), 0};
        CMC_TRY(hostcache_open(h->cache, h->model, &h->data, train_fill_progress, &fill, &h->states, err));
        train_memory_forget_hosts(t);
    }
    CMC_TRY(train_start_steps(t, err));
    CMC_TRY(train_all(t, err));
    return train_finish(t, err);
}

cmc_status cmc_train(cmc_runtime *rt, const cmc_train_opts *opts, cmc_train_callback cb, void *user,
                     cmc_train_result *out, cmc_error *err) {
    train t = {.rt = rt, .o = *opts, .cb = cb, .user = user, .held_host = NAN, .s = {.best = NAN}};
    double began = cmc_now();
    cmc_status st = train_run(&t, err);
    if (out)
        train_result(&t, cmc_now() - began, st == CMC_OK, out);
    train_release(&t);
    return st;
}
