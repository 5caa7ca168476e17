/* Differences of two texts in words. */
#include "eval/word_diff.h"

#include <stdlib.h>

#include "eval/lcs.h"
#include "eval/ngrams.h"
#include "eval/text_stats.h"

/* One text's words: numbers, and whether the other text has them too. */
typedef struct diff_side { cmc_ids words; bool *common; } diff_side;

static cmc_status diff_words(word_table *t, const char *s, size_t len, cmc_ids *out) {
    for (size_t at = 0, first; text_next_word(s, len, &at, &first);) {
        int32_t number;
        if (word_table_number(t, s + first, at - first, &number) != CMC_OK || cmc_ids_push(out, number) != CMC_OK)
            return CMC_E_NOMEM;
    }
    return CMC_OK;
}

static cmc_status diff_runs(const diff_side *side, const char *s, size_t len, diff_run **out, size_t *n) {
    diff_run *run = calloc(side->words.n + 1, sizeof *run);
    size_t word = 0;
    bool open = false;   /* the last run goes on */
    *out = run;
    if (!run)
        return CMC_E_NOMEM;
    for (size_t at = 0, first; text_next_word(s, len, &at, &first); word++) {
        if (!side->common[word] && !open)
            run[(*n)++].first = first;
        open = !side->common[word];
        if (open)
            run[*n - 1].len = at - run[*n - 1].first;
    }
    return CMC_OK;
}

cmc_status word_diff_make(const char *const text[2], const size_t len[2], word_diff *out) {
    word_table t = {0};
    diff_side side[2] = {0};
    cmc_status st = CMC_OK;
    *out = (word_diff){0};
    for (int k = 0; k < 2 && st == CMC_OK; k++) {
        st = diff_words(&t, text[k], len[k], &side[k].words);
        side[k].common = malloc(side[k].words.n + 1);
        if (!side[k].common)
            st = CMC_E_NOMEM;
    }
    if (st == CMC_OK)
        st = lcs_mark(side[0].words.v, side[0].words.n, side[1].words.v, side[1].words.n, side[0].common, side[1].common);
    for (int k = 0; k < 2 && st == CMC_OK; k++)
        st = diff_runs(&side[k], text[k], len[k], &out->run[k], &out->n[k]);
    for (int k = 0; k < 2; k++) {
        cmc_ids_free(&side[k].words);
        free(side[k].common);
    }
    word_table_free(&t);
    if (st != CMC_OK)
        word_diff_free(out);
    return st;
}

void word_diff_free(word_diff *d) {
    free(d->run[0]);
    free(d->run[1]);
    *d = (word_diff){0};
}
