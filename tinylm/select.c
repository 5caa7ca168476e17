/* Layers and modules by name. */
#include "tinylm/select.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/mem.h"

/* What the option calls it, and what its tensors' names begin with: in a layer, after "blk.N.". */
static const struct {
    const char *name, *tensor;
} select_module[SELECT_MODULES] = {
    [SELECT_Q] = {"q", "attn_q."},           [SELECT_K] = {"k", "attn_k."},
    [SELECT_V] = {"v", "attn_v."},           [SELECT_O] = {"o", "attn_output."},
    [SELECT_GATE] = {"gate", "ffn_gate."},   [SELECT_UP] = {"up", "ffn_up."},
    [SELECT_DOWN] = {"down", "ffn_down."},   [SELECT_NORMS] = {"norms", ""},
    [SELECT_EMBEDDINGS] = {"embeddings", ""}, [SELECT_OUTPUT] = {"output", ""},
};

/* ------------------------------------------------------------------------------------------------ modules */

/* "q, k, v": the first n names. */
static void select_say(size_t n, char *out, size_t size) {
    size_t at = 0;
    out[0] = '\0';
    for (size_t i = 0; i < n && at < size; i++)
        at += (size_t)snprintf(out + at, size - at, "%s%s", i ? ", " : "", select_module[i].name);
}

cmc_status select_names(const char *list, size_t n, const char *what, uint32_t *bits, cmc_error *err) {
    char names[100];
    select_say(n, names, sizeof names);
    *bits = 0;
    while (*list) {
        size_t len = strcspn(list, ","), i = 0;
        while (i < n && (strlen(select_module[i].name) != len || memcmp(select_module[i].name, list, len) != 0))
            i++;
        if (i == n)
            return cmc_fail(err, CMC_E_ARG, "\"%.*s\" is no %s: %s", (int)(len > 60 ? 60 : len), list, what, names);
        *bits |= 1u << i;
        list += len;
        list += *list == ',';
    }
    return *bits ? CMC_OK : cmc_fail(err, CMC_E_ARG, "\"\" is no %s: %s", what, names);
}

/* ------------------------------------------------------------------------------------------------- layers */

static cmc_status select_bad_layers(const char *list, int32_t n_layer, cmc_error *err) {
    return cmc_fail(err, CMC_E_ARG, "\"%.60s\" is no choice of layers: A-B%%, a part of the depth, or indices and ranges of "
                    "them up to %d, 0,2,4-6 say", list, n_layer - 1);
}

/* "A-B%": false where it is none that holds a layer. */
static bool select_percent(const char *list, selection *s) {
    char *end;
    double lo = strtod(list, &end);
    if (end == list || *end != '-')
        return false;
    const char *second = end + 1;
    double hi = strtod(second, &end);
    if (end == second || end[0] != '%' || end[1] != '\0' || !(lo >= 0.0 && lo < hi && hi <= 100.0))
        return false;
    int32_t from = (int32_t)(lo * s->n_layer / 100.0 + 1e-9), to = (int32_t)(hi * s->n_layer / 100.0 + 1e-9);
    for (int32_t i = from; i < to; i++)
        s->layers[i] = 1;
    return from < to;
}

/* "I" or "I-J", up to a comma or the end; what follows it, NULL where it is none. */
static const char *select_range(const char *at, selection *s) {
    char *end;
    long lo = strtol(at, &end, 10), hi = lo;
    if (end == at || *at < '0' || *at > '9')
        return NULL;
    if (*end == '-') {
        at = end + 1;
        hi = strtol(at, &end, 10);
        if (end == at || *at < '0' || *at > '9')
            return NULL;
    }
    if (lo > hi || hi >= s->n_layer || (*end != ',' && *end != '\0') || (*end == ',' && end[1] == '\0'))
        return NULL;
    for (long i = lo; i <= hi; i++)
        s->layers[i] = 1;
    return end + (*end == ',');
}

static cmc_status select_layers(const char *list, selection *s, cmc_error *err) {
    if (strchr(list, '%'))
        return select_percent(list, s) ? CMC_OK : select_bad_layers(list, s->n_layer, err);
    const char *at = list;
    do {
        at = select_range(at, s);
        if (!at)
            return select_bad_layers(list, s->n_layer, err);
    } while (*at);
    return CMC_OK;
}

cmc_status select_parse(const char *layers, const char *modules, int32_t n_layer, bool tied, selection *out, cmc_error *err) {
    *out = (selection){.n_layer = n_layer, .modules = (1u << SELECT_MODULES) - 1};
    out->layers = cmc_calloc((size_t)n_layer, sizeof *out->layers);
    if (!out->layers)
        return cmc_fail_nomem(err, "a choice of layers", (size_t)n_layer);
    cmc_status st = CMC_OK;
    if (layers) {
        out->modules &= ~(1u << SELECT_EMBEDDINGS | 1u << SELECT_OUTPUT);
        st = select_layers(layers, out, err);
    } else {
        memset(out->layers, 1, (size_t)n_layer);
    }
    if (st == CMC_OK && modules)
        st = select_names(modules, SELECT_MODULES, "module that can be trained", &out->modules, err);
    if (tied && out->modules >> SELECT_OUTPUT & 1)
        out->modules |= 1u << SELECT_EMBEDDINGS;
    if (st != CMC_OK)
        select_free(out);
    return st;
}

void select_free(selection *s) {
    free(s->layers);
    memset(s, 0, sizeof *s);
}

char *select_setting(const char *layers, const char *modules) {
    char *s;
    if (!layers && !modules)
        return cmc_strndup("", 0);
    return asprintf(&s, "trained layers %s modules %s\n", layers ? layers : "all", modules ? modules : "all") < 0 ? NULL : s;
}

/* ------------------------------------------------------------------------------------------------ tensors */

/* "blk.N.REST": N, and where REST begins; -1 for a tensor outside of the layers. */
static long select_layer(const char *name, const char **rest) {
    char *end;
    if (strncmp(name, "blk.", 4) != 0)
        return -1;
    long layer = strtol(name + 4, &end, 10);
    *rest = end + 1;
    return layer;
}

bool select_has(const selection *s, const char *name) {
    const char *rest;
    long layer = select_layer(name, &rest);
    if (layer < 0)
        return s->modules >> (strncmp(name, "token_embd.", 11) == 0 ? SELECT_EMBEDDINGS : SELECT_OUTPUT) & 1;
    size_t module = SELECT_NORMS;
    for (size_t i = 0; i < SELECT_MATRICES; i++)
        if (strncmp(rest, select_module[i].tensor, strlen(select_module[i].tensor)) == 0)
            module = i;
    return layer < s->n_layer && s->layers[layer] && (s->modules >> module & 1);
}

static size_t select_part(const char *name, int32_t n_layer) {
    const char *rest;
    long layer = select_layer(name, &rest);
    if (layer < 0)
        return strncmp(name, "token_embd.", 11) == 0 ? 0 : 1 + 2 * (size_t)n_layer;
    bool ffn = strncmp(rest, "ffn_", 4) == 0 || strncmp(rest, "post_ffw_", 9) == 0;
    return 1 + 2 * (size_t)layer + ffn;
}

size_t select_lowest(const params *p, int32_t n_layer) {
    size_t lowest = SIZE_MAX;
    for (size_t i = 0; i < p->n_tensors; i++) {
        size_t part = select_part(p->tensors[i].name, n_layer);
        if (p->tensors[i].trained && part < lowest)
            lowest = part;
    }
    return lowest;
}

void select_apply(const selection *s, params *p) {
    p->n_trained = 0;
    for (size_t i = 0; i < p->n_tensors; i++) {
        params_tensor *t = &p->tensors[i];
        t->trained = select_has(s, t->name);
        p->n_trained += t->trained ? t->n_out * t->n_in : 0;
    }
    p->lowest = select_lowest(p, s->n_layer);
}
