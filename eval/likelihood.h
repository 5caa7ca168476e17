/* What a scored record says: its likelihood, and how much of it the model knows by heart. */
#ifndef CMC_EVAL_LIKELIHOOD_H
#define CMC_EVAL_LIKELIHOOD_H
#include "cmc.h"

typedef struct likelihood {
    size_t tokens, bytes;     /* scored: end tokens count as tokens, and have no bytes */
    double nll;               /* their sum, in nats */
    /* Over the scored tokens that are no end tokens, each given the true ones before it; NaN where there are none. As
     * open-unlearning has them (arXiv 2506.12618): */
    double exact_memorization;   /* the share that is the likeliest token */
    double extraction_strength;  /* 1 - k/n, k being the tokens before the longest such run that ends the answer; at least 1/n */
} likelihood;

/* -sum of logprob[n]: nats. */
double likelihood_nll(const float *logprob, size_t n);
/* The first set of alphas, or the unsteered host. */
likelihood likelihood_of(const cmc_score *s, bool host);
/* The set-th set of alphas, from 0. */
likelihood likelihood_at(const cmc_score *s, size_t set);
#endif
