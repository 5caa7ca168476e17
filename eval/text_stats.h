/* How texts are made: length, variety, repetition. Words are what white space (ASCII) parts, as they stand. */
#ifndef CMC_EVAL_TEXT_STATS_H
#define CMC_EVAL_TEXT_STATS_H
#include "cmc.h"

/* Texts are added one by one. */
typedef struct text_stats text_stats;
cmc_status text_stats_new(text_stats **out);
void text_stats_free(text_stats *t);

typedef struct text_measure {
    size_t words, chars;
    double repetition;        /* seq-rep-4 (arXiv 1908.04319): 1 - distinct 4-grams / 4-grams; NaN below four words */
} text_measure;
cmc_status text_stats_add(text_stats *t, const char *s, size_t len, text_measure *out);

/* distinct-n (J. Li et al., arXiv 1510.03055), 1 <= n <= 3: different n-grams over all n-grams of all texts; NaN without any. */
double text_stats_distinct(text_stats *t, int n);

/* Characters of UTF-8: bytes that begin one. */
size_t text_chars(const char *s, size_t len);
/* The next word of s[0..len) from *at on: its offset, *at moves past it; false where there is none. */
bool text_next_word(const char *s, size_t len, size_t *at, size_t *first);
size_t text_words(const char *s, size_t len);
#endif
