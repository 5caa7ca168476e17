/* What the AVX-512 VNNI kernels share. Include only in files that check for it at run time. */
#ifndef CMC_RUNTIME_QUANT_VNNI_H
#define CMC_RUNTIME_QUANT_VNNI_H
#include "runtime/quant_avx2.h"

#define VNNI_TARGET __attribute__((target("avx2,fma,f16c,avx512f,avx512bw,avx512vl,avx512dq,avx512vnni")))
#define VNNI_INLINE static inline __attribute__((always_inline)) VNNI_TARGET

/* What unpacked bytes have too much: signed values are kept 128 higher, for the dot instruction's weights are unsigned. */
VNNI_INLINE int vnni_offset(uint32_t type) {
    return quant_is_signed(type) ? 128 : quant_offset(type);
}

static inline bool vnni_supported(void) {
    return __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") && __builtin_cpu_supports("avx512vl") &&
           __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512vnni") && quant_kernels_avx2();
}

/* quant_dot_vnni.c */
void quant_dot_rows_vnni(uint32_t type, const quant_dot_args *a);
#endif
