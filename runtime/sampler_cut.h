/* The best candidates of a row of logits, without sorting it. */
#ifndef CMC_RUNTIME_SAMPLER_CUT_H
#define CMC_RUNTIME_SAMPLER_CUT_H
#include "cmc.h"

typedef struct candidate {
    double weight;
    float logit;
    int32_t id;
} candidate;

/* The first i >= at with logits[i] > least, or n; a NaN is above nothing. What is looked for is rare: few calls go through
 * a row. */
size_t cut_next_above(const float *logits, size_t at, size_t n, float least);
size_t cut_next_above_plain(const float *logits, size_t at, size_t n, float least);
/* Moves to the front the fewest best candidates (greater logit, then lower id) whose weights add up to at least
 * `need`, and gives their number: at least 1 where n > 0, and n where all together do not. Expected time O(n); the
 * order within both parts is any, but the same for the same input. No logit is NaN. */
size_t cut_mass(candidate *c, size_t n, double need);
/* Fills c with the k best of logits[n], weights 1, in any order, and gives their number: less than k where fewer
 * logits are numbers above -inf. `c` has room for cut_top_k_room(n, k). */
size_t cut_top_k(const float *logits, size_t n, size_t k, candidate *c);
size_t cut_top_k_room(size_t n, size_t k);
#endif
