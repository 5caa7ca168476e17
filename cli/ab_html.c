/* The page about ab. */
#include "cli/ab_report.h"

#include <inttypes.h>
#include <math.h>
#include <stdlib.h>

#include "cli/ab_tokens.h"
#include "cli/chart.h"
#include "cli/html_args.h"

enum { PAGE_DRAWS = 10000, TONE_KL = 3, TONE_TOKENS = 4, TONE_ENDED = 1, TONE_NLL = 5 };
static const double page_level = 0.95;

static const char page_style[] =
    "main{max-width:76rem}h3{font-size:1rem;margin:2.5rem 0 .25rem}h4{font-size:.85rem;margin:.75rem 0 0;color:var(--soft)}\n"
    ".prompt{white-space:pre-wrap;overflow-wrap:anywhere;border-left:.25rem solid var(--line);padding-left:.75rem;max-width:none}\n"
    ".sides,.plots{display:grid;grid-template-columns:minmax(0,1fr) minmax(0,1fr);gap:0 2rem}\n"
    "caption{white-space:normal}\n"
    "@media (max-width:48rem){.sides,.plots{grid-template-columns:minmax(0,1fr)}tbody th{white-space:normal;min-width:7rem}}\n"
    "@media print{section{break-inside:avoid}}\n";

/* Figures of a prompt each: of both sides, or of the steered one alone. Ratios are of sums, those of x over those of weight. */
typedef struct page_figure {
    const char *name;
    column side[2], diff, weight;      /* weight empty: means */
    bool both;
    double scale;
    int decimals;
} page_figure;

enum { FIG_TOKENS, FIG_ENDED, FIG_NLL, FIG_KL, FIG_CHANGED, FIG_WAITED, FIGURES };

typedef struct page {
    html h;
    const ab_report *r;
    bootstrap_opts bootstrap;
    page_figure fig[FIGURES];
    interval value[FIGURES][3];        /* unsteered, steered, difference */
} page;

/* ---------------------------------------------------------------------------------------------------- figures */

static int figure_add(page_figure *f, double unsteered, double steered, double weight) {
    int rc = column_add(&f->side[GEN_STEERED], steered);
    if (rc == CLI_OK && f->both)
        rc = column_add(&f->side[GEN_UNSTEERED], unsteered);
    if (rc == CLI_OK && f->both)
        rc = column_add(&f->diff, steered - unsteered);
    return rc || !(weight > 0) ? rc : column_add(&f->weight, weight);
}

static int figures_add(page_figure fig[FIGURES], const ab_entry *e) {
    double n = (double)e->n_steps;
    int rc = figure_add(&fig[FIG_TOKENS], (double)e->side[GEN_UNSTEERED].n, (double)e->side[GEN_STEERED].n, 0);
    if (rc == CLI_OK)
        rc = figure_add(&fig[FIG_ENDED], ab_ended(e->side[GEN_UNSTEERED].stop), ab_ended(e->side[GEN_STEERED].stop), 0);
    if (rc == CLI_OK && e->ref_tokens)
        rc = figure_add(&fig[FIG_NLL], e->ref_nll[GEN_UNSTEERED], e->ref_nll[GEN_STEERED], (double)e->ref_tokens);
    if (rc || e->n_steps == 0)
        return rc;
    rc = figure_add(&fig[FIG_KL], 0, ab_kl(e), n);
    if (rc == CLI_OK)
        rc = figure_add(&fig[FIG_CHANGED], 0, (double)ab_changed(e), n);
    return rc ? rc : figure_add(&fig[FIG_WAITED], 0, (double)ab_waited(e), n);
}

static int figure_intervals(const bootstrap_opts *o, const page_figure *f, interval out[3]) {
    const column *weight = f->weight.n ? &f->weight : NULL, *columns[3] = {&f->side[0], &f->side[1], &f->diff};
    int rc = CLI_OK;
    for (int k = 0; k < 3 && rc == CLI_OK; k++)
        rc = column_interval(o, columns[k], weight, &out[k]);
    return rc;
}

static int page_figures(page *p) {
    static const page_figure figures[FIGURES] = {
        [FIG_TOKENS] = {.name = "Tokens in an answer", .both = true, .scale = 1, .decimals = 1},
        [FIG_ENDED] = {.name = "Answers that end by themselves, %", .both = true, .scale = 100, .decimals = 1},
        [FIG_NLL] = {.name = "NLL of the reference answers, nats a token", .both = true, .scale = 1, .decimals = 3},
        [FIG_KL] = {.name = "KL from steered to unsteered, nats a token", .scale = 1, .decimals = 3},
        [FIG_CHANGED] = {.name = "Tokens at which steering changed the likeliest one, %", .scale = 100, .decimals = 1},
        [FIG_WAITED] = {.name = "Tokens at which a delta waited, %", .scale = 100, .decimals = 1},
    };
    int rc = CLI_OK;
    for (int f = 0; f < FIGURES; f++)
        p->fig[f] = figures[f];
    for (size_t i = 0; i < p->r->n && rc == CLI_OK; i++)
        rc = figures_add(p->fig, &p->r->v[i]);
    for (int f = 0; f < FIGURES && rc == CLI_OK; f++)
        rc = figure_intervals(&p->bootstrap, &p->fig[f], p->value[f]);
    return rc;
}

static void page_free(page *p) {
    for (int f = 0; f < FIGURES; f++) {
        column_free(&p->fig[f].side[0]);
        column_free(&p->fig[f].side[1]);
        column_free(&p->fig[f].diff);
        column_free(&p->fig[f].weight);
    }
}

/* ---------------------------------------------------------------------------------------------------- summary */

/* A value and, of more prompts than one, its interval; a dash where there is none. */
static void page_value(html *h, const interval *v, double scale, int decimals, size_t n) {
    html_raw(h, "<td class=\"n\">");
    if (isfinite(v->value))
        html_printf(h, "%.*f", decimals, scale * v->value);
    else
        html_raw(h, "\xE2\x80\x93");
    if (isfinite(v->value) && n > 1)
        html_printf(h, " [%.*f, %.*f]", decimals, scale * v->lo, decimals, scale * v->hi);
    html_raw(h, "</td>");
}

static void page_verdict(page *p) {
    html *h = &p->h;
    const interval *tokens = p->value[FIG_TOKENS], *ended = p->value[FIG_ENDED], *nll = p->value[FIG_NLL];
    html_raw(h, "<p class=\"verdict\"><strong>");
    if (p->fig[FIG_KL].weight.n)
        html_printf(h, "Steering changed the likeliest token at %.1f %% of the tokens written with it; KL %.3g nats a token.",
                    100 * p->value[FIG_CHANGED][1].value, p->value[FIG_KL][1].value);
    else
        html_raw(h, "No token was written.");
    html_printf(h, "</strong><br>\nAnswers have %.1f tokens in the mean, unsteered %.1f; %.0f %% end by themselves, unsteered %.0f %%.",
                tokens[1].value, tokens[0].value, 100 * ended[1].value, 100 * ended[0].value);
    if (isfinite(nll[2].value))
        html_printf(h, " Reference answers have %.3f nats a token %s.", fabs(nll[2].value), nll[2].value <= 0 ? "less" : "more");
    html_raw(h, "</p>\n");
}

static void page_summary(page *p) {
    html *h = &p->h;
    char caption[160];
    snprintf(caption, sizeof caption, "%zu prompt%s; in brackets %.0f %% intervals, by a bootstrap of %d draws over prompts", p->r->n,
             p->r->n == 1 ? "" : "s", 100 * page_level, PAGE_DRAWS);
    html_raw(h, "<h2>Summary</h2>\n");
    html_table_begin(h, caption, "Figure|#Unsteered|#Steered|#Difference");
    for (int f = 0; f < FIGURES; f++) {
        const page_figure *fig = &p->fig[f];
        size_t n = fig->side[GEN_STEERED].n;
        if (n == 0)
            continue;
        html_printf(h, "<tr><th scope=\"row\">%s</th>", fig->name);
        for (int k = 0; k < 3; k++)
            page_value(h, &p->value[f][k], fig->scale, fig->decimals, n);
        html_raw(h, "</tr>\n");
    }
    html_table_end(h);
}

/* ------------------------------------------------------------------------------------------------------ sweep */

enum { SWEEP_KL, SWEEP_NLL, SWEEP_TOKENS, SWEEP_ENDED, SWEEPS };
static const struct { const char *title; double scale; int decimals, tone; } page_sweeps[SWEEPS] = {
    [SWEEP_KL] = {"KL from steered to unsteered, nats a token", 1, 3, TONE_KL},
    [SWEEP_NLL] = {"NLL of the reference answers, nats a token", 1, 3, TONE_NLL},
    [SWEEP_TOKENS] = {"Tokens in an answer", 1, 1, TONE_TOKENS},
    [SWEEP_ENDED] = {"Answers that end by themselves, %", 100, 1, TONE_ENDED},
};

static int sweep_interval(const page *p, const ab_point *pt, int what, interval *out) {
    const column *x[SWEEPS] = {&pt->kl, &pt->nll, &pt->tokens, &pt->ended};
    const column *weight[SWEEPS] = {&pt->tokens, &p->r->ref_tokens, NULL, NULL};
    return column_interval(&p->bootstrap, x[what], weight[what], out);
}

/* One figure over all strengths. `v`: [points]. */
static void page_sweep_chart(page *p, const interval *v, int what) {
    size_t n = p->r->n_points;
    double *x = calloc(4 * n, sizeof *x);
    if (!x) {
        p->h.bad = true;
        return;
    }
    double *y = x + n, *lo = y + n, *hi = lo + n;
    for (size_t k = 0; k < n; k++) {
        x[k] = p->r->points[k].alpha;
        y[k] = page_sweeps[what].scale * v[k].value;
        lo[k] = page_sweeps[what].scale * v[k].lo;
        hi[k] = page_sweeps[what].scale * v[k].hi;
    }
    const chart_line line = {.x = x, .y = y, .lo = p->r->n > 1 ? lo : NULL, .hi = hi, .n = n, .tone = page_sweeps[what].tone, .dots = true};
    html_raw(&p->h, "<div>");
    html_chart(&p->h, &(chart){.title = page_sweeps[what].title, .x_name = "strength (alpha)", .lines = &line, .n_lines = 1,
                               .small = true, .from_zero = what != SWEEP_NLL});
    html_raw(&p->h, "</div>\n");
    free(x);
}

static void page_sweep_table(page *p, interval *const v[SWEEPS]) {
    html *h = &p->h;
    html_table_begin(h, "The sweep in numbers",
                     "#Strength|#KL, nats a token|#NLL of references|#Tokens in an answer|#End by themselves, %");
    for (size_t k = 0; k < p->r->n_points; k++) {
        html_printf(h, "<tr><th scope=\"row\" class=\"n\">%.6g</th>", p->r->points[k].alpha);
        for (int what = 0; what < SWEEPS; what++)
            page_value(h, &v[what][k], page_sweeps[what].scale, page_sweeps[what].decimals, p->r->n);
        html_raw(h, "</tr>\n");
    }
    html_table_end(h);
}

static int page_sweep(page *p) {
    size_t n = p->r->n_points;
    interval *all = calloc(SWEEPS * n, sizeof *all), *v[SWEEPS];
    int rc = all ? CLI_OK : cli_no_memory();
    for (int what = 0; what < SWEEPS && rc == CLI_OK; what++) {
        v[what] = all + (size_t)what * n;
        for (size_t k = 0; k < n && rc == CLI_OK; k++)
            rc = sweep_interval(p, &p->r->points[k], what, &v[what][k]);
    }
    if (rc == CLI_OK) {
        html_printf(&p->h, "<h2>Strengths</h2>\n<p>Every prompt answered again at each strength, with the run's sampler%s; bars are "
                           "%.0f %% intervals.</p>\n<div class=\"plots\">\n",
                    p->r->ref_tokens.n ? ", and the reference answers scored" : "", 100 * page_level);
        for (int what = 0; what < SWEEPS; what++)
            page_sweep_chart(p, v[what], what);
        html_raw(&p->h, "</div>\n");
        page_sweep_table(p, v);
    }
    free(all);
    return rc;
}

/* ---------------------------------------------------------------------------------------------------- prompts */

static void page_kl(html *h, const ab_entry *e, size_t number) {
    double *x = calloc(2 * e->n_steps + 1, sizeof *x);
    char title[64];
    if (!x) {
        h->bad = true;
        return;
    }
    double *y = x + e->n_steps;
    for (size_t i = 0; i < e->n_steps; i++) {
        x[i] = (double)i + 1;
        y[i] = e->steps[i].kl;
    }
    snprintf(title, sizeof title, "KL at each token of answer %zu, nats", number);
    const chart_line line = {.x = x, .y = y, .n = e->n_steps, .tone = TONE_KL, .dots = true};
    html_chart(h, &(chart){.title = title, .x_name = "token", .lines = &line, .n_lines = 1, .small = true, .from_zero = true});
    free(x);
}

static void page_side_begin(html *h, const char *title, const ab_answer *a) {
    html_printf(h, "<div><h4>%s: %zu token%s, %s</h4>\n", title, a->n, a->n == 1 ? "" : "s", gen_stop_name(a->stop));
}

static void page_reference(html *h, const prompts *p, size_t i, const ab_entry *e) {
    const cmc_record *r = p->path ? &p->records.v[i] : NULL;
    if (!e->ref_tokens)
        return;
    const cmc_message *m = &r->messages[r->n_messages - 1];
    html_printf(h, "<details><summary>Reference answer: %.3f nats a token unsteered, %.3f steered</summary>\n<p class=\"prompt\"><bdi>",
                e->ref_nll[GEN_UNSTEERED] / (double)e->ref_tokens, e->ref_nll[GEN_STEERED] / (double)e->ref_tokens);
    html_running(h, m->text, m->len);
    html_raw(h, "</bdi></p></details>\n");
}

/* Both answers side by side, and what belongs to the steered one. */
static void page_sides(page *p, size_t i, const ab_text text[2], const word_diff *d) {
    html *h = &p->h;
    const ab_entry *e = &p->r->v[i];
    html_raw(h, "<div class=\"sides\">\n");
    page_side_begin(h, "Unsteered", &e->side[GEN_UNSTEERED]);
    ab_plain(h, &text[GEN_UNSTEERED], d);
    html_raw(h, "</div>\n");
    page_side_begin(h, "Steered", &e->side[GEN_STEERED]);
    ab_tokens(h, cmc_model_vocab(p->r->s->host), e, &text[GEN_STEERED], d, i + 1);
    if (e->note) {
        html_raw(h, "<p class=\"soft\">");
        html_text(h, e->note);
        html_raw(h, "</p>\n");
    }
    page_kl(h, e, i + 1);
    html_raw(h, "</div>\n</div>\n");
}

static void page_prompt(page *p, size_t i, const ab_text text[2], const word_diff *d) {
    html *h = &p->h;
    size_t len;
    const char *prompt = prompts_heading(p->r->p, i, &len);
    html_printf(h, "<section id=\"p%zu\">\n<h3>Prompt %zu</h3>\n<p class=\"prompt\"><bdi>", i + 1, i + 1);
    html_running(h, prompt, len);
    html_raw(h, "</bdi></p>\n");
    page_sides(p, i, text, d);
    page_reference(h, p->r->p, i, &p->r->v[i]);
    html_raw(h, "</section>\n");
}

static int page_compare_prompt(page *p, size_t i) {
    const cmc_vocab *v = cmc_model_vocab(p->r->s->host);
    ab_text text[2] = {0};
    word_diff d = {0};
    int rc = ab_text_make(v, &p->r->v[i].side[0], &text[0]);
    if (rc == CLI_OK)
        rc = ab_text_make(v, &p->r->v[i].side[1], &text[1]);
    const char *const words[] = {text[0].s, text[1].s};
    const size_t len[] = {text[0].len, text[1].len};
    if (rc == CLI_OK && word_diff_make(words, len, &d) != CMC_OK)
        rc = cli_no_memory();
    if (rc == CLI_OK)
        page_prompt(p, i, text, &d);
    word_diff_free(&d);
    free(text[0].s);
    free(text[1].s);
    return rc;
}

/* ------------------------------------------------------------------------------------------------------ models */

static void page_model(html *h, const char *role, const cmc_model *m, const char *path) {
    html_printf(h, "<tr><th scope=\"row\">%s</th><td>", role);
    html_text(h, cmc_model_name(m));
    html_raw(h, "</td><td>");
    html_text(h, cli_file_name(path));
    html_printf(h, "</td><td>%s</td>", cmc_model_hash(m));
}

static void page_models(html *h, const steer *s) {
    html_raw(h, "<h2>Models</h2>\n");
    html_table_begin(h, "The host and what steers it", "Part|Name|File|Hash|#Strength|#Host tokens with a delta token");
    page_model(h, "host", s->host, cmc_model_path(s->host));
    html_raw(h, "<td></td><td></td></tr>\n");
    for (size_t k = 0; k < s->n; k++) {
        page_model(h, "delta", s->deltas[k], s->paths[k]);
        html_printf(h, "<td class=\"n\">%.6g</td>", cmc_steering_alpha(s->st, k));
        html_cell_share(h, steer_coverage(s, k), 1);
        html_raw(h, "</tr>\n");
    }
    html_table_end(h);
    html_printf(h, "<p>The host's prompt template: %s.</p>\n", cmc_template_name(cmc_steering_template(s->st)));
}

/* -------------------------------------------------------------------------------------------------------- page */

static int page_build(page *p, const ab_page_opts *a) {
    html *h = &p->h;
    char title[300];
    int rc = page_figures(p);
    if (rc)
        return rc;
    snprintf(title, sizeof title, "%.120s, with and without %.120s%s", cmc_model_name(p->r->s->host), cli_file_name(p->r->s->paths[0]),
             p->r->s->n > 1 ? " and others" : "");
    html_begin_styled(h, title, (const char *const[]){page_style, ab_tokens_style, NULL});
    page_verdict(p);
    page_summary(p);
    if (p->r->n_points)
        rc = page_sweep(p);
    html_raw(h, "<h2>Prompts</h2>\n");
    ab_tokens_legend(h);
    for (size_t i = 0; i < p->r->n && rc == CLI_OK; i++)
        rc = page_compare_prompt(p, i);
    page_models(h, p->r->s);
    html_args(h, a->groups, a->n_groups, a->args);
    html_end(h);
    return rc;
}

int ab_html(const ab_report *r, const ab_page_opts *a) {
    page p = {.r = r, .bootstrap = {PAGE_DRAWS, page_level, r->seed}};
    int rc = page_build(&p, a);
    page_free(&p);
    if (rc == CLI_OK)
        return html_write(&p.h, a->path);
    free(p.h.s);
    return rc;
}
