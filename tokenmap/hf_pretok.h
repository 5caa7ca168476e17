/* What a pre-tokenizer is once read: a flat list of steps. */
#ifndef CMC_TOKENMAP_HF_PRETOK_H
#define CMC_TOKENMAP_HF_PRETOK_H
#include "tokenmap/hf.h"

typedef enum pretok_kind_hf {
    PRETOK_BYTE_LEVEL, PRETOK_METASPACE, PRETOK_SPLIT, PRETOK_DIGITS, PRETOK_PUNCTUATION, PRETOK_WHITESPACE,
    PRETOK_WHITESPACE_SPLIT, PRETOK_DELIMITER, PRETOK_FIXED_LENGTH
} pretok_kind_hf;

typedef enum pretok_behavior {
    PRETOK_ISOLATED, PRETOK_REMOVED, PRETOK_MERGED_WITH_PREVIOUS, PRETOK_MERGED_WITH_NEXT, PRETOK_CONTIGUOUS
} pretok_behavior;

typedef enum pretok_prepend { PRETOK_NEVER, PRETOK_FIRST, PRETOK_ALWAYS } pretok_prepend;

typedef struct pretok_step {
    pretok_kind_hf kind;
    pretok_behavior behavior;
    bool invert, split;       /* Split; Metaspace */
    pretok_prepend prepend;   /* Metaspace, ByteLevel */
    int32_t character;        /* Metaspace, CharDelimiterSplit */
    size_t length;            /* FixedLength, in characters */
    hf_pattern pattern;       /* Split; ByteLevel's own expression */
} pretok_step;

struct hf_pretok {
    pretok_step *step;
    size_t n, cap;
};
#endif
