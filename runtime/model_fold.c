/* An expanded model as an ordinary one. A block behind a layer becomes a layer, which changes nothing. A block beside one is
 * averaged with it, weight by weight, where its share is one number (arXiv 2501.10979): that is not the average of their
 * outputs, only near it as long as the two are near each other. */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/error.h"
#include "base/mem.h"
#include "runtime/load.h"
#include "runtime/model_save.h"
#include "runtime/quant.h"

typedef struct fold {
    const cmc_model *m;
    double strength;
    float *row;              /* [widest] of a block */
} fold;

static const model_extra *fold_block(const cmc_model *m, int32_t layer) {
    return layer >= 0 && layer < m->p.n_layer ? m->layers[layer].extra : NULL;
}

/* Blocks that stand behind layers below that one: so many layers come in between. */
static int32_t fold_before(const cmc_model *m, int32_t layer) {
    int32_t n = 0;
    for (size_t i = 0; i < m->expand.n && m->expand.v[i].layer < layer; i++)
        n += m->expand.v[i].stack;
    return n;
}

/* model_source.name: blocks behind layers and all that follows them get a new number; other blocks, and gates, are left out. */
static bool fold_name(void *user, const gguf_tensor *t, char *name, size_t size) {
    const fold *f = user;
    gguf_str rest;
    const int32_t layer = expand_layer_of(t->name, &rest);
    if (layer < 0)
        return snprintf(name, size, "%.*s", (int)t->name.n, t->name.s) < (int)size;
    const bool block = expand_is_block(&rest);
    if (block ? !fold_block(f->m, layer)->stack : expand_owns(t->name))
        return false;
    return snprintf(name, size, "blk.%d.%.*s", layer + fold_before(f->m, layer) + block, (int)rest.n, rest.s) < (int)size;
}

/* The block's tensor that goes with the layer's; NULL where the layer's stays as it is. */
static const gguf_tensor *fold_other(const fold *f, const gguf_tensor *t, double *share) {
    gguf_str rest;
    char name[128];
    const int32_t layer = expand_layer_of(t->name, &rest);
    const model_extra *x = fold_block(f->m, layer);
    if (!x || x->stack || expand_owns(t->name))
        return NULL;
    *share = f->strength * (double)expand_share(&x->gate, NULL, NULL, NULL, 0);
    snprintf(name, sizeof name, "blk.%d.cmc_expand.%.*s", layer, rest.n < 64 ? (int)rest.n : 64, rest.s);
    return load_find(f->m->parts, f->m->n_parts, name, NULL);
}

static void fold_rows(void *user, const gguf_tensor *t, size_t row, size_t n, float *out) {
    const fold *f = user;
    double share = 0.0;
    const gguf_tensor *other = fold_other(f, t, &share);
    const size_t width = (size_t)t->ne[0], bytes = cmc_type_row_bytes(t->type, width);
    const size_t other_bytes = other ? cmc_type_row_bytes(other->type, width) : 0;
    for (size_t i = 0; i < n; i++, out += width) {
        quant_decode_row(t->type, t->data + (row + i) * bytes, out, width);
        if (!other)
            continue;
        quant_decode_row(other->type, other->data + (row + i) * other_bytes, f->row, width);
        for (size_t c = 0; c < width; c++)
            out[c] += (float)share * (f->row[c] - out[c]);
    }
}

static cmc_status fold_check(const cmc_model *m, double strength, cmc_error *err) {
    size_t stacks = (size_t)fold_before(m, m->p.n_layer);
    if (!m->expand.n)
        return cmc_fail(err, CMC_E_ARG, "%s: not an expanded model, so there is nothing to fold", m->path);
    if (!(fabs(strength) <= EXPAND_MOST_STRENGTH))
        return cmc_fail(err, CMC_E_ARG, "%s: a strength of %g for its expanded blocks; it must be from %g to %g", m->path, strength,
                        -EXPAND_MOST_STRENGTH, EXPAND_MOST_STRENGTH);
    if (m->lora.n)
        return cmc_fail(err, CMC_E_ARG, "%s: has an adapter, which folding does not merge; save it with its adapters first, or fold without", m->path);
    if (stacks < m->expand.n && m->expand.merge != EXPAND_LERP)
        return cmc_fail(err, CMC_E_UNSUPPORTED, "%s: its outputs are merged by %s, which no average of weights stands for; only "
                        "lerp can be folded", m->path, expand_merge_name(m->expand.merge));
    if (stacks && strength != 1.0)
        return cmc_fail(err, CMC_E_UNSUPPORTED, "%s: blocks behind layers become layers as they are; a strength of %g is not 1",
                        m->path, strength);
    if (stacks && m->p.swa_period > 1)
        return cmc_fail(err, CMC_E_UNSUPPORTED, "%s: which of its layers have a window goes by their number, which blocks behind "
                        "layers would change", m->path);
    return CMC_OK;
}

cmc_status cmc_model_save_folded(const cmc_model *m, double strength, const char *path, const char *save_type, cmc_error *err) {
    uint32_t type;
    CMC_TRY(model_save_type(save_type, &type, err));
    CMC_TRY(fold_check(m, strength, err));
    const size_t widest = model_save_widest(m);
    fold f = {m, strength, cmc_alloc(widest, sizeof *f.row)};
    const model_source from = {.rows = fold_rows, .user = &f, .name = fold_name, .more_layers = fold_before(m, m->p.n_layer)};
    cmc_status st = f.row ? model_save(m, path, type, &from, err)
                          : cmc_fail_nomem(err, "a row of weights", widest * sizeof *f.row);
    free(f.row);
    return st;
}
