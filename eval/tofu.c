/* TOFU's measures. Forget quality is ks_two_sample's p of two models' truth ratios on the forget set (ks.h). */
#include "eval/tofu.h"

#include <math.h>

static const double tofu_tiny = 1e-10;   /* open-unlearning's guard against division by 0 */

double tofu_probability(double nll) {
    return exp(-nll);
}

double tofu_choice(double nll, const double *wrong_nll, size_t n) {
    double p = exp(-nll), wrong = 0;
    for (size_t i = 0; i < n; i++)
        wrong += exp(-wrong_nll[i]);
    return p / (p + wrong + tofu_tiny);
}

double tofu_truth_ratio(double nll, const double *wrong_nll, size_t n) {
    double sum = 0;
    for (size_t i = 0; i < n; i++)
        sum += wrong_nll[i];
    return exp(-sum / (double)n) / (exp(-nll) + tofu_tiny);
}

double tofu_truth_forget(double r) {
    return fmin(r, 1 / (r + tofu_tiny));
}

double tofu_truth_kept(double r) {
    return fmax(0, 1 - r);
}

double tofu_harmonic_mean(const double *v, size_t n) {
    double sum = 0;
    for (size_t i = 0; i < n; i++) {
        if (!(v[i] > 0))
            return 0;
        sum += 1 / v[i];
    }
    return (double)n / sum;
}
