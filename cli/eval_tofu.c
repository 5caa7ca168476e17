/* cmc eval tofu: what a model knows of a forget set, and what it still knows of the rest. */
#include "cli/eval_tofu.h"
#include "cli/eval.h"
#include "cli/generate.h"
#include "cli/progress.h"
#include "cli/steer.h"
#include "eval/ks.h"
#include "eval/likelihood.h"
#include "eval/rouge.h"
#include "eval/tofu.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

typedef struct tofu_args {
    common_args common;
    steer_args steer;
    eval_args eval;
    const char *sets[TOFU_SETS], *reference, *alphas;
    gen_args gen;
} tofu_args;

#define TOFU_AT(k) (offsetof(tofu_args, sets) + (k) * sizeof(const char *))

static const arg_opt tofu_opts[] = {
    {.name = "forget", .file = ARG_READS, .kind = ARG_STR, .at = TOFU_AT(TOFU_FORGET), .value = "DATA",
     .help = "the forget set (forget10_perturbed.json, say): {\"question\",\"answer\"}, and for truth ratios "
             "\"paraphrased_answer\" and \"perturbed_answer\":[...]"},
    {.name = "retain", .file = ARG_READS, .kind = ARG_STR, .at = TOFU_AT(TOFU_RETAIN), .value = "DATA",
     .help = "the retain set (retain_perturbed.json), of the same form"},
    {.name = "real-authors", .file = ARG_READS, .kind = ARG_STR, .at = TOFU_AT(TOFU_REAL_AUTHORS), .value = "DATA",
     .help = "questions with a right answer and wrong ones: \"perturbed_answer\":[...], or \"option1\", \"option2\", ..."},
    {.name = "world-facts", .file = ARG_READS, .kind = ARG_STR, .at = TOFU_AT(TOFU_WORLD_FACTS), .value = "DATA", .help = "the same"},
    {.name = "reference", .file = ARG_READS, .kind = ARG_STR, .at = offsetof(tofu_args, reference), .value = "REPORT",
     .help = "what this verb wrote (-o) for a model that never saw the forget set: gives the forget quality"},
    {.name = "alphas", .kind = ARG_STR, .at = offsetof(tofu_args, alphas), .value = "A,B,...",
     .help = "measure at each of these strengths, the host scoring once for all (one delta)"},
    {.name = "max-tokens", .letter = 'n', .kind = ARG_INT, .at = offsetof(tofu_args, gen.max_tokens), .value = "N",
     .help = "at most so many tokens of a generated answer", .lo = 1, .hi = INT32_MAX, .show_default = true},
    {.name = "batch", .kind = ARG_INT, .at = offsetof(tofu_args, gen.batch), .value = "N",
     .help = "answers generated at once", .lo = 1, .hi = 256, .show_default = true},
    {.name = NULL},
};

/* A record's figures that do not need its generated answer. */
typedef struct tofu_figures { double probability, truth_ratio, exact, strength; } tofu_figures;

/* What is known of one set in the end. */
typedef struct tofu_result {
    bool there;
    column probability, rouge, ratio, truth, exact, strength;
} tofu_result;

typedef struct tofu_state {
    const tofu_args *args;
    steer s;
    report report;
    tofu_set sets[TOFU_SETS];
    double *alphas; size_t n_alphas;   /* of --alphas; none: the steering's own, one strength */
    tofu_result (*results)[TOFU_SETS]; /* [strengths] */
    double *reference; size_t n_reference;
    progress bar;
    const tofu_set *set;               /* at work on this one, */
    size_t at;                         /* the strength */
    tofu_figures *figures;             /* [strengths][the set's records] */
    size_t done;
} tofu_state;

/* ----------------------------------------------------------------------------------------------------- scoring */

static size_t tofu_strengths(const tofu_state *st) {
    return st->n_alphas ? st->n_alphas : 1;
}

/* out[strengths] */
static int tofu_score(tofu_state *st, size_t i, const char *text, likelihood *out) {
    const char *question = st->set->v[i].question;
    cmc_message m[2] = {{CMC_USER, (char *)(uintptr_t)question, strlen(question)},     /* only read */
                        {CMC_ASSISTANT, (char *)(uintptr_t)text, strlen(text)}};
    cmc_record r = {.line = st->set->p.records.v[i].line, .messages = m, .n_messages = 2};
    cmc_score sc = {0};
    cmc_error err = {0};
    if (cmc_score_record(st->s.st, &r, st->alphas, st->n_alphas, &sc, &err) != CMC_OK) {
        progress_clear(&st->bar);
        return jsonl_failed(&st->set->json, i, "%s", err.message);
    }
    for (size_t a = 0; a < tofu_strengths(st); a++)
        out[a] = likelihood_at(&sc, a);
    steer_note(&st->s, sc.note);
    cmc_score_free(&sc);
    return CLI_OK;
}

/* A figure as a report holds it: the forget quality goes by the order of values, and a model beside its own report must be
 * equal to itself. */
static double tofu_reported(double v) {
    char digits[32];
    snprintf(digits, sizeof digits, "%.15g", v);
    return strtod(digits, NULL);
}

static double tofu_per_token(const likelihood *l) {
    return l->nll / (double)l->tokens;
}

/* One strength's figures of a record from the likelihoods of its answer, its paraphrase and, from wrong on in steps of
 * `step`, its wrong answers. nll[n_wrong] is scratch. */
static tofu_figures tofu_figures_of(const tofu_state *st, const tofu_record *r, const likelihood *answer,
                                    const likelihood *paraphrase, const likelihood *wrong, size_t step, double *nll) {
    bool choice = st->set->kind == TOFU_REAL_AUTHORS || st->set->kind == TOFU_WORLD_FACTS;
    double own = tofu_per_token(answer);
    for (size_t k = 0; k < r->n_wrong; k++)
        nll[k] = tofu_per_token(&wrong[k * step]);
    return (tofu_figures){
        .probability = choice ? tofu_choice(own, nll, r->n_wrong) : tofu_probability(own),
        .truth_ratio = r->paraphrase ? tofu_reported(tofu_truth_ratio(tofu_per_token(paraphrase), nll, r->n_wrong)) : NAN,
        .exact = answer->exact_memorization,
        .strength = answer->extraction_strength,
    };
}

static int tofu_score_record(tofu_state *st, size_t i) {
    const tofu_record *r = &st->set->v[i];
    size_t n = tofu_strengths(st), first_wrong = 2 * n;
    bool paraphrased = r->paraphrase && r->paraphrase != r->answer;
    likelihood *l = calloc((r->n_wrong + 2) * n, sizeof *l);   /* of the answer, the paraphrase, each wrong one: [n] */
    double *nll = calloc(r->n_wrong + 1, sizeof *nll);
    int rc = l && nll ? tofu_score(st, i, r->answer, l) : cli_no_memory();
    if (rc == CLI_OK && paraphrased)
        rc = tofu_score(st, i, r->paraphrase, l + n);
    for (size_t k = 0; k < r->n_wrong && rc == CLI_OK; k++)
        rc = tofu_score(st, i, r->wrong[k], l + first_wrong + k * n);
    for (size_t a = 0; a < n && rc == CLI_OK; a++)
        st->figures[a * st->set->p.n + i] = tofu_figures_of(st, r, &l[a], &l[paraphrased ? n + a : a], &l[first_wrong + a], n, nll);
    free(nll);
    free(l);
    return rc;
}

/* -------------------------------------------------------------------------------------------------- generating */

static int tofu_on_step(void *user, size_t index, cmc_stream *const side[2]) {
    tofu_state *st = user;
    (void)index;
    (void)side;
    progress_show(&st->bar, "%s: generating, %zu of %zu answers", tofu_set_name(st->set->kind), st->done, st->set->p.n);
    return CLI_OK;
}

static int tofu_keep(tofu_result *res, tofu_set_kind kind, const tofu_figures *f, double rouge_recall) {
    int rc = column_add(&res->probability, f->probability);
    if (rc == CLI_OK)
        rc = column_add(&res->rouge, rouge_recall);
    if (rc == CLI_OK)
        rc = column_add_known(&res->ratio, f->truth_ratio);
    if (rc == CLI_OK && isfinite(f->truth_ratio))
        rc = column_add(&res->truth, kind == TOFU_FORGET ? tofu_truth_forget(f->truth_ratio) : tofu_truth_kept(f->truth_ratio));
    if (rc == CLI_OK)
        rc = column_add_known(&res->exact, f->exact);
    return rc ? rc : column_add_known(&res->strength, f->strength);
}

static int tofu_on_result(void *user, size_t index, const gen_side side[2]) {
    tofu_state *st = user;
    const gen_side *g = &side[GEN_STEERED];
    const tofu_figures *f = &st->figures[st->at * st->set->p.n + index];
    const char *answer = st->set->v[index].answer;
    rouge_score score;
    progress_clear(&st->bar);
    steer_note(&st->s, g->note);
    st->done = index + 1;
    if (g->stop == CMC_STOP_NONE)          /* interrupted */
        return CLI_OK;
    if (rouge(answer, strlen(answer), g->text, g->len, true, &score) != CMC_OK)
        return cli_no_memory();
    int rc = tofu_keep(&st->results[st->at][st->set->kind], st->set->kind, f, score.rl.recall);
    if (rc)
        return rc;
    jbuild o = jobject();
    if (st->n_alphas)
        jset_real(&o, "alpha", st->alphas[st->at]);
    jset_string(&o, "set", tofu_set_name(st->set->kind));
    jset_int(&o, "n", (int64_t)index + 1);
    jset_real(&o, "probability", f->probability);
    jset_real(&o, "rougeL_recall", score.rl.recall);
    jset_real(&o, "truth_ratio", f->truth_ratio);
    jset_real(&o, "exact_memorization", f->exact);
    jset_real(&o, "extraction_strength", f->strength);
    jset_string(&o, "stop", gen_stop_name(g->stop));
    jset_text(&o, "text", g->text, g->len);
    return report_add(&st->report, o);
}

/* Makes strength `at` the one that is generated with and reported. */
static int tofu_set_strength(tofu_state *st, size_t at) {
    cmc_error err = {0};
    st->at = at;
    if (!st->n_alphas || cmc_steering_set_alpha(st->s.st, 0, st->alphas[at], &err) == CMC_OK)
        return CLI_OK;
    return cli_error(NULL, &err);
}

static int tofu_generate(tofu_state *st) {
    gen_job job = {.s = &st->s, .args = &st->args->gen, .p = &st->set->p, .seed = st->args->common.seed, .user = st,
                   .on_step = tofu_on_step, .on_result = tofu_on_result};
    int rc = CLI_OK;
    for (size_t a = 0; a < tofu_strengths(st) && rc == CLI_OK; a++) {
        rc = tofu_set_strength(st, a);
        st->results[a][st->set->kind].there = true;
        st->done = 0;
        if (rc == CLI_OK)
            rc = gen_run(&job);
    }
    return rc;
}

static int tofu_run_set(tofu_state *st) {
    size_t n = st->set->p.n;
    int rc = CLI_OK;
    st->figures = calloc(tofu_strengths(st) * n, sizeof *st->figures);
    if (!st->figures)
        return cli_no_memory();
    for (size_t i = 0; i < n && rc == CLI_OK; i++) {
        progress_show(&st->bar, "%s: scoring, record %zu of %zu", tofu_set_name(st->set->kind), i + 1, n);
        rc = cli_interrupted() ? CLI_INTERRUPTED : tofu_score_record(st, i);
    }
    if (rc == CLI_OK)
        rc = tofu_generate(st);
    progress_clear(&st->bar);
    free(st->figures);
    st->figures = NULL;
    return rc;
}

/* --------------------------------------------------------------------------------------------------- the total */

/* The harmonic mean of the nine; NaN where one is missing. */
static double tofu_utility(const tofu_state *st) {
    double v[9];
    size_t n = 0;
    for (int k = TOFU_RETAIN; k <= TOFU_WORLD_FACTS; k++) {
        const tofu_result *r = &st->results[st->at][k];
        const column *parts[] = {&r->probability, &r->rouge, &r->truth};
        for (size_t i = 0; i < 3; i++) {
            if (parts[i]->n == 0)
                return NAN;
            v[n++] = column_mean(parts[i]);
        }
    }
    return tofu_harmonic_mean(v, n);
}

static int tofu_set_json(const tofu_state *st, const tofu_result *r, jbuild *o) {
    const struct { const char *key; const column *c; } parts[] = {
        {"probability", &r->probability}, {"rougeL_recall", &r->rouge}, {"truth_ratio", &r->truth},
        {"exact_memorization", &r->exact}, {"extraction_strength", &r->strength}};
    jset_int(o, "records", (int64_t)r->probability.n);
    for (size_t i = 0; i < sizeof parts / sizeof *parts; i++) {
        interval v;
        int rc = report_interval(&st->report, parts[i].c, NULL, &v);
        if (rc)
            return rc;
        jset_interval(o, parts[i].key, &v);
    }
    return CLI_OK;
}

static int tofu_table(const tofu_state *st, double utility, const ks_result *quality) {
    int rc = st->n_alphas ? out_printf("%salpha %g\n", st->at ? "\n" : "", st->alphas[st->at]) : CLI_OK;
    if (rc == CLI_OK)
        rc = out_printf("%-13s %8s %12s %14s %12s %13s %11s\n", "", "records", "probability", "ROUGE-L recall", "truth ratio",
                        "memorization", "extraction");
    for (int k = 0; k < TOFU_SETS && rc == CLI_OK; k++) {
        const tofu_result *r = &st->results[st->at][k];
        if (r->there)
            rc = out_printf("%-13s %8zu %12.4f %14.4f %12.4f %13.4f %11.4f\n", tofu_set_name((tofu_set_kind)k), r->probability.n,
                            column_mean(&r->probability), column_mean(&r->rouge), column_mean(&r->truth),
                            column_mean(&r->exact), column_mean(&r->strength));
    }
    if (rc == CLI_OK && isfinite(utility))
        rc = out_printf("model utility   %.4f\n", utility);
    if (rc == CLI_OK && isfinite(quality->p))
        rc = out_printf("forget quality  %.4g (log10 %.2f; distance %.4f)\n", quality->p, log10(quality->p), quality->statistic);
    return rc;
}

static int tofu_total(const tofu_state *st, jbuild *o) {
    double utility = tofu_utility(st);
    ks_result quality = {NAN, NAN};
    const column *ratio = &st->results[st->at][TOFU_FORGET].ratio;
    if (st->reference && ks_two_sample(ratio->v, ratio->n, st->reference, st->n_reference, &quality) != CMC_OK)
        return cli_no_memory();
    for (int k = 0; k < TOFU_SETS; k++) {
        jbuild set = jobject();
        const tofu_result *r = &st->results[st->at][k];
        int rc = r->there ? tofu_set_json(st, r, &set) : CLI_OK;
        if (rc || !r->there)
            jdrop(set);
        else
            jset_built(o, tofu_set_name((tofu_set_kind)k), set);
        if (rc)
            return rc;
    }
    jset_real(o, "model_utility", utility);
    jset_real(o, "forget_quality", quality.p);
    jset_real(o, "forget_distance", quality.statistic);
    steer_json(o, &st->s);
    return st->args->common.json ? CLI_OK : tofu_table(st, utility, &quality);
}

/* {"alphas": [what the total would be at each strength alone, with its "alpha"]} */
static int tofu_totals(tofu_state *st, jbuild *o) {
    jbuild list = jarray();
    int rc = CLI_OK;
    if (!st->n_alphas) {
        jdrop(list);
        return tofu_total(st, o);
    }
    for (size_t a = 0; a < st->n_alphas && rc == CLI_OK; a++) {
        jbuild one = jobject();
        rc = tofu_set_strength(st, a);
        jset_real(&one, "alpha", st->alphas[a]);
        if (rc == CLI_OK)
            rc = tofu_total(st, &one);
        jadd_built(&list, one);
    }
    jset_built(o, "alphas", list);
    return rc;
}

static int tofu_all(tofu_state *st) {
    int rc = CLI_OK;
    jbuild total;
    progress_start(&st->bar);
    cli_catch_interrupt();
    for (int k = 0; k < TOFU_SETS && rc == CLI_OK; k++) {
        st->set = &st->sets[k];
        if (st->args->sets[k])
            rc = tofu_run_set(st);
    }
    if (rc)
        return rc;
    total = jobject();
    rc = tofu_totals(st, &total);
    if (rc == CLI_OK)
        return report_total(&st->report, total);
    jdrop(total);
    return rc;
}

/* ------------------------------------------------------------------------------------------------------ the run */

/* What can be wrong with the data, before a model is opened. */
static int tofu_read(tofu_state *st) {
    const tofu_args *a = st->args;
    int rc = CLI_OK;
    for (int k = 0; k < TOFU_SETS && rc == CLI_OK; k++) {
        if (a->sets[k])
            rc = tofu_set_open((tofu_set_kind)k, a->sets[k], &st->sets[k]);
    }
    if (rc || !a->reference)
        return rc;
    const tofu_set *forget = &st->sets[TOFU_FORGET];
    for (size_t i = 0; i < forget->p.n; i++) {
        if (!forget->v[i].paraphrase)
            return jsonl_failed(&forget->json, i, "holds no wrong answers, which the forget quality needs (--reference)");
    }
    return tofu_reference_read(a->reference, &st->reference, &st->n_reference);
}

static void tofu_close(tofu_state *st) {
    for (size_t a = 0; st->results && a < tofu_strengths(st); a++) {
        for (int k = 0; k < TOFU_SETS; k++) {
            tofu_result *r = &st->results[a][k];
            column *all[] = {&r->probability, &r->rouge, &r->ratio, &r->truth, &r->exact, &r->strength};
            for (size_t i = 0; i < sizeof all / sizeof *all; i++)
                column_free(all[i]);
        }
    }
    for (int k = 0; k < TOFU_SETS; k++)
        tofu_set_close(&st->sets[k]);
    free(st->results);
    free(st->alphas);
    free(st->reference);
}

static int tofu_run(const tofu_args *a) {
    tofu_state st = {.args = a};
    int rc = a->alphas ? steer_alphas("--alphas", a->alphas, &st.alphas, &st.n_alphas) : CLI_OK;
    if (rc == CLI_OK) {
        st.results = calloc(tofu_strengths(&st), sizeof *st.results);
        rc = st.results ? tofu_read(&st) : cli_no_memory();
    }
    if (rc == CLI_OK)
        rc = steer_open(&a->steer, &a->common, &st.s);
    if (rc == CLI_OK) {
        rc = report_open(&st.report, &a->eval, &a->common);
        if (rc == CLI_OK)
            rc = tofu_all(&st);
        steer_close(&st.s);
    }
    tofu_close(&st);
    return report_close(&st.report, rc);
}

static int tofu_main(void *opts, const arg_list *operands) {
    const tofu_args *a = opts;
    bool any = false;
    if (!a->steer.host)
        return cli_usage("-m: a host is needed: cmc eval tofu -m HOST --forget DATA");
    if (operands->n)
        return cli_usage("\"%s\": eval tofu takes its records from files: --forget DATA and so on", operands->v[0]);
    for (int k = 0; k < TOFU_SETS; k++)
        any = any || a->sets[k];
    if (!any)
        return cli_usage("--forget: a set is needed: --forget, --retain, --real-authors or --world-facts");
    if (a->reference && !a->sets[TOFU_FORGET])
        return cli_usage("--reference: the forget quality needs a forget set: --forget DATA");
    if (a->alphas && a->steer.deltas.n != 1)
        return cli_usage("--alphas: needs one delta (-d), not %zu", a->steer.deltas.n);
    return tofu_run(a);
}

static void tofu_defaults(void *opts) {
    tofu_args *a = opts;
    steer_defaults(&a->steer);
    eval_defaults(&a->eval);
    gen_defaults(&a->gen);
    a->gen.max_tokens = 200;       /* as open-unlearning has it */
}

static const arg_group tofu_groups[] = {
    {"Options", tofu_opts, 0},
    {"Report", eval_opts, offsetof(tofu_args, eval)},
    {"Models", steer_opts, offsetof(tofu_args, steer)},
    {"Guards", guard_opts, offsetof(tofu_args, steer.guards)},
    {"Every verb", common_opts, offsetof(tofu_args, common)},
};

const arg_verb verb_eval_tofu = {
    .name = "eval tofu",
    .usage = "-m HOST [-d DELTA[=ALPHA]]... --forget DATA [--retain DATA] [--real-authors DATA] [--world-facts DATA] "
             "[--reference REPORT] [options]",
    .summary = "what is forgotten and what is kept, by TOFU's measures",
    .text = "The measures of TOFU (arXiv 2401.06121) as open-unlearning defines them: of every set the answers' probability, "
            "ROUGE-L recall of greedy answers, truth ratio, exact memorization and extraction strength; of the last three sets "
            "together the model utility; and beside a reference report the forget quality, the p-value of a two-sample "
            "Kolmogorov-Smirnov test between the truth ratios on the forget set. With --alphas a line says at which strength it "
            "was, and the total holds a total for each.",
    .example = "cmc eval tofu -m host.gguf -d forget.gguf --forget forget10_perturbed.json -o after.jsonl",
    .groups = tofu_groups,
    .n_groups = sizeof tofu_groups / sizeof *tofu_groups,
    .size = sizeof(tofu_args),
    .defaults = tofu_defaults,
    .main = tofu_main,
};
