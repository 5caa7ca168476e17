/* What two texts have in common, word by word. */
#ifndef CMC_EVAL_WORD_DIFF_H
#define CMC_EVAL_WORD_DIFF_H
#include "cmc.h"

typedef struct diff_run { size_t first, len; } diff_run;   /* bytes of a text */

/* For each text the runs of words that are not in the other one: from a run's first word to its last, white space between them
 * included, in order. */
typedef struct word_diff { diff_run *run[2]; size_t n[2]; } word_diff;

/* By a longest common subsequence of words; words are what white space (ASCII) parts, and equal where their bytes are. In
 * time that grows with the product of the two counts. Free with word_diff_free. */
cmc_status word_diff_make(const char *const text[2], const size_t len[2], word_diff *out);
void word_diff_free(word_diff *d);
#endif
