/* The cmc.expand.* keys: which layers of a model have a block, on which side, and how the outputs are merged. */
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "base/gguf_read.h"
#include "base/mem.h"
#include "runtime/expand.h"

#define EXPAND_VERSION 1u      /* of the keys; newer files are refused */

static cmc_status expand_read_merge(const gguf *g, expand_merge *out, cmc_error *err) {
    gguf_str s;
    char shown[64];
    if (!gguf_get_str(g, "cmc.expand.merge", &s))
        return cmc_fail(err, CMC_E_FORMAT, "%s: cmc.expand.merge should be a string", g->file.path);
    for (int m = EXPAND_LERP; m <= EXPAND_SLERP; m++) {
        const char *name = expand_merge_name((expand_merge)m);
        if (s.n == strlen(name) && memcmp(s.s, name, s.n) == 0) {
            *out = (expand_merge)m;
            return CMC_OK;
        }
    }
    return cmc_fail(err, CMC_E_UNSUPPORTED, "%s: cmc.expand.merge is \"%s\", which cmc does not do", g->file.path,
                    gguf_show(s, shown));
}

static cmc_status expand_read_point(const gguf *g, const expand_spec *s, size_t i, int64_t layer, gguf_str kind,
                                    int32_t n_layer, cmc_expand_point *out, cmc_error *err) {
    char shown[64];
    const bool stack = kind.n == 5 && memcmp(kind.s, "stack", 5) == 0;
    if (!stack && !(kind.n == 6 && memcmp(kind.s, "concat", 6) == 0))
        return cmc_fail(err, CMC_E_UNSUPPORTED, "%s: entry %zu of cmc.expand.kinds is \"%s\"; cmc knows concat and stack",
                        g->file.path, i, gguf_show(kind, shown));
    if (layer < 0 || layer >= n_layer || (i > 0 && layer <= s->v[i - 1].layer))
        return cmc_fail(err, CMC_E_FORMAT, "%s: entry %zu of cmc.expand.layers is %" PRId64 "; ascending layers below %d "
                        "would be right", g->file.path, i, layer, n_layer);
    *out = (cmc_expand_point){(int32_t)layer, stack};
    return CMC_OK;
}

static cmc_status expand_read_points(const gguf *g, int32_t n_layer, expand_spec *out, cmc_error *err) {
    const gguf_kv *layers = gguf_get_array(g, "cmc.expand.layers", GGUF_U32);
    const gguf_kv *kinds = gguf_get_array(g, "cmc.expand.kinds", GGUF_STRING);
    if (!layers || !kinds)
        return cmc_fail(err, CMC_E_FORMAT, "%s: %s should be an array of %s", g->file.path,
                        layers ? "cmc.expand.kinds" : "cmc.expand.layers", layers ? "strings" : "uint32");
    if (layers->n < 1 || layers->n > (uint64_t)n_layer || kinds->n != layers->n)
        return cmc_fail(err, CMC_E_FORMAT, "%s: cmc.expand.layers has %" PRIu64 " entries and cmc.expand.kinds %" PRIu64
                        "; as many, from 1 to %d, would be right", g->file.path, layers->n, kinds->n, n_layer);
    out->v = cmc_calloc((size_t)layers->n, sizeof *out->v);
    if (!out->v)
        return cmc_fail_nomem(err, "the list of blocks", (size_t)layers->n * sizeof *out->v);
    const uint8_t *at = NULL;
    for (; out->n < layers->n; out->n++)
        CMC_TRY(expand_read_point(g, out, out->n, gguf_array_i64(layers, out->n), gguf_array_next_str(kinds, &at), n_layer,
                                  &out->v[out->n], err));
    return CMC_OK;
}

cmc_status expand_read(const gguf *g, int32_t n_layer, expand_spec *out, cmc_error *err) {
    uint64_t version;
    *out = (expand_spec){0};
    if (!gguf_find(g, "cmc.expand.version"))
        return CMC_OK;
    CMC_TRY(gguf_need_u64(g, "cmc.expand.version", 1, UINT32_MAX, &version, err));
    if (version > EXPAND_VERSION)
        return cmc_fail(err, CMC_E_UNSUPPORTED, "%s: expanded blocks of format version %" PRIu64 ", but this cmc reads up "
                        "to %u: a newer cmc is needed", g->file.path, version, EXPAND_VERSION);
    cmc_status st = expand_read_merge(g, &out->merge, err);
    if (st == CMC_OK)
        st = expand_read_points(g, n_layer, out, err);
    if (st != CMC_OK)
        expand_spec_free(out);
    return st;
}

bool expand_write(gguf_writer *w, const expand_spec *s) {
    uint32_t *layers = cmc_alloc(s->n, sizeof *layers);
    gguf_str *kinds = cmc_alloc(s->n, sizeof *kinds);
    const char *merge = expand_merge_name(s->merge);
    bool ok = layers && kinds;
    for (size_t i = 0; ok && i < s->n; i++) {
        const char *kind = expand_kind_name(s->v[i].stack ? EXPAND_STACK : EXPAND_CONCAT);
        layers[i] = (uint32_t)s->v[i].layer;
        kinds[i] = (gguf_str){kind, strlen(kind)};
    }
    ok = ok && gguf_put_u32(w, "cmc.expand.version", EXPAND_VERSION) &&
         gguf_put_str(w, "cmc.expand.merge", merge, strlen(merge)) &&
         gguf_put_array(w, "cmc.expand.layers", GGUF_U32, layers, s->n) &&
         gguf_put_str_array(w, "cmc.expand.kinds", kinds, s->n);
    free(layers);
    free(kinds);
    return ok;
}

static bool expand_begins(gguf_str s, const char *with) {
    return s.n > strlen(with) && memcmp(s.s, with, strlen(with)) == 0;
}

int32_t expand_layer_of(gguf_str name, gguf_str *rest) {
    int32_t layer = 0;
    size_t at = 4;
    *rest = (gguf_str){name.s, 0};
    if (!expand_begins(name, "blk."))
        return -1;
    for (; at < name.n && name.s[at] >= '0' && name.s[at] <= '9' && layer < 100000; at++)
        layer = 10 * layer + (name.s[at] - '0');
    if (at == 4 || at >= name.n || name.s[at] != '.')
        return -1;
    *rest = (gguf_str){name.s + at + 1, name.n - at - 1};
    return layer;
}

bool expand_is_block(gguf_str *rest) {
    static const char mark[] = "cmc_expand.";
    if (!expand_begins(*rest, mark))
        return false;
    *rest = (gguf_str){rest->s + strlen(mark), rest->n - strlen(mark)};
    return true;
}

/* "cmc.expand.KEY", "blk.N.cmc_expand.TENSOR", "blk.N.cmc_merge.TENSOR" */
bool expand_owns(gguf_str name) {
    gguf_str rest;
    if (expand_layer_of(name, &rest) < 0)
        return expand_begins(name, "cmc.expand.");
    return expand_begins(rest, "cmc_expand.") || expand_begins(rest, "cmc_merge.");
}
