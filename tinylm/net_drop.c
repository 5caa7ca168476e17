/* Dropout on the branches of the residual stream. */
#include "tinylm/drop.h"
#include "tinylm/net.h"

enum { DROP_BLOCK = 256 };

void net_drop_add(const net *n, size_t branch, const float *x, float *y, size_t lo, size_t hi) {
    size_t e = (size_t)n->p->s.n_embd;
    float mask[DROP_BLOCK];
    for (size_t r = lo; r < hi; r++) {
        uint64_t key = drop_key(n->drop_key, branch, r);
        for (size_t from = 0; from < e; from += DROP_BLOCK) {
            size_t m = e - from < DROP_BLOCK ? e - from : DROP_BLOCK;
            drop_mask(key, n->dropout, mask, from, m);
            for (size_t c = 0; c < m; c++)
                y[r * e + from + c] += mask[c] * x[r * e + from + c];
        }
    }
}

void net_drop_mul(const net *n, size_t branch, const float *x, float *y, size_t lo, size_t hi) {
    size_t e = (size_t)n->p->s.n_embd;
    float mask[DROP_BLOCK];
    for (size_t r = lo; r < hi; r++) {
        uint64_t key = drop_key(n->drop_key, branch, r);
        for (size_t from = 0; from < e; from += DROP_BLOCK) {
            size_t m = e - from < DROP_BLOCK ? e - from : DROP_BLOCK;
            drop_mask(key, n->dropout, mask, from, m);
            for (size_t c = 0; c < m; c++)
                y[r * e + from + c] = mask[c] * x[r * e + from + c];
        }
    }
}
