/* The layout of a model's tensors and of an adapter's, and what they hold at the start. */
#include "tinylm/lm_layout.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/mem.h"

enum { LM_PER_LAYER = 7 + 4 + 6, LM_MATRICES = 7, LM_MAX_RANK = 4096 };

/* The seven matrices of a layer, in the order of lm_layer_layout. */
static const struct {
    const char *target, *name;
} lm_matrix[LM_MATRICES] = {{"q", "attn_q"},      {"k", "attn_k"},    {"v", "attn_v"},      {"o", "attn_output"},
                            {"gate", "ffn_gate"}, {"up", "ffn_up"}, {"down", "ffn_down"}};

/* ---------------------------------------------------------------------------------------------- targets */

static cmc_status lm_targets(const char *list, bool on[LM_MATRICES], cmc_error *err) {
    for (size_t i = 0; i < LM_MATRICES; i++)
        on[i] = list == NULL;
    while (list && *list) {
        size_t n = strcspn(list, ","), i = 0;
        while (i < LM_MATRICES && (strlen(lm_matrix[i].target) != n || memcmp(lm_matrix[i].target, list, n) != 0))
            i++;
        if (i == LM_MATRICES)
            return cmc_fail(err, CMC_E_ARG, "\"%.*s\" is no matrix that an adapter can be for: q, k, v, o, gate, "
                            "up, down",
                            (int)(n > 60 ? 60 : n), list);
        on[i] = true;
        list += n;
        list += *list == ',';
    }
    for (size_t i = 0; i < LM_MATRICES; i++)
        if (on[i])
            return CMC_OK;
    return cmc_fail(err, CMC_E_ARG, "an adapter needs a matrix that it is for: q, k, v, o, gate, up, down");
}

/* ---------------------------------------------------------------------------------------------- layout */

/* Appends a tensor of n_out rows of n_in; returns its offset. `layer` < 0: not in a layer. */
static size_t lm_add(params *p, int layer, const char *name, size_t n_out, size_t n_in, bool matrix) {
    params_tensor *t = &p->tensors[p->n_tensors++];
    if (layer < 0)
        snprintf(t->name, sizeof t->name, "%s", name);
    else
        snprintf(t->name, sizeof t->name, "blk.%d.%s", layer, name);
    t->off = p->n;
    t->n_out = n_out;
    t->n_in = n_in;
    t->matrix = matrix;
    p->n += n_out * n_in;
    return t->off;
}

static size_t lm_add_vector(params *p, int layer, const char *name, const float *there, size_t n) {
    return there ? lm_add(p, layer, name, 1, n, false) : LM_NONE;
}

static void lm_add_linear(lm_layout *l, int layer, size_t i, const weight *w, const float *bias, lm_linear *out) {
    char name[40];
    snprintf(name, sizeof name, "%s.weight", lm_matrix[i].name);
    out->n_in = w->n_in;
    out->n_out = w->n_out;
    out->w = lm_add(&l->base, layer, name, w->n_out, w->n_in, true);
    snprintf(name, sizeof name, "%s.bias", lm_matrix[i].name);
    out->bias = lm_add_vector(&l->base, layer, name, bias, w->n_out);
}

static void lm_add_adapter(lm_layout *l, int layer, size_t i, size_t rank, lm_linear *out) {
    char name[40];
    out->rank = rank;
    snprintf(name, sizeof name, "%s.weight.lora_a", lm_matrix[i].name);
    out->a = lm_add(&l->lora, layer, name, rank, out->n_in, true);
    snprintf(name, sizeof name, "%s.weight.lora_b", lm_matrix[i].name);
    out->b = lm_add(&l->lora, layer, name, out->n_out, rank, true);
}

static void lm_add_layer(lm_layout *l, const cmc_model *m, int il, const bool on[LM_MATRICES], size_t rank) {
    const model_layer *from = &m->layers[il];
    lm_layer_layout *to = &l->layers[il];
    const struct {
        const weight *w;
        const float *bias;
        lm_linear *to;
    } matrix[LM_MATRICES] = {{&from->wq, from->bq, &to->q},      {&from->wk, from->bk, &to->k},
                             {&from->wv, from->bv, &to->v},      {&from->wo, from->bo, &to->o},
                             {&from->gate, NULL, &to->gate},     {&from->up, NULL, &to->up},
                             {&from->down, NULL, &to->down}};
    size_t e = (size_t)m->p.n_embd, hk = (size_t)m->p.head_k, u = 0;
    to->attn_norm = lm_add_vector(&l->base, il, "attn_norm.weight", from->attn_norm, e);
    to->ffn_norm = lm_add_vector(&l->base, il, "ffn_norm.weight", from->ffn_norm, e);
    to->post_attn_norm = lm_add_vector(&l->base, il, "post_attention_norm.weight", from->post_attn_norm, e);
    to->post_ffn_norm = lm_add_vector(&l->base, il, "post_ffw_norm.weight", from->post_ffn_norm, e);
    to->q_norm = lm_add_vector(&l->base, il, "attn_q_norm.weight", from->q_norm, hk);
    to->k_norm = lm_add_vector(&l->base, il, "attn_k_norm.weight", from->k_norm, hk);
    to->swa = from->swa;
    for (size_t i = 0; i < LM_MATRICES; i++) {
        lm_add_linear(l, il, i, matrix[i].w, matrix[i].bias, matrix[i].to);
        if (!rank || !on[i])
            continue;
        lm_add_adapter(l, il, i, rank, matrix[i].to);
        matrix[i].to->u = u;
        u += rank;
    }
    l->u_width = u;
}

cmc_status lm_layout_init(const cmc_model *m, const lm_lora *lora, lm_layout *out, cmc_error *err) {
    bool on[LM_MATRICES] = {false};
    size_t layers = (size_t)m->p.n_layer, rank = (size_t)lora->rank, e = (size_t)m->p.n_embd;
    memset(out, 0, sizeof *out);
    if (lora->rank < 0 || lora->rank > LM_MAX_RANK)
        return cmc_fail(err, CMC_E_ARG, "a rank of %d; it must be from 1 to %d", lora->rank, LM_MAX_RANK);
    if (rank && !(fabs(lora->alpha) > 0.0 && fabs(lora->alpha) <= 1e6))
        return cmc_fail(err, CMC_E_ARG, "an adapter's alpha of %g; it must be a number other than 0", lora->alpha);
    if (rank)
        CMC_TRY(lm_targets(lora->targets, on, err));
    out->p = m->p;
    out->rope_inv = m->rope_inv;
    out->rope_inv_local = m->rope_inv_local;
    out->scale = rank ? (float)(lora->alpha / (double)rank) : 0.0f;
    out->layers = cmc_calloc(layers, sizeof *out->layers);
    out->base.tensors = cmc_calloc(layers * LM_PER_LAYER + 3, sizeof *out->base.tensors);
    out->lora.tensors = cmc_calloc(layers * 2 * LM_MATRICES, sizeof *out->lora.tensors);
    if (!out->layers || !out->base.tensors || !out->lora.tensors) {
        lm_layout_free(out);
        return cmc_fail_nomem(err, "a model's layout", layers * LM_PER_LAYER * sizeof *out->base.tensors);
    }
    out->embd = lm_add(&out->base, -1, "token_embd.weight", (size_t)m->p.n_vocab, e, true);
    out->head = out->embd;
    if (m->head.data != m->embd.data)
        out->head = lm_add(&out->base, -1, "output.weight", (size_t)m->p.n_vocab, e, true);
    out->out_norm = lm_add(&out->base, -1, "output_norm.weight", 1, e, false);
    for (int32_t i = 0; i < m->p.n_layer; i++)
        lm_add_layer(out, m, i, on, rank);
    return CMC_OK;
}

void lm_layout_free(lm_layout *l) {
    params_free(&l->base);
    params_free(&l->lora);
    free(l->layers);
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
