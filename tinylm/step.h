/* Which examples a step takes, what its responses weigh, and how it changes the weights, alike in both kinds of training runs: a delta's (train.h) and a
 * model's own (lm_train.h). */
#ifndef CMC_TINYLM_STEP_H
#define CMC_TINYLM_STEP_H
#include "tinylm/adamw.h"
#include "tinylm/data.h"
#include "tinylm/run.h"

/* A shuffled list of examples, and those of it that a step takes. */
typedef struct step_order { size_t *v, *batch; int64_t epoch; } step_order;

/* For lists of n examples, of which a step takes `most`; false where memory is out, and what there is is the caller's to free. */
bool step_order_new(size_t n, size_t most, step_order *out);
void step_order_free(step_order *o);
/* Examples first .. first + n, in o->batch, of the endless sequence that goes through `list` epoch after epoch, each in an order
 * of its own. */
const size_t *step_order_take(step_order *o, const size_t *list, size_t n_list, uint64_t seed, uint64_t first, size_t n);
/* The training examples of a step, in o->batch: *n of at most `most`; the last step of an epoch may have fewer. */
const size_t *step_order_epoch(step_order *o, const data_set *d, uint64_t seed, size_t most, int64_t step, size_t *n);

/* The list as the objective wants it: for dpo, in `pairs`, every record with its refusal behind it, *n becoming twice as many. */
const size_t *step_pairs(const objective *o, const data_set *d, const size_t *index, size_t *n, size_t *pairs);
size_t step_targets(const data_set *d, const size_t *index, size_t n);
/* Of what is trained, or of the delta: in the sequences that all of them are read in. */
size_t step_tokens(const data_set *d, const size_t *index, size_t n);
/* Of an objective by record: adds the losses of the responses index[0..n), in pairs where it wants them, to *sum, and gives each
 * target of theirs, one after the other, its weight: d loss / d NLL of its response. Target i has the NLL nll[i * stride], by the
 * host alone host_nll[i * stride]. */
void step_weights(const objective *o, const data_set *d, const size_t *index, size_t n, const double *nll,
                  const double *host_nll, size_t stride, float *weights, double *sum);
/* What a step changes; all of it is borrowed. grad: [n]. */
typedef struct step_update {
    cmc_pool *pool;
    adamw *adam;
    const params *p;
    float *w, *grad; size_t n;
    int64_t warmup, steps;
} step_update;
/* The weights after the step's gradient, r->loss and r->tokens are there: clips, steps, and counts it in *s. CMC_E_DIVERGED, and
 * nothing changed, where the loss or the gradient is no finite number: the examples are named. */
cmc_status step_apply(const step_update *u, const cmc_train_opts *o, const data_set *d, const size_t *index, size_t n,
                      checkpoint_state *s, run_step *r, cmc_error *err);
#endif
