/* Dropout on the branches of the residual stream (arXiv 1207.0580; scaled while training). */
#include "tinylm/net.h"

static uint64_t drop_mix(uint64_t z) {
    z += 0x9E3779B97F4A7C15u;
    z = (z ^ (z >> 30)) * 0xBF58476D1CE4E5B9u;
    z = (z ^ (z >> 27)) * 0x94D049BB133111EBu;
    return z ^ (z >> 31);
}

/* mask[e] of a row: 0 or 1 / (1 - p); sixteen random bits decide one element. */
static void drop_row(const net *n, size_t branch, size_t row, float *mask, size_t from, size_t e) {
    uint64_t key = drop_mix(n->drop_key ^ drop_mix((uint64_t)branch << 32 | (uint64_t)row));
    uint32_t bound = (uint32_t)(n->dropout * 65536.0f);
    float kept = 1.0f / (1.0f - (float)bound / 65536.0f);
    uint64_t bits = 0;
    for (size_t c = 0; c < e; c++) {
        if (c % 4 == 0)
            bits = drop_mix(key + (from + c) / 4);
        mask[c] = (bits >> (c % 4 * 16) & 0xffffu) < bound ? 0.0f : kept;
    }
}

enum { DROP_BLOCK = 256 };

void net_drop_add(const net *n, size_t branch, const float *x, float *y, size_t lo, size_t hi) {
    size_t e = (size_t)n->p->s.n_embd;
    float mask[DROP_BLOCK];
    for (size_t r = lo; r < hi; r++) {
        for (size_t from = 0; from < e; from += DROP_BLOCK) {
            size_t m = e - from < DROP_BLOCK ? e - from : DROP_BLOCK;
            drop_row(n, branch, r, mask, from, m);
            for (size_t c = 0; c < m; c++)
                y[r * e + from + c] += mask[c] * x[r * e + from + c];
        }
    }
}

void net_drop_mul(const net *n, size_t branch, const float *x, float *y, size_t lo, size_t hi) {
    size_t e = (size_t)n->p->s.n_embd;
    float mask[DROP_BLOCK];
    for (size_t r = lo; r < hi; r++) {
        for (size_t from = 0; from < e; from += DROP_BLOCK) {
            size_t m = e - from < DROP_BLOCK ? e - from : DROP_BLOCK;
            drop_row(n, branch, r, mask, from, m);
            for (size_t c = 0; c < m; c++)
                y[r * e + from + c] = mask[c] * x[r * e + from + c];
        }
    }
}
