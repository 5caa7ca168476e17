/* What a training run does so that less is forgotten (cmc_keep_opts), the same for a delta's and for a model's own. */
#ifndef CMC_TINYLM_KEEP_H
#define CMC_TINYLM_KEEP_H
#include "tinylm/soft_mask.h"

cmc_status keep_check(const cmc_keep_opts *k, cmc_error *err);
/* Whether the mask scales gradients rather than steps. */
bool keep_masks_gradient(const cmc_keep_opts *k);
/* Whether what is trained is kept as it was at the start. */
bool keep_needs_start(const cmc_keep_opts *k);
/* w = the point on the line from start to it. */
void keep_on_line(const cmc_keep_opts *k, const float *start, float *w, size_t n);
/* How many records are replayed before that step, each step having `batch` new ones. */
size_t keep_replay_before(const cmc_keep_opts *k, int32_t batch, int64_t step);
/* No step goes through more of them, however their share is rounded. */
size_t keep_replay_most(const cmc_keep_opts *k, int32_t batch);
/* The soft mask, for tensors of a model of that shape; out->rows is NULL where none is wanted. `seed` as in soft_mask_open. */
cmc_status keep_mask(const cmc_keep_opts *k, const params *tensors, const model_params *shape, uint64_t seed, soft_mask *out,
                     cmc_error *err);
/* What decides about the weights, as lines of a checkpoint's settings, the caller's to free: "" where nothing is kept, NULL
 * where memory is out. */
char *keep_setting(const cmc_keep_opts *k, const char *replay_hash, const soft_mask *m);
#endif
