/* What a page about ab holds: both answers to every prompt, what steering moved at each token, how likely reference answers
 * are, and the same at other strengths. */
#ifndef CMC_CLI_AB_REPORT_H
#define CMC_CLI_AB_REPORT_H
#include "cli/eval.h"
#include "cli/generate.h"
#include "cli/progress.h"

/* One side's answer. */
typedef struct ab_answer { int32_t *ids; size_t n; cmc_stop stop; } ab_answer;

typedef struct ab_entry {
    ab_answer side[2];
    cmc_comparison *steps; size_t n_steps, cap;   /* of the steered answer, one for each token */
    char *note;                     /* NULL: none */
    size_t ref_tokens;              /* of the record's own answer; 0: it has none */
    double ref_nll[2];              /* unsteered, steered */
} ab_entry;

/* One strength of the sweep: a figure for each prompt; nll for those with an answer of their own. */
typedef struct ab_point { double alpha; column tokens, ended, kl, nll; } ab_point;

typedef struct ab_report {
    const steer *s;
    const prompts *p;
    const gen_args *gen;
    uint64_t seed;
    progress *bar;
    ab_entry *v; size_t n;          /* a prompt each */
    ab_point *points; size_t n_points;
    column ref_tokens;              /* the weights of the points' nll */
} ab_report;

/* `alphas`: the sweep's, in any order. */
int ab_report_open(ab_report *r, const double *alphas, size_t n_alphas);
void ab_report_free(ab_report *r);
/* What gen_job's hooks are given of the main run. */
int ab_report_step(ab_report *r, size_t index, const cmc_stream *steered);
int ab_report_result(ab_report *r, size_t index, const gen_side side[2]);
/* Then: scores the records' own answers, and runs the sweep. Changes the strength meanwhile. */
int ab_report_finish(ab_report *r);

bool ab_ended(cmc_stop stop);       /* by itself: at an end token or a stop string */
/* Sums over an entry's tokens. */
double ab_kl(const ab_entry *e);
size_t ab_changed(const ab_entry *e);   /* where another token was the likeliest without the deltas */
size_t ab_waited(const ab_entry *e);    /* where a delta gave nothing */

/* The page. `groups` and `args` are the verb's options; `level` and draws of the intervals are ab's own. Gives an exit status. */
typedef struct ab_page_opts { const char *path; const arg_group *groups; size_t n_groups; const void *args; } ab_page_opts;
int ab_html(const ab_report *r, const ab_page_opts *page);
#endif
