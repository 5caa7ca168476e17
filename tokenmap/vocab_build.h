/* How a vocabulary is put together from a file: tokens in order of id, then ids of roles, then everything derived. */
#ifndef CMC_TOKENMAP_VOCAB_BUILD_H
#define CMC_TOKENMAP_VOCAB_BUILD_H
#include "tokenmap/vocab.h"

/* An empty vocabulary of n tokens whose spellings take spell_bytes altogether. */
cmc_status vocab_new(const char *path, vocab_model model, uint64_t n, uint64_t spell_bytes, cmc_vocab **out,
                     cmc_error *err);
/* Sets token i (ids in order, each once): its spelling as stored and its kind. Score 0; set v->score[i] for SPM. */
void vocab_set_token(cmc_vocab *v, int32_t i, const char *spelling, size_t len, cmc_token_kind kind);
/* Derives bytes, byte tokens, roles, the end set and the table of specials from tokens and role ids. `eom` is a further
 * id that ends a turn, or -1. */
cmc_status vocab_finish(cmc_vocab *v, int32_t eom, cmc_error *err);
/* "<0x4F>" -> 0x4F, or -1 where the spelling is not of that form. */
int vocab_byte_spelling(const char *s, size_t n);

/* ids by name, for roles whose key is missing: see vocab_roles.c. */
void vocab_roles_assign(cmc_vocab *v, int32_t eom);
/* Before the specials are collected: names that end a turn are control tokens, whatever a converter made of them. */
void vocab_roles_fix_kinds(cmc_vocab *v);
#endif
