/* Reports of the verbs of eval. */
#include "cli/eval.h"

#include <math.h>
#include <stdlib.h>

const arg_opt eval_opts[] = {
    {.name = "out", .file = ARG_WRITES, .letter = 'o', .kind = ARG_STR, .at = offsetof(eval_args, out), .value = "FILE",
     .help = "write the JSON lines of --json to a file too, whole or not at all"},
    {.name = "draws", .kind = ARG_INT, .at = offsetof(eval_args, draws), .value = "N",
     .help = "bootstrap resamples behind an interval", .lo = 1, .hi = 1e6, .show_default = true},
    {.name = "level", .kind = ARG_REAL, .at = offsetof(eval_args, level), .value = "X",
     .help = "how much of the resamples an interval holds", .lo = 0.01, .hi = 0.9999, .show_default = true},
    {.name = NULL},
};

void eval_defaults(eval_args *a) {
    a->draws = 10000;
    a->level = 0.95;
}

int column_add(column *c, double v) {
    if (!arg_grow((void **)&c->v, &c->cap, c->n, sizeof *c->v, 256))
        return cli_no_memory();
    c->v[c->n++] = v;
    return CLI_OK;
}

int column_add_known(column *c, double v) {
    return isfinite(v) ? column_add(c, v) : CLI_OK;
}

void column_free(column *c) {
    free(c->v);
    *c = (column){0};
}

double column_mean(const column *c) {
    double sum = 0;
    for (size_t i = 0; i < c->n; i++)
        sum += c->v[i];
    return c->n ? sum / (double)c->n : NAN;
}

int report_open(report *r, const eval_args *a, const common_args *common) {
    *r = (report){.json = common->json, .path = a->out, .bootstrap = {a->draws, a->level, common->seed}};
    int rc = a->out ? cli_check_write(a->out) : CLI_OK;
    if (rc)
        return rc;
    if (a->out)
        r->memory = open_memstream(&r->text, &r->len);
    return a->out && !r->memory ? cli_no_memory() : CLI_OK;
}

int report_add(report *r, jbuild o) {
    char *line = jline(o);
    if (!line)
        return cli_no_memory();
    int rc = r->json ? out_printf("%s\n", line) : CLI_OK;
    if (rc == CLI_OK && r->json)
        rc = out_flush();
    if (rc == CLI_OK && r->memory && fprintf(r->memory, "%s\n", line) < 0)
        rc = cli_no_memory();
    free(line);
    return rc;
}

int report_total(report *r, jbuild total) {
    jbuild o = jobject();
    jset_built(&o, "total", total);
    return report_add(r, o);
}

int report_close(report *r, int rc) {
    if (r->memory && fclose(r->memory) != 0 && rc == CLI_OK)
        rc = cli_no_memory();
    if (r->memory && rc == CLI_OK)
        rc = cli_write_file(r->path, r->text, r->len);
    free(r->text);
    *r = (report){0};
    return rc;
}

int column_interval(const bootstrap_opts *o, const column *x, const column *weight, interval *out) {
    *out = (interval){NAN, NAN, NAN};
    if (x->n == 0 || bootstrap_ratio(x->v, weight ? weight->v : NULL, x->n, o, out) == CMC_OK)
        return CLI_OK;
    return cli_no_memory();
}

int report_interval(const report *r, const column *x, const column *weight, interval *out) {
    return column_interval(&r->bootstrap, x, weight, out);
}

void jset_interval(jbuild *o, const char *key, const interval *v) {
    char ci[64];
    jbuild ends = jarray();
    snprintf(ci, sizeof ci, "%s_ci", key);
    jset_real(o, key, v->value);
    jadd(&ends, jreal(v->lo));
    jadd(&ends, jreal(v->hi));
    jset_built(o, ci, ends);
}

void jset_tally(jbuild *o, const tally *t) {
    jset_int(o, "wins", (int64_t)t->wins);
    jset_int(o, "ties", (int64_t)t->ties);
    jset_int(o, "losses", (int64_t)t->losses);
    jset_real(o, "p", t->p);
}
