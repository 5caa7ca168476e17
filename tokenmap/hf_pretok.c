/* Pre-tokenizers, run: each step cuts the pieces that the one before it left, and may change them. */
#include <string.h>

#include "base/error.h"
#include "base/mem.h"
#include "base/utf8.h"
#include "tokenmap/hf_pretok.h"

static cmc_status pretok_nomem(const hf_run *run) {
    return cmc_fail_nomem(run->err, "the pieces of a text", 0);
}

static bool pretok_matches(const pretok_step *s, int32_t cp) {
    switch (s->kind) {
    case PRETOK_WHITESPACE_SPLIT: return cmc_utf8_is_space(cp);
    case PRETOK_DIGITS: return hf_is_number(cp);
    case PRETOK_PUNCTUATION: return hf_is_punctuation(cp);
    default: return cp == s->character;
    }
}

/* Every character that matches is a match of its own; what lies between them is one part. */
static bool pretok_by_character(const pretok_step *s, const uint8_t *t, size_t n, hf_spans *out) {
    size_t prev = 0;
    bool ok = true;
    out->n = 0;
    for (size_t i = 0, len; i < n && ok; i += len) {
        if (pretok_matches(s, cmc_utf8_decode(t + i, n - i, &len))) {
            ok = (prev == i || hf_spans_add(out, prev, i, false)) && hf_spans_add(out, i, i + len, true);
            prev = i + len;
        }
    }
    return ok && (prev == n || hf_spans_add(out, prev, n, false));
}

/* Words, and runs of what is neither word nor space; spaces match, to be removed. */
static bool pretok_words(const uint8_t *t, size_t n, hf_spans *out) {
    int before = -1;
    size_t begin = 0;
    bool ok = true;
    out->n = 0;
    for (size_t i = 0, len = 1; i <= n && ok; i += len) {
        int32_t cp = i < n ? cmc_utf8_decode(t + i, n - i, &len) : -1;
        int kind = cp < 0 ? -1 : hf_is_word(cp) ? 0 : cmc_utf8_is_space(cp) ? 1 : 2;
        if (kind != before && before >= 0) {
            ok = hf_spans_add(out, begin, i, before == 1);
        }
        begin = kind != before ? i : begin;
        before = kind;
    }
    return ok;
}

static bool pretok_fixed_length(const pretok_step *s, const uint8_t *t, size_t n, hf_spans *out) {
    out->n = 0;
    for (size_t i = 0, begin = 0, count = 0, len; i < n; i += len) {
        cmc_utf8_decode(t + i, n - i, &len);
        if (++count == s->length || i + len == n) {
            if (!hf_spans_add(out, begin, i + len, false)) {
                return false;
            }
            begin = i + len;
            count = 0;
        }
    }
    return true;
}

static cmc_status pretok_spans(const pretok_step *s, hf_run *run, const uint8_t *t, size_t n) {
    bool ok = true;
    run->spans.n = 0;
    switch (s->kind) {
    case PRETOK_SPLIT: return hf_pattern_spans(&s->pattern, run->scratch, t, n, &run->spans, run->err);
    case PRETOK_BYTE_LEVEL:
        if (s->pattern.re != NULL) {
            return hf_pattern_spans(&s->pattern, run->scratch, t, n, &run->spans, run->err);
        }
        ok = hf_spans_add(&run->spans, 0, n, false);
        break;
    case PRETOK_METASPACE:
        ok = s->split ? pretok_by_character(s, t, n, &run->spans) : hf_spans_add(&run->spans, 0, n, false);
        break;
    case PRETOK_WHITESPACE: ok = pretok_words(t, n, &run->spans); break;
    case PRETOK_FIXED_LENGTH: ok = pretok_fixed_length(s, t, n, &run->spans); break;
    default: ok = pretok_by_character(s, t, n, &run->spans); break;
    }
    return ok ? CMC_OK : pretok_nomem(run);
}

/* What becomes of the matches. Gives the first span that counts; those before it are gone. */
static size_t pretok_merge(pretok_behavior how, bool invert, hf_spans *l) {
    bool before = false;
    size_t k = 0;
    for (size_t i = 0; i < l->n; i++) {
        l->v[i].match = l->v[i].match != invert;
    }
    if (how == PRETOK_MERGED_WITH_NEXT) {
        k = l->n;
        for (size_t i = l->n; i-- > 0;) {
            hf_span p = l->v[i];
            if (k < l->n && p.match && !before) {
                l->v[k].begin = p.begin;
            } else {
                l->v[--k] = p;
            }
            before = p.match;
        }
        return k;
    }
    for (size_t i = 0; i < l->n; i++) {
        hf_span p = l->v[i];
        bool join = how == PRETOK_CONTIGUOUS             ? p.match == before
                    : how == PRETOK_MERGED_WITH_PREVIOUS ? p.match && !before
                                                         : false;
        if (join && k > 0) {
            l->v[k - 1].end = p.end;
        } else if (how != PRETOK_REMOVED || !p.match) {
            l->v[k++] = p;
        }
        before = p.match;
    }
    l->n = k;
    return 0;
}

static bool pretok_put(const pretok_step *s, hf_pieces *out, const uint8_t *t, size_t n, size_t head) {
    void *v = out->v;
    hf_piece p = {.begin = out->text.n};
    if (n == 0) {
        return true;
    }
    if (!cmc_grow(&v, &out->cap, out->n + 1, sizeof *out->v)) {
        return false;
    }
    out->v = v;
    if (s != NULL && s->kind == PRETOK_BYTE_LEVEL) {
        for (size_t i = 0; i < n; i++) {
            p.head = i == head ? out->text.n - p.begin : p.head;
            if (!hf_put_char(&out->text, bpe_byte_char(t[i]))) {
                return false;
            }
        }
        p.head = head == n ? out->text.n - p.begin : p.head;
    } else if (!hf_put(&out->text, t, n)) {
        return false;
    } else {
        p.head = head;
    }
    p.end = out->text.n;
    out->v[out->n++] = p;
    return true;
}

/* The space before a piece, and Metaspace's character for spaces. */
static bool pretok_prefix(const pretok_step *s, const hf_run *run, const uint8_t *t, size_t n, size_t head,
                          hf_text *out) {
    uint8_t mark[4];
    bool meta = s->kind == PRETOK_METASPACE, start = head > 0;
    size_t len = cmc_utf8_encode(meta ? s->character : ' ', mark);
    bool has = n >= len && memcmp(t, mark, len) == 0;
    has = has || (meta && n > 0 && t[0] == ' ');
    bool put = !has && !(start && run->cont) && (s->prepend == PRETOK_ALWAYS || (s->prepend == PRETOK_FIRST && start));
    out->n = 0;
    if (put && !hf_put(out, mark, len)) {
        return false;
    }
    out->head = put && start ? len : 0;
    for (size_t i = 0; i < n; i++) {
        bool ok = meta && t[i] == ' ' ? hf_put(out, mark, len) : hf_put(out, t + i, 1);
        if (!ok) {
            return false;
        }
        out->head = i < head ? out->n : out->head;
    }
    return true;
}

static cmc_status pretok_piece(const pretok_step *s, hf_run *run, const uint8_t *t, size_t n, size_t head,
                               hf_pieces *out) {
    if (s->kind == PRETOK_METASPACE || s->prepend != PRETOK_NEVER) {
        if (!pretok_prefix(s, run, t, n, head, &run->swap)) {
            return pretok_nomem(run);
        }
        t = run->swap.s;
        n = run->swap.n;
        head = run->swap.head;
    }
    CMC_TRY(pretok_spans(s, run, t, n));
    for (size_t i = pretok_merge(s->behavior, s->invert, &run->spans); i < run->spans.n; i++) {
        hf_span p = run->spans.v[i];
        size_t len = p.end - p.begin, h = head > p.begin ? head - p.begin : 0;
        if (!pretok_put(s, out, t + p.begin, len, h < len ? h : len)) {
            return pretok_nomem(run);
        }
    }
    return CMC_OK;
}

cmc_status hf_pretok_run(const hf_pretok *p, hf_run *run, const hf_text *t, const hf_pieces **out) {
    hf_pieces *from = &run->pieces[0], *to = &run->pieces[1];
    from->n = from->text.n = 0;
    if (!pretok_put(NULL, from, t->s, t->n, t->head)) {
        return pretok_nomem(run);
    }
    for (size_t i = 0; p != NULL && i < p->n; i++) {
        to->n = to->text.n = 0;
        for (size_t k = 0; k < from->n; k++) {
            hf_piece x = from->v[k];
            CMC_TRY(pretok_piece(&p->step[i], run, from->text.s + x.begin, x.end - x.begin, x.head, to));
        }
        hf_pieces *swap = from;
        from = to;
        to = swap;
    }
    *out = from;
    return CMC_OK;
}
