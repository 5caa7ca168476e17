/* Rotary position embeddings: angles of a position, and the rotation of a head. */
#ifndef CMC_RUNTIME_ROPE_H
#define CMC_RUNTIME_ROPE_H
#include "runtime/model.h"

/* Angles of one position, [n_rot/2]: inv[i] = scale / (base^(2i/n_rot) * factors[i]); factors NULL: 1. */
void rope_frequencies(float *inv, int32_t n_rot, float base, float scale, const float *factors);
/* cos and sin, [n_rot/2] each, of a position. */
void rope_angles(const float *inv, size_t n_half, size_t pos, float *cos_out, float *sin_out);
/* Rotates the first 2 * n_half dimensions of a head: pairs (i, i + n_half) where halves, else (2i, 2i + 1). */
void rope_rotate(float *x, size_t n_half, bool halves, const float *cos_in, const float *sin_in);
#endif
