/* The measures of TOFU (arXiv 2401.06121), as locuslab/open-unlearning defines them. NLLs are means per token, in nats. */
#ifndef CMC_EVAL_TOFU_H
#define CMC_EVAL_TOFU_H
#include "cmc.h"

/* exp(-nll). */
double tofu_probability(double nll);
/* The answer's probability among it and n wrong ones: p / (p + sum of theirs + 1e-10). */
double tofu_choice(double nll, const double *wrong_nll, size_t n);
/* exp(-mean of the n wrong answers' NLLs) / (exp(-nll) + 1e-10), nll being the paraphrased answer's. */
double tofu_truth_ratio(double nll, const double *wrong_nll, size_t n);
/* What a set makes of a truth ratio r, before its mean is taken. On the forget set, where wrong answers should be as likely:
 * min(r, 1 / (r + 1e-10)). Elsewhere: max(0, 1 - r). */
double tofu_truth_forget(double r);
double tofu_truth_kept(double r);
/* Of n values of at least 0; 0 where one of them is. Model utility is that of nine (scipy.stats.hmean). */
double tofu_harmonic_mean(const double *v, size_t n);
#endif
