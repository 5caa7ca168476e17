/* What the shift does with several host tokens at once, in AVX2 or in NEON; + - * are the compiler's own on `lanes`. Where
 * SHIFT_LANES is not defined there is neither. */
#ifndef CMC_TOKENMAP_SHIFT_LANES_H
#define CMC_TOKENMAP_SHIFT_LANES_H
#include <math.h>
#include <stdbool.h>
#include <stdint.h>

#include "tokenmap/map.h"

#if defined(__x86_64__) && defined(__GNUC__)
#include <immintrin.h>

#define SHIFT_LANES 8
#define TARGET __attribute__((target("avx2,fma")))
#define INLINE static inline __attribute__((always_inline)) TARGET

typedef __m256 lanes;
typedef __m256i lane_ids;
typedef __m256 lane_mask;     /* a lane counts as set by its sign bit */

static inline bool lanes_here(void) {
    return __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma");
}

INLINE lanes lanes_of(float v) {
    return _mm256_set1_ps(v);
}

/* The first `left` lanes have their sign bit set: for masked loads and stores. */
INLINE __m256i lanes_below(int32_t left) {
    return _mm256_cmpgt_epi32(_mm256_set1_epi32(left), _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7));
}

/* a where the mask is set, else b. */
INLINE lanes lanes_pick(lane_mask mask, lanes a, lanes b) {
    return _mm256_blendv_ps(b, a, mask);
}

/* Floats at v, -inf in the lanes from `left` on. */
INLINE lanes lanes_load(const float *v, int32_t left) {
    if (left >= SHIFT_LANES) {
        return _mm256_loadu_ps(v);
    }
    __m256i mask = lanes_below(left);
    return lanes_pick(_mm256_castsi256_ps(mask), _mm256_maskload_ps(v, mask), lanes_of(-INFINITY));
}

INLINE void lanes_store(float *v, int32_t left, lanes x) {
    if (left >= SHIFT_LANES) {
        _mm256_storeu_ps(v, x);
    } else {
        _mm256_maskstore_ps(v, lanes_below(left), x);
    }
}

INLINE lanes lanes_max(lanes a, lanes b) {
    return _mm256_max_ps(a, b);
}

INLINE lanes lanes_min(lanes a, lanes b) {
    return _mm256_min_ps(a, b);
}

INLINE float lanes_top(lanes v) {
    __m128 m = _mm_max_ps(_mm256_castps256_ps128(v), _mm256_extractf128_ps(v, 1));
    m = _mm_max_ps(m, _mm_movehl_ps(m, m));
    m = _mm_max_ss(m, _mm_movehdup_ps(m));
    return _mm_cvtss_f32(m);
}

INLINE double lanes_sum(lanes v) {
    __m256d d = _mm256_add_pd(_mm256_cvtps_pd(_mm256_castps256_ps128(v)), _mm256_cvtps_pd(_mm256_extractf128_ps(v, 1)));
    __m128d s = _mm_add_pd(_mm256_castpd256_pd128(d), _mm256_extractf128_pd(d, 1));
    return _mm_cvtsd_f64(_mm_add_sd(s, _mm_unpackhi_pd(s, s)));
}

/* a b + c, rounded once */
INLINE lanes lanes_fma(lanes a, lanes b, lanes c) {
    return _mm256_fmadd_ps(a, b, c);
}

INLINE lanes lanes_round(lanes v) {
    return _mm256_round_ps(v, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC);
}

/* v 2^n for whole n, as long as that is a normal number */
INLINE lanes lanes_scale(lanes v, lanes n) {
    return _mm256_castsi256_ps(_mm256_add_epi32(_mm256_castps_si256(v), _mm256_slli_epi32(_mm256_cvtps_epi32(n), 23)));
}

INLINE lane_mask lanes_equal(lanes a, lanes b) {
    return _mm256_cmp_ps(a, b, _CMP_EQ_OQ);
}

/* Set where a >= b. */
INLINE lane_mask lanes_at_least(lanes a, lanes b) {
    return _mm256_cmp_ps(a, b, _CMP_GE_OQ);
}

/* Sets the lanes of a mask where v is NaN. */
INLINE lane_mask lanes_note_nan(lane_mask mask, lanes v) {
    return _mm256_or_ps(mask, _mm256_cmp_ps(v, v, _CMP_UNORD_Q));
}

INLINE bool lanes_any(lane_mask mask) {
    return _mm256_movemask_ps(mask) != 0;
}

/* Map entries, -1 (unmapped) in the lanes from `left` on. */
INLINE lane_ids ids_load(const int32_t *v, int32_t left) {
    if (left >= SHIFT_LANES) {
        return _mm256_loadu_si256((const __m256i *)(const void *)v);
    }
    __m256i mask = lanes_below(left);
    return _mm256_or_si256(_mm256_maskload_epi32(v, mask), _mm256_xor_si256(mask, _mm256_set1_epi32(-1)));
}

INLINE void ids_store(int32_t *v, lane_ids id) {
    _mm256_storeu_si256((__m256i *)(void *)v, id);
}

INLINE lane_mask ids_none(lane_ids id) {
    return _mm256_castsi256_ps(id);
}

INLINE lane_ids ids_pick(lane_mask mask, lane_ids a, lane_ids b) {
    return _mm256_castps_si256(lanes_pick(mask, _mm256_castsi256_ps(a), _mm256_castsi256_ps(b)));
}

/* 0, 1, 2, ... but none above `most` */
INLINE lane_ids ids_first(int32_t most) {
    return _mm256_min_epi32(_mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7), _mm256_set1_epi32(most));
}

/* d[id], 0 where unmapped. */
INLINE lanes ids_gather(const float *d, lane_ids id) {
    __m256 mapped = _mm256_xor_ps(ids_none(id), _mm256_castsi256_ps(_mm256_set1_epi32(-1)));
    return _mm256_mask_i32gather_ps(_mm256_setzero_ps(), d, id, mapped, 4);
}

#elif defined(__aarch64__)
#include <arm_neon.h>

#define SHIFT_LANES 4
#define TARGET
#define INLINE static inline __attribute__((always_inline))

typedef float32x4_t lanes;
typedef int32x4_t lane_ids;
typedef uint32x4_t lane_mask;

static inline bool lanes_here(void) {
    return true;
}

INLINE lanes lanes_of(float v) {
    return vdupq_n_f32(v);
}

INLINE lanes lanes_pick(lane_mask mask, lanes a, lanes b) {
    return vbslq_f32(mask, a, b);
}

INLINE lanes lanes_load(const float *v, int32_t left) {
    if (left >= SHIFT_LANES) {
        return vld1q_f32(v);
    }
    float some[SHIFT_LANES];
    for (int32_t i = 0; i < SHIFT_LANES; i++) {
        some[i] = i < left ? v[i] : -INFINITY;
    }
    return vld1q_f32(some);
}

INLINE void lanes_store(float *v, int32_t left, lanes x) {
    if (left >= SHIFT_LANES) {
        vst1q_f32(v, x);
        return;
    }
    float some[SHIFT_LANES];
    vst1q_f32(some, x);
    for (int32_t i = 0; i < left; i++) {
        v[i] = some[i];
    }
}

/* Of a number and NaN, the number. */
INLINE lanes lanes_max(lanes a, lanes b) {
    return vmaxnmq_f32(a, b);
}

INLINE lanes lanes_min(lanes a, lanes b) {
    return vminnmq_f32(a, b);
}

INLINE float lanes_top(lanes v) {
    return vmaxnmvq_f32(v);
}

INLINE double lanes_sum(lanes v) {
    return vaddvq_f64(vcvt_f64_f32(vget_low_f32(v)) + vcvt_high_f64_f32(v));
}

INLINE lanes lanes_fma(lanes a, lanes b, lanes c) {
    return vfmaq_f32(c, a, b);
}

INLINE lanes lanes_round(lanes v) {
    return vrndnq_f32(v);
}

INLINE lanes lanes_scale(lanes v, lanes n) {
    return vreinterpretq_f32_s32(vreinterpretq_s32_f32(v) + vshlq_n_s32(vcvtnq_s32_f32(n), 23));
}

INLINE lane_mask lanes_equal(lanes a, lanes b) {
    return vceqq_f32(a, b);
}

INLINE lane_mask lanes_at_least(lanes a, lanes b) {
    return vcgeq_f32(a, b);
}

INLINE lane_mask lanes_note_nan(lane_mask mask, lanes v) {
    return mask | ~vceqq_f32(v, v);
}

INLINE bool lanes_any(lane_mask mask) {
    return vmaxvq_u32(mask) != 0;
}

INLINE lane_ids ids_load(const int32_t *v, int32_t left) {
    if (left >= SHIFT_LANES) {
        return vld1q_s32(v);
    }
    int32_t some[SHIFT_LANES];
    for (int32_t i = 0; i < SHIFT_LANES; i++) {
        some[i] = i < left ? v[i] : -1;
    }
    return vld1q_s32(some);
}

INLINE void ids_store(int32_t *v, lane_ids id) {
    vst1q_s32(v, id);
}

INLINE lane_mask ids_none(lane_ids id) {
    return vcltzq_s32(id);
}

INLINE lane_ids ids_pick(lane_mask mask, lane_ids a, lane_ids b) {
    return vbslq_s32(mask, a, b);
}

INLINE lane_ids ids_first(int32_t most) {
    const int32_t first[SHIFT_LANES] = {0, 1, 2, 3};
    return vminq_s32(vld1q_s32(first), vdupq_n_s32(most));
}

/* There is no instruction for it: an unmapped lane reads d[0], and what it read is dropped. */
INLINE lanes ids_gather(const float *d, lane_ids id) {
    lane_ids at = vmaxq_s32(id, vdupq_n_s32(0));
    const float v[SHIFT_LANES] = {d[vgetq_lane_s32(at, 0)], d[vgetq_lane_s32(at, 1)], d[vgetq_lane_s32(at, 2)],
                                  d[vgetq_lane_s32(at, 3)]};
    return lanes_pick(ids_none(id), vdupq_n_f32(0), vld1q_f32(v));
}
#endif

#ifdef SHIFT_LANES
/* e^x for x <= 80, relative error under 2e-7 (1 + |x|); never less than 2^-126. With x log2(e) = n + r, |r| <= 1/2:
 * 2^r by the polynomial of Cephes' exp2f, 2^n into the exponent. */
INLINE lanes lanes_exp(lanes x) {
    x = lanes_max(x * lanes_of(1.44269504f), lanes_of(-126.0f));
    lanes n = lanes_round(x), r = x - n;
    lanes p = lanes_of(1.535336188319500e-4f);
    p = lanes_fma(p, r, lanes_of(1.339887440266574e-3f));
    p = lanes_fma(p, r, lanes_of(9.618437357674640e-3f));
    p = lanes_fma(p, r, lanes_of(5.550332471162809e-2f));
    p = lanes_fma(p, r, lanes_of(2.402264791363012e-1f));
    p = lanes_fma(p, r, lanes_of(6.931472028550421e-1f));
    p = lanes_fma(p, r, lanes_of(1.0f));
    return lanes_scale(p, n);
}

/* Runs STEP(i, left) over [0, n) in steps of SHIFT_LANES: `left` is the constant SHIFT_LANES in all but a last, partial step. */
#define FOR_LANES(n, STEP)                                           \
    do {                                                             \
        int32_t lane_i_ = 0;                                         \
        for (; lane_i_ + SHIFT_LANES <= (n); lane_i_ += SHIFT_LANES) { \
            STEP(lane_i_, SHIFT_LANES);                              \
        }                                                            \
        if (lane_i_ < (n)) {                                         \
            STEP(lane_i_, (n) - lane_i_);                            \
        }                                                            \
    } while (0)

/* In a row of shifts, -inf says that the token is not mapped. */
INLINE lane_mask is_unmapped(lanes s) {
    return lanes_equal(s, lanes_of(-INFINITY));
}

/* x = alpha d[to[i]] for n host tokens from `at` on, -inf where unmapped. */
INLINE void gather_block(const shift_in *in, int32_t at, int32_t n, float *x) {
    const lanes alpha = lanes_of(in->alpha), unmapped = lanes_of(-INFINITY);
    const float *d = in->logits;
    if (in->map->identity) {
#define STEP(i, left) lanes_store(x + (i), left, alpha * lanes_load(d + at + (i), left))
        FOR_LANES(n, STEP);
#undef STEP
        return;
    }
    const int32_t *to = in->map->to + at;
#define STEP(i, left)                                                                                            \
    do {                                                                                                         \
        lane_ids id = ids_load(to + (i), left);                                                                  \
        lanes_store(x + (i), left, lanes_pick(ids_none(id), unmapped, alpha * ids_gather(d, id)));               \
    } while (0)
    FOR_LANES(n, STEP);
#undef STEP
}
#endif
#endif
