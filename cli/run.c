/* cmc run: generate. */
#include "cli/generate.h"
#include "cli/progress.h"
#include "cli/text.h"

#include <math.h>
#include <string.h>
#include <unistd.h>

typedef struct run_args {
    common_args common;
    steer_args steer;
    gen_args gen;
} run_args;

typedef struct run_state {
    const run_args *args;
    const steer *s;
    const prompts *p;
    size_t shown;         /* bytes of the one text that are written */
    bool newline;         /* the last of them is one */
    size_t tokens;        /* of all results so far */
    progress bar;
    double start;
} run_state;

/* Writes what is new of the one text. */
static int run_stream(run_state *r, const char *text, size_t len) {
    if (len <= r->shown)
        return CLI_OK;
    int rc = out_bytes(text + r->shown, len - r->shown);
    r->newline = text[len - 1] == '\n';
    r->shown = len;
    return rc ? rc : out_flush();
}

static int run_on_step(void *user, size_t index, cmc_stream *const side[2]) {
    run_state *r = user;
    size_t len;
    (void)index;
    if (r->p->n > 1 || r->args->common.json) {
        progress_show(&r->bar, "generating: %zu texts, %zu tokens done", r->p->n, r->tokens);
        return CLI_OK;
    }
    const char *text = cmc_stream_text(side[GEN_STEERED], &len);
    return run_stream(r, text, len);
}

static int run_json(const run_state *r, size_t index, const gen_side *g) {
    jbuild o = jobject();
    if (r->p->path)
        jset_int(&o, "n", (int64_t)index + 1);
    gen_json(&o, g);
    if (r->s->n)
        steer_json(&o, r->s);
    return jout(o);
}

static void run_figures(const run_state *r, const gen_side *g) {
    static const char *const why[] = {"interrupted", "ended by an end token", "stopped at the length limit",
                                      "ended by a stop string"};
    fprintf(stderr, "%zu prompt tokens, %.1f tok/s; %zu tokens, %.1f tok/s; %s\n", g->prompt_tokens,
            isfinite(gen_prefill_tps(g)) ? gen_prefill_tps(g) : 0.0, g->n_ids,
            isfinite(gen_decode_tps(g)) ? gen_decode_tps(g) : 0.0, why[g->stop]);
    for (size_t k = 0; k < r->s->n; k++) {
        fprintf(stderr, "%s: alpha %.6g, %.1f %% of the host's tokens mapped\n", r->s->paths[k],
                cmc_steering_alpha(r->s->st, k), 100 * steer_coverage(r->s, k));
    }
}

static int run_heading(const run_state *r, size_t index) {
    size_t len;
    const char *s = prompts_heading(r->p, index, &len);
    int rc = out_printf("%s== %zu: ", index ? "\n" : "", index + 1);
    if (rc == CLI_OK)
        rc = text_put(s, len, text_width(s, len) < 70 ? 0 : 70, text_width(s, len) >= 70);
    return rc ? rc : out_bytes("\n", 1);
}

static int run_on_result(void *user, size_t index, const gen_side side[2]) {
    run_state *r = user;
    const gen_side *g = &side[GEN_STEERED];
    int rc;
    progress_clear(&r->bar);
    r->tokens += g->n_ids;
    if (r->args->common.json) {
        rc = run_json(r, index, g);
    } else {
        if (r->p->n > 1) {
            r->shown = 0;
            r->newline = false;
            rc = run_heading(r, index);
            if (rc)
                return rc;
        }
        rc = run_stream(r, g->text, g->len);
        if (rc == CLI_OK && !r->newline)
            rc = out_bytes("\n", 1);
        if (rc == CLI_OK)
            rc = out_flush();
        if (rc == CLI_OK && r->p->n == 1)
            run_figures(r, g);
    }
    if (rc == CLI_OK && g->note)
        cli_note("%s", g->note);
    return rc;
}

static int run_prompts(const run_args *a, const prompts *p) {
    steer s;
    int rc = steer_open(&a->steer, &a->common, &s);
    if (rc)
        return rc;
    run_state r = {.args = a, .s = &s, .p = p, .start = cli_now()};
    gen_job job = {.s = &s, .args = &a->gen, .p = p, .seed = a->common.seed, .user = &r,
                   .on_step = run_on_step, .on_result = run_on_result};
    progress_start(&r.bar);
    cli_catch_interrupt();
    rc = gen_run(&job);
    progress_clear(&r.bar);
    if (!a->common.json && p->n > 1 && (rc == CLI_OK || rc == CLI_INTERRUPTED))
        fprintf(stderr, "%zu prompts, %zu tokens in %.1f s\n", p->n, r.tokens, cli_now() - r.start);
    steer_close(&s);
    return rc;
}

static int run_main(void *opts, const arg_list *operands) {
    const run_args *a = opts;
    prompts p;
    if (!a->steer.host)
        return cli_usage("-m: a host is needed: cmc run -m HOST");
    int rc = prompts_open(a->gen.file, a->gen.system, operands, &p);
    if (rc)
        return rc;
    rc = run_prompts(a, &p);
    prompts_close(&p);
    return rc;
}

static void run_defaults(void *opts) {
    run_args *a = opts;
    steer_defaults(&a->steer);
    gen_defaults(&a->gen);
}

static const arg_group run_groups[] = {
    {"Models", steer_opts, offsetof(run_args, steer)},
    {"Guards", guard_opts, offsetof(run_args, steer.guards)},
    {"Generating", gen_opts, offsetof(run_args, gen)},
    {"Every verb", common_opts, offsetof(run_args, common)},
};

const arg_verb verb_run = {
    .name = "run",
    .usage = "-m HOST [-d DELTA[=ALPHA]]... [PROMPT | -f FILE] [options]",
    .summary = "generate text, steered by deltas",
    .text = "Answers a prompt, or every prompt of a file of records. The text goes to standard output as it comes, "
            "figures go to standard error. With a file of records, --json gives a line for each, numbered by \"n\", "
            "in the order of the file.",
    .example = "cmc run -m host.gguf -d delta.gguf=0.8 \"Why is the sky blue?\"",
    .groups = run_groups,
    .n_groups = sizeof run_groups / sizeof *run_groups,
    .size = sizeof(run_args),
    .defaults = run_defaults,
    .main = run_main,
};
