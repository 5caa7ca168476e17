/* The pre-tokenizers that are known by name (tokenizer.ggml.pre): their expressions and what else the name implies. */
#ifndef CMC_TOKENMAP_PRETOK_KINDS_H
#define CMC_TOKENMAP_PRETOK_KINDS_H
#include <stdbool.h>

enum { PRETOK_MAX_STAGES = 6 };

typedef struct pretok_kind {
    const char *name;
    bool ignore_merges;          /* a part that is a token as a whole is that token */
    bool adds_bos;               /* where the file does not say whether a text begins with BOS */
    bool chars;                  /* merges start from characters, spaces written as U+2581, and not from bytes */
    /* PCRE2, UTF-8; NULL after the last. A stage cuts each part that the stage before it left; what its expression does
     * not match is a part as well. */
    const char *const *stages;
} pretok_kind;

/* NULL where the name is not known. */
const pretok_kind *pretok_kind_find(const char *name);
#endif
