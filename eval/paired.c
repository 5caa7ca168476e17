/* Statistics over prompts. */
#include "eval/paired.h"

#include <math.h>
#include <stdlib.h>

/* splitmix64 (G. Steele, D. Lea, C. Flood, "Fast splittable pseudorandom number generators", 2014). */
static uint64_t paired_random(uint64_t *state) {
    uint64_t z = *state += 0x9E3779B97F4A7C15u;
    z = (z ^ (z >> 30)) * 0xBF58476D1CE4E5B9u;
    z = (z ^ (z >> 27)) * 0x94D049BB133111EBu;
    return z ^ (z >> 31);
}

static int paired_compare(const void *a, const void *b) {
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

static double paired_quantile(const double *sorted, size_t n, double q) {
    double at = q * (double)(n - 1);
    size_t below = (size_t)at, above = below + 1 < n ? below + 1 : below;
    return sorted[below] + (at - (double)below) * (sorted[above] - sorted[below]);
}

static double paired_ratio(double x, double weight) {
    return weight > 0 ? x / weight : NAN;
}

cmc_status bootstrap_ratio(const double *x, const double *weight, size_t n, const bootstrap_opts *o, interval *out) {
    if (n == 0 || o->draws < 1)
        return CMC_E_ARG;
    size_t draws = (size_t)o->draws;
    double *drawn = malloc(draws * sizeof *drawn), sum = 0, total = 0;
    uint64_t state = o->seed;
    if (!drawn)
        return CMC_E_NOMEM;
    for (size_t i = 0; i < n; i++) {
        sum += x[i];
        total += weight ? weight[i] : 1;
    }
    out->value = out->lo = out->hi = paired_ratio(sum, total);
    if (isnan(out->value)) {   /* there is nothing to weigh by */
        free(drawn);
        return CMC_OK;
    }
    for (size_t d = 0; d < draws; d++) {
        sum = total = 0;
        for (size_t i = 0; i < n; i++) {
            size_t k = (size_t)(paired_random(&state) % n);
            sum += x[k];
            total += weight ? weight[k] : 1;
        }
        drawn[d] = total > 0 ? sum / total : out->value;
    }
    qsort(drawn, draws, sizeof *drawn, paired_compare);
    out->lo = paired_quantile(drawn, draws, (1 - o->level) / 2);
    out->hi = paired_quantile(drawn, draws, (1 + o->level) / 2);
    free(drawn);
    return CMC_OK;
}

/* The chance of at most k of n coins, times 2: from the largest term down, each from the one before. */
static double paired_two_tails(size_t k, size_t n) {
    double term = exp(lgamma((double)n + 1) - lgamma((double)k + 1) - lgamma((double)(n - k) + 1) - (double)n * log(2)), sum = 0;
    for (size_t i = k + 1; i-- > 0;) {
        sum += term;
        term *= (double)i / (double)(n - i + 1);
    }
    return fmin(1, 2 * sum);
}

tally sign_test(const double *diff, size_t n) {
    tally t = {0};
    for (size_t i = 0; i < n; i++) {
        t.wins += diff[i] > 0;
        t.losses += diff[i] < 0;
    }
    t.ties = n - t.wins - t.losses;
    t.p = paired_two_tails(t.wins < t.losses ? t.wins : t.losses, t.wins + t.losses);
    return t;
}
