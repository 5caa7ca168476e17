/* NEON dot products of quantised rows with few columns of int8 activations, and of float rows with floats: the body of the two
 * files that include it. Each has defined
 *
 *   DOT_TARGET                  an attribute for every function here
 *   dot_16, dot_32              sums in four int32 of the products of 16 or 32 bytes; dot_32 also says whether the weights lie
 *                               within [-64, 63]
 *   DOT_ROWS                    the name of the function that they are for
 *
 * A row is read once, its groups in turn, for memory gives a single stream faster than two; even and odd groups (or the two
 * halves of a group, where these have scales of their own) add to different sums, so that they overlap. Every result has sums
 * of its own, so its bits do not depend on what is computed beside it. */
#include "runtime/quant_neon.h"

#define DOT_INLINE static inline __attribute__((always_inline)) DOT_TARGET

enum { MAX_COLS = 4, CACHE_LINE = 64 };

/* Weights come from memory once a token; `ahead` reaches past what a prefetcher guesses. Where there is no memory at that
 * place it does nothing. */
DOT_INLINE void prefetch(const uint8_t *p, ptrdiff_t ahead, size_t bytes) {
    for (size_t i = 0; i < bytes; i += CACHE_LINE)
        __builtin_prefetch((const void *)((uintptr_t)p + (uintptr_t)ahead + i));
}

/* The sums of one row with a column, and of the addends that minima make. */
typedef struct dot_sums { float32x4_t part[2], add; } dot_sums;

DOT_INLINE void dot_zero(dot_sums *s, const int nc) {
    QUANT_UNROLL
    for (int c = 0; c < nc; c++)
        s[c].part[0] = s[c].part[1] = s[c].add = vdupq_n_f32(0);
}

DOT_INLINE void dot_add(float32x4_t *sum, int32x4_t v, float by) {
    *sum = vfmaq_n_f32(*sum, vcvtq_f32_s32(v), by);
}

/* ------------------------------------------------------------------------------------------- blocks of 32 */

/* A minimum costs m times the sum of the group's activations. */
DOT_INLINE void dot_block(uint32_t type, const int nc, const uint8_t *b, const quant_act *y, size_t g, const int odd, dot_sums *s) {
    const neon_group w = neon_unpack_block(type, b);
    const float d = neon_f16(b);
    float32x4_t m = vdupq_n_f32(0);
    if (quant_has_min(type))
        m = vsetq_lane_f32(neon_f16(b + 2), m, 0);
    QUANT_UNROLL
    for (int c = 0; c < nc; c++) {
        dot_add(&s[c].part[odd], dot_32(w, y[c].q + g * QUANT_GROUP, !quant_is_signed(type)), d * y[c].d[g]);
        if (quant_has_min(type))
            s[c].add = vfmaq_n_f32(s[c].add, m, y[c].s[g]);
    }
}

DOT_INLINE void dot_block_row(uint32_t type, const int nc, const uint8_t *row, size_t n, ptrdiff_t ahead, const quant_act *y,
                              dot_sums *s) {
    const size_t block = quant_block_bytes(type), groups = n / QUANT_GROUP;
    size_t g = 0;
    for (; g + 2 <= groups; g += 2, row += 2 * block) {
        prefetch(row, ahead, 2 * block);
        dot_block(type, nc, row, y, g, 0, s);
        dot_block(type, nc, row + block, y, g + 1, 1, s);
    }
    if (g < groups)
        dot_block(type, nc, row, y, g, 0, s);
}

/* ------------------------------------------------------------------------------------------- super-blocks */

DOT_INLINE void store_times(float *to, neon_8 a, const float *b) {
    vst1q_f32(to, a.v[0] * vld1q_f32(b));
    vst1q_f32(to + 4, a.v[1] * vld1q_f32(b + 4));
}

DOT_INLINE float32x4_t add_times(float32x4_t sum, neon_8 a, const float *b) {
    return vfmaq_f32(vfmaq_f32(sum, a.v[0], vld1q_f32(b)), a.v[1], vld1q_f32(b + 4));
}

/* Weights' and activations' scales multiplied, and the addends of 8 groups from g on. */
DOT_INLINE void super_scales(uint32_t type, const neon_scales *w, const quant_act *y, size_t g, float by[2][QUANT_SUPER_GROUPS],
                             float32x4_t *add) {
    store_times(by[0], w->a[0], y->d + g);
    if (quant_has_halves(type))
        store_times(by[1], w->a[1], y->d + g);
    if (!quant_has_min(type))
        return;
    if (quant_has_halves(type))
        *add = add_times(add_times(*add, w->m[0], y->s0 + g), w->m[1], y->s1 + g);
    else
        *add = add_times(*add, w->m[0], y->s + g);
}

DOT_INLINE void dot_super_row(uint32_t type, const int nc, const uint8_t *row, size_t n, ptrdiff_t ahead, const quant_act *y,
                              dot_sums *s) {
    const size_t block = quant_block_bytes(type);
    for (size_t g0 = 0; g0 < n / QUANT_GROUP; g0 += QUANT_SUPER_GROUPS, row += block) {
        const neon_scales scales = neon_scales_load(type, row);
        float by[MAX_COLS][2][QUANT_SUPER_GROUPS];
        prefetch(row, ahead, block);
        QUANT_UNROLL
        for (int c = 0; c < nc; c++)
            super_scales(type, &scales, &y[c], g0, by[c], &s[c].add);
        QUANT_UNROLL
        for (int g = 0; g < QUANT_SUPER_GROUPS; g++) {
            const neon_group w = neon_unpack_super(type, row, g);
            QUANT_UNROLL
            for (int c = 0; c < nc; c++) {
                const int8_t *q = y[c].q + (g0 + (size_t)g) * QUANT_GROUP;
                if (quant_has_halves(type)) {
                    dot_add(&s[c].part[0], dot_16(w.q[0], vld1q_s8(q)), by[c][0][g]);
                    dot_add(&s[c].part[1], dot_16(w.q[1], vld1q_s8(q + 16)), by[c][1][g]);
                } else {
                    dot_add(&s[c].part[g % 2], dot_32(w, q, !quant_is_signed(type)), by[c][0][g]);
                }
            }
        }
    }
}

/* ------------------------------------------------------------------------------------------- float rows */

/* 4 weights at element i of a row. */
DOT_INLINE float32x4_t float_weights(uint32_t type, const uint8_t *row, size_t i) {
    if (type == CMC_F32)
        return vld1q_f32((const float *)(const void *)(row + 4 * i));
    const uint8x8_t h = vld1_u8(row + 2 * i);
    if (type == CMC_F16)
        return vcvt_f32_f16(vreinterpret_f16_u8(h));
    return vreinterpretq_f32_u32(vshll_n_u16(vreinterpret_u16_u8(h), 16));
}

DOT_INLINE void dot_float_row(uint32_t type, const int nc, const uint8_t *row, size_t n, ptrdiff_t ahead, const float *const *x,
                              float *out, size_t out_stride) {
    const size_t elem = type == CMC_F32 ? 4 : 2;
    float32x4_t s[MAX_COLS][4];
    QUANT_UNROLL
    for (int c = 0; c < nc; c++)
        s[c][0] = s[c][1] = s[c][2] = s[c][3] = vdupq_n_f32(0);
    size_t i = 0;
    for (; i + 16 <= n; i += 16) {
        prefetch(row + i * elem, ahead, 16 * elem);
        QUANT_UNROLL
        for (size_t k = 0; k < 4; k++) {
            const float32x4_t w = float_weights(type, row, i + 4 * k);
            QUANT_UNROLL
            for (int c = 0; c < nc; c++)
                s[c][k] = vfmaq_f32(s[c][k], w, vld1q_f32(x[c] + i + 4 * k));
        }
    }
    float w[16];
    quant_decode_row_plain(type, row + i * elem, w, n - i);
    for (int c = 0; c < nc; c++) {
        float sum = vaddvq_f32((s[c][0] + s[c][1]) + (s[c][2] + s[c][3]));
        for (size_t k = i; k < n; k++)
            sum += w[k - i] * x[c][k];
        out[(size_t)c * out_stride] = sum;
    }
}

/* ------------------------------------------------------------------------------------------- rows and columns */

DOT_INLINE void dot_float_rows(uint32_t type, const int nc, const quant_dot_args *a, size_t c0) {
    const float *x[MAX_COLS];
    QUANT_UNROLL
    for (int c = 0; c < nc; c++)
        x[c] = (const float *)(const void *)(a->acts + (c0 + (size_t)c) * a->act_stride);
    for (size_t r = 0; r < a->n_rows; r++)
        dot_float_row(type, nc, a->rows + r * a->row_stride, a->n, a->ahead, x, a->out + c0 * a->out_stride + r, a->out_stride);
}

DOT_INLINE void dot_rows(uint32_t type, const int nc, const quant_dot_args *a, size_t c0) {
    quant_act y[MAX_COLS];
    QUANT_UNROLL
    for (int c = 0; c < nc; c++)
        y[c] = quant_act_view(a->acts + (c0 + (size_t)c) * a->act_stride, a->n);
    for (size_t r = 0; r < a->n_rows; r++) {
        dot_sums s[MAX_COLS];
        dot_zero(s, nc);
        if (quant_is_super(type))
            dot_super_row(type, nc, a->rows + r * a->row_stride, a->n, a->ahead, y, s);
        else
            dot_block_row(type, nc, a->rows + r * a->row_stride, a->n, a->ahead, y, s);
        QUANT_UNROLL
        for (int c = 0; c < nc; c++)
            a->out[(c0 + (size_t)c) * a->out_stride + r] = vaddvq_f32((s[c].part[0] + s[c].part[1]) + s[c].add);
    }
}

DOT_INLINE void dot_cols(uint32_t type, const int nc, const quant_dot_args *a, size_t c0) {
    if (type == CMC_F32 || type == CMC_F16 || type == CMC_BF16)
        dot_float_rows(type, nc, a, c0);
    else
        dot_rows(type, nc, a, c0);
}

DOT_INLINE void dot_all(uint32_t type, const quant_dot_args *a) {
    size_t c = 0;
    for (; c + 4 <= a->n_cols; c += 4)
        dot_cols(type, 4, a, c);
    for (; c + 2 <= a->n_cols; c += 2)
        dot_cols(type, 2, a, c);
    if (c < a->n_cols)
        dot_cols(type, 1, a, c);
}

#define DOT_OF_TYPE(name, type) \
    DOT_TARGET static void name(const quant_dot_args *a) { dot_all(type, a); }
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

void DOT_ROWS(uint32_t type, const quant_dot_args *a) {
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
