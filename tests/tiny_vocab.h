/* Vocabularies learnt from a text, for tiny models. */
#ifndef CMC_TESTS_TINY_VOCAB_H
#define CMC_TESTS_TINY_VOCAB_H
#include "tests/tiny.h"

enum { TINY_NORMAL = 1, TINY_UNKNOWN = 2, TINY_CONTROL = 3, TINY_USER = 4, TINY_UNUSED = 5, TINY_BYTE = 6 };

typedef struct tiny_vocab {
    char **tokens; float *scores; int32_t *types; size_t n;
    char **merges; size_t n_merges;      /* BPE: "left right" */
    int32_t bos, eos, unk, pad;          /* -1: none */
} tiny_vocab;

bool tiny_spec_is_spm(const tiny_spec *spec);
/* False when memory is out. */
bool tiny_vocab_make(const tiny_spec *spec, tiny_vocab *out);
void tiny_vocab_free(tiny_vocab *v);
#endif
