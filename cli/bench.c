/* cmc bench: prompt and decoding speed, measured as llama-bench does: random tokens, the prompt's last row of logits
 * only, decoding from an empty cache unless a context is asked for, sampling excluded. */
#include "cli/progress.h"
#include "cli/steer.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

typedef struct bench_args {
    common_args common;
    steer_args steer;
    int32_t n_prompt, n_gen, batch, context, repeats;
} bench_args;

static const arg_opt bench_opts[] = {
    {.name = "prompt", .letter = 'p', .kind = ARG_INT, .at = offsetof(bench_args, n_prompt), .value = "N",
     .help = "tokens of the prompt; 0: leave it out", .lo = 0, .hi = 1 << 24, .show_default = true},
    {.name = "gen", .letter = 'n', .kind = ARG_INT, .at = offsetof(bench_args, n_gen), .value = "N",
     .help = "tokens decoded one by one; 0: leave it out", .lo = 0, .hi = 1 << 24, .show_default = true},
    {.name = "batch", .kind = ARG_INT, .at = offsetof(bench_args, batch), .value = "N",
     .help = "sequences decoded side by side; the speed is that of all together", .lo = 1, .hi = 256,
     .show_default = true},
    {.name = "context", .kind = ARG_INT, .at = offsetof(bench_args, context), .value = "N",
     .help = "tokens in the cache before decoding is timed", .lo = 0, .hi = 1 << 24, .show_default = true},
    {.name = "repeats", .letter = 'r', .kind = ARG_INT, .at = offsetof(bench_args, repeats), .value = "N",
     .help = "measurements of each, of which the median is given", .lo = 1, .hi = 1000, .show_default = true},
    {.name = NULL},
};

typedef struct bench_state {
    const bench_args *args;
    steer s;
    uint64_t random;          /* state of the token generator */
    float *logits;            /* [batch][n_vocab] */
    int32_t *ids;             /* [max(n_prompt, context)] */
    double *tps;              /* [2][repeats] */
    cmc_session *context;     /* what every decoded sequence begins as */
    cmc_session **sessions;   /* [batch] */
    cmc_eval_item *items;     /* [batch] */
    progress bar;
} bench_state;

/* splitmix64: which tokens they are does not matter, only that they differ. */
static int32_t bench_token(bench_state *b) {
    uint64_t z = b->random += 0x9E3779B97F4A7C15u;
    z = (z ^ (z >> 30)) * 0xBF58476D1CE4E5B9u;
    z = (z ^ (z >> 27)) * 0x94D049BB133111EBu;
    return (int32_t)((z ^ (z >> 31)) % (uint64_t)cmc_model_n_vocab(b->s.host));
}

/* The last row of every session's logits, of all in one batch. */
static int bench_eval(bench_state *b, cmc_session *const *sessions, size_t n) {
    cmc_error err = {0};
    size_t n_vocab = (size_t)cmc_model_n_vocab(b->s.host);
    for (size_t i = 0; i < n; i++)
        b->items[i] = (cmc_eval_item){sessions[i], CMC_WANT_SAMPLING, 1, b->logits + i * n_vocab};
    return cmc_eval(b->s.host, b->items, n, &err) == CMC_OK ? CLI_OK : cli_error(NULL, &err);
}

/* An empty session is given n random tokens. */
static int bench_fill(bench_state *b, int32_t n, cmc_session *session) {
    cmc_error err = {0};
    for (int32_t i = 0; i < n; i++)
        b->ids[i] = bench_token(b);
    return cmc_session_sync(session, b->ids, (size_t)n, &err) == CMC_OK ? CLI_OK : cli_error(NULL, &err);
}

/* An empty session of the host. */
static int bench_session(const bench_state *b, cmc_session **out) {
    cmc_error err = {0};
    if (cmc_session_new(b->s.host, 0, out, &err) != CMC_OK ||
        cmc_session_set_expand(*out, b->args->steer.expand, &err) != CMC_OK)
        return cli_error(NULL, &err);
    return CLI_OK;
}

/* The speed of one prompt of n tokens on an empty session. */
static int bench_prompt(bench_state *b, int32_t n, double *tps) {
    cmc_session *session = NULL;
    int rc = bench_session(b, &session);
    double start = cli_now();
    if (rc == CLI_OK)
        rc = bench_fill(b, n, session);
    if (rc == CLI_OK)
        rc = bench_eval(b, &session, 1);
    *tps = n / (cli_now() - start);
    cmc_session_free(session);
    return rc;
}

/* Makes b->context, not timed. */
static int bench_context(bench_state *b) {
    int32_t n = b->args->context, most = cmc_model_n_ctx(b->s.host);
    if (b->args->n_gen == 0)
        return CLI_OK;
    if ((int64_t)n + b->args->n_gen > most)
        return n > 0 ? cli_usage("--context: %d tokens and %d after them do not fit in the host's context of %d", n, b->args->n_gen, most)
                     : cli_usage("-n: %d tokens do not fit in the host's context of %d", b->args->n_gen, most);
    int rc = bench_session(b, &b->context);
    if (rc == CLI_OK && n)
        rc = bench_fill(b, n, b->context);
    return rc == CLI_OK && n ? bench_eval(b, &b->context, 1) : rc;
}

static int bench_steps(bench_state *b, int32_t n) {
    size_t batch = (size_t)b->args->batch;
    cmc_error err = {0};
    for (int32_t i = 0; i < n; i++) {
        for (size_t k = 0; k < batch; k++) {
            if (cmc_session_append(b->sessions[k], bench_token(b), &err) != CMC_OK)
                return cli_error(NULL, &err);
        }
        int rc = bench_eval(b, b->sessions, batch);
        if (rc)
            return rc;
    }
    return CLI_OK;
}

/* The speed of n tokens one by one after the context, in every sequence of the batch. */
static int bench_decode(bench_state *b, int32_t n, double *tps) {
    size_t batch = (size_t)b->args->batch, made = 0;
    cmc_error err = {0};
    while (made < batch && cmc_session_fork(b->context, &b->sessions[made], &err) == CMC_OK)
        made++;
    double start = cli_now();
    int rc = made == batch ? bench_steps(b, n) : cli_error(NULL, &err);
    *tps = n * (double)batch / (cli_now() - start);
    while (made)
        cmc_session_free(b->sessions[--made]);
    return rc;
}

/* A stream of one text, n tokens after the first. */
static cmc_status bench_stream(const bench_state *b, int32_t n, bool unsteered, cmc_stream **out, cmc_error *err) {
    static char text[] = "The";
    cmc_message message = {CMC_USER, text, 3};
    cmc_record prompt = {.line = 1, .messages = &message, .n_messages = 1};
    cmc_stream_opts opts = {.unsteered = unsteered, .max_tokens = n + 1, .ignore_end = true, .sampling = cmc_sampling_defaults()};
    return cmc_stream_new(b->s.st, &prompt, &opts, out, err);
}

/* The speeds of n tokens of one text steered, with all that belongs to it, and of the same unsteered, greedy sampling included and the
 * prompt's evaluation left out. They step in turn, so that whatever else the machine does slows both. */
static int bench_steered(bench_state *b, int32_t n, double tps[2]) {
    cmc_stream *stream[2] = {NULL, NULL};
    cmc_error err = {0};
    cmc_status st = CMC_OK;
    for (size_t k = 0; k < 2 && st == CMC_OK; k++)
        st = bench_stream(b, n, k == 1, &stream[k], &err);
    while (st == CMC_OK && cmc_stream_stopped(stream[1]) == CMC_STOP_NONE) {
        for (size_t k = 0; k < 2 && st == CMC_OK; k++)
            st = cmc_streams_step(&stream[k], 1, &err);
    }
    for (size_t k = 0; k < 2 && st == CMC_OK; k++) {
        cmc_stream_timing timing;
        cmc_stream_timing_get(stream[k], &timing);
        tps[k] = timing.decode_steps ? (double)timing.decode_steps / timing.decode_seconds : NAN;
    }
    for (size_t k = 0; k < 2; k++)
        cmc_stream_free(stream[k]);
    return st == CMC_OK ? CLI_OK : cli_error(NULL, &err);
}

static int bench_compare(const void *a, const void *b) {
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

/* Measures one speed, or two. */
typedef int bench_fn(bench_state *b, int32_t n, double *tps);

static double bench_median(double *v, size_t n) {
    qsort(v, n, sizeof *v, bench_compare);
    return n % 2 ? v[n / 2] : (v[n / 2 - 1] + v[n / 2]) / 2;
}

/* The median speeds over n tokens, after a warm-up that is not counted; NaN where n is 0. second: NULL where fn measures one. */
static int bench_measure(bench_state *b, const char *what, bench_fn *fn, int32_t n, double *first, double *second) {
    size_t repeats = (size_t)b->args->repeats;
    double tps[2] = {NAN, NAN};
    int rc = CLI_OK;
    for (size_t i = 0; i <= repeats && rc == CLI_OK && n > 0; i++) {
        if (i > 0)
            progress_show(&b->bar, "%s: %zu of %zu", what, i, repeats);
        rc = fn(b, n, tps);
        for (size_t k = 0; k < 2 && i > 0; k++)
            b->tps[k * repeats + i - 1] = tps[k];
    }
    progress_clear(&b->bar);
    *first = n > 0 && rc == CLI_OK ? bench_median(b->tps, repeats) : NAN;
    if (second)
        *second = n > 0 && rc == CLI_OK ? bench_median(b->tps + repeats, repeats) : NAN;
    return rc;
}

/* Tokens a second. */
typedef struct bench_result { double pp, tg, steered, unsteered; } bench_result;

static int bench_json(const bench_state *b, const bench_result *r) {
    jbuild o = jobject();
    jset_string(&o, "model", b->args->steer.host);
    jset_int(&o, "threads", cmc_runtime_threads(b->s.rt));
    jset_real(&o, "pp_tps", r->pp);
    jset_real(&o, "tg_tps", r->tg);
    jset_real(&o, "steered_tg_tps", r->steered);
    jset_real(&o, "unsteered_tg_tps", r->unsteered);
    jset_string(&o, "blas_core", cmc_runtime_blas_core(b->s.rt));
    jset_string(&o, "isa", cmc_runtime_isa(b->s.rt));
    jset_int(&o, "copies_bytes", (int64_t)cmc_model_copies(b->s.host));
    jset_int(&o, "n_prompt", b->args->n_prompt);
    jset_int(&o, "n_gen", b->args->n_gen);
    jset_int(&o, "batch", b->args->batch);
    jset_int(&o, "context", b->args->context);
    jset_int(&o, "repeats", b->args->repeats);
    if (b->s.n)
        steer_json(&o, &b->s);
    return jout(o);
}

static int bench_table(const bench_state *b, const bench_result *r) {
    int rc = out_printf("model     %s\nthreads   %d\nisa       %s, OpenBLAS core %s\n", b->args->steer.host,
                        cmc_runtime_threads(b->s.rt), cmc_runtime_isa(b->s.rt), cmc_runtime_blas_core(b->s.rt));
    if (rc == CLI_OK && isfinite(r->pp))
        rc = out_printf("prompt    %8.2f tok/s  (%d tokens)\n", r->pp, b->args->n_prompt);
    if (rc == CLI_OK && isfinite(r->tg))
        rc = out_printf("decode    %8.2f tok/s  (%d tokens, batch %d, context %d)\n", r->tg, b->args->n_gen, b->args->batch,
                        b->args->context);
    if (rc == CLI_OK && cmc_model_copies(b->s.host) > 0)
        rc = out_printf("copies    %8.1f MB beside the file's %.1f\n", (double)cmc_model_copies(b->s.host) / 1e6,
                        (double)cmc_model_bytes(b->s.host) / 1e6);
    if (rc == CLI_OK && isfinite(r->steered))
        rc = out_printf("steered   %8.2f tok/s  (%d tokens)\nunsteered %8.2f tok/s  (the same without the deltas)\n", r->steered,
                        b->args->n_gen, r->unsteered);
    return rc;
}

static bool bench_alloc(bench_state *b) {
    const bench_args *a = b->args;
    int32_t n = a->n_prompt > a->context ? a->n_prompt : a->context;
    size_t batch = (size_t)a->batch;
    b->logits = calloc(batch * (size_t)cmc_model_n_vocab(b->s.host), sizeof *b->logits);
    b->ids = calloc(n ? (size_t)n : 1, sizeof *b->ids);
    b->tps = calloc(2 * (size_t)a->repeats, sizeof *b->tps);
    b->sessions = calloc(batch, sizeof *b->sessions);
    b->items = calloc(batch, sizeof *b->items);
    return b->logits && b->ids && b->tps && b->sessions && b->items;
}

static void bench_close(bench_state *b) {
    cmc_session_free(b->context);
    free(b->logits);
    free(b->ids);
    free(b->tps);
    free(b->sessions);
    free(b->items);
    steer_close(&b->s);
}

static int bench_run(bench_state *b) {
    bench_result r = {.steered = NAN, .unsteered = NAN};
    b->random = b->args->common.seed;
    if (!bench_alloc(b))
        return cli_no_memory();
    int rc = bench_context(b);
    if (rc)
        return rc;
    progress_start(&b->bar);
    rc = bench_measure(b, "prompt", bench_prompt, b->args->n_prompt, &r.pp, NULL);
    if (rc == CLI_OK)
        rc = bench_measure(b, "decode", bench_decode, b->args->n_gen, &r.tg, NULL);
    if (rc == CLI_OK && b->s.n)
        rc = bench_measure(b, "steered", bench_steered, b->args->n_gen, &r.steered, &r.unsteered);
    if (rc)
        return rc;
    return b->args->common.json ? bench_json(b, &r) : bench_table(b, &r);
}

static int bench_main(void *opts, const arg_list *operands) {
    const bench_args *a = opts;
    bench_state b = {.args = a};
    if (!a->steer.host)
        return cli_usage("-m: a host is needed: cmc bench -m HOST");
    if (operands->n)
        return cli_usage("\"%s\": bench takes no text", operands->v[0]);
    int rc = steer_open(&a->steer, &a->common, &b.s);
    if (rc)
        return rc;
    rc = bench_run(&b);
    bench_close(&b);
    return rc;
}

static void bench_defaults(void *opts) {
    bench_args *a = opts;
    steer_defaults(&a->steer);
    a->n_prompt = 512;
    a->n_gen = 128;
    a->batch = 1;
    a->repeats = 5;
}

static const arg_group bench_groups[] = {
    {"Options", bench_opts, 0},
    {"Models", steer_opts, offsetof(bench_args, steer)},
    {"Guards", guard_opts, offsetof(bench_args, steer.guards)},
    {"Every verb", common_opts, offsetof(bench_args, common)},
};

const arg_verb verb_bench = {
    .name = "bench",
    .usage = "-m HOST [-d DELTA[=ALPHA]]... [-p N] [-n N] [--batch N] [--context N] [options]",
    .summary = "tokens a second",
    .text = "Measures the host's speed as llama-bench does: random tokens, a prompt of which only the last row of "
            "logits is wanted, decoding from an empty cache (or after --context tokens), sampling excluded; after a "
            "warm-up, the median of the repeats. With deltas also the speed of steered decoding, all of its work and "
            "greedy sampling included, of one text and from a short prompt; and, step by step "
            "in turn with it, that of the same without the deltas.",
    .example = "cmc bench -m host.gguf -d delta.gguf -p 512 -n 128",
    .groups = bench_groups,
    .n_groups = sizeof bench_groups / sizeof *bench_groups,
    .size = sizeof(bench_args),
    .defaults = bench_defaults,
    .main = bench_main,
};
