/* y = W x: chooses between the exact dots, integer dots of few columns or many, and decoding tiles of rows for BLAS. */
#include "runtime/matmul_impl.h"

#include "base/error.h"
#include "base/mem.h"
#include "runtime/lora.h"

#include <stdlib.h>

enum {
    GEMM_TILE_BYTES = 512 * 1024,   /* of decoded rows: BLAS packs X anew for each tile, so not less; threads share tiles out, so
                                       not more */
    GEMM_TILE_ROWS_MAX = 256,
    EXACT_TILE_ROWS = 16,
    ACT_ALONE = 1 << 11             /* activations below which waking the other threads to quantise them does not pay */
};

cmc_status weight_from_tensor(const gguf_tensor *t, size_t n_in, size_t n_out, const char *file, weight *out, cmc_error *err) {
    *out = (weight){0};
    int len = t->name.n > 100 ? 100 : (int)t->name.n;
    if (t->n_dims > 2 || t->ne[0] != n_in || (t->n_dims == 2 ? t->ne[1] : 1) != n_out)
        return cmc_fail(err, CMC_E_FORMAT, "%s: tensor %.*s is %llu x %llu (%u dimensions), %zu x %zu would fit the model", file,
                        len, t->name.s, (unsigned long long)t->ne[0], (unsigned long long)t->ne[1], t->n_dims, n_in, n_out);
    if (!cmc_type_supported(t->type) || !t->data) {
        const char *name = cmc_type_name(t->type);
        return cmc_fail(err, CMC_E_UNSUPPORTED, "%s: tensor %.*s has type %s (number %u), which cmc does not read", file, len,
                        t->name.s, name ? name : "unknown", t->type);
    }
    if (n_in % cmc_type_block(t->type) != 0)
        return cmc_fail(err, CMC_E_FORMAT, "%s: tensor %.*s has rows of %zu elements, no multiple of the %zu in a %s block", file,
                        len, t->name.s, n_in, cmc_type_block(t->type), cmc_type_name(t->type));
    *out = (weight){.type = t->type, .n_in = n_in, .n_out = n_out, .data = t->data,
                    .row_bytes = cmc_type_row_bytes(t->type, n_in)};
    return CMC_OK;
}

void weight_row(const weight *w, size_t row, float *out) {
    quant_decode_row(w->type, w->data + row * w->row_bytes, out, w->n_in);
}

void matmul_work_free(matmul_work *w) {
    free(w->buf);
    *w = (matmul_work){0};
}

static void decode_tile(const matmul_job *job, const matmul_unit *u, float *tile) {
    const weight *w = u->o->w;
    for (size_t r = 0; r < u->rows; r++)
        job->kernels->decode_row(w->type, w->data + (u->row + r) * w->row_bytes, tile + r * w->n_in, w->n_in);
}

static void unit_exact(const matmul_job *job, const matmul_unit *u, float *tile) {
    const matmul_out *o = u->o;
    decode_tile(job, u, tile);
    for (size_t c = u->col, end = u->col + u->cols; c < end; c += 4) {
        size_t n = end - c < 4 ? end - c : 4;
        for (size_t r = 0; r < u->rows; r++)
            job->kernels->dot_exact(tile + r * job->n_in, job->x + c * job->ldx, job->ldx, job->n_in, n,
                                    o->y + c * o->ldy + u->row + r, o->ldy);
    }
}

static void unit_gemm(const matmul_job *job, const matmul_unit *u, float *tile) {
    const matmul_out *o = u->o;
    decode_tile(job, u, tile);
    blas_gemm(job->blas, false, false, u->cols, u->rows, job->n_in, 1, job->x + u->col * job->ldx, job->ldx, tile, job->n_in, 0,
              o->y + u->col * o->ldy + u->row, o->ldy);
}

static size_t clamp_rows(size_t rows, size_t max) {
    return rows < 1 ? 1 : rows > max ? max : rows;
}

/* The size of a unit depends on the shape alone: where a tile of BLAS's begins and ends may change its rounding. */
static void choose_path(matmul_job *job, const cmc_runtime *rt) {
    job->unit_cols = job->cols;
    if (rt->exact) {
        job->unit = unit_exact;
        job->unit_rows = EXACT_TILE_ROWS;
    } else if (matmul_takes_tiles(job, rt)) {
        job->integer = rt->integer_gemm;
        job->fine = rt->fine_batches && job->cols >= MATMUL_FINE_MIN_COLS;
        job->act_row = job->fine ? job->integer->act_row_fine : job->kernels->act_row;
        job->act_stride = quant_act_bytes(job->n_in) + (job->fine ? job->n_in : 0);
        matmul_tile_units(job, rt);
    } else if (rt->blas && job->cols >= rt->gemm_min_cols) {
        job->unit = unit_gemm;
        job->unit_rows = clamp_rows(GEMM_TILE_BYTES / (job->n_in * sizeof(float)) / 8 * 8, GEMM_TILE_ROWS_MAX);
    } else {
        job->unit = matmul_unit_dot;
        job->act_row = matmul_using_act(job->outs, job->n_w) > 0 ? job->kernels->act_row : NULL;
        job->act_stride = quant_act_bytes(job->n_in);
        job->unit_rows = matmul_dot_rows(job->outs, job->n_w);
    }
}

static cmc_status reserve_work(matmul_job *job, matmul_work *work, size_t threads, cmc_error *err) {
    size_t floats = 0, act = 0;
    if (job->unit == matmul_unit_tile)
        job->tile_floats = quant_gemm_bytes(job->n_in) / sizeof(float);
    else if (job->unit != matmul_unit_dot)
        job->tile_floats = (job->unit_rows * job->n_in + 15) / 16 * 16;
    floats = threads * job->tile_floats;
    if (job->act_row)
        act = job->cols * job->act_stride;
    const size_t ranges = threads * sizeof *job->ranges, need = ranges + floats * sizeof(float) + act;
    if (need > work->size) {
        matmul_work_free(work);
        work->buf = cmc_alloc_aligned(need, 1);
        if (!work->buf)
            return cmc_fail_nomem(err, "scratch of a matrix product", need);
        work->size = need;
    }
    job->ranges = work->buf;
    job->tiles = floats ? (float *)(void *)((uint8_t *)work->buf + ranges) : NULL;
    job->act = act ? (uint8_t *)work->buf + ranges + floats * sizeof(float) : NULL;
    return CMC_OK;
}

size_t matmul_bytes(const cmc_runtime *rt, size_t n_in, size_t t) {
    const size_t threads = (size_t)cmc_pool_threads(rt->pool);
    if (rt->exact)
        return threads * EXACT_TILE_ROWS * n_in * sizeof(float);
    const size_t integer = rt->integer_gemm && t >= MATMUL_TILE_MIN_COLS ? threads * quant_gemm_bytes(n_in) : 0;
    const size_t decoded = rt->blas && t >= rt->gemm_min_cols ? threads * GEMM_TILE_BYTES : 0;   /* where types are not integer */
    return integer || !decoded ? integer + t * (quant_act_bytes(n_in) + n_in) : decoded;
}

static void matmul_acts(void *arg, int t, int nt) {
    matmul_job *job = arg;
    size_t lo, hi;
    cmc_pool_share(job->cols, 1, t, nt, &lo, &hi);
    for (size_t c = lo; c < hi; c++)
        job->act_row(job->x + c * job->ldx, job->act + c * job->act_stride, job->n_in);
}

cmc_status matmul(cmc_runtime *rt, matmul_work *work, const float *x, size_t ldx, size_t t, const matmul_out *outs, size_t n_w,
                  cmc_error *err) {
    if (t == 0 || n_w == 0)
        return CMC_OK;
    matmul_job job = {.kernels = quant_kernels_best(), .blas = rt->blas, .outs = outs, .n_w = n_w, .x = x, .ldx = ldx, .cols = t,
                      .n_in = outs[0].w->n_in};
    for (size_t i = 1; i < n_w; i++)
        if (outs[i].w->n_in != job.n_in)
            return cmc_fail(err, CMC_E_ARG, "matrices of %zu and %zu columns cannot share one input", job.n_in, outs[i].w->n_in);
    choose_path(&job, rt);
    CMC_TRY(reserve_work(&job, work, (size_t)cmc_pool_threads(rt->pool), err));
    if (job.act && t * job.n_in >= ACT_ALONE)
        cmc_pool_run(rt->pool, matmul_acts, &job);
    else if (job.act)
        matmul_acts(&job, 0, 1);
    for (int k = 0; k < cmc_pool_threads(rt->pool); k++)
        matmul_range_set(&job, k, cmc_pool_threads(rt->pool));
    cmc_pool_run(rt->pool, matmul_thread, &job);
    return lora_add(rt, work, x, ldx, t, outs, n_w, err);
}
