/* One delta's sweep over the host's vocabulary in AVX-512. A gather costs more than everything else together, and of many
 * hosts' tokens half are unmapped: a block's mapped tokens are packed first, and only they are gathered and summed. */
#include "tokenmap/shift_impl.h"

#ifdef SHIFT_X86
#include <immintrin.h>

#define TARGET __attribute__((target("avx512f")))
#define INLINE static inline __attribute__((always_inline)) TARGET

enum { LANES = 16, GROUPS = SHIFT_BLOCK / LANES };

/* A block's mapped tokens side by side, filled up to whole lanes with what weighs nothing. */
typedef struct packed {
    _Alignas(64) float h[SHIFT_BLOCK + LANES];
    _Alignas(64) float x[SHIFT_BLOCK + LANES];
    _Alignas(64) int32_t id[SHIFT_BLOCK + LANES];
    __mmask16 mapped[GROUPS];   /* where in the block they come from */
    int32_t n;
} packed;

INLINE __mmask16 lanes_below(int32_t left) {
    return (__mmask16)(left >= LANES ? 0xFFFFu : (1u << left) - 1);
}

/* e^x for x <= 0, as in shift_fast.c. */
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

INLINE void pack(const float *h, const int32_t *to, int32_t n, packed *p) {
    p->n = 0;
    for (int32_t i = 0; i < n; i += LANES) {
        __mmask16 here = lanes_below(n - i);
        __m512i id = _mm512_maskz_loadu_epi32(here, to + i);
        __mmask16 mapped = _mm512_mask_cmpge_epi32_mask(here, id, _mm512_setzero_si512());
        _mm512_storeu_si512(p->id + p->n, _mm512_maskz_compress_epi32(mapped, id));
        _mm512_storeu_ps(p->h + p->n, _mm512_maskz_compress_ps(mapped, _mm512_maskz_loadu_ps(here, h + i)));
        p->mapped[i / LANES] = mapped;
        p->n += __builtin_popcount(mapped);
    }
    _mm512_storeu_si512(p->id + p->n, _mm512_setzero_si512());
    _mm512_storeu_ps(p->h + p->n, _mm512_set1_ps(-INFINITY));
}

/* The packed tokens' alpha d[map[i]]. */
INLINE void gather(const shift_in *in, packed *p) {
    const __m512 alpha = _mm512_set1_ps(in->alpha);
    for (int32_t i = 0; i < p->n; i += LANES) {
        __m512 d = _mm512_i32gather_ps(_mm512_load_si512(p->id + i), in->logits, sizeof(float));
        _mm512_store_ps(p->x + i, _mm512_mul_ps(alpha, d));
    }
}

INLINE void unpack(const packed *p, int32_t n, float *x) {
    const float *from = p->x;
    for (int32_t i = 0; i < n; i += LANES) {
        __mmask16 mapped = p->mapped[i / LANES];
        __m512 v = _mm512_mask_expand_ps(_mm512_set1_ps(-INFINITY), mapped, _mm512_loadu_ps(from));
        _mm512_mask_storeu_ps(x + i, lanes_below(n - i), v);
        from += __builtin_popcount(mapped);
    }
}

INLINE void add_sums(shift_sums *sum, const packed *p) {
    __m512 top = _mm512_set1_ps(-INFINITY);
    for (int32_t i = 0; i < p->n; i += LANES) {
        top = _mm512_max_ps(top, _mm512_load_ps(p->h + i));
    }
    shift_raise_h(sum, _mm512_reduce_max_ps(top));
    if (sum->top_h == -INFINITY) {
        return;
    }
    const __m512 ref_h = _mm512_set1_ps(sum->top_h);
    top = _mm512_set1_ps(-INFINITY);
    for (int32_t i = 0; i < p->n; i += LANES) {
        __m512 u = _mm512_sub_ps(_mm512_load_ps(p->h + i), ref_h);
        top = _mm512_max_ps(top, _mm512_add_ps(u, _mm512_load_ps(p->x + i)));
    }
    shift_raise_y(sum, (double)_mm512_reduce_max_ps(top));
    const __m512 ref_y = _mm512_set1_ps((float)sum->top_y);
    __m512 acc_h = _mm512_setzero_ps(), acc_y = _mm512_setzero_ps();
    for (int32_t i = 0; i < p->n; i += LANES) {
        __m512 u = _mm512_sub_ps(_mm512_load_ps(p->h + i), ref_h), y = _mm512_add_ps(u, _mm512_load_ps(p->x + i));
        acc_h = _mm512_add_ps(acc_h, exp_lanes(u));
        acc_y = _mm512_add_ps(acc_y, exp_lanes(_mm512_sub_ps(y, ref_y)));
    }
    sum->sum_h += sum_lanes(acc_h);
    sum->sum_y += sum_lanes(acc_y);
}

TARGET void shift_sweep_avx512(const float *h, const shift_in *in, bool raw, float *x, int32_t lo, int32_t hi, shift_sums *out) {
    packed p;
    *out = SHIFT_NO_SUMS;
    for (int32_t at = lo; at < hi; at += SHIFT_BLOCK) {
        int32_t n = hi - at < SHIFT_BLOCK ? hi - at : SHIFT_BLOCK;
        pack(h + at, in->map->to + at, n, &p);
        gather(in, &p);
        unpack(&p, n, x + at);
        if (!raw && p.n > 0) {
            add_sums(out, &p);
        }
    }
}

bool shift_have_avx512(void) {
    return __builtin_cpu_supports("avx2") && __builtin_cpu_supports("avx512f");
}
#endif
