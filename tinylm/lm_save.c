/* Writing tuned models and adapters. */
#include "tinylm/lm_save.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/mem.h"
#include "runtime/load.h"
#include "runtime/model_save.h"
#include "runtime/quant.h"
#include "tinylm/save.h"

typedef struct save_rows {
    const lm_layout *l;
    const float *w;
} save_rows;

/* NULL: it stays as the file has it, as do factors of RoPE, which are no tensor of the layout. */
static const params_tensor *save_trained(const save_rows *s, const gguf_tensor *t) {
    const params_tensor *p = lm_find(&s->l->base, t->name.s, t->name.n);
    return p && p->trained ? p : NULL;
}

static bool save_keeps(void *user, const gguf_tensor *t) {
    return save_trained(user, t) == NULL;
}

static void save_trained_rows(void *user, const gguf_tensor *t, size_t row, size_t n, float *out) {
    const save_rows *s = user;
    size_t width = (size_t)t->ne[0];
    memcpy(out, s->w + save_trained(s, t)->off + row * width, n * width * sizeof *out);
}

cmc_status lm_save_model(const char *path, const lm_layout *l, const cmc_model *base, const float *w, uint32_t type,
                         cmc_error *err) {
    save_rows s = {l, w};
    return model_save(base, path, type, &(model_source){.rows = save_trained_rows, .keeps = save_keeps, .user = &s}, err);
}

/* ---------------------------------------------------------------------------------------------- expanded models */

/* A gate, whose w is one row as a norm is, keeps its precision as norms do. */
static uint32_t save_new_type(const params_tensor *t, uint32_t type) {
    if (!t->matrix)
        return CMC_F32;
    return t->n_in % cmc_type_block(type) == 0 ? type : CMC_F16;
}

static size_t save_new_bytes(const params_tensor *t, uint32_t type) {
    return t->n_out * cmc_type_row_bytes(save_new_type(t, type), t->n_in);
}

/* It is encoded here; the others are in the base's file. */
static bool save_is_new(const params_tensor *t) {
    return t->trained || expand_owns((gguf_str){t->name, strlen(t->name)});
}

size_t lm_save_expanded_bytes(const lm_layout *l, uint32_t type) {
    size_t bytes = 0;
    for (size_t i = 0; i < l->base.n_tensors; i++)
        bytes += save_is_new(&l->base.tensors[i]) ? save_new_bytes(&l->base.tensors[i], type) : 0;
    return bytes;
}

/* It is left behind: of a split file, or what a delta says of itself, which is written anew. */
static bool save_leaves(const gguf_kv *kv, const cmc_delta_info *info) {
    static const char name[] = "general.name";
    bool named = kv->key.n == sizeof name - 1 && memcmp(kv->key.s, name, kv->key.n) == 0;
    return (kv->key.n > 6 && memcmp(kv->key.s, "split.", 6) == 0) ||
           (info && (named || (kv->key.n > 4 && memcmp(kv->key.s, "cmc.", 4) == 0)));
}

static bool save_base(gguf_writer *g, const char *path, const lm_layout *l, const cmc_model *base, const cmc_delta_info *info) {
    const save_rows s = {l, NULL};
    bool ok = true;
    char name[128];
    for (size_t i = 0; ok && i < base->parts[0]->n_kv; i++) {
        const gguf_kv *kv = &base->parts[0]->kv[i];
        ok = save_leaves(kv, info) || gguf_put_kv(g, kv);
    }
    ok = ok && (!info || (save_put_name(g, path) && delta_info_write(g, info)));
    for (size_t i = 0; i < base->n_parts; i++)
        for (size_t k = 0; ok && k < base->parts[i]->n_tensors; k++) {
            const gguf_tensor *t = &base->parts[i]->tensors[k];
            if (save_trained(&s, t))
                continue;
            ok = t->name.n < sizeof name;
            snprintf(name, sizeof name, "%.*s", ok ? (int)t->name.n : 0, t->name.s);
            ok = ok && gguf_put_tensor(g, name, t->type, t->ne, t->n_dims, t->data);
        }
    return ok;
}

static bool save_new(gguf_writer *g, const lm_layout *l, const float *w, const float *trained, uint32_t type, uint8_t *buf) {
    bool ok = true;
    for (size_t i = 0; ok && i < l->base.n_tensors; i++) {
        const params_tensor *t = &l->base.tensors[i];
        const uint64_t ne[2] = {t->n_in, t->n_out};
        const float *from = (t->trained ? trained : w) + t->off;
        uint32_t as = save_new_type(t, type);
        if (!save_is_new(t))
            continue;
        for (size_t r = 0; ok && r < t->n_out; r++)
            ok = quant_encode_row(as, from + r * t->n_in, buf + r * cmc_type_row_bytes(as, t->n_in), t->n_in);
        ok = ok && gguf_put_tensor(g, t->name, as, ne, t->matrix ? 2 : 1, buf);
        buf += save_new_bytes(t, type);
    }
    return ok;
}

cmc_status lm_save_expanded(const char *path, const lm_layout *l, const cmc_model *base, const expand_spec *spec, const float *w,
                            const float *trained, uint32_t type, const cmc_delta_info *info, cmc_error *err) {
    size_t bytes = lm_save_expanded_bytes(l, type);
    gguf_writer *g = gguf_writer_new();
    uint8_t *buf = cmc_alloc(bytes, 1);
    bool ok = g && buf && save_base(g, path, l, base, info) && expand_write(g, spec) && save_new(g, l, w, trained, type, buf);
    cmc_status st = gguf_writer_end(g, ok, "the model's file", bytes, path, err);
    gguf_writer_free(g);
    free(buf);
    return st;
}

/* ----------------------------------------------------------------------------------------------------- adapters */

static bool save_text(gguf_writer *g, const char *key, const char *s) {
    return gguf_put_str(g, key, s, strlen(s));
}

static bool save_lora_keys(gguf_writer *g, const char *path, const cmc_model *base, double alpha, bool f16) {
    return save_text(g, "general.architecture", load_arch_name(base->p.arch)) &&
           save_text(g, "general.type", "adapter") &&
           save_put_name(g, path) && gguf_put_u32(g, "general.base_model.count", 1) &&
           save_text(g, "general.base_model.0.name", cmc_model_name(base)) &&
           gguf_put_u32(g, "general.file_type", f16 ? 1 : 0) && gguf_put_u32(g, "general.quantization_version", 2) &&
           save_text(g, "adapter.type", "lora") && gguf_put_f32(g, "adapter.lora.alpha", (float)alpha);
}

static bool save_lora_tensors(gguf_writer *g, const params *p, const float *w, uint32_t type, uint8_t *buf) {
    bool ok = true;
    for (size_t i = 0; ok && i < p->n_tensors; i++) {
        const params_tensor *t = &p->tensors[i];
        uint64_t ne[2] = {t->n_in, t->n_out};
        size_t n = t->n_in * t->n_out;
        ok = quant_encode_row(type, w + t->off, buf, n) && gguf_put_tensor(g, t->name, type, ne, 2, buf);
        buf += cmc_type_row_bytes(type, n);
    }
    return ok;
}

cmc_status lm_save_lora(const char *path, const lm_layout *l, const cmc_model *base, double alpha, const float *w,
                        uint32_t type, cmc_error *err) {
    uint32_t as = type == CMC_F16 ? CMC_F16 : CMC_F32;
    size_t bytes = cmc_type_row_bytes(as, l->lora.n);
    gguf_writer *g = gguf_writer_new();
    uint8_t *buf = cmc_alloc(bytes, 1);
    bool ok = g && buf && save_lora_keys(g, path, base, alpha, as == CMC_F16) &&
              save_lora_tensors(g, &l->lora, w, as, buf);
    cmc_status st = gguf_writer_end(g, ok, "the adapter's file", bytes, path, err);
    gguf_writer_free(g);
    free(buf);
    return st;
}
