/* y = W x for weights as stored: the one place that chooses between integer dots, BLAS and the exact path. */
#ifndef CMC_RUNTIME_MATMUL_H
#define CMC_RUNTIME_MATMUL_H
#include "base/gguf.h"
#include "runtime/runtime.h"

enum { MATMUL_TILE_MIN_COLS = 4 };   /* from so many columns on, unpacking rows pays, or having them packed */

typedef struct weight {
    uint32_t type;
    size_t n_in, n_out;          /* n_out rows of n_in elements */
    const uint8_t *data;         /* rows one after the other, row_bytes apart */
    size_t row_bytes;
    uint8_t *packed;             /* the rows in strips of strip_bytes (quant_packed_kernels), or NULL */
    size_t strip_bytes, packed_from;   /* taken for so many columns or more */
    const struct lora_weight *lora;   /* what adapters add to the product (lora.h), or NULL; the rows are without it */
} weight;

/* From a tensor; checks that it is [n_in, n_out] and of a type that is read. */
cmc_status weight_from_tensor(const gguf_tensor *t, size_t n_in, size_t n_out, const char *file, weight *out, cmc_error *err);
void weight_row(const weight *w, size_t row, float *out);        /* decoded, n_in floats */

/* Scratch that a thread needs; grown as needed, owned by the caller (one for a model). */
typedef struct matmul_work { void *buf; size_t size; } matmul_work;
void matmul_work_free(matmul_work *w);
/* About what it is for products of t rows of n_in. */
size_t matmul_bytes(const cmc_runtime *rt, size_t n_in, size_t t);

/* Y[t][n_out] (row stride ldy floats) = X[t][n_in] (stride ldx) times W^T, for n_w weights that share X: outs[i] gets W[i].
 * Uses all of rt's threads. Exact mode: each output is one fixed-order float dot whatever t is. */
typedef struct matmul_out { const weight *w; float *y; size_t ldy; } matmul_out;
cmc_status matmul(cmc_runtime *rt, matmul_work *work, const float *x, size_t ldx, size_t t, const matmul_out *outs, size_t n_w, cmc_error *err);

/* Products of few columns, one after the other, by the threads of a pool that are at work together. Each thread quantises
 * the inputs for itself, so nothing but the rows is shared out; a barrier must stand between two products. Weights with
 * adapters do not go this way, nor does the exact mode. */
typedef void (*matmul_gate)(float *gate, const float *up, size_t n);   /* gate = f(gate) * up */
typedef struct matmul_step {
    const matmul_out *outs;      /* [n_w] */
    size_t n_w;
    const float *x;              /* [cols][n_in], stride ldx */
    size_t ldx, cols;
    matmul_gate gate;            /* outs are two of the same shape, and this is done to their results; or NULL */
    bool normed;                 /* matmul_team_norm made all of x, and nothing was quantised since */
} matmul_step;
typedef struct matmul_team {
    const cmc_runtime *rt;
    int threads;
    void *buf;                   /* the ranges, and what the others point to */
    size_t size;
    uint8_t *acts;               /* [threads][act_bytes] */
    size_t act_bytes, act_stride;
    float *tiles;                /* [threads][tile_floats] */
    size_t tile_floats;
} matmul_team;
cmc_status matmul_team_reserve(matmul_team *team, const cmc_runtime *rt, size_t cols, size_t max_n_in, cmc_error *err);
void matmul_team_free(matmul_team *team);
/* Whether any of the step's weights takes its input quantised. */
bool matmul_step_quantises(const matmul_step *step);
/* One column of such a step's x, for thread t: y = x * scale * w, an RMSNorm whose scale is known, quantised in the same pass. */
void matmul_team_norm(matmul_team *team, const matmul_step *step, size_t col, const float *x, float scale, const float *w, float *y, int t);
/* Thread t's part. `next`: the product that comes after it (its x is not looked at), whose first rows are asked of memory
 * meanwhile; or NULL. */
void matmul_team_run(matmul_team *team, const matmul_step *step, const matmul_step *next, int t);
#endif
