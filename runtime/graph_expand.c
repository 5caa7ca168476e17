/* The blocks of an expanded model in the forward pass: rows taken aside, sent through a block, merged with what its layer
 * gave. */
#include <string.h>

#include "base/error.h"
#include "runtime/graph_impl.h"

float graph_side_row(const graph_job *g, const float *x, float *side) {
    const model_extra *b = g->extra;
    const size_t e = (size_t)g->m->p.n_embd;
    memcpy(side, x, e * sizeof *side);
    return b->stack ? 1.0f : b->gate.merge == EXPAND_DLERPIN ? expand_share(&b->gate, x, NULL, NULL, e) : 0.0f;
}

void graph_merge_row(const graph_job *g, size_t i, float share, float *x, const float *block, float *h) {
    const model_extra *b = g->extra;
    const size_t e = (size_t)g->m->p.n_embd;
    if (!b->stack && b->gate.merge != EXPAND_DLERPIN)
        share = expand_share(&b->gate, NULL, x, block, e);
    expand_mix(b->gate.merge, share * g->s->row_strength[i], x, block, e);
    g->vec->rms_norm(h, x, g->next_norm, e, g->m->p.rms_eps);
}

static void graph_side(void *arg, int t, int nt) {
    const graph_job *g = arg;
    const size_t e = (size_t)g->m->p.n_embd;
    size_t lo, hi;
    cmc_pool_share(g->side_n, 1, t, nt, &lo, &hi);
    for (size_t i = lo; i < hi; i++)
        g->s->row_share[i] = graph_side_row(g, g->s->x + i * e, g->s->side + i * e);
}

static void graph_norm(void *arg, int t, int nt) {
    const graph_job *g = arg;
    const size_t e = (size_t)g->m->p.n_embd;
    size_t lo, hi;
    cmc_pool_share(g->n, 1, t, nt, &lo, &hi);
    for (size_t i = lo; i < hi; i++)
        g->vec->rms_norm(g->s->h + i * e, g->s->x + i * e, g->next_norm, e, g->m->p.rms_eps);
}

static void graph_merge(void *arg, int t, int nt) {
    const graph_job *g = arg;
    const size_t e = (size_t)g->m->p.n_embd;
    size_t lo, hi;
    cmc_pool_share(g->n, 1, t, nt, &lo, &hi);
    for (size_t i = lo; i < hi; i++)
        graph_merge_row(g, i, g->s->row_share[i], g->s->x + i * e, g->s->side + i * e, g->s->h + i * e);
}

static void graph_swap(struct model_scratch *s) {
    float *x = s->x;
    s->x = s->side;
    s->side = x;
}

/* The block on the rows that were taken aside: they and the stream change places while it is at work. */
static cmc_status graph_block(graph_job *g, const float *next_norm, cmc_error *err) {
    const size_t n = g->n, n_seqs = g->attn.n_seqs;
    g->n = g->side_n;
    g->attn.n_seqs = g->side_seqs;
    g->l = &g->extra->l;
    g->il = g->extra->kv;
    g->next_norm = g->l->attn_norm;
    graph_swap(g->s);
    graph_run(g, graph_norm);
    const cmc_status st = graph_layer(g, NULL, 0, next_norm, err);
    graph_swap(g->s);
    if (st == CMC_OK)
        graph_run(g, graph_merge);
    g->n = n;
    g->attn.n_seqs = n_seqs;
    return st;
}

cmc_status graph_expanded(graph_job *g, const float *next_norm, cmc_error *err) {
    g->extra = g->l->extra;
    if (!g->extra->stack)
        graph_run(g, graph_side);
    CMC_TRY(graph_layer(g, NULL, 0, next_norm, err));
    if (g->extra->stack)
        graph_run(g, graph_side);
    return graph_block(g, next_norm, err);
}
