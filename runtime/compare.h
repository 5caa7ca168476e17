/* How far steering moved one step's distribution. */
#ifndef CMC_RUNTIME_COMPARE_H
#define CMC_RUNTIME_COMPARE_H
#include "base/error.h"

/* Fills out->kl, token (of `id`), host_top, top, raised and lowered from two rows of n logits, n > 0. */
void compare_rows(const float *host, const float *steered, int32_t n, int32_t id, cmc_comparison *out);
#endif
