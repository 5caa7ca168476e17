/* Sequences one after the other, with the rows, targets and host states that their losses need. */
#include "tinylm/batch.h"

#include <stdlib.h>
#include <string.h>

#include "base/mem.h"

cmc_status batch_new(size_t max_tokens, size_t max_seqs, batch *out, cmc_error *err) {
    memset(out, 0, sizeof *out);
    out->max_tokens = max_tokens;
    out->max_seqs = max_seqs;
    out->ids = cmc_alloc(max_tokens, sizeof *out->ids);
    out->targets = cmc_alloc(max_tokens, sizeof *out->targets);
    out->rows = cmc_alloc(max_tokens, sizeof *out->rows);
    out->host = cmc_alloc(max_tokens, sizeof *out->host);
    out->start = cmc_alloc(max_seqs + 1, sizeof *out->start);
    if (!out->ids || !out->targets || !out->rows || !out->host || !out->start) {
        batch_free(out);
        return cmc_fail_nomem(err, "a batch", max_tokens * 32);
    }
    return CMC_OK;
}

void batch_free(batch *b) {
    free(b->ids);
    free(b->targets);
    free(b->rows);
    free(b->host);
    free(b->start);
    memset(b, 0, sizeof *b);
}

/* Targets are at most as many as tokens: each has a row of its own. */
static bool batch_fits(const batch *b, const data_set *d, const size_t *index, size_t group, size_t tokens, size_t seqs) {
    for (size_t i = 0; i < group; i++) {
        tokens += d->v[index[i]].n_delta;
        seqs += d->v[index[i]].n_seqs;
    }
    return tokens <= b->max_tokens && seqs <= b->max_seqs;
}

size_t batch_pack(batch *b, const data_set *d, const hostcache *cache, const size_t *index, size_t n, size_t group) {
    size_t tokens = 0, targets = 0, seqs = 0, k = 0;
    b->start[0] = 0;
    for (; k < n; k++) {
        const data_example *x = &d->v[index[k]];
        if (k % group == 0 && !batch_fits(b, d, index + k, group, tokens, seqs))
            break;
        memcpy(b->ids + tokens, x->delta_ids, x->n_delta * sizeof *b->ids);
        for (size_t i = 0; i < x->n_targets; i++, targets++) {
            b->targets[targets] = x->targets[i];
            b->rows[targets] = tokens + x->delta_row[i];
            b->host[targets] = cache ? cache->rows + (x->first_row + i) * cache->row_bytes : NULL;
        }
        for (size_t i = 0; i < x->n_seqs; i++)
            b->start[++seqs] = tokens + x->seq[i + 1];
        tokens += x->n_delta;
    }
    b->b = (net_batch){.ids = b->ids,
                       .start = b->start,
                       .rows = b->rows,
                       .targets = b->targets,
                       .host = b->host,
                       .n_tokens = tokens,
                       .n_seqs = seqs,
                       .n_targets = targets};
    return k;
}
