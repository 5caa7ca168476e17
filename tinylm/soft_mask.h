/* A soft mask from importance (CoFiTune, arXiv 2404.10306, as its code normalises it): unit u's rows of q, k, v, up and down
 * are held back by I[u] = |tanh z[u]|, z the importance's distance from the layer's and kind's mean in standard deviations. */
#ifndef CMC_TINYLM_SOFT_MASK_H
#define CMC_TINYLM_SOFT_MASK_H
#include "tinylm/adamw.h"
#include "tinylm/importance.h"
#include "tinylm/lm_layout.h"

/* What stands in for the file's importance, to learn whether it says anything: nothing; the same values in random places of
 * their layer and kind; everywhere their mean. */
typedef enum soft_mask_control { SOFT_MASK_REAL, SOFT_MASK_PERMUTED, SOFT_MASK_CONSTANT } soft_mask_control;

typedef struct soft_mask {
    float *arena;
    const float **rows;      /* [tensors] 1 - I for each row of a tensor; NULL: it is not masked */
    char hash[40];           /* of the file's values */
} soft_mask;

/* I of raw importance v[n]: |tanh((v - mean) / sd)|, sd unbiased; 0 where all are the same. In place. */
void soft_mask_normalise(float *v, size_t n);
/* `seed` decides where SOFT_MASK_PERMUTED puts things. Of query heads that share a key-value head, that one has the largest. */
cmc_status soft_mask_open(const char *path, const params *tensors, const model_params *shape, soft_mask_control control,
                          uint64_t seed, soft_mask *out, cmc_error *err);
void soft_mask_free(soft_mask *m);
#endif
