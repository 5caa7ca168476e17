/* The words of a text that grows, and their tokens: what was merged before is used again. A word is a stretch that a
 * tokenizer merges on its own: a pre-token of byte-level BPE; with SentencePiece all text between special tokens, stray
 * bytes and cuts. It can be long (Chinese, base64, a URL, a row of dashes). */
#ifndef CMC_TOKENMAP_WORDS_H
#define CMC_TOKENMAP_WORDS_H
#include "tokenmap/tok.h"

typedef struct words words;
words *words_new(void);                       /* NULL when memory is out */
void words_free(words *w);
/* A look at the text begins: words are given from its front to its end (or from anywhere on), in order. `text` holds the
 * same bytes as at the last look, and more after them. */
void words_begin(words *w, const uint8_t *text);
/* Appends the ids of the word s[0..n), which lies within that text. */
cmc_status words_encode(words *w, const cmc_vocab *v, const uint8_t *s, size_t n, cmc_ids *out, cmc_error *err);
/* Bytes merged so far. */
uint64_t words_cost(const words *w);
#endif
