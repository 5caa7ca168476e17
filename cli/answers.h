/* The answers that eval measures: generated here, or from a file. */
#ifndef CMC_CLI_ANSWERS_H
#define CMC_CLI_ANSWERS_H
#include "cli/generate.h"
#include "cli/progress.h"

typedef struct answers_args { const char *file; } answers_args;
extern const arg_opt answers_opts[];

typedef struct answer {
    const char *text; size_t len;
    const char *stop;          /* as run names it; NULL: not known */
    int64_t tokens;            /* -1: not known */
} answer;

typedef struct answers_job {
    const answers_args *from;
    const steer_args *models;  /* where no file is given */
    const gen_args *gen;
    const common_args *common;
    const prompts *p;          /* one answer for each; n 0 with a file: for as many as that holds */
    void *user;
    int (*on_answer)(void *user, size_t index, const answer *a);    /* in order */
} answers_job;

/* Refuses options that do not fit together. */
int answers_check(const char *verb, const answers_args *from, const steer_args *models);
int answers_run(const answers_job *job);
#endif
