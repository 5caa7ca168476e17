/* The same kernels in AVX2 with FMA: equal to the plain ones up to rounding. */
#include "runtime/vec.h"

#if defined(__x86_64__) && defined(__GNUC__)
#include <immintrin.h>
#include <math.h>

#include "base/exp_avx2.h"

#define VEC_AVX2 __attribute__((target("avx2,fma,f16c")))
#define VEC_INLINE VEC_AVX2 static inline __attribute__((always_inline))

VEC_AVX2 static inline float hsum(__m256 v) {
    __m128 s = _mm_add_ps(_mm256_castps256_ps128(v), _mm256_extractf128_ps(v, 1));
    s = _mm_add_ps(s, _mm_movehl_ps(s, s));
    return _mm_cvtss_f32(_mm_add_ss(s, _mm_movehdup_ps(s)));
}

VEC_AVX2 static inline __m256 exp8(__m256 x) {
    return cmc_exp8(x, 88.0f);
}

VEC_AVX2 static float avx2_rms_scale(const float *x, size_t n, float eps) {
    __m256 s0 = _mm256_setzero_ps(), s1 = s0;
    size_t i = 0;
    for (; i + 16 <= n; i += 16) {
        const __m256 a = _mm256_loadu_ps(x + i), b = _mm256_loadu_ps(x + i + 8);
        s0 = _mm256_fmadd_ps(a, a, s0);
        s1 = _mm256_fmadd_ps(b, b, s1);
    }
    float sum = hsum(_mm256_add_ps(s0, s1));
    for (; i < n; i++)
        sum += x[i] * x[i];
    return 1.0f / sqrtf(sum / (float)n + eps);
}

VEC_AVX2 static void avx2_rms_norm(float *y, const float *x, const float *w, size_t n, float eps) {
    const float scale = avx2_rms_scale(x, n, eps);
    const __m256 vs = _mm256_set1_ps(scale);
    size_t i = 0;
    for (; i + 8 <= n; i += 8)
        _mm256_storeu_ps(y + i, _mm256_mul_ps(_mm256_mul_ps(_mm256_loadu_ps(x + i), vs), _mm256_loadu_ps(w + i)));
    for (; i < n; i++)
        y[i] = x[i] * scale * w[i];
}

VEC_AVX2 static void avx2_add(float *x, const float *y, size_t n) {
    size_t i = 0;
    for (; i + 8 <= n; i += 8)
        _mm256_storeu_ps(x + i, _mm256_add_ps(_mm256_loadu_ps(x + i), _mm256_loadu_ps(y + i)));
    for (; i < n; i++)
        x[i] += y[i];
}

/* g * u / (1 + e^-z): silu for z = g, gelu's tanh form for z = 2 sqrt(2/pi) (g + 0.044715 g^3) */
VEC_AVX2 static inline __m256 gated(__m256 g, __m256 z, __m256 u) {
    const __m256 d = _mm256_add_ps(_mm256_set1_ps(1.0f), exp8(_mm256_sub_ps(_mm256_setzero_ps(), z)));
    return _mm256_mul_ps(_mm256_div_ps(g, d), u);
}

VEC_AVX2 static void avx2_silu_mul(float *gate, const float *up, size_t n) {
    size_t i = 0;
    for (; i + 8 <= n; i += 8) {
        const __m256 g = _mm256_loadu_ps(gate + i);
        _mm256_storeu_ps(gate + i, gated(g, g, _mm256_loadu_ps(up + i)));
    }
    if (i < n)
        vec_plain.silu_mul(gate + i, up + i, n - i);
}

VEC_AVX2 static void avx2_gelu_mul(float *gate, const float *up, size_t n) {
    const __m256 c1 = _mm256_set1_ps(2.0f * 0.7978845608028654f);
    const __m256 c3 = _mm256_set1_ps(2.0f * 0.7978845608028654f * 0.044715f);
    size_t i = 0;
    for (; i + 8 <= n; i += 8) {
        const __m256 g = _mm256_loadu_ps(gate + i);
        const __m256 z = _mm256_mul_ps(g, _mm256_fmadd_ps(_mm256_mul_ps(g, g), c3, c1));
        _mm256_storeu_ps(gate + i, gated(g, z, _mm256_loadu_ps(up + i)));
    }
    if (i < n)
        vec_plain.gelu_mul(gate + i, up + i, n - i);
}

VEC_AVX2 static float avx2_max(const float *x, size_t n) {
    if (n < 8)
        return vec_plain.max(x, n);
    __m256 m = _mm256_loadu_ps(x);
    size_t i = 8;
    for (; i + 8 <= n; i += 8)
        m = _mm256_max_ps(m, _mm256_loadu_ps(x + i));
    m = _mm256_max_ps(m, _mm256_loadu_ps(x + n - 8));
    __m128 h = _mm_max_ps(_mm256_castps256_ps128(m), _mm256_extractf128_ps(m, 1));
    h = _mm_max_ps(h, _mm_movehl_ps(h, h));
    return _mm_cvtss_f32(_mm_max_ss(h, _mm_movehdup_ps(h)));
}

/* Few are above: most groups of 8 need no more than being looked at. */
VEC_AVX2 static size_t avx2_above(uint32_t *at, const float *x, size_t n, float bound, uint32_t first) {
    const __m256 b = _mm256_set1_ps(bound);
    size_t i = 0, found = 0;
    for (; i + 8 <= n; i += 8) {
        unsigned mask = (unsigned)_mm256_movemask_ps(_mm256_cmp_ps(_mm256_loadu_ps(x + i), b, _CMP_GT_OQ));
        for (; mask; mask &= mask - 1)
            at[found++] = first + (uint32_t)i + (uint32_t)__builtin_ctz(mask);
    }
    return found + vec_plain.above(at + found, x + i, n - i, bound, first + (uint32_t)i);
}

VEC_AVX2 static void avx2_depths(uint32_t *bins, const float *x, size_t n, float top, float per) {
    const __m256 t = _mm256_set1_ps(top), p = _mm256_set1_ps(per);
    const __m256i beyond = _mm256_set1_epi32(VEC_BINS);
    size_t i = 0;
    for (; i + 8 <= n; i += 8) {
        _Alignas(32) uint32_t bin[8];
        const __m256 depth = _mm256_mul_ps(_mm256_sub_ps(t, _mm256_loadu_ps(x + i)), p);
        /* operand order: NaN stays; it and what does not fit become the least integer, which is a great one without its sign */
        const __m256i b = _mm256_cvttps_epi32(_mm256_max_ps(_mm256_setzero_ps(), depth));
        _mm256_store_si256((__m256i *)(void *)bin, _mm256_min_epu32(b, beyond));
        for (size_t k = 0; k < 8; k++)
            bins[bin[k]]++;
    }
    vec_plain.depths(bins, x + i, n - i, top, per);
}

VEC_AVX2 static float avx2_exp_sum(float *x, size_t n, float shift) {
    const __m256 vs = _mm256_set1_ps(shift);
    __m256 sum = _mm256_setzero_ps();
    size_t i = 0;
    for (; i + 8 <= n; i += 8) {
        const __m256 e = exp8(_mm256_sub_ps(_mm256_loadu_ps(x + i), vs));
        _mm256_storeu_ps(x + i, e);
        sum = _mm256_add_ps(sum, e);
    }
    float s = hsum(sum);
    if (i < n)
        s += vec_plain.exp_sum(x + i, n - i, shift);
    return s;
}

VEC_AVX2 static void avx2_scale(float *x, float by, size_t n) {
    const __m256 v = _mm256_set1_ps(by);
    size_t i = 0;
    for (; i + 8 <= n; i += 8)
        _mm256_storeu_ps(x + i, _mm256_mul_ps(_mm256_loadu_ps(x + i), v));
    for (; i < n; i++)
        x[i] *= by;
}

/* A fixed number of rows, and every loop over them unrolled: else the accumulators would live in memory. */
#if defined(__clang__)
#define PANEL_UNROLL _Pragma("unroll")
#else
#define PANEL_UNROLL _Pragma("GCC unroll 6")
#endif
/* What a panel is made of. */
typedef enum panel_elem { PANEL_FLOAT, PANEL_HALF, PANEL_INT8 } panel_elem;

/* Elements [at, at + 8) of a panel. */
VEC_INLINE __m256 panel_load(const panel_elem e, const void *b, size_t at) {
    switch (e) {
    case PANEL_HALF: return _mm256_cvtph_ps(_mm_loadu_si128((const __m128i *)(const void *)((const uint16_t *)b + at)));
    case PANEL_INT8: return _mm256_cvtepi32_ps(_mm256_cvtepi8_epi32(_mm_loadl_epi64((const __m128i *)(const void *)((const int8_t *)b + at))));
    default: return _mm256_loadu_ps((const float *)b + at);
    }
}

/* A row's sums, scaled where there are scales, into c. */
VEC_INLINE void panel_put(float *c, __m256 s, const float *scale, bool add) {
    const __m256 was = add ? _mm256_loadu_ps(c) : _mm256_setzero_ps();
    _mm256_storeu_ps(c, scale ? _mm256_fmadd_ps(s, _mm256_loadu_ps(scale), was) : _mm256_add_ps(s, was));
}

VEC_INLINE void panel_rows(const int n, const panel_elem e, float *c, size_t ldc, const float *a, size_t lda, const void *b,
                           const float *scale, size_t k, bool add) {
    __m256 s[VEC_TILE_ROWS][2];
    PANEL_UNROLL
    for (int r = 0; r < n; r++) {
        s[r][0] = add && !scale ? _mm256_loadu_ps(c + (size_t)r * ldc) : _mm256_setzero_ps();
        s[r][1] = add && !scale ? _mm256_loadu_ps(c + (size_t)r * ldc + 8) : _mm256_setzero_ps();
    }
    for (size_t i = 0; i < k; i++) {
        const __m256 b0 = panel_load(e, b, i * VEC_PANEL), b1 = panel_load(e, b, i * VEC_PANEL + 8);
        PANEL_UNROLL
        for (int r = 0; r < n; r++) {
            const __m256 x = _mm256_broadcast_ss(a + (size_t)r * lda + i);
            s[r][0] = _mm256_fmadd_ps(x, b0, s[r][0]);
            s[r][1] = _mm256_fmadd_ps(x, b1, s[r][1]);
        }
    }
    PANEL_UNROLL
    for (int r = 0; r < n; r++) {
        panel_put(c + (size_t)r * ldc, s[r][0], scale, add && scale);
        panel_put(c + (size_t)r * ldc + 8, s[r][1], scale ? scale + 8 : NULL, add && scale);
    }
}

/* One row alone would wait for each FMA: four values of k at a time, each with its own accumulators. */
VEC_INLINE void panel_1(const panel_elem e, float *c, const float *a, const void *b, const float *scale, size_t k, bool add) {
    __m256 s[4][2];
    PANEL_UNROLL
    for (int u = 0; u < 4; u++)
        s[u][0] = s[u][1] = _mm256_setzero_ps();
    size_t i = 0;
    for (; i + 4 <= k; i += 4) {
        PANEL_UNROLL
        for (size_t u = 0; u < 4; u++) {
            const __m256 x = _mm256_broadcast_ss(a + i + u);
            s[u][0] = _mm256_fmadd_ps(x, panel_load(e, b, (i + u) * VEC_PANEL), s[u][0]);
            s[u][1] = _mm256_fmadd_ps(x, panel_load(e, b, (i + u) * VEC_PANEL + 8), s[u][1]);
        }
    }
    for (; i < k; i++) {
        const __m256 x = _mm256_broadcast_ss(a + i);
        s[0][0] = _mm256_fmadd_ps(x, panel_load(e, b, i * VEC_PANEL), s[0][0]);
        s[0][1] = _mm256_fmadd_ps(x, panel_load(e, b, i * VEC_PANEL + 8), s[0][1]);
    }
    PANEL_UNROLL
    for (int h = 0; h < 2; h++) {
        const __m256 v = _mm256_add_ps(_mm256_add_ps(s[0][h], s[1][h]), _mm256_add_ps(s[2][h], s[3][h]));
        panel_put(c + h * 8, v, scale ? scale + h * 8 : NULL, add);
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

VEC_AVX2 static void avx2_panel(float *c, size_t ldc, const float *a, size_t lda, const float *b, size_t rows, size_t k, bool add) {
    panel_any(PANEL_FLOAT, c, ldc, a, lda, b, NULL, rows, k, add);
}

VEC_AVX2 static void avx2_panel_half(float *c, size_t ldc, const float *a, size_t lda, const uint16_t *b, size_t rows, size_t k,
                                     bool add) {
    panel_any(PANEL_HALF, c, ldc, a, lda, b, NULL, rows, k, add);
}

VEC_AVX2 static void avx2_panel_int8(float *c, size_t ldc, const float *a, size_t lda, const int8_t *b, const float *scale, size_t rows,
                                     size_t k, bool add) {
    if (scale)
        panel_any(PANEL_INT8, c, ldc, a, lda, b, scale, rows, k, add);
    else
        panel_any(PANEL_INT8, c, ldc, a, lda, b, NULL, rows, k, add);
}

VEC_AVX2 static void avx2_mul(float *y, const float *x, const float *by, size_t n) {
    size_t i = 0;
    for (; i + 8 <= n; i += 8)
        _mm256_storeu_ps(y + i, _mm256_mul_ps(_mm256_loadu_ps(x + i), _mm256_loadu_ps(by + i)));
    for (; i < n; i++)
        y[i] = x[i] * by[i];
}

VEC_AVX2 static void avx2_to_half(uint16_t *y, const float *x, size_t n) {
    const __m256 most = _mm256_set1_ps(65504.0f), least = _mm256_set1_ps(-65504.0f);
    size_t i = 0;
    for (; i + 8 <= n; i += 8) {   /* the limits first: min and max give their second operand where one is NaN */
        const __m256 v = _mm256_max_ps(least, _mm256_min_ps(most, _mm256_loadu_ps(x + i)));
        _mm_storeu_si128((__m128i *)(void *)(y + i), _mm256_cvtps_ph(v, _MM_FROUND_TO_NEAREST_INT));
    }
    if (i < n)
        vec_plain.to_half(y + i, x + i, n - i);
}

const vec_ops *vec_avx2(void) {
    static const vec_ops ops = {
        .rms_scale = avx2_rms_scale,
        .rms_norm = avx2_rms_norm,
        .add = avx2_add,
        .silu_mul = avx2_silu_mul,
        .gelu_mul = avx2_gelu_mul,
        .max = avx2_max,
        .above = avx2_above,
        .depths = avx2_depths,
        .exp_sum = avx2_exp_sum,
        .scale = avx2_scale,
        .panel = avx2_panel,
        .panel_half = avx2_panel_half,
        .panel_int8 = avx2_panel_int8,
        .mul = avx2_mul,
        .to_half = avx2_to_half,
    };
    return __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") ? &ops : NULL;
}
#else
const vec_ops *vec_avx2(void) {
    return NULL;
}
#endif
