/* Unpacking of block formats for 16 rows at once: element by element the rows stand side by side, a register holding 4
 * elements of each. Rows are turned as they are stored and unpacked afterwards, for there is less of them then. Include only
 * in files that check for AVX-512 VNNI at run time. */
#ifndef CMC_RUNTIME_QUANT_ROWS_VNNI_H
#define CMC_RUNTIME_QUANT_ROWS_VNNI_H
#include "runtime/quant_vnni.h"

enum {
    ROWS_WIDE = 16,                 /* rows of a register */
    GROUP_QUADS = QUANT_GROUP / 4   /* registers that hold a group of them */
};

/* Where the first begins, and how far one is from the next. */
typedef struct vnni_rows {
    const uint8_t *first;
    size_t stride;
} vnni_rows;

/* 16 rows of `bytes` each, of which `left` are there: where they are, or where fewer than 16 are, copied to `copy`, the last standing in
 * for those that are not there. */
VNNI_INLINE vnni_rows rows_whole(const uint8_t *first, size_t stride, size_t left, size_t bytes, uint8_t *copy) {
    if (left >= ROWS_WIDE)
        return (vnni_rows){first, stride};
    for (size_t i = 0; i < ROWS_WIDE; i++)
        memcpy(copy + i * bytes, first + (i < left ? i : left - 1) * stride, bytes);
    return (vnni_rows){copy, bytes};
}

/* ------------------------------------------------------------------------------------------------- turning */

/* 16 bytes of each row from `at` on: row 4 k + i in lane k of z[i]. */
VNNI_INLINE void rows_load(const vnni_rows *r, size_t at, __m512i *z) {
    const uint8_t *p[4];
    QUANT_UNROLL
    for (size_t k = 0; k < 4; k++)
        p[k] = r->first + at + 4 * k * r->stride;
    QUANT_UNROLL
    for (size_t i = 0; i < 4; i++) {
        const size_t row = i * r->stride;
        z[i] = _mm512_inserti64x4(_mm512_castsi256_si512(avx2_two_16(p[0] + row, p[1] + row)), avx2_two_16(p[2] + row, p[3] + row), 1);
    }
}

/* The 4 dwords of each row from `at` on, one to a register. */
VNNI_INLINE void rows_turn(const vnni_rows *r, size_t at, __m512i *out) {
    __m512i z[4];
    rows_load(r, at, z);
    const __m512i a = _mm512_unpacklo_epi32(z[0], z[1]), b = _mm512_unpacklo_epi32(z[2], z[3]);
    const __m512i c = _mm512_unpackhi_epi32(z[0], z[1]), d = _mm512_unpackhi_epi32(z[2], z[3]);
    out[0] = _mm512_unpacklo_epi64(a, b);
    out[1] = _mm512_unpackhi_epi64(a, b);
    out[2] = _mm512_unpacklo_epi64(c, d);
    out[3] = _mm512_unpackhi_epi64(c, d);
}

/* The first of them alone. */
VNNI_INLINE __m512i rows_turn_one(const vnni_rows *r, size_t at) {
    __m512i z[4];
    rows_load(r, at, z);
    return _mm512_unpacklo_epi64(_mm512_unpacklo_epi32(z[0], z[1]), _mm512_unpacklo_epi32(z[2], z[3]));
}

VNNI_INLINE void rows_turn_32(const vnni_rows *r, size_t at, __m512i *out) {
    rows_turn(r, at, out);
    rows_turn(r, at + 16, out + 4);
}

/* 8 floats of each of 16 rows, which are in registers already. */
VNNI_INLINE void rows_turn_floats(const __m256 *u, __m512 *out) {
    __m512 z[8], p[8];
    QUANT_UNROLL
    for (int i = 0; i < 8; i++) { /* rows i and i + 4 of the first 8, then of the others */
        const int r = i % 4 + i / 4 * 8;
        z[i] = _mm512_insertf32x8(_mm512_castps256_ps512(u[r]), u[r + 4], 1);
    }
    QUANT_UNROLL
    for (int i = 0; i < 8; i += 4) { /* p[i + k]: float k (and k + 4) of 4 rows in each lane */
        const __m512d a = _mm512_castps_pd(_mm512_unpacklo_ps(z[i], z[i + 1])), b = _mm512_castps_pd(_mm512_unpacklo_ps(z[i + 2], z[i + 3]));
        const __m512d c = _mm512_castps_pd(_mm512_unpackhi_ps(z[i], z[i + 1])), d = _mm512_castps_pd(_mm512_unpackhi_ps(z[i + 2], z[i + 3]));
        p[i] = _mm512_castpd_ps(_mm512_unpacklo_pd(a, b));
        p[i + 1] = _mm512_castpd_ps(_mm512_unpackhi_pd(a, b));
        p[i + 2] = _mm512_castpd_ps(_mm512_unpacklo_pd(c, d));
        p[i + 3] = _mm512_castpd_ps(_mm512_unpackhi_pd(c, d));
    }
    QUANT_UNROLL
    for (int k = 0; k < 4; k++) {
        out[k] = _mm512_shuffle_f32x4(p[k], p[k + 4], 0x88);
        out[k + 4] = _mm512_shuffle_f32x4(p[k], p[k + 4], 0xdd);
    }
}

/* ---------------------------------------------------------------------------------------------------- bytes */

/* Bits [shift, shift + width) of each byte. */
VNNI_INLINE __m512i rows_field(__m512i v, int shift, const int width) {
    return _mm512_and_si512(_mm512_srl_epi16(v, _mm_cvtsi32_si128(shift)), _mm512_set1_epi8((char)((1 << width) - 1)));
}

/* 16 bytes of nibbles: the low ones come first. */
VNNI_INLINE void rows_nibbles(const vnni_rows *r, size_t at, __m512i *w) {
    __m512i v[4];
    rows_turn(r, at, v);
    QUANT_UNROLL
    for (int j = 0; j < 4; j++) {
        w[j] = rows_field(v[j], 0, 4);
        w[j + 4] = rows_field(v[j], 4, 4);
    }
}

VNNI_INLINE void rows_iq4(const vnni_rows *r, size_t at, __m512i *w) {
    const __m512i table = _mm512_broadcast_i32x4(avx2_load16(quant_iq4_values));
    rows_nibbles(r, at, w);
    QUANT_UNROLL
    for (int j = 0; j < GROUP_QUADS; j++)
        w[j] = _mm512_shuffle_epi8(table, w[j]);
}

/* 16 added to the elements whose bit is set, of 32 bits from `at` on. */
VNNI_INLINE void rows_add_bits(const vnni_rows *r, size_t at, __m512i *w) {
    const __m512i bits = rows_turn_one(r, at);
    const __m512i first = _mm512_broadcast_i32x4(_mm_setr_epi32(0, 0x04040404, 0x08080808, 0x0c0c0c0c));   /* byte of each dword */
    QUANT_UNROLL
    for (int j = 0; j < GROUP_QUADS; j++) {
        const __m512i byte = _mm512_shuffle_epi8(bits, _mm512_add_epi8(first, _mm512_set1_epi8((char)(j / 2))));
        const __mmask64 set = _mm512_test_epi8_mask(byte, _mm512_set1_epi32(j % 2 ? (int)0x80402010 : 0x08040201));
        w[j] = _mm512_mask_add_epi8(w[j], set, w[j], _mm512_set1_epi8(16));
    }
}

VNNI_INLINE void rows_unpack_block(uint32_t type, const vnni_rows *r, size_t at, __m512i *w) {
    switch (type) {
    case CMC_Q4_0: rows_nibbles(r, at + 2, w); break;
    case CMC_Q4_1: rows_nibbles(r, at + 4, w); break;
    case CMC_Q5_0:
        rows_nibbles(r, at + 6, w);
        rows_add_bits(r, at + 2, w);
        break;
    case CMC_Q5_1:
        rows_nibbles(r, at + 8, w);
        rows_add_bits(r, at + 4, w);
        break;
    case CMC_Q8_0: rows_turn_32(r, at + 2, w); break;
    default: rows_iq4(r, at + 2, w); break;   /* IQ4_NL */
    }
}

/* Bits [shift, shift + width) of 32 bytes; and a field of others put above them, at bit `up`. */
VNNI_INLINE void rows_fields(const vnni_rows *r, size_t at, int shift, const int width, __m512i *w) {
    rows_turn_32(r, at, w);
    QUANT_UNROLL
    for (int j = 0; j < GROUP_QUADS; j++)
        w[j] = rows_field(w[j], shift, width);
}

VNNI_INLINE void rows_add_fields(const vnni_rows *r, size_t at, int shift, const int width, const int up, __m512i *w) {
    __m512i v[GROUP_QUADS];
    rows_fields(r, at, shift, width, v);
    QUANT_UNROLL
    for (int j = 0; j < GROUP_QUADS; j++)
        w[j] = _mm512_or_si512(w[j], _mm512_sll_epi16(v[j], _mm_cvtsi32_si128(up)));
}

/* Group g of a super-block; quant_decode.c has the layouts in words. */
VNNI_INLINE void rows_unpack_super(uint32_t type, const vnni_rows *r, size_t at, size_t g, __m512i *w) {
    const size_t half = g / 4, pair = g / 2;
    const int j = (int)g % 4, odd = (int)g % 2;
    switch (type) {
    case CMC_Q2_K: rows_fields(r, at + 16 + 32 * half, 2 * j, 2, w); break;
    case CMC_Q3_K:
        rows_fields(r, at + 32 + 32 * half, 2 * j, 2, w);
        rows_add_fields(r, at, (int)g, 1, 2, w);
        break;
    case CMC_Q4_K: rows_fields(r, at + 16 + 32 * pair, 4 * odd, 4, w); break;
    case CMC_Q5_K:
        rows_fields(r, at + 48 + 32 * pair, 4 * odd, 4, w);
        rows_add_fields(r, at + 16, (int)g, 1, 4, w);
        break;
    case CMC_Q6_K:
        rows_fields(r, at + 64 * half + 32 * (g % 2), 4 * (j / 2), 4, w);
        rows_add_fields(r, at + 128 + 32 * half, 2 * j, 2, 4, w);
        break;
    default: rows_iq4(r, at + 8 + 16 * g, w); break;   /* IQ4_XS */
    }
}

/* The bytes of a group of each row: of the block at `at`, or group g of the super-block there. Signed values are kept 128
 * higher, as vnni_offset has it. */
VNNI_INLINE void rows_unpack(uint32_t type, const vnni_rows *r, size_t at, size_t g, __m512i *w) {
    if (quant_is_super(type))
        rows_unpack_super(type, r, at, g, w);
    else
        rows_unpack_block(type, r, at, w);
    if (!quant_is_signed(type))
        return;
    QUANT_UNROLL
    for (int j = 0; j < GROUP_QUADS; j++)
        w[j] = _mm512_xor_si512(w[j], _mm512_set1_epi8((char)0x80));
}

/* --------------------------------------------------------------------------------------------------- scales */

/* Scales and minima of a super-block: of each part (group, or half of one) those of the rows. */
VNNI_INLINE void rows_scales_super(uint32_t type, const vnni_rows *r, size_t at, float *scale, float *min) {
    const int halves = quant_has_halves(type) ? 2 : 1;
    __m256 s[2][ROWS_WIDE], m[2][ROWS_WIDE];
    for (int i = 0; i < ROWS_WIDE; i++) {
        const avx2_scales k = avx2_scales_load(type, r->first + (size_t)i * r->stride + at);
        const __m256 d = _mm256_set1_ps(k.d), dmin = _mm256_set1_ps(k.dmin);
        s[0][i] = _mm256_mul_ps(d, avx2_low_floats(k.scale));
        if (halves == 2)
            s[1][i] = _mm256_mul_ps(d, avx2_high_floats(k.scale));
        if (quant_has_min(type))
            m[0][i] = _mm256_mul_ps(dmin, avx2_low_floats(k.min));
        if (quant_has_min(type) && halves == 2)
            m[1][i] = _mm256_mul_ps(dmin, avx2_high_floats(k.min));
    }
    for (int h = 0; h < halves; h++) {
        __m512 turned[QUANT_SUPER_GROUPS];
        rows_turn_floats(s[h], turned);
        QUANT_UNROLL
        for (int g = 0; g < QUANT_SUPER_GROUPS; g++)
            _mm512_storeu_ps(scale + (g * halves + h) * ROWS_WIDE, turned[g]);
        if (!quant_has_min(type))
            continue;
        rows_turn_floats(m[h], turned);
        QUANT_UNROLL
        for (int g = 0; g < QUANT_SUPER_GROUPS; g++)
            _mm512_storeu_ps(min + (g * halves + h) * ROWS_WIDE, turned[g]);
    }
}

/* The same of the block or super-block at `at`. */
VNNI_INLINE void rows_scales(uint32_t type, const vnni_rows *r, size_t at, float *scale, float *min) {
    if (quant_is_super(type)) {
        rows_scales_super(type, r, at, scale, min);
        return;
    }
    const __m512i dm = rows_turn_one(r, at);   /* d, and above it m where the block has one */
    _mm512_storeu_ps(scale, _mm512_cvtph_ps(_mm512_cvtepi32_epi16(dm)));
    if (quant_has_min(type))
        _mm512_storeu_ps(min, _mm512_cvtph_ps(_mm512_cvtepi32_epi16(_mm512_srli_epi32(dm, 16))));
}
#endif
