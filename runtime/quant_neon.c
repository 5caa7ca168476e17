/* NEON kernels: decoding of rows, quantisation of activations and the exact dots, whose bits equal the plain code's; and the
 * tables, with and without the dot product extension, which differ in their dots alone. */
#include "runtime/quant_impl.h"

#if defined(__aarch64__)
#include "runtime/quant_neon.h"

#include <sys/auxv.h>

/* w = a * q + m in the plain code's order: one product, one sum, each rounded. */
QUANT_INLINE void decode_4(int16x4_t q, float a, float m, bool min, float *out) {
    const float32x4_t w = vdupq_n_f32(a) * vcvtq_f32_s32(vmovl_s16(q));
    vst1q_f32(out, min ? w + vdupq_n_f32(m) : w);
}

QUANT_INLINE void decode_16(int8x16_t q, float a, float m, bool min, float *out) {
    const int16x8_t lo = vmovl_s8(vget_low_s8(q)), hi = vmovl_s8(vget_high_s8(q));
    decode_4(vget_low_s16(lo), a, m, min, out);
    decode_4(vget_high_s16(lo), a, m, min, out + 4);
    decode_4(vget_low_s16(hi), a, m, min, out + 8);
    decode_4(vget_high_s16(hi), a, m, min, out + 12);
}

QUANT_INLINE void decode_blocks(uint32_t type, const uint8_t *b, float *out, size_t n) {
    const bool min = quant_has_min(type);
    for (size_t i = 0; i < n; i += QUANT_GROUP, b += quant_block_bytes(type)) {
        const neon_group w = neon_unpack_block(type, b);
        const float a = neon_f16(b), m = min ? neon_f16(b + 2) : 0;
        decode_16(w.q[0], a, m, min, out + i);
        decode_16(w.q[1], a, m, min, out + i + 16);
    }
}

QUANT_INLINE void store_8(float *to, neon_8 v) {
    vst1q_f32(to, v.v[0]);
    vst1q_f32(to + 4, v.v[1]);
}

QUANT_INLINE void decode_supers(uint32_t type, const uint8_t *b, float *out, size_t n) {
    const bool min = quant_has_min(type);
    const int second = quant_has_halves(type) ? 1 : 0;   /* where the second halves find their scale */
    for (size_t i = 0; i < n; i += QUANT_SUPER, b += quant_block_bytes(type)) {
        const neon_scales s = neon_scales_load(type, b);
        float a[2][QUANT_SUPER_GROUPS], m[2][QUANT_SUPER_GROUPS] = {0};
        for (int h = 0; h <= second; h++) {
            store_8(a[h], s.a[h]);
            if (min)
                store_8(m[h], s.m[h]);
        }
        QUANT_UNROLL
        for (int g = 0; g < QUANT_SUPER_GROUPS; g++) {
            const neon_group w = neon_unpack_super(type, b, g);
            decode_16(w.q[0], a[0][g], m[0][g], min, out + i + g * QUANT_GROUP);
            decode_16(w.q[1], a[second][g], m[second][g], min, out + i + g * QUANT_GROUP + 16);
        }
    }
}

static void decode_f16(const uint8_t *row, float *out, size_t n) {
    size_t i = 0;
    for (; i + 4 <= n; i += 4)
        vst1q_f32(out + i, vcvt_f32_f16(vreinterpret_f16_u8(vld1_u8(row + 2 * i))));
    for (; i < n; i++)
        out[i] = neon_f16(row + 2 * i);
}

static void decode_bf16(const uint8_t *row, float *out, size_t n) {
    const size_t whole = n / 4 * 4;
    for (size_t i = 0; i < whole; i += 4)
        vst1q_f32(out + i, vreinterpretq_f32_u32(vshll_n_u16(vreinterpret_u16_u8(vld1_u8(row + 2 * i)), 16)));
    quant_decode_row_plain(CMC_BF16, row + 2 * whole, out + whole, n - whole);
}

static void decode_row(uint32_t type, const void *row, float *out, size_t n) {
    switch (type) {
    case CMC_F16: decode_f16(row, out, n); break;
    case CMC_BF16: decode_bf16(row, out, n); break;
    case CMC_Q4_0: decode_blocks(CMC_Q4_0, row, out, n); break;
    case CMC_Q4_1: decode_blocks(CMC_Q4_1, row, out, n); break;
    case CMC_Q5_0: decode_blocks(CMC_Q5_0, row, out, n); break;
    case CMC_Q5_1: decode_blocks(CMC_Q5_1, row, out, n); break;
    case CMC_Q8_0: decode_blocks(CMC_Q8_0, row, out, n); break;
    case CMC_IQ4_NL: decode_blocks(CMC_IQ4_NL, row, out, n); break;
    case CMC_Q2_K: decode_supers(CMC_Q2_K, row, out, n); break;
    case CMC_Q3_K: decode_supers(CMC_Q3_K, row, out, n); break;
    case CMC_Q4_K: decode_supers(CMC_Q4_K, row, out, n); break;
    case CMC_Q5_K: decode_supers(CMC_Q5_K, row, out, n); break;
    case CMC_Q6_K: decode_supers(CMC_Q6_K, row, out, n); break;
    case CMC_IQ4_XS: decode_supers(CMC_IQ4_XS, row, out, n); break;
    default: quant_decode_row_plain(type, row, out, n); break;
    }
}

/* ------------------------------------------------------------------------------------------------ activations */

/* The greatest magnitude, taken of the bits, which order as the values do with NaN above all. */
QUANT_INLINE float group_max(const float32x4_t *x) {
    const uint32x4_t abs = vdupq_n_u32(0x7fffffff);
    uint32x4_t m = vreinterpretq_u32_f32(x[0]) & abs;
    for (int i = 1; i < 8; i++)
        m = vmaxq_u32(m, vreinterpretq_u32_f32(x[i]) & abs);
    const uint32_t bits = vmaxvq_u32(m);
    float f;
    memcpy(&f, &bits, sizeof f);
    return f;
}

/* x * by to nearest, as bytes; NaN becomes 0. */
QUANT_INLINE int8x16_t to_bytes(const float32x4_t *x, float by) {
    int32x4_t k[4];
    for (int i = 0; i < 4; i++)
        k[i] = vcvtnq_s32_f32(x[i] * vdupq_n_f32(by));
    return vcombine_s8(vqmovn_s16(vcombine_s16(vqmovn_s32(k[0]), vqmovn_s32(k[1]))),
                       vqmovn_s16(vcombine_s16(vqmovn_s32(k[2]), vqmovn_s32(k[3]))));
}

/* Group g of a row. */
QUANT_INLINE void act_group(const float32x4_t *v, void *act, size_t n, size_t g) {
    int8_t *q = (int8_t *)act + g * QUANT_GROUP;
    const float max = group_max(v), inv = max < QUANT_ACT_TINY ? 0 : 127.0f / max;
    const int8x16_t first = to_bytes(v, inv), second = to_bytes(v + 4, inv);
    vst1q_s8(q, first);
    vst1q_s8(q + 16, second);
    quant_act_put(act, n, g, max < QUANT_ACT_TINY ? 0 : max / 127.0f, vaddlvq_s8(first), vaddlvq_s8(second));
}

static void act_row(const float *x, void *act, size_t n) {
    for (size_t g = 0; g < n / QUANT_GROUP; g++, x += QUANT_GROUP) {
        float32x4_t v[8];
        for (int i = 0; i < 8; i++)
            v[i] = vld1q_f32(x + 4 * i);
        act_group(v, act, n, g);
    }
}

static void act_norm(const float *x, float scale, const float *w, float *y, void *act, size_t n) {
    for (size_t g = 0; g < n / QUANT_GROUP; g++) {
        float32x4_t v[8];
        for (size_t i = 0; i < 8; i++) {
            const size_t at = g * QUANT_GROUP + 4 * i;
            v[i] = vld1q_f32(x + at) * vdupq_n_f32(scale) * vld1q_f32(w + at);
            vst1q_f32(y + at, v[i]);
        }
        act_group(v, act, n, g);
    }
}

/* ------------------------------------------------------------------------------------------------- exact dots */

/* Lanes l and l + 8, l + 4, l + 2, l + 1. */
QUANT_INLINE float sum_16(const float *lane) {
    const float32x4_t v4 = (vld1q_f32(lane) + vld1q_f32(lane + 8)) + (vld1q_f32(lane + 4) + vld1q_f32(lane + 12));
    const float32x2_t v2 = vget_low_f32(v4) + vget_high_f32(v4);
    return vget_lane_f32(v2, 0) + vget_lane_f32(v2, 1);
}

/* No fused multiply-add: the plain code, and machines without it, round each product. */
QUANT_INLINE void dot_exact_cols(const float *row, const float *cols, size_t col_stride, size_t n, const int nc, float *out,
                                 size_t out_stride) {
    float32x4_t s[4][4];
    for (int c = 0; c < nc; c++)
        s[c][0] = s[c][1] = s[c][2] = s[c][3] = vdupq_n_f32(0);
    size_t i = 0;
    for (; i + 16 <= n; i += 16) {
        QUANT_UNROLL
        for (int k = 0; k < 4; k++) {
            const float32x4_t a = vld1q_f32(row + i + 4 * k);
            QUANT_UNROLL
            for (int c = 0; c < nc; c++)
                s[c][k] += a * vld1q_f32(cols + (size_t)c * col_stride + i + 4 * k);
        }
    }
    for (int c = 0; c < nc; c++) {
        float lane[16];
        for (int k = 0; k < 4; k++)
            vst1q_f32(lane + 4 * k, s[c][k]);
        for (size_t l = 0; i + l < n; l++)
            lane[l] += row[i + l] * cols[(size_t)c * col_stride + i + l];
        out[(size_t)c * out_stride] = sum_16(lane);
    }
}

static void dot_exact(const float *row, const float *cols, size_t col_stride, size_t n, size_t n_cols, float *out,
                      size_t out_stride) {
    size_t c = 0;
    for (; c + 4 <= n_cols; c += 4)
        dot_exact_cols(row, cols + c * col_stride, col_stride, n, 4, out + c * out_stride, out_stride);
    for (; c < n_cols; c++)
        dot_exact_cols(row, cols + c * col_stride, col_stride, n, 1, out + c * out_stride, out_stride);
}

const quant_kernels *quant_kernels_neon(void) {
    static const quant_kernels table = {
        .isa = "neon",
        .decode_row = decode_row,
        .act_row = act_row,
        .act_norm = act_norm,
        .dot = quant_dot_rows_neon,
        .dot_exact = dot_exact,
    };
    return &table;
}

const quant_kernels *quant_kernels_neon_dotprod(void) {
#if QUANT_HAS_DOTPROD
    static const quant_kernels table = {
        .isa = "neon-dotprod",
        .decode_row = decode_row,
        .act_row = act_row,
        .act_norm = act_norm,
        .dot = quant_dot_rows_neon_dotprod,
        .dot_exact = dot_exact,
    };
    return getauxval(AT_HWCAP) & HWCAP_ASIMDDP ? &table : NULL;
#else
    return NULL;
#endif
}

#else
const quant_kernels *quant_kernels_neon(void) {
    return NULL;
}

const quant_kernels *quant_kernels_neon_dotprod(void) {
    return NULL;
}
#endif
