/* What a vocabulary is inside the library: bytes, kinds, roles, spellings, and the tokenizer behind them. */
#ifndef CMC_TOKENMAP_VOCAB_H
#define CMC_TOKENMAP_VOCAB_H
#include "base/gguf.h"

typedef enum vocab_model { VOCAB_SPM = 0, VOCAB_BPE, VOCAB_HF } vocab_model;

struct cmc_vocab {
    char *path;
    vocab_model model;
    int32_t n;
    uint8_t *bytes; uint32_t *byte_off;       /* token i: bytes[byte_off[i] .. byte_off[i+1]) */
    char *spell; uint32_t *spell_off;
    uint8_t *kind;                            /* cmc_token_kind */
    uint8_t *roles;
    uint8_t *is_end;
    float *score;                             /* SPM only */
    bool unigram;                             /* SPM: the pieces with the best sum of scores, nothing is merged */
    int32_t byte_token[256];                  /* id of the token for a raw byte, or -1 */
    int32_t bos, eos, eot, pad, unk;          /* -1: none */
    bool add_bos, add_space_prefix;
    bool marked;                              /* spellings write a space as U+2581 and a byte as <0x0A>: SPM, some BPE */
    bool strip_after;                         /* special tokens swallow the white space after them (Phi-3) */
    char pre[32];                             /* BPE pre-tokenizer's name */
    char *chat_template;
    struct tok_spm *spm;
    struct tok_bpe *bpe;
    struct tok_hf *hf;
    struct vocab_specials *specials;          /* control and user-defined spellings, longest first */
};

/* From an opened GGUF; keeps nothing of it. NULL in *out with CMC_OK never happens: a file without vocabulary fails. */
cmc_status vocab_from_gguf(const gguf *g, cmc_vocab **out, cmc_error *err);
cmc_status vocab_from_spm_model(const uint8_t *data, size_t size, const char *path, cmc_vocab **out, cmc_error *err);
/* Copies the tokenizer.* keys of one GGUF into another being written. */
bool vocab_copy_keys(const gguf *from, gguf_writer *to);
/* vocab_keys.c: the tokenizer.* keys of a vocabulary of kind VOCAB_SPM, whatever file it is from. */
bool vocab_put_keys(const cmc_vocab *v, gguf_writer *to);
#endif
