/* A product's rows in units, and how threads take them. */
#include "runtime/matmul_impl.h"

enum {
    DOT_UNIT_BYTES = 8 * 1024,   /* of weights that a thread takes at a time */
    DOT_UNIT_ROWS_MAX = 256,
    DOT_COLS = 32,               /* columns that stay in the first-level cache beside a unit's rows */
    TILE_FEW_ROWS = 16,          /* of few columns, whose tiles take about as long as a barrier */
    TILE_ACT_BYTES = 384 * 1024, /* of activations that stay in the second-level cache */
    TAKE_SHARE = 8               /* of its own units a thread takes one in so many at a time: each taking waits until what was written
                                    is with the others */
};

size_t matmul_using_act(const matmul_out *outs, size_t n_w) {
    size_t n = 0;
    for (size_t i = 0; i < n_w; i++)
        n += quant_dot_uses_act(outs[i].w->type);
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

void matmul_unit_dot(const matmul_job *job, const matmul_unit *u, float *tile) {
    (void)tile;
    const weight *w = u->o->w;
    bool quantised = quant_dot_uses_act(w->type);
    const uint8_t *acts = quantised ? job->act : (const uint8_t *)(const void *)job->x;
    size_t stride = quantised ? job->act_stride : job->ldx * sizeof(float);
    for (size_t c = u->col, end = u->col + u->cols; c < end; c += DOT_COLS) {
        quant_dot_args a = {.rows = w->data + u->row * w->row_bytes, .row_stride = w->row_bytes, .n_rows = u->rows, .ahead = u->ahead,
                            .acts = acts + c * stride, .act_stride = stride, .n_cols = end - c < DOT_COLS ? end - c : DOT_COLS,
                            .n = job->n_in, .out = u->o->y + c * u->o->ldy + u->row, .out_stride = u->o->ldy};
        job->kernels->dot(w->type, &a);
    }
}

/* Whether all are packed, and for so few columns. */
static bool takes_packed(const matmul_job *job, const cmc_runtime *rt) {
    bool packed = rt->packed && job->cols < MATMUL_FINE_MIN_COLS;
    for (size_t i = 0; i < job->n_w; i++)
        packed = packed && job->outs[i].w->packed && job->cols >= job->outs[i].w->packed_from;
    return packed;
}

bool matmul_takes_tiles(const matmul_job *job, const cmc_runtime *rt) {
    return takes_packed(job, rt) || (rt->integer_gemm && job->cols >= MATMUL_TILE_MIN_COLS && matmul_using_act(job->outs, job->n_w) == job->n_w);
}

/* Columns in blocks of about the same size, each no more than stays beside a tile in the second-level cache. */
static size_t tile_cols(const matmul_job *job) {
    const size_t most = TILE_ACT_BYTES / (job->act_stride * QUANT_GEMM_COLS) * QUANT_GEMM_COLS;
    const size_t blocks = most ? (job->cols + most - 1) / most : (job->cols + QUANT_GEMM_COLS - 1) / QUANT_GEMM_COLS;
    const size_t cols = (job->cols + blocks - 1) / blocks;
    return (cols + QUANT_GEMM_COLS - 1) / QUANT_GEMM_COLS * QUANT_GEMM_COLS;
}

/* Of packed weights: a strip, or where strips are so short that taking them one by one would take as long, as many as the dots have bytes. */
static size_t packed_rows(const matmul_job *job) {
    size_t bytes = 1;
    for (size_t i = 0; i < job->n_w; i++)
        if (job->outs[i].w->strip_bytes > bytes)
            bytes = job->outs[i].w->strip_bytes;
    const size_t rows = DOT_UNIT_BYTES / bytes * QUANT_PACKED_ROWS;
    return rows < QUANT_PACKED_ROWS ? QUANT_PACKED_ROWS : rows > DOT_UNIT_ROWS_MAX ? DOT_UNIT_ROWS_MAX : rows;
}

void matmul_tile_units(matmul_job *job, const cmc_runtime *rt) {
    job->unit = matmul_unit_tile;
    job->packed = takes_packed(job, rt) ? rt->packed : NULL;
    job->unit_rows = job->packed ? packed_rows(job) : job->cols < QUANT_GEMM_COLS ? TILE_FEW_ROWS : QUANT_GEMM_ROWS;
    job->unit_cols = tile_cols(job);
}

/* Where row `row` begins: a strip's first, where they are packed. */
static const uint8_t *row_place(const matmul_job *job, const weight *w, size_t row) {
    return job->packed ? w->packed + row / QUANT_PACKED_ROWS * w->strip_bytes : w->data + row * w->row_bytes;
}

void matmul_unit_tile(const matmul_job *job, const matmul_unit *u, float *tile) {
    const weight *w = u->o->w;
    quant_dot_args a = {.rows = row_place(job, w, u->row), .row_stride = w->row_bytes, .n_rows = u->rows, .ahead = u->ahead,
                        .acts = job->act + u->col * job->act_stride, .act_stride = job->act_stride, .n_cols = u->cols,
                        .fine = job->fine, .n = job->n_in, .out = u->o->y + u->col * u->o->ldy + u->row, .out_stride = u->o->ldy};
    (job->packed ? job->packed->dot : job->integer->gemm)(w->type, &a, tile);
}

/* ------------------------------------------------------------------------------------------------- units */

static size_t units_of(const matmul_job *job, const matmul_out *o) {
    return (o->w->n_out + job->unit_rows - 1) / job->unit_rows;
}

/* Of one block of columns. */
static size_t units_of_rows(const matmul_job *job) {
    size_t n = 0;
    for (size_t i = 0; i < (job->gate ? 1 : job->n_w); i++)
        n += units_of(job, &job->outs[i]);
    return n;
}

static size_t units_of_all(const matmul_job *job) {
    return units_of_rows(job) * ((job->cols + job->unit_cols - 1) / job->unit_cols);
}

/* Unit i: neighbours have neighbouring rows, and the columns of a block stay with a thread. */
static matmul_unit unit_place(const matmul_job *job, size_t i) {
    const size_t of_rows = units_of_rows(job), col = i / of_rows * job->unit_cols;
    const matmul_out *o = job->outs;
    for (i %= of_rows; i >= units_of(job, o); o++)
        i -= units_of(job, o);
    const size_t row = i * job->unit_rows, rows = o->w->n_out - row, cols = job->cols - col;
    return (matmul_unit){.o = o, .row = row, .rows = rows < job->unit_rows ? rows : job->unit_rows, .col = col,
                         .cols = cols < job->unit_cols ? cols : job->unit_cols};
}

/* Unit i, the one behind u. Written where it stays: loading it as a whole at once would wait for all that was stored before. */
static void unit_after(const matmul_job *job, const matmul_unit *u, size_t i, matmul_unit *out) {
    const size_t row = u->row + job->unit_rows, n = u->o->w->n_out;
    if (row >= n) {
        *out = unit_place(job, i);
        return;
    }
    out->o = u->o;
    out->row = row;
    out->rows = n - row < job->unit_rows ? n - row : job->unit_rows;
    out->col = u->col;
    out->cols = u->cols;
}

static const uint8_t *unit_begin(const matmul_job *job, const matmul_unit *u) {
    return row_place(job, u->o->w, u->row);
}

void matmul_range_set(const matmul_job *job, int t, int nt) {
    size_t lo, hi;
    cmc_pool_share(units_of_all(job), 1, t, nt, &lo, &hi);
    matmul_range_put(&job->ranges[t], lo, hi);
}

const uint8_t *matmul_range_begin(const matmul_job *job, int t, int nt) {
    size_t lo, hi;
    cmc_pool_share(units_of_all(job), 1, t, nt, &lo, &hi);
    if (lo == hi)
        return NULL;
    const matmul_unit first = unit_place(job, lo);
    return unit_begin(job, &first);
}

size_t matmul_range_take(matmul_range *ranges, size_t share, int t, int nt, size_t *first, bool *more) {
    for (int k = 0; k < nt; k++) {
        _Atomic uint64_t *range = &ranges[(t + k) % nt].v;
        uint64_t r = atomic_load_explicit(range, memory_order_relaxed);
        while ((uint32_t)r < (uint32_t)(r >> 32)) {
            const uint64_t all = (r >> 32) - (uint32_t)r, n = k == 0 ? all / share + (all % share != 0) : 1;
            const uint64_t left = k == 0 ? r + n : r - (n << 32);
            if (!atomic_compare_exchange_weak_explicit(range, &r, left, memory_order_relaxed, memory_order_relaxed))
                continue;
            *first = k == 0 ? (uint32_t)r : (uint32_t)(left >> 32);
            *more = k == 0 && (uint32_t)left < (uint32_t)(left >> 32);
            return n;
        }
    }
    return 0;
}

/* What a thread reads after unit u, as far as it is known; else what follows in memory. */
static ptrdiff_t unit_ahead(const matmul_job *job, const matmul_unit *u, const matmul_unit *then) {
    const uint8_t *next = then ? unit_begin(job, then) : job->next;
    if (!next)
        next = row_place(job, u->o->w, u->row + job->unit_rows);
    return (ptrdiff_t)((uintptr_t)next - (uintptr_t)unit_begin(job, u));
}

/* then: the unit that this thread has next, NULL where it is not known. */
static void unit_run(const matmul_job *job, matmul_unit *u, const matmul_unit *then, float *tile) {
    u->ahead = unit_ahead(job, u, then);
    job->unit(job, u, tile);
    if (!job->gate)
        return;
    const matmul_out *gate = u->o, *up = &job->outs[1];
    u->o = up;
    if (!then)
        u->ahead = row_place(job, up->w, u->row + u->rows) - unit_begin(job, u);
    job->unit(job, u, tile);
    u->o = gate;
    for (size_t c = u->col; c < u->col + u->cols; c++)
        job->gate(gate->y + c * gate->ldy + u->row, up->y + c * up->ldy + u->row, u->rows);
}

void matmul_thread(void *arg, int t, int nt) {
    const matmul_job *job = arg;
    float *tile = job->tiles ? job->tiles + (size_t)t * job->tile_floats : NULL;
    size_t first;
    bool more;
    for (size_t n; (n = matmul_range_take(job->ranges, TAKE_SHARE, t, nt, &first, &more)) > 0;) {
        matmul_unit u[2] = {unit_place(job, first)};
        for (size_t k = 0; k < n; k++) {
            matmul_unit *now = &u[k % 2], *then = k + 1 < n || more ? &u[(k + 1) % 2] : NULL;
            if (then)
                unit_after(job, now, first + k + 1, then);
            unit_run(job, now, then, tile);
        }
    }
}
