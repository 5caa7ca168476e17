/* Vocabularies: building them from tokens, and everything that is asked of them. */
#include <stdlib.h>
#include <string.h>

#include "base/error.h"
#include "base/mem.h"
#include "base/utf8.h"
#include "tokenmap/hf.h"
#include "tokenmap/tok.h"
#include "tokenmap/vocab_build.h"

static const char SPACE_MARK[] = "\xe2\x96\x81"; /* U+2581, SentencePiece's spelling of a space */

cmc_status vocab_new(const char *path, vocab_model model, uint64_t n, uint64_t spell_bytes, cmc_vocab **out,
                     cmc_error *err) {
    *out = NULL;
    if (n == 0 || n > INT32_MAX - 1 || spell_bytes > UINT32_MAX) {
        return cmc_fail(err, CMC_E_FORMAT,
                        "%s: %llu tokens of %llu bytes: a vocabulary has from 1 to 2^31-2 tokens, under 4 GiB", path,
                        (unsigned long long)n, (unsigned long long)spell_bytes);
    }
    cmc_vocab *v = cmc_calloc(1, sizeof *v);
    if (v == NULL) {
        return cmc_fail_nomem(err, "a vocabulary", sizeof *v);
    }
    v->path = cmc_strndup(path, strlen(path));
    v->model = model;
    v->marked = model == VOCAB_SPM;
    v->n = (int32_t)n;
    v->bos = v->eos = v->eot = v->pad = v->unk = -1;
    v->spell = cmc_alloc(spell_bytes, 1);
    v->spell_off = cmc_calloc(n + 1, sizeof *v->spell_off);
    v->bytes = cmc_alloc(spell_bytes, 1); /* a token's bytes are never longer than its spelling */
    v->byte_off = cmc_calloc(n + 1, sizeof *v->byte_off);
    v->kind = cmc_calloc(n, 1);
    v->roles = cmc_calloc(n, 1);
    v->is_end = cmc_calloc(n, 1);
    v->score = cmc_calloc(model == VOCAB_SPM ? n : 1, sizeof *v->score);
    memset(v->byte_token, 0xff, sizeof v->byte_token);
    if (v->path == NULL || v->spell == NULL || v->spell_off == NULL || v->bytes == NULL || v->byte_off == NULL ||
        v->kind == NULL || v->roles == NULL || v->is_end == NULL || v->score == NULL) {
        cmc_vocab_free(v);
        return cmc_fail_nomem(err, "a vocabulary", (size_t)(spell_bytes * 2 + n * 16));
    }
    *out = v;
    return CMC_OK;
}

void vocab_set_token(cmc_vocab *v, int32_t i, const char *spelling, size_t len, cmc_token_kind kind) {
    uint32_t at = v->spell_off[i];
    if (len > 0) {
        memcpy(v->spell + at, spelling, len);
    }
    v->spell_off[i + 1] = at + (uint32_t)len;
    v->kind[i] = (uint8_t)kind;
}

int vocab_byte_spelling(const char *s, size_t n) {
    static const char hex[] = "0123456789ABCDEF";
    if (n != 6 || memcmp(s, "<0x", 3) != 0 || s[5] != '>') {
        return -1;
    }
    const char *hi = memchr(hex, s[3], 16), *lo = memchr(hex, s[4], 16);
    return hi == NULL || lo == NULL ? -1 : (int)(hi - hex) * 16 + (int)(lo - hex);
}

/* ▁ becomes a space; anything else stays. Returns the length. */
static size_t vocab_bytes_spm(const char *s, size_t n, uint8_t *out) {
    size_t k = 0;
    for (size_t i = 0; i < n;) {
        if (n - i >= 3 && memcmp(s + i, SPACE_MARK, 3) == 0) {
            out[k++] = ' ';
            i += 3;
        } else {
            out[k++] = (uint8_t)s[i++];
        }
    }
    return k;
}

/* Characters of the GPT-2 alphabet become their bytes; a spelling with any other character stands for itself. */
static size_t vocab_bytes_bpe(const char *s, size_t n, uint8_t *out) {
    size_t k = 0;
    for (size_t i = 0, len; i < n; i += len) {
        int b = bpe_char_byte(cmc_utf8_decode((const uint8_t *)s + i, n - i, &len));
        if (b < 0) {
            memcpy(out, s, n);
            return n;
        }
        out[k++] = (uint8_t)b;
    }
    return k;
}

static cmc_status vocab_derive_bytes(cmc_vocab *v, cmc_error *err) {
    for (int32_t i = 0; i < v->n; i++) {
        const char *s = v->spell + v->spell_off[i];
        size_t n = v->spell_off[i + 1] - v->spell_off[i], k = 0;
        uint8_t *out = v->bytes + v->byte_off[i];
        if (v->kind[i] == CMC_KIND_BYTE) {
            int b = vocab_byte_spelling(s, n);
            if (b < 0) {
                return cmc_fail(err, CMC_E_FORMAT, "%s: token %d is a byte token but spelled \"%.*s\", not like <0x0A>",
                                v->path, i, (int)(n < 40 ? n : 40), s);
            }
            out[k++] = (uint8_t)b;
        } else if (v->hf != NULL && (v->kind[i] == CMC_KIND_NORMAL || v->kind[i] == CMC_KIND_USER)) {
            k = hf_decode_token(&v->hf->decode, (cmc_token_kind)v->kind[i], s, n, out);
        } else if (v->kind[i] == CMC_KIND_NORMAL && !v->marked) {
            k = vocab_bytes_bpe(s, n, out);
        } else if (v->kind[i] == CMC_KIND_USER && !v->marked) {
            memcpy(out, s, n); /* added tokens are spelled as they are */
            k = n;
        } else if (v->kind[i] == CMC_KIND_NORMAL || v->kind[i] == CMC_KIND_USER) {
            k = vocab_bytes_spm(s, n, out);
        }
        v->byte_off[i + 1] = v->byte_off[i] + (uint32_t)k;
    }
    return CMC_OK;
}

/* The tokens of kind byte; with byte-level BPE the normal tokens of one byte. The lowest id where there are several. */
static void vocab_derive_byte_tokens(cmc_vocab *v) {
    uint8_t want = v->marked ? CMC_KIND_BYTE : CMC_KIND_NORMAL;
    for (int32_t i = v->n - 1; i >= 0; i--) {
        if (v->kind[i] == want && v->byte_off[i + 1] - v->byte_off[i] == 1) {
            v->byte_token[v->bytes[v->byte_off[i]]] = i;
        }
    }
}

cmc_status vocab_finish(cmc_vocab *v, int32_t eom, cmc_error *err) {
    vocab_roles_fix_kinds(v);
    CMC_TRY(vocab_derive_bytes(v, err));
    vocab_derive_byte_tokens(v);
    CMC_TRY(specials_build(v, err));
    vocab_roles_assign(v, eom);
    return CMC_OK;
}

cmc_status cmc_vocab_open(const char *path, cmc_vocab **out, cmc_error *err) {
    *out = NULL;
    cmc_file f;
    CMC_TRY(cmc_file_map(path, &f, err));
    if (f.size >= 4 && memcmp(f.data, "GGUF", 4) == 0) {
        cmc_file_unmap(&f);
        gguf *g;
        CMC_TRY(gguf_open(path, &g, err));
        cmc_status st = vocab_from_gguf(g, out, err);
        gguf_free(g);
        return st;
    }
    cmc_status st = hf_is_object(f.data, f.size) ? vocab_from_hf(f.data, f.size, path, out, err)
                                                 : vocab_from_spm_model(f.data, f.size, path, out, err);
    cmc_file_unmap(&f);
    return st;
}

void cmc_vocab_free(cmc_vocab *v) {
    if (v == NULL) {
        return;
    }
    free(v->path);
    free(v->bytes);
    free(v->byte_off);
    free(v->spell);
    free(v->spell_off);
    free(v->kind);
    free(v->roles);
    free(v->is_end);
    free(v->score);
    free(v->chat_template);
    spm_free(v->spm);
    bpe_free(v->bpe);
    hf_free(v->hf);
    specials_free(v->specials);
    free(v);
}

static bool vocab_has(const cmc_vocab *v, int32_t id) {
    return id >= 0 && id < v->n;
}

int32_t cmc_vocab_size(const cmc_vocab *v) {
    return v->n;
}

const char *cmc_vocab_kind_name(const cmc_vocab *v) {
    if (v->unigram || (v->hf != NULL && v->hf->unigram != NULL)) {
        return "unigram";
    }
    return v->model == VOCAB_SPM ? "spm" : "bpe";
}

const uint8_t *cmc_vocab_bytes(const cmc_vocab *v, int32_t id, size_t *len) {
    if (!vocab_has(v, id)) {
        *len = 0;
        return v->bytes;
    }
    *len = v->byte_off[id + 1] - v->byte_off[id];
    return v->bytes + v->byte_off[id];
}

const char *cmc_vocab_spelling(const cmc_vocab *v, int32_t id, size_t *len) {
    if (!vocab_has(v, id)) {
        *len = 0;
        return v->spell;
    }
    *len = v->spell_off[id + 1] - v->spell_off[id];
    return v->spell + v->spell_off[id];
}

cmc_token_kind cmc_vocab_kind(const cmc_vocab *v, int32_t id) {
    return vocab_has(v, id) ? (cmc_token_kind)v->kind[id] : CMC_KIND_UNUSED;
}

unsigned cmc_vocab_roles(const cmc_vocab *v, int32_t id) {
    return vocab_has(v, id) ? v->roles[id] : 0;
}

int32_t cmc_vocab_role_token(const cmc_vocab *v, unsigned role) {
    const struct {
        unsigned role;
        int32_t id;
    } known[] = {
        {CMC_ROLE_BOS, v->bos}, {CMC_ROLE_EOS, v->eos}, {CMC_ROLE_EOT, v->eot},
        {CMC_ROLE_PAD, v->pad}, {CMC_ROLE_UNK, v->unk},
    };
    for (size_t i = 0; i < sizeof known / sizeof *known; i++) {
        if (known[i].role == role) {
            return known[i].id;
        }
    }
    return -1;
}

bool cmc_vocab_is_end(const cmc_vocab *v, int32_t id) {
    return vocab_has(v, id) && v->is_end[id] != 0;
}

int32_t cmc_vocab_find_special(const cmc_vocab *v, const char *spelling) {
    return specials_find(&v->specials->all, spelling, strlen(spelling));
}

bool cmc_vocab_adds_bos(const cmc_vocab *v) {
    return v->add_bos && v->bos >= 0;
}

bool cmc_vocab_equal(const cmc_vocab *a, const cmc_vocab *b) {
    if (a == b) {
        return true;
    }
    size_t n = (size_t)a->n;
    return a->n == b->n && memcmp(a->kind, b->kind, n) == 0 &&
           memcmp(a->byte_off, b->byte_off, (n + 1) * sizeof *a->byte_off) == 0 &&
           memcmp(a->spell_off, b->spell_off, (n + 1) * sizeof *a->spell_off) == 0 &&
           memcmp(a->bytes, b->bytes, a->byte_off[n]) == 0 && memcmp(a->spell, b->spell, a->spell_off[n]) == 0;
}

const char *cmc_vocab_chat_template(const cmc_vocab *v) {
    return v->chat_template;
}
