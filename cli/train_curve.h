/* What a training run has shown so far: its steps and held-out scores, from its reports and from its log. */
#ifndef CMC_CLI_TRAIN_CURVE_H
#define CMC_CLI_TRAIN_CURVE_H
#include "cli/cli.h"

/* A column of numbers. */
typedef struct curve_column { double *v; size_t n, cap; } curve_column;

typedef struct train_curve {
    curve_column step, loss, lr, grad_norm, speed, memory;   /* a row a step; NaN where it is not known */
    curve_column eval_step, held_out;                        /* a row a score */
    double held_out_host;
    bool bad;                                                /* memory ran out */
} train_curve;

void curve_free(train_curve *c);
/* One step, or with `is_eval` a step and a score. */
void curve_add(train_curve *c, const cmc_train_progress *p);
/* The loss as a moving mean, over a share of the steps so far; the caller frees it. NULL where memory is out. */
double *curve_smooth(const train_curve *c);
/* The last run in the log, up to `step`. A log that is not there, or lines that are none, add nothing. */
void curve_read_log(train_curve *c, const char *path, int64_t step);
#endif
