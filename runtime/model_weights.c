/* Binding a model's tensors: which each family has, their shapes, and that none is left over. */
#include "runtime/model_weights.h"

#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/error.h"
#include "base/mem.h"
#include "runtime/quant.h"

typedef struct binder {
    cmc_model *m;
    uint8_t **used;      /* [part][tensor] */
    cmc_error *err;
} binder;

static const gguf_tensor *bind_find(binder *b, const char *name, const char **file) {
    size_t part;
    const gguf_tensor *t = load_find(b->m->parts, b->m->n_parts, name, &part);
    if (t) {
        b->used[part][t - b->m->parts[part]->tensors] = 1;
        *file = b->m->parts[part]->file.path;
    }
    return t;
}

static cmc_status bind_missing(binder *b, const char *name) {
    return cmc_fail(b->err, CMC_E_FORMAT, "%s: tensor %s is missing; a %s model has one", b->m->path, name,
                    load_arch_name(b->m->p.arch));
}

/* A supported type and exactly the shape [n_in, n_out] (n_out 1: one dimension). */
static cmc_status bind_check(binder *b, const gguf_tensor *t, const char *name, const char *file, size_t n_in,
                             size_t n_out) {
    if (!cmc_type_supported(t->type)) {
        const char *type = cmc_type_name(t->type);
        if (type)
            return cmc_fail(b->err, CMC_E_UNSUPPORTED, "%s: tensor %s has type %s, which cmc does not read", file, name,
                            type);
        return cmc_fail(b->err, CMC_E_UNSUPPORTED, "%s: tensor %s has type number %" PRIu32 ", which cmc does not know",
                        file, name, t->type);
    }
    if (t->ne[0] != n_in || t->ne[1] != n_out || t->ne[2] != 1 || t->ne[3] != 1)
        return cmc_fail(b->err, CMC_E_FORMAT,
                        "%s: tensor %s has shape %" PRIu64 " x %" PRIu64 " x %" PRIu64 " x %" PRIu64
                        "; %zu x %zu would be right",
                        file, name, t->ne[0], t->ne[1], t->ne[2], t->ne[3], n_in, n_out);
    return CMC_OK;
}

static cmc_status bind_matrix(binder *b, const char *name, size_t n_in, size_t n_out, weight *out) {
    const char *file;
    const gguf_tensor *t = bind_find(b, name, &file);
    if (!t)
        return bind_missing(b, name);
    CMC_TRY(bind_check(b, t, name, file, n_in, n_out));
    return weight_from_tensor(t, n_in, n_out, file, out, b->err);
}

/* A norm or bias, decoded; where it may be absent *out stays NULL. */
static cmc_status bind_vector(binder *b, const char *name, size_t n, bool must, float **out) {
    const char *file;
    const gguf_tensor *t = bind_find(b, name, &file);
    if (!t)
        return must ? bind_missing(b, name) : CMC_OK;
    CMC_TRY(bind_check(b, t, name, file, n, 1));
    *out = cmc_alloc_aligned(n, sizeof **out);
    if (!*out)
        return cmc_fail_nomem(b->err, "a norm or bias", n * sizeof **out);
    quant_decode_row(t->type, t->data, *out, n);
    return CMC_OK;
}

typedef struct bind_matrix_row {
    const char *name;
    size_t n_in, n_out;
    weight *out;
} bind_matrix_row;

typedef struct bind_vector_row {
    const char *name;
    size_t n;
    bool must, may;
    float **out;
} bind_vector_row;

/* The tensors of one block, whose names begin with `prefix`. */
static cmc_status bind_block(binder *b, const char *prefix, model_layer *l) {
    const model_params *p = &b->m->p;
    const size_t e = (size_t)p->n_embd, ff = (size_t)p->n_ff, hk = (size_t)p->head_k;
    const size_t q = (size_t)p->n_head * hk, k = (size_t)p->n_head_kv * hk;
    const size_t v = (size_t)p->n_head_kv * (size_t)p->head_v, o = (size_t)p->n_head * (size_t)p->head_v;
    const bool gemma = p->arch == ARCH_GEMMA3, qk_norm = gemma || p->arch == ARCH_QWEN3;
    const bool bias = p->arch == ARCH_QWEN2, may_bias = p->arch == ARCH_LLAMA || bias;
    const bind_matrix_row matrices[] = {
        {"attn_q.weight", e, q, &l->wq},      {"attn_k.weight", e, k, &l->wk},    {"attn_v.weight", e, v, &l->wv},
        {"attn_output.weight", o, e, &l->wo}, {"ffn_gate.weight", e, ff, &l->gate}, {"ffn_up.weight", e, ff, &l->up},
        {"ffn_down.weight", ff, e, &l->down},
    };
    const bind_vector_row vectors[] = {
        {"attn_norm.weight", e, true, true, &l->attn_norm},
        {"ffn_norm.weight", e, true, true, &l->ffn_norm},
        {"attn_q.bias", q, bias, may_bias, &l->bq},
        {"attn_k.bias", k, bias, may_bias, &l->bk},
        {"attn_v.bias", v, bias, may_bias, &l->bv},
        {"attn_output.bias", e, false, may_bias, &l->bo},
        {"attn_q_norm.weight", hk, qk_norm, qk_norm, &l->q_norm},
        {"attn_k_norm.weight", hk, qk_norm, qk_norm, &l->k_norm},
        {"post_attention_norm.weight", e, gemma, gemma, &l->post_attn_norm},
        {"post_ffw_norm.weight", e, gemma, gemma, &l->post_ffn_norm},
    };
    char name[64];
    for (size_t i = 0; i < sizeof matrices / sizeof *matrices; i++) {
        (void)snprintf(name, sizeof name, "%s%s", prefix, matrices[i].name);
        CMC_TRY(bind_matrix(b, name, matrices[i].n_in, matrices[i].n_out, matrices[i].out));
    }
    for (size_t i = 0; i < sizeof vectors / sizeof *vectors; i++) {
        if (!vectors[i].may)
            continue;
        (void)snprintf(name, sizeof name, "%s%s", prefix, vectors[i].name);
        CMC_TRY(bind_vector(b, name, vectors[i].n, vectors[i].must, vectors[i].out));
    }
    return CMC_OK;
}

static cmc_status bind_layer(binder *b, int32_t il) {
    const model_params *p = &b->m->p;
    model_layer *l = &b->m->layers[il];
    char prefix[32];
    (void)snprintf(prefix, sizeof prefix, "blk.%d.", il);
    l->swa = p->swa_window > 0 && (p->swa_period == 0 || il % p->swa_period < p->swa_period - 1);
    return bind_block(b, prefix, l);
}

/* How a block's output is merged: f, and w where the merge has one. */
static cmc_status bind_gate(binder *b, int32_t il, expand_gate *g) {
    const size_t width = expand_gate_width(g->merge, (size_t)b->m->p.n_embd);
    char name[64];
    float *f = NULL;
    (void)snprintf(name, sizeof name, "blk.%d.cmc_merge.bias", il);
    CMC_TRY(bind_vector(b, name, 1, true, &f));
    g->f = *f;
    free(f);
    if (!isfinite(g->f))
        return cmc_fail(b->err, CMC_E_FORMAT, "%s: tensor %s holds no finite number", b->m->path, name);
    (void)snprintf(name, sizeof name, "blk.%d.cmc_merge.weight", il);
    return width ? bind_vector(b, name, width, true, &g->w) : CMC_OK;
}

static cmc_status bind_extra(binder *b, size_t k) {
    cmc_model *m = b->m;
    const cmc_expand_point *at = &m->expand.v[k];
    model_extra *x = &m->extra[k];
    char prefix[32];
    (void)snprintf(prefix, sizeof prefix, "blk.%d.cmc_expand.", at->layer);
    x->stack = at->stack;
    x->kv = (size_t)m->p.n_layer + k;
    x->gate.merge = at->stack ? EXPAND_LERP : m->expand.merge;
    x->l.swa = m->layers[at->layer].swa;
    m->layers[at->layer].extra = x;
    CMC_TRY(bind_block(b, prefix, &x->l));
    return x->stack ? CMC_OK : bind_gate(b, at->layer, &x->gate);
}

/* Embeddings (their rows are the vocabulary's size), output matrix and norm, RoPE factors. */
static cmc_status bind_globals(binder *b) {
    cmc_model *m = b->m;
    const size_t e = (size_t)m->p.n_embd;
    const char *file;
    const gguf_tensor *t = bind_find(b, "token_embd.weight", &file);
    if (!t)
        return bind_missing(b, "token_embd.weight");
    if (t->ne[1] < 1 || t->ne[1] > INT32_MAX / 2)
        return cmc_fail(b->err, CMC_E_FORMAT, "%s: tensor token_embd.weight has %" PRIu64 " rows", file, t->ne[1]);
    m->p.n_vocab = (int32_t)t->ne[1];
    const size_t v = (size_t)m->p.n_vocab;
    CMC_TRY(bind_matrix(b, "token_embd.weight", e, v, &m->embd));
    m->head = m->embd;
    if (load_find(m->parts, m->n_parts, "output.weight", NULL))
        CMC_TRY(bind_matrix(b, "output.weight", e, v, &m->head));
    CMC_TRY(bind_vector(b, "output_norm.weight", e, true, &m->out_norm));
    if (m->p.arch == ARCH_LLAMA)
        CMC_TRY(bind_vector(b, "rope_freqs.weight", (size_t)m->p.n_rot / 2, false, &m->rope_factors));
    for (int32_t i = 0; m->rope_factors && i < m->p.n_rot / 2; i++)
        if (!(m->rope_factors[i] > 0.0f && m->rope_factors[i] < 1e30f))
            return cmc_fail(b->err, CMC_E_FORMAT, "%s: rope_freqs.weight holds %g at %d; it should be a finite number "
                            "above 0", m->path, (double)m->rope_factors[i], i);
    return CMC_OK;
}

/* Tensors that carry nothing the forward pass would miss. */
static bool bind_harmless(gguf_str name) {
    static const char *const ends[] = {"rotary_emb.inv_freq", "attn_rot_embd", "attn_rot_embd.weight"};
    for (size_t i = 0; i < sizeof ends / sizeof *ends; i++) {
        const size_t n = strlen(ends[i]);
        if (name.n >= n && memcmp(name.s + name.n - n, ends[i], n) == 0)
            return true;
    }
    return false;
}

static cmc_status bind_leftovers(binder *b) {
    for (size_t i = 0; i < b->m->n_parts; i++) {
        const gguf *g = b->m->parts[i];
        for (size_t k = 0; k < g->n_tensors; k++) {
            const gguf_str name = g->tensors[k].name;
            if (!b->used[i][k] && !bind_harmless(name))
                return cmc_fail(b->err, CMC_E_UNSUPPORTED, "%s: tensor %.*s is not one that cmc knows in a %s model",
                                g->file.path, name.n < 80 ? (int)name.n : 80, name.s, load_arch_name(b->m->p.arch));
        }
    }
    return CMC_OK;
}

static cmc_status bind_all(binder *b) {
    cmc_model *m = b->m;
    CMC_TRY(bind_globals(b));
    for (int32_t i = 0; i < m->p.n_layer; i++)
        CMC_TRY(bind_layer(b, i));
    for (size_t k = 0; k < m->expand.n; k++)
        CMC_TRY(bind_extra(b, k));
    return bind_leftovers(b);
}

cmc_status model_weights_bind(cmc_model *m, cmc_error *err) {
    m->layers = cmc_calloc((size_t)m->p.n_layer, sizeof *m->layers);
    m->extra = cmc_calloc(m->expand.n, sizeof *m->extra);
    binder b = {.m = m, .used = cmc_calloc(m->n_parts, sizeof *b.used), .err = err};
    cmc_status st = m->layers && m->extra && b.used ? CMC_OK : cmc_fail_nomem(err, "the list of layers", sizeof *m->layers);
    for (size_t i = 0; st == CMC_OK && i < m->n_parts; i++) {
        b.used[i] = cmc_calloc(m->parts[i]->n_tensors, 1);
        if (!b.used[i])
            st = cmc_fail_nomem(err, "the list of tensors", m->parts[i]->n_tensors);
    }
    if (st == CMC_OK)
        st = bind_all(&b);
    for (size_t i = 0; b.used && i < m->n_parts; i++)
        free(b.used[i]);
    free(b.used);
    return st;
}

static void layer_free(model_layer *l) {
    float *const all[] = {l->attn_norm, l->ffn_norm, l->post_attn_norm, l->post_ffn_norm, l->q_norm,
                          l->k_norm,    l->bq,       l->bk,             l->bv,            l->bo};
    for (size_t k = 0; k < sizeof all / sizeof *all; k++)
        free(all[k]);
}

void model_weights_free(cmc_model *m) {
    for (int32_t i = 0; m->layers && i < m->p.n_layer; i++)
        layer_free(&m->layers[i]);
    for (size_t k = 0; m->extra && k < m->expand.n; k++) {
        layer_free(&m->extra[k].l);
        free(m->extra[k].gate.w);
    }
    free(m->layers);
    free(m->extra);
    free(m->out_norm);
    free(m->rope_factors);
}
