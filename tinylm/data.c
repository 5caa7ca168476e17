/* Records -> examples: rendering for both models, alignment of targets, the held-out split, the order of an epoch. */
#include "tinylm/data.h"

#include <ctype.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <xxhash.h>

#include "base/mem.h"
#include "tinylm/params.h"

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

/* Divides the examples. Where something is to be held out at all, at least one example is, and one is trained on. */
static cmc_status data_split(data_set *d, double held_out, cmc_error *err) {
    d->train = cmc_alloc(d->n, sizeof *d->train);
    d->held = cmc_alloc(d->n, sizeof *d->held);
    if (!d->train || !d->held)
        return cmc_fail_nomem(err, "the held-out split", d->n * sizeof *d->train);
    double lowest = 2.0;
    for (size_t i = 0; i < d->n; i++) {
        double x = data_split_point(&d->records.v[d->v[i].record]);
        lowest = x < lowest ? x : lowest;
    }
    double bound = held_out > 0.0 && lowest >= held_out ? lowest : held_out;
    for (size_t i = 0; i < d->n; i++) {
        double x = data_split_point(&d->records.v[d->v[i].record]);
        if (held_out > 0.0 && (x < held_out || x == bound))
            d->held[d->n_held++] = i;
        else
            d->train[d->n_train++] = i;
    }
    if (d->n_train == 0)
        return cmc_fail(err, CMC_E_ARG,
                        "all %zu usable records are held out (a share of %g): nothing is left to train on; "
                        "records with the same prompt stay together",
                        d->n, held_out);
    return CMC_OK;
}

/* -------------------------------------------------------------------------------------------- examples */

static void data_example_free(data_example *x) {
    free(x->host_ids);
    free(x->delta_ids);
    free(x->targets);
    free(x->host_row);
    free(x->delta_row);
}

/* The delta's ids: its own prompt parts, with the host's response ids in place of its own (equal vocabularies: design,
 * contract 5). Fills the example's targets and rows. */
static cmc_status data_align(const cmc_rendered *h, const cmc_rendered *d, data_example *x) {
    cmc_ids ids = {0};
    size_t from = 0, n = 0;
    for (size_t k = 0; k < h->n_spans; k++)
        n += h->spans[k].n;
    x->targets = cmc_alloc(n, sizeof *x->targets);
    x->host_row = cmc_alloc(n, sizeof *x->host_row);
    x->delta_row = cmc_alloc(n, sizeof *x->delta_row);
    if (!x->targets || !x->host_row || !x->delta_row)
        return CMC_E_NOMEM;
    for (size_t k = 0; k < h->n_spans; k++) {
        const cmc_span *hs = &h->spans[k], *ds = &d->spans[k];
        cmc_status st = cmc_ids_append(&ids, d->ids.v + from, ds->first - from);
        size_t at = ids.n;
        if (st == CMC_OK)
            st = cmc_ids_append(&ids, h->ids.v + hs->first, hs->n);
        if (st != CMC_OK) {
            cmc_ids_free(&ids);
            return st;
        }
        from = ds->first + ds->n;
        for (size_t i = 0; i < hs->n; i++) {
            if (hs->first + i == 0 || at + i == 0) /* nothing stands before it */
                continue;
            x->targets[x->n_targets] = h->ids.v[hs->first + i];
            x->host_row[x->n_targets] = (uint32_t)(hs->first + i - 1);
            x->delta_row[x->n_targets++] = (uint32_t)(at + i - 1);
        }
    }
    x->delta_ids = ids.v;
    x->n_delta = ids.n;
    return CMC_OK;
}

/* Renders one record; *use says whether it became an example (otherwise it is counted as left out). */
static cmc_status data_make(data_set *d, const data_opts *o, const cmc_record *r, data_example *x, bool *use,
                            cmc_error *err) {
    cmc_rendered h = {0}, g = {0};
    *use = false;
    cmc_status st = cmc_render(o->vocab, o->host_template, r, false, &h, err);
    if (st == CMC_OK)
        st = cmc_render(o->vocab, o->delta_template, r, false, &g, err);
    if (st == CMC_OK && h.n_spans != g.n_spans)
        st = cmc_fail(err, CMC_E_UNSUPPORTED,
                      "line %ld: %zu responses under the host's template and %zu under the delta's", r->line, h.n_spans,
                      g.n_spans);
    if (st == CMC_OK) {
        st = data_align(&h, &g, x);
        if (st != CMC_OK)
            cmc_fail_nomem(err, "an example", h.ids.n * sizeof(int32_t));
    }
    if (st == CMC_OK) {
        if (h.ids.n > o->max_len || x->n_delta > o->max_len) {
            d->too_long++;
        } else if (x->n_targets == 0) {
            d->no_response++;
        } else {
            x->n_host = (size_t)x->host_row[x->n_targets - 1] + 1;
            x->n_delta = (size_t)x->delta_row[x->n_targets - 1] + 1;
            x->host_ids = h.ids.v;
            h.ids = (cmc_ids){0};
            *use = true;
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
        bool use;
        *x = (data_example){.record = i, .line = d->records.v[i].line, .first_row = d->n_targets};
        cmc_status st = data_make(d, o, &d->records.v[i], x, &use, err);
        if (st != CMC_OK || !use)
            data_example_free(x);
        CMC_TRY(st);
        if (!use)
            continue;
        d->n++;
        d->n_targets += x->n_targets;
        d->max_delta = x->n_delta > d->max_delta ? x->n_delta : d->max_delta;
        d->max_targets = x->n_targets > d->max_targets ? x->n_targets : d->max_targets;
    }
    if (d->n == 0)
        return cmc_fail(err, CMC_E_ARG,
                        "%s: none of the %zu records can be trained on (%zu longer than %zu tokens, %zu without "
                        "a response)",
                        o->paths[0], d->records.n, d->too_long, o->max_len, d->no_response);
    return CMC_OK;
}

cmc_status data_open(const data_opts *o, data_set *out, cmc_error *err) {
    memset(out, 0, sizeof *out);
    snprintf(out->host_template, sizeof out->host_template, "%s", cmc_template_name(o->host_template));
    snprintf(out->delta_template, sizeof out->delta_template, "%s", cmc_template_name(o->delta_template));
    cmc_status st = CMC_OK;
    for (size_t i = 0; i < o->n_paths && st == CMC_OK; i++)
        st = cmc_records_read(o->paths[i], true, &out->records, err);
    if (st == CMC_OK)
        memcpy(out->hash, out->records.hash, sizeof out->hash);
    if (st == CMC_OK)
        st = data_make_all(out, o, err);
    if (st == CMC_OK)
        st = data_split(out, o->held_out, err);
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
    cmc_records_free(&d->records);
    memset(d, 0, sizeof *d);
}

void data_shuffle(const data_set *d, uint64_t seed, uint64_t epoch, size_t *order) {
    uint64_t rng = seed * 0x9E3779B97F4A7C15u + epoch;
    params_random(&rng);
    memcpy(order, d->train, d->n_train * sizeof *order);
    for (size_t i = d->n_train; i > 1; i--) { /* the bias of the remainder is below 2^-40 for any real data */
        size_t j = (size_t)(params_random(&rng) % i), x = order[i - 1];
        order[i - 1] = order[j];
        order[j] = x;
    }
}
