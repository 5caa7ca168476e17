/* From logits to a token. */
#ifndef CMC_RUNTIME_SAMPLER_H
#define CMC_RUNTIME_SAMPLER_H
#include "base/error.h"
#include "base/pool.h"

typedef struct sampler sampler;
/* CMC_E_ARG where an option is out of range: temperature, top_k >= 0; top_p, min_p in [0, 1]; repeat_penalty > 0. */
cmc_status sampler_new(const cmc_sampling *opts, int32_t n_vocab, sampler **out, cmc_error *err);
void sampler_free(sampler *s);
/* Picks a token; `recent` are the last n ids of the text (for the repetition penalty). Changes `logits`. The same
 * seed, logits and history give the same token everywhere. Ties: the lowest id. A logit of NaN or -inf is never
 * picked; -1 where there is no other. The pool's threads help, if they are free; NULL where they are not. */
int32_t sampler_pick(sampler *s, float *logits, const int32_t *recent, size_t n, cmc_pool *pool);
/* Whether it picks the greatest logit, whatever came before. */
bool sampler_greedy(const sampler *s);
#endif
