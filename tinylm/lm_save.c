/* Writing tuned models and adapters. */
#include "tinylm/lm_save.h"

#include <stdlib.h>
#include <string.h>

#include "base/mem.h"
#include "runtime/load.h"
#include "runtime/model_save.h"
#include "runtime/quant.h"

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
    return model_save(base, path, type, &(model_source){save_trained_rows, save_keeps, &s}, err);
}

static bool save_text(gguf_writer *g, const char *key, const char *s) {
    return gguf_put_str(g, key, s, strlen(s));
}

static bool save_lora_keys(gguf_writer *g, const char *path, const cmc_model *base, double alpha, bool f16) {
    const char *slash = strrchr(path, '/'), *name = slash ? slash + 1 : path, *dot = strrchr(name, '.');
    size_t n = dot && dot > name ? (size_t)(dot - name) : strlen(name);
    return save_text(g, "general.architecture", load_arch_name(base->p.arch)) &&
           save_text(g, "general.type", "adapter") &&
           gguf_put_str(g, "general.name", name, n) && gguf_put_u32(g, "general.base_model.count", 1) &&
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
    cmc_status st = ok ? gguf_writer_save(g, path, err) : cmc_fail_nomem(err, "the adapter's file", bytes);
    gguf_writer_free(g);
    free(buf);
    return st;
}
