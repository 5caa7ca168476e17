/* Words as numbers, and the n-grams of a text as a list that can be counted. */
#ifndef CMC_EVAL_NGRAMS_H
#define CMC_EVAL_NGRAMS_H
#include "cmc.h"

/* Gives equal words equal numbers. Start from {0}. */
typedef struct word_table { struct word_table_entry *table; uint32_t n; } word_table;
cmc_status word_table_number(word_table *w, const char *s, size_t len, int32_t *out);
void word_table_free(word_table *w);

enum { NGRAM_MAX = 4 };
typedef struct ngram { int32_t v[NGRAM_MAX]; } ngram;         /* 0 beyond its length */
typedef struct ngrams { ngram *v; size_t n, cap; } ngrams;    /* start from {0} */

/* Appends the n-grams (1 <= n <= NGRAM_MAX) of one text. */
cmc_status ngrams_add(ngrams *g, const cmc_ids *text, size_t n);
void ngrams_free(ngrams *g);
/* Both sort the lists. How many different ones there are; the size of what two lists share, each n-gram as often as both have it. */
size_t ngrams_distinct(ngrams *g);
size_t ngrams_common(ngrams *a, ngrams *b);
#endif
