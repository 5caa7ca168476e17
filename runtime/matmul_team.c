/* Products of few columns, one after the other, by threads that are at work together. */
#include <stdlib.h>

#include "base/error.h"
#include "base/mem.h"
#include "runtime/matmul_impl.h"

/* For each thread its range, then activations, then a tile. */
cmc_status matmul_team_reserve(matmul_team *team, const cmc_runtime *rt, size_t cols, size_t n_in, cmc_error *err) {
    const size_t threads = (size_t)cmc_pool_threads(rt->pool), stride = quant_act_bytes(n_in);
    const size_t tile = rt->integer_gemm && cols >= MATMUL_TILE_MIN_COLS ? (quant_gemm_bytes(n_in) + 63) / 64 * 64 : 0;
    const size_t need = threads * (sizeof(matmul_range) + cols * stride + tile);
    if (need > team->size) {
        matmul_team_free(team);
        team->buf = cmc_alloc_aligned(need, 1);
        if (!team->buf)
            return cmc_fail_nomem(err, "scratch of matrix products", need);
        team->size = need;
    }
    team->rt = rt;
    team->threads = (int)threads;
    team->act_stride = stride;
    team->acts = (uint8_t *)team->buf + threads * sizeof(matmul_range);
    team->act_bytes = cols * stride;
    team->tiles = (float *)(void *)(team->acts + threads * cols * stride);
    team->tile_floats = tile / sizeof(float);
    matmul_range *ranges = team->buf;
    for (size_t t = 0; t < threads; t++)
        atomic_init(&ranges[t].v, 0);   /* nothing to be taken until its thread says so */
    return CMC_OK;
}

void matmul_team_free(matmul_team *team) {
    free(team->buf);
    *team = (matmul_team){0};
}

static matmul_job team_job(const matmul_team *team, const matmul_step *s) {
    matmul_job job = {.kernels = quant_kernels_best(), .outs = s->outs, .n_w = s->n_w, .gate = s->gate, .x = s->x,
                      .ldx = s->ldx, .cols = s->cols, .n_in = s->outs[0].w->n_in, .ranges = team->buf};
    const bool tiles = matmul_takes_tiles(&job, team->rt);
    job.integer = team->rt->integer_gemm;
    job.act_stride = team->act_stride;
    job.unit = matmul_unit_dot;
    job.unit_rows = matmul_dot_rows(s->outs, s->n_w);
    job.unit_cols = s->cols;
    if (tiles)
        matmul_tile_units(&job, team->rt);
    job.tiles = tiles ? team->tiles : NULL;
    job.tile_floats = team->tile_floats;
    return job;
}

static uint8_t *team_acts(const matmul_team *team, int t) {
    return team->acts + (size_t)t * team->act_bytes;
}

bool matmul_step_quantises(const matmul_step *s) {
    return matmul_using_act(s->outs, s->n_w) > 0;
}

void matmul_team_norm(matmul_team *team, const matmul_step *s, size_t col, const float *x, float scale, const float *w, float *y, int t) {
    quant_kernels_best()->act_norm(x, scale, w, y, team_acts(team, t) + col * team->act_stride, s->outs[0].w->n_in);
}

void matmul_team_run(matmul_team *team, const matmul_step *s, const matmul_step *next, int t) {
    matmul_job job = team_job(team, s);
    matmul_range_set(&job, t, team->threads);
    if (next) {
        const matmul_job then = team_job(team, next);
        job.next = matmul_range_begin(&then, t, team->threads);
    }
    if (matmul_step_quantises(s)) {
        job.act = team_acts(team, t);
        for (size_t c = 0; c < job.cols && !s->normed; c++)
            job.kernels->act_row(job.x + c * job.ldx, job.act + c * job.act_stride, job.n_in);
    }
    matmul_thread(&job, t, team->threads);
}
