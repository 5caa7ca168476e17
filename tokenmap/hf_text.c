/* Texts in the making, the parts that patterns cut them to, and the properties of characters. */
#include <stdlib.h>
#include <string.h>
#include <utf8proc.h>

#include "base/error.h"
#include "base/mem.h"
#include "base/utf8.h"
#include "tokenmap/hf.h"

/* Normalisers can make a text longer, time and again: from here on there is no memory for it. */
static const size_t MAX_TEXT = INT32_MAX / 2;

bool hf_put(hf_text *t, const void *s, size_t n) {
    void *v = t->s;
    if (n > MAX_TEXT - t->n || !cmc_grow(&v, &t->cap, t->n + n, 1)) {
        return false;
    }
    t->s = v;
    if (n > 0) {
        memcpy(t->s + t->n, s, n);
    }
    t->n += n;
    return true;
}

bool hf_put_char(hf_text *t, int32_t cp) {
    uint8_t c[4];
    return hf_put(t, c, cmc_utf8_encode(cp, c));
}

void hf_swap(hf_text *a, hf_text *b) {
    hf_text t = *a;
    *a = *b;
    *b = t;
}

bool hf_spans_add(hf_spans *l, size_t begin, size_t end, bool match) {
    void *v = l->v;
    if (!cmc_grow(&v, &l->cap, l->n + 1, sizeof *l->v)) {
        return false;
    }
    l->v = v;
    l->v[l->n++] = (hf_span){begin, end, match};
    return true;
}

/* ------------------------------------------------------------------------------------------ characters */
int hf_category(int32_t cp) {
    return (int)utf8proc_category(cp);
}

bool hf_is_mark(int32_t cp) {
    int c = hf_category(cp);
    return c == UTF8PROC_CATEGORY_MN || c == UTF8PROC_CATEGORY_MC || c == UTF8PROC_CATEGORY_ME;
}

bool hf_is_number(int32_t cp) {
    int c = hf_category(cp);
    return c == UTF8PROC_CATEGORY_ND || c == UTF8PROC_CATEGORY_NL || c == UTF8PROC_CATEGORY_NO;
}

bool hf_is_punctuation(int32_t cp) {
    if (cp < 0x80) {
        return (cp >= '!' && cp <= '/') || (cp >= ':' && cp <= '@') || (cp >= '[' && cp <= '`') ||
               (cp >= '{' && cp <= '~');
    }
    int c = hf_category(cp);
    return c >= UTF8PROC_CATEGORY_PC && c <= UTF8PROC_CATEGORY_PO;
}

/* Alphabetic, marks, decimal digits, connector punctuation, and the two joiners. */
bool hf_is_word(int32_t cp) {
    int c = hf_category(cp);
    return (c >= UTF8PROC_CATEGORY_LU && c <= UTF8PROC_CATEGORY_LO) || hf_is_mark(cp) || c == UTF8PROC_CATEGORY_ND ||
           c == UTF8PROC_CATEGORY_NL || c == UTF8PROC_CATEGORY_PC || cp == 0x200c || cp == 0x200d ||
           (cp >= 0x24b6 && cp <= 0x24e9) || (cp >= 0x1f130 && cp <= 0x1f149) || (cp >= 0x1f150 && cp <= 0x1f169) ||
           (cp >= 0x1f170 && cp <= 0x1f189);
}

/* ------------------------------------------------------------------------------------------ patterns */
cmc_status hf_pattern_read(const hf_src *src, const json_t *o, const char *part, hf_pattern *out) {
    const json_t *p = json_object_get(o, "pattern");
    hf_str s, re;
    *out = (hf_pattern){0};
    if (!json_is_object(p)) {
        return hf_bad(src, part, "pattern", "{\"String\": ..} or {\"Regex\": ..}");
    }
    CMC_TRY(hf_opt_str(src, p, part, "String", &s));
    CMC_TRY(hf_opt_str(src, p, part, "Regex", &re));
    if ((s.s == NULL) == (re.s == NULL) || json_object_size(p) != 1) {
        return hf_bad(src, part, "pattern", "{\"String\": ..} or {\"Regex\": ..}");
    }
    if (re.s != NULL) {
        return regex_new(re.s, re.n, src->path, &out->re, src->err);
    }
    if (s.n == 0) {
        return hf_unknown(src, part, "an empty pattern");
    }
    out->literal = cmc_strndup(s.s, s.n);
    out->n = s.n;
    return out->literal == NULL ? cmc_fail_nomem(src->err, "a pattern", s.n) : CMC_OK;
}

void hf_pattern_free(hf_pattern *p) {
    free(p->literal);
    regex_free(p->re);
}

static size_t text_char(const uint8_t *s, size_t n) {
    size_t len = 1;
    if (n > 0) {
        cmc_utf8_decode(s, n, &len);
    }
    return len;
}

/* The next match that begins at *from or later, *last being where the one before ended. An empty match right after
 * another match does not count: the search goes on at the next character. */
static cmc_status pattern_next(const hf_pattern *p, regex_scratch *sc, const uint8_t *s, size_t n, size_t from,
                               size_t last, bool *found, hf_span *out, cmc_error *err) {
    *found = false;
    if (p->literal != NULL) {
        const uint8_t *at = from < n ? memmem(s + from, n - from, p->literal, p->n) : NULL;
        *found = at != NULL;
        if (*found) {
            out->begin = (size_t)(at - s);
            out->end = out->begin + p->n;
        }
        return CMC_OK;
    }
    while (from <= n) {
        CMC_TRY(regex_find(p->re, sc, s, n, from, found, &out->begin, &out->end, err));
        if (!*found || out->end > out->begin || out->end != last) {
            return CMC_OK;
        }
        from += text_char(s + from, n - from);
        *found = false;
    }
    return CMC_OK;
}

cmc_status hf_pattern_spans(const hf_pattern *p, regex_scratch *sc, const uint8_t *s, size_t n, hf_spans *out,
                            cmc_error *err) {
    size_t prev = 0, last = SIZE_MAX;
    bool found = true, ok = true;
    out->n = 0;
    for (;;) {
        hf_span m = {.match = true};
        CMC_TRY(pattern_next(p, sc, s, n, last == SIZE_MAX ? 0 : last, last, &found, &m, err));
        if (!found || !ok) {
            break;
        }
        ok = (prev == m.begin || hf_spans_add(out, prev, m.begin, false)) && hf_spans_add(out, m.begin, m.end, true);
        prev = last = m.end;
    }
    ok = ok && (prev == n || hf_spans_add(out, prev, n, false));
    return ok ? CMC_OK : cmc_fail_nomem(err, "the parts of a text", n);
}
