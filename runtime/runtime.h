/* The runtime object: threads, numerics, BLAS. */
#ifndef CMC_RUNTIME_RUNTIME_H
#define CMC_RUNTIME_RUNTIME_H
#include "base/pool.h"
#include "runtime/blas.h"
#include "runtime/kv.h"
#include "runtime/quant_impl.h"

struct cmc_runtime {
    cmc_pool *pool;
    blas *blas;
    bool exact;
    const quant_gemm_kernels *integer_gemm;   /* products of quantised weights with batches, or NULL */
    const quant_packed_kernels *packed;       /* those of weights laid out for few columns, or NULL */
    bool fine_batches;            /* they take activations of 15 bits rather than 8 */
    cmc_output output;            /* how the logits are computed that tokens are chosen by */
    kv_type kv;                   /* how sessions keep keys and values */
    size_t gemm_min_cols;   /* from so many columns on, matmul decodes weights for BLAS rather than taking integer dots */
};
#endif
