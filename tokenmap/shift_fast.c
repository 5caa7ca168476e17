/* The shift and its transpose, fast: one sweep over the host's vocabulary for each sum of exponentials, AVX2 where
 * the machine has it (and one delta's sweep in AVX-512: shift_avx512.c). The same results as shift.c up to rounding.
 *
 * A sum is kept online: each block is taken relative to the greatest logit seen so far, and what was summed before is
 * rescaled when that grows. So a block's gathered shifts are used while they are in the first-level cache. In a row
 * of shifts, -inf says that the token is not mapped: no map entry has to be looked at twice. */
#include "tokenmap/shift_impl.h"

#ifdef SHIFT_X86
#include <immintrin.h>

#define TARGET __attribute__((target("avx2,fma")))
#define INLINE static inline __attribute__((always_inline)) TARGET

enum { BLOCK = SHIFT_BLOCK, LANES = 8 };

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

/* e^x for x <= 0, relative error under 2e-7 (1 + |x|); never less than 2^-126. With x log2(e) = n + r, |r| <= 1/2:
 * 2^r by the polynomial of Cephes' exp2f, 2^n into the exponent. */
INLINE __m256 exp_lanes(__m256 x) {
    x = _mm256_max_ps(_mm256_mul_ps(x, _mm256_set1_ps(1.44269504f)), _mm256_set1_ps(-126.0f));
    __m256 n = _mm256_round_ps(x, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC);
    __m256 r = _mm256_sub_ps(x, n);
    __m256 p = _mm256_set1_ps(1.535336188319500e-4f);
    p = _mm256_fmadd_ps(p, r, _mm256_set1_ps(1.339887440266574e-3f));
    p = _mm256_fmadd_ps(p, r, _mm256_set1_ps(9.618437357674640e-3f));
    p = _mm256_fmadd_ps(p, r, _mm256_set1_ps(5.550332471162809e-2f));
    p = _mm256_fmadd_ps(p, r, _mm256_set1_ps(2.402264791363012e-1f));
    p = _mm256_fmadd_ps(p, r, _mm256_set1_ps(6.931472028550421e-1f));
    p = _mm256_fmadd_ps(p, r, _mm256_set1_ps(1.0f));
    return _mm256_castsi256_ps(_mm256_add_epi32(_mm256_castps_si256(p), _mm256_slli_epi32(_mm256_cvtps_epi32(n), 23)));
}

/* Runs STEP(i, left) over [0, n) in steps of LANES: `left` is the constant LANES in all but a last, partial step. */
#define FOR_LANES(n, STEP)                                   \
    do {                                                     \
        int32_t lane_i_ = 0;                                 \
        for (; lane_i_ + LANES <= (n); lane_i_ += LANES) {   \
            STEP(lane_i_, LANES);                            \
        }                                                    \
        if (lane_i_ < (n)) {                                 \
            STEP(lane_i_, (n) - lane_i_);                    \
        }                                                    \
    } while (0)

/* The first `left` lanes have their sign bit set: for masked loads and stores. */
INLINE __m256i lanes_below(int32_t left) {
    return _mm256_cmpgt_epi32(_mm256_set1_epi32(left), _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7));
}

/* Floats at v, -inf in the lanes from `left` on. */
INLINE __m256 load_lanes(const float *v, int32_t left) {
    if (left >= LANES) {
        return _mm256_loadu_ps(v);
    }
    __m256i mask = lanes_below(left);
    return _mm256_blendv_ps(_mm256_set1_ps(-INFINITY), _mm256_maskload_ps(v, mask), _mm256_castsi256_ps(mask));
}

/* Map entries, -1 (unmapped) in the lanes from `left` on. */
INLINE __m256i load_ids(const int32_t *v, int32_t left) {
    if (left >= LANES) {
        return _mm256_loadu_si256((const __m256i *)(const void *)v);
    }
    __m256i mask = lanes_below(left);
    return _mm256_or_si256(_mm256_maskload_epi32(v, mask), _mm256_xor_si256(mask, _mm256_set1_epi32(-1)));
}

INLINE void store_lanes(float *v, int32_t left, __m256 x) {
    if (left >= LANES) {
        _mm256_storeu_ps(v, x);
    } else {
        _mm256_maskstore_ps(v, lanes_below(left), x);
    }
}

INLINE __m256 is_unmapped(__m256 s) {
    return _mm256_cmp_ps(s, _mm256_set1_ps(-INFINITY), _CMP_EQ_OQ);
}

/* x = alpha d[to[i]] for n host tokens from `at` on, -inf where unmapped. */
INLINE void gather_block(const shift_in *in, int32_t at, int32_t n, float *x) {
    const __m256 alpha = _mm256_set1_ps(in->alpha), unmapped = _mm256_set1_ps(-INFINITY);
    const float *d = in->logits;
    if (in->map->identity) {
#define STEP(i, left) store_lanes(x + (i), left, _mm256_mul_ps(alpha, load_lanes(d + at + (i), left)))
        FOR_LANES(n, STEP);
#undef STEP
        return;
    }
    const int32_t *to = in->map->to + at;
#define STEP(i, left)                                                                                            \
    do {                                                                                                         \
        __m256i id = load_ids(to + (i), left);                                                                   \
        __m256 none = _mm256_castsi256_ps(id);                                                                   \
        __m256 all = _mm256_castsi256_ps(_mm256_set1_epi32(-1));                                                 \
        __m256 v = _mm256_mask_i32gather_ps(_mm256_setzero_ps(), d, id, _mm256_xor_ps(none, all), 4);            \
        store_lanes(x + (i), left, _mm256_blendv_ps(_mm256_mul_ps(alpha, v), unmapped, none));                   \
    } while (0)
    FOR_LANES(n, STEP);
#undef STEP
}

/* Adds a block of n <= BLOCK tokens with shifts s (-inf: not mapped) to the sums. */
INLINE void sum_block(shift_sums *sum, const float *h, const float *s, int32_t n) {
    float u[BLOCK], y[BLOCK];                    /* h, and h - top_h + s; -inf where unmapped, and up to whole lanes */
    const __m256 nothing = _mm256_set1_ps(-INFINITY);
    __m256 top = nothing;
#define STEP(i, left)                                                                                            \
    do {                                                                                                         \
        __m256 v = _mm256_blendv_ps(load_lanes(h + (i), left), nothing, is_unmapped(load_lanes(s + (i), left))); \
        _mm256_storeu_ps(u + (i), v);                                                                            \
        top = _mm256_max_ps(top, v);                                                                             \
    } while (0)
    FOR_LANES(n, STEP);
#undef STEP
    shift_raise_h(sum, max_lanes(top));
    if (sum->top_h == -INFINITY) {
        return;
    }
    const __m256 ref_h = _mm256_set1_ps(sum->top_h);
    top = nothing;
#define STEP(i, left)                                                                                            \
    do {                                                                                                         \
        __m256 v = _mm256_add_ps(_mm256_sub_ps(_mm256_loadu_ps(u + (i)), ref_h), load_lanes(s + (i), left));     \
        _mm256_storeu_ps(y + (i), v);                                                                            \
        top = _mm256_max_ps(top, v);                                                                             \
    } while (0)
    FOR_LANES(n, STEP);
#undef STEP
    shift_raise_y(sum, (double)max_lanes(top));
    const __m256 ref_y = _mm256_set1_ps((float)sum->top_y);
    __m256 acc_h = _mm256_setzero_ps(), acc_y = _mm256_setzero_ps();
    for (int32_t i = 0; i < n; i += LANES) {
        acc_h = _mm256_add_ps(acc_h, exp_lanes(_mm256_sub_ps(_mm256_loadu_ps(u + i), ref_h)));
        acc_y = _mm256_add_ps(acc_y, exp_lanes(_mm256_sub_ps(_mm256_loadu_ps(y + i), ref_y)));
    }
    sum->sum_h += sum_lanes(acc_h);
    sum->sum_y += sum_lanes(acc_y);
}

static double sums_centre(const shift_sums *sum) {
    return sum->sum_h > 0 ? sum->top_y + log(sum->sum_y) - log(sum->sum_h) : 0;
}

static int32_t block_at(int32_t at, int32_t n) {
    return n - at < BLOCK ? n - at : BLOCK;
}

/* Host tokens [*lo, *hi) of a part: whole blocks, so that it makes no difference to a block which part it is in. */
static void part_range(int32_t n_host, int part, int32_t *lo, int32_t *hi) {
    const int64_t blocks = (n_host + BLOCK - 1) / BLOCK;
    const int64_t first = blocks * part / SHIFT_PARTS * BLOCK, last = blocks * (part + 1) / SHIFT_PARTS * BLOCK;
    *lo = (int32_t)first;
    *hi = last < n_host ? (int32_t)last : n_host;
}

TARGET void shift_sweep_avx2(const float *h, const shift_in *in, bool raw, float *x, int32_t lo, int32_t hi, shift_sums *out) {
    *out = SHIFT_NO_SUMS;
    for (int32_t at = lo; at < hi; at += BLOCK) {
        int32_t n = block_at(at, hi);
        gather_block(in, at, n, x + at);
        if (!raw) {
            sum_block(out, h + at, x + at, n);
        }
    }
}

/* Loading what stands in a row is faster than packing it. */
static void sweep_part(const float *h, int32_t n_host, const shift_in *in, bool raw, float *x, int part, shift_sums *out) {
    int32_t lo, hi;
    part_range(n_host, part, &lo, &hi);
    bool wide = shift_have_avx512() && !in->map->identity;
    (wide ? shift_sweep_avx512 : shift_sweep_avx2)(h, in, raw, x, lo, hi, out);
}

/* The centre of all parts together: each part's sums are taken relative to the greatest references. */
static double parts_centre(const shift_sums *part) {
    shift_sums all = SHIFT_NO_SUMS;
    for (int p = 0; p < SHIFT_PARTS; p++) {
        all.top_h = fmaxf(all.top_h, part[p].top_h);
    }
    for (int p = 0; p < SHIFT_PARTS; p++) {
        all.top_y = fmax(all.top_y, part[p].top_y + ((double)part[p].top_h - (double)all.top_h));
    }
    for (int p = 0; p < SHIFT_PARTS; p++) {
        if (part[p].top_h > -INFINITY) {
            double below = (double)part[p].top_h - (double)all.top_h;
            all.sum_h += part[p].sum_h * exp(below);
            all.sum_y += part[p].sum_y * exp(part[p].top_y + below - all.top_y);
        }
    }
    return sums_centre(&all);
}

/* x = one delta's alpha d[map[i]], -inf where unmapped; gives its centre. */
static double sweep_delta(const float *h, int32_t n_host, const shift_in *in, bool raw, float *x) {
    shift_sums part[SHIFT_PARTS];
    for (int p = 0; p < SHIFT_PARTS; p++) {
        sweep_part(h, n_host, in, raw, x, p, &part[p]);
    }
    return parts_centre(part);
}

/* h += s - c where mapped. */
static TARGET void add_shift(float *h, int32_t n_host, const float *s, double c) {
    const __m256 centre = _mm256_set1_ps((float)c);
#define STEP(i, left)                                                                                            \
    do {                                                                                                         \
        __m256 old = load_lanes(h + (i), left), x = load_lanes(s + (i), left);                                   \
        __m256 sum = _mm256_add_ps(old, _mm256_sub_ps(x, centre));                                               \
        store_lanes(h + (i), left, _mm256_blendv_ps(sum, old, is_unmapped(x)));                                  \
    } while (0)
    FOR_LANES(n_host, STEP);
#undef STEP
}

/* s += x - c where x is mapped, both with -inf for unmapped. */
static TARGET void unite_shift(float *s, int32_t n_host, const float *x, double c) {
    const __m256 centre = _mm256_set1_ps((float)c);
#define STEP(i, left)                                                                                            \
    do {                                                                                                         \
        __m256 old = load_lanes(s + (i), left), v = load_lanes(x + (i), left);                                   \
        __m256 before = _mm256_andnot_ps(is_unmapped(old), old);                                                 \
        __m256 sum = _mm256_add_ps(before, _mm256_sub_ps(v, centre));                                            \
        store_lanes(s + (i), left, _mm256_blendv_ps(sum, old, is_unmapped(v)));                                  \
    } while (0)
    FOR_LANES(n_host, STEP);
#undef STEP
}

/* Several deltas: the sum of their centred shifts is centred once more, over the union of their tokens. */
static TARGET void apply_several(float *h, int32_t n_host, const shift_in *in, size_t n_in, bool raw, float *work) {
    float *s = work, *x = work + n_host;
    for (int32_t i = 0; i < n_host; i++) {
        s[i] = -INFINITY;
    }
    for (size_t k = 0; k < n_in; k++) {
        double c = sweep_delta(h, n_host, &in[k], raw, x);
        unite_shift(s, n_host, x, c);
    }
    shift_sums sum = SHIFT_NO_SUMS;
    for (int32_t at = 0; !raw && at < n_host; at += BLOCK) {
        sum_block(&sum, h + at, s + at, block_at(at, n_host));
    }
    add_shift(h, n_host, s, sums_centre(&sum));
}

/* One delta: its own centring leaves the sum over M unchanged already, so C = 0. */
static void apply_avx2(float *h, int32_t n_host, const shift_in *in, size_t n_in, bool raw, float *work) {
    if (n_in == 1) {
        double c = sweep_delta(h, n_host, in, raw, work);
        add_shift(h, n_host, work, c);
    } else {
        apply_several(h, n_host, in, n_in, raw, work);
    }
}

/* o where the map's entry is not -1 (to NULL: everywhere), else -inf. */
INLINE __m256 load_mapped(const float *o, const int32_t *to, int32_t left) {
    __m256 v = load_lanes(o, left);
    return to ? _mm256_blendv_ps(v, _mm256_set1_ps(-INFINITY), _mm256_castsi256_ps(load_ids(to, left))) : v;
}

/* sum over M (to NULL: over everything) of e^(o - *top); 0 where all of M is banned. */
static TARGET double sum_softmax(const float *o, const int32_t *to, int32_t n, float *top) {
    __m256 v = _mm256_set1_ps(-INFINITY);
#define STEP(i, left) v = _mm256_max_ps(v, load_mapped(o + (i), to ? to + (i) : NULL, left))
    FOR_LANES(n, STEP);
#undef STEP
    *top = max_lanes(v);
    const __m256 ref = _mm256_set1_ps(*top);
    double sum = 0;
    for (int32_t at = 0; *top > -INFINITY && at < n; at += BLOCK) {
        __m256 acc = _mm256_setzero_ps();
#define STEP(i, left) \
    acc = _mm256_add_ps(acc, exp_lanes(_mm256_sub_ps(load_mapped(o + at + (i), to ? to + at + (i) : NULL, left), ref)))
        FOR_LANES(block_at(at, n), STEP);
#undef STEP
        sum += sum_lanes(acc);
    }
    return sum;
}

static TARGET bool any_nan(const float *o, int32_t n) {
    __m256 odd = _mm256_setzero_ps();
#define STEP(i, left)                                                                                            \
    do {                                                                                                         \
        __m256 v = load_lanes(o + (i), left);                                                                    \
        odd = _mm256_or_ps(odd, _mm256_cmp_ps(v, v, _CMP_UNORD_Q));                                              \
    } while (0)
    FOR_LANES(n, STEP);
#undef STEP
    return _mm256_movemask_ps(odd) != 0;
}

static double log_sum_avx2(const float *o, int32_t n) {
    float top;
    if (any_nan(o, n)) {
        return NAN;
    }
    double sum = sum_softmax(o, NULL, n, &top);
    return sum > 0 ? (double)top + log(sum) : -INFINITY;
}

/* cell[i] and p[i] say what a block of the gradient adds where. An unmapped token adds 0 to one of the first cells:
 * which tokens are mapped follows no pattern, and a branch on it costs more than all the rest. */
INLINE void transpose_block(const float *o, const int32_t *to, int32_t n, __m256 ref, __m256 scale, __m256i spare,
                            int32_t *cell, float *p) {
#define STEP(i, left)                                                                                            \
    do {                                                                                                         \
        __m256i id = load_ids(to + (i), left);                                                                   \
        __m256 none = _mm256_castsi256_ps(id), u = _mm256_sub_ps(load_mapped(o + (i), to + (i), left), ref);     \
        __m256 at = _mm256_blendv_ps(none, _mm256_castsi256_ps(spare), none);                                    \
        __m256 v = _mm256_blendv_ps(_mm256_mul_ps(scale, exp_lanes(u)), _mm256_setzero_ps(), none);              \
        _mm256_storeu_si256((__m256i *)(void *)(cell + (i)), _mm256_castps_si256(at));                           \
        _mm256_storeu_ps(p + (i), v);                                                                            \
    } while (0)
    FOR_LANES(n, STEP);
#undef STEP
}

static TARGET void transpose_avx2(const cmc_map *m, float alpha, bool raw, const float *o, int32_t target,
                                  float *ddelta) {
    float top, p[BLOCK];
    int32_t cell[BLOCK];
    double sum = sum_softmax(o, raw || m->complete ? NULL : m->to, m->n_host, &top);
    if (sum == 0) {
        return;
    }
    const __m256 scale = _mm256_set1_ps((float)((double)alpha / sum)), ref = _mm256_set1_ps(top);
    const __m256i first = _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7);
    const __m256i spare = _mm256_min_epi32(first, _mm256_set1_epi32(m->n_delta - 1));
    for (int32_t at = 0; at < m->n_host; at += BLOCK) {
        int32_t n = block_at(at, m->n_host);
        transpose_block(o + at, m->to + at, n, ref, scale, spare, cell, p);
        if (m->identity) {
            for (int32_t i = 0; i < n; i++) {
                ddelta[at + i] += p[i];
            }
        } else {
            for (int32_t i = 0; i < n; i++) {
                ddelta[cell[i]] += p[i];
            }
        }
    }
    if (m->to[target] >= 0) {
        ddelta[m->to[target]] -= alpha;
    }
}

bool shift_have_avx2(void) {
    return __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma");
}

#endif

bool shift_has_parts(void) {
#ifdef SHIFT_X86
    return shift_have_avx2();
#else
    return false;
#endif
}

void shift_part_sum(const float *logits, int32_t n_host, const shift_in *in, bool raw, float *work, int part, shift_sums *out) {
#ifdef SHIFT_X86
    sweep_part(logits, n_host, in, raw, work, part, out);
#else
    (void)logits, (void)n_host, (void)in, (void)raw, (void)work, (void)part, (void)out;
#endif
}

void shift_part_add(float *logits, int32_t n_host, const float *work, const shift_sums sums[SHIFT_PARTS], int part) {
#ifdef SHIFT_X86
    int32_t lo, hi;
    part_range(n_host, part, &lo, &hi);
    if (lo < hi) {
        add_shift(logits + lo, hi - lo, work + lo, parts_centre(sums));
    }
#else
    (void)logits, (void)n_host, (void)work, (void)sums, (void)part;
#endif
}

void shift_apply(float *logits, int32_t n_host, const shift_in *in, size_t n, bool raw, float *work) {
    if (n == 0) {
        return;
    }
#ifdef SHIFT_X86
    if (shift_have_avx2()) {
        apply_avx2(logits, n_host, in, n, raw, work);
        return;
    }
#endif
    shift_apply_plain(logits, n_host, in, n, raw, work);
}

double shift_log_sum(const float *logits, int32_t n) {
#ifdef SHIFT_X86
    if (shift_have_avx2()) {
        return log_sum_avx2(logits, n);
    }
#endif
    return shift_log_sum_plain(logits, n);
}

void shift_transpose(const cmc_map *m, float alpha, bool raw, const float *host_logits, const float *steered_logits,
                     int32_t target, float *ddelta) {
#ifdef SHIFT_X86
    if (shift_have_avx2()) {
        if (raw || m->to[target] >= 0) {
            transpose_avx2(m, alpha, raw, steered_logits, target, ddelta);
        }
        return;
    }
#endif
    shift_transpose_plain(m, alpha, raw, host_logits, steered_logits, target, ddelta);
}
