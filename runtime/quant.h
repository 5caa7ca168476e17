/* Block-quantised rows: decoding every type that GGUF files of the served families use, and the dot products on them.
 * Formats: ggml's block layouts (ggml-common.h), little-endian. Rows are n elements, n a multiple of the type's block. */
#ifndef CMC_RUNTIME_QUANT_H
#define CMC_RUNTIME_QUANT_H
#include "base/gguf.h"

/* Plain decoding of one row, the definition that everything else is tested against. */
void quant_decode_row_plain(uint32_t type, const void *row, float *out, size_t n);
/* The same values, bit for bit, with vector code where the machine has it. */
void quant_decode_row(uint32_t type, const void *row, float *out, size_t n);
/* Encoding, for writing models (round to nearest): F32, F16, BF16, Q8_0, Q4_0, Q4_1, Q5_0, Q5_1. False for other types. */
bool quant_encode_row(uint32_t type, const float *in, void *row, size_t n);
float quant_f16_to_f32(uint16_t h);
uint16_t quant_f32_to_f16(float f);

/* Activations as the fast path's integer kernels want them: blocks of 32 int8 with a float scale and the sum of the
 * quantised values of each 16 (for types with a minimum). Layout is private to quant_dot*.c. */
size_t quant_act_bytes(size_t n);                       /* for a row of n (multiple of 32) */
void quant_act_row(const float *x, void *act, size_t n);
/* The types whose dot product takes quantised activations; the others (F32, F16, BF16) take floats. */
bool quant_dot_uses_act(uint32_t type);
/* float32 dot in one fixed order (16 lanes, summed pairwise): the exact path. The same bits on every machine. */
float quant_dot_exact(const float *a, const float *b, size_t n);

/* Name of the kernels chosen for this machine: "portable", "avx2", "avx512-vnni", "neon", "neon-dotprod" */
const char *quant_isa(void);
#endif
