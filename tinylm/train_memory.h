/* What a run takes of memory, and how its work is cut so that it stays within a bound. */
#ifndef CMC_TINYLM_TRAIN_MEMORY_H
#define CMC_TINYLM_TRAIN_MEMORY_H
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/error.h"

/* How the work is cut. It decides the order of sums and with it the last bits of the weights: it is one of a run's
 * settings. Without a bound it depends on the data alone, but for `heads`. */
typedef struct train_plan {
    size_t piece;             /* a step is worked through in pieces of at most so many tokens */
    size_t block;             /* bytes of a block of logits */
    size_t heads;             /* the first so many hosts' output matrices are decoded, but for those multiplied in integers */
    size_t tokens, targets;   /* of the largest piece that will come */
    bool bounded;             /* pages of mapped files are let go when they were used */
    uint64_t planned;         /* the process's resident size at its highest, in bytes */
} train_plan;

struct train;

/* Cuts the work of t, whose hosts, data and shape are there: the fastest way that stays within t->o.memory where that is
 * not 0. A bound that is too small is refused, with the least that would do; so is work that the machine has no room for. */
cmc_status train_memory_plan(struct train *t, cmc_error *err);
/* Under this plan the host's output matrix is kept as float32. */
bool train_decodes_head(const struct train *t, const train_plan *p, size_t host);
/* Lets go what is only mapped or only kept for reuse: the hosts' files after their states are made. */
void train_memory_forget_hosts(struct train *t);
#endif
