/* The runtime object: threads, numerics, BLAS. */
#include "runtime/runtime.h"

#include "runtime/vec.h"

#include "base/error.h"
#include "base/mem.h"
#include "runtime/quant.h"

#include <stdlib.h>

/* Where decoding a tile of rows once and multiplying it in float overtakes integer dots: measured by bench/kernel_speed on
 * a Zen 3 core, 576 x 576 to 262144 x 640. */
enum { GEMM_MIN_COLS = 32 };

/* Without instructions for it, converting from float16 is slow. */
static kv_type runtime_kv(const cmc_runtime_opts *o) {
    if (o->exact || o->kv == CMC_KV_FLOAT)
        return KV_FLOAT;
    return o->kv == CMC_KV_INT8 ? KV_INT8 : vec_fast() != &vec_plain ? KV_HALF : KV_FLOAT;
}

cmc_status cmc_runtime_open(const cmc_runtime_opts *opts, cmc_runtime **out, cmc_error *err) {
    *out = NULL;
    cmc_runtime_opts o = opts ? *opts : (cmc_runtime_opts){0};
    if (o.threads < 0)
        return cmc_fail(err, CMC_E_ARG, "threads: %d is negative; 0 means one for each core", o.threads);
    cmc_runtime *rt = cmc_calloc(1, sizeof *rt);
    if (!rt)
        return cmc_fail_nomem(err, "runtime", sizeof *rt);
    cmc_status st = cmc_pool_new(o.threads, &rt->pool, err);
    if (st != CMC_OK) {
        free(rt);
        return st;
    }
    rt->exact = o.exact;
    rt->gemm_min_cols = GEMM_MIN_COLS;
    rt->integer_gemm = o.exact || o.batches == CMC_BATCHES_FLOAT ? NULL : quant_gemm_vnni();
    rt->packed = rt->integer_gemm ? quant_packed_vnni() : NULL;
    rt->fine_batches = o.batches != CMC_BATCHES_INT8;
    rt->output = o.output;
    rt->kv = runtime_kv(&o);
    rt->blas = o.exact ? NULL : blas_open();   /* exact: blas_gemm's plain loops, which sum in one order */
    *out = rt;
    return CMC_OK;
}

void cmc_runtime_free(cmc_runtime *rt) {
    if (!rt)
        return;
    cmc_pool_free(rt->pool);
    blas_close(rt->blas);
    free(rt);
}

int cmc_runtime_threads(const cmc_runtime *rt) {
    return cmc_pool_threads(rt->pool);
}

const char *cmc_runtime_blas_core(const cmc_runtime *rt) {
    return blas_core(rt->blas);
}

const char *cmc_runtime_isa(const cmc_runtime *rt) {
    (void)rt;   /* the kernels are the machine's, not the runtime's */
    return quant_isa();
}
