/* Reading adapters from GGUF files: what such a file must say of itself, and that it fits the model. */
#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/error.h"
#include "base/gguf_read.h"
#include "base/mem.h"
#include "runtime/load.h"
#include "runtime/lora.h"
#include "runtime/quant.h"
#include "runtime/vec.h"

enum { LORA_PER_LAYER = 7, LORA_MAX_RANK = 65536 };

typedef struct lora_file {
    cmc_model *m;
    gguf *g;
    double scale;          /* the caller's */
    double alpha;          /* 0: not in the file; A and B are scaled by the caller's alone */
    cmc_error *err;
} lora_file;

/* ----------------------------------------------------------------------------------------------- matrices */

/* The matrix that a tensor name means, and its slot in the model's set; NULL for any other name. */
static weight *lora_matrix(cmc_model *m, const char *name, size_t *slot) {
    static const char *const names[LORA_PER_LAYER] = {
        "attn_q.weight", "attn_k.weight", "attn_v.weight", "attn_output.weight", "ffn_gate.weight", "ffn_up.weight",
        "ffn_down.weight"};
    int32_t il;
    int at = 0;
    if (strcmp(name, "output.weight") == 0 && m->head.data != m->embd.data) {
        *slot = (size_t)m->p.n_layer * LORA_PER_LAYER;
        return &m->head;
    }
    if (sscanf(name, "blk.%5" SCNd32 ".%n", &il, &at) != 1 || at == 0 || il < 0 || il >= m->p.n_layer)
        return NULL;
    model_layer *l = &m->layers[il];
    weight *const all[LORA_PER_LAYER] = {&l->wq, &l->wk, &l->wv, &l->wo, &l->gate, &l->up, &l->down};
    for (size_t i = 0; i < LORA_PER_LAYER; i++)
        if (strcmp(name + at, names[i]) == 0) {
            *slot = (size_t)il * LORA_PER_LAYER + i;
            return all[i];
        }
    return NULL;
}

const lora_weight *lora_of(const cmc_model *m, gguf_str name) {
    char s[80];
    size_t slot;
    if (!m->lora.n || name.n >= sizeof s)
        return NULL;
    memcpy(s, name.s, name.n);
    s[name.n] = '\0';
    const weight *w = lora_matrix((cmc_model *)(uintptr_t)m, s, &slot);
    return w ? w->lora : NULL;
}

/* Where output b[k][o] stands in panels of `rank` rows. */
static float *lora_at(float *b, size_t rank, size_t k, size_t o) {
    return b + (o / VEC_PANEL * rank + k) * VEC_PANEL + o % VEC_PANEL;
}

/* A slot with room for `more` further rows; those it has are kept. The new part of b is 0. */
static cmc_status lora_widen(lora_weight *l, const weight *w, size_t more, cmc_error *err) {
    size_t rank = l->rank + more, panels = (w->n_out + VEC_PANEL - 1) / VEC_PANEL;
    float *a = cmc_alloc_aligned(rank * w->n_in, sizeof *a);
    float *b = cmc_alloc_aligned(panels * rank * VEC_PANEL, sizeof *b);
    if (!a || !b) {
        free(a);
        free(b);
        return cmc_fail_nomem(err, "an adapter", rank * (w->n_in + w->n_out) * sizeof *a);
    }
    memset(b, 0, panels * rank * VEC_PANEL * sizeof *b);
    if (l->rank)
        memcpy(a, l->a, l->rank * w->n_in * sizeof *a);
    for (size_t k = 0; k < l->rank; k++)
        for (size_t o = 0; o < w->n_out; o++)
            *lora_at(b, rank, k, o) = *lora_at(l->b, l->rank, k, o);
    free(l->a);
    free(l->b);
    *l = (lora_weight){rank, w->n_in, w->n_out, a, b};
    return CMC_OK;
}

/* ----------------------------------------------------------------------------------------------- one pair */

static cmc_status lora_check_tensor(const lora_file *f, const gguf_tensor *t, size_t n_in, size_t n_out) {
    char name[64];
    if (!cmc_type_supported(t->type) || !t->data)
        return cmc_fail(f->err, CMC_E_UNSUPPORTED, "%s: tensor %s has type number %" PRIu32 ", which cmc does not read",
                        f->g->file.path, gguf_show(t->name, name), t->type);
    if (t->n_dims > 2 || t->ne[0] != n_in || t->ne[1] != n_out || n_in % cmc_type_block(t->type) != 0)
        return cmc_fail(f->err, CMC_E_FORMAT, "%s: tensor %s is %" PRIu64 " x %" PRIu64 "; %zu x %zu would fit "
                        "the model", f->g->file.path, gguf_show(t->name, name), t->ne[0], t->ne[1], n_in, n_out);
    return CMC_OK;
}

/* Adds A and B to the matrix's slot. `a` says what the rank is. */
static cmc_status lora_add_pair(const lora_file *f, weight *w, size_t slot, const gguf_tensor *a,
                                const gguf_tensor *b) {
    char name[64];
    if (a->ne[1] < 1 || a->ne[1] > LORA_MAX_RANK)
        return cmc_fail(f->err, CMC_E_FORMAT, "%s: tensor %s has a rank of %" PRIu64 "; from 1 to %d would be right",
                        f->g->file.path, gguf_show(a->name, name), a->ne[1], LORA_MAX_RANK);
    size_t rank = (size_t)a->ne[1];
    CMC_TRY(lora_check_tensor(f, a, w->n_in, rank));
    CMC_TRY(lora_check_tensor(f, b, rank, w->n_out));
    if (f->scale == 0.0) /* left out, not multiplied by 0 */
        return CMC_OK;
    lora_weight *l = &f->m->lora.v[slot];
    size_t first = l->rank;
    float *row = cmc_alloc(rank, sizeof *row);
    cmc_status st = row ? lora_widen(l, w, rank, f->err) : cmc_fail_nomem(f->err, "an adapter", rank * sizeof *row);
    float scale = (float)(f->alpha != 0.0 ? f->scale * f->alpha / (double)rank : f->scale);
    size_t a_bytes = cmc_type_row_bytes(a->type, w->n_in), b_bytes = cmc_type_row_bytes(b->type, rank);
    for (size_t k = 0; st == CMC_OK && k < rank; k++)
        quant_decode_row(a->type, a->data + k * a_bytes, l->a + (first + k) * w->n_in, w->n_in);
    for (size_t o = 0; st == CMC_OK && o < w->n_out; o++) {
        quant_decode_row(b->type, b->data + o * b_bytes, row, rank);
        for (size_t k = 0; k < rank; k++)
            *lora_at(l->b, l->rank, first + k, o) = scale * row[k];
    }
    free(row);
    if (st == CMC_OK)
        w->lora = l;
    return st;
}

/* ----------------------------------------------------------------------------------------------- the file */

static bool lora_is(gguf_str s, const char *want) {
    return s.n == strlen(want) && memcmp(s.s, want, s.n) == 0;
}

static cmc_status lora_check_keys(lora_file *f) {
    const char *path = f->g->file.path, *arch = load_arch_name(f->m->p.arch);
    gguf_str type = {"", 0}, kind = {"", 0}, of = {"", 0};
    char shown[64];
    gguf_get_str(f->g, "general.type", &type);
    gguf_get_str(f->g, "adapter.type", &kind);
    gguf_get_str(f->g, "general.architecture", &of);
    if (!lora_is(type, "adapter"))
        return cmc_fail(f->err, CMC_E_FORMAT, "%s: general.type is \"%s\", so it is no adapter", path,
                        gguf_show(type, shown));
    if (!lora_is(kind, "lora"))
        return cmc_fail(f->err, CMC_E_UNSUPPORTED, "%s: adapter.type is \"%s\"; cmc reads lora", path,
                        gguf_show(kind, shown));
    if (!lora_is(of, arch))
        return cmc_fail(f->err, CMC_E_ARG, "%s: an adapter for a %s model, but %s is a %s model", path,
                        gguf_show(of, shown), f->m->path, arch);
    if (gguf_find(f->g, "adapter.alora.invocation_tokens"))
        return cmc_fail(f->err, CMC_E_UNSUPPORTED, "%s: an adapter that some tokens switch on, which cmc does not do",
                        path);
    if (gguf_find(f->g, "adapter.lora.alpha"))
        CMC_TRY(gguf_need_f64(f->g, "adapter.lora.alpha", &f->alpha, f->err));
    if (!isfinite(f->alpha))
        return cmc_fail(f->err, CMC_E_FORMAT, "%s: adapter.lora.alpha is no finite number", path);
    return f->g->n_tensors ? CMC_OK : cmc_fail(f->err, CMC_E_FORMAT, "%s: an adapter without tensors", path);
}

/* One tensor: an A is taken with its B; a B without A, and anything else, is refused. */
static cmc_status lora_take(const lora_file *f, const gguf_tensor *t) {
    char name[80], shown[64];
    size_t n = t->name.n, slot;
    const char *path = f->g->file.path;
    bool is_a = n > 7 && n < sizeof name && memcmp(t->name.s + n - 7, ".lora_a", 7) == 0;
    bool is_b = n > 7 && n < sizeof name && memcmp(t->name.s + n - 7, ".lora_b", 7) == 0;
    if (!is_a && !is_b)
        return cmc_fail(f->err, CMC_E_UNSUPPORTED, "%s: tensor %s is not one that cmc knows in an adapter", path,
                        gguf_show(t->name, shown));
    memcpy(name, t->name.s, n);
    name[n] = '\0';
    name[n - 1] = is_a ? 'b' : 'a';
    const gguf_tensor *other = gguf_find_tensor(f->g, name);
    if (!other)
        return cmc_fail(f->err, CMC_E_FORMAT, "%s: tensor %s is there, but %s is missing", path,
                        gguf_show(t->name, shown), name);
    if (is_b)
        return CMC_OK;
    name[n - 7] = '\0';
    weight *w = lora_matrix(f->m, name, &slot);
    if (!w)
        return cmc_fail(f->err, CMC_E_UNSUPPORTED, "%s: tensor %s is for no matrix of %s that cmc adapts", path,
                        gguf_show(t->name, shown), f->m->path);
    return lora_add_pair(f, w, slot, t, other);
}

static cmc_status lora_slots(cmc_model *m, cmc_error *err) {
    size_t n = (size_t)m->p.n_layer * LORA_PER_LAYER + 1;
    if (m->lora.n)
        return CMC_OK;
    m->lora.v = cmc_calloc(n, sizeof *m->lora.v);
    if (!m->lora.v)
        return cmc_fail_nomem(err, "an adapter", n * sizeof *m->lora.v);
    m->lora.n = n;
    return CMC_OK;
}

/* The model with the adapter is another model. */
static cmc_status lora_hash(lora_file *f) {
    char hash[40], text[160];
    CMC_TRY(load_hash(&f->g, 1, hash, f->err));
    int n = snprintf(text, sizeof text, "%s %s %.17g", f->m->hash, hash, f->scale);
    cmc_hash_hex(text, (size_t)n, f->m->hash);
    return CMC_OK;
}

cmc_status cmc_model_add_lora(cmc_model *m, const char *path, double scale, cmc_error *err) {
    lora_file f = {.m = m, .scale = scale, .err = err};
    if (!isfinite(scale))
        return cmc_fail(err, CMC_E_ARG, "%s: an adapter's scale must be a finite number", path);
    CMC_TRY(gguf_open(path, &f.g, err));
    cmc_status st = lora_check_keys(&f);
    if (st == CMC_OK)
        st = lora_slots(m, err);
    for (size_t i = 0; st == CMC_OK && i < f.g->n_tensors; i++)
        st = lora_take(&f, &f.g->tensors[i]);
    if (st == CMC_OK && scale != 0.0)
        st = lora_hash(&f);
    gguf_free(f.g);
    return st;
}
