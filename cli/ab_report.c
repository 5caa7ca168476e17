/* Gathering what the page about ab shows. */
#include "cli/ab_report.h"

#include <stdlib.h>
#include <string.h>

#include "eval/likelihood.h"

enum { SWEEP_BATCH = 8 };   /* prompts at once, where --batch says no more */

static int ab_compare_alphas(const void *a, const void *b) {
    double x = ((const ab_point *)a)->alpha, y = ((const ab_point *)b)->alpha;
    return (x > y) - (x < y);
}

int ab_report_open(ab_report *r, const double *alphas, size_t n_alphas) {
    r->n = r->p->n;
    r->n_points = n_alphas;
    r->v = calloc(r->n, sizeof *r->v);
    r->points = calloc(n_alphas + 1, sizeof *r->points);
    if (!r->v || !r->points)
        return cli_no_memory();
    for (size_t k = 0; k < n_alphas; k++)
        r->points[k].alpha = alphas[k];
    qsort(r->points, n_alphas, sizeof *r->points, ab_compare_alphas);
    return CLI_OK;
}

void ab_report_free(ab_report *r) {
    for (size_t i = 0; r->v && i < r->n; i++) {
        free(r->v[i].side[0].ids);
        free(r->v[i].side[1].ids);
        free(r->v[i].steps);
        free(r->v[i].note);
    }
    for (size_t k = 0; r->points && k < r->n_points; k++) {
        column_free(&r->points[k].tokens);
        column_free(&r->points[k].ended);
        column_free(&r->points[k].kl);
        column_free(&r->points[k].nll);
    }
    free(r->v);
    free(r->points);
    column_free(&r->ref_tokens);
}

/* ---------------------------------------------------------------------------------------------------- the answers */

static int ab_compare(const cmc_stream *s, cmc_comparison *out) {
    cmc_error err = {0};
    return cmc_stream_compare(s, out, &err) == CMC_OK ? CLI_OK : cli_error(NULL, &err);
}

/* A step is of one stream or of both: where the steered one has stopped, there is nothing new. */
int ab_report_step(ab_report *r, size_t index, const cmc_stream *steered) {
    ab_entry *e = &r->v[index];
    size_t n;
    cmc_stream_ids(steered, &n);
    if (n == e->n_steps)
        return CLI_OK;
    if (!arg_grow((void **)&e->steps, &e->cap, e->n_steps, sizeof *e->steps, 64))
        return cli_no_memory();
    return ab_compare(steered, &e->steps[e->n_steps++]);
}

int ab_report_result(ab_report *r, size_t index, const gen_side side[2]) {
    ab_entry *e = &r->v[index];
    for (int k = 0; k < 2; k++) {
        e->side[k] = (ab_answer){.ids = malloc(side[k].n_ids * sizeof *side[k].ids + 1), .n = side[k].n_ids, .stop = side[k].stop};
        if (!e->side[k].ids)
            return cli_no_memory();
        memcpy(e->side[k].ids, side[k].ids, side[k].n_ids * sizeof *side[k].ids);
    }
    if (side[GEN_STEERED].note && !(e->note = strdup(side[GEN_STEERED].note)))
        return cli_no_memory();
    return CLI_OK;
}

bool ab_ended(cmc_stop stop) {
    return stop == CMC_STOP_EOS || stop == CMC_STOP_STRING;
}

double ab_kl(const ab_entry *e) {
    double sum = 0;
    for (size_t i = 0; i < e->n_steps; i++)
        sum += e->steps[i].kl;
    return sum;
}

size_t ab_changed(const ab_entry *e) {
    size_t n = 0;
    for (size_t i = 0; i < e->n_steps; i++)
        n += e->steps[i].top.id != e->steps[i].host_top.id;
    return n;
}

size_t ab_waited(const ab_entry *e) {
    size_t n = 0;
    for (size_t i = 0; i < e->n_steps; i++)
        n += e->steps[i].n_waiting > 0;
    return n;
}

/* -------------------------------------------------------------------------------------------- reference answers */

/* One evaluation gives all strengths: the run's own, then the sweep's. */
static int ab_reference(ab_report *r, size_t i, const cmc_record *record, const double *alphas) {
    cmc_score sc;
    cmc_error err = {0};
    if (cmc_score_record(r->s->st, record, r->n_points ? alphas : NULL, r->n_points ? r->n_points + 1 : 0, &sc, &err) != CMC_OK) {
        char where[600];
        snprintf(where, sizeof where, "%s: record %zu (line %ld)", r->p->path, i + 1, record->line);
        progress_clear(r->bar);
        return cli_error(where, &err);
    }
    ab_entry *e = &r->v[i];
    int rc = CLI_OK;
    e->ref_tokens = sc.n;
    e->ref_nll[GEN_UNSTEERED] = likelihood_nll(sc.host_logprob, sc.n);
    e->ref_nll[GEN_STEERED] = likelihood_nll(sc.logprob, sc.n);
    if (sc.n)
        rc = column_add(&r->ref_tokens, (double)sc.n);
    for (size_t k = 0; sc.n && k < r->n_points && rc == CLI_OK; k++)
        rc = column_add(&r->points[k].nll, likelihood_nll(sc.logprob + (k + 1) * sc.n, sc.n));
    cmc_score_free(&sc);
    return rc;
}

static int ab_references(ab_report *r, const double *alphas) {
    int rc = CLI_OK;
    for (size_t i = 0; i < r->n && rc == CLI_OK; i++) {
        cmc_record record;
        if (cli_interrupted())
            return CLI_INTERRUPTED;
        progress_show(r->bar, "scoring: record %zu of %zu", i + 1, r->n);
        rc = prompts_reference(r->p, i, &record);
        if (rc == CLI_OK && record.messages)
            rc = ab_reference(r, i, &record, alphas);
        free(record.messages);
    }
    return rc;
}

/* ---------------------------------------------------------------------------------------------------- the sweep */

typedef struct ab_sweep {
    ab_report *r;
    ab_point *point;
    struct ab_progress { size_t tokens; double kl; } *at;   /* [prompts], at this strength */
} ab_sweep;

static int sweep_on_step(void *user, size_t index, cmc_stream *const side[2]) {
    ab_sweep *w = user;
    cmc_comparison c;
    size_t n;
    cmc_stream_ids(side[GEN_STEERED], &n);
    progress_show(w->r->bar, "sweep: strength %.4g, %zu of %zu answers", w->point->alpha, w->point->tokens.n, w->r->n);
    if (n == w->at[index].tokens)
        return CLI_OK;
    int rc = ab_compare(side[GEN_STEERED], &c);
    w->at[index].tokens = n;
    w->at[index].kl += rc == CLI_OK ? c.kl : 0;
    return rc;
}

static int sweep_on_result(void *user, size_t index, const gen_side side[2]) {
    ab_sweep *w = user;
    int rc = column_add(&w->point->tokens, (double)side[GEN_STEERED].n_ids);
    if (rc == CLI_OK)
        rc = column_add(&w->point->ended, ab_ended(side[GEN_STEERED].stop));
    return rc ? rc : column_add(&w->point->kl, w->at[index].kl);
}

static int ab_sweep_point(ab_report *r, ab_point *point) {
    cmc_error err = {0};
    gen_args gen = *r->gen;
    gen.batch = gen.batch < SWEEP_BATCH ? SWEEP_BATCH : gen.batch;
    ab_sweep w = {.r = r, .point = point, .at = calloc(r->n, sizeof *w.at)};
    gen_job job = {.s = r->s, .args = &gen, .p = r->p, .seed = r->seed, .compare = true, .user = &w, .on_step = sweep_on_step,
                   .on_result = sweep_on_result};
    if (!w.at)
        return cli_no_memory();
    int rc = cmc_steering_set_alpha(r->s->st, 0, point->alpha, &err) == CMC_OK ? gen_run(&job) : cli_error(NULL, &err);
    free(w.at);
    return rc;
}

static int ab_run_sweep(ab_report *r, double own) {
    cmc_error err = {0};
    int rc = CLI_OK;
    for (size_t k = 0; k < r->n_points && rc == CLI_OK; k++)
        rc = ab_sweep_point(r, &r->points[k]);
    if (cmc_steering_set_alpha(r->s->st, 0, own, &err) != CMC_OK && rc == CLI_OK)
        rc = cli_error(NULL, &err);
    return rc;
}

int ab_report_finish(ab_report *r) {
    double *alphas = calloc(r->n_points + 1, sizeof *alphas);
    if (!alphas)
        return cli_no_memory();
    alphas[0] = cmc_steering_alpha(r->s->st, 0);
    for (size_t k = 0; k < r->n_points; k++)
        alphas[k + 1] = r->points[k].alpha;
    int rc = ab_references(r, alphas);
    if (rc == CLI_OK && r->n_points)
        rc = ab_run_sweep(r, alphas[0]);
    free(alphas);
    progress_clear(r->bar);
    return rc;
}
