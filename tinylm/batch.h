/* Packing examples into batches that the net takes. */
#ifndef CMC_TINYLM_BATCH_H
#define CMC_TINYLM_BATCH_H
#include "tinylm/hostcache.h"
#include "tinylm/net.h"

/* A batch that owns its arrays; `b` looks into them. */
typedef struct batch {
    net_batch b;
    int32_t *ids, *targets;
    size_t *start, *rows;
    const uint8_t **host;
    size_t max_tokens, max_seqs;
} batch;

cmc_status batch_new(size_t max_tokens, size_t max_seqs, batch *out, cmc_error *err);
void batch_free(batch *b);
/* Packs as many of the examples index[0..n) as fit (at least one group, where it fits at all); returns how many. Examples
 * that belong together come in groups of `group`. `cache` NULL: there is no host. */
size_t batch_pack(batch *b, const data_set *d, const hostcache *cache, const size_t *index, size_t n, size_t group);
#endif
