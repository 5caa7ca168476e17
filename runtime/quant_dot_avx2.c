/* AVX2 dot products of quantised rows with int8 activations, and of float rows with floats.
 *
 * A kernel works on NR rows and NC columns at a time (compile-time constants): more columns use a group's unpacked bytes
 * several times, more rows give a lone column independent sums to overlap. Every result has accumulators of its own, so
 * its bits do not depend on what is computed beside it. */
#include "runtime/quant_impl.h"

#if defined(__x86_64__)
#include "runtime/quant_avx2.h"

enum { TILE_MAX = 4 };

/* Weights come from memory once a token, and the hardware's prefetcher stops at each page, and knows nothing of what
 * comes after the rows: asking for bytes ahead read Q4_1 1.7 times and Q6_K 2.7 times as fast (Zen 3). Where there is no
 * memory at that place it does nothing. */
enum { CACHE_LINE = 64 };

AVX2_INLINE void prefetch(const uint8_t *p, ptrdiff_t ahead, size_t bytes) {
    for (size_t i = 0; i < bytes; i += CACHE_LINE)
        _mm_prefetch((const char *)((uintptr_t)p + (uintptr_t)ahead + i), _MM_HINT_T0);
}

AVX2_INLINE float sum_8(__m256 v) {
    __m128 s = _mm_add_ps(_mm256_castps256_ps128(v), _mm256_extractf128_ps(v, 1));
    s = _mm_add_ps(s, _mm_movehl_ps(s, s));
    return _mm_cvtss_f32(_mm_add_ss(s, _mm_shuffle_ps(s, s, 1)));
}

/* 16 sums of two products u * y. Unsigned u as it is; signed u as |u| and the sign moved to y. No pair overflows:
 * 2 * 128 * 127 < 2^15. */
AVX2_INLINE __m256i dot_pairs(uint32_t type, __m256i u, __m256i u_abs, __m256i y) {
    return quant_is_signed(type) ? _mm256_maddubs_epi16(u_abs, _mm256_sign_epi8(y, u)) : _mm256_maddubs_epi16(u, y);
}

/* ------------------------------------------------------------------------------------------- blocks of 32 */

/* d, and in the second place m where the block has one (else bits of its values, unused), as floats. */
AVX2_INLINE __m128 block_scales(const uint8_t *b) {
    return _mm_cvtph_ps(_mm_cvtsi32_si128((int)quant_le32(b)));
}

AVX2_INLINE __m128 load_pair(const float *p) {
    return _mm_castsi128_ps(_mm_loadl_epi64((const __m128i *)(const void *)p));
}

/* The factors of a block's two parts: lane 0 of (d, m) * (activations' d, s) scales the integer sums, lane 1 is the addend
 * that the minimum makes; for a type with an offset (d, d) * (d, s), and the addend is -offset times lane 1. */
AVX2_INLINE void dot_blocks(uint32_t type, const int nr, const int nc, const quant_dot_args *a, size_t r0, size_t c0) {
    const size_t block = quant_block_bytes(type);
    const bool addend = quant_has_min(type) || quant_offset(type) != 0;
    const uint8_t *row = a->rows + r0 * a->row_stride;
    quant_act y[TILE_MAX];
    __m256 acc[TILE_MAX];
    __m128 add[TILE_MAX];
    for (int c = 0; c < nc; c++)
        y[c] = quant_act_view(a->acts + (c0 + (size_t)c) * a->act_stride, a->n);
    for (int i = 0; i < nr * nc; i++) {
        acc[i] = _mm256_setzero_ps();
        add[i] = _mm_setzero_ps();
    }
    for (size_t g = 0; g < a->n / QUANT_GROUP; g++) {
        QUANT_UNROLL
        for (int r = 0; r < nr; r++) {
            const uint8_t *b = row + (size_t)r * a->row_stride + g * block;
            __m256i u = avx2_unpack_block(type, b), u_abs = quant_is_signed(type) ? _mm256_abs_epi8(u) : u;
            __m128 dm = block_scales(b);
            prefetch(b, a->ahead, block);
            if (!quant_has_min(type))
                dm = _mm_moveldup_ps(dm);
            QUANT_UNROLL
            for (int c = 0; c < nc; c++) {
                __m256i p = dot_pairs(type, u, u_abs, avx2_load(y[c].q + g * QUANT_GROUP));
                __m256 sums = _mm256_cvtepi32_ps(_mm256_madd_epi16(p, _mm256_set1_epi16(1)));
                __m128 f = _mm_mul_ps(dm, load_pair(y[c].ds + 2 * g));
                acc[r * nc + c] = _mm256_fmadd_ps(_mm256_broadcastss_ps(f), sums, acc[r * nc + c]);
                if (addend)
                    add[r * nc + c] = _mm_add_ps(add[r * nc + c], f);
            }
        }
    }
    const float factor = quant_has_min(type) ? 1 : -(float)quant_offset(type);
    for (int r = 0; r < nr; r++) {
        for (int c = 0; c < nc; c++) {
            float sum = sum_8(acc[r * nc + c]) + (addend ? factor * _mm_cvtss_f32(_mm_movehdup_ps(add[r * nc + c])) : 0);
            a->out[(c0 + (size_t)c) * a->out_stride + r0 + (size_t)r] = sum;
        }
    }
}

/* ------------------------------------------------------------------------------------------- super-blocks */

/* What multiplies the activations' sums of the first and second halves of the 8 groups. */
typedef struct super_addend { __m256 first, second; } super_addend;

AVX2_INLINE super_addend super_addend_of(uint32_t type, const avx2_scales *s) {
    __m256i v = quant_has_min(type) ? s->min : s->scale;
    __m256 f = _mm256_set1_ps(quant_has_min(type) ? s->dmin : -(float)quant_offset(type) * s->d);
    super_addend out = {_mm256_mul_ps(f, avx2_low_floats(v)), _mm256_setzero_ps()};
    if (quant_has_halves(type))
        out.second = _mm256_mul_ps(f, avx2_high_floats(v));
    return out;
}

AVX2_INLINE __m256 super_add(uint32_t type, const super_addend *m, const quant_act *y, size_t g, __m256 add) {
    if (!quant_has_halves(type))
        return _mm256_fmadd_ps(m->first, _mm256_loadu_ps(y->s + g), add);
    add = _mm256_fmadd_ps(m->first, _mm256_loadu_ps(y->s0 + g), add);
    return _mm256_fmadd_ps(m->second, _mm256_loadu_ps(y->s1 + g), add);
}

AVX2_INLINE void dot_supers(uint32_t type, const int nr, const int nc, const quant_dot_args *a, size_t r0, size_t c0) {
    const size_t block = quant_block_bytes(type);
    const bool addend = quant_has_min(type) || quant_offset(type) != 0;
    const uint8_t *row = a->rows + r0 * a->row_stride;
    quant_act y[TILE_MAX];
    __m256 acc[TILE_MAX], add[TILE_MAX];
    for (int c = 0; c < nc; c++)
        y[c] = quant_act_view(a->acts + (c0 + (size_t)c) * a->act_stride, a->n);
    for (int i = 0; i < nr * nc; i++)
        acc[i] = add[i] = _mm256_setzero_ps();
    for (size_t g0 = 0; g0 < a->n / QUANT_GROUP; g0 += QUANT_SUPER_GROUPS, row += block) {
        __m256i scale[TILE_MAX];
        float d[TILE_MAX][QUANT_SUPER_GROUPS];   /* d of the weights times d of the activations */
        for (int r = 0; r < nr; r++) {
            avx2_scales s = avx2_scales_load(type, row + (size_t)r * a->row_stride);
            super_addend m = super_addend_of(type, &s);
            scale[r] = s.scale;
            prefetch(row + (size_t)r * a->row_stride, a->ahead, block);
            QUANT_UNROLL
            for (int c = 0; c < nc; c++) {
                _mm256_storeu_ps(d[r * nc + c], _mm256_mul_ps(_mm256_set1_ps(s.d), _mm256_loadu_ps(y[c].d + g0)));
                if (addend)
                    add[r * nc + c] = super_add(type, &m, &y[c], g0, add[r * nc + c]);
            }
        }
        QUANT_UNROLL
        for (int g = 0; g < QUANT_SUPER_GROUPS; g++) {
            const __m256i pick = _mm256_set1_epi16((short)(2 * g | (2 * g + 1) << 8));
            QUANT_UNROLL
            for (int r = 0; r < nr; r++) {
                __m256i u = avx2_unpack_super(type, row + (size_t)r * a->row_stride, g);
                __m256i u_abs = quant_is_signed(type) ? _mm256_abs_epi8(u) : u, sc = _mm256_shuffle_epi8(scale[r], pick);
                QUANT_UNROLL
                for (int c = 0; c < nc; c++) {
                    __m256i p = dot_pairs(type, u, u_abs, avx2_load(y[c].q + (g0 + (size_t)g) * QUANT_GROUP));
                    __m256 sums = _mm256_cvtepi32_ps(_mm256_madd_epi16(p, sc));   /* < 2^24: exact */
                    acc[r * nc + c] = _mm256_fmadd_ps(_mm256_set1_ps(d[r * nc + c][g]), sums, acc[r * nc + c]);
                }
            }
        }
    }
    for (int r = 0; r < nr; r++)
        for (int c = 0; c < nc; c++)
            a->out[(c0 + (size_t)c) * a->out_stride + r0 + (size_t)r] = sum_8(_mm256_add_ps(acc[r * nc + c], add[r * nc + c]));
}

/* ------------------------------------------------------------------------------------------- float rows */

/* 8 weights at element i of a row. */
AVX2_INLINE __m256 float_weights(uint32_t type, const uint8_t *row, size_t i) {
    if (type == CMC_F32)
        return _mm256_loadu_ps((const float *)(const void *)(row + 4 * i));
    __m128i h = avx2_load16(row + 2 * i);
    if (type == CMC_F16)
        return _mm256_cvtph_ps(h);
    return _mm256_castsi256_ps(_mm256_slli_epi32(_mm256_cvtepu16_epi32(h), 16));
}

AVX2_INLINE void dot_floats(uint32_t type, const int nr, const int nc, const quant_dot_args *a, size_t r0, size_t c0) {
    const size_t elem = type == CMC_F32 ? 4 : 2;
    const uint8_t *row = a->rows + r0 * a->row_stride;
    const float *x[TILE_MAX];
    __m256 acc[TILE_MAX][2];
    for (int c = 0; c < nc; c++)
        x[c] = (const float *)(const void *)(a->acts + (c0 + (size_t)c) * a->act_stride);
    for (int i = 0; i < nr * nc; i++)
        acc[i][0] = acc[i][1] = _mm256_setzero_ps();
    size_t i = 0;
    for (; i + 16 <= a->n; i += 16) {
        QUANT_UNROLL
        for (int r = 0; r < nr; r++) {
            const uint8_t *b = row + (size_t)r * a->row_stride;
            __m256 w0 = float_weights(type, b, i), w1 = float_weights(type, b, i + 8);
            QUANT_UNROLL
            for (int c = 0; c < nc; c++) {
                acc[r * nc + c][0] = _mm256_fmadd_ps(w0, _mm256_loadu_ps(x[c] + i), acc[r * nc + c][0]);
                acc[r * nc + c][1] = _mm256_fmadd_ps(w1, _mm256_loadu_ps(x[c] + i + 8), acc[r * nc + c][1]);
            }
        }
    }
    for (int r = 0; r < nr; r++) {
        float w[16];
        quant_decode_row_plain(type, row + (size_t)r * a->row_stride + i * elem, w, a->n - i);
        for (int c = 0; c < nc; c++) {
            float sum = sum_8(_mm256_add_ps(acc[r * nc + c][0], acc[r * nc + c][1]));
            for (size_t k = i; k < a->n; k++)
                sum += w[k - i] * x[c][k];
            a->out[(c0 + (size_t)c) * a->out_stride + r0 + (size_t)r] = sum;
        }
    }
}

/* ------------------------------------------------------------------------------------------- shapes */

AVX2_INLINE void dot_tile(uint32_t type, const int nr, const int nc, const quant_dot_args *a, size_t r, size_t c) {
    if (type == CMC_F32 || type == CMC_F16 || type == CMC_BF16)
        dot_floats(type, nr, nc, a, r, c);
    else if (quant_is_super(type))
        dot_supers(type, nr, nc, a, r, c);
    else
        dot_blocks(type, nr, nc, a, r, c);
}

/* 4 columns at a time, then 2, then 1: with 2 rows, but for floats, which have sums enough to overlap and come from memory
 * faster as one stream. */
AVX2_INLINE void dot_all(uint32_t type, const quant_dot_args *a) {
    size_t c = 0;
    for (; c + 4 <= a->n_cols; c += 4)
        for (size_t r = 0; r < a->n_rows; r++)
            dot_tile(type, 1, 4, a, r, c);
    for (; c + 2 <= a->n_cols; c += 2) {
        for (size_t r = 0; r < a->n_rows; r++)
            dot_tile(type, 1, 2, a, r, c);
    }
    if (c < a->n_cols) {
        size_t r = 0;
        const bool alone = type == CMC_F32 || type == CMC_F16 || type == CMC_BF16;
        for (; !alone && r + 2 <= a->n_rows; r += 2)
            dot_tile(type, 2, 1, a, r, c);
        for (; r < a->n_rows; r++)
            dot_tile(type, 1, 1, a, r, c);
    }
}

#define DOT_OF_TYPE(name, type) \
    AVX2_TARGET static void name(const quant_dot_args *a) { dot_all(type, a); }
DOT_OF_TYPE(dot_f32, CMC_F32)
DOT_OF_TYPE(dot_f16, CMC_F16)
DOT_OF_TYPE(dot_bf16, CMC_BF16)
DOT_OF_TYPE(dot_q4_0, CMC_Q4_0)
DOT_OF_TYPE(dot_q4_1, CMC_Q4_1)
DOT_OF_TYPE(dot_q5_0, CMC_Q5_0)
DOT_OF_TYPE(dot_q5_1, CMC_Q5_1)
DOT_OF_TYPE(dot_q8_0, CMC_Q8_0)
DOT_OF_TYPE(dot_iq4_nl, CMC_IQ4_NL)
DOT_OF_TYPE(dot_q2_k, CMC_Q2_K)
DOT_OF_TYPE(dot_q3_k, CMC_Q3_K)
DOT_OF_TYPE(dot_q4_k, CMC_Q4_K)
DOT_OF_TYPE(dot_q5_k, CMC_Q5_K)
DOT_OF_TYPE(dot_q6_k, CMC_Q6_K)
DOT_OF_TYPE(dot_iq4_xs, CMC_IQ4_XS)

void quant_dot_rows_avx2(uint32_t type, const quant_dot_args *a) {
    switch (type) {
    case CMC_F32: dot_f32(a); break;
    case CMC_F16: dot_f16(a); break;
    case CMC_BF16: dot_bf16(a); break;
    case CMC_Q4_0: dot_q4_0(a); break;
    case CMC_Q4_1: dot_q4_1(a); break;
    case CMC_Q5_0: dot_q5_0(a); break;
    case CMC_Q5_1: dot_q5_1(a); break;
    case CMC_Q8_0: dot_q8_0(a); break;
    case CMC_IQ4_NL: dot_iq4_nl(a); break;
    case CMC_Q2_K: dot_q2_k(a); break;
    case CMC_Q3_K: dot_q3_k(a); break;
    case CMC_Q4_K: dot_q4_k(a); break;
    case CMC_Q5_K: dot_q5_k(a); break;
    case CMC_Q6_K: dot_q6_k(a); break;
    case CMC_IQ4_XS: dot_iq4_xs(a); break;
    default: quant_dot_rows_plain(type, a); break;
    }
}
#endif
