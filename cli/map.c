/* cmc map: how a delta's vocabulary reaches a host's. */
#include "cli/cli.h"
#include "cli/json.h"
#include "cli/map_entry.h"
#include "cli/map_report.h"
#include "cli/map_stats.h"
#include "cli/steer.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

typedef struct map_args {
    common_args common;
    const char *rule, *list, *override, *ids, *report, *text, *explain;
} map_args;

static const char map_default_rule[] = "default";

static const arg_opt map_opts[] = {
    {.name = "rule", .kind = ARG_STR, .at = offsetof(map_args, rule), .value = "default|prefix|reference",
     .help = "on bytes and roles, where text that is no delta token goes by the first token of the delta's tokenizer (default) or by "
             "the nearest prefix, as in the paper (prefix); or on spellings, as the paper's code does (reference)",
     .choices = "default|prefix|reference", .show_default = true},
    {.name = "map", .file = ARG_READS, .kind = ARG_STR, .at = offsetof(map_args, list), .value = "FILE",
     .help = "read the map from a list that --ids or the paper's code wrote (one2one) in place of building it"},
    {.name = "override", .file = ARG_READS, .kind = ARG_STR, .at = offsetof(map_args, override), .value = "FILE",
     .help = "then apply hand edits, a line each: TOKEN -> TOKEN, or TOKEN -> none; a token is its id in digits or its "
             "spelling as a JSON string (\"\\u2581the\", \"<0x0A>\"), and # begins a comment"},
    {.name = "ids", .file = ARG_WRITES, .kind = ARG_STR, .at = offsetof(map_args, ids), .value = "FILE",
     .help = "write the map: a JSON list with a delta id for every host id, -1 for none"},
    {.name = "report", .file = ARG_WRITES, .kind = ARG_STR, .at = offsetof(map_args, report), .value = "FILE",
     .help = "write a page for people where FILE ends in .html: will the pair work, what maps how far, and what not; "
             "else the counts and every host token with what it maps to, as JSON"},
    {.name = "text", .file = ARG_READS, .kind = ARG_STR, .at = offsetof(map_args, text), .value = "FILE",
     .help = "weigh by how often the host's tokens stand in this text (-: standard input): what counts is the text "
             "that you mean to steer"},
    {.name = "explain", .kind = ARG_STR, .at = offsetof(map_args, explain), .value = "TEXT",
     .help = "show what each of the host's tokens of TEXT maps to, how it was found, and how far it reaches"},
    {.name = NULL},
};

/* What is shown and written of a map. */
typedef struct map_job {
    const map_args *args;
    map_view view;
    bool has_text;
    cmc_ids text, explained;      /* the host's tokens of --text and --explain */
} map_job;

/* ------------------------------------------------------------------------------------------------------- counts */

static const cmc_map_how map_how_order[] = {CMC_HOW_ROLE, CMC_HOW_BYTE, CMC_HOW_EXACT, CMC_HOW_PREFIX, CMC_HOW_NONE,
                                            CMC_HOW_OVERRIDE};

static void map_by_how(const cmc_map_counts *c, int64_t by_how[STATS_HOWS]) {
    by_how[CMC_HOW_NONE] = c->none;
    by_how[CMC_HOW_ROLE] = c->role;
    by_how[CMC_HOW_BYTE] = c->byte;
    by_how[CMC_HOW_EXACT] = c->exact;
    by_how[CMC_HOW_PREFIX] = c->prefix;
    by_how[CMC_HOW_OVERRIDE] = c->override_;
}

static void map_set_hows(jbuild *o, const int64_t by_how[STATS_HOWS]) {
    for (size_t i = 0; i < STATS_HOWS; i++)
        jset_int(o, map_how_name(map_how_order[i]), by_how[map_how_order[i]]);
}

static jbuild map_counts_json(const map_job *j) {
    const map_view *v = &j->view;
    jbuild o = jobject();
    int64_t by_how[STATS_HOWS];
    jset_string(&o, "host", v->host_path);
    jset_string(&o, "delta", v->delta_path);
    jset_int(&o, "n_host", v->counts.n_host);
    jset_int(&o, "n_delta", v->counts.n_delta);
    map_by_how(&v->counts, by_how);
    map_set_hows(&o, by_how);
    jset(&o, "identity", json_boolean(v->counts.identity));
    if (j->has_text) {
        jbuild text = jobject();
        map_text_counts(v->map, &j->text, by_how);
        jset_int(&text, "tokens", (int64_t)j->text.n);
        map_set_hows(&text, by_how);
        jset_built(&o, "text", text);
    }
    return o;
}

static int map_show(const map_job *j) {
    const map_view *v = &j->view;
    const char *same = v->counts.identity ? "        every token maps to its own id\n" : "";
    int64_t by_how[STATS_HOWS], in_text[STATS_HOWS];
    map_by_how(&v->counts, by_how);
    map_text_counts(v->map, &j->text, in_text);
    int rc = out_printf("host    %s, %" PRId32 " tokens\ndelta   %s, %" PRId32 " tokens\n%s", v->host_path,
                        v->counts.n_host, v->delta_path, v->counts.n_delta, same);
    if (rc == CLI_OK && j->has_text)
        rc = out_printf("text    %s, %zu tokens\n%-8s %16s %18s\n", j->args->text, j->text.n, "", "vocabulary", "text");
    for (size_t i = 0; i < STATS_HOWS && rc == CLI_OK; i++) {
        cmc_map_how how = map_how_order[i];
        if (how == CMC_HOW_OVERRIDE && !by_how[how])
            continue;
        rc = out_printf("%-8s %8" PRId64 "  %5.1f %%", map_how_name(how), by_how[how],
                        100 * (double)by_how[how] / v->counts.n_host);
        if (rc == CLI_OK && j->has_text)
            rc = out_printf(" %10" PRId64 "  %5.1f %%", in_text[how], 100 * (double)in_text[how] / (double)j->text.n);
        if (rc == CLI_OK)
            rc = out_bytes("\n", 1);
    }
    if (rc == CLI_OK)
        rc = v->rule ? out_printf("built in %.3f s\n", v->counts.seconds) : out_printf("read from %s\n", j->args->list);
    return rc;
}

/* ------------------------------------------------------------------------------------------------------- results */

/* --report: the page, or the counts (less the time, which would make two files of one map differ) and all entries. */
static int map_write_report(const map_job *j) {
    if (map_report_is_html(j->args->report))
        return map_report_html(&j->view, j->has_text ? &j->text : NULL, j->args->text, j->args->report);
    jbuild o = map_counts_json(j), entries = jarray();
    for (int32_t id = 0; id < j->view.counts.n_host; id++)
        jadd_built(&entries, map_entry_json(&j->view, id));
    jset_built(&o, "entries", entries);
    return jwrite(o, j->args->report);
}

static int map_write_files(const map_job *j) {
    cmc_error err = {0};
    if (j->args->ids && cmc_map_export(j->view.map, j->args->ids, &err) != CMC_OK)
        return cli_error(NULL, &err);
    return j->args->report ? map_write_report(j) : CLI_OK;
}

static int map_print(const map_job *j) {
    int rc;
    if (j->args->common.json) {
        jbuild o = map_counts_json(j);
        jset_real(&o, "seconds", j->view.counts.seconds);
        if (j->args->explain)
            jset_built(&o, "explain", map_explain_json(&j->view, &j->explained));
        return jout(o);
    }
    rc = map_show(j);
    return rc || !j->args->explain ? rc : map_explain(&j->view, &j->explained);
}

/* ----------------------------------------------------------------------------------------------------- the verb */

static int map_read_text(map_job *j) {
    char *text;
    size_t len;
    cmc_error err = {0};
    int rc = cli_read_file(j->args->text, &text, &len);
    if (rc)
        return rc;
    if (cmc_tokenize(j->view.host, text, len, 0, &j->text, &err) != CMC_OK)
        rc = cli_error(j->args->text, &err);
    else if (j->text.n == 0)
        rc = cli_failed("%s: is empty; to weigh tokens by, it should hold some text",
                        strcmp(j->args->text, "-") ? j->args->text : "standard input");
    free(text);
    j->has_text = rc == CLI_OK;
    return rc;
}

static int map_open(map_job *j) {
    const map_args *a = j->args;
    map_view *v = &j->view;
    cmc_error err = {0};
    cmc_map_rule rule = strcmp(a->rule, "reference") == 0 ? CMC_RULE_REFERENCE
                        : strcmp(a->rule, "prefix") == 0  ? CMC_RULE_PREFIX
                                                          : CMC_RULE_DEFAULT;
    if (cmc_vocab_open(v->host_path, &v->host, &err) != CMC_OK ||
        cmc_vocab_open(v->delta_path, &v->delta, &err) != CMC_OK)
        return cli_error(NULL, &err);
    int rc = steer_map_open(v->host, v->delta, rule, a->list, a->override, &v->map);
    if (rc)
        return rc;
    cmc_map_counts_get(v->map, &v->counts);
    if (a->text && (rc = map_read_text(j)) != CLI_OK)
        return rc;
    if (a->explain && cmc_tokenize(v->host, a->explain, strlen(a->explain), CMC_TOK_SPECIAL, &j->explained, &err) !=
                          CMC_OK)
        return cli_error(NULL, &err);
    return CLI_OK;
}

static int map_main(void *opts, const arg_list *operands) {
    const map_args *a = opts;
    if (operands->n != 2)
        return cli_usage("map takes two files, HOST and DELTA, not %zu", operands->n);
    if (a->list && a->rule != map_default_rule)   /* the default's very string: no --rule was given */
        return cli_usage("--map: the list is taken as it is, and no --rule has a part in it; leave one of the two out");
    map_job j = {.args = a, .view = {.host_path = operands->v[0], .delta_path = operands->v[1],
                                     .rule = a->list ? NULL : a->rule, .override = a->override}};
    int rc = map_open(&j);
    if (rc == CLI_OK)
        rc = map_write_files(&j);
    if (rc == CLI_OK)
        rc = map_print(&j);
    cmc_ids_free(&j.text);
    cmc_ids_free(&j.explained);
    cmc_map_free(j.view.map);
    cmc_vocab_free(j.view.delta);
    cmc_vocab_free(j.view.host);
    return rc;
}

static void map_defaults(void *opts) {
    map_args *a = opts;
    a->rule = map_default_rule;
}

static const arg_group map_groups[] = {
    {"Options", map_opts, 0},
    {"Every verb", common_opts, offsetof(map_args, common)},
};

const arg_verb verb_map = {
    .name = "map",
    .usage = "HOST DELTA [--rule RULE | --map FILE] [--override FILE] [--ids FILE] [--report FILE] [--text FILE] "
             "[--explain TEXT] [options]",
    .summary = "the token map from a host to a delta",
    .text = "Builds the map from each of the host's tokens to one of the delta's and counts how they were found: by "
            "role (end of text), as a byte, with the same bytes, by how its text begins (prefix), set by hand, or not at all. "
            "HOST and DELTA are GGUF files, SentencePiece .model files or Hugging Face tokenizer.json files.",
    .example = "cmc map host.gguf delta.gguf --text my.txt --report map.html --explain \"Hello, world\"",
    .groups = map_groups,
    .n_groups = sizeof map_groups / sizeof *map_groups,
    .size = sizeof(map_args),
    .defaults = map_defaults,
    .operands_are_files = true,
    .main = map_main,
};
