/* Following a host's response with the delta's tokenizer, all of it at once. */
#include "tinylm/align.h"

#include <stdlib.h>
#include <string.h>

#include "base/mem.h"
#include "runtime/lead.h"
#include "runtime/template.h"
#include "tokenmap/retok.h"

typedef struct align_reader {
    const align_in *in;
    retok *rt;         /* the text, from the cut on where there was one */
    cmc_ids ids;       /* its tokens, behind those of what was before the cut */
    size_t n_cut;      /* so many of them */
    bool begun;        /* the response has a byte */
} align_reader;

static cmc_status align_push(align_reader *a, int32_t id, cmc_error *err) {
    size_t n;
    const uint8_t *s = cmc_vocab_bytes(a->in->host, id, &n);
    return lead_push(a->rt, a->in->host_lead, a->in->delta_lead, &a->begun, s, n, err);
}

static void align_end(align_reader *a) {
    retok_free(a->rt);
    cmc_ids_free(&a->ids);
}

/* The delta's tokens of the text so far, in a->ids. */
static cmc_status align_ids(align_reader *a, cmc_error *err) {
    const int32_t *ids;
    size_t n, kept;
    CMC_TRY(retok_ids(a->rt, &ids, &n, &kept, err));
    a->ids.n = a->n_cut;
    return cmc_ids_append(&a->ids, ids, n) == CMC_OK ? CMC_OK : cmc_fail_nomem(err, "a response", n * sizeof *ids);
}

/* What was read keeps the tokens it has; what follows gets its own. */
static cmc_status align_cut(align_reader *a, cmc_error *err) {
    CMC_TRY(align_ids(a, err));
    a->n_cut = a->ids.n;
    retok_free(a->rt);
    a->rt = NULL;
    return retok_new(a->in->delta, &a->rt, err);
}

static cmc_status align_begin(align_reader *a, const align_in *in, cmc_error *err) {
    *a = (align_reader){.in = in};
    CMC_TRY(retok_new(in->delta, &a->rt, err));
    cmc_status st = CMC_OK;
    for (size_t i = 0; i < in->n_before && st == CMC_OK; i++) {
        bool bos = i == 0 && (cmc_vocab_roles(in->host, in->before[0]) & CMC_ROLE_BOS);
        if (!bos) /* the delta has its own, if any */
            st = align_push(a, in->before[i], err);
    }
    if (st != CMC_OK)
        align_end(a);
    return st;
}

static cmc_status align_whole(const align_in *in, cmc_ids *whole, cmc_error *err) {
    align_reader a;
    CMC_TRY(align_begin(&a, in, err));
    cmc_status st = CMC_OK;
    for (size_t i = 0; i < in->n && st == CMC_OK; i++) {
        st = i == in->cut ? align_cut(&a, err) : CMC_OK;
        if (st == CMC_OK)
            st = align_push(&a, in->ids[i], err);
    }
    if (st == CMC_OK)
        st = align_ids(&a, err);
    if (st == CMC_OK) {
        *whole = a.ids;
        a.ids = (cmc_ids){0};
    }
    align_end(&a);
    return st;
}

static cmc_status align_place_make(align_reader *a, align_span *out, align_place *p, cmc_error *err) {
    bool open_lead = !a->in->text && !a->begun && strcmp(a->in->host_lead, a->in->delta_lead) != 0;
    *p = (align_place){.kind = ALIGN_NONE};
    if (open_lead || !retok_whole(a->rt))
        return CMC_OK;
    CMC_TRY(align_ids(a, err));
    const int32_t *ids = a->ids.v;
    size_t n = a->ids.n;
    bool begins = n <= out->whole.n && (n == 0 || memcmp(ids, out->whole.v, n * sizeof *ids) == 0);
    *p = (align_place){.kind = begins ? ALIGN_WHOLE : ALIGN_PREFIX, .n = n, .at = out->prefixes.n};
    if (!begins && cmc_ids_append(&out->prefixes, ids, n) != CMC_OK)
        return cmc_fail_nomem(err, "a response", n * sizeof *ids);
    return CMC_OK;
}

/* The space that a SentencePiece vocabulary puts before a bare text is no byte of it. */
static const char *align_space(const cmc_vocab *v) {
    return v->model == VOCAB_SPM && v->add_space_prefix ? " " : "";
}

align_in align_of(align_side host, align_side delta, const cmc_record *r, const cmc_rendered *h, size_t span) {
    const cmc_span *s = &h->spans[span];
    bool text = r->text != NULL;
    return (align_in){.host = host.v,
                      .delta = delta.v,
                      .host_lead = text ? align_space(host.v) : template_lead(host.t, host.v),
                      .delta_lead = text ? "" : template_lead(delta.t, delta.v),
                      .text = text,
                      .before = h->ids.v,
                      .n_before = text ? s->first : 0,
                      .ids = h->ids.v + s->first,
                      .n = s->n,
                      .cut = SIZE_MAX};
}

cmc_status align_span_make(const align_in *in, align_span *out, cmc_error *err) {
    align_reader a;
    *out = (align_span){.n = in->n, .place = cmc_calloc(in->n, sizeof *out->place)};
    if (!out->place)
        return cmc_fail_nomem(err, "a response", in->n * sizeof *out->place);
    cmc_status st = align_whole(in, &out->whole, err);
    if (st == CMC_OK && (st = align_begin(&a, in, err)) == CMC_OK) {
        for (size_t i = 0; i < in->n && st == CMC_OK; i++) {
            st = i == in->cut ? align_cut(&a, err) : CMC_OK;
            if (st == CMC_OK)
                st = align_place_make(&a, out, &out->place[i], err);
            if (st == CMC_OK)
                st = align_push(&a, in->ids[i], err);
        }
        align_end(&a);
    }
    if (st != CMC_OK)
        align_span_free(out);
    return st;
}

void align_span_free(align_span *a) {
    cmc_ids_free(&a->whole);
    cmc_ids_free(&a->prefixes);
    free(a->place);
    *a = (align_span){0};
}
