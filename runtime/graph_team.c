/* The forward pass of few tokens: all threads go through the layers together, with barriers where one needs what another
 * did. What is small (residual, norm, quantising) each thread does for itself, for handing it out would take longer. Each
 * value is computed by the same functions as in graph.c, or by one that does what two of them do, so the bits are the same. */
#include <stdlib.h>
#include <string.h>

#include "base/error.h"
#include "base/mem.h"
#include "runtime/graph_impl.h"

enum { TEAM_OWN = 3 };   /* rows that a thread keeps for each token: the stream, its norm, what is aside */

bool graph_team_takes(const cmc_model *m, size_t n) {
    return n <= GRAPH_TEAM && !m->rt->exact && m->lora.n == 0;
}

static size_t team_floats(const cmc_model *m) {
    return GRAPH_TEAM * (((size_t)m->p.n_embd + 15) / 16 * 16);
}

cmc_status graph_team_reserve(cmc_model *m, cmc_error *err) {
    struct model_scratch *s = m->scratch;
    const model_params *p = &m->p;
    const size_t need = TEAM_OWN * (size_t)cmc_pool_threads(m->rt->pool) * team_floats(m), heads = (size_t)p->n_head * (size_t)p->head_v;
    size_t widest = (size_t)(p->n_ff > p->n_embd ? p->n_ff : p->n_embd);
    widest = heads > widest ? heads : widest;
    if (need > s->own_floats) {
        free(s->own);
        s->own_floats = 0;
        s->own = cmc_alloc_aligned(need, sizeof(float));
        if (!s->own)
            return cmc_fail_nomem(err, "a batch's activations", need * sizeof(float));
        s->own_floats = need;
    }
    return matmul_team_reserve(&s->team, m->rt, GRAPH_TEAM, widest, err);
}

/* The products of a layer. */
typedef struct team_layer {
    matmul_out qkv_out[3], wo_out, gate_up_out[2], down_out;
    matmul_step qkv, wo, gate_up, down;
} team_layer;

/* One thread's view of the pass. */
typedef struct team_view {
    graph_job g;
    int t, nt;
    size_t rows, seqs;
    float *x, *h;    /* [n][n_embd] the thread's own residual stream, and its norm */
    float *y;        /* [n][n_embd] what the products give, for all threads */
    float *side;     /* [n][n_embd] of the thread's own: graph_side_row's */
    float share[GRAPH_TEAM];
    team_layer *now, *then;
} team_view;

/* A layer, or the block that belongs to it. */
typedef struct team_place { size_t il; bool block; } team_place;

static team_place team_after(const team_view *v, team_place at) {
    if (!at.block && v->g.side_n > 0 && v->g.m->layers[at.il].extra)
        return (team_place){at.il, true};
    return (team_place){at.il + 1, false};
}

static void team_describe(const team_view *v, team_place at, team_layer *out) {
    const cmc_model *m = v->g.m;
    const model_layer *l = at.block ? &m->layers[at.il].extra->l : &m->layers[at.il];
    const struct model_scratch *s = v->g.s;
    const size_t e = (size_t)m->p.n_embd, ff = (size_t)m->p.n_ff, n = at.block ? v->g.side_n : v->rows;
    *out = (team_layer){.qkv_out = {{&l->wq, s->q, l->wq.n_out}, {&l->wk, s->k, l->wk.n_out}, {&l->wv, s->v, l->wv.n_out}},
                        .wo_out = {&l->wo, v->y, e},
                        .gate_up_out = {{&l->gate, s->gate, ff}, {&l->up, s->up, ff}},
                        .down_out = {&l->down, v->y, e}};
    out->qkv = (matmul_step){.outs = out->qkv_out, .n_w = 3, .x = v->h, .ldx = e, .cols = n};
    out->wo = (matmul_step){.outs = &out->wo_out, .n_w = 1, .x = s->o, .ldx = l->wo.n_in, .cols = n};
    out->gate_up = (matmul_step){.outs = out->gate_up_out, .n_w = 2, .x = v->h, .ldx = e, .cols = n,
                                 .gate = m->p.gelu ? v->g.vec->gelu_mul : v->g.vec->silu_mul};
    out->down = (matmul_step){.outs = &out->down_out, .n_w = 1, .x = s->gate, .ldx = ff, .cols = n};
}

/* A product, and the barrier after which its results are there. */
static void team_product(team_view *v, const matmul_step *step, const matmul_step *next) {
    matmul_team_run(&v->g.s->team, step, next, v->t);
    cmc_pool_barrier(v->g.m->rt->pool, v->t);
}

static void team_attend(team_view *v) {
    const model_params *p = &v->g.m->p;
    const size_t heads = (size_t)p->n_head_kv;
    for (size_t i = (size_t)v->t; i < v->g.n * heads; i += (size_t)v->nt)
        graph_qkv_head(&v->g, i / heads, i % heads);
    cmc_pool_barrier(v->g.m->rt->pool, v->t);
    v->g.attn.layer = v->g.il;
    v->g.attn.window = v->g.l->swa ? (size_t)p->swa_window : 0;
    attn_run(&v->g.attn, &v->g.s->attn, v->t, v->nt);
    cmc_pool_barrier(v->g.m->rt->pool, v->t);
    if (attn_is_split(&v->g.attn)) {
        attn_join(&v->g.attn, &v->g.s->attn, v->t, v->nt);
        cmc_pool_barrier(v->g.m->rt->pool, v->t);
    }
}

/* The residual stream takes up what the product gave. next: the product that its norm goes into, which is then quantised with it, or
 * NULL where that is not certain. */
static void team_residual(team_view *v, const float *bias, const float *post_norm, const float *next_norm, matmul_step *next) {
    const size_t e = (size_t)v->g.m->p.n_embd;
    const float eps = v->g.m->p.rms_eps;
    v->g.bias = bias;
    v->g.post_norm = post_norm;
    v->g.next_norm = next_norm;
    memcpy(v->h, v->y, v->g.n * e * sizeof *v->h);
    if (next)
        next->normed = matmul_step_quantises(next);
    for (size_t i = 0; i < v->g.n; i++) {
        float *x = v->x + i * e, *h = v->h + i * e;
        graph_add_row(&v->g, x, h);
        if (next && next->normed)
            matmul_team_norm(&v->g.s->team, next, i, x, v->g.vec->rms_scale(x, e, eps), next_norm, h, v->t);
        else
            v->g.vec->rms_norm(h, x, next_norm, e, eps);
    }
}

static void team_embed(team_view *v) {
    const cmc_model *m = v->g.m;
    const size_t e = (size_t)m->p.n_embd;
    for (size_t i = 0; i < v->g.n; i++) {
        if (i % (size_t)v->nt == (size_t)v->t)
            graph_angles_row(&v->g, i);
        graph_embed_row(&v->g, i, v->x + i * e, v->h + i * e);
    }
}

static void team_take_aside(team_view *v) {
    const size_t e = (size_t)v->g.m->p.n_embd;
    for (size_t i = 0; i < v->g.side_n; i++)
        v->share[i] = graph_side_row(&v->g, v->x + i * e, v->side + i * e);
}

static void team_swap(team_view *v) {
    float *x = v->x;
    v->x = v->side;
    v->side = x;
}

/* Before a layer, or before a block: its rows then take the stream's place. */
static void team_enter(team_view *v, team_place at) {
    const cmc_model *m = v->g.m;
    const size_t e = (size_t)m->p.n_embd;
    const model_extra *extra = v->g.side_n > 0 ? m->layers[at.il].extra : NULL;
    v->g.extra = extra;
    v->g.l = at.block ? &extra->l : &m->layers[at.il];
    v->g.il = at.block ? extra->kv : at.il;
    v->g.n = at.block ? v->g.side_n : v->rows;
    v->g.attn.n_seqs = at.block ? v->g.side_seqs : v->seqs;
    if (extra && extra->stack == at.block)
        team_take_aside(v);
    if (!at.block)
        return;
    team_swap(v);
    for (size_t i = 0; i < v->g.n; i++)
        v->g.vec->rms_norm(v->h + i * e, v->x + i * e, v->g.l->attn_norm, e, m->p.rms_eps);
}

/* After a block. */
static void team_merge(team_view *v) {
    const size_t e = (size_t)v->g.m->p.n_embd;
    team_swap(v);
    for (size_t i = 0; i < v->g.n; i++)
        graph_merge_row(&v->g, i, v->share[i], v->x + i * e, v->side + i * e, v->h + i * e);
}

static void team_run(void *arg, int t, int nt) {
    const graph_job *g = arg;
    const cmc_model *m = g->m;
    float *own = g->s->own + TEAM_OWN * (size_t)t * team_floats(m);
    const size_t layers = (size_t)m->p.n_layer;
    team_layer two[2];
    team_view v = {.g = *g, .t = t, .nt = nt, .rows = g->n, .seqs = g->attn.n_seqs, .y = g->s->h, .now = &two[0], .then = &two[1],
                   .h = own, .x = own + team_floats(m), .side = own + 2 * team_floats(m)};
    const matmul_out head_out = {&m->head, NULL, 0};
    const matmul_step head = {.outs = &head_out, .n_w = 1, .cols = g->n};
    team_embed(&v);
    team_describe(&v, (team_place){0}, v.now);
    for (team_place at = {0}, then; at.il < layers; at = then) {
        then = team_after(&v, at);
        const bool last = then.il == layers;
        team_enter(&v, at);
        if (!last)
            team_describe(&v, then, v.then);
        team_product(&v, &v.now->qkv, &v.now->wo);
        team_attend(&v);
        team_product(&v, &v.now->wo, &v.now->gate_up);
        team_residual(&v, v.g.l->bo, v.g.l->post_attn_norm, v.g.l->ffn_norm, &v.now->gate_up);
        team_product(&v, &v.now->gate_up, &v.now->down);
        team_product(&v, &v.now->down, last ? &head : &v.then->qkv);
        team_residual(&v, NULL, v.g.l->post_ffn_norm, at.il + 1 == layers ? m->out_norm : m->layers[at.il + 1].attn_norm,
                      last || at.block || then.block ? NULL : &v.then->qkv);
        if (at.block)
            team_merge(&v);
        team_layer *done = v.now;
        v.now = v.then;
        v.then = done;
    }
}

const float *graph_team_run(graph_job *g, const graph_seq *seqs, size_t n_seqs) {
    float *rows = g->s->own;   /* the first thread's h */
    cmc_pool_run(g->m->rt->pool, team_run, g);
    graph_wanted_rows(seqs, n_seqs, rows, (size_t)g->m->p.n_embd);
    return rows;
}
