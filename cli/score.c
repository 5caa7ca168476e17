/* cmc score: teacher-forced log-probabilities of a file's responses or texts. */
#include "cli/progress.h"
#include "cli/steer.h"
#include "eval/likelihood.h"

#include <inttypes.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

typedef struct score_args {
    common_args common;
    steer_args steer;
    const char *file, *alphas;
    bool tokens;
} score_args;

static const arg_opt score_opts[] = {
    {.name = "file", .file = ARG_READS, .letter = 'f', .kind = ARG_STR, .at = offsetof(score_args, file), .value = "DATA",
     .help = "the records, .jsonl or .json"},
    {.name = "tokens", .kind = ARG_FLAG, .at = offsetof(score_args, tokens),
     .help = "with --json: every record's ids and the log-probability of each but the first, null where it is not "
             "scored"},
    {.name = "alphas", .kind = ARG_STR, .at = offsetof(score_args, alphas), .value = "A,B,...",
     .help = "totals at these strengths as well, from one evaluation (one delta)"},
    {.name = NULL},
};

typedef struct score_state {
    const score_args *args;
    steer s;
    double *alphas;                 /* [n_sets]: the steering's own, then --alphas */
    size_t n_sets;
    double *nll;                    /* [n_sets] totals */
    double host_nll;
    size_t records, tokens, bytes;
    progress bar;
} score_state;

/* --alphas into alphas[1..]; alphas[0] is the steering's own. */
static int score_alphas(score_state *st) {
    double *given = NULL;
    size_t n = 0;
    int rc = st->args->alphas ? steer_alphas("--alphas", st->args->alphas, &given, &n) : CLI_OK;
    if (rc)
        return rc;
    st->n_sets = n + 1;
    st->alphas = calloc(st->n_sets, sizeof *st->alphas);
    st->nll = calloc(st->n_sets, sizeof *st->nll);
    if (st->alphas && st->nll) {
        st->alphas[0] = st->s.n ? cmc_steering_alpha(st->s.st, 0) : 0;
        if (n)
            memcpy(st->alphas + 1, given, n * sizeof *given);
    }
    free(given);
    return st->alphas && st->nll ? CLI_OK : cli_no_memory();
}

/* ---------------------------------------------------------------------------------------------------- a record */

/* log p of ids[i+1] at i; null where it is not scored. */
static json_t *score_row(const cmc_score *sc, const float *logprob) {
    jbuild a = jarray();
    size_t k = 0;
    for (size_t i = 1; i < sc->ids.n; i++) {
        while (k < sc->n && sc->pos[k] < i)
            k++;
        jadd(&a, k < sc->n && sc->pos[k] == i ? jfloat(logprob[k]) : json_null());
    }
    if (!a.bad)
        return a.j;
    jdrop(a);
    return NULL;
}

static int score_json(const score_state *st, const cmc_score *sc, double nll, double host_nll) {
    jbuild o = jobject();
    jset_int(&o, "n", (int64_t)st->records);
    jset_int(&o, "tokens", (int64_t)sc->n);
    jset_int(&o, "bytes", (int64_t)sc->bytes);
    jset_real(&o, "nll", nll);
    if (st->s.n)
        jset_real(&o, "host_nll", host_nll);
    if (st->args->tokens) {
        jset(&o, "ids", jids(sc->ids.v, sc->ids.n));
        jset(&o, "logprobs", score_row(sc, sc->logprob));
        if (st->s.n)
            jset(&o, "host_logprobs", score_row(sc, sc->host_logprob));
    }
    if (sc->note)
        jset_string(&o, "note", sc->note);
    return jout(o);
}

static double score_per(double nll, size_t n) {
    return n ? nll / (double)n : NAN;
}

/* A row of the table: steered (or only) figures, then the host's. `what` 0: the total. */
static int score_table_row(const score_state *st, size_t what, size_t tokens, size_t bytes, double nll,
                           double host_nll) {
    char name[24];
    if (what)
        snprintf(name, sizeof name, "%zu", what);
    else
        snprintf(name, sizeof name, "total");
    int rc = out_printf("%8s %8zu %9zu %10.4f %10.4f", name, tokens, bytes, score_per(nll, tokens),
                        score_per(nll, bytes));
    if (rc == CLI_OK && st->s.n)
        rc = out_printf(" %10.4f %10.4f", score_per(host_nll, tokens), score_per(host_nll, bytes));
    return rc ? rc : out_bytes("\n", 1);
}

static int score_table_head(const score_state *st) {
    int rc = out_printf("%8s %8s %9s %10s %10s", "record", "tokens", "bytes", "nll/token", "nll/byte");
    if (rc == CLI_OK && st->s.n)
        rc = out_printf(" %10s %10s", "host/token", "host/byte");
    return rc ? rc : out_bytes("\n", 1);
}

static int score_record(score_state *st, const cmc_record *r) {
    cmc_score sc = {0};
    cmc_error err = {0};
    bool sweep = st->n_sets > 1;
    if (cmc_score_record(st->s.st, r, sweep ? st->alphas : NULL, sweep ? st->n_sets : 0, &sc, &err) != CMC_OK) {
        char where[600];
        snprintf(where, sizeof where, "%s: record %zu (line %ld)", st->args->file, st->records + 1, r->line);
        progress_clear(&st->bar);
        return cli_error(where, &err);
    }
    double nll = likelihood_nll(sc.logprob, sc.n), host_nll = st->s.n ? likelihood_nll(sc.host_logprob, sc.n) : nll;
    st->records++;
    st->tokens += sc.n;
    st->bytes += sc.bytes;
    st->host_nll += host_nll;
    for (size_t k = 0; k < st->n_sets; k++)
        st->nll[k] += likelihood_nll(sc.logprob + k * sc.n, sc.n);
    progress_clear(&st->bar);
    steer_note(&st->s, sc.note);
    int rc = st->args->common.json ? score_json(st, &sc, nll, host_nll)
                                   : score_table_row(st, st->records, sc.n, sc.bytes, nll, host_nll);
    cmc_score_free(&sc);
    return rc ? rc : out_flush();
}

/* --------------------------------------------------------------------------------------------------- the totals */

static int score_total_json(const score_state *st) {
    jbuild o = jobject(), total = jobject(), alphas = jarray();
    jset_int(&total, "records", (int64_t)st->records);
    jset_int(&total, "tokens", (int64_t)st->tokens);
    jset_int(&total, "bytes", (int64_t)st->bytes);
    jset_real(&total, "nll", st->nll[0]);
    jset_real(&total, "nll_per_byte", score_per(st->nll[0], st->bytes));
    if (st->s.n) {
        jset_real(&total, "host_nll", st->host_nll);
        jset_real(&total, "host_nll_per_byte", score_per(st->host_nll, st->bytes));
        steer_json(&total, &st->s);
    }
    for (size_t k = 1; k < st->n_sets; k++) {
        jbuild e = jobject();
        jset_real(&e, "alpha", st->alphas[k]);
        jset_real(&e, "nll", st->nll[k]);
        jadd_built(&alphas, e);
    }
    if (st->n_sets > 1)
        jset_built(&total, "alphas", alphas);
    else
        jdrop(alphas);
    jset_built(&o, "total", total);
    return jout(o);
}

static int score_total(const score_state *st) {
    int rc = score_table_row(st, 0, st->tokens, st->bytes, st->nll[0], st->host_nll);
    for (size_t k = 1; k < st->n_sets && rc == CLI_OK; k++) {
        rc = out_printf("%salpha %-8.4g nll/token %8.4f  nll/byte %8.4f\n", k == 1 ? "\n" : "", st->alphas[k],
                        score_per(st->nll[k], st->tokens), score_per(st->nll[k], st->bytes));
    }
    return rc;
}

static int score_all(score_state *st, const cmc_records *records) {
    int rc = st->args->common.json ? CLI_OK : score_table_head(st);
    progress_start(&st->bar);
    for (size_t i = 0; i < records->n && rc == CLI_OK; i++) {
        if (cli_interrupted())
            return CLI_INTERRUPTED;
        progress_show(&st->bar, "scoring: record %zu of %zu", i + 1, records->n);
        rc = score_record(st, &records->v[i]);
    }
    if (rc)
        return rc;
    return st->args->common.json ? score_total_json(st) : score_total(st);
}

static int score_open_and_run(const score_args *a, const cmc_records *records) {
    score_state st = {.args = a};
    int rc = steer_open(&a->steer, &a->common, &st.s);
    if (rc)
        return rc;
    rc = score_alphas(&st);
    if (rc == CLI_OK) {
        cli_catch_interrupt();
        rc = score_all(&st, records);
    }
    free(st.alphas);
    free(st.nll);
    steer_close(&st.s);
    return rc;
}

static int score_main(void *opts, const arg_list *operands) {
    const score_args *a = opts;
    cmc_records records = {0};
    cmc_error err = {0};
    int rc;
    if (!a->steer.host)
        return cli_usage("-m: a host is needed: cmc score -m HOST -f DATA");
    if (operands->n)
        return cli_usage("\"%s\": score takes its records from a file: -f DATA", operands->v[0]);
    if (!a->file)
        return cli_usage("-f: a file of records is needed: cmc score -m HOST -f DATA");
    if (a->alphas && a->steer.deltas.n != 1)
        return cli_usage("--alphas: needs one delta (-d), not %zu", a->steer.deltas.n);
    if (a->tokens && !a->common.json)
        return cli_usage("--tokens: needs --json");
    if (cmc_records_read(a->file, true, &records, &err) != CMC_OK)
        rc = cli_error(NULL, &err);
    else if (records.n == 0)
        rc = cli_failed("%s: holds no record", a->file);
    else
        rc = score_open_and_run(a, &records);
    cmc_records_free(&records);
    return rc;
}

static void score_defaults(void *opts) {
    steer_defaults(&((score_args *)opts)->steer);
}

static const arg_group score_groups[] = {
    {"Options", score_opts, 0},
    {"Models", steer_opts, offsetof(score_args, steer)},
    {"Guards", guard_opts, offsetof(score_args, steer.guards)},
    {"Every verb", common_opts, offsetof(score_args, common)},
};

const arg_verb verb_score = {
    .name = "score",
    .usage = "-m HOST [-d DELTA[=ALPHA]]... -f DATA [options]",
    .summary = "how likely a model finds given answers",
    .text = "Scores the responses of every record (or the whole of a {\"text\"} record): the negative log-likelihood "
            "in nats, each token given what really stood before it. With deltas the host's own figures stand beside "
            "the steered ones.",
    .example = "cmc score -m host.gguf -d delta.gguf -f held-out.jsonl --alphas 0,0.5,1",
    .groups = score_groups,
    .n_groups = sizeof score_groups / sizeof *score_groups,
    .size = sizeof(score_args),
    .defaults = score_defaults,
    .main = score_main,
};
