/* Sums over a record's scored tokens. */
#include "eval/likelihood.h"

#include <math.h>

double likelihood_nll(const float *logprob, size_t n) {
    double sum = 0;
    for (size_t i = 0; i < n; i++)
        sum -= (double)logprob[i];
    return sum;
}

static likelihood likelihood_sum(const cmc_score *s, const float *logprob, const uint8_t *top) {
    likelihood l = {.tokens = s->n, .bytes = s->bytes, .nll = likelihood_nll(logprob, s->n), .exact_memorization = NAN,
                    .extraction_strength = NAN};
    size_t n = 0, hits = 0, run = 0;
    for (size_t i = 0; i < s->n; i++) {
        if (s->end[i])
            continue;
        n++;
        hits += top[i];
        run = top[i] ? run + 1 : 0;
    }
    if (n) {
        l.exact_memorization = (double)hits / (double)n;
        /* The public code's loop ends at the last token whether that is a hit or not. */
        l.extraction_strength = (double)(run ? run : 1) / (double)n;
    }
    return l;
}

likelihood likelihood_of(const cmc_score *s, bool host) {
    return host ? likelihood_sum(s, s->host_logprob, s->host_top) : likelihood_at(s, 0);
}

likelihood likelihood_at(const cmc_score *s, size_t set) {
    return likelihood_sum(s, s->logprob + set * s->n, s->top + set * s->n);
}
