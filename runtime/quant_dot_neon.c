/* Dot products of quantised rows on every 64-bit ARM processor: bytes are multiplied to int16, and pairs of these added up. */
#include "runtime/quant_impl.h"

#if defined(__aarch64__)
#include "runtime/quant_neon.h"

#define DOT_TARGET
#define DOT_ROWS quant_dot_rows_neon

/* Eight sums of two products; no pair overflows: 2 * 128 * 127 < 2^15. */
QUANT_INLINE int16x8_t pairs_16(int8x16_t w, int8x16_t y) {
    return vmlal_high_s8(vmull_s8(vget_low_s8(w), vget_low_s8(y)), w, y);
}

QUANT_INLINE int32x4_t dot_16(int8x16_t w, int8x16_t y) {
    return vpaddlq_s16(pairs_16(w, y));
}

/* Of small weights four products fit into an int16: 4 * 64 * 127 < 2^15. */
QUANT_INLINE int32x4_t dot_32(neon_group w, const int8_t *q, const bool small) {
    const int8x16_t y0 = vld1q_s8(q), y1 = vld1q_s8(q + 16);
    const int16x8_t p = pairs_16(w.q[0], y0);
    if (!small)
        return vpadalq_s16(vpaddlq_s16(p), pairs_16(w.q[1], y1));
    return vpaddlq_s16(vmlal_high_s8(vmlal_s8(p, vget_low_s8(w.q[1]), vget_low_s8(y1)), w.q[1], y1));
}

#include "runtime/quant_dot_neon.h"
#endif
