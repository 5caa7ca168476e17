/* The delta's forward pass over a packed batch: a llama (RMSNorm, RoPE on neighbouring pairs, SwiGLU, tied output). */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "base/mem.h"
#include "tinylm/attend.h"
#include "tinylm/carve.h"
#include "tinylm/net.h"
#include "tinylm/rowmath.h"

/* ---------------------------------------------------------------------------------------------- buffers */

static void net_layout(net *n, carver *c) {
    const params_shape *s = &n->p->s;
    size_t t = n->max_tokens, e = (size_t)s->n_embd, f = (size_t)s->n_ff, q = (size_t)s->n_head * (size_t)s->head_dim;
    size_t d3 = params_qkv(s), h = (size_t)s->n_head;
    n->w = carve(c, 1, n->p->n);
    n->grad = carve(c, 1, n->p->n);
    for (int i = 0; i < s->n_layer; i++) {
        net_layer skip, *l = c->base ? &n->layers[i] : &skip;
        l->x0 = carve(c, t, e);
        l->n1 = carve(c, t, e);
        l->r1 = carve(c, t, 1);
        l->qkv = carve(c, t, d3);
        l->att = carve(c, t, q);
        l->lse = carve(c, t, h);
        l->x1 = carve(c, t, e);
        l->n2 = carve(c, t, e);
        l->r2 = carve(c, t, 1);
        l->gu = carve(c, t, 2 * f);
        l->act = carve(c, t, f);
    }
    n->x = carve(c, t, e);
    n->hidden = carve(c, t, e);
    n->rf = carve(c, t, 1);
    n->rope = carve(c, n->max_seq, (size_t)s->head_dim);
    n->dx = carve(c, t, e);
    n->dn = carve(c, t, e);
    n->dd = carve(c, t, e);
    n->dqkv = carve(c, t, d3);
    n->datt = carve(c, t, q);
    n->dgu = carve(c, t, 2 * f);
    n->dact = carve(c, t, f);
    n->scores = carve(c, (size_t)n->nt * 2 * ATTEND_ROWS, n->max_seq);
}

size_t net_bytes(const params *p, int threads, size_t max_tokens, size_t max_seq) {
    net n = {.p = p, .nt = threads, .max_tokens = max_tokens, .max_seq = max_seq};
    carver c = {NULL, 0};
    net_layout(&n, &c);
    return c.used * sizeof(float) + max_tokens * sizeof(uint32_t);
}

/* Angles in double: position times base^(-2i/d). */
static void net_rope_table(net *n) {
    size_t half = (size_t)n->p->s.head_dim / 2;
    for (size_t i = 0; i < half; i++) {
        double inv = pow((double)n->p->s.rope_base, -(double)i / (double)half);
        for (size_t pos = 0; pos < n->max_seq; pos++) {
            n->rope[(pos * half + i) * 2] = (float)cos((double)pos * inv);
            n->rope[(pos * half + i) * 2 + 1] = (float)sin((double)pos * inv);
        }
    }
}

cmc_status net_new(cmc_runtime *rt, const params *p, size_t max_tokens, size_t max_seq, net *out, cmc_error *err) {
    memset(out, 0, sizeof *out);
    out->p = p;
    out->pool = rt->pool;
    out->blas = rt->exact ? NULL : rt->blas;
    out->nt = cmc_pool_threads(rt->pool);
    out->max_tokens = max_tokens;
    out->max_seq = max_seq;
    carver c = {NULL, 0};
    net_layout(out, &c);
    size_t need = c.used;
    out->layers = cmc_calloc((size_t)p->s.n_layer, sizeof *out->layers);
    out->pos = cmc_alloc(max_tokens, sizeof *out->pos);
    out->arena = cmc_alloc_aligned(need, sizeof(float));
    if (!out->layers || !out->pos || !out->arena) {
        net_free(out);
        return cmc_fail_nomem(err, "the delta's weights and activations", need * sizeof(float));
    }
    c = (carver){out->arena, 0};
    net_layout(out, &c);
    memset(out->grad, 0, p->n * sizeof(float));
    net_rope_table(out);
    return CMC_OK;
}

void net_free(net *n) {
    free(n->layers);
    free(n->pos);
    free(n->arena);
    memset(n, 0, sizeof *n);
}

/* ------------------------------------------------------------------------------------------------- passes */

void net_rope_rows(const net *n, float *qkv, size_t lo, size_t hi, bool inverse) {
    const params_shape *s = &n->p->s;
    size_t half = (size_t)s->head_dim / 2, heads = (size_t)(s->n_head + s->n_head_kv), d3 = params_qkv(s);
    float sign = inverse ? -1.0f : 1.0f;
    for (size_t t = lo; t < hi; t++) {
        const float *cs = n->rope + (size_t)n->pos[t] * half * 2;
        float *v = qkv + t * d3;
        for (size_t h = 0; h < heads; h++, v += 2 * half) {
            for (size_t i = 0; i < half; i++) {
                float a = v[2 * i], b = v[2 * i + 1], c = cs[2 * i], sn = sign * cs[2 * i + 1];
                v[2 * i] = a * c - b * sn;
                v[2 * i + 1] = a * sn + b * c;
            }
        }
    }
}

/* y[lo..hi) = x W^T (+ y where beta is 1), W [n_out][n_in]. */
static void net_linear(const net *n, const float *x, const float *w, float *y, size_t lo, size_t hi, size_t n_in,
                       size_t n_out, float beta) {
    if (hi > lo)
        blas_gemm(n->blas, false, false, hi - lo, n_out, n_in, 1.0f, x + lo * n_in, n_in, w, n_in, beta, y + lo * n_out,
                  n_out);
}

/* y[lo..hi) += a branch's output x W^T, with dropout. */
static void net_branch(const net *n, size_t branch, const float *x, const float *w, float *y, size_t lo, size_t hi,
                       size_t n_in) {
    size_t e = (size_t)n->p->s.n_embd;
    if (n->dropout > 0.0f) {
        net_linear(n, x, w, n->dn, lo, hi, n_in, e, 0.0f);
        net_drop_add(n, branch, n->dn, y, lo, hi);
    } else {
        net_linear(n, x, w, y, lo, hi, n_in, e, 1.0f);
    }
}

/* One layer on the token rows [lo, hi) of thread t; the threads meet only around attention. */
static void net_layer_worker(net *n, int i, int t, size_t lo, size_t hi) {
    const params_shape *s = &n->p->s;
    const params_layer *o = &n->p->layers[i];
    const net_layer *l = &n->layers[i];
    size_t e = (size_t)s->n_embd, f = (size_t)s->n_ff, q = (size_t)s->n_head * (size_t)s->head_dim;
    const float *w = n->w;
    float *next = i + 1 < s->n_layer ? n->layers[i + 1].x0 : n->x;

    for (size_t r = lo; r < hi; r++)
        l->r1[r] = row_norm(l->x0 + r * e, w + o->attn_norm, l->n1 + r * e, e, s->rms_eps);
    net_linear(n, l->n1, w + o->wq, l->qkv, lo, hi, e, params_qkv(s), 0.0f);
    net_rope_rows(n, l->qkv, lo, hi, false);
    cmc_pool_barrier(n->pool, t);
    net_attention_worker(n, l, t);
    cmc_pool_barrier(n->pool, t);
    memcpy(l->x1 + lo * e, l->x0 + lo * e, (hi - lo) * e * sizeof(float));
    net_branch(n, 2 * (size_t)i, l->att, w + o->wo, l->x1, lo, hi, q);
    for (size_t r = lo; r < hi; r++)
        l->r2[r] = row_norm(l->x1 + r * e, w + o->ffn_norm, l->n2 + r * e, e, s->rms_eps);
    net_linear(n, l->n2, w + o->gate, l->gu, lo, hi, e, 2 * f, 0.0f);
    for (size_t r = lo; r < hi; r++)
        row_swiglu(l->gu + r * 2 * f, l->gu + r * 2 * f + f, l->act + r * f, f);
    memcpy(next + lo * e, l->x1 + lo * e, (hi - lo) * e * sizeof(float));
    net_branch(n, 2 * (size_t)i + 1, l->act, w + o->down, next, lo, hi, f);
}

static void net_forward_worker(void *arg, int t, int nt) {
    net *n = arg;
    const net_batch *b = n->batch;
    const params_shape *s = &n->p->s;
    size_t e = (size_t)s->n_embd, lo, hi;
    cmc_pool_share(b->n_tokens, 1, t, nt, &lo, &hi);
    for (size_t r = lo; r < hi; r++)
        memcpy(n->layers[0].x0 + r * e, n->w + n->p->embd + (size_t)b->ids[r] * e, e * sizeof(float));
    for (int i = 0; i < s->n_layer; i++)
        net_layer_worker(n, i, t, lo, hi);
    cmc_pool_barrier(n->pool, t);
    cmc_pool_share(b->n_targets, 1, t, nt, &lo, &hi);
    for (size_t r = lo; r < hi; r++)
        n->rf[r] = row_norm(n->x + b->rows[r] * e, n->w + n->p->out_norm, n->hidden + r * e, e, s->rms_eps);
}

void net_forward(net *n, const net_batch *b) {
    n->batch = b;
    for (size_t s = 0; s < b->n_seqs; s++)
        for (size_t r = b->start[s]; r < b->start[s + 1]; r++)
            n->pos[r] = (uint32_t)(r - b->start[s]);
    cmc_pool_run(n->pool, net_forward_worker, n);
}
