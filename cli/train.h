/* cmc train: what its two kinds of training share, a delta's beside hosts and a model's by itself. */
#ifndef CMC_CLI_TRAIN_H
#define CMC_CLI_TRAIN_H
#include "cli/json.h"
#include "cli/progress.h"
#include "cli/train_html.h"

typedef struct train_args {
    common_args common;
    arg_list hosts, weights, data, retain, alpha_hosts;
    double *host_weights;  /* the weights as numbers */
    const char *host_template, *delta_template, *retain_term;
    const char *memory;    /* as given: "800M" */
    const char *temperature;   /* of the host, as given: "0.7:1.5" */
    const char *html;
    const char *layers;    /* as given: the delta's number, or which of them are trained */
    const char *base;      /* a model to be tuned by itself (train_base.c) */
    const char *lora;      /* as given: "8" or "8:16" */
    arg_list replay, watch;
    bool exact;
    const char *batches;
    cmc_train_opts t;      /* its lists, templates and seed are filled in from the above */
} train_args;

typedef struct train_state {
    progress bar;
    train_html page;
    bool page_failed;          /* reported; the run ends */
    cmc_train_progress last;
    const char *beside;        /* what the held-out score is compared with: "host", "base" */
    bool stopped;              /* by Ctrl-C */
} train_state;

/* --memory as bytes; NULL leaves *out. Gives the exit status. */
int train_bytes(const char *size, uint64_t *out);
/* --resume and --fresh, which exclude each other. */
int train_check_resume(bool resume, bool fresh);
/* A cmc_train_callback: shows progress, notes where it stands in a train_state, stops after Ctrl-C. */
bool train_callback(void *user, const cmc_train_progress *p);
/* --html: refuses a page that is another of the run's files; begins it; writes its last state. They give the exit status. */
int train_page_check(const train_args *a);
void train_page_begin(train_state *st, const train_args *a);
int train_page_end(train_state *st, cmc_status status, const cmc_train_result *r, const cmc_error *err);
/* Options that go with others of what keeps a delta or a model near its start; fills in their lists. Gives the exit status. */
int train_check_keeping(train_args *a);
/* beta and gamma, which only some objectives have. Gives the exit status. */
int train_check_objective(const train_args *a);
/* After Ctrl-C: where the training stands and how it goes on; gives the exit status. */
int train_interrupted(const train_args *a, const train_state *st);

/* The fields of --json that both kinds have. */
void train_json_result(jbuild *o, const cmc_train_result *r);

/* The options that say how a run goes, of both kinds and of a search; their struct is train_args. */
extern const arg_opt train_how[];

/* An adapter or blocks, on a model or on a delta that goes on: what goes together; fills in a->t. Gives the exit status. */
int train_take_added(train_args *a);
/* Fills a->t's lists, retain term and seed from what was given. */
void train_take_lists(train_args *a);
/* What the options come to for cmc_tune; gives the exit status. */
int train_base_opts(train_args *a, const arg_list *operands, cmc_tune_opts *out);
/* cmc train --base, without a host; gives the exit status. */
int train_base_main(train_args *a, const arg_list *operands);
#endif
