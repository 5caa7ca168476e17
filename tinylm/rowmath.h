/* Exponentials and reductions over rows of floats, with vector code where the machine has it. NaN stays NaN. */
#ifndef CMC_TINYLM_ROWMATH_H
#define CMC_TINYLM_ROWMATH_H
#include <stddef.h>

float row_max(const float *x, size_t n);
/* x[i] = exp(x[i] - max); returns their sum (in double, over short float runs). */
double row_exp_sum(float *x, size_t n, float max);
void row_scale(float *x, size_t n, float s);
/* max and sum of exp(. - max) over h[i] + a * d[i], with nothing stored. */
float row_mix_max(const float *h, const float *d, float a, size_t n);
double row_mix_exp_sum(const float *h, const float *d, float a, float max, size_t n);
double row_sum_squares(const float *x, size_t n);
/* act[i] = silu(gate[i]) * up[i]. */
void row_swiglu(const float *gate, const float *up, float *act, size_t n);
/* In place: gate, up become their gradients, given the gradient of act. */
void row_swiglu_grad(float *gate, float *up, const float *dact, size_t n);
/* The same two with GELU in its tanh form. */
void row_geglu(const float *gate, const float *up, float *act, size_t n);
void row_geglu_grad(float *gate, float *up, const float *dact, size_t n);
#endif
