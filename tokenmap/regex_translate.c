/* From Oniguruma's Ruby syntax to PCRE2's. Classes are spelled out, so that \s, \w and \d mean what Unicode says they
 * do (PCRE2's \s has U+180E too, and its \w other characters), and scripts are asked for as such. */
#include <stdlib.h>
#include <string.h>

#include "base/error.h"
#include "base/mem.h"
#include "base/utf8.h"
#include "tokenmap/regex.h"
#include "tokenmap/regex_space.h"

/* Alphabetic, marks, decimal digits and connector punctuation; the ranges are the symbols that are alphabetic, and the
 * superscripts and fractions of Latin-1, which Oniguruma counts too. */
#define WORD                                                                                                           \
    "\\p{L}\\p{M}\\p{Nl}\\p{Nd}\\p{Pc}\\x{24b6}-\\x{24e9}\\x{1f130}-\\x{1f149}\\x{1f150}-\\x{1f169}"                   \
    "\\x{1f170}-\\x{1f189}\\xb2\\xb3\\xb9\\xbc-\\xbe"

enum { MAX_DEPTH = 100, MAX_PATTERN = 65536 };

typedef struct translator {
    const uint8_t *start, *p, *end;
    const char *path;
    cmc_error *err;
    char *out;
    size_t n, cap;
    int32_t last;      /* the literal before, within (?i: ): 0 where there is none */
    int depth;
} translator;

static cmc_status rx_refuse(const translator *t, const uint8_t *at, size_t len, const char *why) {
    size_t left = (size_t)(t->end - at);
    return cmc_fail(t->err, CMC_E_UNSUPPORTED, "%s: regular expression \"%.*s\": \"%.*s\" at byte %zu %s", t->path,
                    (int)(t->end - t->start < 120 ? t->end - t->start : 120), (const char *)t->start,
                    (int)(len < left ? len : left), (const char *)at, (size_t)(at - t->start), why);
}

static cmc_status rx_unknown(const translator *t, const uint8_t *at, size_t len) {
    return rx_refuse(t, at, len, "is no construct that cmc translates");
}

static cmc_status rx_put(translator *t, const char *s, size_t n) {
    void *v = t->out;
    bool ok = cmc_grow(&v, &t->cap, t->n + n + 1, 1);
    t->out = v;
    if (!ok) {
        return cmc_fail_nomem(t->err, "a regular expression", n);
    }
    memcpy(t->out + t->n, s, n);
    t->n += n;
    t->out[t->n] = '\0';
    return CMC_OK;
}

static cmc_status rx_puts(translator *t, const char *s) {
    return rx_put(t, s, strlen(s));
}

static bool rx_alnum(int32_t c) {
    return (c >= '0' && c <= '9') || (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z');
}

static cmc_status rx_put_literal(translator *t, int32_t c) {
    static const char hex[] = "0123456789abcdef";
    uint8_t buf[4];
    if (c < 0x20 || c == 0x7f) {
        return rx_put(t, (const char[]){'\\', 'x', hex[c >> 4], hex[c & 15]}, 4);
    }
    if (c < 0x80 && !rx_alnum(c)) {
        return rx_put(t, (const char[]){'\\', (char)c}, 2);
    }
    return rx_put(t, (const char *)buf, cmc_utf8_encode(c, buf));
}

static bool rx_at(const translator *t, const char *s) {
    size_t n = strlen(s);
    return (size_t)(t->end - t->p) >= n && memcmp(t->p, s, n) == 0;
}

/* ------------------------------------------------------------------------------------------------ properties */
static const char *const CATEGORIES[] = {
    "C",  "Cc", "Cf", "Cn", "Co", "Cs", "L",  "Ll", "Lm", "Lo", "Lt", "Lu", "M",  "Mc", "Me", "Mn", "N",  "Nd", "Nl",
    "No", "P",  "Pc", "Pd", "Pe", "Pf", "Pi", "Po", "Ps", "S",  "Sc", "Sk", "Sm", "So", "Z",  "Zl", "Zp", "Zs",
};
static const char *const SCRIPTS[] = {
    "Arabic",  "Armenian", "Bengali",   "Bopomofo",  "Cyrillic", "Devanagari", "Ethiopic", "Georgian", "Greek",
    "Gujarati", "Gurmukhi", "Han",      "Hangul",    "Hebrew",   "Hiragana",   "Kannada",  "Katakana", "Khmer",
    "Lao",     "Latin",    "Malayalam", "Mongolian", "Myanmar",  "Oriya",      "Sinhala",  "Tamil",    "Telugu",
    "Thai",    "Tibetan",
};

static bool rx_listed(const char *const *list, size_t n, const char *name) {
    for (size_t i = 0; i < n; i++) {
        if (strcmp(list[i], name) == 0) {
            return true;
        }
    }
    return false;
}

/* \p{..} and \P{..}, p after the letter. Categories are the same in both; a script alone means, in PCRE2 since 10.40,
 * the characters that may be used with it. */
static cmc_status rx_property(translator *t, const uint8_t *at, bool negated, bool icase) {
    char name[16] = "";
    const uint8_t *close = t->p < t->end && *t->p == '{' ? memchr(t->p, '}', (size_t)(t->end - t->p)) : NULL;
    const uint8_t *from = t->p + 1;
    if (close == NULL) {
        return rx_unknown(t, at, 3);
    }
    size_t whole = (size_t)(close + 1 - at);
    if (from < close && *from == '^') {
        negated = !negated;
        from++;
    }
    size_t n = (size_t)(close - from);
    if (n == 0 || n >= sizeof name) {
        return rx_unknown(t, at, whole);
    }
    memcpy(name, from, n);
    bool script = rx_listed(SCRIPTS, sizeof SCRIPTS / sizeof *SCRIPTS, name);
    if (!script && !rx_listed(CATEGORIES, sizeof CATEGORIES / sizeof *CATEGORIES, name)) {
        return rx_unknown(t, at, whole);
    }
    if (icase && name[0] == 'L' && n == 2 && strchr("ult", name[1]) != NULL) {
        return rx_refuse(t, at, whole, "is not translated where case is ignored");
    }
    t->p = close + 1;
    CMC_TRY(rx_puts(t, negated ? "\\P{" : "\\p{"));
    CMC_TRY(rx_puts(t, script ? "sc:" : ""));
    CMC_TRY(rx_puts(t, name));
    return rx_puts(t, "}");
}

/* --------------------------------------------------------------------------------------------- escapes */
static int rx_hex(uint8_t c) {
    return c >= '0' && c <= '9'   ? c - '0'
           : c >= 'a' && c <= 'f' ? c - 'a' + 10
           : c >= 'A' && c <= 'F' ? c - 'A' + 10
                                  : -1;
}

/* Reads up to `max` hex digits. */
static int32_t rx_number(translator *t, size_t min, size_t max) {
    int32_t v = 0;
    size_t n = 0;
    for (; n < max && t->p < t->end && rx_hex(*t->p) >= 0; n++) {
        v = v * 16 + rx_hex(*t->p++);
    }
    return n < min ? -1 : v;
}

/* \x41, \x{4e00}, \u4e00, p after the letter; in \x alone 80 and more would be a byte of a character. */
static int32_t rx_code_point(translator *t, uint8_t letter) {
    int32_t cp;
    if (letter == 'u') {
        cp = rx_number(t, 4, 4);
    } else if (t->p < t->end && *t->p == '{') {
        t->p++;
        cp = rx_number(t, 1, 6);
        if (t->p == t->end || *t->p++ != '}') {
            return -1;
        }
    } else {
        cp = rx_number(t, 1, 2);
        cp = cp >= 0x80 ? -1 : cp;
    }
    return cp > 0x10ffff || (cp >= 0xd800 && cp < 0xe000) ? -1 : cp;
}

/* An escape that stands for one character: p after it and the character; -1 (p unchanged) for any other. */
static int32_t rx_escaped_char(translator *t) {
    static const char from[] = "nrtfvae", to[] = "\n\r\t\f\v\a\x1b";
    const uint8_t *save = t->p;
    uint8_t c = t->p[1];
    const char *k = strchr(from, c);
    size_t len;
    int32_t cp = -1;
    if (c != 0 && k != NULL) {
        t->p += 2;
        return to[k - from];
    }
    if (c == 'x' || c == 'u') {
        t->p += 2;
        cp = rx_code_point(t, c);
    } else if (!rx_alnum(c)) {
        t->p++;
        cp = cmc_utf8_decode(t->p, (size_t)(t->end - t->p), &len);
        t->p += len;
    }
    t->p = cp < 0 ? save : t->p;
    return cp;
}

/* --------------------------------------------------------------------------------------------- classes */
static cmc_status rx_class_set(translator *t, bool icase) {
    const uint8_t *at = t->p;
    uint8_t c = t->p[1];
    t->p += 2;
    switch (c) {
    case 's': return rx_puts(t, WS);
    case 'S': return rx_puts(t, NOT_WS);
    case 'd': return rx_puts(t, "\\p{Nd}");
    case 'D': return rx_puts(t, "\\P{Nd}");
    case 'w': return rx_puts(t, WORD);
    case 'h': return rx_puts(t, "0-9a-fA-F");
    case 'p':
    case 'P': return rx_property(t, at, c == 'P', icase);
    default: t->p = at; return rx_refuse(t, at, 2, "within [ ] is no construct that cmc translates");
    }
}

/* One character of a class, -1 where a set begins; refuses what would begin a class within the class. */
static cmc_status rx_class_char(translator *t, bool icase, int32_t *out) {
    const uint8_t *at = t->p;
    size_t len;
    if (t->p == t->end) {
        return rx_refuse(t, t->start, 1, "has a [ without its ]");
    }
    if (*t->p == '[' || rx_at(t, "&&")) {
        return rx_refuse(t, at, 2, "within [ ] would be a class within the class, which cmc does not translate");
    }
    if (*t->p == '\\') {
        if (t->end - t->p < 2) {
            return rx_unknown(t, at, 1);
        }
        *out = rx_escaped_char(t);
        if (*out < 0 && t->p[1] == 'b') {
            *out = '\b';
            t->p += 2;
        }
    } else {
        *out = cmc_utf8_decode(t->p, (size_t)(t->end - t->p), &len);
        t->p += len;
    }
    if (icase && *out >= 0x80) {
        return rx_refuse(t, at, (size_t)(t->p - at), "is not translated where case is ignored");
    }
    return CMC_OK;
}

/* A character, a range or a set. */
static cmc_status rx_class_item(translator *t, bool icase) {
    const uint8_t *at = t->p;
    int32_t lo, hi;
    CMC_TRY(rx_class_char(t, icase, &lo));
    if (lo < 0) {
        CMC_TRY(rx_class_set(t, icase));
    } else {
        CMC_TRY(rx_put_literal(t, lo));
    }
    if (t->end - t->p < 2 || *t->p != '-' || t->p[1] == ']') {
        return CMC_OK;
    }
    t->p++;
    CMC_TRY(rx_class_char(t, icase, &hi));
    if (lo < 0 || hi < lo) {
        return rx_refuse(t, at, (size_t)(t->p - at), "is no range from a character to a later one");
    }
    CMC_TRY(rx_puts(t, "-"));
    return rx_put_literal(t, hi);
}

static cmc_status rx_class(translator *t, bool icase) {
    const uint8_t *at = t->p++;
    CMC_TRY(rx_puts(t, "["));
    if (t->p < t->end && *t->p == '^') {
        t->p++;
        CMC_TRY(rx_puts(t, "^"));
    }
    if (t->p < t->end && *t->p == ']') {
        return rx_unknown(t, at, 2);
    }
    while (t->p < t->end && *t->p != ']') {
        CMC_TRY(rx_class_item(t, icase));
    }
    if (t->p == t->end) {
        return rx_refuse(t, at, 1, "is a [ without its ]");
    }
    t->p++;
    return rx_puts(t, "]");
}

/* --------------------------------------------------------------------------------------------- atoms */
typedef enum atom { ATOM_NONE, ATOM_TEXT, ATOM_ANCHOR } atom;

/* Where case is ignored, Oniguruma folds some characters to two: "ss" would match U+00DF. */
static cmc_status rx_literal(translator *t, const uint8_t *at, int32_t c, bool icase) {
    static const char *const folds[] = {"ss", "ff", "fi", "fl", "st"};
    int32_t low = c >= 'A' && c <= 'Z' ? c + 32 : c;
    if (icase && c >= 0x80) {
        return rx_refuse(t, at, (size_t)(t->p - at), "is not translated where case is ignored");
    }
    for (size_t i = 0; icase && i < sizeof folds / sizeof *folds; i++) {
        if (t->last == folds[i][0] && low == folds[i][1]) {
            return rx_refuse(t, at - 1, 2, "is not translated where case is ignored");
        }
    }
    t->last = low;
    return rx_put_literal(t, c);
}

static cmc_status rx_escape(translator *t, bool icase, atom *kind) {
    const uint8_t *at = t->p;
    if (t->end - t->p < 2) {
        return rx_unknown(t, at, 1);
    }
    int32_t cp = rx_escaped_char(t);
    *kind = ATOM_TEXT;
    if (cp >= 0) {
        return rx_literal(t, at, cp, icase);
    }
    uint8_t c = t->p[1];
    t->last = 0;
    t->p += 2;
    switch (c) {
    case 's': return rx_puts(t, "[" WS "]");
    case 'S': return rx_puts(t, "[^" WS "]");
    case 'd': return rx_puts(t, "\\p{Nd}");
    case 'D': return rx_puts(t, "\\P{Nd}");
    case 'w': return rx_puts(t, "[" WORD "]");
    case 'W': return rx_puts(t, "[^" WORD "]");
    case 'h': return rx_puts(t, "[0-9a-fA-F]");
    case 'H': return rx_puts(t, "[^0-9a-fA-F]");
    case 'p':
    case 'P': return rx_property(t, at, c == 'P', icase);
    default: break;
    }
    *kind = ATOM_ANCHOR;
    switch (c) {
    case 'b': return rx_puts(t, "(?:(?<=[" WORD "])(?![" WORD "])|(?<![" WORD "])(?=[" WORD "]))");
    case 'B': return rx_puts(t, "(?:(?<=[" WORD "])(?=[" WORD "])|(?<![" WORD "])(?![" WORD "]))");
    case 'A': return rx_puts(t, "\\A");
    case 'z': return rx_puts(t, "\\z");
    case 'Z': return rx_puts(t, "\\Z");
    default: t->p = at; return rx_unknown(t, at, 2);
    }
}

static cmc_status rx_alternatives(translator *t, bool icase);

/* The letters between "(?" and ":" or ")". Ruby's m is what others call s. */
static cmc_status rx_flags(translator *t, const uint8_t *at, bool *icase) {
    bool on = true;
    CMC_TRY(rx_puts(t, "(?"));
    for (; t->p < t->end && *t->p != ':' && *t->p != ')'; t->p++) {
        if (*t->p == '-' && on) {
            on = false;
            CMC_TRY(rx_puts(t, "-"));
        } else if (*t->p == 'i') {
            *icase = on;
            CMC_TRY(rx_puts(t, "i"));
        } else if (*t->p == 'm') {
            CMC_TRY(rx_puts(t, "s"));
        } else {
            return rx_unknown(t, at, (size_t)(t->p - at) + 1);
        }
    }
    return t->p < t->end ? CMC_OK : rx_refuse(t, at, 1, "is a ( without its )");
}

/* "(" and what tells its kind. `first`: nothing stands before it in its group, so that (?i) means the same in both. */
static cmc_status rx_group(translator *t, bool icase, bool first, atom *kind) {
    static const char *const kinds[] = {"(?<=", "(?<!", "(?=", "(?!", "(?:", "(?>"};
    enum { N_LOOK = 4, N_KINDS = 6 };
    const uint8_t *at = t->p;
    *kind = ATOM_TEXT;
    t->last = 0;
    if (++t->depth > MAX_DEPTH) {
        return rx_refuse(t, at, 1, "nests too deep");
    }
    size_t k = 0;
    while (k < N_KINDS && !rx_at(t, kinds[k])) {
        k++;
    }
    if (k < N_KINDS) {
        t->p += strlen(kinds[k]);
        *kind = k < N_LOOK ? ATOM_ANCHOR : ATOM_TEXT;
        CMC_TRY(rx_puts(t, kinds[k]));
    } else if (rx_at(t, "(?")) {
        t->p += 2;
        CMC_TRY(rx_flags(t, at, &icase));
        bool rest = *t->p++ == ')';
        CMC_TRY(rx_puts(t, rest ? ")" : ":"));
        if (rest && !first) {
            return rx_refuse(t, at, (size_t)(t->p - at), "in the midst of a group means different things; use (?i:..)");
        }
        if (rest) { /* up to the end of the group this stands in */
            *kind = ATOM_NONE;
            CMC_TRY(rx_alternatives(t, icase));
            t->depth--;
            return CMC_OK;
        }
    } else if (rx_at(t, "(*")) {
        return rx_unknown(t, at, 2);
    } else {
        t->p++;
        CMC_TRY(rx_puts(t, "(?:")); /* nothing refers back to a group */
    }
    CMC_TRY(rx_alternatives(t, icase));
    t->depth--;
    t->last = 0;
    if (t->p == t->end) {
        return rx_refuse(t, at, 1, "is a ( without its )");
    }
    t->p++;
    return rx_puts(t, ")");
}

/* --------------------------------------------------------------------------------------------- repeats */
static bool rx_count(const uint8_t **p, const uint8_t *end, bool *any) {
    const uint8_t *start = *p;
    while (*p < end && **p >= '0' && **p <= '9') {
        ++*p;
    }
    *any = *p > start;
    return *p - start <= 5;
}

/* "{n}", "{n,}", "{n,m}", "{,m}": its length and whether it is of the first form; 0 where "{" is a character. */
static size_t rx_interval(const translator *t, bool *fixed, bool *no_low) {
    const uint8_t *p = t->p + 1;
    bool low, high = false;
    if (!rx_count(&p, t->end, &low) || p == t->end) {
        return 0;
    }
    *fixed = *p != ',';
    if (!*fixed) {
        p++;
        if (!rx_count(&p, t->end, &high)) {
            return 0;
        }
    }
    *no_low = !low;
    return p < t->end && *p == '}' && (low || high) ? (size_t)(p + 1 - t->p) : 0;
}

static bool rx_repeats(const translator *t) {
    bool fixed, no_low;
    return t->p < t->end && (strchr("*+?", *t->p) != NULL || (*t->p == '{' && rx_interval(t, &fixed, &no_low) > 0));
}

/* What follows an atom. Ruby takes {n}? and {n,m}+ for repeats of repeats. */
static cmc_status rx_repeat(translator *t, atom kind) {
    const uint8_t *at = t->p;
    bool fixed = false, no_low = false;
    if (!rx_repeats(t)) {
        return CMC_OK;
    }
    if (kind != ATOM_TEXT) {
        return rx_refuse(t, at, 1, "repeats nothing");
    }
    bool interval = *t->p == '{';
    t->last = 0;
    if (interval) {
        size_t n = rx_interval(t, &fixed, &no_low);
        CMC_TRY(rx_puts(t, no_low ? "{0" : "{"));
        CMC_TRY(rx_put(t, (const char *)t->p + 1, n - 1));
        t->p += n;
    } else {
        CMC_TRY(rx_put(t, (const char *)t->p++, 1));
    }
    if (t->p < t->end && ((*t->p == '?' && !fixed) || (*t->p == '+' && !interval))) {
        CMC_TRY(rx_put(t, (const char *)t->p++, 1));
    }
    return rx_repeats(t) ? rx_refuse(t, at, (size_t)(t->p - at) + 1, "is a repeat of a repeat") : CMC_OK;
}

static cmc_status rx_atom(translator *t, bool icase, bool first, atom *kind) {
    const uint8_t *at = t->p;
    size_t len;
    *kind = ATOM_TEXT;
    switch (*t->p) {
    case '\\': return rx_escape(t, icase, kind);
    case '(': return rx_group(t, icase, first, kind);
    case '[': t->last = 0; return rx_class(t, icase);
    case '.': t->p++; t->last = 0; return rx_puts(t, ".");
    case '^': t->p++; t->last = 0; *kind = ATOM_ANCHOR; return rx_puts(t, "(?m:^)");
    case '$': t->p++; t->last = 0; *kind = ATOM_ANCHOR; return rx_puts(t, "(?m:$)");
    default: break;
    }
    int32_t c = cmc_utf8_decode(t->p, (size_t)(t->end - t->p), &len);
    t->p += len;
    return rx_literal(t, at, c, icase);
}

/* Up to the ")" that closes the group, or the end. */
static cmc_status rx_alternatives(translator *t, bool icase) {
    bool first = true;
    atom kind = ATOM_NONE;
    while (t->p < t->end && *t->p != ')') {
        if (*t->p == '|') {
            t->p++;
            t->last = 0;
            kind = ATOM_NONE;
            first = false;
            CMC_TRY(rx_puts(t, "|"));
            continue;
        }
        if (rx_repeats(t)) {
            return rx_refuse(t, t->p, 1, "repeats nothing");
        }
        CMC_TRY(rx_atom(t, icase, first, &kind));
        first = false;
        if (kind != ATOM_NONE) {
            CMC_TRY(rx_repeat(t, kind));
        }
    }
    return CMC_OK;
}

cmc_status regex_translate(const char *pattern, size_t n, const char *path, char **out, cmc_error *err) {
    translator t = {.start = (const uint8_t *)pattern, .path = path, .err = err};
    t.p = t.start;
    t.end = t.start + n;
    *out = NULL;
    if (n == 0 || n > MAX_PATTERN || memchr(pattern, 0, n) != NULL || !cmc_utf8_valid(t.start, n)) {
        return cmc_fail(err, CMC_E_UNSUPPORTED, "%s: a regular expression of %zu bytes; from 1 to %d of UTF-8 are read",
                        path, n, MAX_PATTERN);
    }
    cmc_status st = rx_alternatives(&t, false);
    if (st == CMC_OK && t.p < t.end) {
        st = rx_refuse(&t, t.p, 1, "closes no group");
    }
    if (st != CMC_OK) {
        free(t.out);
        return st;
    }
    *out = t.out;
    return CMC_OK;
}
