/* Vocabularies made in memory, token by token, for tests of the map: no file, no tokenizer behind them. */
#ifndef CMC_TESTS_VOCAB_MAKE_H
#define CMC_TESTS_VOCAB_MAKE_H
#include "tokenmap/vocab.h"

typedef struct token_spec {
    const char *bytes;        /* what a text token stands for; "\xE2\x96\x81" for a space in the spelling is put in */
    cmc_token_kind kind;      /* control and unused tokens get `bytes` as their spelling and stand for no bytes; a byte
                                 token stands for its first byte and is spelled <0xXX> */
    unsigned roles;
    size_t len;               /* of bytes, where they hold NUL; 0: up to the NUL */
    bool end;                 /* an end token known by name; tokens with the role eos or eot are end tokens anyway */
} token_spec;

/* Free with cmc_vocab_free. NULL: memory is out. */
cmc_vocab *vocab_make(const token_spec *tokens, size_t n);
#endif
