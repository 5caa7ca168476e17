/* cmc eval compare: two reports on the same records. */
#include "cli/eval.h"
#include "cli/jsonl.h"

#include <string.h>

typedef struct compare_args {
    common_args common;
    eval_args eval;
    const char *by;
    bool lower;
} compare_args;

static const arg_opt compare_opts[] = {
    {.name = "by", .kind = ARG_STR, .at = offsetof(compare_args, by), .value = "KEY",
     .help = "the figure to compare, a key of both files' lines: nll_per_token, rougeL_recall, passed, ..."},
    {.name = "lower", .kind = ARG_FLAG, .at = offsetof(compare_args, lower), .help = "lower is better"},
    {.name = NULL},
};

typedef struct compare_state {
    const compare_args *args;
    report report;
    column a, b, diff;      /* diff: B - A, the other way round with --lower: above 0 where B is better */
    size_t left_out;
} compare_state;

/* A report without its totals. */
static int compare_read(const char *path, jsonl *j) {
    size_t kept = 0;
    int rc = jsonl_read(path, j);
    if (rc)
        return rc;
    for (size_t i = 0; i < j->n; i++) {
        if (json_object_get(j->v[i], "total")) {
            json_decref(j->v[i]);
            continue;
        }
        j->line[kept] = j->line[i];
        j->v[kept++] = j->v[i];
    }
    j->n = kept;
    if (kept)
        return CLI_OK;
    jsonl_close(j);
    return cli_failed("%s: holds no record but a total", path);
}

/* "nll, nll_per_token": what can be compared of a line. */
static void compare_keys(json_t *o, char *out, size_t size) {
    const char *key;
    json_t *v;
    size_t n = 0;
    out[0] = '\0';
    json_object_foreach(o, key, v) {
        bool figure = (json_is_number(v) || json_is_boolean(v)) && strcmp(key, "n") != 0;
        if (figure && n + strlen(key) + 3 < size)
            n += (size_t)snprintf(out + n, size - n, "%s%s", n ? ", " : "", key);
    }
}

/* *known: false where it is null. */
static int compare_value(const jsonl *j, size_t i, const char *key, double *out, bool *known) {
    const json_t *v = json_object_get(j->v[i], key);
    char keys[400];
    *known = v && !json_is_null(v);
    *out = json_is_boolean(v) ? json_is_true(v) : json_number_value(v);
    if (v && (json_is_number(v) || json_is_boolean(v) || json_is_null(v)))
        return CLI_OK;
    compare_keys(j->v[i], keys, sizeof keys);
    return jsonl_failed(j, i, "has no figure \"%s\"; there are: %s", key, keys);
}

static bool compare_same(json_t *a, json_t *b, const char *key) {
    json_t *x = json_object_get(a, key), *y = json_object_get(b, key);
    return !x || !y || json_equal(x, y);
}

static int compare_record(compare_state *st, const jsonl *a, const jsonl *b, size_t i) {
    double x, y;
    bool known[2];
    if (!compare_same(a->v[i], b->v[i], "n") || !compare_same(a->v[i], b->v[i], "set"))
        return jsonl_failed(b, i, "is not about the same record as in %s (\"set\", \"n\")", a->path);
    int rc = compare_value(a, i, st->args->by, &x, &known[0]);
    if (rc == CLI_OK)
        rc = compare_value(b, i, st->args->by, &y, &known[1]);
    if (rc)
        return rc;
    if (!known[0] || !known[1]) {
        st->left_out++;
        return CLI_OK;
    }
    rc = column_add(&st->a, x);
    if (rc == CLI_OK)
        rc = column_add(&st->b, y);
    if (rc == CLI_OK)
        rc = column_add(&st->diff, st->args->lower ? x - y : y - x);
    if (rc)
        return rc;
    jbuild o = jobject();
    if (json_object_get(a->v[i], "set"))
        jset(&o, "set", json_incref(json_object_get(a->v[i], "set")));
    jset_int(&o, "n", json_object_get(a->v[i], "n") ? json_integer_value(json_object_get(a->v[i], "n")) : (int64_t)i + 1);
    jset_real(&o, "a", x);
    jset_real(&o, "b", y);
    return report_add(&st->report, o);
}

static int compare_total(compare_state *st, const char *a, const char *b) {
    interval diff;
    tally t = sign_test(st->diff.v, st->diff.n);
    int rc = report_interval(&st->report, &st->diff, NULL, &diff);
    if (rc)
        return rc;
    jbuild o = jobject();
    jset_int(&o, "records", (int64_t)st->diff.n);
    jset_int(&o, "left_out", (int64_t)st->left_out);
    jset_string(&o, "by", st->args->by);
    jset_real(&o, "a", column_mean(&st->a));
    jset_real(&o, "b", column_mean(&st->b));
    jset_interval(&o, "gain", &diff);
    jset_tally(&o, &t);
    rc = report_total(&st->report, o);
    if (rc || st->args->common.json)
        return rc;
    return out_printf("%s over %zu records, %s is better\n  A %12.6g  %s\n  B %12.6g  %s\n"
                      "B gains %.6g, %g %% interval %.6g to %.6g\nB wins %zu, ties %zu, loses %zu: p = %.3g by the sign test\n",
                      st->args->by, st->diff.n, st->args->lower ? "lower" : "higher", column_mean(&st->a), a, column_mean(&st->b), b,
                      diff.value, 100 * st->args->eval.level, diff.lo, diff.hi, t.wins, t.ties, t.losses, t.p);
}

static int compare_files(const compare_args *args, const char *a_path, const char *b_path) {
    compare_state st = {.args = args};
    jsonl a = {0}, b = {0};
    int rc = compare_read(a_path, &a);
    if (rc == CLI_OK)
        rc = compare_read(b_path, &b);
    if (rc == CLI_OK && a.n != b.n)
        rc = cli_failed("%s: holds %zu records, and %s %zu", b_path, b.n, a_path, a.n);
    if (rc == CLI_OK)
        rc = report_open(&st.report, &args->eval, &args->common);
    for (size_t i = 0; rc == CLI_OK && i < a.n; i++)
        rc = compare_record(&st, &a, &b, i);
    if (rc == CLI_OK && st.diff.n == 0)
        rc = cli_failed("%s: \"%s\" is null in every record", b_path, args->by);
    if (rc == CLI_OK)
        rc = compare_total(&st, a_path, b_path);
    column_free(&st.a);
    column_free(&st.b);
    column_free(&st.diff);
    jsonl_close(&a);
    jsonl_close(&b);
    return report_close(&st.report, rc);
}

static int compare_main(void *opts, const arg_list *operands) {
    const compare_args *a = opts;
    if (operands->n != 2)
        return cli_usage("two reports are needed: cmc eval compare A.jsonl B.jsonl --by KEY");
    if (!a->by)
        return cli_usage("--by: which figure is compared? --by nll_per_token --lower, say");
    return compare_files(a, operands->v[0], operands->v[1]);
}

static void compare_defaults(void *opts) {
    eval_defaults(&((compare_args *)opts)->eval);
}

static const arg_group compare_groups[] = {
    {"Options", compare_opts, 0},
    {"Report", eval_opts, offsetof(compare_args, eval)},
    {"Every verb", common_opts, offsetof(compare_args, common)},
};

const arg_verb verb_eval_compare = {
    .name = "eval compare",
    .usage = "A.jsonl B.jsonl --by KEY [options]",
    .summary = "two reports, record by record",
    .text = "Compares two reports of eval (or of score) on the same records by one of their figures: the mean difference with a paired "
            "bootstrap interval over records; on how many records B is better, equal and worse; and the two-sided sign test.",
    .example = "cmc eval compare before.jsonl after.jsonl --by nll_per_token --lower",
    .groups = compare_groups,
    .n_groups = sizeof compare_groups / sizeof *compare_groups,
    .size = sizeof(compare_args),
    .defaults = compare_defaults,
    .main = compare_main,
    .operands_are_files = true,
};
