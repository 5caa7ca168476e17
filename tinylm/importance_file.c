/* Importance as a GGUF file: blk.N.KIND.importance, a vector each, in float32. */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/error.h"
#include "base/gguf.h"
#include "base/mem.h"
#include "tinylm/importance.h"

static const char *const importance_kind[IMPORTANCE_KINDS] = {"attn_head", "ffn_up", "ffn_down"};

static void importance_name(size_t layer, size_t kind, char out[64]) {
    snprintf(out, 64, "blk.%zu.%s.importance", layer, importance_kind[kind]);
}

static bool importance_put_keys(gguf_writer *g, const importance_how *h) {
    return gguf_put_str(g, "general.type", "importance", 10) && gguf_put_u32(g, "cmc.importance.version", 1) &&
           gguf_put_str(g, "cmc.importance.model_hash", h->model_hash, strlen(h->model_hash)) &&
           gguf_put_str(g, "cmc.importance.data_hash", h->data_hash, strlen(h->data_hash)) &&
           gguf_put_bool(g, "cmc.importance.absolute", h->absolute) &&
           gguf_put_f64(g, "cmc.importance.dropout", h->dropout) && gguf_put_u64(g, "cmc.importance.seed", h->seed) &&
           gguf_put_u64(g, "cmc.importance.sequences", h->sequences) && gguf_put_u64(g, "cmc.importance.tokens", h->tokens);
}

cmc_status importance_save(const char *path, const importance_shape *s, const importance_how *how, const float *v,
                           cmc_error *err) {
    gguf_writer *g = gguf_writer_new();
    bool ok = g && importance_put_keys(g, how);
    for (size_t i = 0; ok && i < s->n_layer; i++)
        for (size_t k = 0; ok && k < IMPORTANCE_KINDS; k++) {
            char name[64];
            uint64_t ne = s->width[k];
            importance_name(i, k, name);
            ok = gguf_put_tensor(g, name, CMC_F32, &ne, 1, v + importance_at(s, i, k));
        }
    cmc_status st = gguf_writer_end(g, ok, "the importance's file", 1 << 20, path, err);
    gguf_writer_free(g);
    return st;
}

static cmc_status importance_take(const gguf *g, const char *path, const importance_shape *s, size_t layer, size_t kind,
                                  float *out, cmc_error *err) {
    char name[64];
    importance_name(layer, kind, name);
    const gguf_tensor *t = gguf_find_tensor(g, name);
    size_t n = s->width[kind];
    if (!t || t->type != CMC_F32 || t->n_dims != 1 || t->ne[0] != n)
        return cmc_fail(err, CMC_E_ARG, "%s: has no %s of %zu float32 values; it is not for a model of this shape", path, name,
                        n);
    memcpy(out, t->data, n * sizeof *out);
    for (size_t i = 0; i < n; i++)
        if (!isfinite(out[i]))
            return cmc_fail(err, CMC_E_FORMAT, "%s: value %zu of %s is no finite number", path, i, name);
    return CMC_OK;
}

static cmc_status importance_take_all(const gguf *g, const char *path, const importance_shape *s, float *v, cmc_error *err) {
    gguf_str type = {"", 0};
    if (!gguf_get_str(g, "general.type", &type) || type.n != 10 || memcmp(type.s, "importance", 10) != 0)
        return cmc_fail(err, CMC_E_ARG, "%s: general.type is \"%.*s\", not importance; cmc importance makes such files", path,
                        (int)(type.n < 60 ? type.n : 60), type.s);
    char beyond[64];
    importance_name(s->n_layer, 0, beyond);
    if (gguf_find_tensor(g, beyond))
        return cmc_fail(err, CMC_E_ARG, "%s: is for a model of more than %zu layers", path, s->n_layer);
    for (size_t i = 0; i < s->n_layer; i++)
        for (size_t k = 0; k < IMPORTANCE_KINDS; k++)
            CMC_TRY(importance_take(g, path, s, i, k, v + importance_at(s, i, k), err));
    return CMC_OK;
}

cmc_status importance_load(const char *path, const importance_shape *s, float *v, char hash[40], cmc_error *err) {
    gguf *g;
    cmc_hasher *h = cmc_hasher_new();
    if (!h)
        return cmc_fail_nomem(err, "a hash", 1024);
    cmc_status st = gguf_open(path, &g, err);
    if (st == CMC_OK) {
        st = importance_take_all(g, path, s, v, err);
        gguf_free(g);
    }
    if (st == CMC_OK)
        cmc_hasher_add(h, v, s->n_layer * s->per_layer * sizeof *v);
    cmc_hasher_finish(h, hash);
    return st;
}
