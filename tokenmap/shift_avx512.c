/* A block of one delta's shift in AVX-512, added where it is found: nothing is stored but the sums and the logits themselves. */
#include "tokenmap/shift_impl.h"

#ifdef SHIFT_X86
#include <immintrin.h>

#define TARGET __attribute__((target("avx512f,avx512bw,avx512vl")))
#define INLINE static inline __attribute__((always_inline)) TARGET

enum { LANES = 16, AHEAD = SHIFT_BLOCK };

INLINE __mmask16 lanes_below(int32_t left) {
    return (__mmask16)(left >= LANES ? 0xFFFFu : (1u << left) - 1);
}

/* e^x for x <= 0, as lanes_exp in shift_lanes.h. */
INLINE __m512 exp_lanes(__m512 x) {
    x = _mm512_max_ps(_mm512_mul_ps(x, _mm512_set1_ps(1.44269504f)), _mm512_set1_ps(-126.0f));
    __m512 n = _mm512_roundscale_ps(x, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC);
    __m512 r = _mm512_sub_ps(x, n);
    __m512 p = _mm512_set1_ps(1.535336188319500e-4f);
    p = _mm512_fmadd_ps(p, r, _mm512_set1_ps(1.339887440266574e-3f));
    p = _mm512_fmadd_ps(p, r, _mm512_set1_ps(9.618437357674640e-3f));
    p = _mm512_fmadd_ps(p, r, _mm512_set1_ps(5.550332471162809e-2f));
    p = _mm512_fmadd_ps(p, r, _mm512_set1_ps(2.402264791363012e-1f));
    p = _mm512_fmadd_ps(p, r, _mm512_set1_ps(6.931472028550421e-1f));
    p = _mm512_fmadd_ps(p, r, _mm512_set1_ps(1.0f));
    return _mm512_scalef_ps(p, n);
}

INLINE double sum_lanes(__m512 v) {
    __m512d low = _mm512_cvtps_pd(_mm512_castps512_ps256(v));
    __m512d high = _mm512_cvtps_pd(_mm256_castpd_ps(_mm512_extractf64x4_pd(_mm512_castps_pd(v), 1)));
    return _mm512_reduce_add_pd(_mm512_add_pd(low, high));
}

/* A block's logits and what is added to them, up to whole lanes; -inf and anything where unmapped. */
typedef struct block_rows {
    _Alignas(64) float h[SHIFT_BLOCK];
    _Alignas(64) float x[SHIFT_BLOCK];
} block_rows;

/* The delta's ids of host tokens from i on, those of `here`; which of them are mapped. What is read was last used a step ago, so what
 * follows is asked of memory. */
INLINE __m512i ids_at(const cmc_map *m, int32_t i, __mmask16 here, __mmask16 *mapped) {
    __m512i id;
    if (m->to_short) {
        _mm_prefetch((const char *)((uintptr_t)(m->to_short + i) + AHEAD * sizeof *m->to_short), _MM_HINT_T0);
        id = _mm512_cvtepi16_epi32(_mm256_maskz_loadu_epi16(here, m->to_short + i));
    } else {
        _mm_prefetch((const char *)((uintptr_t)(m->to + i) + AHEAD * sizeof *m->to), _MM_HINT_T0);
        id = _mm512_maskz_loadu_epi32(here, m->to + i);
    }
    *mapped = _mm512_mask_cmpge_epi32_mask(here, id, _mm512_setzero_si512());
    return id;
}

/* d[id] of n ids, up to whole lanes: one by one, for the instruction that gathers them makes a block take a tenth longer (Zen 4). */
INLINE void gather(const float *d, const int32_t *ids, int32_t n, float *out) {
    for (int32_t i = 0; i < n; i += LANES) {
        for (int32_t k = i; k < i + LANES; k += 4) {
            const __m128 low = _mm_insert_ps(_mm_load_ss(d + ids[k]), _mm_load_ss(d + ids[k + 1]), 0x10);
            const __m128 high = _mm_insert_ps(_mm_load_ss(d + ids[k + 2]), _mm_load_ss(d + ids[k + 3]), 0x10);
            _mm_store_ps(out + k, _mm_movelh_ps(low, high));
        }
    }
}

/* The ids of host tokens [at, at + n), up to whole lanes, 0 for the unmapped; which are mapped; and the delta's logits there. */
INLINE void gather_block(const shift_in *in, int32_t at, int32_t n, __mmask16 *mapped, float *out) {
    _Alignas(64) int32_t ids[SHIFT_BLOCK];
    for (int32_t i = 0; i < n; i += LANES) {
        const __m512i id = ids_at(in->map, at + i, lanes_below(n - i), &mapped[i / LANES]);
        _mm512_store_si512(ids + i, _mm512_max_epi32(id, _mm512_setzero_si512()));
    }
    gather(in->logits, ids, n, out);
}

/* Gives the greatest logit of a mapped token. h: the first of the block. */
INLINE float add_gathered(float *h, const shift_in *in, int32_t at, int32_t n, block_rows *r) {
    const __m512 alpha = _mm512_set1_ps(in->alpha), nothing = _mm512_set1_ps(-INFINITY);
    __mmask16 mapped[SHIFT_BLOCK / LANES];
    __m512 top = nothing;
    gather_block(in, at, n, mapped, r->x);
    for (int32_t i = 0; i < n; i += LANES) {
        _mm_prefetch((const char *)((uintptr_t)(h + i) + AHEAD * sizeof *h), _MM_HINT_T0);
        const __mmask16 known = mapped[i / LANES];
        const __m512 old = _mm512_mask_loadu_ps(nothing, known, h + i), x = _mm512_mul_ps(alpha, _mm512_load_ps(r->x + i));
        _mm512_mask_storeu_ps(h + i, known, _mm512_add_ps(old, x));
        _mm512_store_ps(r->h + i, old);
        _mm512_store_ps(r->x + i, x);
        top = _mm512_max_ps(top, old);
    }
    return _mm512_reduce_max_ps(top);
}

INLINE void add_sums(shift_sums *sum, const block_rows *r, int32_t n) {
    const __m512 ref_h = _mm512_set1_ps(sum->top_h);
    __m512 top = _mm512_set1_ps(-INFINITY), acc_h = _mm512_setzero_ps(), acc_y = _mm512_setzero_ps();
    for (int32_t i = 0; i < n; i += LANES) {
        top = _mm512_max_ps(top, _mm512_add_ps(_mm512_sub_ps(_mm512_load_ps(r->h + i), ref_h), _mm512_load_ps(r->x + i)));
    }
    shift_raise_y(sum, (double)_mm512_reduce_max_ps(top));
    const __m512 ref_y = _mm512_set1_ps((float)sum->top_y);
    for (int32_t i = 0; i < n; i += LANES) {
        const __m512 u = _mm512_sub_ps(_mm512_load_ps(r->h + i), ref_h), y = _mm512_add_ps(u, _mm512_load_ps(r->x + i));
        acc_h = _mm512_add_ps(acc_h, exp_lanes(u));
        acc_y = _mm512_add_ps(acc_y, exp_lanes(_mm512_sub_ps(y, ref_y)));
    }
    sum->sum_h += sum_lanes(acc_h);
    sum->sum_y += sum_lanes(acc_y);
}

TARGET void shift_add_avx512(float *h, const shift_in *in, bool raw, int32_t at, int32_t n, shift_sums *sum) {
    block_rows r;
    const float top = add_gathered(h + at, in, at, n, &r);
    if (raw) {
        return;
    }
    shift_raise_h(sum, top);
    if (sum->top_h > -INFINITY) {
        add_sums(sum, &r, n);
    }
}

TARGET void shift_centre_avx512(float *h, const cmc_map *m, int32_t lo, int32_t hi, double centre) {
    const __m512 c = _mm512_set1_ps((float)centre);
    for (int32_t i = lo; i < hi; i += LANES) {
        __mmask16 mapped;
        ids_at(m, i, lanes_below(hi - i), &mapped);
        _mm512_mask_storeu_ps(h + i, mapped, _mm512_sub_ps(_mm512_maskz_loadu_ps(mapped, h + i), c));
    }
}

/* The greatest of n logits; *odd: one is NaN. */
INLINE float top_of(const float *h, int32_t n, bool *odd) {
    __m512 top = _mm512_set1_ps(-INFINITY), second = top;
    __mmask16 nan = 0;
    int32_t i = 0;
    for (; i + 2 * LANES <= n; i += 2 * LANES) {
        const __m512 a = _mm512_loadu_ps(h + i), b = _mm512_loadu_ps(h + i + LANES);
        _mm_prefetch((const char *)((uintptr_t)(h + i) + AHEAD * sizeof *h), _MM_HINT_T0);
        _mm_prefetch((const char *)((uintptr_t)(h + i + LANES) + AHEAD * sizeof *h), _MM_HINT_T0);
        nan |= _mm512_cmp_ps_mask(a, b, _CMP_UNORD_Q);
        top = _mm512_max_ps(top, a);
        second = _mm512_max_ps(second, b);
    }
    for (; i < n; i += LANES) {
        const __m512 v = _mm512_mask_loadu_ps(top, lanes_below(n - i), h + i);
        nan |= _mm512_cmp_ps_mask(v, v, _CMP_UNORD_Q);
        top = _mm512_max_ps(top, v);
    }
    *odd |= nan != 0;
    return _mm512_reduce_max_ps(_mm512_max_ps(top, second));
}

TARGET void shift_look_avx512(const float *row, const shift_in *in, const shift_span *span, int32_t at, int32_t n, shift_best *best) {
    const float *h = row + at;
    if (top_of(h, n, &best->odd) < best->bar) {
        return;
    }
    const __m512 alpha = _mm512_set1_ps(in->alpha), nothing = _mm512_set1_ps(-INFINITY);
    _Alignas(64) float y[SHIFT_BLOCK];
    __mmask16 mapped[SHIFT_BLOCK / LANES];
    __m512 top = nothing, next = nothing, outside = nothing;
    gather_block(in, at, n, mapped, y);
    for (int32_t i = 0; i < n; i += LANES) {
        const __mmask16 known = mapped[i / LANES];
        const __m512 own = _mm512_mask_loadu_ps(nothing, lanes_below(n - i), h + i);
        const __m512 sum = _mm512_mask_add_ps(nothing, known, own, _mm512_mul_ps(alpha, _mm512_load_ps(y + i)));
        _mm512_store_ps(y + i, sum);
        next = _mm512_max_ps(next, _mm512_min_ps(top, sum));
        top = _mm512_max_ps(top, sum);
        outside = _mm512_mask_max_ps(outside, (__mmask16)~known, outside, own);
    }
    best->free = fmaxf(best->free, _mm512_reduce_max_ps(outside));
    const float highest = _mm512_reduce_max_ps(top);
    if (highest > best->next) {   /* else the block changes neither */
        const unsigned at_top = _mm512_cmp_ps_mask(top, _mm512_set1_ps(highest), _CMP_EQ_OQ);
        const __m512 others = _mm512_mask_mov_ps(top, (__mmask16)(at_top & -at_top), nothing);
        shift_take_best(best, span, y, at, highest, _mm512_reduce_max_ps(_mm512_max_ps(next, others)));
    }
}

bool shift_have_avx512(void) {
    return __builtin_cpu_supports("avx2") && __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
           __builtin_cpu_supports("avx512vl");
}
#endif
