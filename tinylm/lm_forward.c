/* The forward pass of a trainable model over a packed batch: the graph of runtime/graph.c. */
#include <stdlib.h>
#include <string.h>

#include "base/mem.h"
#include "runtime/rope.h"
#include "tinylm/carve.h"
#include "tinylm/drop.h"
#include "tinylm/lm_net.h"
#include "tinylm/rowmath.h"

/* ---------------------------------------------------------------------------------------------- buffers */

/* As carve where `there`, else NULL. */
static float *lm_carve_if(carver *c, bool there, size_t rows, size_t cols) {
    return there ? carve(c, rows, cols) : NULL;
}

static void lm_lay_out_layer(const lm_net *n, size_t il, carver *c, lm_acts *a) {
    const model_params *p = &n->l->p;
    const lm_layer_layout *o = &n->l->layers[il];
    size_t t = n->max_tokens, e = (size_t)p->n_embd, h = (size_t)p->n_head;
    const lm_block *block = il < (size_t)p->n_layer ? NULL : &n->l->blocks[il - (size_t)p->n_layer];
    bool beside = block && !block->stack;
    bool qk = o->q_norm != LM_NONE, post_att = o->post_attn_norm != LM_NONE, post_ffn = o->post_ffn_norm != LM_NONE;
    if (!beside)
        a->x0 = carve(c, t, e);
    else if (c->base)
        a->x0 = n->acts[block->layer].x0; /* the two are fed the same */
    a->r1 = carve(c, t, 1);
    a->qkv = carve(c, t, lm_qkv_width(p));
    a->qk = lm_carve_if(c, qk, t, lm_qk_width(p));
    a->rqk = lm_carve_if(c, qk, t, h + (size_t)p->n_head_kv);
    a->att = carve(c, t, h * (size_t)p->head_v);
    a->lse = carve(c, t, h);
    a->o = lm_carve_if(c, post_att, t, e);
    a->ro = lm_carve_if(c, post_att, t, 1);
    a->x1 = carve(c, t, e);
    a->r2 = carve(c, t, 1);
    a->gu = carve(c, t, 2 * (size_t)p->n_ff);
    a->f = lm_carve_if(c, post_ffn || n->l->gates, t, e);
    a->rf = lm_carve_if(c, post_ffn, t, 1);
    a->u = carve(c, t, n->l->u_width);
}

/* Layers below all that is trained keep nothing for a backward pass: behind the first each takes the room of the one before,
 * whose stream it reads before it writes its own. */
static bool lm_is_passed(const lm_layout *l, size_t il) {
    return il > 0 && il < (size_t)l->p.n_layer && 2 + 2 * il < lm_trained(l)->lowest;
}

static void lm_lay_out_merge(const lm_net *n, carver *c, lm_merge *m) {
    size_t t = n->max_tokens, e = (size_t)n->l->p.n_embd;
    m->p = carve(c, t, e);
    m->e = carve(c, t, e);
    m->share = carve(c, t, 1);
    m->dz = carve(c, t, 1);
}

static void lm_lay_out(lm_net *n, carver *c) {
    const lm_layout *l = n->l;
    const model_params *p = &l->p;
    size_t t = n->max_tokens, e = (size_t)p->n_embd, f = (size_t)p->n_ff, half = (size_t)p->n_rot / 2;
    bool local = l->rope_inv_local != l->rope_inv;
    lm_acts skip;
    lm_merge skip_merge;
    n->w = carve(c, 1, l->base.n);
    n->trained = l->lora.n ? carve(c, 1, l->lora.n) : n->w;
    n->grad = carve(c, 1, lm_trained(l)->n_trained);
    for (size_t i = 0; i < (size_t)p->n_layer + l->n_blocks; i++) {
        if (!lm_is_passed(l, i))
            lm_lay_out_layer(n, i, c, c->base ? &n->acts[i] : &skip);
        else if (c->base)
            n->acts[i] = n->acts[0];
    }
    for (size_t i = 0; i < l->n_blocks; i++)
        if (!l->blocks[i].stack)
            lm_lay_out_merge(n, c, c->base ? &n->merges[i] : &skip_merge);
    n->side = lm_carve_if(c, l->n_merges > 0, t, e);
    n->x = carve(c, t, e);
    n->hidden = carve(c, t, e);
    n->rh = carve(c, t, 1);
    n->cos = carve(c, n->max_seq, half);
    n->sin = carve(c, n->max_seq, half);
    n->nsin = carve(c, n->max_seq, half);
    n->cos_local = local ? carve(c, n->max_seq, half) : n->cos;
    n->sin_local = local ? carve(c, n->max_seq, half) : n->sin;
    n->nsin_local = local ? carve(c, n->max_seq, half) : n->nsin;
    n->norm = carve(c, t, e);
    n->act = carve(c, t, f);
    n->y = carve(c, t, e);
    n->dx = carve(c, t, e);
    n->dn = carve(c, t, e);
    n->dqkv = carve(c, t, lm_qkv_width(p));
    n->dqk = lm_carve_if(c, l->layers[0].q_norm != LM_NONE, t, lm_qk_width(p));
    n->datt = carve(c, t, (size_t)p->n_head * (size_t)p->head_v);
    n->dgu = carve(c, t, 2 * f);
    n->dact = carve(c, t, f);
    n->du = carve(c, t, l->u_width);
    n->dd = lm_carve_if(c, l->gates, t, e);
    n->scores = carve(c, (size_t)n->nt * 2 * ATTEND_ROWS, n->max_seq);
}

size_t lm_bytes(const lm_layout *l, int threads, size_t max_tokens, size_t max_seq) {
    lm_net n = {.l = l, .nt = threads, .max_tokens = max_tokens, .max_seq = max_seq};
    carver c = {NULL, 0};
    lm_lay_out(&n, &c);
    return c.used * sizeof(float) + max_tokens * sizeof(uint32_t);
}

static void lm_rope_tables(lm_net *n) {
    size_t half = (size_t)n->l->p.n_rot / 2;
    bool local = n->cos_local != n->cos;
    for (size_t pos = 0; pos < n->max_seq; pos++) {
        rope_angles(n->l->rope_inv, half, pos, n->cos + pos * half, n->sin + pos * half);
        if (local)
            rope_angles(n->l->rope_inv_local, half, pos, n->cos_local + pos * half, n->sin_local + pos * half);
    }
    for (size_t i = 0; i < n->max_seq * half; i++) {
        n->nsin[i] = -n->sin[i];
        if (local)
            n->nsin_local[i] = -n->sin_local[i];
    }
}

cmc_status lm_new(cmc_runtime *rt, const lm_layout *l, size_t max_tokens, size_t max_seq, lm_net *out, cmc_error *err) {
    memset(out, 0, sizeof *out);
    out->l = l;
    out->pool = rt->pool;
    out->blas = rt->exact ? NULL : rt->blas;
    out->nt = cmc_pool_threads(rt->pool);
    out->max_tokens = max_tokens;
    out->max_seq = max_seq;
    carver c = {NULL, 0};
    lm_lay_out(out, &c);
    size_t need = c.used;
    out->acts = cmc_calloc((size_t)l->p.n_layer + l->n_blocks, sizeof *out->acts);
    out->merges = cmc_calloc(l->n_blocks, sizeof *out->merges);
    out->align_part = cmc_calloc((size_t)out->nt, sizeof *out->align_part);
    out->pos = cmc_alloc(max_tokens, sizeof *out->pos);
    out->arena = cmc_alloc_aligned(need, sizeof(float));
    if (!out->acts || !out->merges || !out->align_part || !out->pos || !out->arena) {
        lm_free(out);
        return cmc_fail_nomem(err, "the model's weights and activations", need * sizeof(float));
    }
    c = (carver){out->arena, 0};
    lm_lay_out(out, &c);
    memset(out->grad, 0, lm_trained(l)->n_trained * sizeof(float));
    lm_rope_tables(out);
    return CMC_OK;
}

void lm_free(lm_net *n) {
    free(n->acts);
    free(n->merges);
    free(n->align_part);
    free(n->pos);
    free(n->arena);
    memset(n, 0, sizeof *n);
}

/* ------------------------------------------------------------------------------------------------- rows */

void lm_norm_again(const float *x, const float *r, const float *gain, float *out, size_t n, size_t lo, size_t hi) {
    for (size_t i = lo; i < hi; i++)
        for (size_t c = 0; c < n; c++)
            out[i * n + c] = x[i * n + c] * r[i] * gain[c];
}

static void lm_norm_rows(const lm_net *n, const float *x, size_t gain, float *out, float *r, size_t lo, size_t hi) {
    size_t e = (size_t)n->l->p.n_embd;
    for (size_t i = lo; i < hi; i++)
        r[i] = row_norm(x + i * e, n->w + gain, out + i * e, e, n->l->p.rms_eps);
}

void lm_rotate(const lm_net *n, bool swa, float *qkv, size_t lo, size_t hi, bool inverse) {
    const model_params *p = &n->l->p;
    size_t half = (size_t)p->n_rot / 2, hk = (size_t)p->head_k, heads = (size_t)(p->n_head + p->n_head_kv);
    const float *cos = swa ? n->cos_local : n->cos, *sin = swa ? n->sin_local : n->sin;
    if (inverse)
        sin = swa ? n->nsin_local : n->nsin;
    for (size_t t = lo; t < hi; t++)
        for (size_t h = 0; h < heads; h++)
            rope_rotate(qkv + t * lm_qkv_width(p) + h * hk, half, p->rope_neox, cos + n->pos[t] * half,
                        sin + n->pos[t] * half);
}

void lm_activate(const lm_net *n, const float *gu, float *act, size_t lo, size_t hi) {
    size_t f = (size_t)n->l->p.n_ff;
    for (size_t r = lo; r < hi; r++)
        (n->l->p.gelu ? row_geglu : row_swiglu)(gu + r * 2 * f, gu + r * 2 * f + f, act + r * f, f);
}

/* Rows [lo, hi) of y (ld apart) = x W^T + bias + scale (x A^T) B^T; x A^T is kept in u. */
static void lm_linear_rows(const lm_net *n, const lm_linear *w, const float *x, float *y, size_t ld, float *u,
                           size_t lo, size_t hi) {
    size_t in = w->n_in, out = w->n_out, rank = w->rank, uw = n->l->u_width, rows = hi - lo;
    if (hi <= lo)
        return;
    x += lo * in;
    y += lo * ld;
    blas_gemm(n->blas, false, false, rows, out, in, 1.0f, x, in, n->w + w->w, in, 0.0f, y, ld);
    for (size_t r = 0; w->bias != LM_NONE && r < rows; r++)
        for (size_t c = 0; c < out; c++)
            y[r * ld + c] += n->w[w->bias + c];
    if (!rank)
        return;
    u += lo * uw + w->u;
    blas_gemm(n->blas, false, false, rows, rank, in, 1.0f, x, in, n->trained + w->a, in, 0.0f, u, uw);
    blas_gemm(n->blas, false, false, rows, out, rank, n->l->scale, u, uw, n->trained + w->b, rank, 1.0f, y, ld);
}

enum { LM_DROP_BLOCK = 256 };

void lm_drop(const lm_net *n, size_t il, const float *x, float *y, size_t lo, size_t hi) {
    size_t e = (size_t)n->l->p.n_embd;
    float mask[LM_DROP_BLOCK];
    if (!(n->dropout > 0.0f))
        return;
    uint64_t layer_key = drop_key(n->drop_key, il, 1);
    for (size_t r = lo; r < hi; r++)
        for (size_t from = 0; from < e; from += LM_DROP_BLOCK) {
            size_t m = e - from < LM_DROP_BLOCK ? e - from : LM_DROP_BLOCK;
            drop_mask(drop_key(layer_key, 0, r), n->dropout, mask, from, m);
            for (size_t c = 0; c < m; c++)
                y[r * e + from + c] = mask[c] * x[r * e + from + c];
        }
}

/* ----------------------------------------------------------------------------------------------- passes */

attend lm_attend(const lm_net *n, size_t il) {
    const model_params *p = &n->l->p;
    const lm_acts *a = &n->acts[il];
    attend t = {.blas = n->blas, .nt = n->nt, .start = n->batch->start, .n_seqs = n->batch->n_seqs,
                .n_head = (size_t)p->n_head, .n_head_kv = (size_t)p->n_head_kv, .dk = (size_t)p->head_k,
                .dv = (size_t)p->head_v, .scale = p->attn_scale, .ld = lm_qkv_width(p), .att = a->att, .lse = a->lse,
                .scores = n->scores, .max_seq = n->max_seq};
    t.window = n->l->layers[il].swa ? (size_t)p->swa_window : 0;
    t.dropout = n->dropout;
    t.drop_key = drop_key(n->drop_key, il, 0);
    t.q = a->qkv;
    t.k = a->qkv + t.n_head * t.dk;
    t.v = a->qkv + lm_qk_width(p);
    return t;
}

/* q and k of rows [lo, hi) normed head by head, what they were kept beside. */
static void lm_qk_norm(const lm_net *n, const lm_layer_layout *o, const lm_acts *a, size_t lo, size_t hi) {
    const model_params *p = &n->l->p;
    size_t hk = (size_t)p->head_k, heads = (size_t)(p->n_head + p->n_head_kv), qk = lm_qk_width(p);
    for (size_t r = lo; r < hi; r++) {
        float *row = a->qkv + r * lm_qkv_width(p);
        memcpy(a->qk + r * qk, row, qk * sizeof *row);
        for (size_t h = 0; h < heads; h++)
            a->rqk[r * heads + h] = row_norm(a->qk + r * qk + h * hk,
                                             n->w + (h < (size_t)p->n_head ? o->q_norm : o->k_norm), row + h * hk, hk,
                                             p->rms_eps);
    }
}

/* A branch's output n->y, kept where there is room for it, normed where the family does that, added to x: rows [lo, hi) of
 * `to`. */
static void lm_residual(const lm_net *n, size_t gain, float *kept, float *r, const float *x, float *to, size_t lo,
                        size_t hi) {
    size_t e = (size_t)n->l->p.n_embd;
    if (hi <= lo)
        return;
    if (kept)
        memcpy(kept + lo * e, n->y + lo * e, (hi - lo) * e * sizeof(float));
    if (gain != LM_NONE)
        lm_norm_rows(n, kept, gain, n->y, r, lo, hi);
    for (size_t i = lo * e; i < hi * e; i++)
        to[i] = x[i] + n->y[i];
}

/* One layer on the token rows [lo, hi) of thread t; the threads meet only around attention. */
static void lm_layer_worker(lm_net *n, size_t il, int t, size_t lo, size_t hi) {
    const model_params *p = &n->l->p;
    const lm_layer_layout *o = &n->l->layers[il];
    const lm_acts *a = &n->acts[il];
    size_t e = (size_t)p->n_embd, f = (size_t)p->n_ff, ld = lm_qkv_width(p);
    float *next = lm_output(n, il);

    lm_norm_rows(n, a->x0, o->attn_norm, n->norm, a->r1, lo, hi);
    lm_linear_rows(n, &o->q, n->norm, a->qkv, ld, a->u, lo, hi);
    lm_linear_rows(n, &o->k, n->norm, a->qkv + o->q.n_out, ld, a->u, lo, hi);
    lm_linear_rows(n, &o->v, n->norm, a->qkv + lm_qk_width(p), ld, a->u, lo, hi);
    if (o->q_norm != LM_NONE)
        lm_qk_norm(n, o, a, lo, hi);
    lm_rotate(n, o->swa, a->qkv, lo, hi, false);
    cmc_pool_barrier(n->pool, t);
    attend at = lm_attend(n, il);
    attend_forward(&at, t);
    cmc_pool_barrier(n->pool, t);
    lm_linear_rows(n, &o->o, a->att, n->y, e, a->u, lo, hi);
    lm_residual(n, o->post_attn_norm, a->o, a->ro, a->x0, a->x1, lo, hi);
    lm_norm_rows(n, a->x1, o->ffn_norm, n->norm, a->r2, lo, hi);
    lm_linear_rows(n, &o->gate, n->norm, a->gu, 2 * f, a->u, lo, hi);
    lm_linear_rows(n, &o->up, n->norm, a->gu + f, 2 * f, a->u, lo, hi);
    lm_activate(n, a->gu, n->act, lo, hi);
    lm_linear_rows(n, &o->down, n->act, n->y, e, a->u, lo, hi);
    lm_drop(n, il, n->y, n->y, lo, hi);
    lm_residual(n, o->post_ffn_norm, a->f, a->rf, a->x1, next, lo, hi);
}

static void lm_forward_worker(void *arg, int t, int nt) {
    lm_net *n = arg;
    const net_batch *b = n->batch;
    const model_params *p = &n->l->p;
    size_t e = (size_t)p->n_embd, lo, hi;
    cmc_pool_share(b->n_tokens, 1, t, nt, &lo, &hi);
    for (size_t r = lo; r < hi; r++) {
        const float *row = n->w + n->l->embd + (size_t)b->ids[r] * e;
        for (size_t c = 0; c < e; c++)
            n->acts[0].x0[r * e + c] = row[c] * p->embd_scale;
    }
    n->align_part[t] = 0.0;
    for (size_t i = 0; i < (size_t)p->n_layer; i++) {
        size_t block = n->l->layers[i].block;
        lm_layer_worker(n, i, t, lo, hi);
        if (block == LM_NONE)
            continue;
        lm_layer_worker(n, (size_t)p->n_layer + block, t, lo, hi);
        if (!n->l->blocks[block].stack)
            lm_merge_rows(n, block, t, lo, hi);
    }
    cmc_pool_barrier(n->pool, t);
    cmc_pool_share(b->n_targets, 1, t, nt, &lo, &hi);
    for (size_t r = lo; r < hi; r++)
        n->rh[r] = row_norm(n->x + b->rows[r] * e, n->w + n->l->out_norm, n->hidden + r * e, e, p->rms_eps);
}

void lm_forward(lm_net *n, const net_batch *b) {
    n->batch = b;
    for (size_t s = 0; s < b->n_seqs; s++)
        for (size_t r = b->start[s]; r < b->start[s + 1]; r++)
            n->pos[r] = (uint32_t)(r - b->start[s]);
    cmc_pool_run(n->pool, lm_forward_worker, n);
}
