/* A model's content hash: its header and samples of every tensor, so that it takes milliseconds whatever the size. */
#include "runtime/load.h"

#include <stdlib.h>

#include "base/error.h"

#define HASH_BLOCK 4096u
#define HASH_SAMPLES 8u  /* of a tensor: the first block, the last, and evenly spaced ones between */

static void hash_tensor(cmc_hasher *h, const gguf *g, const gguf_tensor *t) {
    if (t->offset > g->file.size)
        return;
    const uint8_t *data = g->file.data + t->offset;
    const uint64_t left = g->file.size - t->offset, n = t->bytes < left ? t->bytes : left;
    if (n <= (uint64_t)HASH_BLOCK * HASH_SAMPLES) {
        cmc_hasher_add(h, data, (size_t)n);
        return;
    }
    const uint64_t step = (n - HASH_BLOCK) / (HASH_SAMPLES - 1);
    for (uint64_t i = 0; i < HASH_SAMPLES; i++)
        cmc_hasher_add(h, data + (i + 1 == HASH_SAMPLES ? n - HASH_BLOCK : i * step), HASH_BLOCK);
}

cmc_status load_hash(gguf *const *parts, size_t n_parts, char out[40], cmc_error *err) {
    cmc_hasher *h = cmc_hasher_new();
    if (!h)
        return cmc_fail_nomem(err, "a hash", 64);
    for (size_t i = 0; i < n_parts; i++) {
        cmc_hasher_add(h, parts[i]->file.data, parts[i]->header_bytes);
        for (size_t k = 0; k < parts[i]->n_tensors; k++)
            hash_tensor(h, parts[i], &parts[i]->tensors[k]);
    }
    cmc_hasher_finish(h, out);
    return CMC_OK;
}
