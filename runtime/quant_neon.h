/* Unpacking of block formats into NEON registers, shared by decoding and dot products. Include only where __aarch64__ is
 * defined: NEON is then part of every processor. Every function is inlined with `type` and `g` constant.
 *
 * A group of 32 unpacks to its quantised values themselves, signed: both ways of multiplying bytes take signed ones, so that
 * an offset is cheapest taken away here. */
#ifndef CMC_RUNTIME_QUANT_NEON_H
#define CMC_RUNTIME_QUANT_NEON_H
#include "runtime/quant_shape.h"

#include <arm_neon.h>

/* quant_dot_neon.c and quant_dot_neon_dotprod.c; the other NEON kernels are in quant_neon.c. */
void quant_dot_rows_neon(uint32_t type, const quant_dot_args *a);
void quant_dot_rows_neon_dotprod(uint32_t type, const quant_dot_args *a);

/* The second one needs a compiler that takes its instructions into a function of their own target. */
#if defined(__clang__) && __clang_major__ < 16
#define QUANT_HAS_DOTPROD 0
#else
#define QUANT_HAS_DOTPROD 1
#endif

QUANT_INLINE float neon_f16(const uint8_t *p) {
    __fp16 h;
    memcpy(&h, p, sizeof h);
    return (float)h;
}

/* ------------------------------------------------------------------------------------------------ values */

/* The first and the second 16 values of a group. */
typedef struct neon_group { int8x16_t q[2]; } neon_group;

/* Bits [shift, shift + width) of each byte. */
QUANT_INLINE uint8x16_t neon_field(uint8x16_t v, int shift, int width) {
    return (v >> vdupq_n_u8((uint8_t)shift)) & vdupq_n_u8((uint8_t)((1 << width) - 1));
}

/* `value` in the bytes whose bit is set: byte i goes by bit i of the 16 at p. */
QUANT_INLINE uint8x16_t neon_bits(const uint8_t *p, uint8_t value) {
    const uint8x16_t bit = vreinterpretq_u8_u64(vdupq_n_u64(0x8040201008040201));
    return vtstq_u8(vcombine_u8(vdup_n_u8(p[0]), vdup_n_u8(p[1])), bit) & vdupq_n_u8(value);
}

QUANT_INLINE int8x16_t neon_less(uint8x16_t u, int offset) {
    return vreinterpretq_s8_u8(u) - vdupq_n_s8((int8_t)offset);
}

/* 16 nibble bytes: the low nibbles are the first values. */
QUANT_INLINE neon_group neon_nibbles(const uint8_t *qs, int offset) {
    const uint8x16_t v = vld1q_u8(qs);
    return (neon_group){{neon_less(neon_field(v, 0, 4), offset), neon_less(neon_field(v, 4, 4), offset)}};
}

/* The same with a fifth bit for each. */
QUANT_INLINE neon_group neon_fives(const uint8_t *qs, const uint8_t *high, int offset) {
    const uint8x16_t v = vld1q_u8(qs);
    return (neon_group){{neon_less(neon_field(v, 0, 4) | neon_bits(high, 16), offset),
                         neon_less(neon_field(v, 4, 4) | neon_bits(high + 2, 16), offset)}};
}

QUANT_INLINE neon_group neon_iq4(const uint8_t *qs) {
    const int8x16_t table = vld1q_s8(quant_iq4_values);
    const uint8x16_t v = vld1q_u8(qs);
    return (neon_group){{vqtbl1q_s8(table, neon_field(v, 0, 4)), vqtbl1q_s8(table, neon_field(v, 4, 4))}};
}

QUANT_INLINE neon_group neon_unpack_block(uint32_t type, const uint8_t *b) {
    const int offset = quant_offset(type);
    switch (type) {
    case CMC_Q4_0: return neon_nibbles(b + 2, offset);
    case CMC_Q4_1: return neon_nibbles(b + 4, offset);
    case CMC_Q5_0: return neon_fives(b + 6, b + 2, offset);
    case CMC_Q5_1: return neon_fives(b + 8, b + 4, offset);
    case CMC_Q8_0: return (neon_group){{vld1q_s8((const int8_t *)b + 2), vld1q_s8((const int8_t *)b + 18)}};
    default: return neon_iq4(b + 2);   /* IQ4_NL */
    }
}

/* Half h of group g of a super-block without its offset; quant_decode.c has the layouts in words. */
QUANT_INLINE uint8x16_t neon_unpack_half(uint32_t type, const uint8_t *b, int g, int h) {
    const int half = g / 4, j = g % 4;
    const uint8_t *at = b + 16 * h;
    switch (type) {
    case CMC_Q2_K: return neon_field(vld1q_u8(at + 16 + 32 * half), 2 * j, 2);
    case CMC_Q3_K:
        return neon_field(vld1q_u8(at + 32 + 32 * half), 2 * j, 2) | neon_field(vld1q_u8(at), g, 1) << vdupq_n_u8(2);
    case CMC_Q4_K: return neon_field(vld1q_u8(at + 16 + 32 * (g / 2)), 4 * (g % 2), 4);
    case CMC_Q5_K:
        return neon_field(vld1q_u8(at + 48 + 32 * (g / 2)), 4 * (g % 2), 4) |
               neon_field(vld1q_u8(at + 16), g, 1) << vdupq_n_u8(4);
    default:   /* Q6_K */
        return neon_field(vld1q_u8(at + 64 * half + 32 * (j % 2)), 4 * (j / 2), 4) |
               neon_field(vld1q_u8(at + 128 + 32 * half), 2 * j, 2) << vdupq_n_u8(4);
    }
}

QUANT_INLINE neon_group neon_unpack_super(uint32_t type, const uint8_t *b, int g) {
    if (type == CMC_IQ4_XS)
        return neon_iq4(b + 8 + 16 * g);
    const int offset = quant_offset(type);
    return (neon_group){{neon_less(neon_unpack_half(type, b, g, 0), offset), neon_less(neon_unpack_half(type, b, g, 1), offset)}};
}

/* ------------------------------------------------------------------------------------------------ scales */

/* A float for each group of a super-block. */
typedef struct neon_8 { float32x4_t v[2]; } neon_8;

/* w = a q + m. Where the halves of a group differ (quant_has_halves), [1] holds those of the second; m only where there is
 * a minimum, which the file means to be subtracted. */
typedef struct neon_scales { neon_8 a[2], m[2]; } neon_scales;

QUANT_INLINE neon_8 neon_times(float by, int16x8_t v) {
    return (neon_8){{vdupq_n_f32(by) * vcvtq_f32_s32(vmovl_s16(vget_low_s16(v))),
                     vdupq_n_f32(by) * vcvtq_f32_s32(vmovl_s16(vget_high_s16(v)))}};
}

/* Two words of bytes, the low one first. */
QUANT_INLINE int16x8_t neon_words(uint32_t low, uint32_t high) {
    return vmovl_s8(vcreate_s8((uint64_t)high << 32 | low));
}

QUANT_INLINE neon_scales neon_scales_k4(const uint8_t *b) {
    uint32_t a0 = quant_le32(b + 4), a1 = quant_le32(b + 8), a2 = quant_le32(b + 12);
    uint32_t s1 = (a2 & 0x0f0f0f0f) | ((a0 >> 6) & 0x03030303) << 4;
    uint32_t m1 = ((a2 >> 4) & 0x0f0f0f0f) | ((a1 >> 6) & 0x03030303) << 4;
    return (neon_scales){.a = {neon_times(neon_f16(b), neon_words(a0 & 0x3f3f3f3f, s1))},
                         .m = {neon_times(-neon_f16(b + 2), neon_words(a1 & 0x3f3f3f3f, m1))}};
}

QUANT_INLINE neon_scales neon_scales_q2_k(const uint8_t *b) {
    const uint8x8x2_t v = vld2_u8(b);   /* first halves, second halves */
    const float d = neon_f16(b + 80), dmin = -neon_f16(b + 82);
    neon_scales s;
    for (int h = 0; h < 2; h++) {
        s.a[h] = neon_times(d, vreinterpretq_s16_u16(vmovl_u8(v.val[h] & vdup_n_u8(15))));
        s.m[h] = neon_times(dmin, vreinterpretq_s16_u16(vmovl_u8(v.val[h] >> vdup_n_u8(4))));
    }
    return s;
}

/* Of 16 signed bytes, a pair for each group. */
QUANT_INLINE neon_scales neon_scales_16(float d, int8x16_t v) {
    return (neon_scales){.a = {neon_times(d, vmovl_s8(vget_low_s8(vuzp1q_s8(v, v)))),
                               neon_times(d, vmovl_s8(vget_low_s8(vuzp2q_s8(v, v))))}};
}

QUANT_INLINE neon_scales neon_scales_q3_k(const uint8_t *b) {
    uint32_t a0 = quant_le32(b + 96), a1 = quant_le32(b + 100), a2 = quant_le32(b + 104);
    const uint32_t low = 0x0f0f0f0f, pair = 0x03030303;
    const uint32_t v[4] = {(a0 & low) | (a2 & pair) << 4, (a1 & low) | ((a2 >> 2) & pair) << 4,
                           ((a0 >> 4) & low) | ((a2 >> 4) & pair) << 4, ((a1 >> 4) & low) | ((a2 >> 6) & pair) << 4};
    return neon_scales_16(neon_f16(b + 108), neon_less(vreinterpretq_u8_u32(vld1q_u32(v)), 32));
}

QUANT_INLINE neon_scales neon_scales_iq4_xs(const uint8_t *b) {
    static const int16_t down[8] = {0, -2, -4, -6, -8, -10, -12, -14};
    const uint8x8_t low = vcreate_u8(quant_le32(b + 4));
    const uint16x8_t nibbles = vmovl_u8(vzip1_u8(low & vdup_n_u8(15), low >> vdup_n_u8(4)));
    const uint16x8_t pairs = vshlq_u16(vdupq_n_u16(quant_le16(b + 2)), vld1q_s16(down)) & vdupq_n_u16(3);
    const int16x8_t v = vreinterpretq_s16_u16(nibbles | pairs << vdupq_n_u16(4)) - vdupq_n_s16(32);
    return (neon_scales){.a = {neon_times(neon_f16(b), v)}};
}

QUANT_INLINE neon_scales neon_scales_load(uint32_t type, const uint8_t *b) {
    switch (type) {
    case CMC_Q2_K: return neon_scales_q2_k(b);
    case CMC_Q3_K: return neon_scales_q3_k(b);
    case CMC_Q4_K:
    case CMC_Q5_K: return neon_scales_k4(b);
    case CMC_Q6_K: return neon_scales_16(neon_f16(b + 208), vld1q_s8((const int8_t *)b + 192));
    default: return neon_scales_iq4_xs(b);
    }
}
#endif
