/* Exponentials and reductions over rows of floats, with vector code where the machine has it. NaN stays NaN. */
#ifndef CMC_TINYLM_ROWMATH_H
#define CMC_TINYLM_ROWMATH_H
#include <stdbool.h>
#include <stddef.h>

float row_max(const float *x, size_t n);
/* x[i] = exp(x[i] - max); returns their sum (in double, over short float runs). */
double row_exp_sum(float *x, size_t n, float max);
void row_scale(float *x, size_t n, float s);
/* max and sum of exp(. - max) over h[i] + a * d[i], with nothing stored. */
float row_mix_max(const float *h, const float *d, float a, size_t n);
double row_mix_exp_sum(const float *h, const float *d, float a, float max, size_t n);
double row_sum_squares(const float *x, size_t n);
/* out = x / rms(x) * gain, n wide; returns 1 / rms. */
float row_norm(const float *x, const float *gain, float *out, size_t n, float eps);
/* dx = (dx +) the gradient of x -> gain * x / rms(x), given that of its output; r is 1 / rms(x). */
void row_norm_grad(const float *dy, const float *x, float r, const float *gain, float *dx, size_t n, bool add);
/* The gain's: dgain[c] += sum over rows of dy * x * r, c in [lo, hi). Row i of dy goes with x's row row_of[i]; NULL:
 * with row i. */
void row_gain_grad(const float *dy, const float *x, const float *r, const size_t *row_of, size_t rows, size_t n,
                   size_t lo, size_t hi, float *dgain);
/* act[i] = silu(gate[i]) * up[i]. */
void row_swiglu(const float *gate, const float *up, float *act, size_t n);
/* In place: gate, up become their gradients, given the gradient of act. */
void row_swiglu_grad(float *gate, float *up, const float *dact, size_t n);
/* The same two with GELU in its tanh form. */
void row_geglu(const float *gate, const float *up, float *act, size_t n);
void row_geglu_grad(float *gate, float *up, const float *dact, size_t n);
#endif
