/* Records -> examples: rendering for both models, alignment of targets, the held-out split, the order of an epoch. */
#include "tinylm/data.h"

#include <ctype.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <xxhash.h>

#include "base/mem.h"
#include "tinylm/align.h"
#include "tinylm/params.h"
#include "tokenmap/vocab.h"

/* ----------------------------------------------------------------------------------------------- split */

/* The hash of the letters of s, in lower case; a run of digits as one '0'; bytes above 127 as they are. */
static uint64_t data_hash_words(uint64_t seed, const char *s, size_t n) {
    char buf[256];
    size_t m = 0;
    bool digit = false;
    for (size_t i = 0; i < n; i++) {
        unsigned char c = (unsigned char)s[i];
        bool is_digit = c >= '0' && c <= '9';
        if ((c < 128 && !isalnum(c)) || (is_digit && digit))
            continue;
        digit = is_digit;
        buf[m++] = is_digit ? '0' : c < 128 ? (char)tolower(c) : (char)c;
        if (m == sizeof buf) {
            seed = XXH3_64bits_withSeed(buf, m, seed);
            m = 0;
        }
    }
    return XXH3_64bits_withSeed(buf, m, seed);
}

double data_split_point(const cmc_record *r) {
    uint64_t hash = 0;
    if (r->text)
        hash = data_hash_words(hash, r->text, r->text_len);
    for (size_t i = 0; i < r->n_messages && r->messages[i].role != CMC_ASSISTANT; i++)
        if (r->messages[i].role == CMC_USER)
            hash = data_hash_words(hash, r->messages[i].text, r->messages[i].len);
    return (double)(hash >> 11) * 0x1p-53;
}

/* Divides the examples that are learnt. Where something is to be held out at all, at least one example is, and one is
 * trained on. */
static cmc_status data_split(data_set *d, double held_out, cmc_error *err) {
    double lowest = 2.0;
    for (size_t i = 0; i < d->n_train; i++) {
        double x = data_split_point(&d->records.v[d->v[d->train[i]].record]);
        lowest = x < lowest ? x : lowest;
    }
    double bound = held_out > 0.0 && lowest >= held_out ? lowest : held_out;
    size_t all = d->n_train;
    d->n_train = 0;
    for (size_t i = 0; i < all; i++) {
        double x = data_split_point(&d->records.v[d->v[d->train[i]].record]);
        if (held_out > 0.0 && (x < held_out || x == bound))
            d->held[d->n_held++] = d->train[i];
        else
            d->train[d->n_train++] = d->train[i];
    }
    if (d->n_train == 0)
        return cmc_fail(err, CMC_E_ARG,
                        "all %zu usable records are held out (a share of %g): nothing is left to train on; "
                        "records with the same prompt stay together, numbers, case and punctuation apart; a held_out of 0 holds nothing out",
                        all, held_out);
    return CMC_OK;
}

/* The examples of watched files are there file by file. */
static void data_sort_watched(data_set *d, size_t n_files) {
    size_t n = 0, i = 0;
    for (size_t k = 0; k < n_files; k++) {
        d->watch_at[k] = n;
        for (; i < d->n && d->v[i].record < d->first_watch[k + 1]; i++)
            if (d->v[i].role == ROLE_WATCH)
                d->watch[n++] = i;
    }
    d->watch_at[n_files] = n;
}

/* Finds each refusal's record, and sorts the examples into those that steps go through and those to retain. A record to be
 * forgotten that needs its refusal and has none (too long) is left out. */
static cmc_status data_sort_roles(data_set *d, const data_opts *o, cmc_error *err) {
    size_t of = 0;
    d->train = cmc_alloc(d->n, sizeof *d->train);
    d->held = cmc_alloc(d->n, sizeof *d->held);
    d->retain = cmc_alloc(d->n, sizeof *d->retain);
    d->watch = cmc_alloc(d->n, sizeof *d->watch);
    if (!d->train || !d->held || !d->retain || !d->watch)
        return cmc_fail_nomem(err, "the order of the data", d->n * sizeof *d->train);
    for (size_t i = 0; i < d->n; i++) {
        data_example *x = &d->v[i];
        if (x->role != ROLE_REFUSAL)
            continue;
        while (of < i && d->v[of].record < x->record - d->first_refusal)
            of++;
        if (d->v[of].role == ROLE_LEARN && d->v[of].record == x->record - d->first_refusal)
            d->v[of].twin = i;
    }
    data_role main = o->objective.kind == OBJECTIVE_IDK ? ROLE_REFUSAL : ROLE_LEARN;
    for (size_t i = 0; i < d->n; i++) {
        const data_example *x = &d->v[i];
        bool whole = o->objective.kind != OBJECTIVE_DPO || x->twin != SIZE_MAX;
        if (x->role == main && whole)
            d->train[d->n_train++] = i;
        else if (x->role == ROLE_RETAIN)
            d->retain[d->n_retain++] = i;
    }
    data_sort_watched(d, o->n_watch);
    bool kept = objective_needs(&o->objective, ROLE_RETAIN) || o->n_replay > 0;
    if (d->n_train == 0 || (kept && d->n_retain == 0))
        return cmc_fail(err, CMC_E_ARG, "objective %s: no record is left to %s", objective_name(o->objective.kind),
                        d->n_train == 0 ? "forget" : "retain");
    return CMC_OK;
}

/* -------------------------------------------------------------------------------------------- examples */

static void data_example_free(data_example *x) {
    free(x->host_ids);
    free(x->delta_ids);
    free(x->targets);
    free(x->host_row);
    free(x->delta_row);
    free(x->seq);
}

static bool data_alloc_targets(const cmc_rendered *h, data_example *x) {
    size_t n = 0;
    for (size_t k = 0; k < h->n_spans; k++)
        n += h->spans[k].n;
    x->targets = cmc_alloc(n, sizeof *x->targets);
    x->host_row = cmc_alloc(n, sizeof *x->host_row);
    x->delta_row = cmc_alloc(n, sizeof *x->delta_row);
    x->seq = cmc_calloc(n + 2, sizeof *x->seq); /* at most one for each target, and the main one */
    return x->targets && x->host_row && x->delta_row && x->seq;
}

static void data_add_target(data_example *x, int32_t target, size_t host_row, size_t delta_row) {
    x->targets[x->n_targets] = target;
    x->host_row[x->n_targets] = (uint32_t)host_row;
    x->delta_row[x->n_targets++] = (uint32_t)delta_row;
}

/* The delta's ids: its own prompt parts, with the host's response ids in place of its own (equal vocabularies: docs/design.md,
 * "The text is what host and delta share"). Fills the example's targets and rows. */
static cmc_status data_align_same(const cmc_rendered *h, const cmc_rendered *d, data_example *x, cmc_ids *ids) {
    size_t from = 0;
    for (size_t k = 0; k < h->n_spans; k++) {
        const cmc_span *hs = &h->spans[k], *ds = &d->spans[k];
        CMC_TRY(cmc_ids_append(ids, d->ids.v + from, ds->first - from));
        size_t at = ids->n;
        CMC_TRY(cmc_ids_append(ids, h->ids.v + hs->first, hs->n));
        from = ds->first + ds->n;
        for (size_t i = 0; i < hs->n; i++)
            if (hs->first + i > 0 && at + i > 0) /* something stands before it */
                data_add_target(x, h->ids.v[hs->first + i], hs->first + i - 1, at + i - 1);
    }
    x->n_seqs = 1;
    x->seq[1] = ids->n;
    return CMC_OK;
}

/* One span's targets whose rows the main sequence gives; the delta's response begins at `at`. */
static void data_add_whole(const align_span *a, const cmc_rendered *h, const cmc_span *hs, size_t at, data_example *x) {
    for (size_t i = 0; i < a->n; i++) {
        if (a->place[i].kind != ALIGN_WHOLE)
            continue;
        bool before = hs->first + i > 0 && at + a->place[i].n > 0; /* something stands before it on both sides */
        x->n_aligned += before;
        x->n_left_out += !before;
        if (before)
            data_add_target(x, h->ids.v[hs->first + i], hs->first + i - 1, at + a->place[i].n - 1);
    }
}

/* The others: each its own sequence of the delta's tokens up to the response and those of the text so far. */
static cmc_status data_add_prefixes(const align_span *a, const cmc_rendered *h, const cmc_span *hs, size_t at,
                                    bool rows, data_example *x, cmc_ids *ids) {
    for (size_t i = 0; i < a->n; i++) {
        const align_place *p = &a->place[i];
        bool wanted = rows && p->kind == ALIGN_PREFIX && hs->first + i > 0;
        x->n_left_out += p->kind != ALIGN_WHOLE && !wanted;
        if (!wanted)
            continue;
        size_t first = ids->n;
        CMC_TRY(cmc_ids_reserve(ids, ids->n + at + p->n));
        CMC_TRY(cmc_ids_append(ids, ids->v, at)); /* the room is there: nothing moves */
        CMC_TRY(cmc_ids_append(ids, a->prefixes.v + p->at, p->n));
        data_add_target(x, h->ids.v[hs->first + i], hs->first + i - 1, ids->n - 1);
        x->n_prefix++;
        x->seq[x->n_seqs++] = first;
        x->seq[x->n_seqs] = ids->n;
    }
    return CMC_OK;
}

typedef struct data_spans { align_span *v; size_t *at, n; } data_spans;

/* Different vocabularies: the delta reads the same text in its own tokens (align.h). `cut`: the host's first token behind
 * a cut, SIZE_MAX where there is none. */
static cmc_status data_align_text(const data_opts *o, const cmc_record *r, const cmc_rendered *h, const cmc_rendered *d,
                                  size_t cut, data_spans *sp, data_example *x, cmc_ids *ids, cmc_error *err) {
    size_t from = 0;
    for (size_t k = 0; k < h->n_spans; k++) {
        const cmc_span *hs = &h->spans[k];
        align_in in = align_of((align_side){o->vocab, o->host_template}, (align_side){o->delta_vocab, o->delta_template}, r, h, k);
        in.cut = cut < hs->first ? SIZE_MAX : cut - hs->first;
        size_t prompt = r->text ? (cmc_vocab_adds_bos(o->delta_vocab) ? 1 : 0) : d->spans[k].first;
        if (cmc_ids_append(ids, d->ids.v + from, prompt - from) != CMC_OK)
            return cmc_fail_nomem(err, "an example", prompt * sizeof(int32_t));
        sp->at[k] = ids->n;
        CMC_TRY(align_span_make(&in, &sp->v[k], err));
        sp->n++;
        if (cmc_ids_append(ids, sp->v[k].whole.v, sp->v[k].whole.n) != CMC_OK)
            return cmc_fail_nomem(err, "an example", sp->v[k].whole.n * sizeof(int32_t));
        if (!r->text) { /* the end of the response is part of the prompt that follows */
            from = d->spans[k].first + d->spans[k].n;
            if (k + 1 < h->n_spans && from > 0 && cmc_vocab_is_end(o->delta_vocab, d->ids.v[from - 1]))
                from--;
        }
        data_add_whole(&sp->v[k], h, hs, sp->at[k], x);
    }
    x->n_seqs = 1;
    x->seq[1] = ids->n;
    for (size_t k = 0; k < h->n_spans; k++)
        if (data_add_prefixes(&sp->v[k], h, &h->spans[k], sp->at[k], o->prefix_rows, x, ids) != CMC_OK)
            return cmc_fail_nomem(err, "an example", ids->n * sizeof(int32_t));
    return CMC_OK;
}

static cmc_status data_align(const data_opts *o, const cmc_record *r, const cmc_rendered *h, const cmc_rendered *d,
                             size_t cut, data_example *x, cmc_error *err) {
    cmc_ids ids = {0};
    cmc_status st = CMC_OK;
    if (!data_alloc_targets(h, x)) {
        st = cmc_fail_nomem(err, "an example", h->ids.n * sizeof(int32_t));
    } else if (!o->delta_vocab) {
        if (data_align_same(h, d, x, &ids) != CMC_OK)
            st = cmc_fail_nomem(err, "an example", h->ids.n * sizeof(int32_t));
        x->n_aligned = x->n_targets;
    } else {
        data_spans sp = {cmc_calloc(h->n_spans, sizeof *sp.v), cmc_calloc(h->n_spans, sizeof *sp.at), 0};
        st = sp.v && sp.at ? data_align_text(o, r, h, d, cut, &sp, x, &ids, err)
                           : cmc_fail_nomem(err, "an example", h->n_spans * sizeof *sp.v);
        for (size_t k = 0; k < sp.n; k++)
            align_span_free(&sp.v[k]);
        free(sp.v);
        free(sp.at);
    }
    x->delta_ids = ids.v;
    x->n_delta = ids.n;
    return st;
}

/* Drops what no row is taken from: the main sequence's end, where nothing follows it, and the host's. */
static void data_trim(data_example *x) {
    size_t last = 0;
    for (size_t i = 0; i < x->n_targets; i++)
        last = x->host_row[i] > last ? x->host_row[i] : last;
    x->n_host = last + 1;
    if (x->n_seqs == 1)
        x->n_delta = x->seq[1] = (size_t)x->delta_row[x->n_targets - 1] + 1;
}

static size_t data_longest(const data_example *x) {
    size_t n = 0;
    for (size_t i = 0; i < x->n_seqs; i++)
        n = x->seq[i + 1] - x->seq[i] > n ? x->seq[i + 1] - x->seq[i] : n;
    return n;
}

typedef enum data_use { DATA_USED = 0, DATA_TOO_LONG, DATA_NO_RESPONSE } data_use;

/* Renders one record, whole or cut; *use says whether it became an example. */
static cmc_status data_make(const data_opts *o, const cmc_record *r, const render_cut *cut, data_example *x,
                            data_use *use, cmc_error *err) {
    cmc_rendered h = {0}, g = {0};
    size_t at = SIZE_MAX;
    *use = DATA_USED;
    cmc_status st = cut ? render_with_cut(o->vocab, o->host_template, r, *cut, &h, &at, err)
                        : cmc_render(o->vocab, o->host_template, r, false, &h, err);
    if (st == CMC_OK)
        st = cmc_render(o->delta_vocab ? o->delta_vocab : o->vocab, o->delta_template, r, false, &g, err);
    if (st == CMC_OK && h.n_spans != g.n_spans)
        st = cmc_fail(err, CMC_E_UNSUPPORTED,
                      "line %ld: %zu responses under the host's template and %zu under the delta's", r->line, h.n_spans,
                      g.n_spans);
    if (st == CMC_OK)
        st = data_align(o, r, &h, &g, at, x, err);
    if (st == CMC_OK) {
        if (h.ids.n > o->max_len || data_longest(x) > o->max_len) {
            *use = DATA_TOO_LONG;
        } else if (x->n_targets == 0) {
            *use = DATA_NO_RESPONSE;
        } else {
            data_trim(x);
            x->host_ids = h.ids.v;
            h.ids = (cmc_ids){0};
        }
    }
    cmc_rendered_free(&h);
    cmc_rendered_free(&g);
    return st;
}

static cmc_status data_make_all(data_set *d, const data_opts *o, cmc_error *err) {
    d->v = cmc_calloc(d->records.n, sizeof *d->v);
    if (!d->v)
        return cmc_fail_nomem(err, "the examples", d->records.n * sizeof *d->v);
    for (size_t i = 0; i < d->records.n; i++) {
        data_example *x = &d->v[d->n];
        data_use use;
        if (o->only && !o->only[i])
            continue;
        *x = (data_example){.record = i, .line = d->records.v[i].line, .twin = SIZE_MAX};
        x->role = i >= d->first_refusal    ? ROLE_REFUSAL
                  : i >= d->first_watch[0] ? ROLE_WATCH
                  : i >= d->first_retain   ? ROLE_RETAIN
                                           : ROLE_LEARN;
        cmc_status st = data_make(o, &d->records.v[i], NULL, x, &use, err);
        if (st != CMC_OK || use != DATA_USED)
            data_example_free(x);
        CMC_TRY(st);
        d->n += use == DATA_USED;
        d->too_long += use == DATA_TOO_LONG;
        d->no_response += use == DATA_NO_RESPONSE;
    }
    if (d->n == 0)
        return cmc_fail(err, CMC_E_ARG,
                        "%s: none of the %zu records can be trained on (%zu longer than %zu tokens, %zu without "
                        "a response)",
                        o->paths[0], d->records.n, d->too_long, o->max_len, d->no_response);
    return CMC_OK;
}

/* An example that is cut takes the place of the whole one; one that thereby has too many tokens stays whole. */
static cmc_status data_cut(data_set *d, const data_opts *o, size_t i, cmc_error *err) {
    data_example *x = &d->v[i], y = {.record = x->record, .role = x->role, .twin = x->twin, .line = x->line, .cut = true};
    const cmc_record *r = &d->records.v[x->record];
    render_cut cut;
    data_use use;
    if (!data_cut_draw(o, r, x->record, &cut))
        return CMC_OK;
    cmc_status st = data_make(o, r, &cut, &y, &use, err);
    bool used = st == CMC_OK && use == DATA_USED;
    data_example_free(used ? x : &y);
    if (used)
        *x = y;
    return st;
}

static cmc_status data_cut_all(data_set *d, const data_opts *o, cmc_error *err) {
    cmc_status st = CMC_OK;
    uint8_t *held = o->cuts > 0.0 ? cmc_calloc(d->n, 1) : NULL;
    if (!held)
        return o->cuts > 0.0 ? cmc_fail_nomem(err, "the examples", d->n) : CMC_OK;
    for (size_t i = 0; i < d->n_held; i++)
        held[d->held[i]] = 1;
    for (size_t i = 0; i < d->n && st == CMC_OK; i++)
        st = held[i] || d->v[i].role == ROLE_WATCH ? CMC_OK : data_cut(d, o, i, err);
    free(held);
    return st;
}

/* Counts the examples as they are in the end. */
static void data_count(data_set *d) {
    for (size_t i = 0; i < d->n; i++) {
        data_example *x = &d->v[i];
        size_t longest = data_longest(x);
        x->first_row = d->n_targets;
        d->n_targets += x->n_targets;
        d->n_aligned += x->n_aligned;
        d->n_prefix += x->n_prefix;
        d->n_left_out += x->n_left_out;
        d->max_delta = x->n_delta > d->max_delta ? x->n_delta : d->max_delta;
        d->max_seq = longest > d->max_seq ? longest : d->max_seq;
        d->max_targets = x->n_targets > d->max_targets ? x->n_targets : d->max_targets;
    }
}

/* The rows, and the ids behind them where they are not those of the record as it stands. */
void data_hash_rows(data_set *d) {
    uint64_t h = 0;
    for (size_t i = 0; i < d->n; i++) {
        const data_example *x = &d->v[i];
        h = XXH3_64bits_withSeed(x->host_row, x->n_targets * sizeof *x->host_row, h);
        if (x->cut)
            h = XXH3_64bits_withSeed(x->host_ids, x->n_host * sizeof *x->host_ids, h);
    }
    snprintf(d->rows_hash, sizeof d->rows_hash, "%016llx", (unsigned long long)h);
}

cmc_status data_open(const data_opts *o, data_set *out, cmc_error *err) {
    memset(out, 0, sizeof *out);
    snprintf(out->host_template, sizeof out->host_template, "%s", cmc_template_name(o->host_template));
    snprintf(out->delta_template, sizeof out->delta_template, "%s", cmc_template_name(o->delta_template));
    cmc_status st = data_read(out, o, err);
    if (st == CMC_OK)
        st = data_make_all(out, o, err);
    if (st == CMC_OK)
        st = data_sort_roles(out, o, err);
    if (st == CMC_OK)
        st = data_split(out, o->held_out, err);
    if (st == CMC_OK)
        st = data_cut_all(out, o, err);
    if (st == CMC_OK) {
        data_count(out);
        data_hash_rows(out);
    }
    if (st != CMC_OK)
        data_free(out);
    return st;
}

void data_free(data_set *d) {
    for (size_t i = 0; i < d->n; i++)
        data_example_free(&d->v[i]);
    free(d->v);
    free(d->train);
    free(d->held);
    free(d->retain);
    free(d->watch);
    cmc_records_free(&d->records);
    memset(d, 0, sizeof *d);
}

void data_shuffle(const size_t *list, size_t n, uint64_t seed, uint64_t epoch, size_t *order) {
    uint64_t rng = seed * 0x9E3779B97F4A7C15u + epoch;
    params_random(&rng);
    memcpy(order, list, n * sizeof *order);
    for (size_t i = n; i > 1; i--) { /* the bias of the remainder is below 2^-40 for any real data */
        size_t j = (size_t)(params_random(&rng) % i), x = order[i - 1];
        order[i - 1] = order[j];
        order[j] = x;
    }
}
