/* Perturbing the host's distribution while training. A delta learns a shift on top of its hosts' distributions; one that
 * meets the same distributions made flatter, sharper and less sure of themselves relies less on what is theirs alone. */
#ifndef CMC_TINYLM_PERTURB_H
#define CMC_TINYLM_PERTURB_H
#include "tinylm/data.h"

/* The host's logits become scale * logits + mix * log u: (1 - mix) / temperature, and the share of the unigram u in a
 * geometric mixture with what the temperature left. With a mixer u is another model's distribution, through the map, in all
 * no more than the host has on the tokens that it maps. */
typedef struct perturb { float scale, mix; } perturb;

bool perturb_on(const cmc_train_opts *o);
/* The numbers fit together, and the objective is one that takes a perturbed host. */
cmc_status perturb_check(const cmc_train_opts *o, objective_kind kind, cmc_error *err);
/* That of a record in a step: it depends on seed, step and record alone. */
perturb perturb_draw(const cmc_train_opts *o, int64_t step, size_t record);
/* The same temperature and no mixture: where a mixer has no row. */
perturb perturb_unmixed(perturb p);
/* log_u[n_vocab]: how often each token is a target of what steps go through, with one more of each. */
void perturb_unigram(const data_set *d, size_t n_vocab, float *log_u);
#endif
