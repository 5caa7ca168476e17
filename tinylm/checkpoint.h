/* A training run on disk: everything that the next step depends on. The random generator and the place in the data
 * need no state of their own: both follow from seed and step. */
#ifndef CMC_TINYLM_CHECKPOINT_H
#define CMC_TINYLM_CHECKPOINT_H
#include "base/error.h"

typedef struct checkpoint_state {
    int64_t step;             /* steps done */
    int64_t best_step;        /* 0: none yet */
    int64_t evals_since_best;
    uint64_t tokens;          /* response tokens trained on */
    double best, held_out, loss;   /* NaN where not known */
    uint64_t stopped;         /* 1: training ended early, only the alpha search and the saving are left */
} checkpoint_state;

/* Of n floats each; NULL where reading is to leave one out. */
typedef struct checkpoint_arrays { float *w, *best, *m, *v; size_t n; } checkpoint_arrays;

/* `settings` is text of "name value\n" lines. Atomic: an earlier checkpoint stays whole until the new one is. */
cmc_status checkpoint_write(const char *path, const char *settings, const checkpoint_state *s,
                            const checkpoint_arrays *a, cmc_error *err);
/* Refuses a damaged file, and one whose settings differ, naming the first that does. Nothing is changed on failure but,
 * possibly, the arrays. */
cmc_status checkpoint_read(const char *path, const char *settings, checkpoint_state *s, checkpoint_arrays *a,
                           cmc_error *err);
bool checkpoint_exists(const char *path);
/* Refuses to begin a run over the checkpoint of an unfinished one, unless it is to be resumed or replaced; and to do both. */
cmc_status checkpoint_check(const char *path, bool resume, bool fresh, cmc_error *err);
/* Removes what a process that was killed while it wrote this checkpoint left beside it. */
void checkpoint_sweep(const char *path);
#endif
