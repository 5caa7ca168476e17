/* The screened output product. A decode step reads all weights once, and where the vocabulary is large most of them are the
 * output matrix's, for logits of which nearly all are too small to matter. */
#include "runtime/screen.h"

#include <math.h>
#include <stdlib.h>

#include "base/error.h"
#include "base/mem.h"
#include "runtime/graph.h"
#include "runtime/vec.h"

enum {
    SCREEN_COLS = 8,            /* columns at a time: as many as are read for one's price */
    SCREEN_SHARE = 32,          /* 1 row in so many is computed */
    SCREEN_CHUNK = 1024,        /* rows that a thread takes at a time: the likely ones lie close together */
    SCREEN_BINS = 256,          /* of logits by how far they are below the greatest */
    SCREEN_BINS_PER_NAT = 8,
    SCREEN_AHEAD = 4,           /* rows between the one computed and the one asked of memory */
    SCREEN_LEAST_SAVED = 8 << 20,      /* bytes: a smaller matrix may stay in a cache */
    SCREEN_LEAST_SAVED_SHARE = 8       /* of what a step reads, the part that the copy must save to be worth its memory */
};

/* What a thread finds in its rows of a column's estimates. */
typedef struct screen_part {
    float top;
    uint32_t bins[SCREEN_BINS];
} screen_part;

typedef struct screen_job {
    const weight *w;
    const quant_kernels *kernels;
    const vec_ops *vec;
    cmc_pool *pool;
    screen_part *parts;         /* [threads][cols] */
    const uint8_t *acts;        /* [cols], act_stride bytes apart: what the kernels take for w's type */
    size_t act_stride, cols;
    float *y;                   /* [cols][n_out], stride ld */
    size_t ld;
} screen_job;

/* -------------------------------------------------------------------------------------------------- the copy */

void screen_free(screen *s) {
    free(s->data);
    free(s->parts);
    free(s->acts);
    *s = (screen){0};
}

static bool screen_pays(const cmc_model *m) {
    const weight *w = &m->head;
    if (m->rt->exact || m->rt->output == CMC_OUTPUT_FULL || w->lora || w->n_in % cmc_type_block(CMC_Q4_0) != 0)
        return false;
    if (m->rt->output == CMC_OUTPUT_SCREENED)
        return true;
    const uint64_t full = (uint64_t)w->n_out * w->row_bytes, copy = (uint64_t)w->n_out * cmc_type_row_bytes(CMC_Q4_0, w->n_in);
    const uint64_t idle = m->embd.data == w->data ? 0 : (uint64_t)m->embd.n_out * m->embd.row_bytes;
    const uint64_t least = (m->n_bytes - idle) / SCREEN_LEAST_SAVED_SHARE;
    return full >= copy + SCREEN_LEAST_SAVED && full >= copy + least;
}

const weight *screen_reads(const cmc_model *m) {
    return m->screen.data ? &m->screen.copy : &m->head;
}

typedef struct copy_job {
    const weight *from, *to;
    const quant_kernels *kernels;
    uint8_t *data;
    float *rows;                /* [threads][n_in] */
} copy_job;

static void copy_share(void *arg, int t, int nt) {
    const copy_job *j = arg;
    float *row = j->rows + (size_t)t * j->from->n_in;
    size_t lo, hi;
    cmc_pool_share(j->from->n_out, 1, t, nt, &lo, &hi);
    for (size_t r = lo; r < hi; r++) {
        j->kernels->decode_row(j->from->type, j->from->data + r * j->from->row_bytes, row, j->from->n_in);
        j->kernels->encode_q4_0(row, j->data + r * j->to->row_bytes, j->from->n_in);
    }
}

static cmc_status screen_make(cmc_model *m, cmc_error *err) {
    const weight *w = &m->head;
    screen *s = &m->screen;
    const size_t threads = (size_t)cmc_pool_threads(m->rt->pool), row_bytes = cmc_type_row_bytes(CMC_Q4_0, w->n_in);
    s->act_stride = quant_act_bytes(w->n_in);
    uint8_t *data = cmc_alloc_aligned(w->n_out, row_bytes);
    float *rows = cmc_alloc(threads * w->n_in, sizeof *rows);
    s->parts = cmc_alloc(threads * SCREEN_COLS, sizeof *s->parts);
    s->acts = cmc_alloc_aligned(SCREEN_COLS, s->act_stride);
    if (!data || !rows || !s->parts || !s->acts) {
        free(data);
        free(rows);
        screen_free(s);
        return cmc_fail_nomem(err, "a compact copy of the output matrix", w->n_out * row_bytes);
    }
    s->copy = (weight){.type = CMC_Q4_0, .n_in = w->n_in, .n_out = w->n_out, .data = data, .row_bytes = row_bytes};
    s->data = data;
    copy_job job = {.from = w, .to = &s->copy, .kernels = quant_kernels_best(), .data = data, .rows = rows};
    cmc_pool_run(m->rt->pool, copy_share, &job);
    free(rows);
    return CMC_OK;
}

/* -------------------------------------------------------------------------------------------- the candidates */

/* Chunk k of thread t's, as [*lo, *hi); false where it has no more. */
static bool screen_chunk(const screen_job *j, size_t k, int t, int nt, size_t *lo, size_t *hi) {
    *lo = (k * (size_t)nt + (size_t)t) * SCREEN_CHUNK;
    *hi = *lo + SCREEN_CHUNK < j->w->n_out ? *lo + SCREEN_CHUNK : j->w->n_out;
    return *lo < j->w->n_out;
}

static void screen_find_top(const screen_job *j, size_t c, int t, int nt) {
    const float *y = j->y + c * j->ld;
    float top = -INFINITY;
    size_t lo, hi;
    for (size_t k = 0; screen_chunk(j, k, t, nt, &lo, &hi); k++)
        top = fmaxf(top, j->vec->max(y + lo, hi - lo));
    j->parts[(size_t)t * j->cols + c].top = top;
}

static float screen_top(const screen_job *j, size_t c, int nt) {
    float top = -INFINITY;
    for (size_t t = 0; t < (size_t)nt; t++)
        top = fmaxf(top, j->parts[t * j->cols + c].top);
    return top;
}

/* How far a logit is below the greatest, in bins; SCREEN_BINS and more, and NaN, are beyond them. */
static inline float screen_depth(float top, float logit) {
    return (top - logit) * (float)SCREEN_BINS_PER_NAT;
}

static void screen_count(const screen_job *j, size_t c, int t, int nt) {
    const float *y = j->y + c * j->ld, top = screen_top(j, c, nt);
    uint32_t *bins = j->parts[(size_t)t * j->cols + c].bins;
    size_t lo, hi;
    for (size_t b = 0; b < SCREEN_BINS; b++)
        bins[b] = 0;
    for (size_t k = 0; screen_chunk(j, k, t, nt, &lo, &hi); k++)
        for (size_t i = lo; i < hi; i++) {
            const float depth = screen_depth(top, y[i]);
            if (depth < (float)SCREEN_BINS)
                bins[(int)depth]++;
        }
}

/* The depth above which rows are computed: the least number of bins that hold enough, or all of them. */
static float screen_cut(const screen_job *j, size_t c, int nt) {
    const size_t enough = (j->w->n_out + SCREEN_SHARE - 1) / SCREEN_SHARE;
    size_t sum = 0, b = 0;
    for (; b < SCREEN_BINS && sum < enough; b++)
        for (size_t t = 0; t < (size_t)nt; t++)
            sum += j->parts[t * j->cols + c].bins[b];
    return (float)b;
}

/* The candidates among rows [lo, hi), which are at most SCREEN_CHUNK. */
static void screen_compute(const screen_job *j, size_t c, float top, float cut, size_t lo, size_t hi) {
    const weight *w = j->w;
    float *y = j->y + c * j->ld;
    uint32_t rows[SCREEN_CHUNK + SCREEN_AHEAD];
    size_t n = 0;
    for (size_t i = lo; i < hi; i++) {
        rows[n] = (uint32_t)i;
        n += screen_depth(top, y[i]) < cut;
    }
    for (size_t k = 0; k < SCREEN_AHEAD && n > 0; k++)
        rows[n + k] = rows[n - 1];
    for (size_t k = 0; k < n; k++) {
        const ptrdiff_t ahead = ((ptrdiff_t)rows[k + SCREEN_AHEAD] - (ptrdiff_t)rows[k]) * (ptrdiff_t)w->row_bytes;
        const quant_dot_args a = {.rows = w->data + rows[k] * w->row_bytes, .row_stride = w->row_bytes, .n_rows = 1, .ahead = ahead,
                                  .acts = j->acts + c * j->act_stride, .act_stride = j->act_stride, .n_cols = 1, .n = w->n_in,
                                  .out = y + rows[k], .out_stride = j->ld};
        j->kernels->dot(w->type, &a);
    }
}

/* Pool worker. Whatever the number of threads, the same rows are computed, each by itself. */
static void screen_share(void *arg, int t, int nt) {
    const screen_job *j = arg;
    size_t lo, hi;
    for (size_t c = 0; c < j->cols; c++)
        screen_find_top(j, c, t, nt);
    cmc_pool_barrier(j->pool, t);
    for (size_t c = 0; c < j->cols; c++)
        screen_count(j, c, t, nt);
    cmc_pool_barrier(j->pool, t);
    for (size_t c = 0; c < j->cols; c++) {
        const float top = screen_top(j, c, nt), cut = screen_cut(j, c, nt);
        for (size_t k = 0; screen_chunk(j, k, t, nt, &lo, &hi); k++)
            screen_compute(j, c, top, cut, lo, hi);
    }
}

/* At most SCREEN_COLS rows. */
static cmc_status screen_columns(cmc_model *m, const float *hidden, size_t n, float *logits, size_t ld, cmc_error *err) {
    const screen *s = &m->screen;
    const size_t e = m->head.n_in;
    const matmul_out out = {&s->copy, logits, ld};
    screen_job job = {.w = &m->head, .kernels = quant_kernels_best(), .vec = vec_fast(), .pool = m->rt->pool, .parts = s->parts,
                      .cols = n, .y = logits, .ld = ld};
    CMC_TRY(matmul(m->rt, &m->work, hidden, e, n, &out, 1, err));
    if (quant_dot_uses_act(m->head.type)) {
        for (size_t c = 0; c < n; c++)
            job.kernels->act_row(hidden + c * e, s->acts + c * s->act_stride, e);
        job.acts = s->acts;
        job.act_stride = s->act_stride;
    } else {
        job.acts = (const uint8_t *)(const void *)hidden;
        job.act_stride = e * sizeof *hidden;
    }
    cmc_pool_run(m->rt->pool, screen_share, &job);
    return CMC_OK;
}

cmc_status screen_logits(cmc_model *m, const float *hidden, size_t n, float *logits, size_t ld, cmc_error *err) {
    if (!screen_pays(m))
        return graph_logits(m, hidden, n, logits, ld, err);
    if (!m->screen.data)
        CMC_TRY(screen_make(m, err));
    for (size_t i = 0; i < n; i += SCREEN_COLS) {
        const size_t cols = n - i < SCREEN_COLS ? n - i : SCREEN_COLS;
        CMC_TRY(screen_columns(m, hidden + i * m->head.n_in, cols, logits + i * ld, ld, err));
    }
    return CMC_OK;
}
