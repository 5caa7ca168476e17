/* Where a text can be cut so that both sides are tokenised on their own: between characters that no piece holds in a
 * row. */
#ifndef CMC_TOKENMAP_SPM_PAIRS_H
#define CMC_TOKENMAP_SPM_PAIRS_H
#include "tokenmap/vocab.h"

/* BPE joins neighbouring symbols into pieces of the vocabulary and does nothing else; Unigram lays pieces side by side.
 * So if no piece (normal, unused or user-defined) has the characters a and b one after the other, no symbol ever lies
 * across a|b, and what stands on either side of it is merged (or laid out) as if the other were not there. A space and
 * U+2581 are the same character; a byte that belongs to no character is one of its own kind. */
typedef struct spm_pairs spm_pairs;
spm_pairs *spm_pairs_new(const cmc_vocab *v);      /* NULL when memory is out */
void spm_pairs_free(spm_pairs *p);
/* The largest i < n, from <= i, with a cut before s[i]; 0 where there is none. The end of the text is none, for what
 * follows is unknown. `from`: a place between characters. */
size_t spm_pairs_last_cut(const spm_pairs *p, const uint8_t *s, size_t n, size_t from);
/* The first place i > 0 with a cut before s[i]; n where there is none. */
size_t spm_pairs_first_cut(const spm_pairs *p, const uint8_t *s, size_t n);
#endif
