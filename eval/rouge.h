/* ROUGE-1, ROUGE-2 and ROUGE-L of an answer beside a reference. */
#ifndef CMC_EVAL_ROUGE_H
#define CMC_EVAL_ROUGE_H
#include "cmc.h"

typedef struct rouge_part { double recall, precision, f; } rouge_part;   /* each from 0 to 1; f: F1 */
typedef struct rouge_score { rouge_part r1, r2, rl; } rouge_score;

/* C.-Y. Lin, "ROUGE: a package for automatic evaluation of summaries" (2004), as rouge-score 0.1.2 computes it:
 * words are runs of [a-z0-9] of the lower-cased text, those of more than three letters stemmed where `stem` is set.
 * A text without words scores 0. Texts are UTF-8. Fails only with CMC_E_NOMEM. */
cmc_status rouge(const char *reference, size_t reference_len, const char *answer, size_t answer_len, bool stem, rouge_score *out);
#endif
