/* Numbers of sentencepiece_model.proto, and the writer of such models. */
#ifndef CMC_TOKENMAP_SPM_WIRE_H
#define CMC_TOKENMAP_SPM_WIRE_H
#include "tokenmap/vocab.h"

enum { SPM_NORMAL = 1, SPM_UNKNOWN, SPM_CONTROL, SPM_USER, SPM_UNUSED, SPM_BYTE };
enum { SPM_MODEL_UNIGRAM = 1, SPM_MODEL_BPE = 2 };

/* The bytes of a BPE (or, by v, Unigram) model with v's pieces and scores for libsentencepiece to work with: identity
 * normaliser, no dummy prefix. Piece ids are token ids. Tokens that no merge may give (control, user-defined, empty,
 * repeated) are there as control pieces with spellings that no valid text has, the first one or else one more at the
 * end as the unknown piece (*unk: its id). *byte_fallback: all 256 byte tokens are there. *out is malloc'd. */
cmc_status spm_wire_write(const cmc_vocab *v, uint8_t **out, size_t *size, int32_t *unk, bool *byte_fallback,
                          cmc_error *err);
#endif
