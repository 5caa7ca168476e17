/* ROUGE as the Python package rouge-score has it. */
#include "eval/rouge.h"
#include "eval/lcs.h"
#include "eval/ngrams.h"
#include "eval/stem.h"

#include <stdlib.h>
#include <string.h>

/* The character at s[0..n) in lower case where that is an ASCII letter or digit, else a space; *len: its bytes. Of the
 * characters beyond ASCII two have an ASCII letter in lower case: the Kelvin sign, and I with a dot above. */
static char rouge_fold(const char *s, size_t n, size_t *len) {
    char c = *s;
    *len = 1;
    if (c >= 'A' && c <= 'Z')
        return (char)(c - 'A' + 'a');
    if ((c >= 'a' && c <= 'z') || (c >= '0' && c <= '9'))
        return c;
    if (n >= 3 && memcmp(s, "\xe2\x84\xaa", 3) == 0) {
        *len = 3;
        return 'k';
    }
    return ' ';
}

/* The words of a text as numbers. `buffer`: len bytes of scratch. */
static cmc_status rouge_words(const char *s, size_t len, bool stem, char *buffer, word_table *w, cmc_ids *out) {
    size_t n = 0, step = 1;
    for (size_t i = 0; i <= len; i += step) {
        char c = ' ';
        bool dotted = len - i >= 2 && memcmp(s + i, "\xc4\xb0", 2) == 0;   /* i, then a dot that ends the word */
        if (dotted)
            buffer[n++] = 'i';
        else if (i < len)
            c = rouge_fold(s + i, len - i, &step);
        if (c != ' ') {
            buffer[n++] = c;
            continue;
        }
        step = dotted ? 2 : 1;
        if (n == 0)
            continue;
        int32_t number;
        size_t cut = stem && n > 3 ? stem_porter(buffer, n) : n;
        if (word_table_number(w, buffer, cut, &number) != CMC_OK || cmc_ids_push(out, number) != CMC_OK)
            return CMC_E_NOMEM;
        n = 0;
    }
    return CMC_OK;
}

static rouge_part rouge_share(size_t common, size_t reference, size_t answer) {
    rouge_part p = {.recall = (double)common / (double)(reference ? reference : 1),
                    .precision = (double)common / (double)(answer ? answer : 1)};
    double sum = p.recall + p.precision;
    p.f = sum > 0 ? 2 * p.recall * p.precision / sum : 0;
    return p;
}

static cmc_status rouge_n(const cmc_ids *reference, const cmc_ids *answer, size_t n, rouge_part *out) {
    ngrams a = {0}, b = {0};
    cmc_status st = ngrams_add(&a, reference, n);
    if (st == CMC_OK)
        st = ngrams_add(&b, answer, n);
    if (st == CMC_OK)
        *out = rouge_share(ngrams_common(&a, &b), a.n, b.n);
    ngrams_free(&a);
    ngrams_free(&b);
    return st;
}

static cmc_status rouge_l(const cmc_ids *reference, const cmc_ids *answer, rouge_part *out) {
    size_t *row = malloc((answer->n + 1) * sizeof *row);
    if (!row)
        return CMC_E_NOMEM;
    lcs_lengths(reference->v, reference->n, answer->v, answer->n, false, row);
    *out = rouge_share(row[answer->n], reference->n, answer->n);
    free(row);
    return CMC_OK;
}

cmc_status rouge(const char *reference, size_t reference_len, const char *answer, size_t answer_len, bool stem, rouge_score *out) {
    word_table w = {0};
    cmc_ids r = {0}, a = {0};
    char *buffer = malloc((reference_len > answer_len ? reference_len : answer_len) + 1);
    cmc_status st = buffer ? rouge_words(reference, reference_len, stem, buffer, &w, &r) : CMC_E_NOMEM;
    if (st == CMC_OK)
        st = rouge_words(answer, answer_len, stem, buffer, &w, &a);
    if (st == CMC_OK)
        st = rouge_n(&r, &a, 1, &out->r1);
    if (st == CMC_OK)
        st = rouge_n(&r, &a, 2, &out->r2);
    if (st == CMC_OK)
        st = rouge_l(&r, &a, &out->rl);
    free(buffer);
    word_table_free(&w);
    cmc_ids_free(&r);
    cmc_ids_free(&a);
    return st;
}
