/* The shift and its transpose, fast: one sweep over the host's vocabulary for each sum of exponentials, AVX2 where the
 * machine has it. The same results as shift.c up to rounding.
 *
 * A sum is kept online: each block is taken relative to the greatest logit seen so far, and what was summed before is
 * rescaled when that grows. So a block's gathered shifts are used while they are in the first-level cache. */
#include <math.h>
#include <string.h>

#include "tokenmap/map.h"

#if defined(__x86_64__) && defined(__GNUC__)
#define SHIFT_AVX2 1
#include <immintrin.h>
#endif

#ifdef SHIFT_AVX2

#define TARGET __attribute__((target("avx2,fma")))
#define INLINE static inline __attribute__((always_inline)) TARGET

enum { BLOCK = 512 };   /* host tokens; 2 KiB a row */

/* Terms this far below the greatest are left out: all of 2^24 of them are less than 1e-6 of it, and for the 262,144 of
 * the largest vocabularies, less than 1e-8. */
#define NEGLIGIBLE (-30.0f)

/* Running log-sum-exps over the tokens seen: of the host's logits h, and of h + s. */
typedef struct sums {
    float top_h;          /* greatest h, -inf while every token was banned or unmapped */
    double top_y;         /* greatest h - top_h + s */
    double sum_h, sum_y;  /* of e^(h - top_h) and e^(h - top_h + s - top_y) */
} sums;

INLINE float max_lanes(__m256 v) {
    __m128 m = _mm_max_ps(_mm256_castps256_ps128(v), _mm256_extractf128_ps(v, 1));
    m = _mm_max_ps(m, _mm_movehl_ps(m, m));
    m = _mm_max_ss(m, _mm_movehdup_ps(m));
    return _mm_cvtss_f32(m);
}

INLINE double sum_lanes(__m256 v) {
    __m256d d = _mm256_add_pd(_mm256_cvtps_pd(_mm256_castps256_ps128(v)), _mm256_cvtps_pd(_mm256_extractf128_ps(v, 1)));
    __m128d s = _mm_add_pd(_mm256_castpd256_pd128(d), _mm256_extractf128_pd(d, 1));
    return _mm_cvtsd_f64(_mm_add_sd(s, _mm_unpackhi_pd(s, s)));
}

/* e^x for x <= 0 to about 1 ulp; at most 1.3e-38 where the true value is less. x = n ln 2 + r, |r| <= ln 2 / 2, and
 * e^r by its Taylor polynomial of degree 7 (remainder under 6e-9). */
INLINE __m256 exp_lanes(__m256 x) {
    x = _mm256_max_ps(x, _mm256_set1_ps(-87.0f));
    __m256 n = _mm256_round_ps(_mm256_mul_ps(x, _mm256_set1_ps(1.44269504f)), _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC);
    __m256 r = _mm256_fnmadd_ps(n, _mm256_set1_ps(0.693359375f), x);
    r = _mm256_fnmadd_ps(n, _mm256_set1_ps(-2.12194440e-4f), r);
    __m256 p = _mm256_set1_ps(1.0f / 5040);
    p = _mm256_fmadd_ps(p, r, _mm256_set1_ps(1.0f / 720));
    p = _mm256_fmadd_ps(p, r, _mm256_set1_ps(1.0f / 120));
    p = _mm256_fmadd_ps(p, r, _mm256_set1_ps(1.0f / 24));
    p = _mm256_fmadd_ps(p, r, _mm256_set1_ps(1.0f / 6));
    p = _mm256_fmadd_ps(p, r, _mm256_set1_ps(0.5f));
    p = _mm256_fmadd_ps(p, r, _mm256_set1_ps(1.0f));
    p = _mm256_fmadd_ps(p, r, _mm256_set1_ps(1.0f));
    return _mm256_castsi256_ps(_mm256_add_epi32(_mm256_castps_si256(p), _mm256_slli_epi32(_mm256_cvtps_epi32(n), 23)));
}

/* The first `left` lanes, sign bits set: for masked loads and stores. */
INLINE __m256i lanes_below(int32_t left) {
    return _mm256_cmpgt_epi32(_mm256_set1_epi32(left), _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7));
}

/* Eight floats at v, `pad` in the lanes from `left` on. */
INLINE __m256 load_lanes(const float *v, int32_t left, float pad) {
    if (left >= 8) {
        return _mm256_loadu_ps(v);
    }
    __m256i mask = lanes_below(left);
    return _mm256_blendv_ps(_mm256_set1_ps(pad), _mm256_maskload_ps(v, mask), _mm256_castsi256_ps(mask));
}

/* Eight map entries, -1 (unmapped) in the lanes from `left` on. */
INLINE __m256i load_ids(const int32_t *v, int32_t left) {
    if (left >= 8) {
        return _mm256_loadu_si256((const __m256i *)(const void *)v);
    }
    __m256i mask = lanes_below(left);
    return _mm256_or_si256(_mm256_maskload_epi32(v, mask), _mm256_xor_si256(mask, _mm256_set1_epi32(-1)));
}

INLINE void store_lanes(float *v, int32_t left, __m256 x) {
    if (left >= 8) {
        _mm256_storeu_ps(v, x);
    } else {
        _mm256_maskstore_ps(v, lanes_below(left), x);
    }
}

/* h where the map's entry is not -1, else -inf: an unmapped token weighs nothing in a sum. */
INLINE __m256 load_mapped(const float *h, const int32_t *to, int32_t left) {
    __m256 v = load_lanes(h, left, -INFINITY);
    return to ? _mm256_blendv_ps(v, _mm256_set1_ps(-INFINITY), _mm256_castsi256_ps(load_ids(to, left))) : v;
}

/* x = alpha d[to[i]] for a block of n <= BLOCK host tokens from `at` on, 0 where unmapped. */
INLINE void gather_block(const shift_in *in, int32_t at, int32_t n, float *x) {
    __m256 alpha = _mm256_set1_ps(in->alpha);
    if (in->map->identity) {
        for (int32_t i = 0; i < n; i += 8) {
            store_lanes(x + i, n - i, _mm256_mul_ps(alpha, load_lanes(in->logits + at + i, n - i, 0)));
        }
        return;
    }
    const int32_t *to = in->map->to + at;
    for (int32_t i = 0; i < n; i += 8) {
        __m256i id = load_ids(to + i, n - i);
        __m256 mapped = _mm256_castsi256_ps(_mm256_xor_si256(id, _mm256_set1_epi32(-1)));
        __m256 d = _mm256_mask_i32gather_ps(_mm256_setzero_ps(), in->logits, id, mapped, 4);
        store_lanes(x + i, n - i, _mm256_mul_ps(alpha, d));
    }
}

/* Adds a block of n <= BLOCK tokens to the sums. `to`: its map entries, NULL where every token is mapped. */
INLINE void sum_block(sums *sum, const float *h, const float *s, const int32_t *to, int32_t n) {
    __m256 top = _mm256_set1_ps(-INFINITY);
    for (int32_t i = 0; i < n; i += 8) {
        top = _mm256_max_ps(top, load_mapped(h + i, to ? to + i : NULL, n - i));
    }
    float top_h = max_lanes(top);
    if (top_h > sum->top_h) {
        double grown = sum->top_h == -INFINITY ? 0 : (double)top_h - (double)sum->top_h;
        sum->sum_h *= exp(-grown);
        sum->top_y -= grown;
        sum->top_h = top_h;
    }
    if (sum->top_h == -INFINITY) {
        return;
    }
    const __m256 ref_h = _mm256_set1_ps(sum->top_h);
    top = _mm256_set1_ps(-INFINITY);
    for (int32_t i = 0; i < n; i += 8) {
        __m256 u = _mm256_sub_ps(load_mapped(h + i, to ? to + i : NULL, n - i), ref_h);
        top = _mm256_max_ps(top, _mm256_add_ps(u, load_lanes(s + i, n - i, 0)));
    }
    double top_y = (double)max_lanes(top);
    if (top_y > sum->top_y) {
        sum->sum_y *= exp(sum->top_y - top_y);
        sum->top_y = top_y;
    }
    const __m256 ref_y = _mm256_set1_ps((float)sum->top_y), negligible = _mm256_set1_ps(NEGLIGIBLE);
    __m256 acc_h = _mm256_setzero_ps(), acc_y = _mm256_setzero_ps();
    for (int32_t i = 0; i < n; i += 8) {
        __m256 u = _mm256_sub_ps(load_mapped(h + i, to ? to + i : NULL, n - i), ref_h);
        __m256 y = _mm256_sub_ps(_mm256_add_ps(u, load_lanes(s + i, n - i, 0)), ref_y);
        __m256 any = _mm256_cmp_ps(_mm256_max_ps(u, y), negligible, _CMP_GT_OQ);
        if (_mm256_movemask_ps(any)) {
            acc_h = _mm256_add_ps(acc_h, exp_lanes(u));
            acc_y = _mm256_add_ps(acc_y, exp_lanes(y));
        }
    }
    sum->sum_h += sum_lanes(acc_h);
    sum->sum_y += sum_lanes(acc_y);
}

static double sums_centre(const sums *sum) {
    return sum->sum_h > 0 ? sum->top_y + log(sum->sum_y) - log(sum->sum_h) : 0;
}

static const sums NO_SUMS = {.top_h = -INFINITY, .top_y = -INFINITY};

/* x = one delta's alpha d[map[i]]; gives its centre. */
static TARGET double sweep_delta(const float *h, int32_t n_host, const shift_in *in, bool raw, float *x) {
    sums sum = NO_SUMS;
    for (int32_t at = 0; at < n_host; at += BLOCK) {
        int32_t n = n_host - at < BLOCK ? n_host - at : BLOCK;
        gather_block(in, at, n, x + at);
        if (!raw) {
            sum_block(&sum, h + at, x + at, in->map->complete ? NULL : in->map->to + at, n);
        }
    }
    return sums_centre(&sum);
}

/* out += x - c where mapped. */
static TARGET void add_mapped(float *out, const float *x, double c, const cmc_map *m) {
    __m256 centre = _mm256_set1_ps((float)c);
    for (int32_t i = 0; i < m->n_host; i += 8) {
        int32_t left = m->n_host - i;
        __m256 old = load_lanes(out + i, left, 0);
        __m256 new = _mm256_add_ps(old, _mm256_sub_ps(load_lanes(x + i, left, 0), centre));
        if (!m->complete) {
            new = _mm256_blendv_ps(new, old, _mm256_castsi256_ps(load_ids(m->to + i, left)));
        }
        store_lanes(out + i, left, new);
    }
}

/* The union of the maps over a block, as ids whose sign bit says "mapped by none". */
static TARGET void unite_block(const shift_in *in, size_t n_in, int32_t at, int32_t n, int32_t *none) {
    memcpy(none, in[0].map->to + at, (size_t)n * sizeof *none);
    for (size_t k = 1; k < n_in; k++) {
        const int32_t *to = in[k].map->to + at;
        for (int32_t i = 0; i < n; i++) {
            none[i] &= to[i];
        }
    }
}

/* Several deltas: the sum of their centred shifts is centred once more, over the union of their tokens. */
static TARGET void apply_several(float *h, int32_t n_host, const shift_in *in, size_t n_in, bool raw, float *work) {
    float *s = work, *x = work + n_host;
    memset(s, 0, (size_t)n_host * sizeof *s);
    for (size_t k = 0; k < n_in; k++) {
        double c = sweep_delta(h, n_host, &in[k], raw, x);
        add_mapped(s, x, c, in[k].map);
    }
    int32_t none[BLOCK];
    sums sum = NO_SUMS;
    for (int32_t at = 0; !raw && at < n_host; at += BLOCK) {
        int32_t n = n_host - at < BLOCK ? n_host - at : BLOCK;
        unite_block(in, n_in, at, n, none);
        sum_block(&sum, h + at, s + at, none, n);
    }
    __m256 centre = _mm256_set1_ps((float)sums_centre(&sum));
    for (int32_t at = 0; at < n_host; at += BLOCK) {
        int32_t n = n_host - at < BLOCK ? n_host - at : BLOCK;
        unite_block(in, n_in, at, n, none);
        for (int32_t i = 0; i < n; i += 8) {
            __m256 old = load_lanes(h + at + i, n - i, 0);
            __m256 new = _mm256_add_ps(old, _mm256_sub_ps(load_lanes(s + at + i, n - i, 0), centre));
            store_lanes(h + at + i, n - i, _mm256_blendv_ps(new, old, _mm256_castsi256_ps(load_ids(none + i, n - i))));
        }
    }
}

/* One delta: its own centring leaves sum_M unchanged already, so C = 0. */
static TARGET void apply_avx2(float *h, int32_t n_host, const shift_in *in, size_t n_in, bool raw, float *work) {
    if (n_in == 1) {
        double c = sweep_delta(h, n_host, in, raw, work);
        add_mapped(h, work, c, in->map);
    } else {
        apply_several(h, n_host, in, n_in, raw, work);
    }
}

/* sum over M (to NULL: over everything) of e^(o - *top). */
static TARGET double sum_softmax(const float *o, const int32_t *to, int32_t n, float *top) {
    __m256 v = _mm256_set1_ps(-INFINITY);
    for (int32_t i = 0; i < n; i += 8) {
        v = _mm256_max_ps(v, load_mapped(o + i, to ? to + i : NULL, n - i));
    }
    *top = max_lanes(v);
    if (*top == -INFINITY) {
        return 0;
    }
    double sum = 0;
    for (int32_t at = 0; at < n; at += BLOCK) {
        __m256 acc = _mm256_setzero_ps();
        for (int32_t i = at; i < n && i < at + BLOCK; i += 8) {
            __m256 u = _mm256_sub_ps(load_mapped(o + i, to ? to + i : NULL, n - i), _mm256_set1_ps(*top));
            acc = _mm256_add_ps(acc, exp_lanes(u));
        }
        sum += sum_lanes(acc);
    }
    return sum;
}

static TARGET void transpose_avx2(const cmc_map *m, float alpha, bool raw, const float *o, int32_t target, float *ddelta) {
    float top, p[BLOCK];
    double sum = sum_softmax(o, raw || m->complete ? NULL : m->to, m->n_host, &top);
    if (sum == 0) {
        return;
    }
    __m256 scale = _mm256_set1_ps((float)((double)alpha / sum));
    for (int32_t at = 0; at < m->n_host; at += BLOCK) {
        int32_t n = m->n_host - at < BLOCK ? m->n_host - at : BLOCK;
        for (int32_t i = 0; i < n; i += 8) {
            __m256 u = _mm256_sub_ps(load_mapped(o + at + i, m->to + at + i, n - i), _mm256_set1_ps(top));
            store_lanes(p + i, n - i, _mm256_mul_ps(scale, exp_lanes(u)));
        }
        for (int32_t i = 0; i < n; i++) {
            int32_t to = m->to[at + i];
            if (to >= 0) {
                ddelta[to] += p[i];
            }
        }
    }
    if (m->to[target] >= 0) {
        ddelta[m->to[target]] -= alpha;
    }
}

static bool have_avx2(void) {
    return __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma");
}

#endif

void shift_apply(float *logits, int32_t n_host, const shift_in *in, size_t n, bool raw, float *work) {
    if (n == 0) {
        return;
    }
#ifdef SHIFT_AVX2
    if (have_avx2()) {
        apply_avx2(logits, n_host, in, n, raw, work);
        return;
    }
#endif
    shift_apply_plain(logits, n_host, in, n, raw, work);
}

void shift_transpose(const cmc_map *m, float alpha, bool raw, const float *host_logits, const float *steered_logits,
                     int32_t target, float *ddelta) {
#ifdef SHIFT_AVX2
    if (have_avx2()) {
        if (raw || m->to[target] >= 0) {
            transpose_avx2(m, alpha, raw, steered_logits, target, ddelta);
        }
        return;
    }
#endif
    shift_transpose_plain(m, alpha, raw, host_logits, steered_logits, target, ddelta);
}
