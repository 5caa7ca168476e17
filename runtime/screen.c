/* The screened output product. A decode step reads all weights once, and where the vocabulary is large most of them are the
 * output matrix's, for logits of which nearly all are too small to matter. */
#include "runtime/screen.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "base/error.h"
#include "base/mem.h"
#include "runtime/graph.h"
#include "runtime/matmul_impl.h"
#include "runtime/screen_panel.h"
#include "runtime/vec.h"

enum {
    SCREEN_LEAST = 1024, SCREEN_MOST = 4096,   /* rows are computed, at least and at most, but of a smaller vocabulary no */
    SCREEN_LEAST_SHARE = 64, SCREEN_MOST_SHARE = 16,   /* more than 1 row in so many; between the two until the others have */
    SCREEN_REST = 256,          /* one part in so many of the probability */
    SCREEN_CHUNK = 1024,        /* rows that are gone through at a time */
    SCREEN_LIST = 1 << 15,      /* candidates that a thread lists; if it finds more, it computes these by itself */
    SCREEN_UNIT = 64,           /* of them, that a thread takes at a time */
    SCREEN_BINS_PER_NAT = 8,    /* of logits by how far they are below the greatest */
    SCREEN_AHEAD = 6,           /* rows between the one computed and the one asked of memory */
    SCREEN_LEAST_SAVED = 8 << 20,      /* bytes: a smaller matrix may stay in a cache */
    SCREEN_LEAST_SAVED_SHARE = 6       /* of what a step reads, the part that the copy must save to be worth its error */
};

/* What a thread finds in its rows of a column's estimates. */
typedef struct screen_part {
    float top;
    uint32_t bins[VEC_BINS + 1];
} screen_part;

/* A candidate, and what was computed for it. */
typedef struct screen_found {
    uint32_t row, col;
    float value;
} screen_found;

typedef struct screen_job {
    const weight *w;
    const panel_kernels *panel;
    const quant_kernels *kernels;
    const vec_ops *vec;
    cmc_pool *pool;
    uint8_t *panels;
    float *row;                 /* [threads][n_in], for making the copy */
    screen_part *parts;         /* [threads][cols] */
    screen_found *found;        /* [threads][SCREEN_LIST] */
    size_t *n_found;            /* [threads] */
    matmul_range *ranges;       /* [threads] units of found that are not computed yet, thread t's from t * SCREEN_LIST on */
    const uint8_t *acts, *own;  /* [cols] quantised, and what the kernels take for w's type */
    size_t act_stride, own_stride, cols;
    float *y;                   /* [cols][n_out], stride ld */
    size_t ld;
} screen_job;

static const panel_kernels *screen_kernels(void) {
    const panel_kernels *k = panel_kernels_vnni();
    return k ? k : &panel_kernels_plain;
}

/* Thread t's chunks [*first, *end): side by side, as the threads of what is done with the logits afterwards have them. */
static void screen_chunks(const screen_job *j, int t, int nt, size_t *first, size_t *end) {
    cmc_pool_share((j->w->n_out + SCREEN_CHUNK - 1) / SCREEN_CHUNK, 1, t, nt, first, end);
}

/* Rows [*lo, *hi) of a chunk. */
static void screen_chunk(const screen_job *j, size_t chunk, size_t *lo, size_t *hi) {
    *lo = chunk * SCREEN_CHUNK;
    *hi = *lo + SCREEN_CHUNK < j->w->n_out ? *lo + SCREEN_CHUNK : j->w->n_out;
}

/* -------------------------------------------------------------------------------------------------- the copy */

void screen_free(screen *s) {
    free(s->panels);
    free(s->parts);
    free(s->ranges);
    free(s->found);
    free(s->n_found);
    free(s->acts);
    *s = (screen){0};
}

static uint64_t screen_bytes(const weight *w) {
    return (w->n_out + PANEL_ROWS - 1) / PANEL_ROWS * panel_bytes(w->n_in);
}

static bool screen_pays(const cmc_model *m) {
    const weight *w = &m->head;
    if (m->rt->exact || m->rt->output == CMC_OUTPUT_FULL || w->lora || w->n_in % QUANT_GROUP != 0)
        return false;
    if (m->rt->output == CMC_OUTPUT_SCREENED)
        return true;
    const uint64_t full = (uint64_t)w->n_out * w->row_bytes, copy = screen_bytes(w);
    const uint64_t unread = m->embd.data == w->data ? 0 : (uint64_t)m->embd.n_out * m->embd.row_bytes;
    return panel_kernels_vnni() && full >= copy + SCREEN_LEAST_SAVED &&
           full >= copy + (m->n_bytes - m->extra_bytes - unread) / SCREEN_LEAST_SAVED_SHARE;
}

uint64_t screen_memory(const cmc_model *m) {
    return m->screen.panels ? screen_bytes(&m->head) : 0;
}

static void screen_copy(void *arg, int t, int nt) {
    const screen_job *j = arg;
    const weight *w = j->w;
    float *row = j->row + (size_t)t * w->n_in;
    size_t k, end;
    screen_chunks(j, t, nt, &k, &end);
    for (size_t lo, hi; k < end; k++) {
        screen_chunk(j, k, &lo, &hi);
        for (size_t i = lo; i < hi; i++) {
            j->kernels->decode_row(w->type, w->data + i * w->row_bytes, row, w->n_in);
            j->panel->encode(row, w->n_in, i % PANEL_ROWS, j->panels + i / PANEL_ROWS * panel_bytes(w->n_in));
        }
    }
}

static cmc_status screen_make(cmc_model *m, cmc_error *err) {
    const weight *w = &m->head;
    screen *s = &m->screen;
    const size_t threads = (size_t)cmc_pool_threads(m->rt->pool), last = (w->n_out - 1) / PANEL_ROWS * panel_bytes(w->n_in);
    screen_job job = {.w = w, .panel = screen_kernels(), .kernels = quant_kernels_best()};
    s->act_stride = quant_act_bytes(w->n_in);
    s->panels = cmc_alloc_large(screen_bytes(w));
    s->parts = cmc_alloc(threads * PANEL_COLS, sizeof *s->parts);
    s->ranges = cmc_alloc_aligned(threads, sizeof *s->ranges);
    s->found = cmc_alloc(threads * SCREEN_LIST, sizeof *s->found);
    s->n_found = cmc_alloc(threads, sizeof *s->n_found);
    s->acts = cmc_alloc_aligned(PANEL_COLS, s->act_stride);
    job.row = cmc_alloc(threads * w->n_in, sizeof *job.row);
    if (!s->panels || !s->parts || !s->ranges || !s->found || !s->n_found || !s->acts || !job.row) {
        free(job.row);
        screen_free(s);
        return cmc_fail_nomem(err, "a compact copy of the output matrix", screen_bytes(w));
    }
    job.panels = s->panels;
    memset(s->panels + last, 0, panel_bytes(w->n_in));   /* the rows that the last panel lacks */
    cmc_pool_run(m->rt->pool, screen_copy, &job);
    free(job.row);
    return CMC_OK;
}

/* --------------------------------------------------------------------------------------------- the estimates */

/* Those of rows [lo, hi), lo being a panel's first. */
static void screen_estimate(const screen_job *j, size_t lo, size_t hi) {
    const size_t n = j->w->n_in;
    for (size_t i = lo; i < hi; i += PANEL_ROWS) {
        const uint8_t *panel = j->panels + i / PANEL_ROWS * panel_bytes(n);
        float last[PANEL_COLS * PANEL_ROWS];
        if (i + PANEL_ROWS <= hi) {
            j->panel->dot(panel, n, j->acts, j->act_stride, j->cols, j->y + i, j->ld);
            continue;
        }
        j->panel->dot(panel, n, j->acts, j->act_stride, j->cols, last, PANEL_ROWS);
        for (size_t c = 0; c < j->cols; c++)
            memcpy(j->y + c * j->ld + i, last + c * PANEL_ROWS, (hi - i) * sizeof *last);
    }
}

/* A thread's, and the greatest of them. */
static void screen_estimates(const screen_job *j, int t, int nt) {
    screen_part *parts = j->parts + (size_t)t * j->cols;
    size_t k, end;
    for (size_t c = 0; c < j->cols; c++)
        parts[c].top = -INFINITY;
    screen_chunks(j, t, nt, &k, &end);
    for (size_t lo, hi; k < end; k++) {
        screen_chunk(j, k, &lo, &hi);
        screen_estimate(j, lo, hi);
        for (size_t c = 0; c < j->cols; c++)
            parts[c].top = fmaxf(parts[c].top, j->vec->max(j->y + c * j->ld + lo, hi - lo));
    }
}

/* -------------------------------------------------------------------------------------------- the candidates */

static float screen_top(const screen_job *j, size_t c, int nt) {
    float top = -INFINITY;
    for (size_t t = 0; t < (size_t)nt; t++)
        top = fmaxf(top, j->parts[t * j->cols + c].top);
    return top;
}

static void screen_count(const screen_job *j, size_t c, int t, int nt) {
    const float top = screen_top(j, c, nt);
    uint32_t *bins = j->parts[(size_t)t * j->cols + c].bins;
    size_t k, end, lo, hi;
    memset(bins, 0, (VEC_BINS + 1) * sizeof *bins);
    for (screen_chunks(j, t, nt, &k, &end); k < end; k++) {
        screen_chunk(j, k, &lo, &hi);
        j->vec->depths(bins, j->y + c * j->ld + lo, hi - lo, top, SCREEN_BINS_PER_NAT);
    }
}

/* One row in `share`, but no more than `rows`. */
static size_t screen_rows(const screen_job *j, size_t share, size_t rows) {
    const size_t n = (j->w->n_out + share - 1) / share;
    return n < rows ? n : rows;
}

/* The estimate above which rows are computed: a whole number of bins below the greatest. */
static float screen_bound(const screen_job *j, size_t c, int nt) {
    const size_t least = screen_rows(j, SCREEN_LEAST_SHARE, SCREEN_LEAST), most = screen_rows(j, SCREEN_MOST_SHARE, SCREEN_MOST);
    double mass[VEC_BINS], total = 0, above = 0;
    size_t count[VEC_BINS] = {0}, n = 0, b = 0;
    for (size_t i = 0; i < VEC_BINS; i++) {
        for (size_t t = 0; t < (size_t)nt; t++)
            count[i] += j->parts[t * j->cols + c].bins[i];
        mass[i] = (double)count[i] * exp(-(double)i / SCREEN_BINS_PER_NAT);
        total += mass[i];
    }
    for (; b < VEC_BINS && n < most && (n < least || (total - above) * SCREEN_REST > total); b++) {
        n += count[b];
        above += mass[b];
    }
    return screen_top(j, c, nt) - (float)b / SCREEN_BINS_PER_NAT;
}

/* Computes a candidate while `next` is read from memory. */
static void screen_compute(const screen_job *j, const screen_found *f, const screen_found *next, float *out) {
    const weight *w = j->w;
    const quant_dot_args a = {.rows = w->data + f->row * w->row_bytes, .row_stride = w->row_bytes, .n_rows = 1,
                              .ahead = ((ptrdiff_t)next->row - (ptrdiff_t)f->row) * (ptrdiff_t)w->row_bytes,
                              .acts = j->own + f->col * j->own_stride, .act_stride = j->own_stride, .n_cols = 1, .n = w->n_in,
                              .out = out, .out_stride = j->ld};
    j->kernels->dot(w->type, &a);
}

/* Thread t lists the candidates among its rows, gives how many. Columns have many of a chunk in common, which then stay in the cache. */
static size_t screen_list(const screen_job *j, const float *bound, int t, int nt) {
    screen_found *found = j->found + (size_t)t * SCREEN_LIST;
    uint32_t rows[SCREEN_CHUNK];
    size_t n = 0, k, end, lo, hi;
    for (screen_chunks(j, t, nt, &k, &end); k < end; k++) {
        screen_chunk(j, k, &lo, &hi);
        for (size_t c = 0; c < j->cols; c++) {
            float *y = j->y + c * j->ld;
            const size_t above = j->vec->above(rows, y + lo, hi - lo, bound[c], (uint32_t)lo);
            for (size_t i = 0; i < above; i++) {
                const screen_found f = {.row = rows[i], .col = (uint32_t)c};
                if (n < SCREEN_LIST)
                    found[n++] = f;
                else
                    screen_compute(j, &f, &f, y + f.row);
            }
        }
    }
    return n;
}

/* Candidates, wherever they were found: likely rows lie close together, so one thread may have found most of them. */
static void screen_candidates(const screen_job *j, int t, int nt) {
    size_t unit;
    bool more;
    while (matmul_range_take(j->ranges, SIZE_MAX, t, nt, &unit, &more) > 0) {
        const size_t owner = unit / SCREEN_LIST, first = unit % SCREEN_LIST * SCREEN_UNIT, left = j->n_found[owner] - first;
        screen_found *f = j->found + owner * SCREEN_LIST + first;
        const size_t last = (left < SCREEN_UNIT ? left : SCREEN_UNIT) - 1;
        for (size_t i = 0; i <= last; i++)
            screen_compute(j, &f[i], &f[i + SCREEN_AHEAD < last ? i + SCREEN_AHEAD : last], &f[i].value);
    }
}

/* Pool worker. Whatever the number of threads, the same rows are computed, each by itself. A thread writes the logits of its own rows
 * alone: what another wrote is slow to come by for who goes on with them. */
static void screen_share(void *arg, int t, int nt) {
    const screen_job *j = arg;
    float bound[PANEL_COLS];
    screen_estimates(j, t, nt);
    cmc_pool_barrier(j->pool, t);
    for (size_t c = 0; c < j->cols; c++)
        screen_count(j, c, t, nt);
    cmc_pool_barrier(j->pool, t);
    for (size_t c = 0; c < j->cols; c++)
        bound[c] = screen_bound(j, c, nt);
    j->n_found[t] = screen_list(j, bound, t, nt);
    const size_t first = (size_t)t * SCREEN_LIST;
    matmul_range_put(&j->ranges[t], first, first + (j->n_found[t] + SCREEN_UNIT - 1) / SCREEN_UNIT);
    cmc_pool_barrier(j->pool, t);
    screen_candidates(j, t, nt);
    cmc_pool_barrier(j->pool, t);
    const screen_found *found = j->found + first;
    for (size_t i = 0; i < j->n_found[t]; i++)
        j->y[found[i].col * j->ld + found[i].row] = found[i].value;
}

/* At most PANEL_COLS rows. */
static void screen_columns(cmc_model *m, const float *hidden, size_t n, float *logits, size_t ld) {
    const screen *s = &m->screen;
    const size_t e = m->head.n_in;
    screen_job job = {.w = &m->head, .panel = screen_kernels(), .kernels = quant_kernels_best(), .vec = vec_fast(),
                      .pool = m->rt->pool, .panels = s->panels, .parts = s->parts, .found = s->found, .n_found = s->n_found,
                      .ranges = s->ranges, .acts = s->acts, .own = s->acts,
                      .act_stride = s->act_stride, .own_stride = s->act_stride, .cols = n, .y = logits, .ld = ld};
    for (size_t c = 0; c < n; c++)
        job.kernels->act_row(hidden + c * e, s->acts + c * s->act_stride, e);
    if (!quant_dot_uses_act(m->head.type)) {
        job.own = (const uint8_t *)(const void *)hidden;
        job.own_stride = e * sizeof *hidden;
    }
    cmc_pool_run(m->rt->pool, screen_share, &job);
}

cmc_status screen_logits(cmc_model *m, const float *hidden, size_t n, float *logits, size_t ld, cmc_error *err) {
    if (!screen_pays(m) || (n >= MATMUL_TILE_MIN_COLS && m->head.packed))
        return graph_logits(m, hidden, n, logits, ld, err);
    if (!m->screen.panels)
        CMC_TRY(screen_make(m, err));
    for (size_t i = 0; i < n; i += PANEL_COLS)
        screen_columns(m, hidden + i * m->head.n_in, n - i < PANEL_COLS ? n - i : PANEL_COLS, logits + i * ld, ld);
    return CMC_OK;
}
