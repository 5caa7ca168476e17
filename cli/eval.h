/* What the verbs of eval share: the report, columns of figures and their intervals. */
#ifndef CMC_CLI_EVAL_H
#define CMC_CLI_EVAL_H
#include <stdio.h>

#include "cli/cli.h"
#include "cli/json.h"
#include "eval/paired.h"

typedef struct eval_args {
    const char *out;
    int32_t draws;
    double level;
} eval_args;
extern const arg_opt eval_opts[];
void eval_defaults(eval_args *a);

/* One figure of every record, in order. Start from {0}. */
typedef struct column { double *v; size_t n, cap; } column;
int column_add(column *c, double v);
/* As column_add, but leaves out what is not finite. */
int column_add_known(column *c, double v);
void column_free(column *c);
/* NaN where there is nothing. */
double column_mean(const column *c);

/* JSON lines, as they come: to standard output with --json, and to a file that appears once all is done. */
typedef struct report {
    bool json;
    const char *path;          /* NULL: no file */
    FILE *memory;              /* the file's text so far */
    char *text; size_t len;
    bootstrap_opts bootstrap;
} report;
int report_open(report *r, const eval_args *a, const common_args *common);
/* They take the object over: a line of its own, or {"total": it}. */
int report_add(report *r, jbuild o);
int report_total(report *r, jbuild total);
/* Writes the file where rc is CLI_OK; gives rc, or what came of that. */
int report_close(report *r, int rc);

/* sum(x) / sum(weight) and its interval; NaNs where there is nothing. */
int column_interval(const bootstrap_opts *o, const column *x, const column *weight, interval *out);
/* The same, as the report's options have it. */
int report_interval(const report *r, const column *x, const column *weight, interval *out);
/* "key": value, "key_ci": [lo, hi] */
void jset_interval(jbuild *o, const char *key, const interval *v);
/* "wins", "ties", "losses", "p" */
void jset_tally(jbuild *o, const tally *t);
#endif
