/* What loss.c and loss_map.c share: one block of target rows in work. */
#ifndef CMC_TINYLM_LOSS_JOB_H
#define CMC_TINYLM_LOSS_JOB_H
#include "tinylm/loss.h"

enum { LOSS_GRAIN = 64 };   /* columns that a thread takes together */

typedef struct loss_job {
    loss *l;
    net_out d;
    const net_batch *b;
    size_t first, rows;       /* the block's targets */
    const loss_parts *parts;
    float alpha, scale;       /* scale: the loss's, times alpha */
    float *dhidden;
    double *nll, *each;
    const double *alphas;
    size_t n_alphas;
} loss_job;

static inline float loss_weight(const loss_job *j, size_t r) {
    return j->parts->weight ? j->parts->nll * j->parts->weight[j->first + r] : j->parts->nll;
}

/* The block's host states as floats, and its logits too where the head is not at hand. */
cmc_status loss_host_states(const loss_job *j, cmc_error *err);
/* The mixer's logits of the block, in l->mixer.logits; of a target where it has no state they mean nothing. */
cmc_status loss_mixer_logits(const loss_job *j, cmc_error *err);
/* Columns [lo, hi) of the host's logits, where they are not there already, perturbed where the loss wants that. */
void loss_host_columns(const loss_job *j, size_t lo, size_t hi);
/* out[:, lo..hi) = alpha * delta's logits + beta * out. */
void loss_delta_columns(const loss_job *j, size_t lo, size_t hi, float alpha, float beta, float *out);
/* From d[rows][n_delta], the gradient of the delta's logits: columns [lo, hi) into the embedding's gradient, and thread t's
 * part of the hidden states'; loss_join_hidden adds the parts, after a barrier. */
void loss_back_columns(const loss_job *j, int t, const float *d, size_t lo, size_t hi);
void loss_join_hidden(const loss_job *j, int t, int nt);

/* loss_map.c: pool workers over a block. */
size_t loss_steered_floats(const loss *l);
void loss_map_train_worker(void *arg, int t, int nt);
void loss_map_score_worker(void *arg, int t, int nt);
#endif
