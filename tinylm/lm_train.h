/* Tuning a language model by itself, without a host: what the parts of a run share. */
#ifndef CMC_TINYLM_LM_TRAIN_H
#define CMC_TINYLM_LM_TRAIN_H
#include "tinylm/lm_kl.h"
#include "tinylm/lm_loss.h"
#include "tinylm/keep.h"
#include "tinylm/train.h"

typedef struct tune {
    cmc_runtime *rt;
    cmc_tune_opts o;             /* as given, with every default filled in */
    cmc_train_callback cb; void *user;

    cmc_model *base;
    objective objective;
    data_set data, replay;       /* replay.n is 0 where there is none */
    data_set watch[DATA_WATCHED]; /* [o.how.keep.n_watch] */
    expand_spec expand;          /* blocks, where there are to be some; and what holds them to their layers */
    alignment align;
    lm_layout layout;
    soft_mask mask;              /* rows NULL: none */
    char *checkpoint, *settings;
    uint32_t save_type;
    size_t piece;                /* tokens of a pass at most */
    uint64_t planned;            /* resident bytes at most */

    lm_net net;
    lm_loss loss;
    lm_kl kl;                    /* where the objective has such a part */
    batch batch;                 /* of a piece of a step */
    adamw adam;
    float *best, *dhidden, *arena;
    float *start;                /* what is trained, as it was at the start: it is pulled back to it, or the objective compares
                                    the model with what it was; else NULL */
    float *host;                 /* [piece][E] final-norm states at the piece's targets of the model as it was, else NULL */
    double *nll, *host_nll;      /* [piece] of each target, by the model as it is and as it was, where the objective goes by records */
    float *weights;              /* [piece], likewise */
    step_order order, kept, replay_order;
    size_t *pairs;               /* [2 batch] */

    run_pace pace;
    int64_t warmup;
    checkpoint_state s;
    double held_base;            /* the base's NLL per held-out target; NaN: nothing held out */
    trainlog log;
    bool resumed;
} tune;

/* lm_setup.c: checks, opens and plans; nothing is computed or written but (on success) memory. */
cmc_status tune_setup(tune *t, cmc_error *err);
/* Allocates weights, moments and the output layer, and sets the start: the base, or the checkpoint. */
cmc_status tune_start(tune *t, cmc_error *err);
void tune_release(tune *t);

/* lm_step.c */
cmc_status tune_step(tune *t, run_step *r, cmc_error *err);
/* The loss of a step on the examples index[0..n), with what is replayed and retained beside them, and the alignment loss of an
 * expanded model's tokens; its gradient is added to the net's. */
double tune_gradient(tune *t, const size_t *index, size_t n, uint64_t *targets);
/* NLL per target of the examples index[0..n) with the net's present weights; NaN where there is none. */
double tune_score(tune *t, const data_set *d, const size_t *index, size_t n);
/* That of what is held out, of the base alone, whatever the present weights are. */
double tune_held_out_base(tune *t);
#endif
