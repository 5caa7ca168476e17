/* A run's curves, collected. */
#include "cli/train_curve.h"

#include <jansson.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

/* The smoothed loss is a mean over a CURVE_SPANth of the steps, so that it does not lag in short runs. */
enum { CURVE_SPAN = 20, CURVE_LEAST = 4, CURVE_MOST = 200 };

static void column_add(train_curve *c, curve_column *to, double v) {
    if (!arg_grow((void **)&to->v, &to->cap, to->n, sizeof *to->v, 256)) {
        c->bad = true;
        return;
    }
    to->v[to->n++] = v;
}

void curve_free(train_curve *c) {
    curve_column *all[] = {&c->step, &c->loss, &c->lr, &c->grad_norm, &c->speed, &c->memory, &c->eval_step, &c->held_out};
    for (size_t i = 0; i < sizeof all / sizeof *all; i++)
        free(all[i]->v);
    memset(c, 0, sizeof *c);
}

double *curve_smooth(const train_curve *c) {
    double *out = malloc((c->loss.n ? c->loss.n : 1) * sizeof *out), mean = NAN, seen = 0;
    double span = (double)c->loss.n / CURVE_SPAN;
    span = span < CURVE_LEAST ? CURVE_LEAST : span > CURVE_MOST ? CURVE_MOST : span;
    for (size_t i = 0; out && i < c->loss.n; i++) {
        double loss = c->loss.v[i];
        if (isfinite(loss)) {   /* the first values are plain means of what there is */
            seen = seen + 1 < span ? seen + 1 : span;
            mean = isfinite(mean) ? mean + (loss - mean) / seen : loss;
        }
        out[i] = mean;
    }
    return out;
}

static void curve_score(train_curve *c, double step, double held_out, double host) {
    if (isfinite(host))
        c->held_out_host = host;
    if (!isfinite(held_out))
        return;
    column_add(c, &c->eval_step, step);
    column_add(c, &c->held_out, held_out);
}

void curve_add(train_curve *c, const cmc_train_progress *p) {
    column_add(c, &c->step, (double)p->step);
    column_add(c, &c->loss, p->loss);
    column_add(c, &c->lr, p->lr);
    column_add(c, &c->grad_norm, p->grad_norm);
    column_add(c, &c->speed, p->tokens_per_second);
    column_add(c, &c->memory, (double)p->memory / 1048576);
    curve_score(c, (double)p->step, p->is_eval ? p->held_out : NAN, p->held_out_host);
}

/* ------------------------------------------------------------------------------------------------------ the log */

static double log_number(const json_t *j, const char *name) {
    const json_t *v = json_object_get(j, name);
    return json_is_number(v) ? json_number_value(v) : NAN;
}

static void log_line(train_curve *c, const json_t *j, int64_t step) {
    const char *event = json_string_value(json_object_get(j, "event"));
    double at = log_number(j, "step");
    if (!event || !(at <= (double)step))
        return;
    if (strcmp(event, "step") == 0) {
        column_add(c, &c->step, at);
        column_add(c, &c->loss, log_number(j, "loss"));
        column_add(c, &c->lr, log_number(j, "lr"));
        column_add(c, &c->grad_norm, log_number(j, "grad_norm"));
        column_add(c, &c->speed, log_number(j, "tokens_per_second"));
        column_add(c, &c->memory, NAN);
    } else if (strcmp(event, "eval") == 0) {
        curve_score(c, at, log_number(j, "held_out"), log_number(j, "held_out_host"));
    }
}

static bool log_is_start(const json_t *j) {
    const char *event = json_string_value(json_object_get(j, "event"));
    return event && strcmp(event, "start") == 0;
}

void curve_read_log(train_curve *c, const char *path, int64_t step) {
    FILE *f = path ? fopen(path, "re") : NULL;
    char *line = NULL;
    size_t cap = 0;
    ssize_t n;
    if (!f)
        return;
    while ((n = getline(&line, &cap, f)) >= 0) {
        json_t *j = json_loadb(line, (size_t)n, 0, NULL);
        if (log_is_start(j)) {   /* an earlier run in the same file is another one's */
            curve_free(c);
            c->held_out_host = NAN;
        }
        log_line(c, j, step);
        json_decref(j);
    }
    free(line);
    fclose(f);
}
