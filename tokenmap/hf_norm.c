/* Normalisers: read to a flat list of steps, and run in order. */
#include <stdlib.h>
#include <string.h>

#include "base/error.h"
#include "base/mem.h"
#include "base/utf8.h"
#include "tokenmap/hf.h"

typedef enum norm_kind {
    NORM_NFC, NORM_NFD, NORM_NFKC, NORM_NFKD, NORM_LOWERCASE, NORM_STRIP_ACCENTS, NORM_NMT, NORM_BYTE_LEVEL,
    NORM_STRIP, NORM_PREPEND, NORM_REPLACE, NORM_PRECOMPILED
} norm_kind;

static const char *const NORM_NAMES[] = {
    "NFC", "NFD", "NFKC", "NFKD", "Lowercase", "StripAccents", "Nmt", "ByteLevel",
    "Strip", "Prepend", "Replace", "Precompiled",
};

typedef struct norm_step {
    norm_kind kind;
    bool left, right;         /* Strip */
    hf_pattern pattern;       /* Replace */
    char *text;               /* Prepend, Replace */
    size_t n_text;
    hf_charsmap *charsmap;
} norm_step;

struct hf_norm {
    norm_step *step;
    size_t n, cap;
};

/* ------------------------------------------------------------------------------------------------- reading */
static cmc_status norm_text(const hf_src *src, const json_t *o, const char *part, const char *key, norm_step *s) {
    hf_str str;
    CMC_TRY(hf_get_str(src, o, part, key, &str));
    s->text = cmc_strndup(str.s, str.n);
    s->n_text = str.n;
    return s->text == NULL ? cmc_fail_nomem(src->err, "a normaliser", str.n) : CMC_OK;
}

static cmc_status norm_fields(const hf_src *src, const json_t *o, norm_step *s) {
    hf_str str;
    switch (s->kind) {
    case NORM_STRIP:
        CMC_TRY(hf_opt_bool(src, o, "normalizer Strip", "strip_left", &s->left));
        return hf_opt_bool(src, o, "normalizer Strip", "strip_right", &s->right);
    case NORM_PREPEND: return norm_text(src, o, "normalizer Prepend", "prepend", s);
    case NORM_REPLACE:
        CMC_TRY(hf_pattern_read(src, o, "normalizer Replace", &s->pattern));
        return norm_text(src, o, "normalizer Replace", "content", s);
    case NORM_PRECOMPILED:
        CMC_TRY(hf_get_str(src, o, "normalizer Precompiled", "precompiled_charsmap", &str));
        return hf_charsmap_new(src, str, &s->charsmap);
    default: return CMC_OK;
    }
}

static cmc_status norm_read(const hf_src *src, const json_t *o, int depth, hf_norm *out);

static cmc_status norm_sequence(const hf_src *src, const json_t *o, int depth, hf_norm *out) {
    const json_t *list;
    CMC_TRY(hf_get_list(src, o, "normalizer Sequence", "normalizers", &list));
    for (size_t i = 0; i < json_array_size(list); i++) {
        CMC_TRY(norm_read(src, json_array_get(list, i), depth + 1, out));
    }
    return CMC_OK;
}

static cmc_status norm_read(const hf_src *src, const json_t *o, int depth, hf_norm *out) {
    hf_str type;
    CMC_TRY(hf_get_type(src, o, "normalizer", &type));
    if (depth > HF_MAX_DEPTH || out->n >= HF_MAX_PARTS) {
        return hf_unknown(src, "normalizer", "a Sequence of so many parts");
    }
    if (hf_is(type, "Sequence")) {
        return norm_sequence(src, o, depth, out);
    }
    size_t k = 0;
    while (k < sizeof NORM_NAMES / sizeof *NORM_NAMES && !hf_is(type, NORM_NAMES[k])) {
        k++;
    }
    if (k == sizeof NORM_NAMES / sizeof *NORM_NAMES) {
        return hf_unknown(src, "normalizer", type.s);
    }
    void *v = out->step;
    if (!cmc_grow(&v, &out->cap, out->n + 1, sizeof *out->step)) {
        return cmc_fail_nomem(src->err, "a normaliser", 0);
    }
    out->step = v;
    norm_step *s = &out->step[out->n++];
    *s = (norm_step){.kind = (norm_kind)k};
    return norm_fields(src, o, s);
}

cmc_status hf_norm_new(const hf_src *src, const json_t *o, hf_norm **out) {
    *out = NULL;
    if (o == NULL || json_is_null(o)) {
        return CMC_OK;
    }
    hf_norm *n = cmc_calloc(1, sizeof *n);
    if (n == NULL) {
        return cmc_fail_nomem(src->err, "a normaliser", sizeof *n);
    }
    cmc_status st = norm_read(src, o, 0, n);
    if (st != CMC_OK) {
        hf_norm_free(n);
        return st;
    }
    *out = n;
    return CMC_OK;
}

void hf_norm_free(hf_norm *n) {
    if (n == NULL) {
        return;
    }
    for (size_t i = 0; i < n->n; i++) {
        hf_pattern_free(&n->step[i].pattern);
        free(n->step[i].text);
        hf_charsmap_free(n->step[i].charsmap);
    }
    free(n->step);
    free(n);
}

bool hf_norm_byte_level(const hf_norm *n) {
    for (size_t i = 0; n != NULL && i < n->n; i++) {
        if (n->step[i].kind == NORM_BYTE_LEVEL) {
            return true;
        }
    }
    return false;
}

/* ------------------------------------------------------------------------------------------------- running */
static void norm_strip(const norm_step *s, hf_text *t) {
    size_t from = 0, to = t->n, len;
    while (s->left && from < to && cmc_utf8_is_space(cmc_utf8_decode(t->s + from, to - from, &len))) {
        from += len;
    }
    while (s->right && to > from) {
        size_t c = to - 1;
        while (c > from && (t->s[c] & 0xc0) == 0x80) {
            c--;
        }
        if (!cmc_utf8_is_space(cmc_utf8_decode(t->s + c, to - c, &len))) {
            break;
        }
        to = c;
    }
    t->n = to - from;
    t->head = from > 0 ? 0 : t->head < t->n ? t->head : t->n;
    if (from > 0) {
        memmove(t->s, t->s + from, t->n);
    }
}

static bool norm_prepend(const norm_step *s, const hf_run *run, const hf_text *in, hf_text *out) {
    bool skip = in->n == 0 || (run->cont && in->head > 0);
    out->n = 0;
    out->head = in->head > 0 && !skip ? in->head + s->n_text : in->head;
    return (skip || hf_put(out, s->text, s->n_text)) && hf_put(out, in->s, in->n);
}

/* What replaces a match belongs to the match's last character. */
static cmc_status norm_replace(const norm_step *s, hf_run *run, const hf_text *in, hf_text *out) {
    out->n = out->head = 0;
    if (in->n == 0) {
        return CMC_OK;
    }
    CMC_TRY(hf_pattern_spans(&s->pattern, run->scratch, in->s, in->n, &run->spans, run->err));
    for (size_t i = 0; i < run->spans.n; i++) {
        hf_span p = run->spans.v[i];
        size_t before = out->n, head = in->head > p.begin ? in->head - p.begin : 0, len = p.end - p.begin;
        if (!(p.match ? hf_put(out, s->text, s->n_text) : hf_put(out, in->s + p.begin, len))) {
            return cmc_fail_nomem(run->err, "a normalised text", in->n);
        }
        if (out->head == before) {
            out->head += p.match ? (p.end <= in->head ? s->n_text : 0) : (head < len ? head : len);
        }
    }
    return CMC_OK;
}

static bool norm_byte_level(const hf_text *in, hf_text *out) {
    out->n = out->head = 0;
    for (size_t i = 0; i < in->n; i++) {
        if (!hf_put_char(out, bpe_byte_char(in->s[i]))) {
            return false;
        }
        out->head = i < in->head ? out->n : out->head;
    }
    return true;
}

static cmc_status norm_step_run(const norm_step *s, hf_run *run, const hf_text *in, hf_text *out) {
    bool ok = true;
    switch (s->kind) {
    case NORM_NFC: return hf_unicode_form(HF_NFC, in, out, run->err);
    case NORM_NFD: return hf_unicode_form(HF_NFD, in, out, run->err);
    case NORM_NFKC: return hf_unicode_form(HF_NFKC, in, out, run->err);
    case NORM_NFKD: return hf_unicode_form(HF_NFKD, in, out, run->err);
    case NORM_REPLACE: return norm_replace(s, run, in, out);
    case NORM_LOWERCASE: ok = hf_lowercase(in, out); break;
    case NORM_STRIP_ACCENTS: ok = hf_strip_accents(in, out); break;
    case NORM_NMT: ok = hf_nmt(in, out); break;
    case NORM_BYTE_LEVEL: ok = norm_byte_level(in, out); break;
    case NORM_PREPEND: ok = norm_prepend(s, run, in, out); break;
    case NORM_PRECOMPILED: ok = hf_charsmap_run(s->charsmap, in, out); break;
    case NORM_STRIP: break; /* in place */
    }
    return ok ? CMC_OK : cmc_fail_nomem(run->err, "a normalised text", in->n);
}

cmc_status hf_norm_run(const hf_norm *n, hf_run *run, hf_text *t) {
    for (size_t i = 0; n != NULL && i < n->n; i++) {
        if (n->step[i].kind == NORM_STRIP) {
            norm_strip(&n->step[i], t);
            continue;
        }
        CMC_TRY(norm_step_run(&n->step[i], run, t, &run->swap));
        hf_swap(t, &run->swap);
    }
    return CMC_OK;
}
