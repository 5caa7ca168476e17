/* OpenBLAS by dlopen: Debian's 0.3.21 reads its core type in its constructor, before main (docs/design.md, "Kernels"). */
#ifndef CMC_RUNTIME_BLAS_H
#define CMC_RUNTIME_BLAS_H
#include "cmc.h"

typedef struct blas blas;   /* NULL where the library is missing: callers fall back on plain loops through blas_gemm */
/* Loads libopenblas.so.0 and sets it to one thread; never fails, returns NULL where there is none. */
blas *blas_open(void);
void blas_close(blas *b);
const char *blas_core(const blas *b);
/* What blas_gemm has done in the library so far: floating-point operations, and seconds summed over its threads. */
typedef struct blas_work { double flop, seconds; } blas_work;
blas_work blas_work_of(const blas *b);
/* C[m][n] = alpha * A[m][k] * B[n][k]^T + beta * C, row-major with row strides in floats (ta/tb: the operand is stored
 * transposed, i.e. A as [k][m] or B as [k][n]). Safe to call from several threads at once. b NULL: plain loops. */
void blas_gemm(const blas *b, bool a_is_km, bool b_is_kn, size_t m, size_t n, size_t k, float alpha, const float *A,
               size_t lda, const float *B, size_t ldb, float beta, float *C, size_t ldc);
#endif
