/* How a coarse search grows, and its file. */
#include "cli/search_tree.h"

#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "cli/cli.h"

/* ------------------------------------------------------------------------------------------------- growing */

#define SEARCH_ALL "q,k,v,up,down"   /* what the paper's code trains; o, gate, norms and embeddings stay */
#define SEARCH_ATTENTION "q,k,v"
#define SEARCH_FFN "up,down"

static void search_add(search_tree *t, int parent, const char *layers, const char *modules) {
    t->node[t->n++] = (search_node){.layers = layers, .modules = modules, .parent = parent,
                                    .level = parent < 0 ? 0 : t->node[parent].level + 1};
}

void search_begin(search_tree *t, int n_layer, double floor, char *settings) {
    *t = (search_tree){.n_layer = n_layer, .floor = floor, .settings = settings, .base_new = NAN, .base_old = NAN};
    search_add(t, -1, NULL, SEARCH_ALL);
    t->node[0].kept = true;
}

void search_free(search_tree *t) {
    free(t->settings);
    *t = (search_tree){0};
}

/* Quarters and halves of the depth, those of a model of few layers that hold none or the same as one before left out. */
static void search_add_windows(search_tree *t, int node) {
    static const struct {
        const char *layers;
        int lo, hi;
    } window[] = {{"0-25%", 0, 25},  {"25-50%", 25, 50}, {"50-75%", 50, 75}, {"75-100%", 75, 100},
                  {"0-50%", 0, 50}, {"25-75%", 25, 75}, {"50-100%", 50, 100}};
    enum { WINDOWS = sizeof window / sizeof *window };
    for (size_t i = 0; i < WINDOWS; i++) {
        int lo = window[i].lo * t->n_layer / 100, hi = window[i].hi * t->n_layer / 100;
        bool use = lo < hi;
        for (size_t k = 0; k < i && use; k++)
            use = window[k].lo * t->n_layer / 100 != lo || window[k].hi * t->n_layer / 100 != hi;
        if (use)
            search_add(t, node, window[i].layers, SEARCH_ALL);
    }
}

int search_expand(search_tree *t, int node) {
    const search_node *from = &t->node[node];
    int before = t->n;
    if (!from->layers) {
        search_add_windows(t, node);
    } else if (strcmp(from->modules, SEARCH_ALL) == 0) {
        search_add(t, node, from->layers, SEARCH_ATTENTION);
        search_add(t, node, from->layers, SEARCH_FFN);
    } else if (strcmp(from->modules, SEARCH_FFN) == 0) {
        search_add(t, node, from->layers, "up");
        search_add(t, node, from->layers, "down");
    }
    return t->n - before;
}

int search_next(const search_tree *t, int node) {
    int best = node;
    for (int i = node + 1; i < t->n; i++)
        if (t->node[i].parent == node && t->node[i].spec >= t->floor * t->node[0].spec &&
            search_uni(&t->node[i]) > search_uni(&t->node[best]))
            best = i;
    return best == node ? -1 : best;
}

/* ---------------------------------------------------------------------------------------------------- file */

static const char *search_layers(const search_node *n) {
    return n->layers ? n->layers : "all";
}

static jbuild search_json(const search_node *n) {
    jbuild o = jobject();
    jset_string(&o, "layers", search_layers(n));
    jset_string(&o, "modules", n->modules);
    jset_int(&o, "level", n->level);
    jset_int(&o, "params", (int64_t)n->params);
    jset_real(&o, "spec", n->spec);
    jset_real(&o, "vers", n->vers);
    jset_real(&o, "uni", search_uni(n));
    jset_real(&o, "seconds", n->seconds);
    jset(&o, "kept", json_boolean(n->kept));
    return o;
}

int search_save(const search_tree *t, const char *path) {
    jbuild o = jobject(), nodes = jarray();
    for (int i = 0; i < t->n; i++)
        if (t->node[i].done)
            jadd_built(&nodes, search_json(&t->node[i]));
    jset_string(&o, "settings", t->settings);
    jset_real(&o, "base_new", t->base_new);
    jset_real(&o, "base_old", t->base_old);
    jset_built(&o, "nodes", nodes);
    return jwrite(o, path);
}

int search_load(search_tree *t, const char *path, json_t **found) {
    json_error_t je;
    FILE *f = fopen(path, "rb");
    *found = NULL;
    if (!f)
        return errno == ENOENT ? CLI_OK : cli_failed("%s: %s", path, strerror(errno));
    json_t *j = json_loadf(f, 0, &je);
    fclose(f);
    const char *settings = j ? json_string_value(json_object_get(j, "settings")) : NULL;
    json_t *nodes = j ? json_object_get(j, "nodes") : NULL;
    int rc = CLI_OK;
    if (!settings || !json_is_array(nodes))
        rc = cli_failed("%s: is no file of cmc train-search; name another folder", path);
    else if (strcmp(settings, t->settings) != 0)
        rc = cli_failed("%s: a search with other settings or data is there; name another folder", path);
    if (rc == CLI_OK) {
        *found = json_incref(nodes);
        t->base_new = json_number_value(json_object_get(j, "base_new"));
        t->base_old = json_number_value(json_object_get(j, "base_old"));
    }
    json_decref(j);
    return rc;
}

void search_found(search_tree *t, int node, const json_t *found) {
    search_node *n = &t->node[node];
    json_t *one;
    size_t i;
    json_array_foreach(found, i, one) {
        const char *layers = json_string_value(json_object_get(one, "layers"));
        const char *modules = json_string_value(json_object_get(one, "modules"));
        const json_t *spec = json_object_get(one, "spec"), *vers = json_object_get(one, "vers");
        if (!layers || !modules || strcmp(layers, search_layers(n)) != 0 || strcmp(modules, n->modules) != 0 ||
            !json_is_number(spec) || !json_is_number(vers))
            continue;
        n->spec = json_number_value(spec);
        n->vers = json_number_value(vers);
        n->params = (uint64_t)json_integer_value(json_object_get(one, "params"));
        n->seconds = json_number_value(json_object_get(one, "seconds"));
        n->done = true;
    }
}

/* -------------------------------------------------------------------------------------------------- output */

static int search_row(const search_tree *t, int i, bool json) {
    const search_node *n = &t->node[i];
    char name[40];
    if (json)
        return jout(search_json(n));
    snprintf(name, sizeof name, "%*s%s", 2 * n->level, "", search_layers(n));
    return out_printf("%c %-14s %-14s %12" PRIu64 " %9.4f %9.4f %9.4f\n", n->kept ? '*' : ' ', name, n->modules, n->params,
                      n->spec, n->vers, search_uni(n));
}

static int search_branch(const search_tree *t, int i, bool json) {
    int rc = search_row(t, i, json);
    for (int k = i + 1; k < t->n && rc == CLI_OK; k++)
        if (t->node[k].parent == i)
            rc = search_branch(t, k, json);
    return rc;
}

int search_print(const search_tree *t, int best, bool json) {
    const search_node *n = &t->node[best];
    int rc = CLI_OK;
    if (!json)
        rc = out_printf("  %-14s %-14s %12s %9s %9s %9s\n", "layers", "modules", "trained", "spec", "vers", "uni");
    if (rc == CLI_OK)
        rc = search_branch(t, 0, json);
    if (rc)
        return rc;
    if (!json)
        return out_printf("best: %s%s%s--modules %s\n", n->layers ? "--layers " : "", n->layers ? n->layers : "",
                          n->layers ? " " : "", n->modules);
    jbuild o = jobject();
    jset_built(&o, "best", search_json(n));
    return jout(o);
}
