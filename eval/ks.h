/* The two-sample Kolmogorov-Smirnov test. */
#ifndef CMC_EVAL_KS_H
#define CMC_EVAL_KS_H
#include "cmc.h"

typedef struct ks_result { double statistic, p; } ks_result;

/* Two-sided, of a[n] and b[m], both of at least one value and without NaN. p is exact where no two values are equal,
 * as scipy.stats.ks_2samp's default is for up to 10,000 values a sample; here it is for any number, in O(n m) time.
 * CMC_E_ARG for an empty sample, CMC_E_NOMEM. */
cmc_status ks_two_sample(const double *a, size_t n, const double *b, size_t m, ks_result *out);
#endif
