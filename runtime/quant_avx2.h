/* Unpacking of block formats into AVX2 registers, shared by decoding and dot products. Include only in files that check
 * for AVX2 at run time. Every function is inlined with `type` and `g` constant, so its switch costs nothing.
 *
 * A group of 32 unpacks to bytes u, from which the quantised value is u - quant_offset(type), u unsigned; or, where
 * quant_is_signed(type), to the signed value itself. Unsigned bytes are what maddubs wants; the offset then costs only a product
 * with the activations' sums, as a minimum does. */
#ifndef CMC_RUNTIME_QUANT_AVX2_H
#define CMC_RUNTIME_QUANT_AVX2_H
#include "runtime/quant_shape.h"

#include <immintrin.h>

/* quant_dot_avx2.c; the other AVX2 kernels are in quant_avx2.c. */
void quant_dot_rows_avx2(uint32_t type, const quant_dot_args *a);

#define AVX2_TARGET __attribute__((target("avx2,fma,f16c")))
#define AVX2_INLINE static inline __attribute__((always_inline)) AVX2_TARGET

AVX2_INLINE __m256i avx2_load(const void *p) {
    return _mm256_loadu_si256((const __m256i *)p);
}

AVX2_INLINE __m128i avx2_load16(const void *p) {
    return _mm_loadu_si128((const __m128i *)p);
}

AVX2_INLINE __m256i avx2_two_16(const uint8_t *a, const uint8_t *b) {
    return _mm256_inserti128_si256(_mm256_castsi128_si256(avx2_load16(a)), avx2_load16(b), 1);
}

AVX2_INLINE float avx2_f16(const uint8_t *p) {
    return _cvtsh_ss(quant_le16(p));
}

/* 16 nibble bytes: low nibbles become bytes 0..15, high ones 16..31. */
AVX2_INLINE __m256i avx2_nibbles(const uint8_t *qs) {
    __m128i lo = avx2_load16(qs);
    return _mm256_and_si256(_mm256_set_m128i(_mm_srli_epi16(lo, 4), lo), _mm256_set1_epi8(15));
}

AVX2_INLINE __m256i avx2_iq4(const uint8_t *qs) {
    __m256i table = _mm256_broadcastsi128_si256(avx2_load16(quant_iq4_values));
    return _mm256_shuffle_epi8(table, avx2_nibbles(qs));
}

/* 32 bits become bytes: `value` where the bit is set, else 0. */
AVX2_INLINE __m256i avx2_bits(const uint8_t *p, char value) {
    const __m256i spread = _mm256_setr_epi64x(0, 0x0101010101010101, 0x0202020202020202, 0x0303030303030303);
    const __m256i bit = _mm256_set1_epi64x((long long)0x8040201008040201);
    __m256i b = _mm256_shuffle_epi8(_mm256_set1_epi32((int)quant_le32(p)), spread);
    return _mm256_and_si256(_mm256_cmpeq_epi8(_mm256_and_si256(b, bit), bit), _mm256_set1_epi8(value));
}

/* Bits [shift, shift + width) of each byte. */
AVX2_INLINE __m256i avx2_field(__m256i v, int shift, int width) {
    return _mm256_and_si256(_mm256_srli_epi16(v, shift), _mm256_set1_epi8((char)((1 << width) - 1)));
}

/* The bytes of a block of 32. */
AVX2_INLINE __m256i avx2_unpack_block(uint32_t type, const uint8_t *b) {
    switch (type) {
    case CMC_Q4_0: return avx2_nibbles(b + 2);
    case CMC_Q4_1: return avx2_nibbles(b + 4);
    case CMC_Q5_0: return _mm256_or_si256(avx2_nibbles(b + 6), avx2_bits(b + 2, 16));
    case CMC_Q5_1: return _mm256_or_si256(avx2_nibbles(b + 8), avx2_bits(b + 4, 16));
    case CMC_Q8_0: return avx2_load(b + 2);
    default: return avx2_iq4(b + 2);   /* IQ4_NL */
    }
}

/* The bytes of group g of a super-block; quant_decode.c has the layouts in words. */
AVX2_INLINE __m256i avx2_unpack_super(uint32_t type, const uint8_t *b, int g) {
    const int half = g / 4, j = g % 4;
    switch (type) {
    case CMC_Q2_K: return avx2_field(avx2_load(b + 16 + 32 * half), 2 * j, 2);
    case CMC_Q3_K: {
        __m256i high = avx2_field(avx2_load(b), g, 1);
        return _mm256_or_si256(avx2_field(avx2_load(b + 32 + 32 * half), 2 * j, 2), _mm256_slli_epi16(high, 2));
    }
    case CMC_Q4_K: return avx2_field(avx2_load(b + 16 + 32 * (g / 2)), 4 * (g % 2), 4);
    case CMC_Q5_K: {
        __m256i high = avx2_field(avx2_load(b + 16), g, 1);
        return _mm256_or_si256(avx2_field(avx2_load(b + 48 + 32 * (g / 2)), 4 * (g % 2), 4), _mm256_slli_epi16(high, 4));
    }
    case CMC_Q6_K: {
        __m256i high = avx2_field(avx2_load(b + 128 + 32 * half), 2 * j, 2);
        return _mm256_or_si256(avx2_field(avx2_load(b + 64 * half + 32 * (j % 2)), 4 * (j / 2), 4), _mm256_slli_epi16(high, 4));
    }
    default: return avx2_iq4(b + 8 + 16 * g);   /* IQ4_XS */
    }
}

/* The scales of a super-block: w = d * scale * q + dmin * min, a scale and a minimum for each half group. As int16: in the
 * low lane those of the first halves of the 8 groups, in the high lane those of the second. */
typedef struct avx2_scales {
    __m256i scale, min;   /* min only where quant_has_min */
    float d, dmin;        /* dmin is negative what the file says: minima are subtracted there */
} avx2_scales;

AVX2_INLINE __m256i avx2_both_lanes(__m128i v) {
    return _mm256_broadcastsi128_si256(v);
}

/* 16 bytes, a pair for each group: even ones to the low lane, odd ones to the high, not widened yet. */
AVX2_INLINE __m128i avx2_even_odd(__m128i v) {
    return _mm_shuffle_epi8(v, _mm_setr_epi8(0, 2, 4, 6, 8, 10, 12, 14, 1, 3, 5, 7, 9, 11, 13, 15));
}

AVX2_INLINE avx2_scales avx2_scales_k4(const uint8_t *b) {
    uint32_t a0 = quant_le32(b + 4), a1 = quant_le32(b + 8), a2 = quant_le32(b + 12);
    uint32_t s1 = (a2 & 0x0f0f0f0f) | ((a0 >> 6) & 0x03030303) << 4;
    uint32_t m1 = ((a2 >> 4) & 0x0f0f0f0f) | ((a1 >> 6) & 0x03030303) << 4;
    __m128i s = _mm_cvtepu8_epi16(_mm_set_epi32(0, 0, (int)s1, (int)(a0 & 0x3f3f3f3f)));
    __m128i m = _mm_cvtepu8_epi16(_mm_set_epi32(0, 0, (int)m1, (int)(a1 & 0x3f3f3f3f)));
    return (avx2_scales){avx2_both_lanes(s), avx2_both_lanes(m), avx2_f16(b), -avx2_f16(b + 2)};
}

AVX2_INLINE avx2_scales avx2_scales_q2_k(const uint8_t *b) {
    __m256i v = _mm256_cvtepu8_epi16(avx2_even_odd(avx2_load16(b)));
    return (avx2_scales){_mm256_and_si256(v, _mm256_set1_epi16(15)), _mm256_srli_epi16(v, 4), avx2_f16(b + 80),
                         -avx2_f16(b + 82)};
}

AVX2_INLINE avx2_scales avx2_scales_q3_k(const uint8_t *b) {
    uint32_t a0 = quant_le32(b + 96), a1 = quant_le32(b + 100), a2 = quant_le32(b + 104);
    const uint32_t low = 0x0f0f0f0f, pair = 0x03030303;
    __m128i v = _mm_set_epi32((int)(((a1 >> 4) & low) | ((a2 >> 6) & pair) << 4), (int)(((a0 >> 4) & low) | ((a2 >> 4) & pair) << 4),
                              (int)((a1 & low) | ((a2 >> 2) & pair) << 4), (int)((a0 & low) | (a2 & pair) << 4));
    v = _mm_sub_epi8(v, _mm_set1_epi8(32));
    return (avx2_scales){_mm256_cvtepi8_epi16(avx2_even_odd(v)), _mm256_setzero_si256(), avx2_f16(b + 108), 0};
}

AVX2_INLINE avx2_scales avx2_scales_iq4_xs(const uint8_t *b) {
    uint32_t low = quant_le32(b + 4), high = quant_le16(b + 2);
    __m128i nibbles = _mm_cvtsi32_si128((int)low);
    nibbles = _mm_and_si128(_mm_unpacklo_epi8(nibbles, _mm_srli_epi16(nibbles, 4)), _mm_set1_epi8(15));
    /* lane i: bits 2i, 2i + 1 of `high`, brought up to 4, 5 by a product that shifts left */
    const __m128i up = _mm_setr_epi16(1 << 14, 1 << 12, 1 << 10, 1 << 8, 1 << 6, 1 << 4, 1 << 2, 1);
    __m128i pairs = _mm_srli_epi16(_mm_mullo_epi16(_mm_set1_epi16((short)high), up), 14);
    __m128i s = _mm_or_si128(_mm_cvtepu8_epi16(nibbles), _mm_slli_epi16(pairs, 4));
    s = _mm_sub_epi16(s, _mm_set1_epi16(32));
    return (avx2_scales){avx2_both_lanes(s), _mm256_setzero_si256(), avx2_f16(b), 0};
}

AVX2_INLINE avx2_scales avx2_scales_load(uint32_t type, const uint8_t *b) {
    switch (type) {
    case CMC_Q2_K: return avx2_scales_q2_k(b);
    case CMC_Q3_K: return avx2_scales_q3_k(b);
    case CMC_Q4_K:
    case CMC_Q5_K: return avx2_scales_k4(b);
    case CMC_Q6_K:
        return (avx2_scales){_mm256_cvtepi8_epi16(avx2_even_odd(avx2_load16(b + 192))), _mm256_setzero_si256(),
                             avx2_f16(b + 208), 0};
    default: return avx2_scales_iq4_xs(b);
    }
}

AVX2_INLINE __m256 avx2_low_floats(__m256i v) {
    return _mm256_cvtepi32_ps(_mm256_cvtepi16_epi32(_mm256_castsi256_si128(v)));
}

AVX2_INLINE __m256 avx2_high_floats(__m256i v) {
    return _mm256_cvtepi32_ps(_mm256_cvtepi16_epi32(_mm256_extracti128_si256(v, 1)));
}
#endif
