/* Normalisers that work on characters: Unicode's normal forms by utf8proc, lower case, marks, and Nmt. */
#include <stdlib.h>
#include <string.h>
#include <utf8proc.h>

#include "base/error.h"
#include "base/utf8.h"
#include "tokenmap/hf.h"

static bool unicode_ascii(const hf_text *t) {
    for (size_t i = 0; i < t->n; i++) {
        if (t->s[i] >= 0x80) {
            return false;
        }
    }
    return true;
}

static bool unicode_form(hf_form form, const uint8_t *s, size_t n, hf_text *out) {
    static const utf8proc_option_t options[] = {
        [HF_NFC] = UTF8PROC_STABLE | UTF8PROC_COMPOSE,
        [HF_NFD] = UTF8PROC_STABLE | UTF8PROC_DECOMPOSE,
        [HF_NFKC] = UTF8PROC_STABLE | UTF8PROC_COMPOSE | UTF8PROC_COMPAT,
        [HF_NFKD] = UTF8PROC_STABLE | UTF8PROC_DECOMPOSE | UTF8PROC_COMPAT,
    };
    utf8proc_uint8_t *r = NULL;
    utf8proc_ssize_t len = utf8proc_map(s, (utf8proc_ssize_t)n, &r, options[form]);
    bool ok = len >= 0 && hf_put(out, r, (size_t)len);
    free(r);
    return ok;
}

/* What the first character became is told by normalising it alone, but for what it was composed with. */
cmc_status hf_unicode_form(hf_form form, const hf_text *in, hf_text *out, cmc_error *err) {
    size_t len = 0;
    bool ok = true;
    out->n = out->head = 0;
    if (unicode_ascii(in)) {
        ok = hf_put(out, in->s, in->n);
        out->head = in->head;
    } else {
        hf_text first = {0};
        ok = unicode_form(form, in->s, in->n, out) && unicode_form(form, in->s, in->head, &first);
        if (ok && in->head > 0 && out->n > 0) {
            cmc_utf8_decode(out->s, out->n, &len);
            bool same = first.n > 0 && first.n <= out->n && memcmp(first.s, out->s, first.n) == 0;
            out->head = same ? first.n : len;
        }
        free(first.s);
    }
    return ok ? CMC_OK : cmc_fail_nomem(err, "a normalised text", in->n);
}

/* Gives each character of a text to `f`, which appends what it becomes, and keeps count of the head. */
static bool unicode_each(const hf_text *in, hf_text *out, bool (*f)(int32_t cp, hf_text *out)) {
    out->n = out->head = 0;
    for (size_t i = 0, len; i < in->n; i += len) {
        int32_t cp = cmc_utf8_decode(in->s + i, in->n - i, &len);
        size_t before = out->n;
        if (!f(cp, out)) {
            return false;
        }
        /* Where the first character goes, the second does not take its place. */
        out->head = i < in->head && out->head == before ? out->n : out->head;
    }
    return true;
}

static bool unicode_lower(int32_t cp, hf_text *out) {
    if (cp == 0x130) { /* the one character whose lower case is two */
        return hf_put_char(out, 'i') && hf_put_char(out, 0x307);
    }
    return hf_put_char(out, utf8proc_tolower(cp));
}

bool hf_lowercase(const hf_text *in, hf_text *out) {
    return unicode_each(in, out, unicode_lower);
}

static bool unicode_no_mark(int32_t cp, hf_text *out) {
    return hf_is_mark(cp) || hf_put_char(out, cp);
}

bool hf_strip_accents(const hf_text *in, hf_text *out) {
    return unicode_each(in, out, unicode_no_mark);
}

/* The rules of Google's neural machine translation. */
static bool unicode_nmt(int32_t cp, hf_text *out) {
    if ((cp >= 1 && cp <= 8) || cp == 0xb || (cp >= 0xe && cp <= 0x1f) || cp == 0x7f || cp == 0x8f || cp == 0x9f) {
        return true;
    }
    bool space = cp == 9 || cp == 0xa || cp == 0xc || cp == 0xd || cp == 0x1680 || (cp >= 0x200b && cp <= 0x200f) ||
                 cp == 0x2028 || cp == 0x2029 || cp == 0x2581 || cp == 0xfeff || cp == 0xfffd;
    return hf_put_char(out, space ? ' ' : cp);
}

bool hf_nmt(const hf_text *in, hf_text *out) {
    return unicode_each(in, out, unicode_nmt);
}
