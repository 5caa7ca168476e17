/* Weights of a row of logits: the softmax that sampling needs, the same bits on every machine. */
#ifndef CMC_RUNTIME_SAMPLER_WEIGH_H
#define CMC_RUNTIME_SAMPLER_WEIGH_H
#include <stddef.h>

/* A block's weights are summed in eight interleaved parts, the parts as ((0+4)+(1+5)) + ((2+6)+(3+7)), the blocks' sums one
 * after the other: an order that vector code can keep to. */
enum { WEIGH_BLOCK = 512 };

/* How far below the greatest, as a weight that the greatest has as 1. Right for a greatest of +inf too; 0 for NaN. */
double weigh(float logit, float top, double inverse_temperature);
/* weights[n] of logits[n]; sums[ceil(n / WEIGH_BLOCK)] of each block. Gives the sum of all. The plain version defines the
 * result, the others have the same bits faster. */
typedef double weigh_row_fn(const float *logits, size_t n, float top, double inverse_temperature, double *weights, double *sums);
weigh_row_fn weigh_row_plain, weigh_row;
/* The versions that this machine can run, the fastest first; NULL past the plain one. */
weigh_row_fn *weigh_row_version(size_t i);
#endif
