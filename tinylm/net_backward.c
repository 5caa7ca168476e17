/* The delta's backward pass. Gradients of activations go by token rows, those of weights by weight rows, so that a
 * thread writes only what is its own; barriers stand where one needs what the others made. Tensors that are not trained get
 * no gradient, and nothing is propagated back below the lowest part that has some that are. */
#include <string.h>

#include "tinylm/net.h"
#include "tinylm/rowmath.h"

/* dx[lo..hi) = dy W (W [n_out][n_in]). */
static void back_input(const net *n, const float *dy, const float *w, float *dx, size_t lo, size_t hi, size_t n_in,
                       size_t n_out) {
    if (hi > lo)
        blas_gemm(n->blas, false, true, hi - lo, n_in, n_out, 1.0f, dy + lo * n_out, n_out, w, n_in, 0.0f,
                  dx + lo * n_in, n_in);
}

/* dW += dy^T x over all T rows, thread t's share of W's rows. W: `count` tensors that lie one after the other, as do their
 * columns of dy; neighbours that are trained are one gemm. */
static void back_weight(const net *n, const float *dy, const float *x, const params_tensor *w, size_t count, int t) {
    size_t ld = 0, rows = n->batch->n_tokens, lo, hi;
    for (size_t k = 0; k < count; k++)
        ld += w[k].n_out;
    for (size_t k = 0; k < count; k++, w++) {
        const params_tensor *first = w;
        size_t n_out = w->trained ? w->n_out : 0, n_in = w->n_in;
        for (; w->trained && k + 1 < count && w[1].trained; k++, w++)
            n_out += w[1].n_out;
        cmc_pool_share(n_out, 8, t, n->nt, &lo, &hi);
        if (hi > lo)
            blas_gemm(n->blas, true, true, hi - lo, n_in, rows, 1.0f, dy + lo, ld, x, n_in, 1.0f,
                      n->grad + first->off + lo * n_in, n_in);
        dy += first->trained ? n_out : first->n_out;
    }
}

/* The gain of a norm, thread t's share of its columns (row_gain_grad). */
static void back_gain(const net *n, const float *dy, const float *x, const float *r, const size_t *row_of,
                      const params_tensor *gain, size_t rows, int t) {
    size_t e = (size_t)n->p->s.n_embd, lo, hi;
    if (!gain->trained)
        return;
    cmc_pool_share(e, 16, t, n->nt, &lo, &hi);
    row_gain_grad(dy, x, r, row_of, rows, e, lo, hi, n->grad + gain->off);
}

/* The gradient of a branch's output, rows [lo, hi): that of the stream, through the dropout. */
static const float *back_branch(const net *n, size_t branch, size_t lo, size_t hi) {
    if (!(n->dropout > 0.0f))
        return n->dx;
    net_drop_mul(n, branch, n->dx, n->dd, lo, hi);
    return n->dd;
}

/* The feed-forward part of layer i: n->dx is the gradient after it and becomes that before it. */
static void back_ffn(net *n, int i, int t, size_t lo, size_t hi) {
    const params_shape *s = &n->p->s;
    const params_layer *o = &n->p->layers[i];
    const net_layer *l = &n->layers[i];
    size_t e = (size_t)s->n_embd, f = (size_t)s->n_ff, rows = n->batch->n_tokens;

    const float *dy = back_branch(n, 2 * (size_t)i + 1, lo, hi);
    back_input(n, dy, n->w + o->down, n->dact, lo, hi, f, e);
    memcpy(n->dgu + lo * 2 * f, l->gu + lo * 2 * f, (hi - lo) * 2 * f * sizeof(float));
    for (size_t r = lo; r < hi; r++)
        row_swiglu_grad(n->dgu + r * 2 * f, n->dgu + r * 2 * f + f, n->dact + r * f, f);
    back_input(n, n->dgu, n->w + o->gate, n->dn, lo, hi, e, 2 * f);
    cmc_pool_barrier(n->pool, t);
    back_weight(n, dy, l->act, params_of_layer(n->p, i, PARAMS_DOWN), 1, t);
    back_weight(n, n->dgu, l->n2, params_of_layer(n->p, i, PARAMS_GATE), 2, t);
    back_gain(n, n->dn, l->x1, l->r2, NULL, params_of_layer(n->p, i, PARAMS_FFN_NORM), rows, t);
    cmc_pool_barrier(n->pool, t);
    for (size_t r = lo; r < hi; r++)
        row_norm_grad(n->dn + r * e, l->x1 + r * e, l->r2[r], n->w + o->ffn_norm, n->dx + r * e, e, true);
}

/* The attention part of layer i, likewise. */
static void back_attention(net *n, int i, int t, size_t lo, size_t hi) {
    const params_shape *s = &n->p->s;
    const params_layer *o = &n->p->layers[i];
    const net_layer *l = &n->layers[i];
    size_t e = (size_t)s->n_embd, q = (size_t)s->n_head * (size_t)s->head_dim, d3 = params_qkv(s);
    size_t rows = n->batch->n_tokens;

    const float *dy = back_branch(n, 2 * (size_t)i, lo, hi);
    back_input(n, dy, n->w + o->wo, n->datt, lo, hi, q, e);
    cmc_pool_barrier(n->pool, t);
    back_weight(n, dy, l->att, params_of_layer(n->p, i, PARAMS_O), 1, t);
    net_attention_back_worker(n, l, t);
    cmc_pool_barrier(n->pool, t);
    net_rope_rows(n, n->dqkv, lo, hi, true);
    back_input(n, n->dqkv, n->w + o->wq, n->dn, lo, hi, e, d3);
    cmc_pool_barrier(n->pool, t);
    back_weight(n, n->dqkv, l->n1, params_of_layer(n->p, i, PARAMS_Q), 3, t);
    back_gain(n, n->dn, l->x0, l->r1, NULL, params_of_layer(n->p, i, PARAMS_ATTN_NORM), rows, t);
    cmc_pool_barrier(n->pool, t);
    for (size_t r = lo; r < hi; r++)
        row_norm_grad(n->dn + r * e, l->x0 + r * e, l->r1[r], n->w + o->attn_norm, n->dx + r * e, e, true);
}

/* The input side of the tied embedding: each thread adds the rows of its share of the vocabulary. */
static void back_embedding(net *n, int t) {
    size_t e = (size_t)n->p->s.n_embd, lo, hi;
    cmc_pool_share((size_t)n->p->s.n_vocab, 16, t, n->nt, &lo, &hi);
    for (size_t r = 0; r < n->batch->n_tokens; r++) {
        size_t id = (size_t)n->batch->ids[r];
        if (id < lo || id >= hi)
            continue;
        float *g = n->grad + n->p->embd + id * e;
        const float *dx = n->dx + r * e;
        for (size_t c = 0; c < e; c++)
            g[c] += dx[c];
    }
}

static void back_worker(void *arg, int t, int nt) {
    net *n = arg;
    const net_batch *b = n->batch;
    size_t e = (size_t)n->p->s.n_embd, lo, hi;
    const float *gain = n->w + n->p->out_norm;
    cmc_pool_share(b->n_tokens, 1, t, nt, &lo, &hi);
    memset(n->dx + lo * e, 0, (hi - lo) * e * sizeof(float));
    back_gain(n, n->dhidden, n->x, n->rf, b->rows, params_out_norm(n->p), b->n_targets, t);
    for (size_t i = 0; i < b->n_targets; i++) { /* rows are ascending; each thread takes those among its tokens */
        size_t r = b->rows[i];
        if (r >= lo && r < hi)
            row_norm_grad(n->dhidden + i * e, n->x + r * e, n->rf[i], gain, n->dx + r * e, e, true);
    }
    for (size_t part = 2 * (size_t)n->p->s.n_layer; part > 0 && part >= n->p->lowest; part--)
        (part % 2 ? back_attention : back_ffn)(n, (int)(part - 1) / 2, t, lo, hi);
    cmc_pool_barrier(n->pool, t);
    if (params_embedding(n->p)->trained)
        back_embedding(n, t);
}

void net_backward(net *n, const net_batch *b, const float *dhidden) {
    n->batch = b;
    n->dhidden = dhidden;
    cmc_pool_run(n->pool, back_worker, n);
}
