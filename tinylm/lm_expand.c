/* Expanded blocks in a trainable model: how they start, and their merges, forward and backward. */
#include <math.h>
#include <stdio.h>
#include <string.h>

#include "tinylm/lm_net.h"

/* ------------------------------------------------------------------------------------------------------ the start */

/* The tensor of the layer that a block's is a copy of; NULL for any other. */
static const params_tensor *expand_origin(const params *p, const params_tensor *t) {
    char name[sizeof t->name];
    gguf_str rest;
    int32_t layer = expand_layer_of((gguf_str){t->name, strlen(t->name)}, &rest);
    if (layer < 0 || !expand_is_block(&rest))
        return NULL;
    int n = snprintf(name, sizeof name, "blk.%d.%.*s", layer, (int)rest.n, rest.s);
    return lm_find(p, name, (size_t)n);
}

static void expand_zero(float *w, size_t off, size_t n) {
    if (off != LM_NONE)
        memset(w + off, 0, n * sizeof *w);
}

/* What leads from a block back to the stream: the gains of its outputs' norms where it has such, for a norm of zeros would
 * have a slope of 1 / sqrt(eps); else the matrices. */
static void expand_silence(const lm_layout *l, const lm_layer_layout *o, float *w) {
    size_t e = (size_t)l->p.n_embd;
    if (o->post_attn_norm != LM_NONE) {
        expand_zero(w, o->post_attn_norm, e);
        expand_zero(w, o->post_ffn_norm, e);
        return;
    }
    expand_zero(w, o->o.w, o->o.n_out * o->o.n_in);
    expand_zero(w, o->o.bias, o->o.n_out);
    expand_zero(w, o->down.w, o->down.n_out * o->down.n_in);
}

void lm_expand_copy(const lm_layout *l, float *w) {
    for (size_t i = 0; l->n_blocks && i < l->base.n_tensors; i++) {
        const params_tensor *t = &l->base.tensors[i], *from = expand_origin(&l->base, t);
        if (from)
            memcpy(w + t->off, w + from->off, t->n_out * t->n_in * sizeof *w);
    }
    for (size_t i = 0; i < l->n_blocks; i++)
        if (l->blocks[i].stack)
            expand_silence(l, &l->layers[(size_t)l->p.n_layer + i], w);
}

void lm_expand_gates(const lm_layout *l, double f, uint64_t seed, float *w) {
    uint64_t rng = seed ^ 0x636D632D67617465u; /* a stream of its own beside the shuffling */
    size_t width = expand_gate_width(l->merge, (size_t)l->p.n_embd);
    for (size_t i = 0; i < l->n_blocks; i++) {
        const lm_block *b = &l->blocks[i];
        if (b->f != LM_NONE)
            w[b->f] = (float)f;
        for (size_t k = 0; b->w != LM_NONE && k < width; k++)
            w[b->w + k] = (float)((2.0 * (double)(params_random(&rng) >> 11) * 0x1p-53 - 1.0) / sqrt((double)width));
    }
}

/* ------------------------------------------------------------------------------------------------------- forward */

static expand_gate merge_gate(const lm_net *n, const lm_block *b) {
    return (expand_gate){n->l->merge, n->w[b->f], b->w == LM_NONE ? NULL : n->w + b->w};
}

/* The stream behind a layer, blocks included. */
static float *merge_behind(const lm_net *n, size_t layer) {
    return layer + 1 < (size_t)n->l->p.n_layer ? n->acts[layer + 1].x0 : n->x;
}

float *lm_output(const lm_net *n, size_t il) {
    size_t layers = (size_t)n->l->p.n_layer, block = il < layers ? n->l->layers[il].block : il - layers;
    if (block == LM_NONE)
        return merge_behind(n, il);
    const lm_block *b = &n->l->blocks[block];
    if (!b->stack)
        return il < layers ? n->merges[block].p : n->merges[block].e;
    return il < layers ? n->acts[layers + block].x0 : merge_behind(n, b->layer);
}

void lm_merge_rows(lm_net *n, size_t block, int t, size_t lo, size_t hi) {
    const lm_block *b = &n->l->blocks[block];
    const lm_merge *m = &n->merges[block];
    const expand_gate g = merge_gate(n, b);
    const float *x = n->acts[b->layer].x0;
    float *out = merge_behind(n, b->layer);
    size_t e = (size_t)n->l->p.n_embd;
    double sum = 0.0;
    for (size_t r = lo * e, i = lo; i < hi; r += e, i++) {
        m->share[i] = expand_share(&g, x + r, m->p + r, m->e + r, e);
        memcpy(out + r, m->p + r, e * sizeof *out);
        expand_mix(g.merge, m->share[i], out + r, m->e + r, e);
        if (n->align.kind != ALIGN_NONE && n->align_weight != 0.0)
            sum += (n->align.by_share ? (double)m->share[i] : 1.0) * align_distance(n->align.kind, m->p + r, m->e + r, e);
    }
    n->align_part[t] += n->align_weight * sum;
}

double lm_align_loss(const lm_net *n) {
    double sum = 0.0;
    for (int t = 0; t < n->nt; t++)
        sum += n->align_part[t];
    return sum;
}

/* ------------------------------------------------------------------------------------------------------ backward */

/* w of dlerp += dz [p, e], of dlerpin dz x, over all rows: thread t's share of the columns. Thread 0 has f. */
static void merge_back_gate(const lm_net *n, const lm_block *b, const lm_merge *m, int t) {
    const float *x[2] = {n->l->merge == EXPAND_DLERP ? m->p : n->acts[b->layer].x0, m->e};
    size_t e = (size_t)n->l->p.n_embd, width = expand_gate_width(n->l->merge, e), rows = n->batch->n_tokens, lo, hi;
    cmc_pool_share(width, 16, t, n->nt, &lo, &hi);
    for (size_t r = 0; b->w != LM_NONE && r < rows; r++)
        for (size_t c = lo; c < hi; c++)
            n->grad[b->w + c] += m->dz[r] * x[c / e][r * e + c % e];
    double sum = 0.0;
    for (size_t r = 0; t == 0 && lm_learns(n, b->f) && r < rows; r++)
        sum += (double)m->dz[r];
    if (t == 0 && lm_learns(n, b->f))
        n->grad[b->f] += (float)sum;
}

void lm_merge_back(lm_net *n, size_t block, int t, size_t lo, size_t hi) {
    const lm_block *b = &n->l->blocks[block];
    const lm_merge *m = &n->merges[block];
    const expand_gate g = merge_gate(n, b);
    size_t e = (size_t)n->l->p.n_embd;
    for (size_t r = lo * e, i = lo; i < hi; r += e, i++) {
        float *dp = n->side + r, *de = n->y + r;
        m->dz[i] = merge_back(&g, m->share[i], m->p + r, m->e + r, n->dx + r, &n->align, n->align_weight, dp, de, e);
        memcpy(n->dx + r, de, e * sizeof *de);
    }
    cmc_pool_barrier(n->pool, t);
    merge_back_gate(n, b, m, t);
}

void lm_merge_swap(const lm_net *n, size_t lo, size_t hi) {
    size_t e = (size_t)n->l->p.n_embd;
    for (size_t i = lo * e; i < hi * e; i++) {
        float dx = n->dx[i];
        n->dx[i] = n->side[i];
        n->side[i] = dx;
    }
}

void lm_merge_join(const lm_net *n, size_t block, size_t lo, size_t hi) {
    const lm_block *b = &n->l->blocks[block];
    const float *w = n->l->merge == EXPAND_DLERPIN ? n->w + b->w : NULL;
    size_t e = (size_t)n->l->p.n_embd;
    for (size_t r = lo; r < hi; r++)
        for (size_t c = 0; c < e; c++)
            n->dx[r * e + c] += n->side[r * e + c] + (w ? n->merges[block].dz[r] * w[c] : 0.0f);
}
