/* Two systems on the same prompts: bootstrap intervals, and wins, ties and losses with their test. */
#ifndef CMC_EVAL_PAIRED_H
#define CMC_EVAL_PAIRED_H
#include "cmc.h"

typedef struct bootstrap_opts {
    int32_t draws;            /* resamples, at least 1 */
    double level;             /* of the interval, between 0 and 1 */
    uint64_t seed;            /* the same seed gives the same interval */
} bootstrap_opts;

typedef struct interval { double value, lo, hi; } interval;

/* sum(x) / sum(weight) over n records, and its percentile bootstrap interval (B. Efron, R. Tibshirani, "An introduction to
 * the bootstrap" (1993), chapter 13; quantiles interpolated linearly, as numpy's) over resamples of the records. weight
 * NULL: the mean. Differences of two systems in x make it a paired bootstrap. CMC_E_ARG where n is 0, CMC_E_NOMEM. */
cmc_status bootstrap_ratio(const double *x, const double *weight, size_t n, const bootstrap_opts *o, interval *out);

typedef struct tally { size_t wins, ties, losses; double p; } tally;

/* How many of diff[n] are above, at and below 0; p: the two-sided sign test, exact (scipy.stats.binomtest with chance 1/2
 * of the wins among those that are no ties); 1 where there are none. */
tally sign_test(const double *diff, size_t n);
#endif
