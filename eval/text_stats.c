/* Length, variety and repetition of texts. */
#include "eval/text_stats.h"
#include "eval/ngrams.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

enum { TEXT_DISTINCT = 3 };

struct text_stats {
    word_table words;
    ngrams all[TEXT_DISTINCT];    /* the n-grams of all texts, for n from 1 on */
};

cmc_status text_stats_new(text_stats **out) {
    *out = calloc(1, sizeof **out);
    return *out ? CMC_OK : CMC_E_NOMEM;
}

void text_stats_free(text_stats *t) {
    if (!t)
        return;
    word_table_free(&t->words);
    for (size_t k = 0; k < TEXT_DISTINCT; k++)
        ngrams_free(&t->all[k]);
    free(t);
}

size_t text_chars(const char *s, size_t len) {
    size_t n = 0;
    for (size_t i = 0; i < len; i++)
        n += ((unsigned char)s[i] & 0xC0) != 0x80;
    return n;
}

static bool text_is_white(char c) {
    return c == ' ' || (c >= '\t' && c <= '\r');
}

bool text_next_word(const char *s, size_t len, size_t *at, size_t *first) {
    while (*at < len && text_is_white(s[*at]))
        ++*at;
    *first = *at;
    while (*at < len && !text_is_white(s[*at]))
        ++*at;
    return *at > *first;
}

size_t text_words(const char *s, size_t len) {
    size_t n = 0;
    for (size_t at = 0, first; text_next_word(s, len, &at, &first);)
        n++;
    return n;
}

static cmc_status text_repetition(const cmc_ids *ids, double *out) {
    ngrams four = {0};
    cmc_status st = ngrams_add(&four, ids, 4);
    *out = four.n ? 1 - (double)ngrams_distinct(&four) / (double)four.n : NAN;
    ngrams_free(&four);
    return st;
}

cmc_status text_stats_add(text_stats *t, const char *s, size_t len, text_measure *out) {
    cmc_ids ids = {0};
    cmc_status st = CMC_OK;
    for (size_t at = 0, first; st == CMC_OK && text_next_word(s, len, &at, &first);) {
        int32_t number;
        st = word_table_number(&t->words, s + first, at - first, &number);
        if (st == CMC_OK)
            st = cmc_ids_push(&ids, number);
    }
    for (size_t k = 0; st == CMC_OK && k < TEXT_DISTINCT; k++)
        st = ngrams_add(&t->all[k], &ids, k + 1);
    out->words = ids.n;
    out->chars = text_chars(s, len);
    if (st == CMC_OK)
        st = text_repetition(&ids, &out->repetition);
    cmc_ids_free(&ids);
    return st;
}

double text_stats_distinct(text_stats *t, int n) {
    ngrams *g = &t->all[n - 1];
    return g->n ? (double)ngrams_distinct(g) / (double)g->n : NAN;
}
