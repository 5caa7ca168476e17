/* Merging the output of a layer and of the block beside it, a token at a time; which layers get a block. */
#include "runtime/expand.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "base/mem.h"

static const double expand_least_angle = 1e-4, expand_pi = 3.14159265358979323846;

size_t expand_gate_width(expand_merge m, size_t n_embd) {
    return m == EXPAND_DLERP ? 2 * n_embd : m == EXPAND_DLERPIN ? n_embd : 0;
}

double expand_dot(const float *a, const float *b, size_t n) {
    double sum = 0.0;
    for (size_t i = 0; i < n; i++)
        sum += (double)a[i] * (double)b[i];
    return sum;
}

float expand_share(const expand_gate *g, const float *x, const float *p, const float *e, size_t n) {
    double z = (double)g->f;
    if (g->merge == EXPAND_DLERP)
        z += expand_dot(g->w, p, n) + expand_dot(g->w + n, e, n);
    else if (g->merge == EXPAND_DLERPIN)
        z += expand_dot(g->w, x, n);
    return (float)(1.0 / (1.0 + exp(-z)));
}

bool expand_arc_of(const float *p, const float *e, size_t n, expand_arc *out) {
    *out = (expand_arc){expand_dot(p, e, n), expand_dot(p, p, n), expand_dot(e, e, n), 0.0};
    const double length = sqrt(out->pp * out->ee), c = length > 0.0 ? out->dot / length : 1.0;
    out->t = acos(c > 1.0 ? 1.0 : c < -1.0 ? -1.0 : c);
    return out->t >= expand_least_angle && out->t <= expand_pi - expand_least_angle;
}

void expand_mix(expand_merge m, float a, float *p, const float *e, size_t n) {
    expand_arc arc;
    if (a == 1.0f) {
        memcpy(p, e, n * sizeof *p);
    } else if (m == EXPAND_SLERP && expand_arc_of(p, e, n, &arc)) {
        const double s = sin(arc.t);
        const float of_p = (float)(sin((1.0 - (double)a) * arc.t) / s), of_e = (float)(sin((double)a * arc.t) / s);
        for (size_t i = 0; i < n; i++)
            p[i] = of_p * p[i] + of_e * e[i];
    } else {
        for (size_t i = 0; i < n; i++)
            p[i] += a * (e[i] - p[i]);
    }
}

/* -------------------------------------------------------------------------------------------------------- names */

static const char *const expand_kinds[] = {[EXPAND_CONCAT] = "concat", [EXPAND_STACK] = "stack", [EXPAND_HYBRID] = "hybrid"};
static const char *const expand_merges[] = {
    [EXPAND_LERP] = "lerp", [EXPAND_DLERP] = "dlerp", [EXPAND_DLERPIN] = "dlerpin", [EXPAND_SLERP] = "slerp"};

const char *expand_kind_name(expand_kind k) {
    return expand_kinds[k];
}

const char *expand_merge_name(expand_merge m) {
    return expand_merges[m];
}

cmc_status expand_kind_parse(const char *name, expand_kind *out, cmc_error *err) {
    for (size_t i = 0; i < sizeof expand_kinds / sizeof *expand_kinds; i++)
        if (strcmp(name, expand_kinds[i]) == 0) {
            *out = (expand_kind)i;
            return CMC_OK;
        }
    return cmc_fail(err, CMC_E_ARG, "\"%.40s\" is no way to expand a model: concat, stack, hybrid", name);
}

cmc_status expand_merge_parse(const char *name, expand_merge *out, cmc_error *err) {
    for (size_t i = 0; i < sizeof expand_merges / sizeof *expand_merges; i++)
        if (strcmp(name, expand_merges[i]) == 0) {
            *out = (expand_merge)i;
            return CMC_OK;
        }
    return cmc_fail(err, CMC_E_ARG, "\"%.40s\" is no way to merge two outputs: lerp, dlerp, dlerpin, slerp", name);
}

/* ------------------------------------------------------------------------------------------------------ points */

void expand_spec_free(expand_spec *s) {
    free(s->v);
    *s = (expand_spec){0};
}

bool expand_describe(const expand_spec *s, cmc_expand_info *out) {
    size_t stacks = 0;
    for (size_t i = 0; i < s->n; i++)
        stacks += s->v[i].stack;
    const expand_kind kind = stacks == 0 ? EXPAND_CONCAT : stacks == s->n ? EXPAND_STACK : EXPAND_HYBRID;
    *out = (cmc_expand_info){expand_kind_name(kind), expand_merge_name(s->merge), s->v, s->n};
    return s->n > 0;
}

cmc_status expand_plan(expand_kind kind, expand_merge merge, int32_t blocks, int32_t n_layer, expand_spec *out,
                       cmc_error *err) {
    *out = (expand_spec){.merge = merge};
    if (blocks < 1 || blocks > n_layer || n_layer % blocks != 0)
        return cmc_fail(err, CMC_E_ARG, "%d blocks for a model of %d layers; a number that divides them would be right",
                        blocks, n_layer);
    if (kind == EXPAND_HYBRID && blocks < 2)
        return cmc_fail(err, CMC_E_ARG, "a hybrid has blocks behind layers and beside them; it takes 2 at least");
    out->v = cmc_calloc((size_t)blocks, sizeof *out->v);
    if (!out->v)
        return cmc_fail_nomem(err, "the list of blocks", (size_t)blocks * sizeof *out->v);
    out->n = (size_t)blocks;
    for (int32_t i = 0; i < blocks; i++)
        out->v[i] = (cmc_expand_point){.layer = (i + 1) * (n_layer / blocks) - 1,
                                       .stack = kind == EXPAND_STACK || (kind == EXPAND_HYBRID && i % 2 == 0)};
    return CMC_OK;
}
