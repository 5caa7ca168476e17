/* Text synchronisation: the ids of a growing text, kept equal to those of tokenising the whole text from scratch (docs/design.md,
 * "The text is what host and delta share"), at the cost of merging the last few tokens (words.h) behind the last boundary that cannot change. */
#ifndef CMC_TOKENMAP_RETOK_H
#define CMC_TOKENMAP_RETOK_H
#include "tokenmap/vocab.h"

typedef struct retok retok;
/* For texts that continue a prompt (no BOS, no dummy space). */
cmc_status retok_new(const cmc_vocab *v, retok **out, cmc_error *err);
void retok_free(retok *r);
/* Appends bytes, as the host emits them: characters may be cut. */
cmc_status retok_append(retok *r, const uint8_t *bytes, size_t n, cmc_error *err);
/* False while the text ends inside an unfinished UTF-8 character that may still be finished: the delta waits. */
bool retok_whole(const retok *r);
/* The ids of the text up to its last whole character: equal to cmc_tokenize(text, CMC_TOK_CONTINUE). A byte that belongs
 * to no character is the byte token, else U+FFFD. *n_kept: how many ids from the front are the same as at the last call. */
cmc_status retok_ids(retok *r, const int32_t **ids, size_t *n, size_t *n_kept, cmc_error *err);
/* The whole text so far. */
const uint8_t *retok_text(const retok *r, size_t *n);
/* What it took so far, in bytes: those that were looked through for special tokens and pre-tokens, and those that were
 * merged. */
uint64_t retok_scanned(const retok *r);
uint64_t retok_merged(const retok *r);
#endif
