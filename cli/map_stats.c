/* Counting a map's entries. */
#include "cli/map_stats.h"
#include "cli/map_script.h"

#include <stdlib.h>
#include <string.h>

static const struct { const char *name; int32_t most; } stats_distances[STATS_STEPS] = {
    {"1", 1}, {"2", 2}, {"3", 3}, {"4", 4}, {"5-6", 6}, {"7-10", 10}, {"11-20", 20}, {"over 20", INT32_MAX}};
static const struct { const char *name; int32_t most; } stats_fans[STATS_STEPS] = {
    {"0", 0}, {"1", 1}, {"2", 2}, {"3-4", 4}, {"5-9", 9}, {"10-49", 49}, {"50-199", 199}, {"over 199", INT32_MAX}};

const char *map_distance_name(size_t step) {
    return stats_distances[step].name;
}

const char *map_fan_name(size_t step) {
    return stats_fans[step].name;
}

const char *map_kind_name(cmc_token_kind kind) {
    static const char *const names[STATS_KINDS] = {"normal", "control", "byte", "user-defined", "unused"};
    return names[kind];
}

void map_text_counts(const cmc_map *m, const cmc_ids *ids, int64_t by_how[STATS_HOWS]) {
    memset(by_how, 0, STATS_HOWS * sizeof *by_how);
    for (size_t i = 0; i < ids->n; i++) {
        cmc_map_how how;
        cmc_map_get(m, ids->v[i], &how, NULL);
        by_how[how]++;
    }
}

/* ---------------------------------------------------------------------------------------------------- extremes */

/* Keeps `id` among the greatest by `value`, in order; of equal ones the earlier stays before. */
typedef struct stats_top { map_list *list; double value[STATS_WORST]; } stats_top;

static void stats_offer(stats_top *t, int32_t id, double value) {
    map_list *l = t->list;
    size_t at = l->n;
    if (!(value > 0) || (l->n == STATS_WORST && !(value > t->value[l->n - 1])))
        return;
    l->n += l->n < STATS_WORST;
    if (at == STATS_WORST)
        at--;
    for (; at > 0 && t->value[at - 1] < value; at--) {
        t->value[at] = t->value[at - 1];
        l->id[at] = l->id[at - 1];
    }
    t->value[at] = value;
    l->id[at] = id;
}

/* ----------------------------------------------------------------------------------------------------- counting */

static void stats_add(map_count *c, int64_t uses) {
    c->tokens++;
    c->uses += uses;
}

static void stats_reach(map_reach *r, cmc_map_how how, bool same, int64_t uses) {
    stats_add(&r->all, uses);
    stats_add(how == CMC_HOW_NONE ? &r->none : same ? &r->same : &r->near, uses);
    if (how == CMC_HOW_PREFIX)
        stats_add(&r->prefix, uses);
}

static size_t stats_distance_step(int32_t distance) {
    size_t k = 0;
    while (distance > stats_distances[k].most)
        k++;
    return k;
}

static size_t stats_fan_step(int32_t n) {
    size_t k = 0;
    while (n > stats_fans[k].most)
        k++;
    return k;
}

static void stats_host(const map_view *v, const map_scripts *scripts, map_stats *s) {
    stats_top far = {.list = &s->far}, costly = {.list = &s->costly}, missed = {.list = &s->missed};
    for (int32_t id = 0; id < v->counts.n_host; id++) {
        cmc_map_how how;
        int32_t distance, to = cmc_map_get(v->map, id, &how, &distance);
        int64_t uses = s->uses ? s->uses[id] : 0;
        bool same = map_same_text(v, id, to);
        size_t n;
        const uint8_t *bytes = cmc_vocab_bytes(v->host, id, &n);
        stats_add(&s->how[how], uses);
        stats_add(&s->kind[cmc_vocab_kind(v->host, id)][how], uses);
        stats_reach(&s->all, how, same, uses);
        stats_reach(&s->script[map_script_of(scripts, bytes, n)], how, same, uses);
        if (how == CMC_HOW_PREFIX) {
            stats_add(&s->distance[stats_distance_step(distance)], uses);
            stats_offer(&far, id, distance);
            stats_offer(&costly, id, (double)distance * (double)uses);
        }
        if (how == CMC_HOW_NONE)
            stats_offer(&missed, id, (double)uses);
        if (to >= 0)
            s->fan_in[to]++;
    }
}

static void stats_delta(const map_view *v, map_stats *s) {
    stats_top loaded = {.list = &s->loaded};
    for (int32_t id = 0; id < v->counts.n_delta; id++) {
        s->fan[stats_fan_step(s->fan_in[id])]++;
        if (s->fan_in[id] > 1)
            stats_offer(&loaded, id, s->fan_in[id]);
    }
}

int map_stats_make(const map_view *v, const cmc_ids *ids, map_stats *out) {
    *out = (map_stats){.text = ids != NULL};
    map_scripts *scripts = map_scripts_new();
    out->script = calloc(map_scripts_count(), sizeof *out->script);
    out->fan_in = calloc((size_t)v->counts.n_delta, sizeof *out->fan_in);
    out->uses = ids ? calloc((size_t)v->counts.n_host, sizeof *out->uses) : NULL;
    if (!scripts || !out->script || !out->fan_in || (ids && !out->uses)) {
        map_scripts_free(scripts);
        map_stats_free(out);
        return cli_no_memory();
    }
    for (size_t i = 0; ids && i < ids->n; i++)
        out->uses[ids->v[i]]++;
    stats_host(v, scripts, out);
    stats_delta(v, out);
    map_scripts_free(scripts);
    return CLI_OK;
}

void map_stats_free(map_stats *s) {
    free(s->uses);
    free(s->fan_in);
    free(s->script);
    memset(s, 0, sizeof *s);
}
