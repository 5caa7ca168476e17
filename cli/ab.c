/* cmc ab: each prompt unsteered and steered, side by side. */
#include "cli/ab_report.h"
#include "cli/text.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

typedef struct ab_args {
    common_args common;
    steer_args steer;
    gen_args gen;
    const char *html, *sweep;
    double *alphas; size_t n_alphas;   /* the sweep's */
} ab_args;

static const arg_opt ab_opts[] = {
    {.name = "html", .file = ARG_WRITES, .kind = ARG_STR, .at = offsetof(ab_args, html), .value = "FILE",
     .help = "write a page too: both answers with their differences marked, what steering moved at each token, a summary with intervals, "
             "and how likely the records' own answers are"},
    {.name = "sweep", .kind = ARG_STR, .at = offsetof(ab_args, sweep), .value = "A,B,...",
     .help = "with --html and one delta: answer every prompt at these strengths as well, and plot what becomes of it"},
    {.name = NULL},
};

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
    ab_report *report;                 /* NULL: no page */
    char title[2][256];
    int width;
} ab_state;

static void ab_titles(ab_state *a) {
    char *to = a->title[GEN_STEERED];
    size_t size = sizeof a->title[0], n = 0;
    snprintf(a->title[GEN_UNSTEERED], size, "%s, unsteered", cmc_model_name(a->s->host));
    for (size_t k = 0; k < a->s->n && n < size; k++) {
        int w = snprintf(to + n, size - n, "%s%s, alpha %.6g", k ? " + " : "", cli_file_name(a->s->paths[k]),
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
static int ab_line(const char *left, size_t n_left, const char *right, size_t n_right, int width) {
    int rc = text_put(left, n_left, width, true);
    if (rc == CLI_OK)
        rc = out_bytes(ab_bar, sizeof ab_bar - 1);
    if (rc == CLI_OK)
        rc = text_put(right, n_right, n_right ? 0 : -1, false);
    return rc ? rc : out_bytes("\n", 1);
}

static int ab_rule(int width) {
    int rc = ab_repeat(ab_dash, width);
    if (rc == CLI_OK)
        rc = out_bytes(ab_cross, sizeof ab_cross - 1);
    if (rc == CLI_OK)
        rc = ab_repeat(ab_dash, width);
    return rc ? rc : out_bytes("\n", 1);
}

/* Wraps both texts into columns, line by line. */
static int ab_wrapped(const char *left, size_t n_left, const char *right, size_t n_right, int width) {
    size_t l = 0, r = 0;
    int rc = CLI_OK;
    while (rc == CLI_OK && (l < n_left || r < n_right)) {
        size_t l0 = l, r0 = r;
        size_t l1 = l < n_left ? text_wrap(left, n_left, width, &l) : l0;
        size_t r1 = r < n_right ? text_wrap(right, n_right, width, &r) : r0;
        rc = ab_line(left + l0, l1 - l0, right + r0, r1 - r0, width);
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
    int width = (a->width - 3) / 2;
    char figures[2][96];
    ab_figures(&side[0], figures[0], sizeof figures[0]);
    ab_figures(&side[1], figures[1], sizeof figures[1]);
    int rc = ab_wrapped(a->title[0], strlen(a->title[0]), a->title[1], strlen(a->title[1]), width);
    if (rc == CLI_OK)
        rc = ab_rule(width);
    if (rc == CLI_OK)
        rc = ab_wrapped(left, n_left, right, n_right, width);
    if (rc == CLI_OK)
        rc = ab_rule(width);
    if (rc == CLI_OK)
        rc = ab_wrapped(figures[0], strlen(figures[0]), figures[1], strlen(figures[1]), width);
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

static int ab_on_step(void *user, size_t index, cmc_stream *const side[2]) {
    ab_state *a = user;
    size_t n[2];
    for (int k = 0; k < 2; k++)
        cmc_stream_ids(side[k], &n[k]);
    progress_show(&a->bar, "generating: %zu tokens unsteered, %zu steered", n[GEN_UNSTEERED], n[GEN_STEERED]);
    return a->report ? ab_report_step(a->report, index, side[GEN_STEERED]) : CLI_OK;
}

static int ab_on_result(void *user, size_t index, const gen_side side[2]) {
    ab_state *a = user;
    int rc = a->report ? ab_report_result(a->report, index, side) : CLI_OK;
    progress_clear(&a->bar);
    if (rc || a->args->common.json)
        return rc ? rc : ab_json(a, index, side);
    rc = ab_prompt(a, index);
    if (rc == CLI_OK)
        rc = a->width < AB_NARROW ? ab_stacked(a, side) : ab_columns(a, side);
    if (rc == CLI_OK)
        rc = out_flush();
    if (rc == CLI_OK && side[GEN_STEERED].note)
        cli_note("%s", side[GEN_STEERED].note);
    return rc;
}

static const arg_group ab_groups[] = {
    {"Page", ab_opts, 0},
    {"Models", steer_opts, offsetof(ab_args, steer)},
    {"Guards", guard_opts, offsetof(ab_args, steer.guards)},
    {"Generating", gen_opts, offsetof(ab_args, gen)},
    {"Every verb", common_opts, offsetof(ab_args, common)},
};
enum { AB_GROUPS = sizeof ab_groups / sizeof *ab_groups };

static int ab_page(ab_state *a) {
    const ab_args *args = a->args;
    int rc = ab_report_finish(a->report);
    return rc ? rc : ab_html(a->report, &(ab_page_opts){args->html, ab_groups, AB_GROUPS, args});
}

static int ab_prompts(const ab_args *args, const prompts *p) {
    steer s;
    int rc = steer_open(&args->steer, &args->common, &s);
    if (rc)
        return rc;
    ab_state a = {.args = args, .s = &s, .p = p, .width = cli_columns(STDOUT_FILENO, AB_PIPED)};
    ab_report gathered = {.s = &s, .p = p, .gen = &args->gen, .seed = args->common.seed, .bar = &a.bar};
    gen_job job = {.s = &s, .args = &args->gen, .p = p, .seed = args->common.seed, .both = true, .compare = args->html != NULL,
                   .user = &a, .on_step = ab_on_step, .on_result = ab_on_result};
    if (args->html) {
        a.report = &gathered;
        rc = ab_report_open(&gathered, args->alphas, args->n_alphas);
    }
    ab_titles(&a);
    progress_start(&a.bar);
    cli_catch_interrupt();
    if (rc == CLI_OK)
        rc = gen_run(&job);
    if (rc == CLI_OK && a.report)
        rc = ab_page(&a);
    progress_clear(&a.bar);
    ab_report_free(&gathered);
    steer_close(&s);
    return rc;
}

static int ab_check_sweep(ab_args *a) {
    if (!a->html)
        return cli_usage("--sweep: is for a page: --html FILE");
    if (a->steer.deltas.n != 1)
        return cli_usage("--sweep: needs one delta (-d), not %zu", a->steer.deltas.n);
    return steer_alphas("--sweep", a->sweep, &a->alphas, &a->n_alphas);
}

static int ab_main(void *opts, const arg_list *operands) {
    ab_args *a = opts;
    prompts p;
    if (!a->steer.host)
        return cli_usage("-m: a host is needed: cmc ab -m HOST -d DELTA");
    if (!a->steer.deltas.n)
        return cli_usage("-d: a delta is needed to compare with: cmc ab -m HOST -d DELTA");
    int rc = prompts_open(a->gen.file, a->gen.system, operands, &p);
    if (rc)
        return rc;
    if (a->html)
        rc = cli_check_write(a->html);
    if (rc == CLI_OK && a->sweep)
        rc = ab_check_sweep(a);
    if (rc == CLI_OK)
        rc = ab_prompts(a, &p);
    prompts_close(&p);
    free(a->alphas);
    return rc;
}

static void ab_defaults(void *opts) {
    ab_args *a = opts;
    steer_defaults(&a->steer);
    gen_defaults(&a->gen);
    a->gen.batch = 1;
}

const arg_verb verb_ab = {
    .name = "ab",
    .usage = "-m HOST -d DELTA[=ALPHA] [PROMPT | -f FILE] [--html FILE [--sweep A,B,...]] [options]",
    .summary = "both sides of a prompt: unsteered and steered, next to each other",
    .text = "Answers each prompt twice, without and with the deltas, from one evaluation of the prompt; both sides are "
            "decoded as a batch. The columns are as wide as the terminal (COLUMNS; 100 when there is none); on a "
            "narrow one the texts stand one above the other. With --html there is a page besides, one file that needs nothing else; "
            "all logits are computed for it, where otherwise the less likely ones may be estimates (--output).",
    .example = "cmc ab -m host.gguf -d delta.gguf -f prompts.jsonl",
    .groups = ab_groups,
    .n_groups = AB_GROUPS,
    .size = sizeof(ab_args),
    .defaults = ab_defaults,
    .main = ab_main,
};
