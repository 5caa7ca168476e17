/* LoRA adapters beside a model's matrices (arXiv 2106.09685), in the GGUF layout that llama.cpp reads: NAME.lora_a
 * [rank][n_in] and NAME.lora_b [n_out][rank], with adapter.lora.alpha. The matrices themselves stay as they are stored,
 * so that they keep their kernels; y += scale B (A x) is added behind each product. */
#ifndef CMC_RUNTIME_LORA_H
#define CMC_RUNTIME_LORA_H
#include "runtime/matmul.h"

/* What all adapters of one matrix come to: their ranks add up. */
typedef struct lora_weight {
    size_t rank, n_in, n_out;
    float *a;                /* [rank][n_in] */
    float *b;                /* [ceil(n_out / 16)][rank][16]: panels of columns (vec.h), times the adapter's scale */
} lora_weight;

/* The adapters of a model: a slot for each matrix. */
typedef struct lora_set {
    lora_weight *v;
    size_t n;
} lora_set;
void lora_set_free(lora_set *s);

/* Adds to each out what its matrix's adapters give, where it has any; what a column gets does not depend on the others.
 * `work` is overwritten. */
cmc_status lora_add(cmc_runtime *rt, matmul_work *work, const float *x, size_t ldx, size_t t, const matmul_out *outs,
                    size_t n_w, cmc_error *err);
/* w[n_in] += row `row` of scale B A. */
void lora_merge_row(const lora_weight *l, size_t row, float *w);
#endif
