/* cmc_vocab_train: a vocabulary from data, through SentencePiece's trainer, as a .model or as a GGUF file. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "base/mem.h"
#include "base/utf8.h"
#include "tinylm/vocab_text.h"
#include "tokenmap/spm_shim.h"
#include "tokenmap/tok.h"
#include "tokenmap/vocab_build.h"

enum { SIZE_LEAST = 260, SIZE_MOST = 1 << 20 };

cmc_vocab_train_opts cmc_vocab_train_defaults(void) {
    return (cmc_vocab_train_opts){.t = CMC_TMPL_PLAIN, .size = 8000, .kind = "bpe", .coverage = 0.9995};
}

/* -------------------------------------------------------------------------------------------------- options */

static cmc_status vtrain_check_output(const cmc_vocab_train_opts *o, cmc_error *err) {
    struct stat out, in;
    if (stat(o->out_path, &out) != 0) {
        return CMC_OK;
    }
    if (!S_ISREG(out.st_mode)) {
        return cmc_fail(err, CMC_E_IO, "%s: not a regular file; name a file to write", o->out_path);
    }
    for (size_t i = 0; i < o->n_data; i++) {
        if (stat(o->data[i], &in) == 0 && in.st_dev == out.st_dev && in.st_ino == out.st_ino) {
            return cmc_fail(err, CMC_E_ARG, "%s: is the data as well; name another output", o->out_path);
        }
    }
    return CMC_OK;
}

static cmc_status vtrain_check(const cmc_vocab_train_opts *o, bool *unigram, cmc_error *err) {
    const char *kind = o->kind != NULL ? o->kind : "bpe";
    if (o->data == NULL || o->n_data == 0 || o->out_path == NULL) {
        return cmc_fail(err, CMC_E_ARG, "a vocabulary needs data and a path to be written to");
    }
    *unigram = strcmp(kind, "unigram") == 0;
    if (!*unigram && strcmp(kind, "bpe") != 0) {
        return cmc_fail(err, CMC_E_ARG, "unknown kind \"%.32s\" of vocabulary: bpe or unigram", kind);
    }
    if (o->size < SIZE_LEAST || o->size > SIZE_MOST) {
        return cmc_fail(err, CMC_E_ARG, "size is %d; it must be from %d to %d", o->size, SIZE_LEAST, SIZE_MOST);
    }
    if (!(o->coverage >= 0.98 && o->coverage <= 1.0)) { /* the trainer's own bounds */
        return cmc_fail(err, CMC_E_ARG, "coverage is %g; it must be from 0.98 to 1", o->coverage);
    }
    return vtrain_check_output(o, err);
}

static cmc_status vtrain_check_symbol(const char *s, const char *what, cmc_error *err) {
    const uint8_t *u = (const uint8_t *)s;
    size_t n = strlen(s);
    if (n == 0 || n > 200 || !cmc_utf8_valid(u, n) || strchr(s, '\t') != NULL || strstr(s, "\xe2\x96\x85") != NULL) {
        return cmc_fail(err, CMC_E_ARG,
                        "%s \"%.60s\": expected 1 to 200 bytes of UTF-8 without tabs and U+2585, which SentencePiece keeps "
                        "for itself", what, s);
    }
    /* The trainer takes these for the pieces of that name, and a byte's for a second one. */
    if (strcmp(s, "<unk>") == 0 || strcmp(s, "<s>") == 0 || strcmp(s, "</s>") == 0 || vocab_byte_spelling(s, n) >= 0) {
        return cmc_fail(err, CMC_E_ARG, "%s \"%s\": every vocabulary that is learnt has it already", what, s);
    }
    return CMC_OK;
}

/* A list that symbols are added to, in CSV: each in quotes, quotes within doubled; a user's space as U+2581. */
typedef struct symbol_list { char *v; size_t n, cap; } symbol_list;

static bool symbol_put(symbol_list *l, const char *s, size_t n) {
    void *v = l->v;
    if (!cmc_grow(&v, &l->cap, l->n + n + 1, 1)) {
        return false;
    }
    l->v = v;
    memcpy(l->v + l->n, s, n);
    l->n += n;
    l->v[l->n] = '\0';
    return true;
}

static cmc_status symbol_add(symbol_list *l, const char *s, bool user, cmc_error *err) {
    CMC_TRY(vtrain_check_symbol(s, user ? "symbol" : "control token", err));
    bool ok = l->n > 0 ? symbol_put(l, ",\"", 2) : symbol_put(l, "\"", 1);
    for (; ok && *s != '\0'; s++) {
        ok = *s == '"'             ? symbol_put(l, "\"\"", 2)
             : *s == ' ' && user   ? symbol_put(l, "\xe2\x96\x81", 3)
                                   : symbol_put(l, s, 1);
    }
    return ok && symbol_put(l, "\"", 1) ? CMC_OK : cmc_fail_nomem(err, "symbols", l->cap);
}

/* Token i of those that are asked for: the template's, further control tokens, symbols. NULL behind the last. */
static const char *vtrain_asked(const cmc_vocab_train_opts *o, size_t i) {
    const char *const *own = vocab_text_control(o->t);
    for (; *own != NULL; own++, i--) {
        if (i == 0) {
            return *own;
        }
    }
    if (i < o->n_control) {
        return o->control[i];
    }
    return i - o->n_control < o->n_symbols ? o->symbols[i - o->n_control] : NULL;
}

static cmc_status vtrain_check_twice(const cmc_vocab_train_opts *o, cmc_error *err) {
    const char *a, *b;
    for (size_t i = 0; (a = vtrain_asked(o, i)) != NULL; i++) {
        for (size_t k = 0; k < i; k++) {
            b = vtrain_asked(o, k);
            if (strcmp(a, b) == 0) {
                return cmc_fail(err, CMC_E_ARG, "token \"%.60s\": is asked for twice, as a symbol or a control token (the template's among "
                                "them); once is enough", a);
            }
        }
    }
    return CMC_OK;
}

static cmc_status vtrain_symbols(const cmc_vocab_train_opts *o, symbol_list *control, symbol_list *user,
                                 cmc_error *err) {
    CMC_TRY(vtrain_check_twice(o, err));
    for (const char *const *c = vocab_text_control(o->t); *c != NULL; c++) {
        CMC_TRY(symbol_add(control, *c, false, err));
    }
    for (size_t i = 0; i < o->n_control; i++) {
        CMC_TRY(symbol_add(control, o->control[i], false, err));
    }
    for (size_t i = 0; i < o->n_symbols; i++) {
        CMC_TRY(symbol_add(user, o->symbols[i], true, err));
    }
    return CMC_OK;
}

/* ------------------------------------------------------------------------------------------------- training */

typedef struct vtrain_feed { const vocab_text *x; size_t i, at; } vtrain_feed;

static bool vtrain_next(void *user, const char **s, size_t *n) {
    vtrain_feed *f = user;
    if (f->i == f->x->n_sentences) {
        return false;
    }
    *s = f->x->v + f->at;
    *n = f->x->len[f->i++];
    f->at += *n;
    return true;
}

/* The trainer's message, but for the one thing that a caller can often do something about. */
static cmc_status vtrain_failed(const cmc_vocab_train_opts *o, const char *msg, cmc_error *err) {
    const char *few = strstr(msg, "smaller than required_chars. ");
    int chars, others;
    if (few != NULL && sscanf(few, "smaller than required_chars. %d vs %d", &chars, &others) == 2) {
        return cmc_fail(err, CMC_E_ARG,
                        "size is %d, but the data's characters, 256 bytes and control tokens are %d; ask for a larger "
                        "size or a smaller coverage", o->size, others);
    }
    return cmc_fail(err, CMC_E_FORMAT, "%s: SentencePiece's trainer: %.300s", o->data[0], msg);
}

static cmc_status vtrain_model(const cmc_vocab_train_opts *o, bool unigram, const vocab_text *x, void **model,
                               size_t *size, cmc_error *err) {
    symbol_list control = {0}, user = {0};
    char msg[512];
    cmc_status st = vtrain_symbols(o, &control, &user, err);
    if (st == CMC_OK) {
        spm_shim_training t = {.size = o->size,
                               .unigram = unigram,
                               .split_digits = o->split_digits,
                               .coverage = o->coverage,
                               .max_sentence = VOCAB_TEXT_SENTENCE,
                               .control = control.n > 0 ? control.v : "",
                               .user = user.n > 0 ? user.v : ""};
        vtrain_feed feed = {.x = x};
        if (!spm_shim_train(&t, vtrain_next, &feed, model, size, msg, sizeof msg)) {
            st = vtrain_failed(o, msg, err);
        }
    }
    free(control.v);
    free(user.v);
    return st;
}

/* --------------------------------------------------------------------------------------------------- writing */

static cmc_status vtrain_write_model(const char *path, const void *model, size_t size, cmc_error *err) {
    cmc_writer *w;
    CMC_TRY(cmc_writer_open(path, &w, err));
    cmc_status st = cmc_writer_put(w, model, size, err);
    if (st != CMC_OK) {
        cmc_writer_abort(w);
        return st;
    }
    return cmc_writer_commit(w, err);
}

/* A GGUF file without tensors, as llama.cpp's own ggml-vocab-*.gguf are; without a name, so that the same data give the
 * same bytes under any. */
static cmc_status vtrain_write_gguf(const char *path, const cmc_vocab *v, cmc_error *err) {
    gguf_writer *w = gguf_writer_new();
    bool ok = w != NULL && gguf_put_str(w, "general.architecture", "llama", 5) &&
              gguf_put_str(w, "general.type", "model", 5) &&
              gguf_put_u32(w, "llama.vocab_size", (uint32_t)v->n) && vocab_put_keys(v, w);
    cmc_status st = gguf_writer_end(w, ok, "the vocabulary's file", (size_t)v->n * 16, path, err);
    gguf_writer_free(w);
    return st;
}

static cmc_status vtrain_write(const cmc_vocab_train_opts *o, const void *model, size_t size, int32_t *tokens,
                               cmc_error *err) {
    const char *dot = strrchr(o->out_path, '.');
    cmc_vocab *v = NULL;
    CMC_TRY(vocab_from_spm_model(model, size, o->out_path, &v, err));
    *tokens = v->n;
    cmc_status st = dot != NULL && strcmp(dot, ".model") == 0 ? vtrain_write_model(o->out_path, model, size, err)
                                                              : vtrain_write_gguf(o->out_path, v, err);
    cmc_vocab_free(v);
    return st;
}

static cmc_status vtrain_run(const cmc_vocab_train_opts *o, vocab_text *x, void **model, cmc_vocab_train_result *r,
                             cmc_error *err) {
    bool unigram = false;
    size_t size = 0;
    CMC_TRY(vtrain_check(o, &unigram, err));
    for (size_t i = 0; i < o->n_data; i++) {
        CMC_TRY(vocab_text_read(x, o->data[i], o->t, err));
    }
    r->records = x->records;
    r->bytes = x->n;
    if (x->n_sentences == 0) {
        return cmc_fail(err, CMC_E_FORMAT, "%s: no text to learn a vocabulary from", o->data[0]);
    }
    CMC_TRY(vtrain_model(o, unigram, x, model, &size, err));
    return vtrain_write(o, *model, size, &r->tokens, err);
}

cmc_status cmc_vocab_train(const cmc_vocab_train_opts *opts, cmc_vocab_train_result *out, cmc_error *err) {
    double began = cmc_now();
    vocab_text x = {0};
    void *model = NULL;
    cmc_vocab_train_result r = {0};
    cmc_status st = vtrain_run(opts, &x, &model, &r, err);
    r.seconds = cmc_now() - began;
    if (out != NULL) {
        *out = r;
    }
    free(model);
    vocab_text_free(&x);
    return st;
}
