/* The page about a training run: curves, settings, data, hosts, time and memory; written while it runs and at its end. */
#ifndef CMC_CLI_TRAIN_HTML_H
#define CMC_CLI_TRAIN_HTML_H
#include "cli/train_curve.h"

/* What the page is about; all of it borrowed. */
typedef struct train_html_run {
    const cmc_train_opts *opts;
    const arg_group *groups;  /* the options' tables, for the settings */
    size_t n_groups;
    const void *args;         /* the struct that they are about */
    const char *beside;       /* what the held-out score is compared with: "host", "base" */
} train_html_run;

typedef struct train_html {
    const char *path;         /* NULL: no page; the functions then do nothing */
    train_html_run run;
    train_curve curve;
    cmc_train_progress last;
    cmc_train_result counts;
    double began, written;    /* seconds */
} train_html;

typedef enum train_end { TRAIN_RUNS = 0, TRAIN_FINISHED, TRAIN_STOPPED, TRAIN_FAILED } train_end;

void train_html_begin(train_html *t, const char *path, const train_html_run *run);
/* A report: kept, and at the start, with every score, and once a minute the page is written. Gives CLI_OK or CLI_FAILED. */
int train_html_report(train_html *t, const cmc_train_progress *p);
/* The last page. `result` may be NULL where there is none; `message` says why a run failed. */
int train_html_end(train_html *t, train_end end, const cmc_train_result *result, const char *message);
void train_html_free(train_html *t);
#endif
