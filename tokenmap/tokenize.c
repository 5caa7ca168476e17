/* From text to ids: special tokens, invalid UTF-8, spaces before a text, and the two kinds of tokenizer. */
#include <stdlib.h>
#include <string.h>

#include "base/mem.h"
#include "base/utf8.h"
#include "tokenmap/hf.h"
#include "tokenmap/tok.h"
#include "tokenmap/words.h"

static const char REPLACEMENT[] = "\xef\xbf\xbd"; /* U+FFFD */

typedef struct tok_ctx {
    const cmc_vocab *v;
    bpe_scratch *scratch;     /* BPE only */
    words *words;             /* what is known of the text already, or NULL */
    cmc_ids *out;
    cmc_error *err;
} tok_ctx;

static bool tok_emit_word(void *user, const uint8_t *s, size_t n) {
    tok_ctx *c = user;
    if (c->words != NULL) {
        return words_encode(c->words, c->v, s, n, c->out, c->err) == CMC_OK;
    }
    return bpe_word(c->v, c->scratch, s, n, c->out);
}

/* Valid UTF-8, to its ids. */
static cmc_status tok_valid(tok_ctx *c, const char *s, size_t n, bool open, size_t *done) {
    *done = n;
    if (n == 0) {
        return CMC_OK;
    }
    if (c->v->model == VOCAB_SPM) {
        return c->words != NULL ? words_encode(c->words, c->v, (const uint8_t *)s, n, c->out, c->err)
                                : spm_encode(c->v, s, n, c->out, c->err);
    }
    return pretok_split(bpe_pretok(c->v->bpe), (const uint8_t *)s, n, open, tok_emit_word, c, done, c->err);
}

/* A byte that belongs to no character: its own token, else U+FFFD. Nothing is merged with it. */
static cmc_status tok_stray(tok_ctx *c, uint8_t byte) {
    size_t done;
    int32_t id = c->v->byte_token[byte];
    if (id < 0) {
        tok_ctx apart = *c;
        apart.words = NULL; /* it stands nowhere in the text */
        return tok_valid(&apart, REPLACEMENT, sizeof REPLACEMENT - 1, false, &done);
    }
    return cmc_ids_push(c->out, id) == CMC_OK ? CMC_OK : cmc_fail_nomem(c->err, "ids of a text", sizeof id);
}

/* Text without special tokens. */
static cmc_status tok_plain(tok_ctx *c, const char *s, size_t n, bool open, size_t *done) {
    const uint8_t *u = (const uint8_t *)s;
    size_t start = 0, d;
    if (!cmc_utf8_valid(u, n)) {
        for (size_t i = 0, len; i < n; i += len) {
            if (cmc_utf8_decode(u + i, n - i, &len) < 0) {
                len = 1;
                CMC_TRY(tok_valid(c, s + start, i - start, false, &d));
                CMC_TRY(tok_stray(c, u[i]));
                start = i + 1;
            }
        }
    }
    CMC_TRY(tok_valid(c, s + start, n - start, open, &d));
    *done = start + d;
    return CMC_OK;
}

/* The same with the space that SentencePiece models put before a text. */
static cmc_status tok_spaced(tok_ctx *c, const char *s, size_t n) {
    size_t done;
    char *spaced = cmc_alloc(n + 1, 1);
    if (spaced == NULL) {
        return cmc_fail_nomem(c->err, "a copy of a text", n + 1);
    }
    spaced[0] = ' ';
    memcpy(spaced + 1, s, n);
    cmc_status st = tok_plain(c, spaced, n + 1, false, &done);
    free(spaced);
    return st;
}

static cmc_status tok_part(tok_ctx *c, const char *s, size_t n, bool space) {
    size_t done;
    return n == 0 ? CMC_OK : space ? tok_spaced(c, s, n) : tok_plain(c, s, n, false, &done);
}

/* Length of the white space that s[0..n) begins with, as Unicode has it. */
static size_t tok_white(const uint8_t *s, size_t n) {
    size_t i = 0;
    for (size_t len; i < n; i += len) {
        if (!cmc_utf8_is_space(cmc_utf8_decode(s + i, n - i, &len))) {
            break;
        }
    }
    return i;
}

/* The space goes where llama.cpp puts it: before the text, and after every special token in it. In a text that
 * continues another it follows control tokens only, so that without these the ids stand for just the text's bytes; for
 * the same reason only they take white space along there. */
static cmc_status tok_specials(tok_ctx *c, const char *text, size_t n, tok_opts o, size_t *done) {
    const special_table *t = o.special ? &c->v->specials->all : &c->v->specials->user;
    const uint8_t *u = (const uint8_t *)text;
    bool spaces = c->v->model == VOCAB_SPM && c->v->add_space_prefix, space = spaces && !o.cont, at_end = false;
    size_t start = 0, i = 0, d = 0;
    while (i < n) {
        size_t len;
        int32_t id = t->first[u[i]] == t->first[u[i] + 1] ? -1 : specials_match(t, u + i, n - i, &len, &at_end);
        if (o.open && at_end) {
            break; /* what begins here may become a special token */
        }
        if (id < 0) {
            i++;
            continue;
        }
        CMC_TRY(tok_part(c, text + start, i - start, space));
        if (cmc_ids_push(c->out, id) != CMC_OK) {
            return cmc_fail_nomem(c->err, "ids of a text", n);
        }
        bool alters = !o.cont || c->v->kind[id] == CMC_KIND_CONTROL;
        space = spaces && alters;
        i += len;
        i += alters && specials_strips(c->v, id) ? tok_white(u + i, n - i) : 0;
        start = i;
    }
    if (!o.open) {
        *done = n;
        return tok_part(c, text + start, n - start, space);
    }
    CMC_TRY(tok_plain(c, text + start, i - start, true, &d));
    *done = start + d;
    return CMC_OK;
}

cmc_status tok_run(const cmc_vocab *v, const char *text, size_t n, tok_opts opts, cmc_ids *out, size_t *done,
                   cmc_error *err) {
    if (n > INT32_MAX / 4) {
        return cmc_fail(err, CMC_E_ARG, "a text of %zu bytes is too long to tokenise: at most %d", n, INT32_MAX / 4);
    }
    if (v->model == VOCAB_HF) {
        return hf_tokenize(v, text, n, opts, out, done, err);
    }
    tok_ctx c = {.v = v, .words = opts.words, .out = out, .err = err};
    if (v->model == VOCAB_BPE && (c.scratch = bpe_scratch_new()) == NULL) {
        return cmc_fail_nomem(err, "a tokenizer", 0);
    }
    cmc_status st = tok_specials(&c, text, n, opts, done);
    bpe_scratch_free(c.scratch);
    return st;
}

cmc_status cmc_tokenize(const cmc_vocab *v, const char *text, size_t len, unsigned flags, cmc_ids *out,
                        cmc_error *err) {
    size_t n = out->n, done;
    tok_opts opts = {.special = (flags & CMC_TOK_SPECIAL) != 0, .cont = (flags & CMC_TOK_CONTINUE) != 0};
    if ((flags & CMC_TOK_BOS) && !opts.cont && cmc_vocab_adds_bos(v) && cmc_ids_push(out, v->bos) != CMC_OK) {
        return cmc_fail_nomem(err, "ids of a text", len);
    }
    cmc_status st = tok_run(v, text, len, opts, out, &done, err);
    if (st != CMC_OK) {
        out->n = n; /* nothing half-changed */
    }
    return st;
}
