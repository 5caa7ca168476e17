/* cmc eval nll: how likely given answers are, steered beside unsteered. */
#include "cli/eval.h"
#include "cli/progress.h"
#include "cli/steer.h"
#include "eval/likelihood.h"

#include <math.h>

typedef struct nll_args {
    common_args common;
    steer_args steer;
    eval_args eval;
    const char *file;
    double temperature;
} nll_args;

static const arg_opt nll_opts[] = {
    {.name = "file", .file = ARG_READS, .letter = 'f', .kind = ARG_STR, .at = offsetof(nll_args, file), .value = "DATA",
     .help = "the records, .jsonl or .json"},
    {.name = "temperature", .kind = ARG_REAL, .at = offsetof(nll_args, temperature), .value = "X", .show_default = true,
     .help = "how likely the answers are where tokens are sampled at this temperature, without the deltas and with them"},
    {.name = NULL},
};

/* Of one side, a figure a record. */
typedef struct nll_side { column nll, exact, strength; } nll_side;

typedef struct nll_state {
    const nll_args *args;
    steer s;
    report report;
    nll_side steered, host;
    column tokens, bytes, gain;    /* gain: what the deltas save, in nats a record */
    progress bar;
} nll_state;

static int nll_side_add(nll_side *side, const likelihood *l) {
    int rc = column_add(&side->nll, l->nll);
    if (rc == CLI_OK)
        rc = column_add_known(&side->exact, l->exact_memorization);
    return rc ? rc : column_add_known(&side->strength, l->extraction_strength);
}

static void nll_side_free(nll_side *side) {
    column_free(&side->nll);
    column_free(&side->exact);
    column_free(&side->strength);
}

static int nll_line(nll_state *st, size_t n, const likelihood *l, const likelihood *host) {
    jbuild o = jobject();
    jset_int(&o, "n", (int64_t)n);
    jset_int(&o, "tokens", (int64_t)l->tokens);
    jset_int(&o, "bytes", (int64_t)l->bytes);
    jset_real(&o, "nll", l->nll);
    jset_real(&o, "nll_per_token", l->nll / (double)l->tokens);
    jset_real(&o, "nll_per_byte", l->nll / (double)l->bytes);
    jset_real(&o, "exact_memorization", l->exact_memorization);
    jset_real(&o, "extraction_strength", l->extraction_strength);
    if (st->s.n) {
        jset_real(&o, "host_nll", host->nll);
        jset_real(&o, "host_nll_per_token", host->nll / (double)l->tokens);
        jset_real(&o, "host_exact_memorization", host->exact_memorization);
        jset_real(&o, "host_extraction_strength", host->extraction_strength);
    }
    return report_add(&st->report, o);
}

static int nll_record(nll_state *st, const cmc_record *r, size_t i) {
    cmc_score sc = {0};
    cmc_error err = {0};
    if (cmc_score_record_at(st->s.st, r, st->args->temperature, NULL, 0, &sc, &err) != CMC_OK) {
        char where[600];
        snprintf(where, sizeof where, "%s: record %zu (line %ld)", st->args->file, i + 1, r->line);
        progress_clear(&st->bar);
        return cli_error(where, &err);
    }
    likelihood l = likelihood_of(&sc, false), host = likelihood_of(&sc, true);
    progress_clear(&st->bar);
    steer_note(&st->s, sc.note);
    cmc_score_free(&sc);
    int rc = nll_side_add(&st->steered, &l);
    if (rc == CLI_OK)
        rc = nll_side_add(&st->host, &host);
    if (rc == CLI_OK)
        rc = column_add(&st->tokens, (double)l.tokens);
    if (rc == CLI_OK)
        rc = column_add(&st->bytes, (double)l.bytes);
    if (rc == CLI_OK)
        rc = column_add(&st->gain, host.nll - l.nll);
    progress_clear(&st->bar);
    return rc ? rc : nll_line(st, i + 1, &l, &host);
}

/* ---------------------------------------------------------------------------------------------------- the total */

typedef struct nll_total { interval per_token, per_byte; double exact, strength; } nll_total;

static int nll_side_total(const nll_state *st, const nll_side *side, nll_total *out) {
    int rc = report_interval(&st->report, &side->nll, &st->tokens, &out->per_token);
    out->exact = column_mean(&side->exact);
    out->strength = column_mean(&side->strength);
    return rc ? rc : report_interval(&st->report, &side->nll, &st->bytes, &out->per_byte);
}

static void nll_side_json(jbuild *o, const char *before, const nll_side *side, const nll_total *t) {
    char key[64];
    snprintf(key, sizeof key, "%snll", before);
    jset_real(o, key, column_mean(&side->nll) * (double)side->nll.n);
    snprintf(key, sizeof key, "%snll_per_token", before);
    jset_interval(o, key, &t->per_token);
    snprintf(key, sizeof key, "%snll_per_byte", before);
    jset_interval(o, key, &t->per_byte);
    snprintf(key, sizeof key, "%sexact_memorization", before);
    jset_real(o, key, t->exact);
    snprintf(key, sizeof key, "%sextraction_strength", before);
    jset_real(o, key, t->strength);
}

static int nll_row(const char *name, const nll_total *t) {
    return out_printf("%-9s %10.4f %10.4f %12.4f %12.4f\n", name, t->per_token.value, t->per_byte.value, t->exact, t->strength);
}

static int nll_table(const nll_state *st, const nll_total *steered, const nll_total *host, const interval *gain, const tally *t) {
    int rc = out_printf("%-9s %10s %10s %12s %12s\n", "", "nll/token", "nll/byte", "memorization", "extraction");
    if (rc == CLI_OK && st->s.n)
        rc = nll_row("steered", steered);
    if (rc == CLI_OK)
        rc = nll_row("host", host);
    if (rc == CLI_OK && st->s.n)
        rc = out_printf("gain      %10.4f nats per token, %g %% interval %.4f to %.4f\n"
                        "          better on %zu records of %zu, worse on %zu: p = %.3g by the sign test\n",
                        gain->value, 100 * st->args->eval.level, gain->lo, gain->hi, t->wins, st->gain.n, t->losses, t->p);
    return rc;
}

static int nll_finish(nll_state *st) {
    nll_total steered, host;
    interval gain;
    tally t = sign_test(st->gain.v, st->gain.n);
    int rc = nll_side_total(st, &st->steered, &steered);
    if (rc == CLI_OK)
        rc = nll_side_total(st, &st->host, &host);
    if (rc == CLI_OK)
        rc = report_interval(&st->report, &st->gain, &st->tokens, &gain);
    if (rc)
        return rc;
    jbuild o = jobject();
    jset_int(&o, "records", (int64_t)st->tokens.n);
    jset_int(&o, "tokens", (int64_t)(column_mean(&st->tokens) * (double)st->tokens.n + 0.5));
    jset_int(&o, "bytes", (int64_t)(column_mean(&st->bytes) * (double)st->bytes.n + 0.5));
    jset_real(&o, "temperature", st->args->temperature);
    nll_side_json(&o, "", &st->steered, &steered);
    if (st->s.n) {
        nll_side_json(&o, "host_", &st->host, &host);
        jset_interval(&o, "gain", &gain);
        jset_tally(&o, &t);
        steer_json(&o, &st->s);
    }
    rc = report_total(&st->report, o);
    return rc || st->args->common.json ? rc : nll_table(st, &steered, &host, &gain, &t);
}

/* ------------------------------------------------------------------------------------------------------ the run */

static int nll_all(nll_state *st, const cmc_records *records) {
    int rc = CLI_OK;
    progress_start(&st->bar);
    cli_catch_interrupt();
    for (size_t i = 0; i < records->n && rc == CLI_OK; i++) {
        if (cli_interrupted()) {
            progress_clear(&st->bar);
            return CLI_INTERRUPTED;
        }
        progress_show(&st->bar, "scoring: record %zu of %zu", i + 1, records->n);
        rc = nll_record(st, &records->v[i], i);
    }
    return rc ? rc : nll_finish(st);
}

static int nll_open_and_run(const nll_args *a, const cmc_records *records) {
    nll_state st = {.args = a};
    int rc = steer_open(&a->steer, &a->common, &st.s);
    if (rc)
        return rc;
    rc = report_open(&st.report, &a->eval, &a->common);
    if (rc == CLI_OK)
        rc = nll_all(&st, records);
    rc = report_close(&st.report, rc);
    nll_side_free(&st.steered);
    nll_side_free(&st.host);
    column_free(&st.tokens);
    column_free(&st.bytes);
    column_free(&st.gain);
    steer_close(&st.s);
    return rc;
}

static int nll_main(void *opts, const arg_list *operands) {
    const nll_args *a = opts;
    cmc_records records = {0};
    cmc_error err = {0};
    if (!a->steer.host)
        return cli_usage("-m: a host is needed: cmc eval nll -m HOST -f DATA");
    if (operands->n)
        return cli_usage("\"%s\": eval nll takes its records from a file: -f DATA", operands->v[0]);
    if (!a->file)
        return cli_usage("-f: a file of records is needed: cmc eval nll -m HOST -f DATA");
    if (!(a->temperature >= 1e-6 && a->temperature <= 1e6))
        return cli_usage("--temperature: %g, should be from 1e-6 to 1e6", a->temperature);
    int rc = cmc_records_read(a->file, true, &records, &err) == CMC_OK ? nll_open_and_run(a, &records) : cli_error(NULL, &err);
    cmc_records_free(&records);
    return rc;
}

static void nll_defaults(void *opts) {
    nll_args *a = opts;
    steer_defaults(&a->steer);
    eval_defaults(&a->eval);
    a->temperature = 1;
}

static const arg_group nll_groups[] = {
    {"Options", nll_opts, 0},
    {"Report", eval_opts, offsetof(nll_args, eval)},
    {"Models", steer_opts, offsetof(nll_args, steer)},
    {"Guards", guard_opts, offsetof(nll_args, steer.guards)},
    {"Every verb", common_opts, offsetof(nll_args, common)},
};

const arg_verb verb_eval_nll = {
    .name = "eval nll",
    .usage = "-m HOST [-d DELTA[=ALPHA]]... -f DATA [options]",
    .summary = "likelihood of given answers, steered beside unsteered",
    .text = "Scores every record's response as cmc score does: negative log-likelihood in nats per token and per byte, the share "
            "of tokens that greedy decoding would have given (exact memorization), and how much of an answer's end it would have "
            "(extraction strength). With deltas: what they gain over the host, with a paired bootstrap interval over records and "
            "the sign test.",
    .example = "cmc eval nll -m host.gguf -d delta.gguf -f held-out.jsonl",
    .groups = nll_groups,
    .n_groups = sizeof nll_groups / sizeof *nll_groups,
    .size = sizeof(nll_args),
    .defaults = nll_defaults,
    .main = nll_main,
};
