/* What the files of the matrix products share: one product as its threads see it, and the units of rows that they take. */
#ifndef CMC_RUNTIME_MATMUL_IMPL_H
#define CMC_RUNTIME_MATMUL_IMPL_H
#include "runtime/matmul.h"
#include "runtime/quant_impl.h"

#include <stdatomic.h>

/* What is left of a thread's units: the owner takes from the low end, others, when they are done, from the high. */
typedef struct matmul_range { _Alignas(64) _Atomic uint64_t v; } matmul_range;   /* low end, and << 32 the high */

/* [lo, hi), before any thread takes from it. */
static inline void matmul_range_put(matmul_range *r, size_t lo, size_t hi) {
    atomic_store_explicit(&r->v, (uint64_t)hi << 32 | lo, memory_order_relaxed);
}

/* What a thread does at a time: some rows of a weight, and the columns that they are multiplied with. */
typedef struct matmul_unit {
    const matmul_out *o;
    size_t row, rows, col, cols;
    ptrdiff_t ahead;          /* bytes from a row to what is asked of memory meanwhile */
} matmul_unit;
typedef struct matmul_job matmul_job;
typedef void (*matmul_unit_fn)(const matmul_job *job, const matmul_unit *u, float *tile);

/* What a row gives depends on nothing else than its row. */
struct matmul_job {
    const quant_kernels *kernels;
    const quant_gemm_kernels *integer;   /* for many columns, or NULL */
    const quant_packed_kernels *packed;  /* for few columns of packed weights, or NULL */
    bool fine;                /* activations of 15 bits */
    void (*act_row)(const float *x, void *act, size_t n);   /* quantises them; NULL where the path takes floats */
    const blas *blas;
    const matmul_out *outs;
    size_t n_w;
    matmul_gate gate;         /* of two outs, whose rows are taken together; or NULL */
    const float *x;
    size_t ldx, cols, n_in;
    uint8_t *act;             /* [cols][act_stride] quantised activations, integer paths */
    size_t act_stride;
    float *tiles;             /* [threads][tile_floats] decoded or unpacked rows, all paths but the dots of few columns */
    size_t tile_floats;
    size_t unit_rows, unit_cols;
    matmul_unit_fn unit;
    matmul_range *ranges;     /* [threads] */
    const uint8_t *next;      /* what this thread begins the next product with, or NULL */
};

enum { MATMUL_FINE_MIN_COLS = 12 };   /* fewer are sequences that are decoded side by side: activations as for one */

/* Of the weights those that take quantised activations. */
size_t matmul_using_act(const matmul_out *outs, size_t n_w);
/* Rows of a unit of the dots, and the dots of one: few columns. The rows depend on the shape alone. */
size_t matmul_dot_rows(const matmul_out *outs, size_t n_w);
void matmul_unit_dot(const matmul_job *job, const matmul_unit *u, float *tile);

/* Whether a product goes by the integer tiles; their units, once the activations' stride is known, and whether they are of packed rows;
 * and one of them. */
bool matmul_takes_tiles(const matmul_job *job, const cmc_runtime *rt);
void matmul_tile_units(matmul_job *job, const cmc_runtime *rt);
void matmul_unit_tile(const matmul_job *job, const matmul_unit *u, float *tile);

/* The next of thread t's range, one in `share` of those that are left, rounded up, or one of another's where that is done: *first and how
 * many, 0 when all are taken. *more: the one behind them is the thread's own next one. */
size_t matmul_range_take(matmul_range *ranges, size_t share, int t, int nt, size_t *first, bool *more);

/* Thread t's range, before any thread takes from it. Neighbouring rows go to one thread: what it asks of memory ahead of
 * time is then what it needs next. */
void matmul_range_set(const matmul_job *job, int t, int nt);
/* Where thread t's range begins in memory. */
const uint8_t *matmul_range_begin(const matmul_job *job, int t, int nt);
/* Pool worker: takes units until none is left. */
void matmul_thread(void *job, int t, int nt);
#endif
