/* cmc map: how a delta's vocabulary reaches a host's. */
#include "cli/cli.h"
#include "cli/json.h"
#include "cli/text.h"

#include <inttypes.h>
#include <string.h>

typedef struct map_args {
    common_args common;
    const char *rule, *ids, *report, *explain;
} map_args;

static const arg_opt map_opts[] = {
    {.name = "rule", .kind = ARG_STR, .at = offsetof(map_args, rule), .value = "default|reference",
     .help = "on bytes and roles (default), or on spellings as the paper's code does (reference)",
     .choices = "default|reference", .show_default = true},
    {.name = "ids", .kind = ARG_STR, .at = offsetof(map_args, ids), .value = "FILE",
     .help = "write the map: a JSON list with a delta id for every host id, -1 for none"},
    {.name = "report", .kind = ARG_STR, .at = offsetof(map_args, report), .value = "FILE",
     .help = "write the counts and every host token with what it maps to, as JSON"},
    {.name = "explain", .kind = ARG_STR, .at = offsetof(map_args, explain), .value = "TEXT",
     .help = "show what each of the host's tokens of TEXT maps to, and why"},
    {.name = NULL},
};

static const char *map_how_name(cmc_map_how how)
{
    switch (how) {
    case CMC_HOW_ROLE: return "role";
    case CMC_HOW_BYTE: return "byte";
    case CMC_HOW_EXACT: return "exact";
    case CMC_HOW_PREFIX: return "prefix";
    case CMC_HOW_OVERRIDE: return "override";
    case CMC_HOW_NONE: break;
    }
    return "none";
}

/* -------------------------------------------------------------------------------------------------- --explain */

static json_t *map_spelling_json(const cmc_vocab *v, int32_t id)
{
    size_t n;
    const char *s = cmc_vocab_spelling(v, id, &n);
    return jpiece((const uint8_t *)s, n);
}

static jbuild map_entry_json(const cmc_map *m, const cmc_vocab *host, const cmc_vocab *delta, int32_t id)
{
    jbuild o = jobject();
    cmc_map_how how;
    int32_t distance, to = cmc_map_get(m, id, &how, &distance);
    jset_int(&o, "id", id);
    jset(&o, "piece", map_spelling_json(host, id));
    jset(&o, "delta_id", to < 0 ? json_null() : json_integer(to));
    jset(&o, "delta_piece", to < 0 ? json_null() : map_spelling_json(delta, to));
    jset_string(&o, "how", map_how_name(how));
    jset(&o, "distance", to < 0 ? json_null() : json_integer(distance));
    return o;
}

static jbuild map_explain_json(const cmc_map *m, const cmc_vocab *host, const cmc_vocab *delta, const cmc_ids *ids)
{
    jbuild a = jarray();
    for (size_t i = 0; i < ids->n; i++)
        jadd_built(&a, map_entry_json(m, host, delta, ids->v[i]));
    return a;
}

static int map_cell(const cmc_vocab *v, int32_t id, int width)
{
    size_t n = 0;
    int columns = 0;
    const char *s = cmc_vocab_spelling(v, id, &n);
    int rc = out_printf("%7" PRId32 " ", id);
    if (rc == CLI_OK)
        rc = text_quote(s, n, &columns);
    return rc ? rc : text_put("", 0, width > columns ? width - columns : 0, false);
}

static int map_explain(const cmc_map *m, const cmc_vocab *host, const cmc_vocab *delta, const cmc_ids *ids)
{
    int rc = out_printf("\n%7s %-20s   %7s %-20s  %-8s %s\n", "host", "token", "delta", "token", "how", "distance");
    for (size_t i = 0; i < ids->n && rc == CLI_OK; i++) {
        cmc_map_how how;
        int32_t distance, to = cmc_map_get(m, ids->v[i], &how, &distance);
        rc = map_cell(host, ids->v[i], 20);
        if (rc == CLI_OK)
            rc = out_bytes("   ", 3);
        if (rc == CLI_OK)
            rc = to < 0 ? out_printf("%7s %-20s", "-", "") : map_cell(delta, to, 20);
        if (rc == CLI_OK && to >= 0)
            rc = out_printf("  %-8s %" PRId32 "\n", map_how_name(how), distance);
        else if (rc == CLI_OK)
            rc = out_printf("  none\n");
    }
    return rc;
}

/* ----------------------------------------------------------------------------------------------------- the verb */

static jbuild map_counts_json(const char *const path[2], const cmc_map_counts *c)
{
    jbuild o = jobject();
    jset_string(&o, "host", path[0]);
    jset_string(&o, "delta", path[1]);
    jset_int(&o, "n_host", c->n_host);
    jset_int(&o, "n_delta", c->n_delta);
    jset_int(&o, "role", c->role);
    jset_int(&o, "byte", c->byte);
    jset_int(&o, "exact", c->exact);
    jset_int(&o, "prefix", c->prefix);
    jset_int(&o, "none", c->none);
    jset(&o, "identity", json_boolean(c->identity));
    jset_real(&o, "seconds", c->seconds);
    return o;
}

/* --report: the counts, less the time, which would make two files of one map differ, and all entries. */
static int map_write_report(const char *file, const char *const path[2], const cmc_map *m, const cmc_vocab *host,
                            const cmc_vocab *delta, const cmc_map_counts *c)
{
    jbuild o = map_counts_json(path, c), entries = jarray();
    json_object_del(o.j, "seconds");
    for (int32_t id = 0; id < c->n_host; id++)
        jadd_built(&entries, map_entry_json(m, host, delta, id));
    jset_built(&o, "entries", entries);
    return jwrite(o, file);
}

static int map_show(const char *const path[2], const cmc_map_counts *c)
{
    double all = c->n_host > 0 ? c->n_host : 1;
    const char *same = c->identity ? "        the vocabularies are the same: every token maps to itself\n" : "";
    int rc = out_printf("host    %s, %" PRId32 " tokens\ndelta   %s, %" PRId32 " tokens\n%s", path[0], c->n_host,
                        path[1], c->n_delta, same);
    const struct { const char *what; int32_t n; } rows[] = {
        {"role", c->role}, {"byte", c->byte}, {"exact", c->exact}, {"prefix", c->prefix}, {"none", c->none}};
    for (size_t i = 0; i < sizeof rows / sizeof *rows && rc == CLI_OK; i++)
        rc = out_printf("%-7s %8" PRId32 "  %5.1f %%\n", rows[i].what, rows[i].n, 100 * rows[i].n / all);
    return rc ? rc : out_printf("built in %.3f s\n", c->seconds);
}

static int map_results(const map_args *a, const char *const path[2], const cmc_map *m, const cmc_vocab *host,
                      const cmc_vocab *delta)
{
    cmc_map_counts counts;
    cmc_ids ids = {0};
    cmc_error err = {0};
    int rc;
    cmc_map_counts_get(m, &counts);
    if (a->report && (rc = map_write_report(a->report, path, m, host, delta, &counts)) != CLI_OK)
        return rc;
    if (a->explain && cmc_tokenize(host, a->explain, strlen(a->explain), CMC_TOK_SPECIAL, &ids, &err) != CMC_OK) {
        rc = cli_error(NULL, &err);
    } else if (a->common.json) {
        jbuild o = map_counts_json(path, &counts);
        if (a->explain)
            jset_built(&o, "explain", map_explain_json(m, host, delta, &ids));
        rc = jout(o);
    } else {
        rc = map_show(path, &counts);
        if (rc == CLI_OK && a->explain)
            rc = map_explain(m, host, delta, &ids);
    }
    cmc_ids_free(&ids);
    return rc;
}

static int map_main(void *opts, const arg_list *operands)
{
    const map_args *a = opts;
    cmc_vocab *host = NULL, *delta = NULL;
    cmc_map *m = NULL;
    cmc_error err = {0};
    cmc_map_rule rule = strcmp(a->rule, "reference") == 0 ? CMC_RULE_REFERENCE : CMC_RULE_DEFAULT;
    int rc;
    if (operands->n != 2)
        return cli_usage("map takes two files, HOST and DELTA, not %zu", operands->n);
    const char *const path[2] = {operands->v[0], operands->v[1]};
    if (cmc_vocab_open(path[0], &host, &err) != CMC_OK || cmc_vocab_open(path[1], &delta, &err) != CMC_OK ||
        cmc_map_build(host, delta, rule, &m, &err) != CMC_OK ||
        (a->ids && cmc_map_export(m, a->ids, &err) != CMC_OK))
        rc = cli_error(NULL, &err);
    else
        rc = map_results(a, path, m, host, delta);
    cmc_map_free(m);
    cmc_vocab_free(delta);
    cmc_vocab_free(host);
    return rc;
}

static void map_defaults(void *opts)
{
    map_args *a = opts;
    a->rule = "default";
}

static const arg_group map_groups[] = {
    {"Options", map_opts, 0},
    {"Every verb", common_opts, offsetof(map_args, common)},
};

const arg_verb verb_map = {
    .name = "map",
    .usage = "HOST DELTA [--rule RULE] [--ids FILE] [--report FILE] [--explain TEXT] [options]",
    .summary = "the token map from a host to a delta",
    .text = "Builds the map from each of the host's tokens to one of the delta's and counts how they were found: by "
            "role (end of text), as a byte, with the same bytes, by the nearest prefix, or not at all. HOST and DELTA "
            "are GGUF files or SentencePiece .model files.",
    .example = "cmc map host.gguf delta.gguf --explain \"Hello, world\"",
    .groups = map_groups,
    .n_groups = sizeof map_groups / sizeof *map_groups,
    .size = sizeof(map_args),
    .defaults = map_defaults,
    .main = map_main,
};
