/* Elementwise and small dense kernels of the forward pass, one table of functions for each way of doing arithmetic. */
#ifndef CMC_RUNTIME_VEC_H
#define CMC_RUNTIME_VEC_H
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define VEC_PANEL 16      /* columns of a panel: 16 floats, one cache line */
#define VEC_TILE_ROWS 6   /* rows of A that vec_ops.panel takes at most: 12 accumulators, 2 of B, 1 of A on AVX2 */

#define VEC_BINS 256      /* of vec_ops.depths */

typedef struct vec_ops {
    /* 1 / sqrt(mean(x^2) + eps), and y = x times it times w; y may be x */
    float (*rms_scale)(const float *x, size_t n, float eps);
    void (*rms_norm)(float *y, const float *x, const float *w, size_t n, float eps);
    /* x += y */
    void (*add)(float *x, const float *y, size_t n);
    /* gate = silu(gate) * up, gate = gelu(gate) * up (the tanh form) */
    void (*silu_mul)(float *gate, const float *up, size_t n);
    void (*gelu_mul)(float *gate, const float *up, size_t n);
    float (*max)(const float *x, size_t n);                    /* n > 0 */
    /* at[] = first + i for each x[i] > bound, in order; how many. at: room for n */
    size_t (*above)(uint32_t *at, const float *x, size_t n, float bound, uint32_t first);
    /* bins[b]++ for each x[i] whose depth below top, (top - x[i]) * per, is in [b, b + 1); b = 0 also above top, b = VEC_BINS all that
     * is deeper, and NaN */
    void (*depths)(uint32_t *bins, const float *x, size_t n, float top, float per);
    /* x[i] = exp(x[i] - shift); their sum */
    float (*exp_sum)(float *x, size_t n, float shift);
    void (*scale)(float *x, float by, size_t n);
    /* C[r][0..16) = sum_k A[r][k] B[k][0..16) (added to C where `add`), r < rows <= VEC_TILE_ROWS, B contiguous */
    void (*panel)(float *c, size_t ldc, const float *a, size_t lda, const float *b, size_t rows, size_t k, bool add);
    /* The same with float16 B. */
    void (*panel_half)(float *c, size_t ldc, const float *a, size_t lda, const uint16_t *b, size_t rows, size_t k, bool add);
    /* The same with int8 B, and each of the 16 columns' sums times its scale before they are added; scale NULL: 1. */
    void (*panel_int8)(float *c, size_t ldc, const float *a, size_t lda, const int8_t *b, const float *scale, size_t rows, size_t k,
                       bool add);
    /* y[i] = x[i] * by[i] */
    void (*mul)(float *y, const float *x, const float *by, size_t n);
    /* y = x as float16, to nearest; what is too large becomes the largest finite one */
    void (*to_half)(uint16_t *y, const float *x, size_t n);
} vec_ops;

/* Plain loops, each sum in one order that depends on n alone: the exact mode, and machines without vector code. */
extern const vec_ops vec_plain;
/* The fastest that this machine has (vec_plain where there is no other). */
const vec_ops *vec_fast(void);
/* AVX2 and FMA; NEON. NULL where not compiled in or not available. */
const vec_ops *vec_avx2(void);
const vec_ops *vec_neon(void);
#endif
