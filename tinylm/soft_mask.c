/* From importance to a factor for every row of the matrices it speaks of. */
#include "tinylm/soft_mask.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/mem.h"

void soft_mask_normalise(float *v, size_t n) {
    double mean = 0.0, sum = 0.0;
    for (size_t i = 0; i < n; i++)
        mean += (double)v[i] / (double)n;
    for (size_t i = 0; i < n; i++)
        sum += ((double)v[i] - mean) * ((double)v[i] - mean);
    double sd = n > 1 ? sqrt(sum / (double)(n - 1)) : 0.0;
    for (size_t i = 0; i < n; i++)
        v[i] = sd > 0.0 ? (float)fabs(tanh(((double)v[i] - mean) / sd)) : 0.0f;
}

static void mask_stand_in(float *v, size_t n, soft_mask_control control, uint64_t *rng) {
    double mean = 0.0;
    for (size_t i = 0; i < n; i++)
        mean += (double)v[i] / (double)n;
    for (size_t i = 0; i < n && control == SOFT_MASK_CONSTANT; i++)
        v[i] = (float)mean;
    for (size_t i = n; i > 1 && control == SOFT_MASK_PERMUTED; i--) {
        size_t k = (size_t)(params_random(rng) % i);
        float keep = v[i - 1];
        v[i - 1] = v[k];
        v[k] = keep;
    }
}

/* What a mask that is being made looks at. */
typedef struct mask_maker {
    const params *tensors;
    const model_params *of;
    importance_shape shape;
    float *v;                /* importance, normalised */
    soft_mask *m;
    float *next;             /* of the arena */
} mask_maker;

/* Rows of blk.LAYER.NAME.weight: each of n values for `repeat` rows; of `group` neighbours the largest. */
static void mask_rows(mask_maker *k, size_t layer, const char *name, const float *v, size_t n, size_t repeat, size_t group) {
    char full[48];
    int len = snprintf(full, sizeof full, "blk.%zu.%s.weight", layer, name);
    const params_tensor *t = lm_find(k->tensors, full, (size_t)len);
    k->m->rows[t - k->tensors->tensors] = k->next;
    for (size_t i = 0; i < n; i += group) {
        float most = 0.0f;
        for (size_t g = 0; g < group; g++)
            most = v[i + g] > most ? v[i + g] : most;
        for (size_t r = 0; r < repeat; r++)
            *k->next++ = 1.0f - most;
    }
}

static size_t mask_rows_per_layer(const model_params *p) {
    size_t heads = (size_t)p->n_head, kv = (size_t)p->n_head_kv;
    return heads * (size_t)p->head_k + kv * (size_t)(p->head_k + p->head_v) + (size_t)p->n_ff + (size_t)p->n_embd;
}

static void mask_layer(mask_maker *k, size_t layer) {
    const model_params *p = k->of;
    const float *heads = k->v + importance_at(&k->shape, layer, IMPORTANCE_HEADS);
    size_t n_head = (size_t)p->n_head, group = n_head / (size_t)p->n_head_kv;
    mask_rows(k, layer, "attn_q", heads, n_head, (size_t)p->head_k, 1);
    mask_rows(k, layer, "attn_k", heads, n_head, (size_t)p->head_k, group);
    mask_rows(k, layer, "attn_v", heads, n_head, (size_t)p->head_v, group);
    mask_rows(k, layer, "ffn_up", k->v + importance_at(&k->shape, layer, IMPORTANCE_UP), (size_t)p->n_ff, 1, 1);
    mask_rows(k, layer, "ffn_down", k->v + importance_at(&k->shape, layer, IMPORTANCE_DOWN), (size_t)p->n_embd, 1, 1);
}

static void mask_make(mask_maker *k, soft_mask_control control, uint64_t seed) {
    uint64_t rng = seed ^ 0x636D632D6D61736Bu; /* a stream of its own */
    for (size_t i = 0; i < k->shape.n_layer; i++) {
        for (size_t kind = 0; kind < IMPORTANCE_KINDS; kind++) {
            float *v = k->v + importance_at(&k->shape, i, kind);
            soft_mask_normalise(v, k->shape.width[kind]);
            mask_stand_in(v, k->shape.width[kind], control, &rng);
        }
        mask_layer(k, i);
    }
}

cmc_status soft_mask_open(const char *path, const params *tensors, const model_params *shape, soft_mask_control control,
                          uint64_t seed, soft_mask *out, cmc_error *err) {
    mask_maker k = {.tensors = tensors, .of = shape, .shape = importance_shape_of(shape), .m = out};
    size_t n = k.shape.n_layer * k.shape.per_layer, rows = k.shape.n_layer * mask_rows_per_layer(shape);
    memset(out, 0, sizeof *out);
    k.v = cmc_alloc(n, sizeof *k.v);
    k.next = out->arena = cmc_alloc(rows, sizeof *out->arena);
    out->rows = cmc_calloc(tensors->n_tensors, sizeof *out->rows);
    cmc_status st = k.v && out->arena && out->rows ? importance_load(path, &k.shape, k.v, out->hash, err)
                                                   : cmc_fail_nomem(err, "a soft mask", (n + rows) * sizeof *k.v);
    if (st == CMC_OK)
        mask_make(&k, control, seed);
    free(k.v);
    if (st != CMC_OK)
        soft_mask_free(out);
    return st;
}

void soft_mask_free(soft_mask *m) {
    free(m->arena);
    free(m->rows);
    memset(m, 0, sizeof *m);
}
