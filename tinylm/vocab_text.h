/* The text that a vocabulary is learnt from: records as their template renders them, and texts, as short sentences. */
#ifndef CMC_TINYLM_VOCAB_TEXT_H
#define CMC_TINYLM_VOCAB_TEXT_H
#include "tokenmap/vocab.h"

enum { VOCAB_TEXT_SENTENCE = 4096 };   /* bytes in a sentence, at most */

typedef struct vocab_text {
    char *v; size_t n, cap;            /* the sentences, one after the other */
    uint32_t *len; size_t n_sentences, cap_sentences;
    uint64_t records;
} vocab_text;

/* The control tokens that a template puts between its texts, up to NULL. BOS and EOS are not among them. */
const char *const *vocab_text_control(cmc_template t);
/* Appends a file: records where its name ends in .jsonl, .json or .ndjson, else a text. */
cmc_status vocab_text_read(vocab_text *x, const char *path, cmc_template t, cmc_error *err);
void vocab_text_free(vocab_text *x);
#endif
