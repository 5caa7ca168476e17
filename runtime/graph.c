/* The forward pass of a batch through all layers. */
#include "runtime/graph_impl.h"

#include <stdlib.h>
#include <string.h>

#include "base/error.h"
#include "base/mem.h"
#include "runtime/rope.h"

#define GRAPH_ALONE 4          /* up to this many tokens the small steps are done by the caller's thread alone */
#define GRAPH_ATTN_ALONE 40000 /* attention multiplies below which waking the other threads does not pay */

cmc_status graph_scratch_new(cmc_model *m, struct model_scratch **out, cmc_error *err) {
    (void)m;
    *out = cmc_calloc(1, sizeof **out);
    return *out ? CMC_OK : cmc_fail_nomem(err, "a model's scratch", sizeof **out);
}

static void graph_scratch_drop(struct model_scratch *s) {
    float **const all[] = {&s->x,    &s->h,  &s->q,   &s->k,   &s->v,         &s->o,
                           &s->gate, &s->up, &s->cos, &s->sin, &s->cos_local, &s->sin_local, &s->side};
    for (size_t i = 0; i < sizeof all / sizeof *all; i++) {
        free(*all[i]);
        *all[i] = NULL;
    }
    s->cap = 0;
}

void graph_scratch_free(struct model_scratch *s) {
    if (!s)
        return;
    graph_scratch_drop(s);
    attn_work_free(&s->attn);
    matmul_team_free(&s->team);
    free(s->own);
    free(s->logits);
    free(s);
}

/* Room for n tokens, in powers of two, so that it settles soon. */
static cmc_status graph_scratch_reserve(cmc_model *m, size_t n, cmc_error *err) {
    struct model_scratch *s = m->scratch;
    if (n <= s->cap)
        return CMC_OK;
    size_t cap = 1;
    while (cap < n)
        cap *= 2;
    graph_scratch_drop(s);
    const model_params *p = &m->p;
    const size_t e = (size_t)p->n_embd, ff = (size_t)p->n_ff, half = (size_t)p->n_rot / 2;
    const size_t nh = (size_t)p->n_head, nkv = (size_t)p->n_head_kv, hk = (size_t)p->head_k, hv = (size_t)p->head_v;
    const struct {
        float **to;
        size_t width;
    } table[] = {{&s->x, e},         {&s->h, e},     {&s->q, nh * hk}, {&s->k, nkv * hk}, {&s->v, nkv * hv},
                 {&s->o, nh * hv},   {&s->gate, ff}, {&s->up, ff},     {&s->cos, half},   {&s->sin, half},
                 {&s->cos_local, half}, {&s->sin_local, half}, {&s->side, m->expand.n ? e : 0}};
    for (size_t i = 0; i < sizeof table / sizeof *table; i++) {
        *table[i].to = cmc_alloc_aligned(cap * table[i].width, sizeof(float));
        if (!*table[i].to) {
            graph_scratch_drop(s);
            return cmc_fail_nomem(err, "a batch's activations", cap * table[i].width * sizeof(float));
        }
    }
    s->cap = cap;
    return CMC_OK;
}

size_t graph_bytes(const cmc_model *m, size_t n) {
    const model_params *p = &m->p;
    const size_t nh = (size_t)p->n_head, nkv = (size_t)p->n_head_kv, hk = (size_t)p->head_k, hv = (size_t)p->head_v;
    const size_t streams = m->expand.n ? 3 : 2;
    const size_t width = streams * (size_t)p->n_embd + (nh + nkv) * (hk + hv) + 2 * (size_t)p->n_ff + 2 * (size_t)p->n_rot;
    n = n < GRAPH_BATCH ? n : GRAPH_BATCH;
    return n * width * sizeof(float) + matmul_bytes(m->rt, (size_t)(p->n_ff > p->n_embd ? p->n_ff : p->n_embd), n);
}

void graph_run(graph_job *g, cmc_pool_fn fn) {
    if (g->n <= GRAPH_ALONE)
        fn(g, 0, 1);
    else
        cmc_pool_run(g->m->rt->pool, fn, g);
}

void graph_angles_row(const graph_job *g, size_t i) {
    struct model_scratch *s = g->s;
    const size_t half = (size_t)g->m->p.n_rot / 2;
    rope_angles(g->m->rope_inv, half, s->row_pos[i], s->cos + i * half, s->sin + i * half);
    if (g->m->rope_inv_local != g->m->rope_inv)
        rope_angles(g->m->rope_inv_local, half, s->row_pos[i], s->cos_local + i * half, s->sin_local + i * half);
}

void graph_embed_row(const graph_job *g, size_t i, float *x, float *h) {
    const model_params *p = &g->m->p;
    const size_t e = (size_t)p->n_embd;
    weight_row(&g->m->embd, (size_t)g->s->row_id[i], x);
    if (p->embd_scale != 1.0f)
        g->vec->scale(x, p->embd_scale, e);
    g->vec->rms_norm(h, x, g->next_norm, e, p->rms_eps);
}

static void graph_embed(void *arg, int t, int nt) {
    graph_job *g = arg;
    const size_t e = (size_t)g->m->p.n_embd;
    size_t lo, hi;
    cmc_pool_share(g->n, 1, t, nt, &lo, &hi);
    for (size_t i = lo; i < hi; i++) {
        graph_angles_row(g, i);
        graph_embed_row(g, i, g->s->x + i * e, g->s->h + i * e);
    }
}

/* Bias, norm and RoPE of one head. */
static void graph_head(const graph_job *g, size_t i, float *x, const float *bias, const float *norm, size_t width) {
    const model_params *p = &g->m->p;
    const struct model_scratch *s = g->s;
    const size_t half = (size_t)p->n_rot / 2;
    const bool local = g->l->swa && g->m->rope_inv_local != g->m->rope_inv;
    if (bias)
        g->vec->add(x, bias, width);
    if (norm)
        g->vec->rms_norm(x, x, norm, width, p->rms_eps);
    rope_rotate(x, half, p->rope_neox, (local ? s->cos_local : s->cos) + i * half, (local ? s->sin_local : s->sin) + i * half);
}

void graph_qkv_head(graph_job *g, size_t i, size_t head) {
    struct model_scratch *s = g->s;
    const model_params *p = &g->m->p;
    const model_layer *l = g->l;
    const size_t nh = (size_t)p->n_head, nkv = (size_t)p->n_head_kv, hk = (size_t)p->head_k, hv = (size_t)p->head_v;
    float *k = s->k + (i * nkv + head) * hk, *v = s->v + (i * nkv + head) * hv;
    for (size_t h = head * (nh / nkv); h < (head + 1) * (nh / nkv); h++) {
        float *q = s->q + (i * nh + h) * hk;
        graph_head(g, i, q, l->bq ? l->bq + h * hk : NULL, l->q_norm, hk);
        g->vec->scale(q, p->attn_scale, hk);
    }
    graph_head(g, i, k, l->bk ? l->bk + head * hk : NULL, l->k_norm, hk);
    if (l->bv)
        g->vec->add(v, l->bv + head * hv, hv);
    kv_store(s->row_kv[i], g->vec, g->il, head, s->row_pos[i], k, v);
}

static void graph_qkv(void *arg, int t, int nt) {
    graph_job *g = arg;
    const size_t heads = (size_t)g->m->p.n_head_kv;
    size_t lo, hi;
    cmc_pool_share(g->n * heads, heads, t, nt, &lo, &hi);
    for (size_t i = lo; i < hi; i++)
        graph_qkv_head(g, i / heads, i % heads);
}

static void graph_attention(void *arg, int t, int nt) {
    graph_job *g = arg;
    attn_run(&g->attn, &g->s->attn, t, nt);
}

void graph_add_row(const graph_job *g, float *x, float *h) {
    const size_t e = (size_t)g->m->p.n_embd;
    if (g->bias)
        g->vec->add(h, g->bias, e);
    if (g->post_norm)
        g->vec->rms_norm(h, h, g->post_norm, e, g->m->p.rms_eps);
    g->vec->add(x, h, e);
}

static void graph_residual(void *arg, int t, int nt) {
    graph_job *g = arg;
    const size_t e = (size_t)g->m->p.n_embd;
    size_t lo, hi;
    cmc_pool_share(g->n, 1, t, nt, &lo, &hi);
    for (size_t i = lo; i < hi; i++) {
        float *x = g->s->x + i * e, *h = g->s->h + i * e;
        graph_add_row(g, x, h);
        g->vec->rms_norm(h, x, g->next_norm, e, g->m->p.rms_eps);
    }
}

static void graph_activation(void *arg, int t, int nt) {
    graph_job *g = arg;
    const size_t ff = (size_t)g->m->p.n_ff;
    size_t lo, hi;
    cmc_pool_share(g->n * ff, 16, t, nt, &lo, &hi);
    (g->m->p.gelu ? g->vec->gelu_mul : g->vec->silu_mul)(g->s->gate + lo, g->s->up + lo, hi - lo);
}

void graph_wanted_rows(const graph_seq *seqs, size_t n_seqs, float *rows, size_t width) {
    for (size_t i = 0, row = 0, to = 0; i < n_seqs; row += seqs[i].n, to += seqs[i].n_out, i++)
        memmove(rows + to * width, rows + (row + seqs[i].n - seqs[i].n_out) * width, seqs[i].n_out * width * sizeof *rows);
}

/* In the last layer only the rows that are asked for go on: their queries and residuals move to the front. */
static void graph_keep_wanted(graph_job *g, const graph_seq *seqs, size_t n_seqs) {
    struct model_scratch *s = g->s;
    size_t to = 0, kept = 0;
    graph_wanted_rows(seqs, n_seqs, s->q, (size_t)g->m->p.n_head * (size_t)g->m->p.head_k);
    graph_wanted_rows(seqs, n_seqs, s->x, (size_t)g->m->p.n_embd);
    for (size_t i = 0; i < n_seqs; to += seqs[i].n_out, i++)
        if (seqs[i].n_out > 0)
            s->seqs[kept++] = (attn_seq){seqs[i].kv, to, seqs[i].n_out, seqs[i].pos0 + seqs[i].n - seqs[i].n_out};
    g->attn.n_seqs = kept;
    g->n = to;
}

static void graph_attend(graph_job *g) {
    const model_params *p = &g->m->p;
    uint64_t work = 0;
    for (size_t i = 0; i < g->attn.n_seqs; i++) {
        const attn_seq *q = &g->s->seqs[i];
        const size_t last = q->pos0 + q->n, seen = g->attn.window && g->attn.window < last ? g->attn.window : last;
        work += (uint64_t)q->n * seen * (uint64_t)p->n_head * (uint64_t)(p->head_k + p->head_v);
    }
    if (work <= GRAPH_ATTN_ALONE)
        graph_attention(g, 0, 1);
    else
        cmc_pool_run(g->m->rt->pool, graph_attention, g);
}

cmc_status graph_layer(graph_job *g, const graph_seq *seqs, size_t n_seqs, const float *next_norm, cmc_error *err) {
    cmc_model *m = g->m;
    struct model_scratch *s = g->s;
    const model_layer *l = g->l;
    const size_t e = (size_t)m->p.n_embd, ff = (size_t)m->p.n_ff, qw = l->wq.n_out, kw = l->wk.n_out, vw = l->wv.n_out;
    const matmul_out qkv[] = {{&l->wq, s->q, qw}, {&l->wk, s->k, kw}, {&l->wv, s->v, vw}};
    CMC_TRY(matmul(m->rt, &m->work, s->h, e, g->n, qkv, 3, err));
    graph_run(g, graph_qkv);
    if (seqs) {
        graph_keep_wanted(g, seqs, n_seqs);
        if (g->n == 0)
            return CMC_OK;
    }
    g->attn.layer = g->il;
    g->attn.window = l->swa ? (size_t)m->p.swa_window : 0;
    graph_attend(g);
    const matmul_out wo = {&l->wo, s->h, e};
    CMC_TRY(matmul(m->rt, &m->work, s->o, l->wo.n_in, g->n, &wo, 1, err));
    g->bias = l->bo;
    g->post_norm = l->post_attn_norm;
    g->next_norm = l->ffn_norm;
    graph_run(g, graph_residual);
    const matmul_out gate_up[] = {{&l->gate, s->gate, ff}, {&l->up, s->up, ff}};
    CMC_TRY(matmul(m->rt, &m->work, s->h, e, g->n, gate_up, 2, err));
    graph_run(g, graph_activation);
    const matmul_out down = {&l->down, s->h, e};
    CMC_TRY(matmul(m->rt, &m->work, s->gate, ff, g->n, &down, 1, err));
    g->bias = NULL;
    g->post_norm = l->post_ffn_norm;
    g->next_norm = next_norm;
    graph_run(g, graph_residual);
    return CMC_OK;
}

/* Notes each token's id, position and cache, and the sequences as attention wants them. */
static void graph_lay_out(graph_job *g, const graph_seq *seqs, size_t n_seqs) {
    struct model_scratch *s = g->s;
    g->n = 0;
    for (size_t i = 0; i < n_seqs; i++) {
        s->seqs[i] = (attn_seq){seqs[i].kv, g->n, seqs[i].n, seqs[i].pos0};
        if (seqs[i].pos0 + seqs[i].n > g->attn.max_pos)
            g->attn.max_pos = seqs[i].pos0 + seqs[i].n;
        for (size_t k = 0; k < seqs[i].n; k++, g->n++) {
            s->row_id[g->n] = seqs[i].ids[k];
            s->row_pos[g->n] = seqs[i].pos0 + k;
            s->row_kv[g->n] = seqs[i].kv;
            s->row_strength[g->n] = seqs[i].strength;
        }
        if (g->m->expand.n && seqs[i].strength != 0.0f) {
            g->side_n = g->n;
            g->side_seqs = i + 1;
        }
    }
    g->attn.seqs = s->seqs;
    g->attn.n_seqs = n_seqs;
}

cmc_status graph_forward(cmc_model *m, const graph_seq *seqs, size_t n_seqs, const float **rows, cmc_error *err) {
    size_t n = 0;
    for (size_t i = 0; i < n_seqs; i++)
        n += seqs[i].n;
    CMC_TRY(graph_scratch_reserve(m, n, err));
    struct model_scratch *s = m->scratch;
    const model_params *p = &m->p;
    graph_job g = {.m = m, .s = s, .vec = m->rt->exact ? &vec_plain : vec_fast(), .next_norm = m->layers[0].attn_norm};
    g.attn = (attn_job){.n_head = (size_t)p->n_head, .n_head_kv = (size_t)p->n_head_kv, .head_k = (size_t)p->head_k,
                        .head_v = (size_t)p->head_v, .q = s->q, .out = s->o, .vec = g.vec, .exact = m->rt->exact,
                        .split = graph_team_takes(m, n), .threads = cmc_pool_threads(m->rt->pool)};
    graph_lay_out(&g, seqs, n_seqs);
    CMC_TRY(attn_prepare(&s->attn, &g.attn, err));
    if (graph_team_takes(m, n)) {
        if (n_seqs >= MATMUL_TILE_MIN_COLS)
            pack_model(m);
        CMC_TRY(graph_team_reserve(m, err));
        *rows = graph_team_run(&g, seqs, n_seqs);
        return CMC_OK;
    }
    graph_run(&g, graph_embed);
    for (size_t il = 0; il < (size_t)p->n_layer; il++) {
        const bool last = il + 1 == (size_t)p->n_layer, expanded = g.side_n > 0 && m->layers[il].extra;
        const float *next = last ? m->out_norm : m->layers[il + 1].attn_norm;
        g.il = il;
        g.l = &m->layers[il];
        if (expanded)
            CMC_TRY(graph_expanded(&g, next, err));
        else
            CMC_TRY(graph_layer(&g, last ? seqs : NULL, n_seqs, next, err));
        if (last && expanded)
            graph_wanted_rows(seqs, n_seqs, s->h, (size_t)p->n_embd);
    }
    *rows = s->h;
    return CMC_OK;
}

cmc_status graph_logits(cmc_model *m, const float *hidden, size_t n, float *logits, size_t ld, cmc_error *err) {
    const matmul_out out = {&m->head, logits, ld};
    return matmul(m->rt, &m->work, hidden, (size_t)m->p.n_embd, n, &out, 1, err);
}

cmc_status graph_logits_buffer(cmc_model *m, size_t n, float **out, cmc_error *err) {
    struct model_scratch *s = m->scratch;
    const size_t need = n * (size_t)m->p.n_vocab;
    if (need > s->logits_floats) {
        free(s->logits);
        s->logits_floats = 0;
        s->logits = cmc_alloc_aligned(need, sizeof(float));
        if (!s->logits)
            return cmc_fail_nomem(err, "a batch's logits", need * sizeof(float));
        s->logits_floats = need;
    }
    *out = s->logits;
    return CMC_OK;
}
