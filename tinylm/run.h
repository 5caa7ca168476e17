/* What the two kinds of training runs keep alike, a delta's (train.h) and a model's own (lm_train.h): how far they are,
 * which weights scored best, and what belongs to a step. */
#ifndef CMC_TINYLM_RUN_H
#define CMC_TINYLM_RUN_H
#include "tinylm/checkpoint.h"
#include "tinylm/data.h"
#include "tinylm/trainlog.h"

typedef struct run_pace {
    int64_t steps, steps_per_epoch;
    double started;              /* cmc_now */
    int64_t first_step;          /* steps done when this process began */
    double busy;                 /* seconds in steps of this process, and their response tokens */
    uint64_t busy_tokens;
} run_pace;

/* A report of that phase; what only the run's kind knows is the caller's to add. */
cmc_train_progress run_progress(const checkpoint_state *s, const run_pace *pace, const char *phase);

typedef struct run_step { double loss, lr, grad_norm; uint64_t tokens; } run_step;

/* The log's name of file i that is watched. */
const char *run_watched_name(size_t i);

/* What a kind does its own way. */
typedef struct run_kind {
    cmc_status (*step)(void *run, run_step *r, cmc_error *err);
    cmc_status (*held_out)(void *run, double *nll, cmc_error *err);   /* with the present weights */
    cmc_train_progress (*progress)(const void *run, const char *phase);
    const char *beside;          /* the log's name for the score without what is trained */
    /* What else the log says of a score: *n fields. */
    cmc_status (*watch)(void *run, trainlog_field f[DATA_WATCHED], size_t *n, cmc_error *err);
} run_kind;

/* A run as its steps see it; all of it is borrowed. */
typedef struct run_view {
    const run_kind *kind;
    void *run;
    const cmc_train_opts *o;
    checkpoint_state *s;
    run_pace *pace;
    trainlog *log;
    checkpoint_arrays arrays;
    const char *checkpoint, *settings;
    size_t n_held;
    double held_beside;
    cmc_train_callback cb; void *user;
} run_view;

/* Reports to the caller; CMC_E_CANCELLED where it wants to stop. */
cmc_status run_report(cmc_train_callback cb, void *user, const cmc_train_progress *p, const checkpoint_state *s,
                      const run_pace *pace, cmc_error *err);
/* The steps that are left, each with what belongs to it: log, held-out score, checkpoint, report. v->arrays.best then holds
 * the weights that scored best. A run ends before its last step after o->patience scores without a gain. A caller that stops gets
 * a checkpoint first. CMC_E_DIVERGED where a score is no finite number. */
cmc_status run_steps(const run_view *v, cmc_error *err);
#endif
