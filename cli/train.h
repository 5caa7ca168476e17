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

/* Its options, in groups; their struct is train_args. Those that say how a run goes are a search's too. */
enum { N_TRAIN_GROUPS = 8 };
extern const arg_group train_groups[N_TRAIN_GROUPS];
extern const arg_opt train_how[];

/* What options come to, and what goes together (train_check.c, train_added.c). Each gives the exit status. */
int train_bytes(const char *size, uint64_t *out);             /* --memory; NULL leaves *out */
int train_numbers(train_args *a);                             /* options that are words for numbers */
int train_check_resume(bool resume, bool fresh);              /* which exclude each other */
int train_check_objective(const train_args *a);               /* beta and gamma, which only some objectives have */
int train_check_keeping(train_args *a);                       /* what keeps a delta or a model near its start; fills in its lists */
int train_page_check(const train_args *a);                    /* --html: refuses a page that is another of the run's files */
int train_take_added(train_args *a);                          /* an adapter or blocks, on a model or on a delta that goes on */
void train_take_lists(train_args *a);                         /* fills in a->t's lists, retain term and seed */
int train_check(train_args *a, const arg_list *operands);     /* all of it for a delta; a->host_weights is the caller's to free */

/* What is shown (train_report.c). */
bool train_callback(void *user, const cmc_train_progress *p); /* a cmc_train_callback of a train_state; stops after Ctrl-C */
void train_page_begin(train_state *st, const train_args *a);
int train_page_end(train_state *st, cmc_status status, const cmc_train_result *r, const cmc_error *err); /* gives the exit status */
int train_interrupted(const train_args *a, const train_state *st);   /* where it stands and how it goes on; gives the exit status */
void train_json_result(jbuild *o, const cmc_train_result *r);        /* the fields of --json that both kinds have */
int train_json(const train_args *a, const cmc_train_result *r);
int train_summary(const train_args *a, const cmc_train_result *r);

/* cmc train --base, without a host (train_base.c): what the options come to for cmc_tune, and all of it. They give the exit status. */
int train_base_opts(train_args *a, const arg_list *operands, cmc_tune_opts *out);
int train_base_main(train_args *a, const arg_list *operands);
#endif
