/* Models on the line between two of one shape: weights interpolated, as WiSE-FT does between a model and its fine-tuned self
 * (arXiv 2109.01903). */
#include <stdlib.h>
#include <string.h>

#include "base/error.h"
#include "base/mem.h"
#include "runtime/model_save.h"
#include "runtime/quant.h"

typedef struct model_mix {
    const cmc_model *b;
    float share;
    float *row;              /* [widest] of b */
} model_mix;

/* Of any of the model's parts; NULL: there is none. */
static const gguf_tensor *mix_find(const cmc_model *m, gguf_str name) {
    for (size_t i = 0; i < m->n_parts; i++)
        for (size_t k = 0; k < m->parts[i]->n_tensors; k++) {
            const gguf_tensor *t = &m->parts[i]->tensors[k];
            if (t->name.n == name.n && memcmp(t->name.s, name.s, name.n) == 0)
                return t;
        }
    return NULL;
}

static void mix_rows(void *user, const gguf_tensor *t, size_t row, size_t n, float *out) {
    const model_mix *x = user;
    const gguf_tensor *u = mix_find(x->b, t->name);
    size_t width = (size_t)t->ne[0], bytes = cmc_type_row_bytes(t->type, width), other = cmc_type_row_bytes(u->type, width);
    for (size_t i = 0; i < n; i++, out += width) {
        quant_decode_row(t->type, t->data + (row + i) * bytes, out, width);
        quant_decode_row(u->type, u->data + (row + i) * other, x->row, width);
        for (size_t c = 0; c < width; c++)
            out[c] = (1.0f - x->share) * out[c] + x->share * x->row[c];
    }
}

/* Each tensor of `a` is one of `b`, of the same shape. */
static cmc_status mix_check_tensors(const cmc_model *a, const cmc_model *b, cmc_error *err) {
    for (size_t i = 0; i < a->n_parts; i++)
        for (size_t k = 0; k < a->parts[i]->n_tensors; k++) {
            const gguf_tensor *t = &a->parts[i]->tensors[k], *u = mix_find(b, t->name);
            int n = (int)(t->name.n < 60 ? t->name.n : 60);
            if (!u)
                return cmc_fail(err, CMC_E_ARG, "%s: has no tensor %.*s, as %s has; only models of one shape can be mixed",
                                cmc_model_path(b), n, t->name.s, cmc_model_path(a));
            if (memcmp(t->ne, u->ne, sizeof t->ne) != 0)
                return cmc_fail(err, CMC_E_ARG, "%s: its %.*s has another shape than that of %s", cmc_model_path(b), n,
                                t->name.s, cmc_model_path(a));
        }
    return CMC_OK;
}

static cmc_status mix_check(const cmc_model *a, const cmc_model *b, double share, cmc_error *err) {
    if (!(share >= 0.0 && share <= 1.0))
        return cmc_fail(err, CMC_E_ARG, "a share of %g; it must be from 0 to 1", share);
    if (a->p.arch != b->p.arch || !cmc_vocab_equal(cmc_model_vocab(a), cmc_model_vocab(b)))
        return cmc_fail(err, CMC_E_ARG, "%s: its %s is not that of %s; only models of one shape can be mixed",
                        cmc_model_path(b), a->p.arch != b->p.arch ? "architecture" : "vocabulary", cmc_model_path(a));
    CMC_TRY(mix_check_tensors(a, b, err));
    return mix_check_tensors(b, a, err);
}

cmc_status cmc_model_save_mix(const cmc_model *a, const cmc_model *b, double share, const char *path, const char *save_type,
                              cmc_error *err) {
    uint32_t type;
    CMC_TRY(model_save_type(save_type, &type, err));
    CMC_TRY(mix_check(a, b, share, err));
    const size_t widest = model_save_widest(b);
    model_mix x = {b, (float)share, cmc_alloc(widest, sizeof *x.row)};
    cmc_status st = x.row ? model_save(a, path, type, &(model_source){.rows = mix_rows, .user = &x}, err)
                          : cmc_fail_nomem(err, "a row of weights", widest * sizeof *x.row);
    free(x.row);
    return st;
}
