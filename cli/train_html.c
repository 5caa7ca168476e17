/* The page about a training run. */
#include "cli/train_html.h"

#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "cli/chart.h"
#include "cli/html_args.h"
#include "cli/progress.h"

enum { HTML_EVERY = 60, HTML_REFRESH = 30, TONE_LOSS = 3, TONE_HELD = 1, TONE_HOST = 4, TONE_RATE = 5, TONE_SPEED = 2 };

/* --------------------------------------------------------------------------------------------------- the state */

static void page_time(html *h, double seconds) {
    char s[16];
    progress_time(seconds, s);
    html_raw(h, s);
}

static double page_best(const train_html *t) {
    double best = NAN;
    for (size_t i = 0; i < t->curve.held_out.n; i++)
        best = t->curve.held_out.v[i] < best || isnan(best) ? t->curve.held_out.v[i] : best;
    return best;
}

static void page_running(html *h, const train_html *t) {
    const cmc_train_progress *p = &t->last;
    bool train = strcmp(p->phase, "train") == 0;
    html_raw(h, "<p class=\"verdict fair\"><strong>");
    if (strcmp(p->phase, "plan") == 0)
        html_raw(h, "Begins");
    else
        html_printf(h, "%s %" PRId64 " of %" PRId64, train ? "Step" : strcmp(p->phase, "alpha") == 0
                    ? "Looks for the best strength: record" : "Evaluates the host: token", p->step, p->steps);
    html_raw(h, "</strong>");
    if (isfinite(p->seconds_left)) {
        html_raw(h, "<br>\n");
        page_time(h, p->seconds_left);
        html_raw(h, " left");
    }
    html_raw(h, "</p>\n<p class=\"soft\">The run goes on; this page is written anew as it does, and loads itself again.</p>\n");
}

static void page_state(html *h, const train_html *t, train_end end, const char *message) {
    double best = page_best(t), host = t->curve.held_out_host;
    if (end == TRAIN_RUNS) {
        page_running(h, t);
        return;
    }
    html_printf(h, "<p class=\"verdict %s\"><strong>", end == TRAIN_FAILED ? "poor" : end == TRAIN_STOPPED ? "fair" : "good");
    if (end == TRAIN_FINISHED)
        html_printf(h, "Finished after %" PRId64 " steps", t->counts.steps);
    else
        html_printf(h, "%s at step %" PRId64 " of %" PRId64, end == TRAIN_STOPPED ? "Stopped" : "Failed", t->last.step,
                    t->last.steps);
    html_raw(h, "</strong>");
    if (isfinite(best) && isfinite(host))
        html_printf(h, "<br>\nHeld out: %.4f nats a token, the %s alone %.4f; %.4f %s.", best, t->run.beside, host,
                    fabs(host - best), best <= host ? "better" : "worse");
    if (message) {
        html_raw(h, "<br>\n");
        html_text(h, message);
    }
    html_raw(h, "</p>\n");
}

/* ------------------------------------------------------------------------------------------------------ curves */

static void page_chart(html *h, const char *title, const curve_column *x, const curve_column *y, int tone,
                       bool from_zero) {
    const chart_line line = {.x = x->v, .y = y->v, .n = y->n, .tone = tone};
    const chart c = {.title = title, .x_name = "step", .lines = &line, .n_lines = 1, .from_zero = from_zero};
    html_chart(h, &c);
}

static void page_curves(html *h, const train_html *t) {
    const train_curve *c = &t->curve;
    const double *step = c->step.v;
    char alone[32];
    snprintf(alone, sizeof alone, "%s alone", t->run.beside);
    double *smooth = curve_smooth(c);
    h->bad = h->bad || !smooth;
    const chart_line loss[] = {
        {.name = "each step", .x = step, .y = c->loss.v, .n = c->loss.n, .tone = TONE_LOSS, .faint = true},
        {.name = "smoothed", .x = step, .y = smooth, .n = smooth ? c->loss.n : 0, .tone = TONE_LOSS}};
    if (c->step.n && c->step.v[0] > 1)
        html_printf(h, "<p class=\"soft\">Steps before %.0f were made by an earlier process that kept no log.</p>\n",
                    c->step.v[0]);
    html_chart(h, &(chart){.title = "Loss", .x_name = "step", .lines = loss, .n_lines = 2, .outliers = true});
    free(smooth);
    double ends[2] = {0, (double)t->last.steps}, host[2] = {c->held_out_host, c->held_out_host};
    if (c->eval_step.n) {
        ends[0] = c->eval_step.v[0];
        ends[1] = c->eval_step.v[c->eval_step.n - 1];
    }
    const chart_line held[] = {
        {.name = alone, .x = ends, .y = host, .n = c->eval_step.n && isfinite(host[0]) ? 2 : 0, .tone = TONE_HOST},
        {.name = "with the delta", .x = c->eval_step.v, .y = c->held_out.v, .n = c->held_out.n, .tone = TONE_HELD,
         .dots = true}};
    html_chart(h, &(chart){.title = "Held out: nats a token", .x_name = "step", .lines = held, .n_lines = 2});
    page_chart(h, "Learning rate", &c->step, &c->lr, TONE_RATE, true);
    page_chart(h, "Length of the gradient", &c->step, &c->grad_norm, TONE_RATE, true);
    page_chart(h, "Tokens a second", &c->step, &c->speed, TONE_SPEED, true);
    page_chart(h, "Resident memory, MiB", &c->step, &c->memory, TONE_SPEED, true);
}

/* ------------------------------------------------------------------------------------------------------ tables */

static void page_row(html *h, const char *name) {
    html_raw(h, "<tr><th scope=\"row\">");
    html_text(h, name);
    html_raw(h, "</th>");
}

static void page_count(html *h, const char *name, uint64_t n) {
    page_row(h, name);
    html_cell(h, (int64_t)n);
    html_raw(h, "</tr>\n");
}

static void page_mib(html *h, const char *name, uint64_t bytes) {
    page_row(h, name);
    html_printf(h, "<td class=\"n\">%" PRIu64 " MiB</td></tr>\n", bytes >> 20);
}

static void page_numbers(html *h, const train_html *t, double seconds) {
    const cmc_train_result *r = &t->counts;
    html_raw(h, "<h2>Data, time and memory</h2>\n");
    html_table_begin(h, "The run in numbers", "What|#How much");
    page_count(h, "parameters", r->params);
    page_count(h, "records trained on", r->records);
    page_count(h, "records held out", r->records_held_out);
    page_count(h, "records left out as too long", r->records_left_out);
    page_count(h, "target tokens, over all hosts", r->targets);
    if (r->targets_prefix)
        page_count(h, "of them by rows of their own", r->targets_prefix);
    if (r->targets_left_out)
        page_count(h, "tokens left out: they begin inside one of the delta's", r->targets_left_out);
    if (r->tokens)
        page_count(h, "target tokens gone through", r->tokens);
    page_row(h, "time");
    html_raw(h, "<td class=\"n\">");
    page_time(h, seconds);
    html_raw(h, "</td></tr>\n");
    page_mib(h, "memory, as planned", r->memory_planned);
    page_mib(h, r->memory_peak ? "memory, at its highest" : "memory now", r->memory_peak ? r->memory_peak : t->last.memory);
    html_table_end(h);
}

/* The strength of host k: the hosts' come first in the delta's table, in their order. */
static void page_strength(html *h, const cmc_delta_info *d, size_t k) {
    if (d && k < d->n_alphas)
        html_printf(h, "<td class=\"n\">%.4g</td><td class=\"n\">%.4f</td></tr>\n", d->alphas[k].alpha, d->alphas[k].gain);
    else
        html_raw(h, "<td class=\"n\">\xE2\x80\x93</td><td class=\"n\">\xE2\x80\x93</td></tr>\n");
}

static void page_hosts(html *h, const train_html *t, bool finished) {
    const cmc_train_opts *o = t->run.opts;
    cmc_file_info *file = NULL;
    cmc_error err = {0};
    double sum = 0;
    if (finished && cmc_file_info_open(o->out_path, &file, &err) != CMC_OK)
        file = NULL;
    const cmc_delta_info *d = file ? cmc_file_info_delta(file) : NULL;
    for (size_t k = 0; k < o->n_hosts; k++)
        sum += o->host_weights ? o->host_weights[k] : 1;
    html_raw(h, "<h2>Hosts</h2>\n");
    html_table_begin(h, "Hosts, and the strengths that were found for them",
                     "Host|#Share of the loss|#Best strength|#Gain, nats a token");
    for (size_t k = 0; k < o->n_hosts; k++) {
        page_row(h, cli_file_name(o->hosts[k]));
        html_cell_share(h, o->host_weights ? o->host_weights[k] : 1, sum);
        page_strength(h, d, k);
    }
    for (size_t k = 0; k < o->n_alpha_hosts; k++) {
        page_row(h, cli_file_name(o->alpha_hosts[k]));
        html_raw(h, "<td class=\"n\">not trained beside</td>");
        page_strength(h, d, o->n_hosts + k);
    }
    html_table_end(h);
    if (d)
        html_printf(h, "<p>Strength for any other host: %.4g.</p>\n", d->alpha);
    cmc_file_info_free(file);
}

/* ------------------------------------------------------------------------------------------------------ writing */

static int page_write(train_html *t, train_end end, const char *message) {
    html h = {0};
    char title[256];
    snprintf(title, sizeof title, "Training %s", cli_file_name(t->run.opts->out_path));
    html_begin_live(&h, title, end == TRAIN_RUNS ? HTML_REFRESH : 0);
    page_state(&h, t, end, message);
    page_curves(&h, t);
    if (t->run.opts->n_hosts)
        page_hosts(&h, t, end == TRAIN_FINISHED);
    page_numbers(&h, t, end == TRAIN_FINISHED ? t->counts.seconds : cli_now() - t->began);
    html_args(&h, t->run.groups, t->run.n_groups, t->run.args);
    html_end(&h);
    h.bad = h.bad || t->curve.bad;
    t->written = cli_now();
    return html_write(&h, t->path);
}

void train_html_begin(train_html *t, const char *path, const train_html_run *run) {
    *t = (train_html){.path = path, .run = *run, .curve.held_out_host = NAN, .began = cli_now(), .last.phase = "plan"};
}

int train_html_report(train_html *t, const cmc_train_progress *p) {
    if (!t->path)
        return CLI_OK;
    t->last = *p;
    if (p->result)
        t->counts = *p->result;
    bool plan = strcmp(p->phase, "plan") == 0;
    if (plan && p->step > 0)
        curve_read_log(&t->curve, t->run.opts->log_path, p->step);
    if (plan && p->step > 0 && t->curve.step.n == 0)   /* no log: the checkpoint's last step is all that is known */
        curve_add(&t->curve, p);
    if (strcmp(p->phase, "train") == 0)
        curve_add(&t->curve, p);
    return plan || p->is_eval || cli_now() - t->written >= HTML_EVERY ? page_write(t, TRAIN_RUNS, NULL) : CLI_OK;
}

int train_html_end(train_html *t, train_end end, const cmc_train_result *result, const char *message) {
    if (!t->path || t->written == 0.0)   /* nothing began: the page of an earlier run stays */
        return CLI_OK;
    if (result)
        t->counts = *result;
    return page_write(t, end, message);
}

void train_html_free(train_html *t) {
    curve_free(&t->curve);
    *t = (train_html){0};
}
