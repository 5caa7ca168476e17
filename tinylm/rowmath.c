/* Row primitives of training: portable C, and the same in AVX2 chosen at run time. */
#include "tinylm/rowmath.h"

#include <math.h>

/* Sums run in float over this many elements before they go into a double. */
enum { ROW_RUN = 512 };

#define ROW_GELU 0.7978845608028654f   /* sqrt(2 / pi), of the tanh form of GELU */

#if defined(__x86_64__) && defined(__GNUC__)
#define ROW_X86 1
#include <immintrin.h>

#include "base/exp_avx2.h"

#define ROW_AVX2 __attribute__((target("avx2,fma")))

static bool row_has_avx2(void) {
    return __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma");
}

ROW_AVX2 static inline __m256 row_exp8(__m256 x) {
    return cmc_exp8(x, 88.3f);
}

ROW_AVX2 static inline double row_hsum(__m256 v) {
    float l[8];
    _mm256_storeu_ps(l, v);
    return ((double)l[0] + (double)l[4]) + ((double)l[1] + (double)l[5]) + ((double)l[2] + (double)l[6]) +
           ((double)l[3] + (double)l[7]);
}

ROW_AVX2 static inline float row_hmax(__m256 v) {
    float l[8], m;
    _mm256_storeu_ps(l, v);
    m = l[0];
    for (int i = 1; i < 8; i++)
        m = l[i] > m ? l[i] : m;
    return m;
}

ROW_AVX2 static float row_max_avx2(const float *x, size_t n) {
    __m256 m = _mm256_set1_ps(-INFINITY);
    size_t i = 0;
    for (; i + 8 <= n; i += 8)
        m = _mm256_max_ps(m, _mm256_loadu_ps(x + i));
    float r = row_hmax(m);
    for (; i < n; i++)
        r = x[i] > r ? x[i] : r;
    return r;
}

ROW_AVX2 static double row_exp_sum_avx2(float *x, size_t n, float max) {
    __m256 m = _mm256_set1_ps(max);
    double total = 0.0;
    size_t i = 0;
    while (i + 8 <= n) {
        size_t end = i + ROW_RUN <= n ? i + ROW_RUN : i + (n - i) / 8 * 8;
        __m256 s = _mm256_setzero_ps();
        for (; i < end; i += 8) {
            __m256 e = row_exp8(_mm256_sub_ps(_mm256_loadu_ps(x + i), m));
            _mm256_storeu_ps(x + i, e);
            s = _mm256_add_ps(s, e);
        }
        total += row_hsum(s);
    }
    for (; i < n; i++) {
        x[i] = expf(x[i] - max);
        total += (double)x[i];
    }
    return total;
}

ROW_AVX2 static float row_mix_max_avx2(const float *h, const float *d, float a, size_t n) {
    __m256 m = _mm256_set1_ps(-INFINITY), va = _mm256_set1_ps(a);
    size_t i = 0;
    for (; i + 8 <= n; i += 8)
        m = _mm256_max_ps(m, _mm256_fmadd_ps(va, _mm256_loadu_ps(d + i), _mm256_loadu_ps(h + i)));
    float r = row_hmax(m);
    for (; i < n; i++) {
        float x = fmaf(a, d[i], h[i]);
        r = x > r ? x : r;
    }
    return r;
}

ROW_AVX2 static double row_mix_exp_sum_avx2(const float *h, const float *d, float a, float max, size_t n) {
    __m256 m = _mm256_set1_ps(max), va = _mm256_set1_ps(a);
    double total = 0.0;
    size_t i = 0;
    while (i + 8 <= n) {
        size_t end = i + ROW_RUN <= n ? i + ROW_RUN : i + (n - i) / 8 * 8;
        __m256 s = _mm256_setzero_ps();
        for (; i < end; i += 8) {
            __m256 x = _mm256_fmadd_ps(va, _mm256_loadu_ps(d + i), _mm256_loadu_ps(h + i));
            s = _mm256_add_ps(s, row_exp8(_mm256_sub_ps(x, m)));
        }
        total += row_hsum(s);
    }
    for (; i < n; i++)
        total += (double)expf(fmaf(a, d[i], h[i]) - max);
    return total;
}

ROW_AVX2 static double row_sum_squares_avx2(const float *x, size_t n) {
    double total = 0.0;
    size_t i = 0;
    while (i + 8 <= n) {
        size_t end = i + ROW_RUN <= n ? i + ROW_RUN : i + (n - i) / 8 * 8;
        __m256 s = _mm256_setzero_ps();
        for (; i < end; i += 8) {
            __m256 v = _mm256_loadu_ps(x + i);
            s = _mm256_fmadd_ps(v, v, s);
        }
        total += row_hsum(s);
    }
    for (; i < n; i++)
        total += (double)x[i] * (double)x[i];
    return total;
}

/* 1 / (1 + exp(-x)) */
ROW_AVX2 static inline __m256 row_sigmoid8(__m256 x) {
    __m256 one = _mm256_set1_ps(1.0f);
    return _mm256_div_ps(one, _mm256_add_ps(one, row_exp8(_mm256_sub_ps(_mm256_setzero_ps(), x))));
}

/* Both return how many elements they did, a multiple of 8. */
ROW_AVX2 static size_t row_swiglu_avx2(const float *gate, const float *up, float *act, size_t n) {
    size_t i = 0;
    for (; i + 8 <= n; i += 8) {
        __m256 g = _mm256_loadu_ps(gate + i);
        __m256 s = _mm256_mul_ps(g, row_sigmoid8(g));
        _mm256_storeu_ps(act + i, _mm256_mul_ps(s, _mm256_loadu_ps(up + i)));
    }
    return i;
}

ROW_AVX2 static size_t row_swiglu_grad_avx2(float *gate, float *up, const float *dact, size_t n) {
    __m256 one = _mm256_set1_ps(1.0f);
    size_t i = 0;
    for (; i + 8 <= n; i += 8) {
        __m256 g = _mm256_loadu_ps(gate + i), u = _mm256_loadu_ps(up + i), d = _mm256_loadu_ps(dact + i);
        __m256 s = row_sigmoid8(g);
        __m256 slope = _mm256_mul_ps(s, _mm256_fmadd_ps(g, _mm256_sub_ps(one, s), one));
        _mm256_storeu_ps(gate + i, _mm256_mul_ps(_mm256_mul_ps(d, u), slope));
        _mm256_storeu_ps(up + i, _mm256_mul_ps(d, _mm256_mul_ps(g, s)));
    }
    return i;
}

/* The sigmoid of 2 u with u = sqrt(2/pi) (x + 0.044715 x^3), so that gelu(x) = x * it; *slope: of that argument. */
ROW_AVX2 static inline __m256 row_gelu8(__m256 x, __m256 *slope) {
    __m256 c = _mm256_set1_ps(2.0f * ROW_GELU), k = _mm256_set1_ps(0.044715f), x2 = _mm256_mul_ps(x, x);
    __m256 arg = _mm256_mul_ps(_mm256_mul_ps(c, x), _mm256_fmadd_ps(k, x2, _mm256_set1_ps(1.0f)));
    *slope = _mm256_mul_ps(c, _mm256_fmadd_ps(_mm256_set1_ps(3.0f * 0.044715f), x2, _mm256_set1_ps(1.0f)));
    return row_sigmoid8(arg);
}

ROW_AVX2 static size_t row_geglu_avx2(const float *gate, const float *up, float *act, size_t n) {
    size_t i = 0;
    for (; i + 8 <= n; i += 8) {
        __m256 g = _mm256_loadu_ps(gate + i), slope, s = row_gelu8(g, &slope);
        _mm256_storeu_ps(act + i, _mm256_mul_ps(_mm256_mul_ps(g, s), _mm256_loadu_ps(up + i)));
    }
    return i;
}

ROW_AVX2 static size_t row_geglu_grad_avx2(float *gate, float *up, const float *dact, size_t n) {
    __m256 one = _mm256_set1_ps(1.0f);
    size_t i = 0;
    for (; i + 8 <= n; i += 8) {
        __m256 g = _mm256_loadu_ps(gate + i), u = _mm256_loadu_ps(up + i), d = _mm256_loadu_ps(dact + i), slope;
        __m256 s = row_gelu8(g, &slope), gs = _mm256_mul_ps(g, s);
        __m256 dgelu = _mm256_fmadd_ps(_mm256_mul_ps(gs, _mm256_sub_ps(one, s)), slope, s);
        _mm256_storeu_ps(gate + i, _mm256_mul_ps(_mm256_mul_ps(d, u), dgelu));
        _mm256_storeu_ps(up + i, _mm256_mul_ps(d, gs));
    }
    return i;
}
#else
#define ROW_X86 0
#endif

float row_max(const float *x, size_t n) {
#if ROW_X86
    if (row_has_avx2())
        return row_max_avx2(x, n);
#endif
    float m = -INFINITY;
    for (size_t i = 0; i < n; i++)
        m = x[i] > m ? x[i] : m;
    return m;
}

double row_exp_sum(float *x, size_t n, float max) {
#if ROW_X86
    if (row_has_avx2())
        return row_exp_sum_avx2(x, n, max);
#endif
    double total = 0.0;
    for (size_t i = 0; i < n; i++) {
        x[i] = expf(x[i] - max);
        total += (double)x[i];
    }
    return total;
}

void row_scale(float *x, size_t n, float s) {
    for (size_t i = 0; i < n; i++)
        x[i] *= s;
}

float row_mix_max(const float *h, const float *d, float a, size_t n) {
#if ROW_X86
    if (row_has_avx2())
        return row_mix_max_avx2(h, d, a, n);
#endif
    float m = -INFINITY;
    for (size_t i = 0; i < n; i++) {
        float x = h[i] + a * d[i];
        m = x > m ? x : m;
    }
    return m;
}

double row_mix_exp_sum(const float *h, const float *d, float a, float max, size_t n) {
#if ROW_X86
    if (row_has_avx2())
        return row_mix_exp_sum_avx2(h, d, a, max, n);
#endif
    double total = 0.0;
    for (size_t i = 0; i < n; i++)
        total += (double)expf(h[i] + a * d[i] - max);
    return total;
}

double row_sum_squares(const float *x, size_t n) {
#if ROW_X86
    if (row_has_avx2())
        return row_sum_squares_avx2(x, n);
#endif
    double total = 0.0;
    for (size_t i = 0; i < n; i++)
        total += (double)x[i] * (double)x[i];
    return total;
}

float row_norm(const float *x, const float *gain, float *out, size_t n, float eps) {
    float r = (float)(1.0 / sqrt(row_sum_squares(x, n) / (double)n + (double)eps));
    for (size_t i = 0; i < n; i++)
        out[i] = x[i] * r * gain[i];
    return r;
}

void row_norm_grad(const float *dy, const float *x, float r, const float *gain, float *dx, size_t n, bool add) {
    float dot = 0.0f;
    for (size_t c = 0; c < n; c++)
        dot += dy[c] * gain[c] * x[c];
    float k = dot * r * r / (float)n;
    for (size_t c = 0; c < n; c++) {
        float d = r * (dy[c] * gain[c] - k * x[c]);
        dx[c] = add ? dx[c] + d : d;
    }
}

void row_gain_grad(const float *dy, const float *x, const float *r, const size_t *row_of, size_t rows, size_t n,
                   size_t lo, size_t hi, float *dgain) {
    for (size_t i = 0; i < rows; i++) {
        const float *xi = x + (row_of ? row_of[i] : i) * n, *dyi = dy + i * n;
        for (size_t c = lo; c < hi; c++)
            dgain[c] += dyi[c] * xi[c] * r[i];
    }
}

void row_swiglu(const float *gate, const float *up, float *act, size_t n) {
    size_t i = 0;
#if ROW_X86
    if (row_has_avx2())
        i = row_swiglu_avx2(gate, up, act, n);
#endif
    for (; i < n; i++)
        act[i] = gate[i] / (1.0f + expf(-gate[i])) * up[i];
}

void row_swiglu_grad(float *gate, float *up, const float *dact, size_t n) {
    size_t i = 0;
#if ROW_X86
    if (row_has_avx2())
        i = row_swiglu_grad_avx2(gate, up, dact, n);
#endif
    for (; i < n; i++) {
        float g = gate[i], u = up[i], s = 1.0f / (1.0f + expf(-g));
        gate[i] = dact[i] * u * s * (1.0f + g * (1.0f - s));
        up[i] = dact[i] * g * s;
    }
}

void row_geglu(const float *gate, const float *up, float *act, size_t n) {
    size_t i = 0;
#if ROW_X86
    if (row_has_avx2())
        i = row_geglu_avx2(gate, up, act, n);
#endif
    for (; i < n; i++) {
        float g = gate[i], s = 1.0f / (1.0f + expf(-2.0f * ROW_GELU * (g + 0.044715f * g * g * g)));
        act[i] = g * s * up[i];
    }
}

void row_geglu_grad(float *gate, float *up, const float *dact, size_t n) {
    size_t i = 0;
#if ROW_X86
    if (row_has_avx2())
        i = row_geglu_grad_avx2(gate, up, dact, n);
#endif
    for (; i < n; i++) {
        float g = gate[i], u = up[i], s = 1.0f / (1.0f + expf(-2.0f * ROW_GELU * (g + 0.044715f * g * g * g)));
        float slope = 2.0f * ROW_GELU * (1.0f + 3.0f * 0.044715f * g * g);
        gate[i] = dact[i] * u * (s + g * s * (1.0f - s) * slope);
        up[i] = dact[i] * g * s;
    }
}
