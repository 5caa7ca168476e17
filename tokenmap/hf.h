/* Hugging Face's tokenizer.json: a pipeline that is read part by part and run as the package `tokenizers` runs it.
 * added tokens -> normaliser -> added tokens that are normalised -> pre-tokenizer -> model. */
#ifndef CMC_TOKENMAP_HF_H
#define CMC_TOKENMAP_HF_H
#include <jansson.h>

#include "tokenmap/idmap.h"
#include "tokenmap/regex.h"
#include "tokenmap/tok.h"

/* ---- hf_json.c: fields of the file's objects. `part` names the object in messages: "pre_tokenizer Split". */
typedef struct hf_src { const char *path; cmc_error *err; } hf_src;
typedef struct hf_str { const char *s; size_t n; } hf_str;      /* UTF-8, NUL-terminated; belongs to the JSON */
cmc_status hf_bad(const hf_src *src, const char *part, const char *key, const char *what);   /* CMC_E_FORMAT */
cmc_status hf_unknown(const hf_src *src, const char *part, const char *what);               /* CMC_E_UNSUPPORTED */
cmc_status hf_get_str(const hf_src *src, const json_t *o, const char *part, const char *key, hf_str *out);
cmc_status hf_opt_str(const hf_src *src, const json_t *o, const char *part, const char *key, hf_str *out); /* or NULL */
cmc_status hf_opt_bool(const hf_src *src, const json_t *o, const char *part, const char *key, bool *inout);
cmc_status hf_get_bool(const hf_src *src, const json_t *o, const char *part, const char *key, bool *out);
cmc_status hf_get_list(const hf_src *src, const json_t *o, const char *part, const char *key, const json_t **out);
cmc_status hf_get_char(const hf_src *src, const json_t *o, const char *part, const char *key, int32_t *out);
/* The "type" of a part, which is an object. */
cmc_status hf_get_type(const hf_src *src, const json_t *o, const char *part, hf_str *out);
bool hf_is(hf_str s, const char *name);
enum { HF_MAX_DEPTH = 16, HF_MAX_PARTS = 256 };

/* ---- hf_text.c: texts in the making. `head`: how many bytes at the front stand for the first character of the text
 * that the pipeline was given (0 where that is gone); Metaspace asks for it. */
typedef struct hf_text { uint8_t *s; size_t n, cap, head; } hf_text;
bool hf_put(hf_text *t, const void *s, size_t n);
bool hf_put_char(hf_text *t, int32_t cp);
void hf_swap(hf_text *a, hf_text *b);

typedef struct hf_span { size_t begin, end; bool match; } hf_span;
typedef struct hf_spans { hf_span *v; size_t n, cap; } hf_spans;
bool hf_spans_add(hf_spans *l, size_t begin, size_t end, bool match);

int hf_category(int32_t cp);                     /* utf8proc's general category */
bool hf_is_mark(int32_t cp);
bool hf_is_number(int32_t cp);                   /* Nd, Nl, No */
bool hf_is_punctuation(int32_t cp);              /* P, and all of ASCII's */
bool hf_is_word(int32_t cp);                     /* \w of Rust's regex */

/* A string or a regular expression to look for: {"String": ..} or {"Regex": ..}. */
typedef struct hf_pattern { char *literal; size_t n; regex *re; } hf_pattern;
cmc_status hf_pattern_read(const hf_src *src, const json_t *o, const char *part, hf_pattern *out);
void hf_pattern_free(hf_pattern *p);
/* Matches and what lies between them, covering s[0..n), n > 0. */
cmc_status hf_pattern_spans(const hf_pattern *p, regex_scratch *sc, const uint8_t *s, size_t n, hf_spans *out,
                            cmc_error *err);

/* ---- what one call of the tokenizer carries along */
typedef struct hf_run {
    const cmc_vocab *v;
    const struct tok_hf *hf;
    bool special;                /* control tokens may come of text */
    bool cont;                   /* nothing is put before the text's beginning */
    regex_scratch *scratch;
    hf_spans spans;
    hf_text swap;
    struct hf_pieces *pieces;    /* two, read and written in turn */
    struct hf_symbols *symbols;
    cmc_ids *out;
    cmc_error *err;
} hf_run;

/* ---- hf_norm.c, hf_unicode.c, hf_charsmap.c */
typedef struct hf_norm hf_norm;
cmc_status hf_norm_new(const hf_src *src, const json_t *o, hf_norm **out);
void hf_norm_free(hf_norm *n);
bool hf_norm_byte_level(const hf_norm *n);
cmc_status hf_norm_run(const hf_norm *n, hf_run *run, hf_text *t);

typedef enum hf_form { HF_NFC, HF_NFD, HF_NFKC, HF_NFKD } hf_form;
cmc_status hf_unicode_form(hf_form form, const hf_text *in, hf_text *out, cmc_error *err);
bool hf_lowercase(const hf_text *in, hf_text *out);
bool hf_nmt(const hf_text *in, hf_text *out);
bool hf_strip_accents(const hf_text *in, hf_text *out);

typedef struct hf_charsmap hf_charsmap;
cmc_status hf_charsmap_new(const hf_src *src, hf_str base64, hf_charsmap **out);
void hf_charsmap_free(hf_charsmap *c);
bool hf_charsmap_run(const hf_charsmap *c, const hf_text *in, hf_text *out);

/* ---- hf_pretok.c: pieces lie one after the other in `text`. */
typedef struct hf_piece { size_t begin, end, head; } hf_piece;
typedef struct hf_pieces { hf_text text; hf_piece *v; size_t n, cap; } hf_pieces;
typedef struct hf_pretok hf_pretok;
cmc_status hf_pretok_new(const hf_src *src, const json_t *o, hf_pretok **out);
void hf_pretok_free(hf_pretok *p);
bool hf_pretok_byte_level(const hf_pretok *p);
/* Metaspace's character, 0 where there is none. */
int32_t hf_pretok_metaspace(const hf_pretok *p);
/* Cuts text[0..n) to pieces; *out belongs to the run and lives until the next call. */
cmc_status hf_pretok_run(const hf_pretok *p, hf_run *run, const hf_text *t, const hf_pieces **out);

/* ---- hf_added.c */
typedef struct hf_added hf_added;
typedef cmc_status (*hf_added_text)(hf_run *run, const uint8_t *s, size_t n, size_t head);
typedef struct hf_added_token { hf_str content; int32_t id; bool special, normalized, lstrip, rstrip, single_word; }
    hf_added_token;
/* Takes the tokens (contents copied); normalised ones are looked for in their normalised form. */
cmc_status hf_added_new(const hf_src *src, const hf_added_token *v, size_t n, const hf_norm *norm, hf_added **out);
void hf_added_free(hf_added *a);
/* Gives the ids of the tokens found in s[0..n) to run->out, and what lies between them to `text`. */
cmc_status hf_added_run(const hf_added *a, hf_run *run, bool normalized, const uint8_t *s, size_t n, size_t head,
                        hf_added_text text);

/* ---- hf_bpe.c, hf_unigram.c: the ids of one piece */
typedef struct hf_bpe hf_bpe;
cmc_status hf_bpe_new(const hf_src *src, const json_t *model, const idmap *ids, hf_bpe **out);
void hf_bpe_free(hf_bpe *b);
cmc_status hf_bpe_run(const hf_bpe *b, hf_run *run, const uint8_t *s, size_t n);
void hf_symbols_free(struct hf_symbols *s);

typedef struct hf_unigram hf_unigram;
cmc_status hf_unigram_new(const hf_src *src, const json_t *model, const cmc_vocab *v, const idmap *ids,
                          hf_unigram **out);
void hf_unigram_free(hf_unigram *u);
cmc_status hf_unigram_run(const hf_unigram *u, hf_run *run, const uint8_t *s, size_t n);

/* ---- hf_decode.c: the bytes a token stands for */
enum { HF_MAX_REPLACES = 8 };
typedef struct hf_decode {
    bool byte_level;
    struct { char from[16], to[16]; size_t n_from, n_to; } replace[HF_MAX_REPLACES];
    size_t n_replaces;
    char prefix[16];          /* taken off where a token begins with it ("##") */
} hf_decode;
cmc_status hf_decode_read(const hf_src *src, const json_t *decoder, const hf_norm *norm, const hf_pretok *pretok,
                          hf_decode *out);
/* Never longer than the spelling. */
size_t hf_decode_token(const hf_decode *d, cmc_token_kind kind, const char *s, size_t n, uint8_t *out);

/* ---- hf_read.c, hf_run.c */
struct tok_hf {
    hf_norm *norm;            /* NULL: none, as for the others */
    hf_pretok *pretok;
    hf_added *added;
    hf_bpe *bpe;              /* one of the two */
    hf_unigram *unigram;
    idmap ids;                /* the spellings of the model's own tokens, over the vocabulary's */
    hf_decode decode;
};
/* From a file's text; tokenizer_config.json beside `path` is read too, where there is one. */
cmc_status vocab_from_hf(const uint8_t *data, size_t size, const char *path, cmc_vocab **out, cmc_error *err);
bool hf_is_object(const uint8_t *data, size_t size);      /* begins as a JSON object does */
void hf_free(struct tok_hf *hf);
/* As tok_run, of which it is the part for these files. */
cmc_status hf_tokenize(const cmc_vocab *v, const char *s, size_t n, tok_opts opts, cmc_ids *out, size_t *done,
                       cmc_error *err);
/* ---- hf_roles.c: who begins and ends a text, by the file's post-processor and the tokenizer_config.json beside it */
cmc_status hf_roles_read(const hf_src *src, const json_t *root, cmc_vocab *v);
cmc_status hf_roles_config(const char *path, cmc_vocab *v, cmc_error *err);
#endif
