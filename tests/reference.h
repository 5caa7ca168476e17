/* An independent forward pass of the four families, in double precision and without any cache: what the real one is held
 * against. Slow and simple; shares nothing with runtime/ but the decoding of a row. */
#ifndef CMC_TESTS_REFERENCE_H
#define CMC_TESTS_REFERENCE_H
#include <stddef.h>
#include <stdint.h>

/* logits[n][n_vocab] of ids[0..n) under the (unsplit) model at `path`; NULL where something is wrong. free() frees it. */
double *reference_logits(const char *path, const int32_t *ids, size_t n, size_t *n_vocab);
/* The same with that strength of the model's expanded blocks; without them it means nothing. */
double *reference_logits_at(const char *path, double strength, const int32_t *ids, size_t n, size_t *n_vocab);
#endif
