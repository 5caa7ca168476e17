/* The plain kernels: the definition of each operation, in one fixed order of summation. */
#include "runtime/vec.h"

#include <math.h>

#include "runtime/quant.h"

#define HALF_MAX 65504.0f

static float vec_plain_rms_scale(const float *x, size_t n, float eps) {
    double sum = 0.0;
    for (size_t i = 0; i < n; i++)
        sum += (double)x[i] * (double)x[i];
    return (float)(1.0 / sqrt(sum / (double)n + (double)eps));
}

static void vec_plain_rms_norm(float *y, const float *x, const float *w, size_t n, float eps) {
    const float scale = vec_plain_rms_scale(x, n, eps);
    for (size_t i = 0; i < n; i++)
        y[i] = x[i] * scale * w[i];
}

static void vec_plain_add(float *x, const float *y, size_t n) {
    for (size_t i = 0; i < n; i++)
        x[i] += y[i];
}

static void vec_plain_silu_mul(float *gate, const float *up, size_t n) {
    for (size_t i = 0; i < n; i++)
        gate[i] = gate[i] / (1.0f + expf(-gate[i])) * up[i];
}

static void vec_plain_gelu_mul(float *gate, const float *up, size_t n) {
    const float c = 0.7978845608028654f; /* sqrt(2 / pi) */
    for (size_t i = 0; i < n; i++) {
        const float x = gate[i];
        gate[i] = 0.5f * x * (1.0f + tanhf(c * (x + 0.044715f * x * x * x))) * up[i];
    }
}

static float vec_plain_max(const float *x, size_t n) {
    float m = x[0];
    for (size_t i = 1; i < n; i++)
        m = x[i] > m ? x[i] : m;
    return m;
}

static size_t vec_plain_above(uint32_t *at, const float *x, size_t n, float bound, uint32_t first) {
    size_t found = 0;
    for (size_t i = 0; i < n; i++) {
        at[found] = first + (uint32_t)i;    /* which are above follows no pattern: no branch on it */
        found += x[i] > bound;
    }
    return found;
}

static void vec_plain_depths(uint32_t *bins, const float *x, size_t n, float top, float per) {
    for (size_t i = 0; i < n; i++) {
        const float depth = (top - x[i]) * per;
        bins[depth < (float)VEC_BINS ? depth > 0 ? (int)depth : 0 : VEC_BINS]++;
    }
}

static float vec_plain_exp_sum(float *x, size_t n, float shift) {
    float sum = 0.0f;
    for (size_t i = 0; i < n; i++) {
        x[i] = expf(x[i] - shift);
        sum += x[i];
    }
    return sum;
}

static void vec_plain_scale(float *x, float by, size_t n) {
    for (size_t i = 0; i < n; i++)
        x[i] *= by;
}

static void vec_plain_panel(float *c, size_t ldc, const float *a, size_t lda, const float *b, size_t rows, size_t k,
                            bool add) {
    for (size_t r = 0; r < rows; r++) {
        float acc[VEC_PANEL];
        float *out = c + r * ldc;
        for (size_t j = 0; j < VEC_PANEL; j++)
            acc[j] = add ? out[j] : 0.0f;
        for (size_t i = 0; i < k; i++) {
            const float x = a[r * lda + i];
            const float *row = b + i * VEC_PANEL;
            for (size_t j = 0; j < VEC_PANEL; j++)
                acc[j] += x * row[j];
        }
        for (size_t j = 0; j < VEC_PANEL; j++)
            out[j] = acc[j];
    }
}

static void vec_plain_panel_half(float *c, size_t ldc, const float *a, size_t lda, const uint16_t *b, size_t rows, size_t k,
                                 bool add) {
    for (size_t i = 0; i < k; i++) {
        float row[VEC_PANEL];
        for (size_t j = 0; j < VEC_PANEL; j++)
            row[j] = quant_f16_to_f32(b[i * VEC_PANEL + j]);
        for (size_t r = 0; r < rows; r++)
            vec_plain_panel(c + r * ldc, ldc, a + r * lda + i, lda, row, 1, 1, add || i > 0);
    }
    for (size_t r = 0; r < rows && k == 0 && !add; r++)
        vec_plain_panel(c + r * ldc, ldc, a, lda, NULL, 1, 0, false);
}

static void vec_plain_panel_int8(float *c, size_t ldc, const float *a, size_t lda, const int8_t *b, const float *scale, size_t rows,
                                 size_t k, bool add) {
    for (size_t r = 0; r < rows; r++)
        for (size_t j = 0; j < VEC_PANEL; j++) {
            float sum = 0.0f;
            for (size_t i = 0; i < k; i++)
                sum += a[r * lda + i] * (float)b[i * VEC_PANEL + j];
            c[r * ldc + j] = sum * (scale ? scale[j] : 1.0f) + (add ? c[r * ldc + j] : 0.0f);
        }
}

static void vec_plain_mul(float *y, const float *x, const float *by, size_t n) {
    for (size_t i = 0; i < n; i++)
        y[i] = x[i] * by[i];
}

static void vec_plain_to_half(uint16_t *y, const float *x, size_t n) {
    for (size_t i = 0; i < n; i++)
        y[i] = quant_f32_to_f16(x[i] > HALF_MAX ? HALF_MAX : x[i] < -HALF_MAX ? -HALF_MAX : x[i]);
}

const vec_ops vec_plain = {
    .rms_scale = vec_plain_rms_scale,
    .rms_norm = vec_plain_rms_norm,
    .add = vec_plain_add,
    .silu_mul = vec_plain_silu_mul,
    .gelu_mul = vec_plain_gelu_mul,
    .max = vec_plain_max,
    .above = vec_plain_above,
    .depths = vec_plain_depths,
    .exp_sum = vec_plain_exp_sum,
    .scale = vec_plain_scale,
    .panel = vec_plain_panel,
    .panel_half = vec_plain_panel_half,
    .panel_int8 = vec_plain_panel_int8,
    .mul = vec_plain_mul,
    .to_half = vec_plain_to_half,
};

const vec_ops *vec_fast(void) {
    const vec_ops *v = vec_avx2();
    v = v ? v : vec_neon();
    return v ? v : &vec_plain;
}
