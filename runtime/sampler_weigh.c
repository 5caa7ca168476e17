/* The sampler's softmax. Everything is written out in IEEE double arithmetic, in one order, without fused operations and
 * without a mathematical library, so that the vector code's results are the plain code's bit for bit. */
#include "runtime/sampler_weigh.h"

#include <math.h>
#include <stdint.h>
#include <string.h>

#if defined(__x86_64__) && defined(__GNUC__)
#define WEIGH_AVX2 1
#include <immintrin.h>
#elif defined(__aarch64__)
#define WEIGH_NEON 1
#include <arm_neon.h>
#endif

enum { PARTS = 8 };

/* 2^(j/32) */
static const double ROOT[32] = {
    1.0, 0x1.059b0d3158574p+0, 0x1.0b5586cf9890fp+0, 0x1.11301d0125b51p+0,
    0x1.172b83c7d517bp+0, 0x1.1d4873168b9aap+0, 0x1.2387a6e756238p+0, 0x1.29e9df51fdee1p+0,
    0x1.306fe0a31b715p+0, 0x1.371a7373aa9cbp+0, 0x1.3dea64c123422p+0, 0x1.44e086061892dp+0,
    0x1.4bfdad5362a27p+0, 0x1.5342b569d4f82p+0, 0x1.5ab07dd485429p+0, 0x1.6247eb03a5585p+0,
    0x1.6a09e667f3bcdp+0, 0x1.71f75e8ec5f74p+0, 0x1.7a11473eb0187p+0, 0x1.82589994cce13p+0,
    0x1.8ace5422aa0dbp+0, 0x1.93737b0cdc5e5p+0, 0x1.9c49182a3f090p+0, 0x1.a5503b23e255dp+0,
    0x1.ae89f995ad3adp+0, 0x1.b7f76f2fb5e47p+0, 0x1.c199bdd85529cp+0, 0x1.cb720dcef9069p+0,
    0x1.d5818dcfba487p+0, 0x1.dfc97337b9b5fp+0, 0x1.ea4afa2a490dap+0, 0x1.f50765b6e4540p+0,
};
static const double LEAST = -60;    /* below it e^x counts as 0: a whole vocabulary of such weights is under the generator's resolution */
static const double STEPS = 0x1.71547652b82fep+5;                                      /* 32 / ln 2 */
static const double STEP_HI = 0x1.62e42feep-6, STEP_LO = 0x1.a39ef35793c76p-38;        /* ln 2 / 32; hi times k is exact */
static const double TAYLOR[] = {1.0 / 2, 1.0 / 6, 1.0 / 24, 1.0 / 120, 1.0 / 720};

/* e^x for x <= 0, to about an ulp. x = (32 e + j) ln 2 / 32 + r: 2^e by the exponent, 2^(j/32) by the table, e^r,
 * |r| < 0.011, by its Taylor polynomial. */
static double exp_fixed(double x) {
    if (x < LEAST) {
        return 0;
    }
    int k = (int)(x * STEPS - 0.5);
    double r = (x - k * STEP_HI) - k * STEP_LO;
    double p = r * (1 + r * (TAYLOR[0] + r * (TAYLOR[1] + r * (TAYLOR[2] + r * (TAYLOR[3] + r * TAYLOR[4])))));
    unsigned j = (unsigned)k & 31u;
    uint64_t bits = (uint64_t)(1023 + (k - (int)j) / 32) << 52;
    double scale;
    memcpy(&scale, &bits, sizeof scale);
    return (ROOT[j] + ROOT[j] * p) * scale;
}

double weigh(float logit, float top, double inverse_temperature) {
    return logit == top ? 1 : logit < top ? exp_fixed(((double)logit - (double)top) * inverse_temperature) : 0;
}

static double join_parts(const double *part) {
    return ((part[0] + part[4]) + (part[1] + part[5])) + ((part[2] + part[6]) + (part[3] + part[7]));
}

double weigh_row_plain(const float *logits, size_t n, float top, double inverse_temperature, double *weights,
                       double *sums) {
    double total = 0;
    for (size_t at = 0; at < n; at += WEIGH_BLOCK) {
        size_t end = n - at < WEIGH_BLOCK ? n : at + WEIGH_BLOCK;
        double part[PARTS] = {0};
        for (size_t i = at; i < end; i++) {
            weights[i] = weigh(logits[i], top, inverse_temperature);
            part[(i - at) % PARTS] += weights[i];
        }
        total += sums[at / WEIGH_BLOCK] = join_parts(part);
    }
    return total;
}

#ifdef WEIGH_AVX2
#define TARGET __attribute__((target("avx2")))

/* exp_fixed on four lanes; the caller masks what is not in [LEAST, 0]. */
static inline __attribute__((always_inline)) TARGET __m256d exp_lanes(__m256d x) {
    const __m256d one = _mm256_set1_pd(1);
    x = _mm256_max_pd(x, _mm256_set1_pd(LEAST));
    __m128i k = _mm256_cvttpd_epi32(_mm256_sub_pd(_mm256_mul_pd(x, _mm256_set1_pd(STEPS)), _mm256_set1_pd(0.5)));
    __m256d kd = _mm256_cvtepi32_pd(k);
    __m256d r = _mm256_sub_pd(_mm256_sub_pd(x, _mm256_mul_pd(kd, _mm256_set1_pd(STEP_HI))),
                              _mm256_mul_pd(kd, _mm256_set1_pd(STEP_LO)));
    __m256d p = _mm256_set1_pd(TAYLOR[4]);
    for (int t = 3; t >= 0; t--) {
        p = _mm256_add_pd(_mm256_set1_pd(TAYLOR[t]), _mm256_mul_pd(r, p));
    }
    p = _mm256_mul_pd(r, _mm256_add_pd(one, _mm256_mul_pd(r, p)));
    __m256d root = _mm256_i32gather_pd(ROOT, _mm_and_si128(k, _mm_set1_epi32(31)), 8);
    __m256i e = _mm256_cvtepi32_epi64(_mm_add_epi32(_mm_srai_epi32(k, 5), _mm_set1_epi32(1023)));
    __m256d scale = _mm256_castsi256_pd(_mm256_slli_epi64(e, 52));
    return _mm256_mul_pd(_mm256_add_pd(root, _mm256_mul_pd(root, p)), scale);
}

static inline __attribute__((always_inline)) TARGET __m256d weigh_lanes(__m128 logit, __m128 top, __m256d inverse) {
    __m256d l = _mm256_cvtps_pd(logit), t = _mm256_cvtps_pd(top);
    __m256d x = _mm256_mul_pd(_mm256_sub_pd(l, t), inverse);
    __m256d below = _mm256_and_pd(_mm256_cmp_pd(l, t, _CMP_LT_OQ), _mm256_cmp_pd(x, _mm256_set1_pd(LEAST), _CMP_GE_OQ));
    __m256d w = _mm256_and_pd(exp_lanes(x), below);
    return _mm256_blendv_pd(w, _mm256_set1_pd(1), _mm256_cmp_pd(l, t, _CMP_EQ_OQ));
}

static TARGET double weigh_row_avx2(const float *logits, size_t n, float top, double inverse_temperature,
                                    double *weights, double *sums) {
    const __m128 tops = _mm_set1_ps(top);
    const __m256d inverse = _mm256_set1_pd(inverse_temperature);
    double total = 0;
    for (size_t at = 0; at < n; at += WEIGH_BLOCK) {
        size_t end = n - at < WEIGH_BLOCK ? n : at + WEIGH_BLOCK, i = at;
        __m256d low = _mm256_setzero_pd(), high = _mm256_setzero_pd();
        for (; i + PARTS <= end; i += PARTS) {
            __m256d a = weigh_lanes(_mm_loadu_ps(logits + i), tops, inverse);
            __m256d b = weigh_lanes(_mm_loadu_ps(logits + i + 4), tops, inverse);
            _mm256_storeu_pd(weights + i, a);
            _mm256_storeu_pd(weights + i + 4, b);
            low = _mm256_add_pd(low, a);
            high = _mm256_add_pd(high, b);
        }
        double part[PARTS];
        _mm256_storeu_pd(part, low);
        _mm256_storeu_pd(part + 4, high);
        for (; i < end; i++) {
            weights[i] = weigh(logits[i], top, inverse_temperature);
            part[(i - at) % PARTS] += weights[i];
        }
        total += sums[at / WEIGH_BLOCK] = join_parts(part);
    }
    return total;
}

#define WIDE __attribute__((target("avx512f")))

/* 2^(j/32): j's low four bits choose in a pair of registers, its fifth between two pairs. */
static inline __attribute__((always_inline)) WIDE __m512d root_wide(const __m512d table[4], __m512i k) {
    __m512d low = _mm512_permutex2var_pd(table[0], k, table[1]), high = _mm512_permutex2var_pd(table[2], k, table[3]);
    return _mm512_mask_blend_pd(_mm512_test_epi64_mask(k, _mm512_set1_epi64(16)), low, high);
}

/* exp_fixed on eight lanes; the caller masks what is not in [LEAST, 0]. */
static inline __attribute__((always_inline)) WIDE __m512d exp_wide(__m512d x, const __m512d table[4]) {
    x = _mm512_max_pd(x, _mm512_set1_pd(LEAST));
    __m256i k = _mm512_cvttpd_epi32(_mm512_sub_pd(_mm512_mul_pd(x, _mm512_set1_pd(STEPS)), _mm512_set1_pd(0.5)));
    __m512d kd = _mm512_cvtepi32_pd(k);
    __m512d r = _mm512_sub_pd(_mm512_sub_pd(x, _mm512_mul_pd(kd, _mm512_set1_pd(STEP_HI))),
                              _mm512_mul_pd(kd, _mm512_set1_pd(STEP_LO)));
    __m512d p = _mm512_set1_pd(TAYLOR[4]);
    for (int t = 3; t >= 0; t--) {
        p = _mm512_add_pd(_mm512_set1_pd(TAYLOR[t]), _mm512_mul_pd(r, p));
    }
    p = _mm512_mul_pd(r, _mm512_add_pd(_mm512_set1_pd(1), _mm512_mul_pd(r, p)));
    __m512i wide = _mm512_cvtepi32_epi64(k);
    __m512d root = root_wide(table, wide);
    __m512i e = _mm512_add_epi64(_mm512_srai_epi64(wide, 5), _mm512_set1_epi64(1023));
    __m512d scale = _mm512_castsi512_pd(_mm512_slli_epi64(e, 52));
    return _mm512_mul_pd(_mm512_add_pd(root, _mm512_mul_pd(root, p)), scale);
}

static WIDE double weigh_row_avx512(const float *logits, size_t n, float top, double inverse_temperature, double *weights,
                                    double *sums) {
    const __m512d t = _mm512_set1_pd((double)top), inverse = _mm512_set1_pd(inverse_temperature);
    const __m512d table[4] = {_mm512_loadu_pd(ROOT), _mm512_loadu_pd(ROOT + 8), _mm512_loadu_pd(ROOT + 16), _mm512_loadu_pd(ROOT + 24)};
    double total = 0;
    for (size_t at = 0; at < n; at += WEIGH_BLOCK) {
        size_t end = n - at < WEIGH_BLOCK ? n : at + WEIGH_BLOCK, i = at;
        __m512d sum = _mm512_setzero_pd();
        for (; i + PARTS <= end; i += PARTS) {
            __m512d l = _mm512_cvtps_pd(_mm256_loadu_ps(logits + i)), x = _mm512_mul_pd(_mm512_sub_pd(l, t), inverse);
            __mmask8 below = _mm512_cmp_pd_mask(l, t, _CMP_LT_OQ) & _mm512_cmp_pd_mask(x, _mm512_set1_pd(LEAST), _CMP_GE_OQ);
            __m512d w = _mm512_maskz_mov_pd(below, exp_wide(x, table));
            w = _mm512_mask_mov_pd(w, _mm512_cmp_pd_mask(l, t, _CMP_EQ_OQ), _mm512_set1_pd(1));
            _mm512_storeu_pd(weights + i, w);
            sum = _mm512_add_pd(sum, w);
        }
        double part[PARTS];
        _mm512_storeu_pd(part, sum);
        for (; i < end; i++) {
            weights[i] = weigh(logits[i], top, inverse_temperature);
            part[(i - at) % PARTS] += weights[i];
        }
        total += sums[at / WEIGH_BLOCK] = join_parts(part);
    }
    return total;
}
#endif

#ifdef WEIGH_NEON
/* exp_fixed on two lanes; the caller masks what is not in [LEAST, 0]. */
static inline float64x2_t exp_lanes(float64x2_t x) {
    const float64x2_t one = vdupq_n_f64(1);
    x = vmaxq_f64(x, vdupq_n_f64(LEAST));
    int64x2_t k = vcvtq_s64_f64(x * vdupq_n_f64(STEPS) - vdupq_n_f64(0.5));
    float64x2_t kd = vcvtq_f64_s64(k);
    float64x2_t r = (x - kd * vdupq_n_f64(STEP_HI)) - kd * vdupq_n_f64(STEP_LO);
    float64x2_t p = vdupq_n_f64(TAYLOR[4]);
    for (int t = 3; t >= 0; t--) {
        p = vdupq_n_f64(TAYLOR[t]) + r * p;
    }
    p = r * (one + r * p);
    float64x2_t root = {ROOT[vgetq_lane_s64(k, 0) & 31], ROOT[vgetq_lane_s64(k, 1) & 31]};
    float64x2_t scale = vreinterpretq_f64_s64(vshlq_n_s64(vshrq_n_s64(k, 5) + vdupq_n_s64(1023), 52));
    return (root + root * p) * scale;
}

static inline float64x2_t weigh_lanes(float64x2_t logit, float64x2_t top, float64x2_t inverse) {
    float64x2_t x = (logit - top) * inverse;
    uint64x2_t below = vcltq_f64(logit, top) & vcgeq_f64(x, vdupq_n_f64(LEAST));
    uint64x2_t w = vreinterpretq_u64_f64(exp_lanes(x)) & below;
    return vbslq_f64(vceqq_f64(logit, top), vdupq_n_f64(1), vreinterpretq_f64_u64(w));
}

static double weigh_row_neon(const float *logits, size_t n, float top, double inverse_temperature, double *weights,
                             double *sums) {
    const float64x2_t tops = vdupq_n_f64((double)top), inverse = vdupq_n_f64(inverse_temperature);
    double total = 0;
    for (size_t at = 0; at < n; at += WEIGH_BLOCK) {
        size_t end = n - at < WEIGH_BLOCK ? n : at + WEIGH_BLOCK, i = at;
        double part[PARTS];
        float64x2_t acc[PARTS / 2];
        for (size_t k = 0; k < PARTS / 2; k++) {
            acc[k] = vdupq_n_f64(0);
        }
        for (; i + PARTS <= end; i += PARTS) {
            for (size_t k = 0; k < PARTS / 2; k++) {
                float64x2_t w = weigh_lanes(vcvt_f64_f32(vld1_f32(logits + i + 2 * k)), tops, inverse);
                vst1q_f64(weights + i + 2 * k, w);
                acc[k] += w;
            }
        }
        for (size_t k = 0; k < PARTS / 2; k++) {
            vst1q_f64(part + 2 * k, acc[k]);
        }
        for (; i < end; i++) {
            weights[i] = weigh(logits[i], top, inverse_temperature);
            part[(i - at) % PARTS] += weights[i];
        }
        total += sums[at / WEIGH_BLOCK] = join_parts(part);
    }
    return total;
}
#endif

weigh_row_fn *weigh_row_version(size_t i) {
    weigh_row_fn *have[3];
    size_t n = 0;
#ifdef WEIGH_AVX2
    if (__builtin_cpu_supports("avx512f")) {
        have[n++] = weigh_row_avx512;
    }
    if (__builtin_cpu_supports("avx2")) {
        have[n++] = weigh_row_avx2;
    }
#endif
#ifdef WEIGH_NEON
    have[n++] = weigh_row_neon;
#endif
    have[n++] = weigh_row_plain;
    return i < n ? have[i] : NULL;
}

double weigh_row(const float *logits, size_t n, float top, double inverse_temperature, double *weights, double *sums) {
    return weigh_row_version(0)(logits, n, top, inverse_temperature, weights, sums);
}
