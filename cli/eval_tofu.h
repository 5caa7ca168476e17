/* TOFU's sets: records with an answer, its paraphrase and wrong ones. */
#ifndef CMC_CLI_EVAL_TOFU_H
#define CMC_CLI_EVAL_TOFU_H
#include "cli/jsonl.h"
#include "cli/prompts.h"

typedef enum tofu_set_kind { TOFU_FORGET, TOFU_RETAIN, TOFU_REAL_AUTHORS, TOFU_WORLD_FACTS, TOFU_SETS } tofu_set_kind;
const char *tofu_set_name(tofu_set_kind k);      /* as in a report: "forget", "retain", "real_authors", "world_facts" */

typedef struct tofu_record {
    const char *question, *answer;      /* borrowed from the file's JSON */
    const char *paraphrase;             /* what the truth ratio takes for the right answer; NULL: there is no ratio */
    const char **wrong; size_t n_wrong;
} tofu_record;

typedef struct tofu_set {
    tofu_set_kind kind;
    prompts p;
    jsonl json;
    tofu_record *v;                     /* [p.n] */
} tofu_set;

/* They give an exit status; on failure everything is reported and freed. */
int tofu_set_open(tofu_set_kind kind, const char *path, tofu_set *out);
void tofu_set_close(tofu_set *s);
/* The truth ratios of the forget set in a report that cmc eval tofu wrote. *out is the caller's. */
int tofu_reference_read(const char *path, double **out, size_t *n);
#endif
