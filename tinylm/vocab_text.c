/* Records and texts as sentences for SentencePiece's trainer.
 *
 * A record is rendered with a vocabulary of bytes and the template's control tokens: cmc_render's ids are then the very
 * bytes that a tokenizer sees, with the places where it starts anew, at control tokens and at responses. */
#include "tinylm/vocab_text.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

#include "base/mem.h"
#include "base/utf8.h"
#include "tokenmap/tok.h"
#include "tokenmap/vocab_build.h"

const char *const *vocab_text_control(cmc_template t) {
    static const char *const none[] = {NULL}, *const chatml[] = {"<|im_start|>", "<|im_end|>", NULL},
                      *const llama3[] = {"<|start_header_id|>", "<|end_header_id|>", "<|eot_id|>", NULL},
                      *const gemma[] = {"<start_of_turn>", "<end_of_turn>", NULL},
                      *const zephyr[] = {"<|system|>", "<|user|>", "<|assistant|>", NULL};
    switch (t) {
    case CMC_TMPL_CHATML: return chatml;
    case CMC_TMPL_LLAMA3: return llama3;
    case CMC_TMPL_GEMMA: return gemma;
    case CMC_TMPL_ZEPHYR: return zephyr;
    default: return none;
    }
}

void vocab_text_free(vocab_text *x) {
    free(x->v);
    free(x->len);
    *x = (vocab_text){0};
}

/* ------------------------------------------------------------------------------------------------ sentences */

static cmc_status text_sentence(vocab_text *x, const uint8_t *s, size_t n, cmc_error *err) {
    void *v = x->v, *len = x->len;
    if (n == 0) {
        return CMC_OK;
    }
    bool ok = cmc_grow(&v, &x->cap, x->n + n, 1);
    x->v = v;
    ok = ok && cmc_grow(&len, &x->cap_sentences, x->n_sentences + 1, sizeof *x->len);
    x->len = len;
    if (!ok) {
        return cmc_fail_nomem(err, "the text to learn a vocabulary from", x->n + n);
    }
    memcpy(x->v + x->n, s, n);
    x->n += n;
    x->len[x->n_sentences++] = (uint32_t)n;
    return CMC_OK;
}

/* Characters that no piece has: the trainer's own signs for a border and for the unknown, NUL, and stray bytes. They
 * stay bytes, and pieces are learnt on either side of them. */
static bool text_is_border(int32_t cp) {
    return cp < 0 || cp == 0 || cp == '\t' || cp == 0x2585;
}

/* Cuts a text at borders, and into parts that are short enough, before a space where there is one: pieces begin with a
 * space or have none, so nothing is lost there. (The trainer keeps positions in 16 bits.) */
static cmc_status text_add(vocab_text *x, const uint8_t *s, size_t n, cmc_error *err) {
    size_t begin = 0, space = 0;
    for (size_t i = 0, len; i < n; i += len) {
        int32_t cp = cmc_utf8_decode(s + i, n - i, &len);
        if (text_is_border(cp)) {
            len = cp < 0 ? 1 : len;
            CMC_TRY(text_sentence(x, s + begin, i - begin, err));
            begin = i + len;
        } else if (i + len - begin > VOCAB_TEXT_SENTENCE) {
            size_t cut = space > begin ? space : i;
            CMC_TRY(text_sentence(x, s + begin, cut - begin, err));
            begin = cut;
        }
        space = cp == ' ' ? i : space;
    }
    return text_sentence(x, s + begin, n - begin, err);
}

/* ------------------------------------------------------------------------------------------------- records */

/* A token for every byte, beside BOS, EOS and the template's control tokens. */
static cmc_status text_byte_vocab(cmc_template t, cmc_vocab **out, cmc_error *err) {
    enum { MAX_CONTROL = 8, SPELL_BYTES = MAX_CONTROL * 32 + 256 * 6 };
    const char *control[MAX_CONTROL] = {"<s>", "</s>"};
    int32_t n = 2;
    for (const char *const *c = vocab_text_control(t); *c != NULL; c++) {
        control[n++] = *c;
    }
    CMC_TRY(vocab_new("bytes", VOCAB_SPM, (uint64_t)n + 256, SPELL_BYTES, out, err));
    cmc_vocab *v = *out;
    for (int32_t i = 0; i < n; i++) {
        vocab_set_token(v, i, control[i], strlen(control[i]), CMC_KIND_CONTROL);
    }
    for (int32_t b = 0; b < 256; b++) {
        char spelling[8];
        snprintf(spelling, sizeof spelling, "<0x%02X>", (unsigned)b);
        vocab_set_token(v, n + b, spelling, 6, CMC_KIND_BYTE);
    }
    v->add_bos = true;
    CMC_TRY(vocab_finish(v, -1, err));
    return spm_new(v, err);
}

static bool text_begins_response(const cmc_rendered *r, size_t i) {
    for (size_t k = 0; k < r->n_spans; k++) {
        if (r->spans[k].first == i) {
            return true;
        }
    }
    return false;
}

/* The bytes between control tokens, prompts and responses apart, as they are tokenised apart. */
static cmc_status text_rendered(vocab_text *x, const cmc_vocab *v, const cmc_rendered *r, uint8_t *run,
                                cmc_error *err) {
    size_t n = 0;
    for (size_t i = 0; i < r->ids.n; i++) {
        size_t len;
        const uint8_t *byte = cmc_vocab_bytes(v, r->ids.v[i], &len);
        if (len == 0 || text_begins_response(r, i)) {
            CMC_TRY(text_add(x, run, n, err));
            n = 0;
        }
        if (len > 0) {
            run[n++] = *byte;
        }
    }
    return text_add(x, run, n, err);
}

static cmc_status text_record(vocab_text *x, const cmc_vocab *v, cmc_template t, const cmc_record *rec, cmc_error *err) {
    cmc_rendered r = {0};
    uint8_t *run = NULL;
    if (rec->text != NULL) { /* a bare text begins no response at its second byte */
        return text_add(x, (const uint8_t *)rec->text, rec->text_len, err);
    }
    cmc_status st = cmc_render(v, t, rec, false, &r, err);
    if (st == CMC_OK && (run = cmc_alloc(r.ids.n, 1)) == NULL) {
        st = cmc_fail_nomem(err, "a record", r.ids.n);
    }
    if (st == CMC_OK) {
        st = text_rendered(x, v, &r, run, err);
    }
    free(run);
    cmc_rendered_free(&r);
    return st;
}

static cmc_status text_records(vocab_text *x, const char *path, cmc_template t, cmc_error *err) {
    cmc_records r = {0};
    cmc_vocab *v = NULL;
    cmc_status st = cmc_records_read(path, false, &r, err);
    if (st == CMC_OK) {
        st = text_byte_vocab(t, &v, err);
    }
    for (size_t i = 0; i < r.n && st == CMC_OK; i++) {
        st = text_record(x, v, t, &r.v[i], err);
    }
    x->records += r.n;
    cmc_vocab_free(v);
    cmc_records_free(&r);
    return st;
}

static bool text_named(const char *path, const char *end) {
    size_t n = strlen(path), k = strlen(end);
    return n > k && strcasecmp(path + n - k, end) == 0;
}

cmc_status vocab_text_read(vocab_text *x, const char *path, cmc_template t, cmc_error *err) {
    if (text_named(path, ".jsonl") || text_named(path, ".json") || text_named(path, ".ndjson")) {
        return text_records(x, path, t, err);
    }
    cmc_file f = {0};
    CMC_TRY(cmc_file_map(path, &f, err));
    size_t mark = f.size >= 3 && memcmp(f.data, "\xef\xbb\xbf", 3) == 0 ? 3 : 0;
    cmc_status st = f.size > mark ? text_add(x, f.data + mark, f.size - mark, err)
                                  : cmc_fail(err, CMC_E_FORMAT, "%s: is empty, expected a text", path);
    cmc_file_unmap(&f);
    return st;
}
