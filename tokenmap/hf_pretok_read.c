/* Pre-tokenizers, read to a flat list of steps. */
#include <stdlib.h>
#include <string.h>

#include "base/error.h"
#include "base/mem.h"
#include "tokenmap/hf_pretok.h"

static const char GPT2[] = "'s|'t|'re|'ve|'m|'ll|'d| ?\\p{L}+| ?\\p{N}+| ?[^\\s\\p{L}\\p{N}]+|\\s+(?!\\S)|\\s+";

static cmc_status pretok_behavior_read(const hf_src *src, const json_t *o, const char *part, bool needed,
                                       pretok_behavior *out) {
    static const char *const names[] = {"Isolated", "Removed", "MergedWithPrevious", "MergedWithNext", "Contiguous"};
    hf_str s;
    CMC_TRY(hf_opt_str(src, o, part, "behavior", &s));
    *out = PRETOK_ISOLATED;
    if (s.s == NULL && !needed) {
        return CMC_OK;
    }
    for (size_t i = 0; s.s != NULL && i < sizeof names / sizeof *names; i++) {
        if (hf_is(s, names[i])) {
            *out = (pretok_behavior)i;
            return CMC_OK;
        }
    }
    return hf_bad(src, part, "behavior",
                  "one of Isolated, Removed, MergedWithPrevious, MergedWithNext and Contiguous");
}

static cmc_status pretok_byte_level(const hf_src *src, const json_t *o, pretok_step *s) {
    static const char part[] = "pre_tokenizer ByteLevel";
    bool space = true, cut = true;
    CMC_TRY(hf_get_bool(src, o, part, "add_prefix_space", &space));
    CMC_TRY(hf_opt_bool(src, o, part, "use_regex", &cut));
    s->prepend = space ? PRETOK_ALWAYS : PRETOK_NEVER;
    return cut ? regex_new(GPT2, sizeof GPT2 - 1, src->path, &s->pattern.re, src->err) : CMC_OK;
}

/* Files from before prepend_scheme say add_prefix_space instead. */
static cmc_status pretok_metaspace(const hf_src *src, const json_t *o, pretok_step *s) {
    static const char part[] = "pre_tokenizer Metaspace";
    static const char *const names[] = {[PRETOK_NEVER] = "never", [PRETOK_FIRST] = "first", [PRETOK_ALWAYS] = "always"};
    hf_str scheme;
    bool space = true;
    s->split = true;
    CMC_TRY(hf_get_char(src, o, part, "replacement", &s->character));
    CMC_TRY(hf_opt_str(src, o, part, "prepend_scheme", &scheme));
    CMC_TRY(hf_opt_bool(src, o, part, "add_prefix_space", &space));
    CMC_TRY(hf_opt_bool(src, o, part, "split", &s->split));
    s->behavior = PRETOK_MERGED_WITH_NEXT;
    s->prepend = space ? PRETOK_ALWAYS : PRETOK_NEVER;
    if (scheme.s == NULL) {
        return CMC_OK;
    }
    for (size_t i = 0; i < sizeof names / sizeof *names; i++) {
        if (hf_is(scheme, names[i])) {
            s->prepend = (pretok_prepend)i;
            bool agree = space || s->prepend == PRETOK_NEVER;
            return agree ? CMC_OK : hf_bad(src, part, "add_prefix_space", "what prepend_scheme says");
        }
    }
    return hf_bad(src, part, "prepend_scheme", "always, first or never");
}

static cmc_status pretok_fields(const hf_src *src, const json_t *o, pretok_step *s) {
    bool individual = false;
    switch (s->kind) {
    case PRETOK_BYTE_LEVEL: return pretok_byte_level(src, o, s);
    case PRETOK_METASPACE: return pretok_metaspace(src, o, s);
    case PRETOK_SPLIT:
        CMC_TRY(hf_pattern_read(src, o, "pre_tokenizer Split", &s->pattern));
        CMC_TRY(hf_get_bool(src, o, "pre_tokenizer Split", "invert", &s->invert));
        return pretok_behavior_read(src, o, "pre_tokenizer Split", true, &s->behavior);
    case PRETOK_DIGITS:
        CMC_TRY(hf_get_bool(src, o, "pre_tokenizer Digits", "individual_digits", &individual));
        s->behavior = individual ? PRETOK_ISOLATED : PRETOK_CONTIGUOUS;
        return CMC_OK;
    case PRETOK_PUNCTUATION: return pretok_behavior_read(src, o, "pre_tokenizer Punctuation", false, &s->behavior);
    case PRETOK_DELIMITER:
        s->behavior = PRETOK_REMOVED;
        return hf_get_char(src, o, "pre_tokenizer CharDelimiterSplit", "delimiter", &s->character);
    case PRETOK_FIXED_LENGTH: {
        const json_t *n = json_object_get(o, "length");
        json_int_t length = n == NULL ? 5 : json_is_integer(n) ? json_integer_value(n) : 0;
        s->length = length > 0 ? (size_t)length : 0;
        return length > 0 ? CMC_OK : hf_bad(src, "pre_tokenizer FixedLength", "length", "a number from 1");
    }
    default: s->behavior = PRETOK_REMOVED; return CMC_OK; /* spaces */
    }
}

static cmc_status pretok_add(const hf_src *src, const json_t *o, pretok_kind_hf kind, hf_pretok *out) {
    void *v = out->step;
    if (!cmc_grow(&v, &out->cap, out->n + 1, sizeof *out->step)) {
        return cmc_fail_nomem(src->err, "a pre-tokenizer", 0);
    }
    out->step = v;
    out->step[out->n++] = (pretok_step){.kind = kind};
    return pretok_fields(src, o, &out->step[out->n - 1]);
}

static cmc_status pretok_read(const hf_src *src, const json_t *o, int depth, hf_pretok *out) {
    static const char *const names[] = {
        [PRETOK_BYTE_LEVEL] = "ByteLevel",        [PRETOK_METASPACE] = "Metaspace",
        [PRETOK_SPLIT] = "Split",                 [PRETOK_DIGITS] = "Digits",
        [PRETOK_PUNCTUATION] = "Punctuation",     [PRETOK_WHITESPACE] = "Whitespace",
        [PRETOK_WHITESPACE_SPLIT] = "WhitespaceSplit", [PRETOK_DELIMITER] = "CharDelimiterSplit",
        [PRETOK_FIXED_LENGTH] = "FixedLength",
    };
    hf_str type;
    CMC_TRY(hf_get_type(src, o, "pre_tokenizer", &type));
    if (depth > HF_MAX_DEPTH || out->n >= HF_MAX_PARTS) {
        return hf_unknown(src, "pre_tokenizer", "a Sequence of so many parts");
    }
    if (hf_is(type, "Sequence")) {
        const json_t *list;
        CMC_TRY(hf_get_list(src, o, "pre_tokenizer Sequence", "pretokenizers", &list));
        for (size_t i = 0; i < json_array_size(list); i++) {
            CMC_TRY(pretok_read(src, json_array_get(list, i), depth + 1, out));
        }
        return CMC_OK;
    }
    if (hf_is(type, "BertPreTokenizer")) {
        CMC_TRY(pretok_add(src, o, PRETOK_WHITESPACE_SPLIT, out));
        CMC_TRY(pretok_add(src, o, PRETOK_PUNCTUATION, out));
        return CMC_OK;
    }
    for (size_t i = 0; i < sizeof names / sizeof *names; i++) {
        if (hf_is(type, names[i])) {
            return pretok_add(src, o, (pretok_kind_hf)i, out);
        }
    }
    return hf_unknown(src, "pre_tokenizer", type.s);
}

cmc_status hf_pretok_new(const hf_src *src, const json_t *o, hf_pretok **out) {
    *out = NULL;
    if (o == NULL || json_is_null(o)) {
        return CMC_OK;
    }
    hf_pretok *p = cmc_calloc(1, sizeof *p);
    if (p == NULL) {
        return cmc_fail_nomem(src->err, "a pre-tokenizer", sizeof *p);
    }
    cmc_status st = pretok_read(src, o, 0, p);
    if (st != CMC_OK) {
        hf_pretok_free(p);
        return st;
    }
    *out = p;
    return CMC_OK;
}

void hf_pretok_free(hf_pretok *p) {
    if (p != NULL) {
        for (size_t i = 0; i < p->n; i++) {
            hf_pattern_free(&p->step[i].pattern);
        }
        free(p->step);
        free(p);
    }
}

bool hf_pretok_byte_level(const hf_pretok *p) {
    for (size_t i = 0; p != NULL && i < p->n; i++) {
        if (p->step[i].kind == PRETOK_BYTE_LEVEL) {
            return true;
        }
    }
    return false;
}

int32_t hf_pretok_metaspace(const hf_pretok *p) {
    for (size_t i = 0; p != NULL && i < p->n; i++) {
        if (p->step[i].kind == PRETOK_METASPACE) {
            return p->step[i].character;
        }
    }
    return 0;
}
