/* An answer of ab as a page shows it: words that the other side lacks are marked, and of the steered one each token can be
 * pointed at and reached by keys, coloured by how far steering moved it, and says what moved. */
#ifndef CMC_CLI_AB_TOKENS_H
#define CMC_CLI_AB_TOKENS_H
#include "cli/ab_report.h"
#include "cli/html.h"
#include "eval/word_diff.h"

/* An answer's bytes, the end token's none; the space that it may begin with is left out. */
typedef struct ab_text { char *s; size_t len, skipped; } ab_text;
int ab_text_make(const cmc_vocab *v, const ab_answer *a, ab_text *out);

/* Rules for the page's style. */
extern const char ab_tokens_style[];
/* What colours, frames and lines mean. */
void ab_tokens_legend(html *h);
/* The unsteered answer: plain text. */
void ab_plain(html *h, const ab_text *t, const word_diff *d);
/* The steered one; `prompt` is a number that no other of the page has. */
void ab_tokens(html *h, const cmc_vocab *v, const ab_entry *e, const ab_text *t, const word_diff *d, size_t prompt);
#endif
