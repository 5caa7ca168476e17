/* What the vector kernels of every instruction set ask of a block type. Inlined with `type` constant, so a switch costs
 * nothing. */
#ifndef CMC_RUNTIME_QUANT_SHAPE_H
#define CMC_RUNTIME_QUANT_SHAPE_H
#include "runtime/quant_impl.h"

#define QUANT_INLINE static inline __attribute__((always_inline))

#if defined(__clang__)
#define QUANT_UNROLL _Pragma("unroll")
#define QUANT_UNROLL16 _Pragma("unroll")
#else
#define QUANT_UNROLL _Pragma("GCC unroll 8")
#define QUANT_UNROLL16 _Pragma("GCC unroll 16")
#endif

QUANT_INLINE bool quant_is_super(uint32_t type) {
    return type == CMC_Q2_K || type == CMC_Q3_K || type == CMC_Q4_K || type == CMC_Q5_K || type == CMC_Q6_K ||
           type == CMC_IQ4_XS;
}

QUANT_INLINE bool quant_is_signed(uint32_t type) {
    return type == CMC_Q8_0 || type == CMC_IQ4_NL || type == CMC_IQ4_XS;
}

/* Types that store a minimum (an addend) beside the scale. */
QUANT_INLINE bool quant_has_min(uint32_t type) {
    return type == CMC_Q4_1 || type == CMC_Q5_1 || type == CMC_Q2_K || type == CMC_Q4_K || type == CMC_Q5_K;
}

/* Super-blocks with a scale for each 16 elements rather than each 32. */
QUANT_INLINE bool quant_has_halves(uint32_t type) {
    return type == CMC_Q2_K || type == CMC_Q3_K || type == CMC_Q6_K;
}

QUANT_INLINE int quant_offset(uint32_t type) {
    switch (type) {
    case CMC_Q4_0: return 8;
    case CMC_Q5_0: return 16;
    case CMC_Q3_K: return 4;
    case CMC_Q6_K: return 32;
    default: return 0;
    }
}

QUANT_INLINE size_t quant_block_bytes(uint32_t type) {
    switch (type) {
    case CMC_Q4_0: return 18;
    case CMC_Q4_1: return 20;
    case CMC_Q5_0: return 22;
    case CMC_Q5_1: return 24;
    case CMC_Q8_0: return 34;
    case CMC_IQ4_NL: return 18;
    case CMC_Q2_K: return 84;
    case CMC_Q3_K: return 110;
    case CMC_Q4_K: return 144;
    case CMC_Q5_K: return 176;
    case CMC_Q6_K: return 210;
    default: return 136;   /* IQ4_XS */
    }
}
#endif
