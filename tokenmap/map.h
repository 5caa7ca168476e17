/* The token map inside the library: entries, the shift (gather) and its transpose (scatter). */
#ifndef CMC_TOKENMAP_MAP_H
#define CMC_TOKENMAP_MAP_H
#include "tokenmap/vocab.h"

struct cmc_map {
    int32_t n_host, n_delta;
    int32_t *to;          /* [n_host] delta id, or -1 */
    uint8_t *how;         /* [n_host] cmc_map_how */
    int32_t *distance;    /* [n_host] */
    bool identity;
    bool complete;        /* every host token is mapped */
    double seconds;
};

/* Arithmetic of contract 4, plainly written (shift.c) and fast (shift_fast.c) with the same results up to rounding.
 * Adds the deltas' mapped, centred shifts to logits[n_host] in place.
 *   n: deltas; maps[k], alpha[k] (never 0), delta_logits[k][n_delta_k]
 *   raw: C_k = C = 0
 *   work: [2 * n_host] floats of scratch */
typedef struct shift_in { const cmc_map *map; float alpha; const float *logits; } shift_in;
void shift_apply_plain(float *logits, int32_t n_host, const shift_in *in, size_t n, bool raw, float *work);
void shift_apply(float *logits, int32_t n_host, const shift_in *in, size_t n, bool raw, float *work);
/* Gradient of the steered cross-entropy for one target with one delta: ddelta[n_delta] += as in methods.md, given the
 * host's logits h[n_host] and the steered ones. */
void shift_transpose(const cmc_map *m, float alpha, bool raw, const float *host_logits, const float *steered_logits,
                     int32_t target, float *ddelta);
#endif
