/* Dropout (arXiv 1207.0580; scaled while training): masks that depend on a key alone, so that none need be kept. */
#ifndef CMC_TINYLM_DROP_H
#define CMC_TINYLM_DROP_H
#include <stddef.h>
#include <stdint.h>

/* A key of its own for row `row` of branch `branch` under `key`. */
uint64_t drop_key(uint64_t key, size_t branch, size_t row);
/* mask[n]: elements [from, from + n) of a row's mask, each 0 with probability p and else 1 / (1 - p); sixteen random bits
 * decide one, so p is rounded down to a multiple of 2^-16. */
void drop_mask(uint64_t row_key, float p, float *mask, size_t from, size_t n);
#endif
