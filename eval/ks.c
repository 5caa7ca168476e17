/* The Kolmogorov-Smirnov test by counting paths: J. L. Hodges, "The significance probability of the Smirnov two-sample
 * test", Arkiv foer Matematik 3 (1958). */
#include "eval/ks.h"

#include <stdlib.h>
#include <string.h>

static int ks_compare(const void *a, const void *b) {
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

static double *ks_sorted(const double *v, size_t n) {
    double *copy = malloc(n * sizeof *copy);
    if (!copy)
        return NULL;
    memcpy(copy, v, n * sizeof *copy);
    qsort(copy, n, sizeof *copy, ks_compare);
    return copy;
}

static int64_t ks_abs(int64_t x) {
    return x < 0 ? -x : x;
}

/* n m times the largest distance of the two distribution functions, a whole number. */
static int64_t ks_distance(const double *a, size_t n, const double *b, size_t m) {
    int64_t most = 0;
    for (size_t i = 0, k = 0; i < n && k < m;) {
        double x = a[i] < b[k] ? a[i] : b[k];
        while (i < n && a[i] <= x)
            i++;
        while (k < m && b[k] <= x)
            k++;
        int64_t d = ks_abs((int64_t)i * (int64_t)m - (int64_t)k * (int64_t)n);
        most = d > most ? d : most;
    }
    return most;
}

/* The share of the ways to merge the samples that come as far apart. outside[k] is the chance that a random merge of i and k
 * values has been as far apart at some point: its last value is of the first sample with chance i / (i + k). All terms
 * are positive, so that a tiny p keeps its digits. */
static cmc_status ks_probability(size_t n, size_t m, int64_t distance, double *p) {
    double *outside = calloc(m + 1, sizeof *outside);
    if (!outside)
        return CMC_E_NOMEM;
    for (size_t i = 0; i <= n; i++) {
        for (size_t k = 0; k <= m; k++) {
            if (ks_abs((int64_t)i * (int64_t)m - (int64_t)k * (int64_t)n) >= distance)
                outside[k] = 1;
            else if (i + k > 0)
                outside[k] = ((double)i * outside[k] + (k ? (double)k * outside[k - 1] : 0)) / (double)(i + k);
        }
    }
    *p = outside[m];
    free(outside);
    return CMC_OK;
}

cmc_status ks_two_sample(const double *a, size_t n, const double *b, size_t m, ks_result *out) {
    if (n == 0 || m == 0)
        return CMC_E_ARG;
    double *x = ks_sorted(a, n), *y = ks_sorted(b, m);
    cmc_status st = CMC_E_NOMEM;
    if (x && y) {
        int64_t distance = ks_distance(x, n, y, m);
        out->statistic = (double)distance / ((double)n * (double)m);
        st = ks_probability(n, m, distance, &out->p);
    }
    free(x);
    free(y);
    return st;
}
