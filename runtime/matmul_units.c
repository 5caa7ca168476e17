/* A product's rows in units, and how threads take them. */
#include "runtime/matmul_impl.h"

enum {
    DOT_UNIT_BYTES = 8 * 1024,   /* of weights that a thread takes at a time */
    DOT_UNIT_ROWS_MAX = 256,
    DOT_COLS = 32                /* columns that stay in the first-level cache beside a unit's rows */
};

size_t matmul_using_act(const matmul_job *job) {
    size_t n = 0;
    for (size_t i = 0; i < job->n_w; i++)
        n += quant_dot_uses_act(job->outs[i].w->type);
    return n;
}

size_t matmul_dot_rows(const matmul_out *outs, size_t n_w) {
    size_t bytes = 1;
    for (size_t i = 0; i < n_w; i++)
        if (outs[i].w->row_bytes > bytes)
            bytes = outs[i].w->row_bytes;
    const size_t rows = DOT_UNIT_BYTES / bytes / 4 * 4;
    return rows < 1 ? 1 : rows > DOT_UNIT_ROWS_MAX ? DOT_UNIT_ROWS_MAX : rows;
}

void matmul_unit_dot(const matmul_job *job, const matmul_out *o, size_t row, size_t rows, ptrdiff_t ahead, float *tile) {
    (void)tile;
    const weight *w = o->w;
    bool quantised = quant_dot_uses_act(w->type);
    const uint8_t *acts = quantised ? job->act : (const uint8_t *)(const void *)job->x;
    size_t stride = quantised ? job->act_stride : job->ldx * sizeof(float);
    for (size_t c = 0; c < job->cols; c += DOT_COLS) {
        quant_dot_args a = {.rows = w->data + row * w->row_bytes, .row_stride = w->row_bytes, .n_rows = rows, .ahead = ahead,
                            .acts = acts + c * stride, .act_stride = stride,
                            .n_cols = job->cols - c < DOT_COLS ? job->cols - c : DOT_COLS, .n = job->n_in,
                            .out = o->y + c * o->ldy + row, .out_stride = o->ldy};
        job->kernels->dot(w->type, &a);
    }
}

bool matmul_takes_tiles(const matmul_job *job, const cmc_runtime *rt) {
    return rt->integer_gemm && job->cols >= MATMUL_TILE_MIN_COLS && matmul_using_act(job) == job->n_w;
}

void matmul_unit_tile(const matmul_job *job, const matmul_out *o, size_t row, size_t rows, ptrdiff_t ahead, float *tile) {
    const weight *w = o->w;
    quant_dot_args a = {.rows = w->data + row * w->row_bytes, .row_stride = w->row_bytes, .n_rows = rows, .ahead = ahead, .acts = job->act,
                        .act_stride = job->act_stride, .n_cols = job->cols, .fine = job->fine, .n = job->n_in,
                        .out = o->y + row, .out_stride = o->ldy};
    job->integer->gemm(w->type, &a, tile);
}

/* ------------------------------------------------------------------------------------------------- units */

static size_t units_of(const matmul_job *job, const matmul_out *o) {
    return (o->w->n_out + job->unit_rows - 1) / job->unit_rows;
}

static size_t units_of_all(const matmul_job *job) {
    size_t n = 0;
    for (size_t i = 0; i < (job->gate ? 1 : job->n_w); i++)
        n += units_of(job, &job->outs[i]);
    return n;
}

/* Where unit u is: its out and first row. */
static const matmul_out *unit_place(const matmul_job *job, size_t u, size_t *row) {
    const matmul_out *o = job->outs;
    for (; u >= units_of(job, o); o++)
        u -= units_of(job, o);
    *row = u * job->unit_rows;
    return o;
}

static const uint8_t *unit_begin(const matmul_job *job, size_t u) {
    size_t row;
    const matmul_out *o = unit_place(job, u, &row);
    return o->w->data + row * o->w->row_bytes;
}

void matmul_range_set(const matmul_job *job, int t, int nt) {
    size_t lo, hi;
    cmc_pool_share(units_of_all(job), 1, t, nt, &lo, &hi);
    atomic_store_explicit(&job->ranges[t].v, (uint64_t)hi << 32 | lo, memory_order_relaxed);
}

const uint8_t *matmul_range_begin(const matmul_job *job, int t, int nt) {
    size_t lo, hi;
    cmc_pool_share(units_of_all(job), 1, t, nt, &lo, &hi);
    return lo < hi ? unit_begin(job, lo) : NULL;
}

typedef struct unit_taken { size_t unit; bool more; } unit_taken;   /* more: its successor is the thread's own next one */

/* The next unit of thread t's range, or of another's where that is done; SIZE_MAX when all are. */
static unit_taken unit_take(const matmul_job *job, int t, int nt) {
    for (int k = 0; k < nt; k++) {
        _Atomic uint64_t *range = &job->ranges[(t + k) % nt].v;
        uint64_t r = atomic_load_explicit(range, memory_order_relaxed);
        while ((uint32_t)r < (uint32_t)(r >> 32)) {
            const uint64_t left = k == 0 ? r + 1 : r - ((uint64_t)1 << 32);
            if (atomic_compare_exchange_weak_explicit(range, &r, left, memory_order_relaxed, memory_order_relaxed))
                return k == 0 ? (unit_taken){(uint32_t)r, (uint32_t)left < (uint32_t)(left >> 32)}
                              : (unit_taken){(uint32_t)(left >> 32), false};
        }
    }
    return (unit_taken){SIZE_MAX, false};
}

/* What a thread reads after this unit, as far as it is known; else what follows in memory. */
static ptrdiff_t unit_ahead(const matmul_job *job, const matmul_out *o, unit_taken u, const uint8_t *begin) {
    const uint8_t *next = u.more ? unit_begin(job, u.unit + 1) : job->next;
    return next ? (ptrdiff_t)((uintptr_t)next - (uintptr_t)begin) : (ptrdiff_t)(job->unit_rows * o->w->row_bytes);
}

void matmul_thread(void *arg, int t, int nt) {
    matmul_job *job = arg;
    float *tile = job->tiles ? job->tiles + (size_t)t * job->tile_floats : NULL;
    for (unit_taken u; (u = unit_take(job, t, nt)).unit != SIZE_MAX;) {
        size_t row;
        const matmul_out *o = unit_place(job, u.unit, &row);
        const size_t left = o->w->n_out - row, rows = left < job->unit_rows ? left : job->unit_rows;
        const ptrdiff_t ahead = unit_ahead(job, o, u, o->w->data + row * o->w->row_bytes);
        job->unit(job, o, row, rows, ahead, tile);
        if (!job->gate)
            continue;
        const matmul_out *up = &job->outs[1];
        job->unit(job, up, row, rows, u.more ? ahead : (ptrdiff_t)(rows * up->w->row_bytes), tile);
        for (size_t c = 0; c < job->cols; c++)
            job->gate(o->y + c * o->ldy + row, up->y + c * up->ldy + row, rows);
    }
}
