/* SentencePiece's precompiled normaliser: a double-array trie from characters to what replaces them. */
#include <stdlib.h>
#include <string.h>
#include <utf8proc.h>

#include "base/error.h"
#include "base/mem.h"
#include "base/utf8.h"
#include "tokenmap/hf.h"

struct hf_charsmap {
    uint32_t *unit;           /* Darts-clone's units */
    size_t n_units;
    const uint8_t *text;      /* replacements, each up to a NUL */
    size_t n_text;
    uint8_t *data;            /* what holds them */
};

static int charsmap_base64_digit(uint8_t c) {
    return c >= 'A' && c <= 'Z' ? c - 'A' : c >= 'a' && c <= 'z' ? c - 'a' + 26 : c >= '0' && c <= '9' ? c - '0' + 52
           : c == '+' ? 62 : c == '/' ? 63 : -1;
}

/* Decodes base64 with its padding; false where it is none. */
static bool charsmap_base64(hf_str in, uint8_t *out, size_t *n) {
    uint32_t bits = 0;
    size_t k = 0, len = in.n;
    if (len % 4 != 0) {
        return false;
    }
    for (int pad = 0; pad < 2 && len > 0 && in.s[len - 1] == '='; pad++) {
        len--;
    }
    for (size_t i = 0; i < len; i++) {
        int d = charsmap_base64_digit((uint8_t)in.s[i]);
        if (d < 0) {
            return false;
        }
        bits = bits << 6 | (uint32_t)d;
        if (i % 4 != 0) {
            out[k++] = (uint8_t)(bits >> (6 - 2 * (i % 4)));
        }
    }
    *n = k;
    return true;
}

static uint32_t charsmap_u32(const uint8_t *p) {
    return (uint32_t)p[0] | (uint32_t)p[1] << 8 | (uint32_t)p[2] << 16 | (uint32_t)p[3] << 24;
}

/* The trie's size in bytes, its units, the texts. */
static cmc_status charsmap_parse(const hf_src *src, hf_charsmap *c, size_t n) {
    size_t size = n >= 4 ? charsmap_u32(c->data) : 0;
    if (n < 4 || size == 0 || size % 4 != 0 || size > n - 4 || !cmc_utf8_valid(c->data + 4 + size, n - 4 - size)) {
        return hf_bad(src, "normalizer Precompiled", "precompiled_charsmap", "a trie and its texts in base64");
    }
    c->n_units = size / 4;
    c->unit = cmc_alloc(c->n_units, sizeof *c->unit);
    if (c->unit == NULL) {
        return cmc_fail_nomem(src->err, "a normaliser", size);
    }
    for (size_t i = 0; i < c->n_units; i++) {
        c->unit[i] = charsmap_u32(c->data + 4 + 4 * i);
    }
    c->text = c->data + 4 + size;
    c->n_text = n - 4 - size;
    return CMC_OK;
}

cmc_status hf_charsmap_new(const hf_src *src, hf_str base64, hf_charsmap **out) {
    hf_charsmap *c = cmc_calloc(1, sizeof *c);
    size_t n = 0;
    *out = NULL;
    if (c == NULL || (c->data = cmc_alloc(base64.n / 4 * 3 + 3, 1)) == NULL) {
        free(c);
        return cmc_fail_nomem(src->err, "a normaliser", base64.n);
    }
    cmc_status st = charsmap_base64(base64, c->data, &n)
                        ? charsmap_parse(src, c, n)
                        : hf_bad(src, "normalizer Precompiled", "precompiled_charsmap", "base64");
    if (st != CMC_OK) {
        hf_charsmap_free(c);
        return st;
    }
    *out = c;
    return CMC_OK;
}

void hf_charsmap_free(hf_charsmap *c) {
    if (c != NULL) {
        free(c->unit);
        free(c->data);
        free(c);
    }
}

static size_t charsmap_offset(uint32_t unit) {
    return (unit >> 10) << ((unit & 0x200) >> 6);
}

/* What stands for the shortest beginning of s[0..n) that the trie has: this is what the package takes, even for a
 * longer s. False where there is none. */
static bool charsmap_find(const hf_charsmap *c, const uint8_t *s, size_t n, const uint8_t **out, size_t *len) {
    size_t node = charsmap_offset(c->unit[0]);
    for (size_t i = 0; i < n && s[i] != 0; i++) {
        node ^= s[i];
        if (node >= c->n_units || (c->unit[node] & 0x800000ff) != s[i]) {
            return false;
        }
        uint32_t unit = c->unit[node];
        node ^= charsmap_offset(unit);
        if (unit >> 8 & 1) {
            size_t at = node < c->n_units ? c->unit[node] & 0x7fffffff : SIZE_MAX;
            if (at >= c->n_text) {
                return false;
            }
            const uint8_t *end = memchr(c->text + at, 0, c->n_text - at);
            *out = c->text + at;
            *len = (size_t)((end != NULL ? end : c->text + c->n_text) - *out);
            return cmc_utf8_valid(*out, *len); /* an offset may lie within a character */
        }
    }
    return false;
}

/* One grapheme: as a whole where it is short, else character by character. */
static bool charsmap_grapheme(const hf_charsmap *c, const uint8_t *s, size_t n, hf_text *out) {
    enum { SHORT = 6 };
    const uint8_t *r;
    size_t k;
    if (n < SHORT && charsmap_find(c, s, n, &r, &k)) {
        return hf_put(out, r, k);
    }
    for (size_t i = 0, len; i < n; i += len) {
        cmc_utf8_decode(s + i, n - i, &len);
        bool ok = charsmap_find(c, s + i, len, &r, &k) ? hf_put(out, r, k) : hf_put(out, s + i, len);
        if (!ok) {
            return false;
        }
    }
    return true;
}

bool hf_charsmap_run(const hf_charsmap *c, const hf_text *in, hf_text *out) {
    size_t begin = 0;
    int32_t before = -1;
    utf8proc_int32_t state = 0;
    out->n = out->head = 0;
    for (size_t i = 0, len; i <= in->n; i += len) {
        int32_t cp = i < in->n ? cmc_utf8_decode(in->s + i, in->n - i, &len) : -1;
        if (before >= 0 && (cp < 0 || utf8proc_grapheme_break_stateful(before, cp, &state))) {
            if (!charsmap_grapheme(c, in->s + begin, i - begin, out)) {
                return false;
            }
            /* Where the first grapheme goes, the next takes its place. */
            bool first = begin < in->head || (in->head > 0 && out->head == 0);
            out->head = first ? out->n : out->head;
            begin = i;
        }
        if (cp < 0) {
            break;
        }
        before = cp;
    }
    return true;
}
