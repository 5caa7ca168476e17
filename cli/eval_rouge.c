/* cmc eval rouge: answers beside references. */
#include "cli/answers.h"
#include "cli/eval.h"
#include "eval/rouge.h"

#include <string.h>

typedef struct rouge_args {
    common_args common;
    steer_args steer;
    gen_args gen;
    answers_args answers;
    eval_args eval;
    bool no_stem;
} rouge_args;

static const arg_opt rouge_opts[] = {
    {.name = "no-stem", .kind = ARG_FLAG, .at = offsetof(rouge_args, no_stem),
     .help = "compare words as they are, not their stems"},
    {.name = NULL},
};

/* ROUGE-1, -2, -L: recall, precision, F of each. */
enum { ROUGE_FIGURES = 9 };
static const char *const rouge_names[ROUGE_FIGURES] = {
    "rouge1_recall", "rouge1_precision", "rouge1_f", "rouge2_recall", "rouge2_precision", "rouge2_f",
    "rougeL_recall", "rougeL_precision", "rougeL_f"};

typedef struct rouge_state {
    const rouge_args *args;
    const prompts *p;
    report report;
    column figures[ROUGE_FIGURES];
} rouge_state;

/* The record's last answer. */
static int rouge_reference(const rouge_state *st, size_t i, const char **s, size_t *len) {
    const cmc_record *r = &st->p->records.v[i];
    for (size_t k = r->n_messages; k-- > 0;) {
        if (r->messages[k].role == CMC_ASSISTANT) {
            *s = r->messages[k].text;
            *len = r->messages[k].len;
            return CLI_OK;
        }
    }
    return cli_failed("%s: record %zu (line %ld): holds no answer to compare with", st->p->path, i + 1, r->line);
}

static int rouge_on_answer(void *user, size_t index, const answer *a) {
    rouge_state *st = user;
    const char *reference;
    size_t len;
    rouge_score score;
    int rc = rouge_reference(st, index, &reference, &len);
    if (rc)
        return rc;
    if (rouge(reference, len, a->text, a->len, !st->args->no_stem, &score) != CMC_OK)
        return cli_no_memory();
    const double v[ROUGE_FIGURES] = {score.r1.recall, score.r1.precision, score.r1.f, score.r2.recall, score.r2.precision,
                                     score.r2.f, score.rl.recall, score.rl.precision, score.rl.f};
    jbuild o = jobject();
    jset_int(&o, "n", (int64_t)index + 1);
    for (size_t k = 0; k < ROUGE_FIGURES; k++) {
        jset_real(&o, rouge_names[k], v[k]);
        if (rc == CLI_OK)
            rc = column_add(&st->figures[k], v[k]);
    }
    if (a->stop)
        jset_string(&o, "stop", a->stop);
    jset_text(&o, "text", a->text, a->len);
    int added = report_add(&st->report, o);
    return rc ? rc : added;
}

static int rouge_total(rouge_state *st) {
    interval v[ROUGE_FIGURES];
    jbuild o = jobject();
    int rc = CLI_OK;
    jset_int(&o, "records", (int64_t)st->figures[0].n);
    jset(&o, "stem", json_boolean(!st->args->no_stem));
    for (size_t k = 0; k < ROUGE_FIGURES && rc == CLI_OK; k++) {
        rc = report_interval(&st->report, &st->figures[k], NULL, &v[k]);
        jset_interval(&o, rouge_names[k], &v[k]);
    }
    if (rc) {
        jdrop(o);
        return rc;
    }
    rc = report_total(&st->report, o);
    if (rc || st->args->common.json)
        return rc;
    rc = out_printf("%zu answers%s\n%-18s %7s   %g %% interval\n", st->figures[0].n, st->args->no_stem ? "" : ", words stemmed",
                    "", "mean", 100 * st->args->eval.level);
    for (size_t k = 0; k < ROUGE_FIGURES && rc == CLI_OK; k++)
        rc = out_printf("%-18s %7.4f   %.4f to %.4f\n", rouge_names[k], v[k].value, v[k].lo, v[k].hi);
    return rc;
}

static int rouge_prompts(const rouge_args *a, const prompts *p) {
    rouge_state st = {.args = a, .p = p};
    answers_job job = {.from = &a->answers, .models = &a->steer, .gen = &a->gen, .common = &a->common, .p = p, .user = &st,
                       .on_answer = rouge_on_answer};
    int rc = report_open(&st.report, &a->eval, &a->common);
    const char *s;
    size_t len;
    for (size_t i = 0; rc == CLI_OK && i < p->n; i++)     /* before anything is generated */
        rc = rouge_reference(&st, i, &s, &len);
    if (rc == CLI_OK)
        rc = answers_run(&job);
    if (rc == CLI_OK)
        rc = rouge_total(&st);
    for (size_t k = 0; k < ROUGE_FIGURES; k++)
        column_free(&st.figures[k]);
    return report_close(&st.report, rc);
}

static int rouge_main(void *opts, const arg_list *operands) {
    const rouge_args *a = opts;
    prompts p;
    int rc = answers_check("eval rouge", &a->answers, &a->steer);
    if (rc)
        return rc;
    if (operands->n)
        return cli_usage("\"%s\": eval rouge takes its records from a file: -f DATA", operands->v[0]);
    if (!a->gen.file || !prompts_is_records(a->gen.file))
        return cli_usage("-f: a file of records, .jsonl or .json, is needed: their answers are the references");
    rc = prompts_open(a->gen.file, a->gen.system, operands, &p);
    if (rc)
        return rc;
    rc = rouge_prompts(a, &p);
    prompts_close(&p);
    return rc;
}

static void rouge_defaults(void *opts) {
    rouge_args *a = opts;
    steer_defaults(&a->steer);
    gen_defaults(&a->gen);
    eval_defaults(&a->eval);
}

static const arg_group rouge_groups[] = {
    {"Options", rouge_opts, 0},
    {"Answers", answers_opts, offsetof(rouge_args, answers)},
    {"Report", eval_opts, offsetof(rouge_args, eval)},
    {"Models", steer_opts, offsetof(rouge_args, steer)},
    {"Guards", guard_opts, offsetof(rouge_args, steer.guards)},
    {"Generating", gen_opts, offsetof(rouge_args, gen)},
    {"Every verb", common_opts, offsetof(rouge_args, common)},
};

const arg_verb verb_eval_rouge = {
    .name = "eval rouge",
    .usage = "(-m HOST [-d DELTA[=ALPHA]]... | --answers FILE) -f DATA [options]",
    .summary = "generated answers beside the records' own, by ROUGE",
    .text = "ROUGE-1, ROUGE-2 and ROUGE-L of answers beside those that the records hold, as the package rouge-score computes "
            "them: recall, precision and F, with a bootstrap interval over records. The answers are generated, greedily unless "
            "the options say otherwise, or come from a file.",
    .example = "cmc eval rouge -m host.gguf -d delta.gguf -f held-out.jsonl -n 200",
    .groups = rouge_groups,
    .n_groups = sizeof rouge_groups / sizeof *rouge_groups,
    .size = sizeof(rouge_args),
    .defaults = rouge_defaults,
    .main = rouge_main,
};
