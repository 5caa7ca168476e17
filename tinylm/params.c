/* The delta's parameters: names and offsets in one flat array, and their random start. */
#include "tinylm/params.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/mem.h"

uint64_t params_random(uint64_t *state) {
    uint64_t z = (*state += 0x9E3779B97F4A7C15u);
    z = (z ^ (z >> 30)) * 0xBF58476D1CE4E5B9u;
    z = (z ^ (z >> 27)) * 0x94D049BB133111EBu;
    return z ^ (z >> 31);
}

static cmc_status params_check(const params_shape *s, cmc_error *err) {
    if (s->n_vocab < 2 || s->n_embd < 1 || s->n_layer < 1 || s->n_head < 1 || s->n_head_kv < 1 || s->n_ff < 1)
        return cmc_fail(err, CMC_E_ARG, "the delta's shape needs a vocabulary of at least 2 and sizes of at least 1");
    if (s->n_embd > 65536 || s->n_layer > 1024 || s->n_head > 4096 || s->n_ff > 1048576 || s->n_vocab > 16777216)
        return cmc_fail(err, CMC_E_ARG,
                        "the delta's shape is beyond anything trainable here (embd %d, layers %d, ff %d)", s->n_embd,
                        s->n_layer, s->n_ff);
    if (s->n_head % s->n_head_kv != 0)
        return cmc_fail(err, CMC_E_ARG, "%d heads do not share %d key-value heads evenly", s->n_head, s->n_head_kv);
    if (s->n_embd % s->n_head != 0 || s->head_dim != s->n_embd / s->n_head || s->head_dim % 2 != 0)
        return cmc_fail(err, CMC_E_ARG, "an embedding of %d does not divide into %d heads of an even width", s->n_embd,
                        s->n_head);
    return CMC_OK;
}

/* Appends a tensor of n_out rows of n_in; returns its offset. `layer` < 0: not in a layer. */
static size_t params_add(params *p, int layer, const char *name, size_t n_out, size_t n_in) {
    params_tensor *t = &p->tensors[p->n_tensors++];
    if (layer < 0)
        snprintf(t->name, sizeof t->name, "%s.weight", name);
    else
        snprintf(t->name, sizeof t->name, "blk.%d.%s.weight", layer, name);
    t->off = p->n;
    t->n_out = n_out;
    t->n_in = n_in;
    t->matrix = n_out > 1;
    t->trained = true;
    p->n += n_out * n_in;
    p->n_trained = p->n;
    return t->off;
}

cmc_status params_init(params *p, const params_shape *s, cmc_error *err) {
    memset(p, 0, sizeof *p);
    CMC_TRY(params_check(s, err));
    p->s = *s;
    size_t layers = (size_t)s->n_layer;
    p->layers = cmc_calloc(layers, sizeof *p->layers);
    p->tensors = cmc_calloc(layers * PARAMS_PER_LAYER + 2, sizeof *p->tensors);
    if (!p->layers || !p->tensors) {
        params_free(p);
        return cmc_fail_nomem(err, "the delta's layout", layers * sizeof *p->layers);
    }
    size_t e = (size_t)s->n_embd, f = (size_t)s->n_ff, hd = (size_t)s->head_dim;
    size_t q = (size_t)s->n_head * hd, kv = (size_t)s->n_head_kv * hd;
    p->embd = params_add(p, -1, "token_embd", (size_t)s->n_vocab, e);
    for (int i = 0; i < s->n_layer; i++) {
        params_layer *l = &p->layers[i];
        l->attn_norm = params_add(p, i, "attn_norm", 1, e);
        l->wq = params_add(p, i, "attn_q", q, e);
        l->wk = params_add(p, i, "attn_k", kv, e);
        l->wv = params_add(p, i, "attn_v", kv, e);
        l->wo = params_add(p, i, "attn_output", e, q);
        l->ffn_norm = params_add(p, i, "ffn_norm", 1, e);
        l->gate = params_add(p, i, "ffn_gate", f, e);
        l->up = params_add(p, i, "ffn_up", f, e);
        l->down = params_add(p, i, "ffn_down", e, f);
    }
    p->out_norm = params_add(p, -1, "output_norm", 1, e);
    return CMC_OK;
}

void params_free(params *p) {
    free(p->layers);
    free(p->tensors);
    memset(p, 0, sizeof *p);
}

/* Box-Muller. */
void params_normal2(uint64_t *rng, double out[2]) {
    double u = ((double)(params_random(rng) >> 11) + 1.0) * 0x1p-53; /* (0, 1] */
    double v = (double)(params_random(rng) >> 11) * 0x1p-53;
    double r = sqrt(-2.0 * log(u));
    out[0] = r * cos(6.283185307179586 * v);
    out[1] = r * sin(6.283185307179586 * v);
}

static bool params_is_residual(const char *name) {
    return strstr(name, "attn_output") != NULL || strstr(name, "ffn_down") != NULL;
}

void params_randomise(const params *p, uint64_t seed, float *w) {
    uint64_t rng = seed ^ 0x636D632D64656C74u; /* a stream of its own beside the shuffling */
    for (size_t i = 0; i < p->n_tensors; i++) {
        const params_tensor *t = &p->tensors[i];
        size_t n = t->n_out * t->n_in;
        float *x = w + t->off;
        if (!t->matrix) {
            for (size_t j = 0; j < n; j++)
                x[j] = 1.0f;
            continue;
        }
        double sd = params_is_residual(t->name) ? 0.02 / sqrt(2.0 * p->s.n_layer) : 0.02;
        for (size_t j = 0; j < n; j += 2) {
            double z[2];
            params_normal2(&rng, z);
            x[j] = (float)(sd * z[0]);
            if (j + 1 < n)
                x[j + 1] = (float)(sd * z[1]);
        }
    }
}
