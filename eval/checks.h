/* Instruction checks that need no judge: is an answer of the form, the size and the words that were asked for. */
#ifndef CMC_EVAL_CHECKS_H
#define CMC_EVAL_CHECKS_H
#include <jansson.h>

#include "cmc.h"

typedef struct check check;
typedef struct checks { check *v; size_t n; } checks;    /* start from {0} */

/* Reads a list of objects {"kind": ...}: verifiable instructions in the sense of IFEval (arXiv 2311.07911). The kinds and
 * their keys stand in docs/evaluation.md. On failure the message names the check, counted from 1, and not the file. */
cmc_status checks_read(const json_t *list, checks *out, cmc_error *err);
void checks_free(checks *c);
const char *check_kind(const checks *c, size_t i);
/* Whether text[0..len) passes check i. CMC_E_NOMEM where that cannot be told. */
cmc_status check_passes(const checks *c, size_t i, const char *text, size_t len, bool *passes);
#endif
