/* cmc ab: each prompt unsteered and steered, side by side. */
#include "cli/generate.h"
#include "cli/progress.h"
#include "cli/text.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

typedef struct ab_args {
    common_args common;
    steer_args steer;
    gen_args gen;
} ab_args;

enum {
    AB_NARROW = 60,    /* columns: on less, one text stands above the other */
    AB_PIPED = 100     /* columns where there is no terminal */
};
static const char ab_bar[] = " \xE2\x94\x82 ";                                      /* " | ", box drawing */
static const char ab_cross[] = "\xE2\x94\x80\xE2\x94\xBC\xE2\x94\x80", ab_dash[] = "\xE2\x94\x80";   /* "-+-", "-" */

typedef struct ab_state {
    const ab_args *args;
    const steer *s;
    const prompts *p;
    progress bar;
    char title[2][256];
    int width;
} ab_state;

static void ab_titles(ab_state *a) {
    char *to = a->title[GEN_STEERED];
    size_t size = sizeof a->title[0], n = 0;
    snprintf(a->title[GEN_UNSTEERED], size, "%s, unsteered", cmc_model_name(a->s->host));
    for (size_t k = 0; k < a->s->n && n < size; k++) {
        const char *slash = strrchr(a->s->paths[k], '/');
        int w = snprintf(to + n, size - n, "%s%s, alpha %.6g", k ? " + " : "", slash ? slash + 1 : a->s->paths[k],
                         cmc_steering_alpha(a->s->st, k));
        n += w > 0 ? (size_t)w : 0;
    }
}

static void ab_figures(const gen_side *g, char *to, size_t size) {
    snprintf(to, size, "%zu tokens, %s, %.1f tok/s", g->n_ids, gen_stop_name(g->stop),
             isfinite(gen_decode_tps(g)) ? gen_decode_tps(g) : 0.0);
}

/* ------------------------------------------------------------------------------------------------------ layout */

static int ab_repeat(const char *s, int n) {
    int rc = CLI_OK;
    while (n-- > 0 && rc == CLI_OK)
        rc = out_bytes(s, strlen(s));
    return rc;
}

/* One line of both columns; each text is cut to the column. */
static int ab_line(const char *left, size_t n_left, const char *right, size_t n_right, int column) {
    int rc = text_put(left, n_left, column, true);
    if (rc == CLI_OK)
        rc = out_bytes(ab_bar, sizeof ab_bar - 1);
    if (rc == CLI_OK)
        rc = text_put(right, n_right, n_right ? 0 : -1, false);
    return rc ? rc : out_bytes("\n", 1);
}

static int ab_rule(int column) {
    int rc = ab_repeat(ab_dash, column);
    if (rc == CLI_OK)
        rc = out_bytes(ab_cross, sizeof ab_cross - 1);
    if (rc == CLI_OK)
        rc = ab_repeat(ab_dash, column);
    return rc ? rc : out_bytes("\n", 1);
}

/* Wraps both texts into columns, line by line. */
static int ab_wrapped(const char *left, size_t n_left, const char *right, size_t n_right, int column) {
    size_t l = 0, r = 0;
    int rc = CLI_OK;
    while (rc == CLI_OK && (l < n_left || r < n_right)) {
        size_t l0 = l, r0 = r;
        size_t l1 = l < n_left ? text_wrap(left, n_left, column, &l) : l0;
        size_t r1 = r < n_right ? text_wrap(right, n_right, column, &r) : r0;
        rc = ab_line(left + l0, l1 - l0, right + r0, r1 - r0, column);
    }
    return rc;
}

/* What is shown of an answer: one without text is said to be so, not left to be taken for a fault. */
static const char *ab_shown(const gen_side *side, size_t *len) {
    static const char none[] = "(no text)";
    *len = side->len ? side->len : sizeof none - 1;
    return side->len ? side->text : none;
}

static int ab_columns(const ab_state *a, const gen_side side[2]) {
    size_t n_left, n_right;
    const char *left = ab_shown(&side[0], &n_left), *right = ab_shown(&side[1], &n_right);
    int column = (a->width - 3) / 2;
    char figures[2][96];
    ab_figures(&side[0], figures[0], sizeof figures[0]);
    ab_figures(&side[1], figures[1], sizeof figures[1]);
    int rc = ab_wrapped(a->title[0], strlen(a->title[0]), a->title[1], strlen(a->title[1]), column);
    if (rc == CLI_OK)
        rc = ab_rule(column);
    if (rc == CLI_OK)
        rc = ab_wrapped(left, n_left, right, n_right, column);
    if (rc == CLI_OK)
        rc = ab_rule(column);
    if (rc == CLI_OK)
        rc = ab_wrapped(figures[0], strlen(figures[0]), figures[1], strlen(figures[1]), column);
    return rc;
}

static int ab_stacked(const ab_state *a, const gen_side side[2]) {
    int rc = CLI_OK;
    for (int k = 0; k < 2 && rc == CLI_OK; k++) {
        char figures[96];
        size_t len;
        const char *text = ab_shown(&side[k], &len);
        ab_figures(&side[k], figures, sizeof figures);
        rc = out_printf("%s-- ", k ? "\n" : "");
        if (rc == CLI_OK)
            rc = text_put(a->title[k], strlen(a->title[k]), 0, false);
        if (rc == CLI_OK)
            rc = out_bytes("\n", 1);
        for (size_t from = 0; from < len && rc == CLI_OK;) {
            size_t start = from, end = text_wrap(text, len, a->width, &from);
            rc = text_put(text + start, end - start, 0, false);
            if (rc == CLI_OK)
                rc = out_bytes("\n", 1);
        }
        if (rc == CLI_OK)
            rc = out_printf("(%s)\n", figures);
    }
    return rc;
}

static int ab_prompt(const ab_state *a, size_t index) {
    size_t len, from = 0;
    const char *s = prompts_heading(a->p, index, &len);
    int rc = index ? out_bytes("\n", 1) : CLI_OK;
    if (rc == CLI_OK && a->p->n > 1)
        rc = out_printf("%zu. ", index + 1);
    while (rc == CLI_OK && from < len) {
        size_t start = from, end = text_wrap(s, len, a->width - 6, &from);
        rc = text_put(s + start, end - start, 0, false);
        if (rc == CLI_OK)
            rc = out_bytes("\n", 1);
    }
    return rc ? rc : out_bytes("\n", 1);
}

/* ----------------------------------------------------------------------------------------------------- the verb */

static int ab_json(const ab_state *a, size_t index, const gen_side side[2]) {
    jbuild o = jobject(), unsteered = jobject(), steered = jobject();
    size_t len;
    const char *prompt = prompts_heading(a->p, index, &len);
    gen_json(&unsteered, &side[GEN_UNSTEERED]);
    gen_json(&steered, &side[GEN_STEERED]);
    jset_int(&o, "n", (int64_t)index + 1);
    jset_text(&o, "prompt", prompt, len);
    jset_built(&o, "unsteered", unsteered);
    jset_built(&o, "steered", steered);
    steer_json(&o, a->s);
    return jout(o);
}

static int ab_on_step(void *user, cmc_stream *const side[2]) {
    ab_state *a = user;
    size_t n[2];
    for (int k = 0; k < 2; k++)
        cmc_stream_ids(side[k], &n[k]);
    progress_show(&a->bar, "generating: %zu tokens unsteered, %zu steered", n[GEN_UNSTEERED], n[GEN_STEERED]);
    return CLI_OK;
}

static int ab_on_result(void *user, size_t index, const gen_side side[2]) {
    ab_state *a = user;
    progress_clear(&a->bar);
    if (a->args->common.json)
        return ab_json(a, index, side);
    int rc = ab_prompt(a, index);
    if (rc == CLI_OK)
        rc = a->width < AB_NARROW ? ab_stacked(a, side) : ab_columns(a, side);
    if (rc == CLI_OK)
        rc = out_flush();
    if (rc == CLI_OK && side[GEN_STEERED].note)
        cli_note("%s", side[GEN_STEERED].note);
    return rc;
}

static int ab_prompts(const ab_args *args, const prompts *p) {
    steer s;
    int rc = steer_open(&args->steer, &args->common, &s);
    if (rc)
        return rc;
    ab_state a = {.args = args, .s = &s, .p = p, .width = cli_columns(STDOUT_FILENO, AB_PIPED)};
    gen_job job = {.s = &s, .args = &args->gen, .p = p, .seed = args->common.seed, .both = true, .user = &a,
                   .on_step = ab_on_step, .on_result = ab_on_result};
    ab_titles(&a);
    progress_start(&a.bar);
    cli_catch_interrupt();
    rc = gen_run(&job);
    progress_clear(&a.bar);
    steer_close(&s);
    return rc;
}

static int ab_main(void *opts, const arg_list *operands) {
    const ab_args *a = opts;
    prompts p;
    if (!a->steer.host)
        return cli_usage("-m: a host is needed: cmc ab -m HOST -d DELTA");
    if (!a->steer.deltas.n)
        return cli_usage("-d: a delta is needed to compare with: cmc ab -m HOST -d DELTA");
    int rc = prompts_open(a->gen.file, a->gen.system, operands, &p);
    if (rc)
        return rc;
    rc = ab_prompts(a, &p);
    prompts_close(&p);
    return rc;
}

static void ab_defaults(void *opts) {
    ab_args *a = opts;
    steer_defaults(&a->steer);
    gen_defaults(&a->gen);
    a->gen.batch = 1;
}

static const arg_group ab_groups[] = {
    {"Models", steer_opts, offsetof(ab_args, steer)},
    {"Guards", guard_opts, offsetof(ab_args, steer.guards)},
    {"Generating", gen_opts, offsetof(ab_args, gen)},
    {"Every verb", common_opts, offsetof(ab_args, common)},
};

const arg_verb verb_ab = {
    .name = "ab",
    .usage = "-m HOST -d DELTA[=ALPHA] [PROMPT | -f FILE] [options]",
    .summary = "both sides of a prompt: unsteered and steered, next to each other",
    .text = "Answers each prompt twice, without and with the deltas, from one evaluation of the prompt; both sides are "
            "decoded as a batch. The columns are as wide as the terminal (COLUMNS; 100 when there is none); on a "
            "narrow one the texts stand one above the other.",
    .example = "cmc ab -m host.gguf -d delta.gguf -f prompts.jsonl",
    .groups = ab_groups,
    .n_groups = sizeof ab_groups / sizeof *ab_groups,
    .size = sizeof(ab_args),
    .defaults = ab_defaults,
    .main = ab_main,
};
