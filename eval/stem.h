/* Porter's stemmer as NLTK has it by default. */
#ifndef CMC_EVAL_STEM_H
#define CMC_EVAL_STEM_H
#include <stddef.h>

/* Cuts the lower-case word s[0..n) down to its stem, in place, and gives the stem's length, at most n. */
size_t stem_porter(char *s, size_t n);
#endif
