/* The prompts of run and ab: one from the command line or a text file, or many from a file of records. */
#ifndef CMC_CLI_PROMPTS_H
#define CMC_CLI_PROMPTS_H
#include "cli/cli.h"

typedef struct prompts {
    cmc_records records;     /* of a file of records */
    cmc_message single;      /* of one prompt: borrowed or in `text` */
    char *text;
    const char *system;      /* put before every prompt that has no system turn of its own; NULL: none */
    const char *path;        /* of the records; NULL for one prompt */
    size_t n;
} prompts;

/* `file` NULL: the operand is the prompt. Gives an exit status; on failure everything is reported and freed. */
int prompts_open(const char *file, const char *system, const arg_list *operands, prompts *out);
void prompts_close(prompts *p);
/* Prompt i as a record that ends with the user's turn (a response it has is left out). All is borrowed but the list of
 * messages itself: free(view->messages) where there is no view->text. */
int prompts_view(const prompts *p, size_t i, cmc_record *view);
/* The same record with the answer that it ends with: view->messages NULL where there is none. Gives an exit status. */
int prompts_reference(const prompts *p, size_t i, cmc_record *view);
/* What the user said last in prompt i, for a heading. */
const char *prompts_heading(const prompts *p, size_t i, size_t *len);
/* True for a name that ends in .jsonl or .json. */
bool prompts_is_records(const char *path);
#endif
