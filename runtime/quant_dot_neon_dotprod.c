/* Dot products of quantised rows with the dot product extension (ARMv8.2 and later), which adds up four products of bytes at
 * once. */
#include "runtime/quant_impl.h"

#if defined(__aarch64__)
#include "runtime/quant_neon.h"

#if QUANT_HAS_DOTPROD
#define DOT_TARGET __attribute__((target("arch=armv8.2-a+dotprod")))
#define DOT_ROWS quant_dot_rows_neon_dotprod

DOT_TARGET QUANT_INLINE int32x4_t dot_16(int8x16_t w, int8x16_t y) {
    return vdotq_s32(vdupq_n_s32(0), w, y);
}

DOT_TARGET QUANT_INLINE int32x4_t dot_32(neon_group w, const int8_t *q, const bool small) {
    (void)small;   /* the sums are of 32 bits from the start */
    return vdotq_s32(dot_16(w.q[0], vld1q_s8(q)), w.q[1], vld1q_s8(q + 16));
}

#include "runtime/quant_dot_neon.h"
#endif
#endif
