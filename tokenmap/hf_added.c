/* Added tokens: found in a text before anything else happens to it or, if they are normalised, after the normaliser. */
#include <stdlib.h>
#include <string.h>

#include "base/error.h"
#include "base/mem.h"
#include "base/utf8.h"
#include "tokenmap/hf.h"

typedef struct added_table {
    special_table table;      /* ids there are places in `token` */
    hf_added_token *token;
    uint32_t n;
} added_table;

struct hf_added {
    added_table raw, normalized;
    hf_text bytes;            /* what the tables' spellings point into */
};

/* What a token is looked for as, put at the end of a->bytes. */
static cmc_status added_pattern(const hf_src *src, const hf_added_token *t, const hf_norm *norm, hf_run *run,
                                hf_text *work, hf_added *a) {
    size_t len;
    work->n = 0;
    if (!hf_put(work, t->content.s, t->content.n)) {
        return cmc_fail_nomem(src->err, "an added token", t->content.n);
    }
    cmc_utf8_decode(work->s, work->n, &len);
    work->head = len;
    if (t->normalized) {
        CMC_TRY(hf_norm_run(norm, run, work));
    }
    if (work->n == 0) {
        return cmc_fail(src->err, CMC_E_UNSUPPORTED, "%s: added token %d, \"%.40s\", is nothing when normalised",
                        src->path, t->id, t->content.s);
    }
    return hf_put(&a->bytes, work->s, work->n) ? CMC_OK : cmc_fail_nomem(src->err, "added tokens", work->n);
}

static bool added_table_new(added_table *t, size_t n) {
    t->table.v = cmc_calloc(n, sizeof *t->table.v);
    t->token = cmc_calloc(n, sizeof *t->token);
    return t->table.v != NULL && t->token != NULL;
}

static cmc_status added_finish(const hf_src *src, added_table *t, const uint8_t *bytes) {
    for (uint32_t i = 0; i < t->n; i++) {
        t->table.v[i].s = bytes + (size_t)t->table.v[i].s;
    }
    t->table.n = t->n;
    specials_sort(&t->table);
    for (uint32_t i = 1; i < t->n; i++) {
        const special *a = &t->table.v[i - 1], *b = a + 1;
        if (a->n == b->n && memcmp(a->s, b->s, a->n) == 0) {
            return cmc_fail(src->err, CMC_E_FORMAT, "%s: added tokens %d and %d are the same text, \"%.*s\"", src->path,
                            t->token[a->id].id, t->token[b->id].id, (int)(a->n < 40 ? a->n : 40), (const char *)a->s);
        }
    }
    return CMC_OK;
}

static cmc_status added_fill(const hf_src *src, const hf_added_token *v, size_t n, const hf_norm *norm, hf_run *run,
                             hf_added *a) {
    hf_text work = {0};
    cmc_status st = CMC_OK;
    for (size_t i = 0; i < n && st == CMC_OK; i++) {
        added_table *t = v[i].normalized ? &a->normalized : &a->raw;
        size_t at = a->bytes.n;
        st = added_pattern(src, &v[i], norm, run, &work, a);
        if (st == CMC_OK) { /* offsets while the block may still move */
            t->table.v[t->n] = (special){(const uint8_t *)at, (uint32_t)(a->bytes.n - at), (int32_t)t->n};
            t->token[t->n] = v[i];
            t->token[t->n++].content = (hf_str){NULL, 0};
        }
    }
    free(work.s);
    return st;
}

cmc_status hf_added_new(const hf_src *src, const hf_added_token *v, size_t n, const hf_norm *norm, hf_added **out) {
    hf_added *a = cmc_calloc(1, sizeof *a);
    hf_run run = {.scratch = regex_scratch_new(), .err = src->err};
    cmc_status st = CMC_OK;
    *out = NULL;
    if (a == NULL || run.scratch == NULL || !added_table_new(&a->raw, n) || !added_table_new(&a->normalized, n)) {
        st = cmc_fail_nomem(src->err, "added tokens", n * sizeof *v);
    }
    st = st == CMC_OK ? added_fill(src, v, n, norm, &run, a) : st;
    st = st == CMC_OK ? added_finish(src, &a->raw, a->bytes.s) : st;
    st = st == CMC_OK ? added_finish(src, &a->normalized, a->bytes.s) : st;
    regex_scratch_free(run.scratch);
    free(run.spans.v);
    free(run.swap.s);
    if (st != CMC_OK) {
        hf_added_free(a);
        return st;
    }
    *out = a;
    return CMC_OK;
}

void hf_added_free(hf_added *a) {
    if (a != NULL) {
        free(a->raw.table.v);
        free(a->raw.token);
        free(a->normalized.table.v);
        free(a->normalized.token);
        free(a->bytes.s);
        free(a);
    }
}

/* ------------------------------------------------------------------------------------------------- finding */
static size_t added_before(const uint8_t *s, size_t end) {
    do {
        end--;
    } while (end > 0 && (s[end] & 0xc0) == 0x80);
    return end;
}

static int32_t added_char(const uint8_t *s, size_t at, size_t n) {
    size_t len;
    return cmc_utf8_decode(s + at, n - at, &len);
}

static bool added_alone(const uint8_t *s, size_t n, size_t begin, size_t end) {
    return (begin == 0 || !hf_is_word(added_char(s, added_before(s, begin), begin))) &&
           (end == n || !hf_is_word(added_char(s, end, n)));
}

static size_t added_lstrip(const uint8_t *s, size_t begin) {
    while (begin > 0 && cmc_utf8_is_space(added_char(s, added_before(s, begin), begin))) {
        begin = added_before(s, begin);
    }
    return begin;
}

static size_t added_rstrip(const uint8_t *s, size_t n, size_t end) {
    for (size_t len; end < n && cmc_utf8_is_space(cmc_utf8_decode(s + end, n - end, &len)); end += len) {
    }
    return end;
}

/* The next token in s[*at..n), in *begin and *at; NULL: none. What does not count is passed over whole. */
static const hf_added_token *added_next(const added_table *t, const hf_run *run, const uint8_t *s, size_t n,
                                        size_t *begin, size_t *at) {
    for (size_t i = *at, len; i < n; i++) {
        bool at_end;
        int32_t k = t->table.first[s[i]] == t->table.first[s[i] + 1]
                        ? -1 : specials_match(&t->table, s + i, n - i, &len, &at_end);
        if (k < 0) {
            continue;
        }
        const hf_added_token *tok = &t->token[k];
        *begin = i;
        *at = i + len;
        i += len - 1;
        bool text = !run->special && run->v->kind[tok->id] == CMC_KIND_CONTROL;
        if (!text && (!tok->single_word || added_alone(s, n, *begin, *at))) {
            return tok;
        }
    }
    return NULL;
}

cmc_status hf_added_run(const hf_added *a, hf_run *run, bool normalized, const uint8_t *s, size_t n, size_t head,
                        hf_added_text text) {
    const added_table *t = normalized ? &a->normalized : &a->raw;
    const hf_added_token *tok;
    size_t start = 0, begin, at = 0;
    while (t->n > 0 && (tok = added_next(t, run, s, n, &begin, &at)) != NULL) {
        size_t end = at;
        if (tok->lstrip) {
            begin = added_lstrip(s, begin);
            begin = begin > start ? begin : start; /* what the token before took stays its own */
        }
        if (tok->rstrip) {
            end = added_rstrip(s, n, end);
        }
        if (start < begin) {
            CMC_TRY(text(run, s + start, begin - start, head > start ? head - start : 0));
        }
        if (cmc_ids_push(run->out, tok->id) != CMC_OK) {
            return cmc_fail_nomem(run->err, "ids of a text", n);
        }
        start = end;
    }
    return start < n ? text(run, s + start, n - start, head > start ? head - start : 0) : CMC_OK;
}
