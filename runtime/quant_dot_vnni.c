/* Dot products of quantised rows with few columns of int8 activations, by AVX-512's VNNI: what decoding spends its time in.
 *
 * A row's groups are taken two at a time: 64 bytes of weights, one dot instruction for each column. Rows follow one
 * another, for memory gives a single stream faster than two; the sums of even and odd pairs are kept apart instead, so
 * that they overlap. Every result has accumulators of its own, so its bits do not depend on what is computed beside it. */
#include "runtime/quant_impl.h"

#if defined(__x86_64__)
#include "runtime/quant_vnni.h"

enum { MAX_COLS = 4, PAIR = 2 * QUANT_GROUP };

/* Weights come from memory once a token, and the hardware's prefetcher stops at each page, and knows nothing of what
 * comes after the rows: asking for bytes ahead read Q4_1 1.7 times and Q6_K 2.7 times as fast (Zen 3). Where there is no
 * memory at that place it does nothing. */
enum { CACHE_LINE = 64 };

VNNI_INLINE void prefetch(const uint8_t *p, ptrdiff_t ahead, size_t bytes) {
    for (size_t i = 0; i < bytes; i += CACHE_LINE)
        _mm_prefetch((const char *)((uintptr_t)p + (uintptr_t)ahead + i), _MM_HINT_T0);
}

typedef struct dot_column { const int8_t *q; const float *d, *s, *s0, *s1, *ds; } dot_column;

/* The sums of one row with nc columns: of even and odd pairs, and of the addends (minima, offsets). */
typedef struct dot_sums { __m512 pair[MAX_COLS][2], add[MAX_COLS]; } dot_sums;

/* ------------------------------------------------------------------------------------------------ unpacking */

VNNI_INLINE __m512i load_64(const void *p) {
    return _mm512_loadu_si512(p);
}

/* The same 32 bytes in both halves. */
VNNI_INLINE __m512i load_32_twice(const uint8_t *p) {
    return _mm512_broadcast_i64x4(avx2_load(p));
}

/* A different shift for the words of the two halves. */
VNNI_INLINE __m512i shifts_of(int first, int second) {
    return _mm512_inserti64x4(_mm512_set1_epi16((short)first), _mm256_set1_epi16((short)second), 1);
}

VNNI_INLINE __m512i bytes_of(int v) {
    return _mm512_set1_epi8((char)v);
}

/* Two groups of 16 nibble bytes: of each, low nibbles first. */
VNNI_INLINE __m512i nibble_pair(__m256i v) {
    const __m512i twice = _mm512_setr_epi64(0, 1, 0, 1, 2, 3, 2, 3);
    const __m512i shift = _mm512_setr_epi64(0, 0, 0x4000400040004, 0x4000400040004, 0, 0, 0x4000400040004, 0x4000400040004);
    __m512i w = _mm512_permutexvar_epi64(twice, _mm512_castsi256_si512(v));
    return _mm512_and_si512(_mm512_srlv_epi16(w, shift), bytes_of(15));
}

VNNI_INLINE __m512i iq4_pair(__m256i v) {
    const __m512i table = _mm512_broadcast_i32x4(_mm_xor_si128(avx2_load16(quant_iq4_values), _mm_set1_epi8((char)0x80)));
    return _mm512_shuffle_epi8(table, nibble_pair(v));
}

/* `value` added where the bit is set. */
VNNI_INLINE __m512i add_bits(__m512i u, const uint8_t *a, const uint8_t *b, int value) {
    __mmask64 bits = (__mmask64)quant_le32(a) | (__mmask64)quant_le32(b) << 32;
    return _mm512_mask_add_epi8(u, bits, u, bytes_of(value));
}

/* The bytes of the blocks at a and b. */
VNNI_INLINE __m512i unpack_blocks(uint32_t type, const uint8_t *a, const uint8_t *b) {
    switch (type) {
    case CMC_Q4_0: return nibble_pair(avx2_two_16(a + 2, b + 2));
    case CMC_Q4_1: return nibble_pair(avx2_two_16(a + 4, b + 4));
    case CMC_Q5_0: return add_bits(nibble_pair(avx2_two_16(a + 6, b + 6)), a + 2, b + 2, 16);
    case CMC_Q5_1: return add_bits(nibble_pair(avx2_two_16(a + 8, b + 8)), a + 4, b + 4, 16);
    case CMC_Q8_0:
        return _mm512_xor_si512(_mm512_inserti64x4(_mm512_castsi256_si512(avx2_load(a + 2)), avx2_load(b + 2), 1), bytes_of(0x80));
    default: return iq4_pair(avx2_two_16(a + 2, b + 2));   /* IQ4_NL */
    }
}

VNNI_INLINE __m512i field(__m512i v, int first, int second, int width) {
    return _mm512_and_si512(_mm512_srlv_epi16(v, shifts_of(first, second)), bytes_of((1 << width) - 1));
}

/* `value` added in the first half where bit `first` is set, in the second where bit first + 1 is. */
VNNI_INLINE __m512i add_field(__m512i u, const uint8_t *bits, int first, int value) {
    const __m512i bit = _mm512_inserti64x4(bytes_of(1 << first), _mm256_set1_epi8((char)(2 << first)), 1);
    return _mm512_mask_add_epi8(u, _mm512_test_epi8_mask(load_32_twice(bits), bit), u, bytes_of(value));
}

/* The bytes of groups 2 p and 2 p + 1 of a super-block; quant_decode.c has the layouts in words. */
VNNI_INLINE __m512i unpack_super(uint32_t type, const uint8_t *b, const int p) {
    const int half = p / 2, j = p % 2;
    switch (type) {
    case CMC_Q2_K: return field(load_32_twice(b + 16 + 32 * half), 4 * j, 4 * j + 2, 2);
    case CMC_Q3_K: return add_field(field(load_32_twice(b + 32 + 32 * half), 4 * j, 4 * j + 2, 2), b, 2 * p, 4);
    case CMC_Q4_K: return field(load_32_twice(b + 16 + 32 * p), 0, 4, 4);
    case CMC_Q5_K: return add_field(field(load_32_twice(b + 48 + 32 * p), 0, 4, 4), b + 16, 2 * p, 16);
    case CMC_Q6_K: {
        __m512i low = field(load_64(b + 64 * half), 4 * j, 4 * j, 4), high = load_32_twice(b + 128 + 32 * half);
        high = j ? _mm512_srlv_epi16(high, shifts_of(0, 2)) : _mm512_sllv_epi16(high, shifts_of(4, 2));
        return _mm512_or_si512(low, _mm512_and_si512(high, bytes_of(0x30)));
    }
    default: return iq4_pair(avx2_load(b + 8 + 32 * p));   /* IQ4_XS */
    }
}

/* ------------------------------------------------------------------------------------------- blocks of 32 */

/* d, and in the second place m where the block has one, of both blocks as floats. */
VNNI_INLINE __m128 block_scales(uint32_t type, const uint8_t *a, const uint8_t *b) {
    __m128 dm = _mm_cvtph_ps(_mm_insert_epi32(_mm_cvtsi32_si128((int)quant_le32(a)), (int)quant_le32(b), 1));
    return quant_has_min(type) ? dm : _mm_moveldup_ps(dm);
}

/* Groups g and g + 1 of a row; `both` false: g alone, the row's last. (d, m) times the activations' (d, s) gives the
 * factor of each group's integer sums, and the addend that a minimum makes; for a type with an offset (d, d) times (d, s),
 * and the addend is -offset times the second. */
VNNI_INLINE void dot_block_pair(uint32_t type, const int nc, const uint8_t *row, size_t g, bool both, const int odd,
                                ptrdiff_t ahead, const dot_column *y, dot_sums *s) {
    const size_t block = quant_block_bytes(type);
    const uint8_t *a = row + g * block, *b = both ? a + block : a;
    const __m512i spread = _mm512_setr_epi32(0, 0, 0, 0, 0, 0, 0, 0, 2, 2, 2, 2, 2, 2, 2, 2);
    const __mmask64 used = both ? ~(__mmask64)0 : 0xffffffff;
    const __mmask8 factors = both ? 15 : 3;
    const __m512i u = unpack_blocks(type, a, b);
    const __m128 dm = block_scales(type, a, b);
    prefetch(a, ahead, both ? 2 * block : block);
    QUANT_UNROLL
    for (int c = 0; c < nc; c++) {
        const __m512i v = _mm512_maskz_loadu_epi8(used, y[c].q + g * QUANT_GROUP);
        const __m128 f = _mm_mul_ps(dm, _mm_maskz_loadu_ps(factors, y[c].ds + 2 * g));
        const __m512 sums = _mm512_cvtepi32_ps(_mm512_dpbusd_epi32(_mm512_setzero_si512(), u, v));
        const __m512 by = _mm512_permutexvar_ps(spread, _mm512_castps128_ps512(f));
        s->pair[c][odd] = _mm512_fmadd_ps(by, sums, s->pair[c][odd]);
        if (quant_has_min(type) || vnni_offset(type))
            s->add[c] = _mm512_add_ps(s->add[c], _mm512_zextps128_ps512(f));
    }
}

VNNI_INLINE void dot_block_row(uint32_t type, const int nc, const uint8_t *row, size_t n, ptrdiff_t ahead,
                               const dot_column *y, dot_sums *s) {
    size_t g = 0, groups = n / QUANT_GROUP;
    for (; g + 4 <= groups; g += 4) {
        dot_block_pair(type, nc, row, g, true, 0, ahead, y, s);
        dot_block_pair(type, nc, row, g + 2, true, 1, ahead, y, s);
    }
    if (g + 2 <= groups) {
        dot_block_pair(type, nc, row, g, true, 0, ahead, y, s);
        g += 2;
    }
    if (g < groups)
        dot_block_pair(type, nc, row, g, false, 1, ahead, y, s);
    if (!quant_has_min(type) && !vnni_offset(type))
        return;
    const __m512 factor = _mm512_set1_ps(quant_has_min(type) ? 1 : -(float)vnni_offset(type));   /* lanes 1 and 3 are the addends */
    for (int c = 0; c < nc; c++)
        s->add[c] = _mm512_maskz_mul_ps(10, factor, s->add[c]);
}

/* ------------------------------------------------------------------------------------------- super-blocks */

/* A value for each half group, first halves of the 8 groups before second ones; where a group has one value alone, the
 * second halves are zero. */
VNNI_INLINE __m512 half_floats(uint32_t type, __m256i v) {
    if (quant_has_halves(type))
        return _mm512_cvtepi32_ps(_mm512_cvtepi16_epi32(v));
    return _mm512_zextps256_ps512(avx2_low_floats(v));
}

VNNI_INLINE __m512 half_loads(uint32_t type, const float *first, const float *second) {
    const __m512 v = _mm512_zextps256_ps512(_mm256_loadu_ps(first));
    return quant_has_halves(type) ? _mm512_insertf32x8(v, _mm256_loadu_ps(second), 1) : v;
}

/* Where pair p's lanes find their factor among half_floats. */
VNNI_INLINE __m512i half_spread(uint32_t type, const int p) {
    const int a = 2 * p, b = quant_has_halves(type) ? 2 * p + 8 : 2 * p, c = a + 1, d = b + 1;
    return _mm512_setr_epi32(a, a, a, a, b, b, b, b, c, c, c, c, d, d, d, d);
}

VNNI_INLINE void dot_super_row(uint32_t type, const int nc, const uint8_t *row, size_t n, ptrdiff_t ahead,
                               const dot_column *y, dot_sums *s) {
    const size_t block = quant_block_bytes(type);
    for (size_t g = 0; g < n / QUANT_GROUP; g += QUANT_SUPER_GROUPS, row += block) {
        const avx2_scales sc = avx2_scales_load(type, row);
        const __m512 scale = _mm512_mul_ps(_mm512_set1_ps(sc.d), half_floats(type, sc.scale));
        const __m512 addend = quant_has_min(type) ? _mm512_mul_ps(_mm512_set1_ps(sc.dmin), half_floats(type, sc.min))
                                                 : _mm512_mul_ps(_mm512_set1_ps(-(float)vnni_offset(type)), scale);
        __m512 by[MAX_COLS];
        prefetch(row, ahead, block);
        QUANT_UNROLL
        for (int c = 0; c < nc; c++) {
            by[c] = _mm512_mul_ps(scale, half_loads(type, y[c].d + g, y[c].d + g));
            s->add[c] = _mm512_fmadd_ps(addend, quant_has_halves(type) ? half_loads(type, y[c].s0 + g, y[c].s1 + g)
                                                                      : half_loads(type, y[c].s + g, NULL), s->add[c]);
        }
        QUANT_UNROLL
        for (int p = 0; p < QUANT_SUPER_GROUPS / 2; p++) {
            const __m512i u = unpack_super(type, row, p);
            QUANT_UNROLL
            for (int c = 0; c < nc; c++) {
                const __m512i v = load_64(y[c].q + g * QUANT_GROUP + (size_t)(p * PAIR));
                const __m512 sums = _mm512_cvtepi32_ps(_mm512_dpbusd_epi32(_mm512_setzero_si512(), u, v));
                s->pair[c][p % 2] = _mm512_fmadd_ps(_mm512_permutexvar_ps(half_spread(type, p), by[c]), sums, s->pair[c][p % 2]);
            }
        }
    }
}

/* ------------------------------------------------------------------------------------------- rows and columns */

VNNI_INLINE void dot_rows(uint32_t type, const int nc, const quant_dot_args *a, size_t c0) {
    dot_column y[MAX_COLS];
    QUANT_UNROLL
    for (int c = 0; c < nc; c++) {
        const quant_act v = quant_act_view(a->acts + (c0 + (size_t)c) * a->act_stride, a->n);
        y[c] = (dot_column){v.q, v.d, v.s, v.s0, v.s1, v.ds};
    }
    for (size_t r = 0; r < a->n_rows; r++) {
        dot_sums s;
        QUANT_UNROLL
        for (int c = 0; c < nc; c++)
            s.pair[c][0] = s.pair[c][1] = s.add[c] = _mm512_setzero_ps();
        if (quant_is_super(type))
            dot_super_row(type, nc, a->rows + r * a->row_stride, a->n, a->ahead, y, &s);
        else
            dot_block_row(type, nc, a->rows + r * a->row_stride, a->n, a->ahead, y, &s);
        QUANT_UNROLL
        for (int c = 0; c < nc; c++)
            a->out[(c0 + (size_t)c) * a->out_stride + r] =
                _mm512_reduce_add_ps(_mm512_add_ps(_mm512_add_ps(s.pair[c][0], s.pair[c][1]), s.add[c]));
    }
}

VNNI_INLINE void dot_all(uint32_t type, const quant_dot_args *a) {
    size_t c = 0;
    for (; c + 4 <= a->n_cols; c += 4)
        dot_rows(type, 4, a, c);
    for (; c + 2 <= a->n_cols; c += 2)
        dot_rows(type, 2, a, c);
    if (c < a->n_cols)
        dot_rows(type, 1, a, c);
}

#define DOT_OF_TYPE(name, type) \
    VNNI_TARGET static void name(const quant_dot_args *a) { dot_all(type, a); }
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

void quant_dot_rows_vnni(uint32_t type, const quant_dot_args *a) {
    switch (type) {
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
    default: quant_dot_rows_avx2(type, a); break;   /* floats */
    }
}
#endif
