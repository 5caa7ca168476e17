/* Hand edits of a map: a text file of lines `HOST -> DELTA` that is applied whole or not at all.
 *
 * A token is its id, in digits, or its spelling as the vocabulary's file has it, as a JSON string: "▁the", "Ġthe",
 * "<0x0A>". The word none on the right unmaps the host token. Blank lines, and what follows a # outside a string, mean
 * nothing. */
#include <inttypes.h>
#include <jansson.h>
#include <stdlib.h>
#include <string.h>

#include "base/error.h"
#include "base/file.h"
#include "base/mem.h"
#include "base/utf8.h"
#include "tokenmap/idmap.h"
#include "tokenmap/map.h"

/* A vocabulary's spellings -> ids; made when the first spelling is met. */
typedef struct spelling_table {
    const cmc_vocab *v;
    const char *side;         /* "host" or "delta", for messages */
    idmap first;
    int32_t *second;          /* [n] of the lowest token with a spelling: the next one with it, or -1; NULL: not made */
} spelling_table;

typedef struct edit { int32_t host, delta; } edit;

typedef struct override_reader {
    const char *name;
    size_t line;              /* from 1 */
    const uint8_t *p, *end;   /* what is left of the line */
    spelling_table host, delta;
    size_t *line_of;          /* [n_host] where a host token stood, 0: not yet */
    edit *edits;
    size_t n, cap;
    cmc_error *err;
} override_reader;

/* ------------------------------------------------------------------------------------------------- messages */

enum { SHOWN = 40 };

/* At most SHOWN bytes of a stranger's text, in whole characters and without control characters. */
static const char *shown(const uint8_t *s, size_t n, char out[SHOWN + 4]) {
    size_t len = cmc_utf8_whole(s, n < SHOWN ? n : SHOWN);
    for (size_t i = 0; i < len; i++) {
        out[i] = s[i] < 0x20 || s[i] == 0x7F ? '?' : (char)s[i];
    }
    memcpy(out + len, n > len ? "..." : "", n > len ? 4 : 1);
    return out;
}

static cmc_status bad_syntax(override_reader *r, const char *should) {
    char text[SHOWN + 4];
    size_t left = (size_t)(r->end - r->p);
    if (left == 0) {
        return cmc_fail(r->err, CMC_E_FORMAT, "%s: line %zu: the line ends too soon, %s", r->name, r->line, should);
    }
    return cmc_fail(r->err, CMC_E_FORMAT, "%s: line %zu: found `%s`, %s", r->name, r->line,
                    shown(r->p, left, text), should);
}

/* -------------------------------------------------------------------------------------------------- spellings */

static cmc_status spelling_table_make(spelling_table *t, cmc_error *err) {
    size_t n = (size_t)t->v->n;
    t->second = cmc_alloc(n, sizeof *t->second);
    if (!t->second || !idmap_init(&t->first, n, (const uint8_t *)t->v->spell, t->v->spell_off)) {
        return cmc_fail_nomem(err, "a table of spellings", n * 3 * sizeof *t->second);
    }
    for (int32_t id = 0; id < t->v->n; id++) {
        size_t len;
        const char *s = cmc_vocab_spelling(t->v, id, &len);
        int32_t first = idmap_find(&t->first, s, len);
        t->second[id] = -1;
        if (first < 0) {
            idmap_add(&t->first, id);
        } else if (t->second[first] < 0) {
            t->second[first] = id;
        }
    }
    return CMC_OK;
}

static cmc_status find_spelling(override_reader *r, spelling_table *t, const char *s, size_t len, int32_t *out) {
    char text[SHOWN + 4];
    if (!t->second) {
        CMC_TRY(spelling_table_make(t, r->err));
    }
    *out = idmap_find(&t->first, s, len);
    if (*out < 0) {
        return cmc_fail(r->err, CMC_E_FORMAT,
                        "%s: line %zu: no %s token is spelled \"%s\"; cmc map --explain shows spellings and ids",
                        r->name, r->line, t->side, shown((const uint8_t *)s, len, text));
    }
    if (t->second[*out] >= 0) {
        return cmc_fail(r->err, CMC_E_FORMAT,
                        "%s: line %zu: several %s tokens are spelled \"%s\" (%" PRId32 " and %" PRId32
                        " among them), the id should stand in its place",
                        r->name, r->line, t->side, shown((const uint8_t *)s, len, text), *out, t->second[*out]);
    }
    return CMC_OK;
}

/* ----------------------------------------------------------------------------------------------------- tokens */

static void skip_blanks(override_reader *r) {
    while (r->p < r->end && (*r->p == ' ' || *r->p == '\t')) {
        r->p++;
    }
}

static bool is_digit(uint8_t c) {
    return c >= '0' && c <= '9';
}

static cmc_status read_id(override_reader *r, const spelling_table *t, int32_t *out) {
    const uint8_t *start = r->p;
    int64_t id = 0;
    char text[SHOWN + 4];
    for (; r->p < r->end && is_digit(*r->p); r->p++) {
        id = id > INT32_MAX ? id : 10 * id + (*r->p - '0');
    }
    if (id >= t->v->n) {
        return cmc_fail(r->err, CMC_E_FORMAT,
                        "%s: line %zu: the %s has no token %s, its ids should be from 0 to %" PRId32, r->name, r->line,
                        t->side, shown(start, (size_t)(r->p - start), text), t->v->n - 1);
    }
    *out = (int32_t)id;
    return CMC_OK;
}

static cmc_status read_spelling(override_reader *r, spelling_table *t, int32_t *out) {
    const uint8_t *q = r->p + 1;
    while (q < r->end && *q != '"') {
        q += *q == '\\' && r->end - q > 1 ? 2 : 1;
    }
    if (q == r->end) {
        return bad_syntax(r, "a string without an end, should end in \"");
    }
    json_error_t where;
    json_t *j = json_loadb((const char *)r->p, (size_t)(q + 1 - r->p), JSON_DECODE_ANY | JSON_ALLOW_NUL, &where);
    if (!j) {
        return json_error_code(&where) == json_error_out_of_memory
                   ? cmc_fail_nomem(r->err, "a spelling", (size_t)(q - r->p))
                   : cmc_fail(r->err, CMC_E_FORMAT, "%s: line %zu: %s, should be a JSON string, with \" and \\ in it "
                              "written as \\\" and \\\\", r->name, r->line, where.text);
    }
    cmc_status st = find_spelling(r, t, json_string_value(j), json_string_length(j), out);
    json_decref(j);
    r->p = q + 1;
    return st;
}

/* A token at r->p. `should`: what the message says where there is none. */
static cmc_status read_token(override_reader *r, spelling_table *t, const char *should, int32_t *out) {
    if (r->p < r->end && is_digit(*r->p)) {
        return read_id(r, t, out);
    }
    return r->p < r->end && *r->p == '"' ? read_spelling(r, t, out) : bad_syntax(r, should);
}

/* ------------------------------------------------------------------------------------------------------ lines */

static bool take_word(override_reader *r, const char *word) {
    size_t n = strlen(word);
    if ((size_t)(r->end - r->p) < n || memcmp(r->p, word, n) != 0) {
        return false;
    }
    r->p += n;
    return true;
}

static cmc_status add_edit(override_reader *r, edit e) {
    if (r->line_of[e.host]) {
        return cmc_fail(r->err, CMC_E_FORMAT,
                        "%s: line %zu: host token %" PRId32 " stands on line %zu too, it should have one line",
                        r->name, r->line, e.host, r->line_of[e.host]);
    }
    if (!cmc_grow((void **)&r->edits, &r->cap, r->n + 1, sizeof e)) {
        return cmc_fail_nomem(r->err, "the edits of a map", (r->n + 1) * sizeof e);
    }
    r->line_of[e.host] = r->line;
    r->edits[r->n++] = e;
    return CMC_OK;
}

static cmc_status read_line(override_reader *r) {
    edit e = {-1, -1};
    skip_blanks(r);
    if (r->p == r->end || *r->p == '#') {
        return CMC_OK;
    }
    CMC_TRY(read_token(r, &r->host, "should be a host token: its id, or its spelling in quotes", &e.host));
    skip_blanks(r);
    if (!take_word(r, "->")) {
        return bad_syntax(r, "should be the arrow of a line like \"the\" -> 278");
    }
    skip_blanks(r);
    if (!take_word(r, "none")) {
        CMC_TRY(read_token(r, &r->delta, "should be a delta token (its id, or its spelling in quotes) or none",
                           &e.delta));
    }
    skip_blanks(r);
    if (r->p < r->end && *r->p != '#') {
        return bad_syntax(r, "should be the end of the line, or a comment after #");
    }
    return add_edit(r, e);
}

static cmc_status check_utf8(override_reader *r) {
    size_t len;
    for (const uint8_t *p = r->p; p < r->end; p += len) {
        if (cmc_utf8_decode(p, (size_t)(r->end - p), &len) < 0) {
            return cmc_fail(r->err, CMC_E_FORMAT, "%s: line %zu: byte %zu of the line is no UTF-8, the file should be "
                            "UTF-8 text; a token of such bytes is named by its id", r->name, r->line,
                            (size_t)(p - r->p) + 1);
        }
    }
    return CMC_OK;
}

static cmc_status read_lines(override_reader *r, const uint8_t *data, size_t size) {
    static const uint8_t mark[] = {0xEF, 0xBB, 0xBF};   /* what some editors put at the beginning of UTF-8 text */
    const uint8_t *p = data, *end = size ? data + size : data;
    if (size >= sizeof mark && memcmp(p, mark, sizeof mark) == 0) {
        p += sizeof mark;
    }
    while (p < end) {
        const uint8_t *newline = memchr(p, '\n', (size_t)(end - p)), *stop = newline ? newline : end;
        r->line++;
        r->p = p;
        r->end = stop > p && stop[-1] == '\r' ? stop - 1 : stop;
        CMC_TRY(check_utf8(r));
        CMC_TRY(read_line(r));
        p = newline ? newline + 1 : end;
    }
    return CMC_OK;
}

static void reader_free(override_reader *r) {
    idmap_free(&r->host.first);
    idmap_free(&r->delta.first);
    free(r->host.second);
    free(r->delta.second);
    free(r->line_of);
    free(r->edits);
}

cmc_status map_override_memory(cmc_map *m, const cmc_vocab *host, const cmc_vocab *delta, const uint8_t *data,
                               size_t size, const char *name, cmc_error *err) {
    if (m->n_host != host->n || m->n_delta != delta->n) {
        return cmc_fail(err, CMC_E_ARG,
                        "%s: is for vocabularies of %" PRId32 " and %" PRId32 " tokens, the map's should be these but "
                        "are of %" PRId32 " and %" PRId32, name, host->n, delta->n, m->n_host, m->n_delta);
    }
    override_reader r = {.name = name, .host = {.v = host, .side = "host"}, .delta = {.v = delta, .side = "delta"},
                         .err = err};
    r.line_of = cmc_calloc((size_t)host->n, sizeof *r.line_of);
    cmc_status st = r.line_of ? read_lines(&r, data, size)
                              : cmc_fail_nomem(err, "the edits of a map", (size_t)host->n * sizeof *r.line_of);
    for (size_t i = 0; st == CMC_OK && i < r.n; i++) {
        map_set(m, r.edits[i].host, r.edits[i].delta, CMC_HOW_OVERRIDE, 0);
    }
    if (st == CMC_OK) {
        map_finish(m);
    }
    reader_free(&r);
    return st;
}

cmc_status cmc_map_override(cmc_map *m, const cmc_vocab *host, const cmc_vocab *delta, const char *path,
                            cmc_error *err) {
    cmc_file f;
    CMC_TRY(cmc_file_map(path, &f, err));
    cmc_status st = map_override_memory(m, host, delta, f.data, f.size, path, err);
    cmc_file_unmap(&f);
    return st;
}
