/* The same kernels in NEON: equal to the plain ones up to rounding. */
#include "runtime/vec.h"

#if defined(__aarch64__)
#include <arm_neon.h>
#include <string.h>
#include <math.h>

#include "base/exp_neon.h"

#define VEC_INLINE static inline __attribute__((always_inline))

static float neon_rms_scale(const float *x, size_t n, float eps) {
    float32x4_t s0 = vdupq_n_f32(0), s1 = s0;
    size_t i = 0;
    for (; i + 8 <= n; i += 8) {
        const float32x4_t a = vld1q_f32(x + i), b = vld1q_f32(x + i + 4);
        s0 = vfmaq_f32(s0, a, a);
        s1 = vfmaq_f32(s1, b, b);
    }
    float sum = vaddvq_f32(s0 + s1);
    for (; i < n; i++)
        sum += x[i] * x[i];
    return 1.0f / sqrtf(sum / (float)n + eps);
}

static void neon_rms_norm(float *y, const float *x, const float *w, size_t n, float eps) {
    const float scale = neon_rms_scale(x, n, eps);
    size_t i = 0;
    for (; i + 4 <= n; i += 4)
        vst1q_f32(y + i, vld1q_f32(x + i) * vdupq_n_f32(scale) * vld1q_f32(w + i));
    for (; i < n; i++)
        y[i] = x[i] * scale * w[i];
}

static void neon_add(float *x, const float *y, size_t n) {
    size_t i = 0;
    for (; i + 4 <= n; i += 4)
        vst1q_f32(x + i, vld1q_f32(x + i) + vld1q_f32(y + i));
    for (; i < n; i++)
        x[i] += y[i];
}

/* g * u / (1 + e^-z): silu for z = g, gelu's tanh form for z = 2 sqrt(2/pi) (g + 0.044715 g^3) */
VEC_INLINE float32x4_t gated(float32x4_t g, float32x4_t z, float32x4_t u) {
    return g / (vdupq_n_f32(1.0f) + cmc_exp4(-z, 88.0f)) * u;
}

static void neon_silu_mul(float *gate, const float *up, size_t n) {
    size_t i = 0;
    for (; i + 4 <= n; i += 4) {
        const float32x4_t g = vld1q_f32(gate + i);
        vst1q_f32(gate + i, gated(g, g, vld1q_f32(up + i)));
    }
    if (i < n)
        vec_plain.silu_mul(gate + i, up + i, n - i);
}

static void neon_gelu_mul(float *gate, const float *up, size_t n) {
    const float32x4_t c1 = vdupq_n_f32(2.0f * 0.7978845608028654f);
    const float32x4_t c3 = vdupq_n_f32(2.0f * 0.7978845608028654f * 0.044715f);
    size_t i = 0;
    for (; i + 4 <= n; i += 4) {
        const float32x4_t g = vld1q_f32(gate + i);
        vst1q_f32(gate + i, gated(g, g * vfmaq_f32(c1, g * g, c3), vld1q_f32(up + i)));
    }
    if (i < n)
        vec_plain.gelu_mul(gate + i, up + i, n - i);
}

static float neon_max(const float *x, size_t n) {
    if (n < 4)
        return vec_plain.max(x, n);
    float32x4_t m = vld1q_f32(x + n - 4);
    for (size_t i = 0; i + 4 <= n; i += 4)
        m = vmaxq_f32(m, vld1q_f32(x + i));
    return vmaxvq_f32(m);
}

/* Few are above: most groups of 4 need no more than being looked at. */
static size_t neon_above(uint32_t *at, const float *x, size_t n, float bound, uint32_t first) {
    size_t i = 0, found = 0;
    for (; i + 4 <= n; i += 4) {
        if (vmaxvq_u32(vcgtq_f32(vld1q_f32(x + i), vdupq_n_f32(bound))))
            found += vec_plain.above(at + found, x + i, 4, bound, first + (uint32_t)i);
    }
    return found + vec_plain.above(at + found, x + i, n - i, bound, first + (uint32_t)i);
}

static void neon_depths(uint32_t *bins, const float *x, size_t n, float top, float per) {
    vec_plain.depths(bins, x, n, top, per);
}

static float neon_exp_sum(float *x, size_t n, float shift) {
    float32x4_t sum = vdupq_n_f32(0);
    size_t i = 0;
    for (; i + 4 <= n; i += 4) {
        const float32x4_t e = cmc_exp4(vld1q_f32(x + i) - vdupq_n_f32(shift), 88.0f);
        vst1q_f32(x + i, e);
        sum += e;
    }
    float s = vaddvq_f32(sum);
    if (i < n)
        s += vec_plain.exp_sum(x + i, n - i, shift);
    return s;
}

static void neon_scale(float *x, float by, size_t n) {
    size_t i = 0;
    for (; i + 4 <= n; i += 4)
        vst1q_f32(x + i, vld1q_f32(x + i) * vdupq_n_f32(by));
    for (; i < n; i++)
        x[i] *= by;
}

/* A fixed number of rows, and every loop over them unrolled: else the accumulators would live in memory. */
#if defined(__clang__)
#define PANEL_UNROLL _Pragma("unroll")
#else
#define PANEL_UNROLL _Pragma("GCC unroll 6")
#endif
enum { QUADS = VEC_PANEL / 4 };   /* of a panel's row; 6 rows of sums and one of B are 28 of the 32 registers */

/* What a panel is made of. */
typedef enum panel_elem { PANEL_FLOAT, PANEL_HALF, PANEL_INT8 } panel_elem;

/* Elements [at, at + 4) of a panel. */
VEC_INLINE float32x4_t panel_load(const panel_elem e, const void *b, size_t at) {
    uint32_t four;
    switch (e) {
    case PANEL_HALF: return vcvt_f32_f16(vreinterpret_f16_u16(vld1_u16((const uint16_t *)b + at)));
    case PANEL_INT8:
        memcpy(&four, (const int8_t *)b + at, sizeof four);
        return vcvtq_f32_s32(vmovl_s16(vget_low_s16(vmovl_s8(vreinterpret_s8_u32(vdup_n_u32(four))))));
    default: return vld1q_f32((const float *)b + at);
    }
}

/* A row's sums, scaled where there are scales, into c. */
VEC_INLINE void panel_put(float *c, float32x4_t s, const float *scale, bool add) {
    s = scale ? s * vld1q_f32(scale) : s;
    vst1q_f32(c, add ? s + vld1q_f32(c) : s);
}

VEC_INLINE void panel_rows(const int n, const panel_elem e, float *c, size_t ldc, const float *a, size_t lda, const void *b,
                           const float *scale, size_t k, bool add) {
    float32x4_t s[VEC_TILE_ROWS][QUADS];
    PANEL_UNROLL
    for (int r = 0; r < n; r++) {
        PANEL_UNROLL
        for (int q = 0; q < QUADS; q++)
            s[r][q] = add && !scale ? vld1q_f32(c + (size_t)r * ldc + 4 * q) : vdupq_n_f32(0);
    }
    for (size_t i = 0; i < k; i++) {
        float32x4_t v[QUADS];
        PANEL_UNROLL
        for (int q = 0; q < QUADS; q++)
            v[q] = panel_load(e, b, i * VEC_PANEL + 4 * (size_t)q);
        PANEL_UNROLL
        for (int r = 0; r < n; r++) {
            const float x = a[(size_t)r * lda + i];
            PANEL_UNROLL
            for (int q = 0; q < QUADS; q++)
                s[r][q] = vfmaq_n_f32(s[r][q], v[q], x);
        }
    }
    PANEL_UNROLL
    for (int r = 0; r < n; r++) {
        PANEL_UNROLL
        for (int q = 0; q < QUADS; q++)
            panel_put(c + (size_t)r * ldc + 4 * q, s[r][q], scale ? scale + 4 * q : NULL, add && scale);
    }
}

/* One row alone would wait for each FMA: four values of k at a time, each with its own accumulators. */
VEC_INLINE void panel_1(const panel_elem e, float *c, const float *a, const void *b, const float *scale, size_t k, bool add) {
    float32x4_t s[4][QUADS];
    PANEL_UNROLL
    for (int u = 0; u < 4; u++)
        s[u][0] = s[u][1] = s[u][2] = s[u][3] = vdupq_n_f32(0);
    size_t i = 0;
    for (; i + 4 <= k; i += 4) {
        PANEL_UNROLL
        for (size_t u = 0; u < 4; u++) {
            PANEL_UNROLL
            for (size_t q = 0; q < QUADS; q++)
                s[u][q] = vfmaq_n_f32(s[u][q], panel_load(e, b, (i + u) * VEC_PANEL + 4 * q), a[i + u]);
        }
    }
    for (; i < k; i++) {
        PANEL_UNROLL
        for (size_t q = 0; q < QUADS; q++)
            s[0][q] = vfmaq_n_f32(s[0][q], panel_load(e, b, i * VEC_PANEL + 4 * q), a[i]);
    }
    PANEL_UNROLL
    for (int q = 0; q < QUADS; q++) {
        panel_put(c + 4 * q, (s[0][q] + s[1][q]) + (s[2][q] + s[3][q]), scale ? scale + 4 * q : NULL, add);
    }
}

VEC_INLINE void panel_any(const panel_elem e, float *c, size_t ldc, const float *a, size_t lda, const void *b, const float *scale,
                          size_t rows, size_t k, bool add) {
    switch (rows) {
    case 1: panel_1(e, c, a, b, scale, k, add); break;
    case 2: panel_rows(2, e, c, ldc, a, lda, b, scale, k, add); break;
    case 3: panel_rows(3, e, c, ldc, a, lda, b, scale, k, add); break;
    case 4: panel_rows(4, e, c, ldc, a, lda, b, scale, k, add); break;
    case 5: panel_rows(5, e, c, ldc, a, lda, b, scale, k, add); break;
    default: panel_rows(6, e, c, ldc, a, lda, b, scale, k, add); break;
    }
}

static void neon_panel(float *c, size_t ldc, const float *a, size_t lda, const float *b, size_t rows, size_t k, bool add) {
    panel_any(PANEL_FLOAT, c, ldc, a, lda, b, NULL, rows, k, add);
}

static void neon_panel_half(float *c, size_t ldc, const float *a, size_t lda, const uint16_t *b, size_t rows, size_t k, bool add) {
    panel_any(PANEL_HALF, c, ldc, a, lda, b, NULL, rows, k, add);
}

static void neon_panel_int8(float *c, size_t ldc, const float *a, size_t lda, const int8_t *b, const float *scale, size_t rows, size_t k,
                            bool add) {
    if (scale)
        panel_any(PANEL_INT8, c, ldc, a, lda, b, scale, rows, k, add);
    else
        panel_any(PANEL_INT8, c, ldc, a, lda, b, NULL, rows, k, add);
}

static void neon_mul(float *y, const float *x, const float *by, size_t n) {
    size_t i = 0;
    for (; i + 4 <= n; i += 4)
        vst1q_f32(y + i, vld1q_f32(x + i) * vld1q_f32(by + i));
    for (; i < n; i++)
        y[i] = x[i] * by[i];
}

static void neon_to_half(uint16_t *y, const float *x, size_t n) {
    const float32x4_t most = vdupq_n_f32(65504.0f), least = vdupq_n_f32(-65504.0f);
    size_t i = 0;
    for (; i + 4 <= n; i += 4) {   /* min and max give NaN where one operand is */
        const float32x4_t v = vmaxq_f32(least, vminq_f32(most, vld1q_f32(x + i)));
        vst1_u16(y + i, vreinterpret_u16_f16(vcvt_f16_f32(v)));
    }
    if (i < n)
        vec_plain.to_half(y + i, x + i, n - i);
}

const vec_ops *vec_neon(void) {
    static const vec_ops ops = {
        .rms_scale = neon_rms_scale,
        .rms_norm = neon_rms_norm,
        .add = neon_add,
        .silu_mul = neon_silu_mul,
        .gelu_mul = neon_gelu_mul,
        .max = neon_max,
        .above = neon_above,
        .depths = neon_depths,
        .exp_sum = neon_exp_sum,
        .scale = neon_scale,
        .panel = neon_panel,
        .panel_half = neon_panel_half,
        .panel_int8 = neon_panel_int8,
        .mul = neon_mul,
        .to_half = neon_to_half,
    };
    return &ops;
}
#else
const vec_ops *vec_neon(void) {
    return NULL;
}
#endif
