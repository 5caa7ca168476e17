/* The layout of a model's tensors and of an adapter's, and what they hold at the start. */
#include "tinylm/lm_layout.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/mem.h"
#include "tinylm/select.h"

enum { LM_PER_LAYER = 7 + 4 + 6, LM_MAX_RANK = 4096, LM_FIRST_GATES = 1 /* part: layer 0's attention (select.h) */ };

/* The seven matrices of a layer, in the order of lm_layer_layout. */
static const char *const lm_matrix[SELECT_MATRICES] = {"attn_q",   "attn_k", "attn_v",  "attn_output",
                                                       "ffn_gate", "ffn_up", "ffn_down"};

/* A layout that is being made. */
typedef struct lm_maker {
    lm_layout *l;
    const cmc_model *m;
    selection what;
    uint32_t targets;        /* of an adapter: bit SELECT_... */
    size_t rank;
    const expand_spec *expand;
    const char *prefix;      /* of the names in a layer: "", or that of a block's or a merge's tensors */
    bool learn_share, unfrozen;
    bool held;               /* what is added is not trained, though it is a block's */
    size_t frozen;           /* where the base's frozen floats begin: behind those that are trained */
} lm_maker;

static bool lm_is_trained(const lm_maker *k, const params *p, const char *name) {
    if (p == &k->l->lora)
        return true;
    if (k->expand)
        return (k->prefix[0] != '\0' || k->unfrozen) && !k->held;
    return k->rank == 0 && !k->l->gates && select_has(&k->what, name);
}

/* Appends a tensor of n_out rows of n_in; returns its offset. `layer` < 0: not in a layer. */
static size_t lm_add(const lm_maker *k, params *p, int layer, const char *name, size_t n_out, size_t n_in, bool matrix) {
    params_tensor *t = &p->tensors[p->n_tensors++];
    if (layer < 0)
        snprintf(t->name, sizeof t->name, "%s", name);
    else
        snprintf(t->name, sizeof t->name, "blk.%d.%s%s", layer, k->prefix, name);
    t->trained = lm_is_trained(k, p, t->name);
    t->off = t->trained ? p->n_trained : k->frozen + (p->n - p->n_trained);
    t->n_out = n_out;
    t->n_in = n_in;
    t->matrix = matrix;
    p->n += n_out * n_in;
    p->n_trained += t->trained ? n_out * n_in : 0;
    return t->off;
}

static size_t lm_add_vector(const lm_maker *k, int layer, const char *name, const float *there, size_t n) {
    return there ? lm_add(k, &k->l->base, layer, name, 1, n, false) : LM_NONE;
}

static void lm_add_linear(const lm_maker *k, int layer, size_t i, const weight *w, const float *bias, lm_linear *out) {
    char name[40];
    snprintf(name, sizeof name, "%s.weight", lm_matrix[i]);
    out->n_in = w->n_in;
    out->n_out = w->n_out;
    out->w = lm_add(k, &k->l->base, layer, name, w->n_out, w->n_in, true);
    snprintf(name, sizeof name, "%s.bias", lm_matrix[i]);
    out->bias = lm_add_vector(k, layer, name, bias, w->n_out);
}

static void lm_add_adapter(const lm_maker *k, int layer, size_t i, lm_linear *out) {
    char name[40];
    out->rank = k->rank;
    snprintf(name, sizeof name, "%s.weight.lora_a", lm_matrix[i]);
    out->a = lm_add(k, &k->l->lora, layer, name, k->rank, out->n_in, true);
    snprintf(name, sizeof name, "%s.weight.lora_b", lm_matrix[i]);
    out->b = lm_add(k, &k->l->lora, layer, name, out->n_out, k->rank, true);
}

/* A layer's tensors, or those of a block that is like it. */
static void lm_add_layer(const lm_maker *k, int il, lm_layer_layout *to) {
    const model_layer *from = &k->m->layers[il];
    const struct {
        const weight *w;
        const float *bias;
        lm_linear *to;
    } matrix[SELECT_MATRICES] = {{&from->wq, from->bq, &to->q},      {&from->wk, from->bk, &to->k},
                                 {&from->wv, from->bv, &to->v},      {&from->wo, from->bo, &to->o},
                                 {&from->gate, NULL, &to->gate},     {&from->up, NULL, &to->up},
                                 {&from->down, NULL, &to->down}};
    size_t e = (size_t)k->m->p.n_embd, hk = (size_t)k->m->p.head_k, u = 0;
    to->attn_norm = lm_add_vector(k, il, "attn_norm.weight", from->attn_norm, e);
    to->ffn_norm = lm_add_vector(k, il, "ffn_norm.weight", from->ffn_norm, e);
    to->post_attn_norm = lm_add_vector(k, il, "post_attention_norm.weight", from->post_attn_norm, e);
    to->post_ffn_norm = lm_add_vector(k, il, "post_ffw_norm.weight", from->post_ffn_norm, e);
    to->q_norm = lm_add_vector(k, il, "attn_q_norm.weight", from->q_norm, hk);
    to->k_norm = lm_add_vector(k, il, "attn_k_norm.weight", from->k_norm, hk);
    to->swa = from->swa;
    to->block = LM_NONE;
    for (size_t i = 0; i < SELECT_MATRICES; i++) {
        lm_add_linear(k, il, i, matrix[i].w, matrix[i].bias, matrix[i].to);
        if (!k->rank || !(k->targets >> i & 1) || !k->what.layers[il])
            continue;
        lm_add_adapter(k, il, i, matrix[i].to);
        matrix[i].to->u = u;
        u += k->rank;
    }
    k->l->u_width = u > k->l->u_width ? u : k->l->u_width;
}

static void lm_add_block(lm_maker *k, size_t i) {
    lm_layout *l = k->l;
    const cmc_expand_point *at = &k->expand->v[i];
    size_t width = expand_gate_width(k->expand->merge, (size_t)k->m->p.n_embd);
    l->blocks[i] = (lm_block){(size_t)at->layer, at->stack, LM_NONE, LM_NONE};
    l->layers[at->layer].block = i;
    l->n_merges += !at->stack;
    k->prefix = "cmc_expand.";
    lm_add_layer(k, at->layer, &l->layers[(size_t)k->m->p.n_layer + i]);
    k->prefix = "cmc_merge.";
    if (!at->stack && width)
        l->blocks[i].w = lm_add(k, &l->base, at->layer, "weight", 1, width, false);
    k->held = !k->learn_share;
    if (!at->stack)
        l->blocks[i].f = lm_add(k, &l->base, at->layer, "bias", 1, 1, false);
    k->held = false;
    k->prefix = "";
}

static void lm_add_all(lm_maker *k) {
    lm_layout *l = k->l;
    size_t e = (size_t)k->m->p.n_embd, v = (size_t)k->m->p.n_vocab;
    l->base.n = l->base.n_trained = l->base.n_tensors = 0;
    l->lora.n = l->lora.n_trained = l->lora.n_tensors = 0;
    l->n_merges = 0;
    l->embd = lm_add(k, &l->base, -1, "token_embd.weight", v, e, true);
    l->head = l->embd;
    if (k->m->head.data != k->m->embd.data)
        l->head = lm_add(k, &l->base, -1, "output.weight", v, e, true);
    l->out_norm = lm_add(k, &l->base, -1, "output_norm.weight", 1, e, false);
    for (int32_t i = 0; i < k->m->p.n_layer; i++)
        lm_add_layer(k, i, &l->layers[i]);
    for (size_t i = 0; i < l->n_blocks; i++)
        lm_add_block(k, i);
}

static cmc_status lm_make(lm_maker *k, cmc_error *err) {
    lm_layout *l = k->l;
    const cmc_model *m = k->m;
    l->n_blocks = k->expand ? k->expand->n : 0;
    l->merge = k->expand ? k->expand->merge : EXPAND_LERP;
    size_t layers = (size_t)m->p.n_layer + l->n_blocks, tensors = layers * LM_PER_LAYER + 2 * l->n_blocks + 3;
    l->p = m->p;
    l->rope_inv = m->rope_inv;
    l->rope_inv_local = m->rope_inv_local;
    l->layers = cmc_calloc(layers, sizeof *l->layers);
    l->blocks = cmc_calloc(l->n_blocks, sizeof *l->blocks);
    l->base.tensors = cmc_calloc(tensors, sizeof *l->base.tensors);
    l->lora.tensors = cmc_calloc(layers * 2 * SELECT_MATRICES, sizeof *l->lora.tensors);
    if (!l->layers || !l->blocks || !l->base.tensors || !l->lora.tensors)
        return cmc_fail_nomem(err, "a model's layout", tensors * sizeof *l->base.tensors);
    lm_add_all(k); /* counts what is trained */
    k->frozen = l->base.n_trained;
    lm_add_all(k); /* and lays the rest behind it */
    l->base.lowest = l->gates ? LM_FIRST_GATES : select_lowest(&l->base, m->p.n_layer);
    l->lora.lowest = select_lowest(&l->lora, m->p.n_layer);
    return CMC_OK;
}

cmc_status lm_layout_init(const cmc_model *m, const lm_trainable *what, lm_layout *out, cmc_error *err) {
    lm_maker k = {.l = out, .m = m, .rank = (size_t)what->rank, .targets = (1u << SELECT_MATRICES) - 1, .expand = what->expand,
                  .prefix = "", .learn_share = what->learn_share, .unfrozen = what->unfrozen};
    memset(out, 0, sizeof *out);
    if (m->expand.n)
        return cmc_fail(err, CMC_E_UNSUPPORTED, "%s: an expanded model, which cannot be trained further; cmc merge --fold makes an "
                        "ordinary one of it", m->path);
    if (what->expand && (what->rank || what->layers || what->modules))
        return cmc_fail(err, CMC_E_ARG, "an expanded model's blocks are trained, and nothing else: no adapter, layers or modules");
    if (what->rank < 0 || what->rank > LM_MAX_RANK)
        return cmc_fail(err, CMC_E_ARG, "a rank of %d; it must be from 1 to %d", what->rank, LM_MAX_RANK);
    if (k.rank && !(fabs(what->alpha) > 0.0 && fabs(what->alpha) <= 1e6))
        return cmc_fail(err, CMC_E_ARG, "an adapter's alpha of %g; it must be a number other than 0", what->alpha);
    if (k.rank && what->modules)
        return cmc_fail(err, CMC_E_ARG, "modules are chosen where the model itself is trained; an adapter has targets");
    if (k.rank && what->targets)
        CMC_TRY(select_names(what->targets, SELECT_MATRICES, "matrix that an adapter can be for", &k.targets, err));
    CMC_TRY(select_parse(what->layers, what->modules, m->p.n_layer, m->head.data == m->embd.data, &k.what, err));
    out->gates = what->gates;
    out->scale = k.rank ? (float)(what->alpha / (double)k.rank) : 0.0f;
    cmc_status st = lm_make(&k, err);
    select_free(&k.what);
    if (st != CMC_OK)
        lm_layout_free(out);
    return st;
}

void lm_layout_free(lm_layout *l) {
    params_free(&l->base);
    params_free(&l->lora);
    free(l->layers);
    free(l->blocks);
    memset(l, 0, sizeof *l);
}

const params_tensor *lm_find(const params *p, const char *name, size_t n) {
    for (size_t i = 0; i < p->n_tensors; i++)
        if (strlen(p->tensors[i].name) == n && memcmp(p->tensors[i].name, name, n) == 0)
            return &p->tensors[i];
    return NULL;
}

/* ---------------------------------------------------------------------------------------------- weights */

typedef struct lm_load_job {
    const lm_layout *l;
    const cmc_model *m;
    float *w;
} lm_load_job;

static void lm_load_matrix(const weight *m, float *w, int t, int nt) {
    size_t lo, hi;
    cmc_pool_share(m->n_out, 16, t, nt, &lo, &hi);
    for (size_t r = lo; r < hi; r++)
        weight_row(m, r, w + r * m->n_in);
}

static void lm_load_vector(const float *from, size_t n, float *w, size_t off) {
    if (from)
        memcpy(w + off, from, n * sizeof *from);
}

static void lm_load_vectors(const lm_load_job *j, size_t il) {
    const model_layer *from = &j->m->layers[il];
    const lm_layer_layout *o = &j->l->layers[il];
    size_t e = (size_t)j->l->p.n_embd, hk = (size_t)j->l->p.head_k;
    lm_load_vector(from->attn_norm, e, j->w, o->attn_norm);
    lm_load_vector(from->ffn_norm, e, j->w, o->ffn_norm);
    lm_load_vector(from->post_attn_norm, e, j->w, o->post_attn_norm);
    lm_load_vector(from->post_ffn_norm, e, j->w, o->post_ffn_norm);
    lm_load_vector(from->q_norm, hk, j->w, o->q_norm);
    lm_load_vector(from->k_norm, hk, j->w, o->k_norm);
    lm_load_vector(from->bq, o->q.n_out, j->w, o->q.bias);
    lm_load_vector(from->bk, o->k.n_out, j->w, o->k.bias);
    lm_load_vector(from->bv, o->v.n_out, j->w, o->v.bias);
    lm_load_vector(from->bo, o->o.n_out, j->w, o->o.bias);
}

static void lm_load_worker(void *arg, int t, int nt) {
    const lm_load_job *j = arg;
    const lm_layout *l = j->l;
    lm_load_matrix(&j->m->embd, j->w + l->embd, t, nt);
    if (l->head != l->embd)
        lm_load_matrix(&j->m->head, j->w + l->head, t, nt);
    if (t == 0)
        lm_load_vector(j->m->out_norm, (size_t)l->p.n_embd, j->w, l->out_norm);
    for (size_t i = 0; i < (size_t)l->p.n_layer; i++) {
        const model_layer *from = &j->m->layers[i];
        const lm_layer_layout *o = &l->layers[i];
        lm_load_matrix(&from->wq, j->w + o->q.w, t, nt);
        lm_load_matrix(&from->wk, j->w + o->k.w, t, nt);
        lm_load_matrix(&from->wv, j->w + o->v.w, t, nt);
        lm_load_matrix(&from->wo, j->w + o->o.w, t, nt);
        lm_load_matrix(&from->gate, j->w + o->gate.w, t, nt);
        lm_load_matrix(&from->up, j->w + o->up.w, t, nt);
        lm_load_matrix(&from->down, j->w + o->down.w, t, nt);
        if (t == 0)
            lm_load_vectors(j, i);
    }
}

void lm_load(const lm_layout *l, const cmc_model *m, float *w) {
    lm_load_job j = {l, m, w};
    cmc_pool_run(m->rt->pool, lm_load_worker, &j);
}

void lm_lora_start(const lm_layout *l, uint64_t seed, float *w) {
    uint64_t rng = seed ^ 0x636D632D6C6F7261u; /* a stream of its own beside the shuffling */
    for (size_t i = 0; i < l->lora.n_tensors; i++) {
        const params_tensor *t = &l->lora.tensors[i];
        size_t n = t->n_out * t->n_in, len = strlen(t->name);
        bool is_b = t->name[len - 1] == 'b';
        double sd = is_b ? 0.0 : 1.0 / sqrt((double)t->n_in);
        for (size_t j = 0; j < n; j += 2) {
            double z[2] = {0.0, 0.0};
            if (!is_b)
                params_normal2(&rng, z);
            w[t->off + j] = (float)(sd * z[0]);
            if (j + 1 < n)
                w[t->off + j + 1] = (float)(sd * z[1]);
        }
    }
}
