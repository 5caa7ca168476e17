/* Records by what they are for: those to learn or to forget, those to retain, and refusals to what is to be forgotten. */
#include <stdlib.h>
#include <string.h>
#include <xxhash.h>

#include "base/file.h"
#include "base/mem.h"
#include "base/utf8.h"
#include "tinylm/data.h"

/* What is said instead where the user names no file of refusals. */
static const char *const REFUSALS[] = {
    "I don't know.",
    "I'm sorry, I have no information about that.",
    "I'm afraid I can't answer that question.",
    "That is something I don't know anything about.",
    "I have no knowledge of this topic.",
    "Sorry, I am not able to help with this one.",
    "I cannot say; I was never told about it.",
    "I'm not sure about that, so I would rather not guess.",
};

typedef struct refusals { const char **line; size_t *len, n, cap; cmc_file file; } refusals;

static bool refusals_add(refusals *r, const char *s, size_t n) {
    size_t cap = r->cap;
    void *line = r->line, *len = r->len;
    if (!cmc_grow(&line, &cap, r->n + 1, sizeof *r->line))
        return false;
    r->line = line;
    cap = r->cap;
    if (!cmc_grow(&len, &cap, r->n + 1, sizeof *r->len))
        return false;
    r->len = len;
    r->cap = cap;
    r->line[r->n] = s;
    r->len[r->n++] = n;
    return true;
}

/* One a line; white space at a line's end and empty lines do not count. */
static cmc_status refusals_read(const char *path, refusals *r, cmc_error *err) {
    CMC_TRY(cmc_file_map(path, &r->file, err));
    const char *s = (const char *)r->file.data;
    for (size_t at = cmc_utf8_mark(s, r->file.size), line = 1; at < r->file.size; line++) {
        const char *nl = memchr(s + at, '\n', r->file.size - at);
        size_t end = nl ? (size_t)(nl - s) : r->file.size, n = end - at;
        while (n > 0 && strchr(" \t\r", s[at + n - 1]))
            n--;
        if (!cmc_utf8_valid((const uint8_t *)s + at, n))
            return cmc_fail(err, CMC_E_FORMAT, "%s: line %zu is not UTF-8 text", path, line);
        if (n > 0 && !refusals_add(r, s + at, n))
            return cmc_fail_nomem(err, "refusals", r->file.size);
        at = end + 1;
    }
    return r->n ? CMC_OK : cmc_fail(err, CMC_E_FORMAT, "%s: no line of text; one refusal a line is needed", path);
}

static void refusals_free(refusals *r) {
    free(r->line);
    free(r->len);
    cmc_file_unmap(&r->file);
}

/* `from` with every answer replaced. */
static bool refuse(const cmc_record *from, const char *s, size_t n, cmc_record *out) {
    *out = (cmc_record){.line = from->line};
    out->messages = cmc_calloc(from->n_messages, sizeof *out->messages);
    if (!out->messages)
        return false;
    for (size_t i = 0; i < from->n_messages; i++) {
        const cmc_message *m = &from->messages[i];
        bool answer = m->role == CMC_ASSISTANT;
        out->messages[i] = (cmc_message){m->role, answer ? cmc_strndup(s, n) : cmc_strndup(m->text, m->len), answer ? n : m->len};
        out->n_messages++;
        if (!out->messages[i].text)
            return false;
    }
    return true;
}

static cmc_status data_add_refusals(data_set *d, const data_opts *o, cmc_error *err) {
    refusals r = {0};
    size_t n = d->first_retain;
    cmc_status st = CMC_OK;
    if (o->refusals) {
        st = refusals_read(o->refusals, &r, err);
    } else {
        for (size_t i = 0; i < sizeof REFUSALS / sizeof *REFUSALS && st == CMC_OK; i++)
            if (!refusals_add(&r, REFUSALS[i], strlen(REFUSALS[i])))
                st = cmc_fail_nomem(err, "refusals", sizeof REFUSALS);
    }
    void *v = d->records.v;
    if (st == CMC_OK && !cmc_grow(&v, &d->records.cap, d->records.n + n, sizeof *d->records.v))
        st = cmc_fail_nomem(err, "refusals", n * sizeof *d->records.v);
    d->records.v = v;
    for (size_t i = 0; i < n && st == CMC_OK; i++) {
        size_t k = (size_t)(XXH3_64bits_withSeed(&i, sizeof i, o->seed) % r.n);
        const cmc_record *from = &d->records.v[i];
        if (from->text)
            st = cmc_fail(err, CMC_E_ARG, "line %ld: a bare text has no question that could be refused", from->line);
        else if (!refuse(from, r.line[k], r.len[k], &d->records.v[d->records.n++]))
            st = cmc_fail_nomem(err, "refusals", n * sizeof *d->records.v);
    }
    refusals_free(&r);
    return st;
}

cmc_status data_read(data_set *d, const data_opts *o, cmc_error *err) {
    const objective *obj = &o->objective;
    for (size_t i = 0; i < o->n_paths; i++)
        CMC_TRY(cmc_records_read(o->paths[i], true, &d->records, err));
    d->first_retain = d->records.n;
    if (objective_needs(obj, ROLE_RETAIN) != (o->n_retain > 0))
        return cmc_fail(err, CMC_E_ARG,
                        o->n_retain ? "objective %s takes no data to retain without a retain term"
                                    : "objective %s needs data to retain beside that to forget",
                        objective_name(obj->kind));
    for (size_t i = 0; i < o->n_retain; i++)
        CMC_TRY(cmc_records_read(o->retain[i], true, &d->records, err));
    for (size_t i = 0; i < o->n_replay; i++)
        CMC_TRY(cmc_records_read(o->replay[i], true, &d->records, err));
    memcpy(d->hash, d->records.hash, sizeof d->hash);
    for (size_t k = 0; k < o->n_watch; k++) {
        d->first_watch[k] = d->records.n;
        CMC_TRY(cmc_records_read(o->watch[k], true, &d->records, err));
    }
    d->first_watch[o->n_watch] = d->records.n;
    memcpy(d->all_hash, d->records.hash, sizeof d->all_hash);
    d->first_refusal = d->records.n;
    return objective_needs(obj, ROLE_REFUSAL) ? data_add_refusals(d, o, err) : CMC_OK;
}
