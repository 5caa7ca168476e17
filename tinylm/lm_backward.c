/* The backward pass of a trainable model. Gradients of activations go by token rows, those of weights by weight rows
 * (of an adapter's A by columns), so that a thread writes only what is its own; barriers stand where one needs what the
 * others made. Weights that are not trained, all of the model's own beside an adapter, get no gradient, and none is computed;
 * nor is anything propagated back below the lowest part that has some that are. */
#include <string.h>

#include "tinylm/importance.h"
#include "tinylm/lm_net.h"
#include "tinylm/rowmath.h"

/* --------------------------------------------------------------------------------------------- matrices */

/* Rows [lo, hi): dx = (beta dx +) dy (W + scale B A); dy rows are ld apart. Keeps scale dy B in n->du. */
static void back_input(const lm_net *n, const lm_linear *w, const float *dy, size_t ld, float beta, float *dx,
                       size_t lo, size_t hi) {
    size_t in = w->n_in, out = w->n_out, rank = w->rank, uw = n->l->u_width, rows = hi - lo;
    if (hi <= lo)
        return;
    dy += lo * ld;
    dx += lo * in;
    blas_gemm(n->blas, false, true, rows, in, out, 1.0f, dy, ld, n->w + w->w, in, beta, dx, in);
    if (!rank)
        return;
    float *du = n->du + lo * uw + w->u;
    blas_gemm(n->blas, false, true, rows, rank, out, n->l->scale, dy, ld, n->trained + w->b, rank, 0.0f, du, uw);
    blas_gemm(n->blas, false, true, rows, in, rank, 1.0f, du, uw, n->trained + w->a, in, 1.0f, dx, in);
}

/* After back_input and a barrier: over all rows, thread t's share of dW += dy^T x and dbias += the sum of dy, or of
 * dA += du^T x and dB += scale dy^T u. */
static void back_weight(const lm_net *n, const lm_linear *w, const float *dy, size_t ld, const float *x, const float *u,
                        int t) {
    size_t rows = n->batch->n_tokens, in = w->n_in, uw = n->l->u_width, lo, hi;
    cmc_pool_share(w->n_out, 8, t, n->nt, &lo, &hi);
    if (lm_learns(n, w->w) && hi > lo) {
        blas_gemm(n->blas, true, true, hi - lo, in, rows, 1.0f, dy + lo, ld, x, in, 1.0f, n->grad + w->w + lo * in, in);
        for (size_t r = 0; lm_learns(n, w->bias) && r < rows; r++)
            for (size_t c = lo; c < hi; c++)
                n->grad[w->bias + c] += dy[r * ld + c];
    }
    if (!w->rank)
        return;
    if (hi > lo)
        blas_gemm(n->blas, true, true, hi - lo, w->rank, rows, n->l->scale, dy + lo, ld, u + w->u, uw, 1.0f,
                  n->grad + w->b + lo * w->rank, w->rank);
    cmc_pool_share(in, 16, t, n->nt, &lo, &hi);
    if (hi > lo)
        blas_gemm(n->blas, true, true, w->rank, hi - lo, rows, 1.0f, n->du + w->u, uw, x + lo, in, 1.0f,
                  n->grad + w->a + lo, in);
}

/* ------------------------------------------------------------------------------------------------ norms */

/* The gain of a norm, thread t's share of its columns (row_gain_grad). */
static void back_gain(const lm_net *n, size_t gain, const float *dy, const float *x, const float *r,
                      const size_t *row_of, size_t rows, int t) {
    size_t e = (size_t)n->l->p.n_embd, lo, hi;
    if (!lm_learns(n, gain))
        return;
    cmc_pool_share(e, 16, t, n->nt, &lo, &hi);
    row_gain_grad(dy, x, r, row_of, rows, e, lo, hi, n->grad + gain);
}

/* The gradient of a branch's output, rows [lo, hi): that of the stream, through its own norm where it has one. */
static const float *back_branch(const lm_net *n, size_t gain, const float *x, const float *r, size_t lo, size_t hi) {
    size_t e = (size_t)n->l->p.n_embd;
    if (gain == LM_NONE)
        return n->dx;
    for (size_t i = lo; i < hi; i++)
        row_norm_grad(n->dx + i * e, x + i * e, r[i], n->w + gain, n->y + i * e, e, false);
    return n->y;
}

/* Through the dropout of layer il's feed-forward output. */
static const float *back_drop(const lm_net *n, size_t il, const float *dy, size_t lo, size_t hi) {
    if (!(n->dropout > 0.0f))
        return dy;
    lm_drop(n, il, dy, n->dd, lo, hi);
    return n->dd;
}

/* dx += that of the norm before a branch, whose output's gradient is n->dn. */
static void back_stream(const lm_net *n, size_t gain, const float *x, const float *r, size_t lo, size_t hi) {
    size_t e = (size_t)n->l->p.n_embd;
    for (size_t i = lo; i < hi; i++)
        row_norm_grad(n->dn + i * e, x + i * e, r[i], n->w + gain, n->dx + i * e, e, true);
}

/* q and k through their norms, rows [lo, hi) of n->dqkv; what came in is kept in n->dqk. */
static void back_qk_norm(const lm_net *n, const lm_layer_layout *o, const lm_acts *a, size_t lo, size_t hi) {
    const model_params *p = &n->l->p;
    size_t hk = (size_t)p->head_k, heads = (size_t)(p->n_head + p->n_head_kv), qk = lm_qk_width(p);
    for (size_t r = lo; r < hi; r++) {
        float *row = n->dqkv + r * lm_qkv_width(p), *kept = n->dqk + r * qk;
        memcpy(kept, row, qk * sizeof *row);
        for (size_t h = 0; h < heads; h++)
            row_norm_grad(kept + h * hk, a->qk + r * qk + h * hk, a->rqk[r * heads + h],
                          n->w + (h < (size_t)p->n_head ? o->q_norm : o->k_norm), row + h * hk, hk, false);
    }
}

/* Their gains, thread t's share of a head's columns: each head of a token is a row. */
static void back_qk_gain(const lm_net *n, const lm_layer_layout *o, const lm_acts *a, int t) {
    const model_params *p = &n->l->p;
    size_t hk = (size_t)p->head_k, n_head = (size_t)p->n_head, n_head_kv = (size_t)p->n_head_kv, lo, hi;
    if (!lm_learns(n, o->q_norm))
        return;
    cmc_pool_share(hk, 16, t, n->nt, &lo, &hi);
    for (size_t r = 0; r < n->batch->n_tokens; r++) {
        size_t q = r * (n_head + n_head_kv), k = q + n_head;
        row_gain_grad(n->dqk + q * hk, a->qk + q * hk, a->rqk + q, NULL, n_head, hk, lo, hi, n->grad + o->q_norm);
        row_gain_grad(n->dqk + k * hk, a->qk + k * hk, a->rqk + k, NULL, n_head_kv, hk, lo, hi, n->grad + o->k_norm);
    }
}

/* ------------------------------------------------------------------------------------------------ gates */

/* Gates of `kind` on columns that are `width` each: gate u gets the sum over a sequence's rows of dx times x in its columns,
 * which is the gradient of a factor of 1 on x. Thread t's share of the units, each sequence on its own. */
static void back_gates(const lm_net *n, size_t il, size_t kind, const float *dx, const float *x, size_t width, int t) {
    const importance_shape s = importance_shape_of(&n->l->p);
    size_t units = s.width[kind], ld = units * width, lo, hi;
    cmc_pool_share(units, 8, t, n->nt, &lo, &hi);
    for (size_t q = 0; q < n->batch->n_seqs; q++) {
        float *gate = n->gates + q * s.n_layer * s.per_layer + importance_at(&s, il, kind);
        for (size_t r = n->batch->start[q]; r < n->batch->start[q + 1]; r++)
            for (size_t u = lo; u < hi; u++)
                for (size_t c = u * width; c < (u + 1) * width; c++)
                    gate[u] += dx[r * ld + c] * x[r * ld + c];
    }
}

static void back_head_gates(const lm_net *n, size_t il, int t) {
    back_gates(n, il, IMPORTANCE_HEADS, n->datt, n->acts[il].att, (size_t)n->l->p.head_v, t);
}

/* `dout`: the gradient of the output after dropout, as it is kept. */
static void back_ffn_gates(const lm_net *n, size_t il, const float *dout, int t) {
    back_gates(n, il, IMPORTANCE_UP, n->dact, n->act, 1, t);
    back_gates(n, il, IMPORTANCE_DOWN, dout, n->acts[il].f, 1, t);
}

/* ----------------------------------------------------------------------------------------------- layers */

/* The feed-forward part of a layer: n->dx is the gradient after it and becomes that before it. */
static void back_ffn(lm_net *n, size_t il, int t, size_t lo, size_t hi) {
    const model_params *p = &n->l->p;
    const lm_layer_layout *o = &n->l->layers[il];
    const lm_acts *a = &n->acts[il];
    size_t e = (size_t)p->n_embd, f = (size_t)p->n_ff, rows = n->batch->n_tokens;

    const float *dout = back_branch(n, o->post_ffn_norm, a->f, a->rf, lo, hi), *dy = back_drop(n, il, dout, lo, hi);
    back_input(n, &o->down, dy, e, 0.0f, n->dact, lo, hi);
    lm_activate(n, a->gu, n->act, lo, hi);
    lm_norm_again(a->x1, a->r2, n->w + o->ffn_norm, n->norm, e, lo, hi);
    memcpy(n->dgu + lo * 2 * f, a->gu + lo * 2 * f, (hi - lo) * 2 * f * sizeof(float));
    for (size_t r = lo; r < hi; r++)
        (p->gelu ? row_geglu_grad : row_swiglu_grad)(n->dgu + r * 2 * f, n->dgu + r * 2 * f + f, n->dact + r * f, f);
    back_input(n, &o->gate, n->dgu, 2 * f, 0.0f, n->dn, lo, hi);
    back_input(n, &o->up, n->dgu + f, 2 * f, 1.0f, n->dn, lo, hi);
    cmc_pool_barrier(n->pool, t);
    if (n->gates)
        back_ffn_gates(n, il, dout, t);
    back_weight(n, &o->down, dy, e, n->act, a->u, t);
    back_weight(n, &o->gate, n->dgu, 2 * f, n->norm, a->u, t);
    back_weight(n, &o->up, n->dgu + f, 2 * f, n->norm, a->u, t);
    back_gain(n, o->ffn_norm, n->dn, a->x1, a->r2, NULL, rows, t);
    back_gain(n, o->post_ffn_norm, n->dx, a->f, a->rf, NULL, rows, t);
    cmc_pool_barrier(n->pool, t);
    back_stream(n, o->ffn_norm, a->x1, a->r2, lo, hi);
}

/* Between attention and its projections: the gradients of q, k, v as the matrices give them, and the gains of their
 * norms. */
static void back_qkv(lm_net *n, size_t il, int t, size_t lo, size_t hi) {
    const lm_layer_layout *o = &n->l->layers[il];
    const lm_acts *a = &n->acts[il];
    attend at = lm_attend(n, il);
    at.datt = n->datt;
    at.dq = n->dqkv;
    at.dk_out = n->dqkv + at.n_head * at.dk;
    at.dv_out = n->dqkv + lm_qk_width(&n->l->p);
    attend_backward(&at, t);
    cmc_pool_barrier(n->pool, t);
    lm_rotate(n, o->swa, n->dqkv, lo, hi, true);
    if (o->q_norm != LM_NONE)
        back_qk_norm(n, o, a, lo, hi);
}

/* The attention part of a layer, likewise. */
static void back_attention(lm_net *n, size_t il, int t, size_t lo, size_t hi) {
    const model_params *p = &n->l->p;
    const lm_layer_layout *o = &n->l->layers[il];
    const lm_acts *a = &n->acts[il];
    size_t e = (size_t)p->n_embd, ld = lm_qkv_width(p), rows = n->batch->n_tokens;
    const float *dq = n->dqkv, *dk = dq + o->q.n_out, *dv = dq + lm_qk_width(p);

    const float *dy = back_branch(n, o->post_attn_norm, a->o, a->ro, lo, hi);
    back_input(n, &o->o, dy, e, 0.0f, n->datt, lo, hi);
    cmc_pool_barrier(n->pool, t);
    if (n->gates)
        back_head_gates(n, il, t);
    back_weight(n, &o->o, dy, e, a->att, a->u, t);
    back_gain(n, o->post_attn_norm, n->dx, a->o, a->ro, NULL, rows, t);
    back_qkv(n, il, t, lo, hi);
    lm_norm_again(a->x0, a->r1, n->w + o->attn_norm, n->norm, e, lo, hi);
    back_input(n, &o->q, dq, ld, 0.0f, n->dn, lo, hi);
    back_input(n, &o->k, dk, ld, 1.0f, n->dn, lo, hi);
    back_input(n, &o->v, dv, ld, 1.0f, n->dn, lo, hi);
    cmc_pool_barrier(n->pool, t);
    back_weight(n, &o->q, dq, ld, n->norm, a->u, t);
    back_weight(n, &o->k, dk, ld, n->norm, a->u, t);
    back_weight(n, &o->v, dv, ld, n->norm, a->u, t);
    back_gain(n, o->attn_norm, n->dn, a->x0, a->r1, NULL, rows, t);
    back_qk_gain(n, o, a, t);
    cmc_pool_barrier(n->pool, t);
    back_stream(n, o->attn_norm, a->x0, a->r1, lo, hi);
}

static void back_layer(lm_net *n, size_t il, int t, size_t lo, size_t hi) {
    back_ffn(n, il, t, lo, hi);
    back_attention(n, il, t, lo, hi);
}

/* Through an expanded model, down to its lowest block; below it nothing is trained, unless the model itself is. */
static void back_expanded(lm_net *n, int t, size_t lo, size_t hi) {
    const lm_layout *l = n->l;
    for (size_t i = (size_t)l->p.n_layer; i-- > 0;) {
        size_t block = l->layers[i].block;
        bool beside = block != LM_NONE && !l->blocks[block].stack;
        if (beside)
            lm_merge_back(n, block, t, lo, hi);
        if (block != LM_NONE)
            back_layer(n, (size_t)l->p.n_layer + block, t, lo, hi);
        if (block == 0 && l->base.lowest > 0)
            return;
        if (beside)
            lm_merge_swap(n, lo, hi);
        back_layer(n, i, t, lo, hi);
        if (beside)
            lm_merge_join(n, block, lo, hi);
    }
}

/* The input side of the embedding: each thread adds the rows of its share of the vocabulary. */
static void back_embedding(const lm_net *n, int t) {
    const net_batch *b = n->batch;
    size_t e = (size_t)n->l->p.n_embd, lo, hi;
    cmc_pool_share((size_t)n->l->p.n_vocab, 1, t, n->nt, &lo, &hi);
    for (size_t r = 0; r < b->n_tokens; r++) {
        size_t id = (size_t)b->ids[r];
        if (id < lo || id >= hi)
            continue;
        float *g = n->grad + n->l->embd + id * e;
        const float *dx = n->dx + r * e;
        for (size_t c = 0; c < e; c++)
            g[c] += dx[c] * n->l->p.embd_scale;
    }
}

static void back_worker(void *arg, int t, int nt) {
    lm_net *n = arg;
    const net_batch *b = n->batch;
    size_t e = (size_t)n->l->p.n_embd, lowest = lm_trained(n->l)->lowest, lo, hi;
    const float *gain = n->w + n->l->out_norm;
    cmc_pool_share(b->n_tokens, 1, t, nt, &lo, &hi);
    memset(n->dx + lo * e, 0, (hi - lo) * e * sizeof(float));
    back_gain(n, n->l->out_norm, n->dhidden, n->x, n->rh, b->rows, b->n_targets, t);
    for (size_t i = 0; i < b->n_targets; i++) { /* rows are ascending; each thread takes those among its tokens */
        size_t r = b->rows[i];
        if (r >= lo && r < hi)
            row_norm_grad(n->dhidden + i * e, n->x + r * e, n->rh[i], gain, n->dx + r * e, e, true);
    }
    if (n->l->n_blocks)
        back_expanded(n, t, lo, hi);
    for (size_t part = n->l->n_blocks ? 0 : 2 * (size_t)n->l->p.n_layer; part > 0 && part >= lowest; part--)
        (part % 2 ? back_attention : back_ffn)(n, (part - 1) / 2, t, lo, hi);
    cmc_pool_barrier(n->pool, t);
    if (lm_learns(n, n->l->embd))
        back_embedding(n, t);
}

void lm_backward(lm_net *n, const net_batch *b, const float *dhidden) {
    n->batch = b;
    n->dhidden = dhidden;
    cmc_pool_run(n->pool, back_worker, n);
}
