/* What the two kinds of training runs keep alike, a delta's (train.h) and a model's own (lm_train.h): how far they are,
 * and which weights scored best. */
#ifndef CMC_TINYLM_RUN_H
#define CMC_TINYLM_RUN_H
#include "tinylm/checkpoint.h"
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
/* The log's line of a step. */
cmc_status run_log_step(trainlog *log, const cmc_train_progress *p, cmc_error *err);
/* Takes in the held-out score of a->w, which is copied to a->best where it is the best so far; after o->patience scores
 * without a gain the run is to stop. CMC_E_DIVERGED where the score is no finite number. */
cmc_status run_scored(checkpoint_state *s, const checkpoint_arrays *a, const cmc_train_opts *o, double nll,
                      cmc_error *err);
#endif
