/* cmc eval text: answers by themselves: how they are made, and whether they keep to what was asked. */
#include "cli/answers.h"
#include "cli/eval.h"
#include "cli/jsonl.h"
#include "eval/checks.h"
#include "eval/text_stats.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

typedef struct text_args {
    common_args common;
    steer_args steer;
    gen_args gen;
    answers_args answers;
    eval_args eval;
} text_args;

/* How often checks of a kind passed. */
typedef struct text_kind { const char *name; size_t n, passed; } text_kind;
enum { TEXT_KINDS = 32 };

typedef struct text_state {
    const text_args *args;
    report report;
    checks *checks; size_t n_checks;      /* [records]; none where there are no records */
    text_stats *stats;
    column words, chars, tokens, stopped, repetition;
    column passed;                        /* of records with checks: 1 where all passed */
    text_kind kinds[TEXT_KINDS]; size_t n_kinds;
    size_t checks_run, checks_passed;
} text_state;

/* ------------------------------------------------------------------------------------------------------ checks */

static int text_read_checks(text_state *st, const prompts *p) {
    jsonl j;
    int rc = jsonl_read(p->path, &j);
    if (rc)
        return rc;
    st->checks = calloc(j.n, sizeof *st->checks);
    rc = st->checks ? CLI_OK : cli_no_memory();
    for (size_t i = 0; rc == CLI_OK && i < j.n; i++) {
        const json_t *list = json_object_get(j.v[i], "checks");
        cmc_error err = {0};
        if (list && checks_read(list, &st->checks[i], &err) != CMC_OK)
            rc = jsonl_failed(&j, i, "%s", err.message);
        st->n_checks = i + 1;
    }
    jsonl_close(&j);
    return rc;
}

static void text_count_kind(text_state *st, const char *name, bool passed) {
    size_t k = 0;
    while (k < st->n_kinds && strcmp(st->kinds[k].name, name) != 0)
        k++;
    if (k == TEXT_KINDS)
        return;
    st->n_kinds += k == st->n_kinds;
    st->kinds[k].name = name;
    st->kinds[k].n++;
    st->kinds[k].passed += passed;
}

/* [true, false, ...] into o, a value for each of the record's checks. */
static int text_run_checks(text_state *st, const checks *c, const answer *a, jbuild *o) {
    jbuild list = jarray();
    bool all = true;
    for (size_t i = 0; i < c->n; i++) {
        bool passed;
        if (check_passes(c, i, a->text, a->len, &passed) != CMC_OK) {
            jdrop(list);
            return cli_no_memory();
        }
        jadd(&list, json_boolean(passed));
        text_count_kind(st, check_kind(c, i), passed);
        st->checks_run++;
        st->checks_passed += passed;
        all = all && passed;
    }
    jset_built(o, "checks", list);
    jset(o, "passed", json_boolean(all));
    return column_add(&st->passed, all);
}

/* ----------------------------------------------------------------------------------------------------- answers */

static int text_columns(text_state *st, const answer *a, const text_measure *m) {
    int rc = column_add(&st->words, (double)m->words);
    if (rc == CLI_OK)
        rc = column_add(&st->chars, (double)m->chars);
    if (rc == CLI_OK && a->tokens >= 0)
        rc = column_add(&st->tokens, (double)a->tokens);
    if (rc == CLI_OK && a->stop)
        rc = column_add(&st->stopped, strcmp(a->stop, "eos") == 0 || strcmp(a->stop, "stop") == 0);
    return rc ? rc : column_add_known(&st->repetition, m->repetition);
}

static int text_on_answer(void *user, size_t index, const answer *a) {
    text_state *st = user;
    text_measure m;
    if (text_stats_add(st->stats, a->text, a->len, &m) != CMC_OK)
        return cli_no_memory();
    int rc = text_columns(st, a, &m);
    if (rc)
        return rc;
    jbuild o = jobject();
    jset_int(&o, "n", (int64_t)index + 1);
    jset_int(&o, "words", (int64_t)m.words);
    jset_int(&o, "chars", (int64_t)m.chars);
    jset_real(&o, "repetition", m.repetition);
    if (a->tokens >= 0)
        jset_int(&o, "tokens", a->tokens);
    if (a->stop)
        jset_string(&o, "stop", a->stop);
    if (index < st->n_checks && st->checks[index].n)
        rc = text_run_checks(st, &st->checks[index], a, &o);
    jset_text(&o, "text", a->text, a->len);
    int added = report_add(&st->report, o);
    return rc ? rc : added;
}

/* --------------------------------------------------------------------------------------------------- the total */

static double text_share(size_t part, size_t of) {
    return of ? (double)part / (double)of : NAN;
}

static void text_checks_json(const text_state *st, const interval *passed, jbuild *o) {
    jbuild c = jobject(), kinds = jobject();
    jset_int(&c, "records", (int64_t)st->passed.n);
    jset_int(&c, "checks", (int64_t)st->checks_run);
    jset_interval(&c, "records_passed", passed);
    jset_real(&c, "checks_passed", text_share(st->checks_passed, st->checks_run));
    for (size_t k = 0; k < st->n_kinds; k++) {
        jbuild kind = jobject();
        jset_int(&kind, "checks", (int64_t)st->kinds[k].n);
        jset_real(&kind, "passed", text_share(st->kinds[k].passed, st->kinds[k].n));
        jset_built(&kinds, st->kinds[k].name, kind);
    }
    jset_built(&c, "kinds", kinds);
    jset_built(o, "checks", c);
}

static int text_table(const text_state *st, const interval *passed) {
    int rc = out_printf("%zu answers: %.1f words, %.1f characters in the mean\n", st->words.n, column_mean(&st->words),
                        column_mean(&st->chars));
    if (rc == CLI_OK && st->stopped.n)
        rc = out_printf("ended by themselves  %6.1f %%\n", 100 * column_mean(&st->stopped));
    for (int n = 1; n <= 3 && rc == CLI_OK; n++)
        rc = out_printf("distinct-%d           %7.4f\n", n, text_stats_distinct(st->stats, n));
    if (rc == CLI_OK)
        rc = out_printf("repetition           %7.4f\n", column_mean(&st->repetition));
    if (rc == CLI_OK && st->passed.n)
        rc = out_printf("checks passed        %6.1f %% of %zu; all of them in %.1f %% of %zu records (%g %% interval %.1f to %.1f)\n",
                        100 * text_share(st->checks_passed, st->checks_run), st->checks_run, 100 * passed->value, st->passed.n,
                        100 * st->args->eval.level, 100 * passed->lo, 100 * passed->hi);
    for (size_t k = 0; k < st->n_kinds && rc == CLI_OK; k++)
        rc = out_printf("  %-18s %6.1f %% of %zu\n", st->kinds[k].name, 100 * text_share(st->kinds[k].passed, st->kinds[k].n),
                        st->kinds[k].n);
    return rc;
}

static int text_total(text_state *st) {
    interval passed;
    jbuild o = jobject();
    char key[24];
    int rc = report_interval(&st->report, &st->passed, NULL, &passed);
    jset_int(&o, "records", (int64_t)st->words.n);
    jset_real(&o, "words", column_mean(&st->words));
    jset_real(&o, "chars", column_mean(&st->chars));
    jset_real(&o, "tokens", column_mean(&st->tokens));
    jset_real(&o, "stop_rate", column_mean(&st->stopped));
    for (int n = 1; n <= 3; n++) {
        snprintf(key, sizeof key, "distinct_%d", n);
        jset_real(&o, key, text_stats_distinct(st->stats, n));
    }
    jset_real(&o, "repetition", column_mean(&st->repetition));
    if (rc == CLI_OK && st->passed.n)
        text_checks_json(st, &passed, &o);
    int added = report_total(&st->report, o);
    if (rc == CLI_OK)
        rc = added;
    return rc || st->args->common.json ? rc : text_table(st, &passed);
}

static int text_prompts(const text_args *a, const prompts *p) {
    text_state st = {.args = a};
    answers_job job = {.from = &a->answers, .models = &a->steer, .gen = &a->gen, .common = &a->common, .p = p, .user = &st,
                       .on_answer = text_on_answer};
    int rc = p->n ? text_read_checks(&st, p) : CLI_OK;
    if (rc == CLI_OK && text_stats_new(&st.stats) != CMC_OK)
        rc = cli_no_memory();
    if (rc == CLI_OK)
        rc = report_open(&st.report, &a->eval, &a->common);
    if (rc == CLI_OK)
        rc = answers_run(&job);
    if (rc == CLI_OK)
        rc = text_total(&st);
    for (size_t i = 0; i < st.n_checks; i++)
        checks_free(&st.checks[i]);
    free(st.checks);
    text_stats_free(st.stats);
    column *all[] = {&st.words, &st.chars, &st.tokens, &st.stopped, &st.repetition, &st.passed};
    for (size_t k = 0; k < sizeof all / sizeof *all; k++)
        column_free(all[k]);
    return report_close(&st.report, rc);
}

static int text_main(void *opts, const arg_list *operands) {
    const text_args *a = opts;
    prompts p = {0};
    int rc = answers_check("eval text", &a->answers, &a->steer);
    if (rc)
        return rc;
    if (operands->n)
        return cli_usage("\"%s\": eval text takes its prompts from a file: -f DATA", operands->v[0]);
    if (a->gen.file ? !prompts_is_records(a->gen.file) : !a->answers.file)
        return cli_usage("-f: a file of records, .jsonl or .json, is needed: cmc eval text -m HOST -f DATA");
    rc = a->gen.file ? prompts_open(a->gen.file, a->gen.system, operands, &p) : CLI_OK;
    if (rc)
        return rc;
    rc = text_prompts(a, &p);
    prompts_close(&p);
    return rc;
}

static void text_defaults(void *opts) {
    text_args *a = opts;
    steer_defaults(&a->steer);
    gen_defaults(&a->gen);
    eval_defaults(&a->eval);
}

static const arg_group text_groups[] = {
    {"Answers", answers_opts, offsetof(text_args, answers)},
    {"Report", eval_opts, offsetof(text_args, eval)},
    {"Models", steer_opts, offsetof(text_args, steer)},
    {"Guards", guard_opts, offsetof(text_args, steer.guards)},
    {"Generating", gen_opts, offsetof(text_args, gen)},
    {"Every verb", common_opts, offsetof(text_args, common)},
};

const arg_verb verb_eval_text = {
    .name = "eval text",
    .usage = "(-m HOST [-d DELTA[=ALPHA]]... -f DATA | --answers FILE [-f DATA]) [options]",
    .summary = "length, variety and repetition of answers, and checks on them",
    .text = "Measures answers by themselves: words and characters, how many ended before the length limit, distinct-1 to -3, "
            "repetition (the share of 4-grams that came before in the answer), and the checks that records carry as "
            "\"checks\": [{\"kind\": \"max_words\", \"n\": 20}, ...] (docs/evaluation.md lists the kinds). The answers are generated, "
            "greedily unless the options say otherwise, or come from a file.",
    .example = "cmc eval text -m host.gguf -d delta.gguf -f instructions.jsonl",
    .groups = text_groups,
    .n_groups = sizeof text_groups / sizeof *text_groups,
    .size = sizeof(text_args),
    .defaults = text_defaults,
    .main = text_main,
};
