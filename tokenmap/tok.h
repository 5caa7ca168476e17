/* The tokenizers behind a vocabulary, and the way a text takes through them:
 * special tokens -> runs of valid UTF-8 -> (BPE: pre-tokens) -> merges. */
#ifndef CMC_TOKENMAP_TOK_H
#define CMC_TOKENMAP_TOK_H
#include "base/error.h"
#include "tokenmap/idmap.h"
#include "tokenmap/vocab.h"

/* ---- tokenize.c */
/* Appends the ids of text[0..n) to out. `open`: more text may follow; then only the ids that no continuation can change
 * are given, and *done says how many bytes they cover (BPE only). Otherwise *done = n. */
typedef struct tok_opts {
    bool special, cont, open;
    struct words *words;      /* not NULL: words of the text given before are not merged again (words.h) */
} tok_opts;
cmc_status tok_run(const cmc_vocab *v, const char *text, size_t n, tok_opts opts, cmc_ids *out, size_t *done,
                   cmc_error *err);

/* A symbol that is not merged any further, and how many bytes of the text it stands for. Id -1: it has no token. */
typedef struct tok_piece { int32_t id; uint32_t len; } tok_piece;
typedef struct tok_pieces { tok_piece *v; size_t n, cap; } tok_pieces;
bool tok_pieces_add(tok_pieces *p, const tok_piece *v, size_t n);   /* false when memory is out */

/* ---- specials.c: control and user-defined tokens in a text, the longest at the leftmost place (as SentencePiece and
 * Hugging Face's tokenizers do it). */
typedef struct special { const uint8_t *s; uint32_t n; int32_t id; } special;
typedef struct special_table {
    special *v;               /* sorted by spelling */
    uint32_t n;
    uint32_t first[257];      /* entries that begin with byte b: v[first[b] .. first[b+1]) */
} special_table;
struct vocab_specials { special_table user, all; };  /* all: control tokens too */
cmc_status specials_build(cmc_vocab *v, cmc_error *err);
void specials_free(struct vocab_specials *s);
void specials_sort(special_table *t);     /* entries in any order; sets `first` */
/* The longest token that text[0..n) begins with, *len its length; -1 if none. *at_end: a longer one may begin here, for
 * the text ended while one still fitted. */
int32_t specials_match(const special_table *t, const uint8_t *text, size_t n, size_t *len, bool *at_end);
int32_t specials_find(const special_table *t, const void *s, size_t n);
/* Whether the white space after this special token in a text is taken for part of it. */
bool specials_strips(const cmc_vocab *v, int32_t id);

/* ---- bpe.c */
typedef struct bpe_scratch bpe_scratch;
cmc_status bpe_new(cmc_vocab *v, const gguf *g, cmc_error *err);    /* sets v->bpe */
void bpe_free(struct tok_bpe *b);
const struct pretok *bpe_pretok(const struct tok_bpe *b);
bpe_scratch *bpe_scratch_new(void);
void bpe_scratch_free(bpe_scratch *s);
/* Appends the ids of one pre-token. False when memory is out. */
bool bpe_word(const cmc_vocab *v, bpe_scratch *sc, const uint8_t *s, size_t n, cmc_ids *out);
/* The same in two: the token that a pre-token is as a whole, where the pre-tokenizer looks for that first (else -1);
 * and what merging makes of it. */
int32_t bpe_whole(const cmc_vocab *v, const uint8_t *s, size_t n);
bool bpe_pieces(const cmc_vocab *v, bpe_scratch *sc, const uint8_t *s, size_t n, tok_pieces *out);
/* A byte of the GPT-2 alphabet: the character that stands for byte b, and back (-1: none). */
int32_t bpe_byte_char(uint8_t b);
int bpe_char_byte(int32_t cp);

/* ---- pretok.c */
typedef struct pretok pretok;
typedef bool (*pretok_emit)(void *user, const uint8_t *s, size_t n);
cmc_status pretok_new(const char *name, const char *file, pretok **out, cmc_error *err);
void pretok_free(pretok *p);
bool pretok_ignore_merges(const pretok *p);
bool pretok_adds_bos(const pretok *p);   /* where the file does not say */
/* Gives the pre-tokens of valid UTF-8 in order. `open` and *done as in tok_run. */
cmc_status pretok_split(const pretok *p, const uint8_t *s, size_t n, bool open, pretok_emit emit, void *user,
                        size_t *done, cmc_error *err);

/* ---- spm.c */
cmc_status spm_new(cmc_vocab *v, cmc_error *err); /* sets v->spm; libsentencepiece is loaded at first use */
void spm_free(struct tok_spm *t);
/* Appends the ids of valid UTF-8. */
cmc_status spm_encode(const cmc_vocab *v, const char *s, size_t n, cmc_ids *out, cmc_error *err);
/* The same with their lengths. A character given as the tokens of its bytes has its length at the last one. */
cmc_status spm_encode_pieces(const cmc_vocab *v, const char *s, size_t n, tok_pieces *out, cmc_error *err);
/* How many bytes from the front of s[0..n) end at the last place that no piece can bridge: what lies before it is
 * tokenised alike whatever follows (see spm_pairs.c). 0: there is none at or after `from`. */
cmc_status spm_stable(const cmc_vocab *v, const uint8_t *s, size_t n, size_t from, size_t *out, cmc_error *err);
/* Whether a text's tokens depend on their neighbourhood alone: no unused piece can be merged together. SentencePiece
 * takes an unused piece apart again, by what was last joined into it anywhere in the text. Never with Unigram, whose
 * tokens go by all that stands between two cuts. */
bool spm_local(const cmc_vocab *v);
/* Whether what stands between two cuts is tokenised on its own: true of Unigram, and where spm_local is. */
bool spm_cuts(const cmc_vocab *v);
#endif
