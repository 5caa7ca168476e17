/* The kinds of checks, in one table, and reading them. */
#include "eval/checks.h"
#include "eval/text_stats.h"

#define PCRE2_CODE_UNIT_WIDTH 8
#include <pcre2.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <utf8proc.h>

/* What a kind takes beside "kind": one of these, */
typedef enum check_needs { CHECK_NOTHING, CHECK_NUMBER, CHECK_TEXT, CHECK_WORDS, CHECK_PATTERN, CHECK_KEYS } check_needs;

/* What a check works on: the answer without white space around it, and the check's text; both case-folded where it says so. */
typedef struct check_in {
    const check *c;
    const char *s; size_t len;
    const char *text; size_t text_len;
} check_in;

typedef struct check_type {
    const char *name;
    check_needs needs;
    cmc_status (*passes)(const check_in *in, bool *out);
} check_type;

struct check {
    const check_type *type;
    size_t n;
    char *text; size_t text_len;
    bool ignore_case, whole_words;
    pcre2_code *pattern;
    json_t *keys;                      /* NULL: any JSON */
};

/* ------------------------------------------------------------------------------------------------------ counts */

static size_t check_count_lines(const char *s, size_t len) {
    size_t n = 0;
    bool text = false;
    for (size_t i = 0; i < len; i++) {
        n += text && s[i] == '\n';
        text = s[i] != '\n' && (text || !strchr(" \t\r", s[i]));
    }
    return n + text;
}

/* "- ", "* ", "+ ", a bullet, or a number and a point begin an item, after any indent. */
static bool check_is_item(const char *s, size_t len) {
    size_t i = 0;
    while (i < len && (s[i] == ' ' || s[i] == '\t'))
        i++;
    if (len - i >= 3 && memcmp(s + i, "\xe2\x80\xa2", 3) == 0)
        return true;
    size_t digits = 0;
    while (i + digits < len && s[i + digits] >= '0' && s[i + digits] <= '9')
        digits++;
    if (digits)
        return i + digits + 1 < len && (s[i + digits] == '.' || s[i + digits] == ')') && s[i + digits + 1] == ' ';
    return len - i >= 2 && strchr("-*+", s[i]) && s[i + 1] == ' ';
}

static size_t check_count_items(const char *s, size_t len) {
    size_t n = 0;
    for (size_t at = 0; at < len;) {
        const char *end = memchr(s + at, '\n', len - at);
        size_t line = end ? (size_t)(end - s) - at : len - at;
        n += check_is_item(s + at, line);
        at += line + 1;
    }
    return n;
}

static cmc_status check_is(bool passes, bool *out) {
    *out = passes;
    return CMC_OK;
}

#define CHECK_COUNT(name, count, compare) \
    static cmc_status check_##name(const check_in *in, bool *out) { return check_is(count(in->s, in->len) compare in->c->n, out); }
CHECK_COUNT(words, text_words, ==)
CHECK_COUNT(min_words, text_words, >=)
CHECK_COUNT(max_words, text_words, <=)
CHECK_COUNT(min_chars, text_chars, >=)
CHECK_COUNT(max_chars, text_chars, <=)
CHECK_COUNT(lines, check_count_lines, ==)
CHECK_COUNT(min_lines, check_count_lines, >=)
CHECK_COUNT(max_lines, check_count_lines, <=)
CHECK_COUNT(items, check_count_items, ==)

/* ------------------------------------------------------------------------------------------------------- texts */

/* Bytes of characters beyond ASCII count as parts of a word. */
static bool check_in_word(char c) {
    return ((unsigned char)c & 0x80) || (c >= '0' && c <= '9') || (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || c == '_';
}

static bool check_found(const check_in *in) {
    const char *s = in->s, *end = in->s + in->len;
    while ((s = memmem(s, (size_t)(end - s), in->text, in->text_len)) != NULL) {
        const char *after = s + in->text_len;
        bool inside = (s > in->s && check_in_word(s[-1]) && check_in_word(*s)) ||
                      (after < end && check_in_word(*after) && check_in_word(after[-1]));
        if (!in->c->whole_words || !inside)
            return true;
        s++;
    }
    return false;
}

static cmc_status check_contains(const check_in *in, bool *out) {
    return check_is(check_found(in), out);
}

static cmc_status check_excludes(const check_in *in, bool *out) {
    return check_is(!check_found(in), out);
}

static cmc_status check_starts_with(const check_in *in, bool *out) {
    return check_is(in->len >= in->text_len && memcmp(in->s, in->text, in->text_len) == 0, out);
}

static cmc_status check_ends_with(const check_in *in, bool *out) {
    return check_is(in->len >= in->text_len && memcmp(in->s + in->len - in->text_len, in->text, in->text_len) == 0, out);
}

static cmc_status check_equals(const check_in *in, bool *out) {
    return check_is(in->len == in->text_len && memcmp(in->s, in->text, in->len) == 0, out);
}

/* ------------------------------------------------------------------------------------------------------- forms */

/* True where no letter changes when the text is put into the other case. */
static bool check_one_case(const check_in *in, utf8proc_int32_t (*to)(utf8proc_int32_t)) {
    for (size_t i = 0; i < in->len;) {
        utf8proc_int32_t c;
        utf8proc_ssize_t n = utf8proc_iterate((const utf8proc_uint8_t *)in->s + i, (utf8proc_ssize_t)(in->len - i), &c);
        if (n > 0 && to(c) != c)
            return false;
        i += n > 0 ? (size_t)n : 1;
    }
    return true;
}

static cmc_status check_lowercase(const check_in *in, bool *out) {
    return check_is(check_one_case(in, utf8proc_tolower), out);
}

static cmc_status check_uppercase(const check_in *in, bool *out) {
    return check_is(check_one_case(in, utf8proc_toupper), out);
}

static cmc_status check_json(const check_in *in, bool *out) {
    json_error_t je;
    json_t *j = json_loadb(in->s, in->len, JSON_DECODE_ANY | JSON_ALLOW_NUL, &je), *key;
    size_t i;
    *out = j && (!in->c->keys || json_is_object(j));
    json_array_foreach(in->c->keys, i, key)
        *out = *out && json_object_get(j, json_string_value(key));
    json_decref(j);
    return CMC_OK;
}

static cmc_status check_regex(const check_in *in, bool *out) {
    pcre2_match_data *match = pcre2_match_data_create_from_pattern(in->c->pattern, NULL);
    if (!match)
        return CMC_E_NOMEM;
    int rc = pcre2_match(in->c->pattern, (PCRE2_SPTR)in->s, in->len, 0, 0, match, NULL);
    pcre2_match_data_free(match);
    return check_is(rc >= 0, out);     /* a pattern that backtracks beyond PCRE2's limit does not match */
}

/* ------------------------------------------------------------------------------------------------------- kinds */

static const check_type check_types[] = {
    {"words", CHECK_NUMBER, check_words},
    {"min_words", CHECK_NUMBER, check_min_words},
    {"max_words", CHECK_NUMBER, check_max_words},
    {"min_chars", CHECK_NUMBER, check_min_chars},
    {"max_chars", CHECK_NUMBER, check_max_chars},
    {"lines", CHECK_NUMBER, check_lines},
    {"min_lines", CHECK_NUMBER, check_min_lines},
    {"max_lines", CHECK_NUMBER, check_max_lines},
    {"items", CHECK_NUMBER, check_items},
    {"contains", CHECK_WORDS, check_contains},
    {"excludes", CHECK_WORDS, check_excludes},
    {"starts_with", CHECK_TEXT, check_starts_with},
    {"ends_with", CHECK_TEXT, check_ends_with},
    {"equals", CHECK_TEXT, check_equals},
    {"regex", CHECK_PATTERN, check_regex},
    {"json", CHECK_KEYS, check_json},
    {"lowercase", CHECK_NOTHING, check_lowercase},
    {"uppercase", CHECK_NOTHING, check_uppercase},
};
enum { CHECK_N_TYPES = sizeof check_types / sizeof *check_types };

/* Where the reader is, for messages. */
typedef struct check_place { size_t number; const char *kind; cmc_error *err; } check_place;

static cmc_status check_bad(const check_place *p, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
static cmc_status check_bad(const check_place *p, const char *fmt, ...) {
    char what[300];
    va_list ap;
    va_start(ap, fmt);
    vsnprintf(what, sizeof what, fmt, ap);
    va_end(ap);
    p->err->status = CMC_E_FORMAT;
    snprintf(p->err->message, sizeof p->err->message, "check %zu%s%.40s: %s", p->number, p->kind ? ", " : "",
             p->kind ? p->kind : "", what);
    return CMC_E_FORMAT;
}

static cmc_status check_no_memory(cmc_error *err) {
    *err = (cmc_error){CMC_E_NOMEM, "memory ran out for a check"};
    return CMC_E_NOMEM;
}

/* A copy of s; where `fold`, case-folded if it is UTF-8. */
static char *check_copy(const char *s, size_t n, bool fold, size_t *len) {
    utf8proc_uint8_t *folded = NULL;
    *len = n;
    if (fold && n) {
        utf8proc_ssize_t got = utf8proc_map((const utf8proc_uint8_t *)s, (utf8proc_ssize_t)n, &folded, UTF8PROC_CASEFOLD);
        if (got >= 0) {
            *len = (size_t)got;
            return (char *)folded;
        }
    }
    char *copy = malloc(n + 1);
    if (!copy)
        return NULL;
    if (n)
        memcpy(copy, s, n);
    copy[n] = '\0';
    return copy;
}

static cmc_status check_read_text(const check_place *p, const json_t *v, check *c) {
    if (!json_is_string(v) || json_string_length(v) == 0)
        return check_bad(p, "needs \"text\", a string that is not empty");
    c->text = check_copy(json_string_value(v), json_string_length(v), c->ignore_case, &c->text_len);
    return c->text ? CMC_OK : check_no_memory(p->err);
}

static cmc_status check_read_pattern(const check_place *p, const json_t *v, check *c) {
    int code;
    PCRE2_SIZE at;
    if (!json_is_string(v))
        return check_bad(p, "needs \"pattern\", a regular expression in quotes");
    c->pattern = pcre2_compile((PCRE2_SPTR)json_string_value(v), json_string_length(v),
                               PCRE2_UTF | PCRE2_UCP | (c->ignore_case ? PCRE2_CASELESS : 0u), &code, &at, NULL);
    if (c->pattern)
        return CMC_OK;
    PCRE2_UCHAR why[120];
    pcre2_get_error_message(code, why, sizeof why);
    return check_bad(p, "\"pattern\" is no regular expression: %s at byte %zu", (const char *)why, (size_t)at);
}

static cmc_status check_read_keys(const check_place *p, json_t *v, check *c) {
    if (!v)
        return CMC_OK;
    json_t *key;
    size_t i;
    bool strings = json_is_array(v);
    json_array_foreach(v, i, key)
        strings = strings && json_is_string(key);
    if (!strings)
        return check_bad(p, "\"keys\" is not a list of strings");
    c->keys = json_incref(v);
    return CMC_OK;
}

static cmc_status check_read_flag(const check_place *p, const json_t *o, const char *key, bool *out) {
    const json_t *v = json_object_get(o, key);
    *out = json_is_true(v);
    return !v || json_is_boolean(v) ? CMC_OK : check_bad(p, "\"%s\" is not true or false", key);
}

/* A key that the kind does not take would be a check that does not check. */
static cmc_status check_read_known(const check_place *p, const json_t *o, check_needs needs) {
    static const char *const takes[][4] = {
        [CHECK_NOTHING] = {NULL}, [CHECK_NUMBER] = {"n"}, [CHECK_TEXT] = {"text", "ignore_case"},
        [CHECK_WORDS] = {"text", "ignore_case", "whole_words"}, [CHECK_PATTERN] = {"pattern", "ignore_case"}, [CHECK_KEYS] = {"keys"}};
    const char *key;
    json_t *v;
    json_object_foreach((json_t *)(uintptr_t)o, key, v) {
        bool known = strcmp(key, "kind") == 0;
        for (const char *const *k = takes[needs]; *k && !known; k++)
            known = strcmp(key, *k) == 0;
        if (!known)
            return check_bad(p, "has no key \"%.40s\"", key);
    }
    return CMC_OK;
}

static cmc_status check_read_one(check_place *p, const json_t *o, check *c) {
    p->kind = json_string_value(json_object_get(o, "kind"));
    if (!p->kind)
        return check_bad(p, "needs \"kind\", a string");
    for (size_t i = 0; i < CHECK_N_TYPES && !c->type; i++)
        c->type = strcmp(check_types[i].name, p->kind) == 0 ? &check_types[i] : NULL;
    if (!c->type)
        return check_bad(p, "no such kind; docs/evaluation.md lists them");
    cmc_status st = check_read_known(p, o, c->type->needs);
    if (st == CMC_OK)
        st = check_read_flag(p, o, "ignore_case", &c->ignore_case);
    if (st == CMC_OK)
        st = check_read_flag(p, o, "whole_words", &c->whole_words);
    if (st != CMC_OK)
        return st;
    const json_t *n = json_object_get(o, "n");
    switch (c->type->needs) {
    case CHECK_NOTHING: return CMC_OK;
    case CHECK_NUMBER:
        if (!json_is_integer(n) || json_integer_value(n) < 0)
            return check_bad(p, "needs \"n\", a whole number of at least 0");
        c->n = (size_t)json_integer_value(n);
        return CMC_OK;
    case CHECK_TEXT:
    case CHECK_WORDS: return check_read_text(p, json_object_get(o, "text"), c);
    case CHECK_PATTERN: return check_read_pattern(p, json_object_get(o, "pattern"), c);
    case CHECK_KEYS: return check_read_keys(p, json_object_get(o, "keys"), c);
    }
    return CMC_OK;
}

cmc_status checks_read(const json_t *list, checks *out, cmc_error *err) {
    check_place p = {.err = err};
    cmc_status st = CMC_OK;
    if (!json_is_array(list)) {
        *err = (cmc_error){CMC_E_FORMAT, "\"checks\" is not a list of checks"};
        return CMC_E_FORMAT;
    }
    size_t n = json_array_size(list);
    out->v = calloc(n + 1, sizeof *out->v);
    if (!out->v)
        return check_no_memory(err);
    while (st == CMC_OK && out->n < n) {
        p = (check_place){.number = out->n + 1, .err = err};
        st = check_read_one(&p, json_array_get(list, out->n), &out->v[out->n]);
        out->n++;
    }
    if (st != CMC_OK)
        checks_free(out);
    return st;
}

void checks_free(checks *c) {
    for (size_t i = 0; i < c->n; i++) {
        free(c->v[i].text);
        pcre2_code_free(c->v[i].pattern);
        json_decref(c->v[i].keys);
    }
    free(c->v);
    *c = (checks){0};
}

const char *check_kind(const checks *c, size_t i) {
    return c->v[i].type->name;
}

cmc_status check_passes(const checks *c, size_t i, const char *text, size_t len, bool *passes) {
    const check *one = &c->v[i];
    char *folded = NULL;
    while (len > 0 && strchr(" \t\r\n", *text)) {
        text++;
        len--;
    }
    while (len > 0 && strchr(" \t\r\n", text[len - 1]))
        len--;
    if (one->text && one->ignore_case) {
        folded = check_copy(text, len, true, &len);
        if (!folded)
            return CMC_E_NOMEM;
        text = folded;
    }
    check_in in = {one, text, len, one->text, one->text_len};
    cmc_status st = one->type->passes(&in, passes);
    free(folded);
    return st;
}
