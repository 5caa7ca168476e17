/* Attention: blocks of queries against panels of keys and values with a running softmax; and the exact form. */
#include "runtime/attention.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "base/mem.h"

#define ATTN_ROWS 48  /* rows (query, head) that share one pass over keys and values, a multiple of VEC_TILE_ROWS */
#define ATTN_SPLIT 512 /* positions of a part, where a long context is split: a multiple of KV_CHUNK */

static size_t attn_up(size_t n, size_t to) {
    return (n + to - 1) / to * to;
}

/* A thread's scratch: queries, scores, outputs, running maximum and sum of a block; the exact form needs the scores of
 * one row at all positions. */
typedef struct attn_block {
    float *q, *score, *out, *max, *sum;
    float *scaled;   /* as score: the weights times the scales of int8 values */
} attn_block;

static size_t attn_block_floats(const attn_job *j) {
    if (j->exact)
        return attn_up(j->max_pos, 4096) + attn_up(j->head_v, VEC_PANEL);
    return ATTN_ROWS * (attn_up(j->head_k, VEC_PANEL) + 2 * KV_CHUNK + attn_up(j->head_v, VEC_PANEL) + 2);
}

/* First position that a query at `pos` sees. */
static size_t attn_first(const attn_job *j, size_t pos) {
    return j->window && pos + 1 > j->window ? pos + 1 - j->window : 0;
}

/* Parts of a sequence's positions: parts begin at multiples of ATTN_SPLIT, so they depend on the positions alone. */
static size_t attn_parts(const attn_job *j, const attn_seq *s) {
    return j->split ? (s->pos0 + s->n - 1) / ATTN_SPLIT - attn_first(j, s->pos0) / ATTN_SPLIT + 1 : 1;
}

/* A row's part: its outputs, not yet divided, its greatest score and the sum of weights. */
static size_t attn_part_floats(const attn_job *j) {
    return attn_up(j->head_v, VEC_PANEL) + 2;
}

static float *attn_part(const attn_job *j, const attn_work *w, size_t index, size_t part) {
    return w->buf + (size_t)j->threads * w->per_thread + (index * w->parts + part) * attn_part_floats(j);
}

cmc_status attn_prepare(attn_work *w, const attn_job *j, cmc_error *err) {
    size_t rows = 0;
    for (size_t i = 0; i < j->n_seqs; i++)
        rows += j->seqs[i].n;
    w->parts = j->split ? j->max_pos / ATTN_SPLIT + 1 : 0;
    const size_t per_thread = attn_up(attn_block_floats(j), 16);
    const size_t n = per_thread * (size_t)j->threads + rows * j->n_head * w->parts * attn_part_floats(j);
    if (n > w->floats) {
        free(w->buf);
        w->floats = 0;
        w->buf = cmc_alloc_aligned(n, sizeof(float));
        if (!w->buf)
            return cmc_fail_nomem(err, "attention's scratch", n * sizeof(float));
        w->floats = n;
    }
    w->per_thread = per_thread;
    return CMC_OK;
}

void attn_work_free(attn_work *w) {
    free(w->buf);
    *w = (attn_work){0};
}

/* Scores of a few queries and the 16 keys from position p of the chunk on, p being a panel's first. */
static void attn_keys(const attn_job *j, const kv_cache *kv, uint8_t *keys, size_t p, const float *q, size_t ldq, float *score, size_t rows) {
    const size_t n = j->head_k, at = p * n;
    switch (kv->shape.type) {
    case KV_HALF: j->vec->panel_half(score, KV_CHUNK, q, ldq, (const uint16_t *)(const void *)keys + at, rows, n, false); break;
    case KV_INT8:
        for (size_t d = 0; d < n; d += KV_BLOCK)
            j->vec->panel_int8(score, KV_CHUNK, q + d, ldq, (const int8_t *)keys + at + d * VEC_PANEL,
                               kv_key_scales(&kv->shape, keys) + d / KV_BLOCK * KV_CHUNK + p, rows, n - d < KV_BLOCK ? n - d : KV_BLOCK, d > 0);
        break;
    case KV_FLOAT: j->vec->panel(score, KV_CHUNK, q, ldq, (const float *)(const void *)keys + at, rows, n, false); break;
    }
}

/* Adds 16 dimensions, from d on, of the values at positions [p, p + n) of the chunk, weighted, to `rows` outputs. */
static void attn_values(const attn_job *j, const kv_cache *kv, uint8_t *values, size_t d, size_t p, const float *weights, float *out,
                        size_t wide, size_t rows, size_t n) {
    const size_t at = d * KV_CHUNK + p * VEC_PANEL;
    switch (kv->shape.type) {
    case KV_HALF: j->vec->panel_half(out, wide, weights, KV_CHUNK, (const uint16_t *)(const void *)values + at, rows, n, true); break;
    case KV_INT8: j->vec->panel_int8(out, wide, weights, KV_CHUNK, (const int8_t *)values + at, NULL, rows, n, true); break;
    case KV_FLOAT: j->vec->panel(out, wide, weights, KV_CHUNK, (const float *)(const void *)values + at, rows, n, true); break;
    }
}

/* What values from dimension d on are weighted with at positions [p, p + n): the block's scores, or these times the scales. */
static const float *attn_weights(const attn_job *j, const kv_cache *kv, uint8_t *values, attn_block *b, size_t d, size_t p, size_t rows,
                                 size_t n) {
    if (kv->shape.type != KV_INT8)
        return b->score + p;
    for (size_t r = 0; d % KV_BLOCK == 0 && r < rows; r++)
        j->vec->mul(b->scaled + r * KV_CHUNK + p, b->score + r * KV_CHUNK + p,
                    kv_value_scales(&kv->shape, values) + d / KV_BLOCK * KV_CHUNK + p, n);
    return b->scaled + p;
}

/* One query of one head, all its positions, of a cache of floats: scores, softmax and weighted sum, each in the order of positions. */
static void attn_exact_row(const attn_job *j, const attn_seq *s, size_t row, size_t head, float *score, float *acc) {
    const size_t pos = s->pos0 + (row - s->row0), lo = attn_first(j, pos), kv_head = head / (j->n_head / j->n_head_kv);
    const float *q = j->q + (row * j->n_head + head) * j->head_k;
    for (size_t p = lo / VEC_PANEL * VEC_PANEL; p <= pos; p += VEC_PANEL) {
        const float *keys = (const float *)(const void *)kv_keys(s->kv, j->layer, kv_head, p) + p % KV_CHUNK * j->head_k;
        j->vec->panel(score + p, VEC_PANEL, q, j->head_k, keys, 1, j->head_k, false);
    }
    const float max = j->vec->max(score + lo, pos - lo + 1);
    const float sum = j->vec->exp_sum(score + lo, pos - lo + 1, max);
    memset(acc, 0, attn_up(j->head_v, VEC_PANEL) * sizeof *acc);
    for (size_t p = lo; p <= pos;) {
        const size_t end = (p / KV_CHUNK + 1) * KV_CHUNK, n = (end <= pos ? end : pos + 1) - p;
        const float *values = (const float *)(const void *)kv_values(s->kv, j->layer, kv_head, p) + p % KV_CHUNK * VEC_PANEL;
        for (size_t d = 0; d < j->head_v; d += VEC_PANEL)
            j->vec->panel(acc + d, VEC_PANEL, score + p, n, values + d * KV_CHUNK, 1, n, true);
        p += n;
    }
    float *out = j->out + (row * j->n_head + head) * j->head_v;
    for (size_t d = 0; d < j->head_v; d++)
        out[d] = acc[d] / sum;
}

static void attn_run_exact(const attn_job *j, float *buf, int t, int nt) {
    float *acc = buf + attn_up(j->max_pos, 4096);
    size_t item = 0;
    for (size_t i = 0; i < j->n_seqs; i++) {
        const attn_seq *s = &j->seqs[i];
        for (size_t row = s->row0; row < s->row0 + s->n; row++)
            for (size_t head = 0; head < j->n_head; head++)
                if (item++ % (size_t)nt == (size_t)t)
                    attn_exact_row(j, s, row, head, buf, acc);
    }
}

/* Rows [r0, r1) of a sequence's (query, head of the group) rows for one K/V head; row r is query r / group. */
typedef struct attn_range {
    const attn_seq *seq;
    size_t kv_head, group, r0, r1;
} attn_range;

static size_t attn_row_pos(const attn_range *a, size_t r) {
    return a->seq->pos0 + r / a->group;
}

static size_t attn_row_index(const attn_job *j, const attn_range *a, size_t r) {
    return (a->seq->row0 + r / a->group) * j->n_head + a->kv_head * a->group + r % a->group;
}

/* Softmax of a block's scores in the chunk [base, end) with the running maximum: afterwards the scores are weights, 0
 * where a row does not see the position, and out and sum are brought to the new maximum. */
static void attn_softmax(const attn_job *j, const attn_range *a, attn_block *b, size_t base, size_t end) {
    const size_t wide = attn_up(j->head_v, VEC_PANEL);
    for (size_t r = a->r0; r < a->r1; r++) {
        const size_t i = r - a->r0, pos = attn_row_pos(a, r), first = attn_first(j, pos);
        const size_t lo = first > base ? first : base, hi = pos + 1 < end ? pos + 1 : end;
        float *score = b->score + i * KV_CHUNK;
        if (lo >= hi) {
            memset(score, 0, (end - base) * sizeof *score);
            continue;
        }
        memset(score, 0, (lo - base) * sizeof *score);
        memset(score + (hi - base), 0, (end - hi) * sizeof *score);
        const float m = j->vec->max(score + (lo - base), hi - lo);
        if (m > b->max[i]) {
            const float by = expf(b->max[i] - m);
            j->vec->scale(b->out + i * wide, by, wide);
            b->sum[i] *= by;
            b->max[i] = m;
        }
        b->sum[i] += j->vec->exp_sum(score + (lo - base), hi - lo, b->max[i]);
    }
}

/* One chunk of positions [base, end) for a block of rows. */
static void attn_chunk(const attn_job *j, const attn_range *a, attn_block *b, size_t base, size_t end) {
    const size_t rows = a->r1 - a->r0, wide = attn_up(j->head_v, VEC_PANEL), ldq = attn_up(j->head_k, VEC_PANEL);
    const kv_cache *kv = a->seq->kv;
    uint8_t *keys = kv_keys(kv, j->layer, a->kv_head, base), *values = kv_values(kv, j->layer, a->kv_head, base);
    size_t lowest = attn_first(j, attn_row_pos(a, a->r0));
    lowest = (lowest > base ? lowest - base : 0) / VEC_PANEL * VEC_PANEL;
    for (size_t p = lowest; p < end - base; p += VEC_PANEL)
        for (size_t r = 0; r < rows; r += VEC_TILE_ROWS) {
            const size_t n = rows - r < VEC_TILE_ROWS ? rows - r : VEC_TILE_ROWS;
            attn_keys(j, kv, keys, p, b->q + r * ldq, ldq, b->score + r * KV_CHUNK + p, n);
        }
    attn_softmax(j, a, b, base, end);
    for (size_t d = 0; d < wide; d += VEC_PANEL) {
        const float *weights = attn_weights(j, kv, values, b, d, lowest, rows, end - base - lowest);
        for (size_t r = 0; r < rows; r += VEC_TILE_ROWS) {
            const size_t n = rows - r < VEC_TILE_ROWS ? rows - r : VEC_TILE_ROWS;
            attn_values(j, kv, values, d, lowest, weights + r * KV_CHUNK, b->out + r * wide + d, wide, n, end - base - lowest);
        }
    }
}

/* The rows' softmax over positions [from, to), as far as they see them: outputs not yet divided, maxima and sums in b. */
static void attn_block_run(const attn_job *j, const attn_range *a, attn_block *b, size_t from, size_t to) {
    const size_t rows = a->r1 - a->r0, wide = attn_up(j->head_v, VEC_PANEL), ldq = attn_up(j->head_k, VEC_PANEL);
    for (size_t i = 0; i < rows; i++) {
        memcpy(b->q + i * ldq, j->q + attn_row_index(j, a, a->r0 + i) * j->head_k, j->head_k * sizeof(float));
        b->max[i] = -INFINITY;
        b->sum[i] = 0.0f;
    }
    memset(b->out, 0, rows * wide * sizeof(float));
    size_t first = attn_first(j, attn_row_pos(a, a->r0)), end = attn_row_pos(a, a->r1 - 1) + 1;
    first = first > from ? first : from;
    end = end < to ? end : to;
    for (size_t base = first / KV_CHUNK * KV_CHUNK; base < end; base += KV_CHUNK)
        attn_chunk(j, a, b, base, end < base + KV_CHUNK ? end : base + KV_CHUNK);
}

static void attn_block_out(const attn_job *j, const attn_range *a, const attn_block *b) {
    const size_t wide = attn_up(j->head_v, VEC_PANEL);
    for (size_t i = 0; i < a->r1 - a->r0; i++) {
        float *out = j->out + attn_row_index(j, a, a->r0 + i) * j->head_v;
        const float by = 1.0f / b->sum[i];
        for (size_t d = 0; d < j->head_v; d++)
            out[d] = b->out[i * wide + d] * by;
    }
}

static void attn_block_keep(const attn_job *j, const attn_work *w, const attn_range *a, const attn_block *b, size_t part) {
    const size_t wide = attn_up(j->head_v, VEC_PANEL);
    for (size_t i = 0; i < a->r1 - a->r0; i++) {
        float *to = attn_part(j, w, attn_row_index(j, a, a->r0 + i), part);
        memcpy(to, b->out + i * wide, wide * sizeof *to);
        to[wide] = b->max[i];
        to[wide + 1] = b->sum[i];
    }
}

/* One row block of a K/V head: all of its positions, or its share of the parts. `item` counts what threads take in turn. */
static void attn_range_run(const attn_job *j, const attn_work *w, const attn_range *a, attn_block *b, int t, int nt, size_t *item) {
    const size_t parts = attn_parts(j, a->seq), first = attn_first(j, a->seq->pos0) / ATTN_SPLIT * ATTN_SPLIT;
    for (size_t p = 0; p < parts; p++) {
        if ((*item)++ % (size_t)nt != (size_t)t)
            continue;
        if (parts == 1) {
            attn_block_run(j, a, b, 0, SIZE_MAX);
            attn_block_out(j, a, b);
        } else {
            attn_block_run(j, a, b, first + p * ATTN_SPLIT, first + (p + 1) * ATTN_SPLIT);
            attn_block_keep(j, w, a, b, p);
        }
    }
}

static void attn_run_fast(const attn_job *j, const attn_work *w, float *buf, int t, int nt) {
    attn_block b;
    b.q = buf;
    b.score = b.q + ATTN_ROWS * attn_up(j->head_k, VEC_PANEL);
    b.scaled = b.score + ATTN_ROWS * KV_CHUNK;
    b.out = b.scaled + ATTN_ROWS * KV_CHUNK;
    b.max = b.out + ATTN_ROWS * attn_up(j->head_v, VEC_PANEL);
    b.sum = b.max + ATTN_ROWS;
    const size_t group = j->n_head / j->n_head_kv;
    size_t item = 0;
    for (size_t i = 0; i < j->n_seqs; i++) {
        const size_t rows = j->seqs[i].n * group;
        /* few rows (decoding one sequence): enough blocks that each thread has one */
        size_t step = ATTN_ROWS;
        if (j->n_seqs * j->n_head_kv * attn_parts(j, &j->seqs[i]) * ((rows + step - 1) / step) < (size_t)nt)
            step = (rows + (size_t)nt - 1) / (size_t)nt;
        for (size_t h = 0; h < j->n_head_kv; h++)
            for (size_t r = 0; r < rows; r += step) {
                const attn_range a = {&j->seqs[i], h, group, r, r + step < rows ? r + step : rows};
                attn_range_run(j, w, &a, &b, t, nt, &item);
            }
    }
}

/* One row of a split sequence: its parts brought to one maximum. */
static void attn_join_row(const attn_job *j, const attn_work *w, size_t index, size_t parts) {
    const size_t wide = attn_up(j->head_v, VEC_PANEL);
    float max = -INFINITY, sum = 0.0f, *out = j->out + index * j->head_v;
    for (size_t p = 0; p < parts; p++)
        max = fmaxf(max, attn_part(j, w, index, p)[wide]);
    memset(out, 0, j->head_v * sizeof *out);
    for (size_t p = 0; p < parts; p++) {
        const float *part = attn_part(j, w, index, p), by = expf(part[wide] - max);
        sum += by * part[wide + 1];
        for (size_t d = 0; d < j->head_v; d++)
            out[d] += by * part[d];
    }
    j->vec->scale(out, 1.0f / sum, j->head_v);
}

bool attn_is_split(const attn_job *j) {
    for (size_t i = 0; i < j->n_seqs; i++)
        if (attn_parts(j, &j->seqs[i]) > 1)
            return true;
    return false;
}

void attn_join(const attn_job *j, const attn_work *w, int t, int nt) {
    size_t item = 0;
    for (size_t i = 0; i < j->n_seqs; i++) {
        const attn_seq *s = &j->seqs[i];
        const size_t parts = attn_parts(j, s);
        for (size_t k = s->row0 * j->n_head; parts > 1 && k < (s->row0 + s->n) * j->n_head; k++)
            if (item++ % (size_t)nt == (size_t)t)
                attn_join_row(j, w, k, parts);
    }
}

void attn_run(const attn_job *j, const attn_work *w, int t, int nt) {
    float *buf = w->buf + (size_t)t * w->per_thread;
    if (j->exact)
        attn_run_exact(j, buf, t, nt);
    else
        attn_run_fast(j, w, buf, t, nt);
}
