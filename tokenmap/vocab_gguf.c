/* Vocabularies from the tokenizer.* keys of a GGUF file. */
#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

#include "base/error.h"
#include "base/mem.h"
#include "tokenmap/pretok_kinds.h"
#include "tokenmap/tok.h"
#include "tokenmap/vocab_build.h"

#define KEY(name) "tokenizer.ggml." name
#define GEMMA4 "gemma4" /* a model of its own, with one pre-tokenizer of the same name */

/* Token types as GGUF (and sentencepiece_model.proto) number them. */
enum { TYPE_NORMAL = 1, TYPE_UNKNOWN, TYPE_CONTROL, TYPE_USER, TYPE_UNUSED, TYPE_BYTE };

typedef struct gguf_tokens {
    vocab_model model;
    bool unigram;
    const gguf_kv *tokens, *types, *scores;   /* types: may be NULL; scores: NULL for BPE */
} gguf_tokens;

static bool vocab_gguf_is(gguf_str s, const char *name) {
    return s.n == strlen(name) && memcmp(s.s, name, s.n) == 0;
}

/* The models under the name "t5" are Unigram, most of them with a normaliser, which would break "ids stand for the
 * text's bytes". NULL: this one has the identity. */
static const char *vocab_gguf_normaliser(const gguf *g) {
    bool merges = false, escapes = true, suffix = false;
    gguf_get_bool(g, KEY("remove_extra_whitespaces"), &merges);
    gguf_get_bool(g, KEY("escape_whitespaces"), &escapes);
    gguf_get_bool(g, KEY("treat_whitespace_as_suffix"), &suffix);
    return gguf_find(g, KEY("precompiled_charsmap")) != NULL ? "precompiled_charsmap"
           : merges                                          ? "remove_extra_whitespaces"
           : !escapes                                        ? "escape_whitespaces = false"
           : suffix                                          ? "treat_whitespace_as_suffix"
                                                             : NULL;
}

static cmc_status vocab_gguf_model(const gguf *g, gguf_tokens *t, cmc_error *err) {
    gguf_str name;
    if (!gguf_get_str(g, KEY("model"), &name)) {
        return cmc_fail(err, CMC_E_FORMAT, "%s: no " KEY("model") ", so the file holds no vocabulary", g->file.path);
    }
    t->unigram = vocab_gguf_is(name, "t5");
    t->model = VOCAB_SPM;
    if (vocab_gguf_is(name, "llama")) {
        return CMC_OK;
    }
    if (t->unigram) {
        const char *what = vocab_gguf_normaliser(g);
        return what == NULL ? CMC_OK
                            : cmc_fail(err, CMC_E_UNSUPPORTED,
                                       "%s: " KEY("model") " is \"t5\" (Unigram) with %s; only the identity is read as a "
                                       "normaliser", g->file.path, what);
    }
    if (vocab_gguf_is(name, "gpt2") || vocab_gguf_is(name, GEMMA4)) {
        t->model = VOCAB_BPE;
        return CMC_OK;
    }
    const char *known = vocab_gguf_is(name, "bert") ? " (WordPiece)" : "";
    return cmc_fail(err, CMC_E_UNSUPPORTED,
                    "%s: " KEY("model") " is \"%.*s\"%s; \"llama\" (SentencePiece BPE), \"t5\" (Unigram), \"gpt2\" "
                    "(byte-level BPE) and \"" GEMMA4 "\" (BPE over characters) are read",
                    g->file.path, (int)(name.n < 40 ? name.n : 40), name.s, known);
}

/* An array with an entry for each token. */
static cmc_status vocab_gguf_array(const gguf *g, const char *key, gguf_vtype elem, uint64_t n, const gguf_kv **out,
                                   cmc_error *err) {
    *out = gguf_get_array(g, key, elem);
    if (*out == NULL) {
        return gguf_find(g, key) == NULL
                   ? CMC_OK
                   : cmc_fail(err, CMC_E_FORMAT, "%s: %s is not an array of the right type", g->file.path, key);
    }
    if ((*out)->n != n) {
        return cmc_fail(err, CMC_E_FORMAT, "%s: %s has %llu entries for %llu tokens", g->file.path, key,
                        (unsigned long long)(*out)->n, (unsigned long long)n);
    }
    return CMC_OK;
}

static cmc_status vocab_gguf_arrays(const gguf *g, gguf_tokens *t, cmc_error *err) {
    t->tokens = gguf_get_array(g, KEY("tokens"), GGUF_STRING);
    if (t->tokens == NULL) {
        return cmc_fail(err, CMC_E_FORMAT, "%s: no array of strings " KEY("tokens"), g->file.path);
    }
    CMC_TRY(vocab_gguf_array(g, KEY("token_type"), GGUF_I32, t->tokens->n, &t->types, err));
    if (t->model == VOCAB_SPM) {
        CMC_TRY(vocab_gguf_array(g, KEY("scores"), GGUF_F32, t->tokens->n, &t->scores, err));
        if (t->scores == NULL) {
            return cmc_fail(err, CMC_E_FORMAT,
                            "%s: no " KEY("scores") ", without which \"%s\" tokens cannot be chosen", g->file.path,
                            t->unigram ? "t5" : "llama");
        }
    }
    return CMC_OK;
}

/* An id by key; -1 where there is no such key. */
static cmc_status vocab_gguf_id(const gguf *g, const char *key, int32_t n, int32_t *out, cmc_error *err) {
    *out = -1;
    if (gguf_find(g, key) == NULL) {
        return CMC_OK;
    }
    uint64_t id;
    CMC_TRY(gguf_need_u64(g, key, 0, (uint64_t)n - 1, &id, err));
    *out = (int32_t)id;
    return CMC_OK;
}

static cmc_status vocab_gguf_kind(const gguf *g, const gguf_tokens *t, uint64_t i, gguf_str s, cmc_token_kind *out,
                                  cmc_error *err) {
    int64_t type = t->types != NULL                                              ? gguf_array_i64(t->types, i)
                   : t->model == VOCAB_SPM && vocab_byte_spelling(s.s, s.n) >= 0 ? TYPE_BYTE
                                                                                 : TYPE_NORMAL;
    switch (type) {
    case 0: /* "undefined": written by some converters for ordinary tokens */
    case TYPE_NORMAL: *out = CMC_KIND_NORMAL; break;
    case TYPE_UNKNOWN:
    case TYPE_CONTROL: *out = CMC_KIND_CONTROL; break;
    case TYPE_USER: *out = CMC_KIND_USER; break;
    case TYPE_UNUSED: *out = CMC_KIND_UNUSED; break;
    case TYPE_BYTE: *out = CMC_KIND_BYTE; break;
    default:
        return cmc_fail(err, CMC_E_FORMAT, "%s: token %llu has type %lld; types go from 1 to 6", g->file.path,
                        (unsigned long long)i, (long long)type);
    }
    return CMC_OK;
}

static cmc_status vocab_gguf_tokens(const gguf *g, const gguf_tokens *t, cmc_vocab **out, cmc_error *err) {
    uint64_t total = 0;
    const uint8_t *pos = NULL;
    for (uint64_t i = 0; i < t->tokens->n; i++) {
        total += gguf_array_next_str(t->tokens, &pos).n;
    }
    CMC_TRY(vocab_new(g->file.path, t->model, t->tokens->n, total, out, err));
    cmc_vocab *v = *out;
    v->unigram = t->unigram;
    pos = NULL;
    for (int32_t i = 0; i < v->n; i++) {
        gguf_str s = gguf_array_next_str(t->tokens, &pos);
        cmc_token_kind kind = CMC_KIND_NORMAL;
        CMC_TRY(vocab_gguf_kind(g, t, (uint64_t)i, s, &kind, err));
        vocab_set_token(v, i, s.s, s.n, kind);
        if (t->types != NULL && gguf_array_i64(t->types, (uint64_t)i) == TYPE_UNKNOWN && v->unk < 0) {
            v->unk = i;
        }
        if (t->scores != NULL) {
            v->score[i] = (float)gguf_array_f64(t->scores, (uint64_t)i);
            if (isnan(v->score[i])) {
                return cmc_fail(err, CMC_E_FORMAT, "%s: the score of token %d is not a number", g->file.path, i);
            }
        }
    }
    return CMC_OK;
}

/* Ids by key. Without types, the tokens that have a role are taken for control tokens. */
static cmc_status vocab_gguf_ids(const gguf *g, cmc_vocab *v, bool typed, int32_t *eom, cmc_error *err) {
    int32_t unk;
    CMC_TRY(vocab_gguf_id(g, KEY("bos_token_id"), v->n, &v->bos, err));
    CMC_TRY(vocab_gguf_id(g, KEY("eos_token_id"), v->n, &v->eos, err));
    CMC_TRY(vocab_gguf_id(g, KEY("eot_token_id"), v->n, &v->eot, err));
    CMC_TRY(vocab_gguf_id(g, KEY("eom_token_id"), v->n, eom, err));
    CMC_TRY(vocab_gguf_id(g, KEY("padding_token_id"), v->n, &v->pad, err));
    CMC_TRY(vocab_gguf_id(g, KEY("unknown_token_id"), v->n, &unk, err));
    v->unk = unk >= 0 ? unk : v->unk;
    const int32_t ids[] = {v->bos, v->eos, v->eot, v->pad, v->unk, *eom};
    for (size_t k = 0; !typed && k < sizeof ids / sizeof *ids; k++) {
        if (ids[k] >= 0) {
            v->kind[ids[k]] = CMC_KIND_CONTROL;
        }
    }
    return CMC_OK;
}

/* The pre-tokenizer's name, and whether its tokens are spelled as SentencePiece's are. */
static cmc_status vocab_gguf_pre(const gguf *g, cmc_vocab *v, cmc_error *err) {
    gguf_str model = {0}, s;
    gguf_get_str(g, KEY("model"), &model);
    if (vocab_gguf_is(model, GEMMA4)) {
        s = model;
    } else if (!gguf_get_str(g, KEY("pre"), &s)) {
        s = (gguf_str){"default", 7};
    }
    if (s.n >= sizeof v->pre || memchr(s.s, 0, s.n) != NULL) {
        return cmc_fail(err, CMC_E_UNSUPPORTED,
                        "%s: " KEY("pre") " is of %zu bytes, no pre-tokenizer that cmc knows", g->file.path, s.n);
    }
    memcpy(v->pre, s.s, s.n);
    const pretok_kind *kind = pretok_kind_find(v->pre);
    v->marked = kind != NULL && kind->chars;
    return CMC_OK;
}

static bool vocab_gguf_named(const gguf *g, const char *part) {
    gguf_str s;
    size_t n = strlen(part);
    for (size_t i = 0; gguf_get_str(g, "general.name", &s) && i + n <= s.n; i++) {
        if (strncasecmp(s.s + i, part, n) == 0) {
            return true;
        }
    }
    return false;
}

/* Of Phi-3's tokens tokenizer.json says that they take along the white space after them ("rstrip"). GGUF has no key for
 * it, so the family has to be recognised: by its architecture (Phi-3, Phi-3.5) or, as llama.cpp does, by its name. */
static bool vocab_gguf_strips(const gguf *g) {
    gguf_str arch;
    return (gguf_get_str(g, "general.architecture", &arch) && vocab_gguf_is(arch, "phi3")) ||
           vocab_gguf_named(g, "phi-3") || vocab_gguf_named(g, "phi3");
}

static cmc_status vocab_gguf_texts(const gguf *g, cmc_vocab *v, cmc_error *err) {
    gguf_str s;
    if (gguf_get_str(g, "tokenizer.chat_template", &s)) {
        v->chat_template = cmc_strndup(s.s, s.n);
        if (v->chat_template == NULL) {
            return cmc_fail_nomem(err, "the chat template", s.n);
        }
    }
    v->strip_after = v->model == VOCAB_SPM && vocab_gguf_strips(g);
    return v->model == VOCAB_BPE ? vocab_gguf_pre(g, v, err) : CMC_OK;
}

static cmc_status vocab_gguf_fill(const gguf *g, const gguf_tokens *t, cmc_vocab **out, cmc_error *err) {
    CMC_TRY(vocab_gguf_tokens(g, t, out, err));
    cmc_vocab *v = *out;
    int32_t eom;
    CMC_TRY(vocab_gguf_ids(g, v, t->types != NULL, &eom, err));
    CMC_TRY(vocab_gguf_texts(g, v, err));
    CMC_TRY(vocab_finish(v, eom, err));
    if (t->model == VOCAB_SPM) {
        v->add_bos = v->add_space_prefix = !t->unigram; /* llama.cpp's defaults */
        gguf_get_bool(g, KEY("add_space_prefix"), &v->add_space_prefix);
        CMC_TRY(spm_new(v, err));
    } else {
        CMC_TRY(bpe_new(v, g, err));
        v->add_bos = pretok_adds_bos(bpe_pretok(v->bpe));
    }
    gguf_get_bool(g, KEY("add_bos_token"), &v->add_bos);
    /* Early files of Gemma 4 say false, which the model does not bear. */
    v->add_bos = v->add_bos || strcmp(v->pre, GEMMA4) == 0;
    return CMC_OK;
}

cmc_status vocab_from_gguf(const gguf *g, cmc_vocab **out, cmc_error *err) {
    gguf_tokens t = {0};
    *out = NULL;
    CMC_TRY(vocab_gguf_model(g, &t, err));
    CMC_TRY(vocab_gguf_arrays(g, &t, err));
    cmc_status st = vocab_gguf_fill(g, &t, out, err);
    if (st != CMC_OK) {
        cmc_vocab_free(*out);
        *out = NULL;
    }
    return st;
}

bool vocab_copy_keys(const gguf *from, gguf_writer *to) {
    static const char prefix[] = "tokenizer.";
    for (size_t i = 0; i < from->n_kv; i++) {
        const gguf_kv *kv = &from->kv[i];
        if (kv->key.n >= sizeof prefix - 1 && memcmp(kv->key.s, prefix, sizeof prefix - 1) == 0 &&
            !gguf_put_kv(to, kv)) {
            return false;
        }
    }
    return true;
}
