/* Where a delta with a vocabulary of its own stands when each host token of a response is due. */
#ifndef CMC_TINYLM_ALIGN_H
#define CMC_TINYLM_ALIGN_H
#include "base/error.h"

typedef enum align_kind {
    ALIGN_WHOLE = 0,   /* the delta's tokens so far begin those of the whole response: one pass gives the row */
    ALIGN_PREFIX,      /* the text so far has other tokens, in `prefixes` */
    ALIGN_NONE         /* no row: a character is unfinished, or the response's lead is still open (lead.h) */
} align_kind;

typedef struct align_place {
    align_kind kind;
    size_t n;          /* the delta's tokens read of this response */
    size_t at;         /* ALIGN_PREFIX: they are prefixes[at .. at + n) */
} align_place;

typedef struct align_span {
    cmc_ids whole;     /* the response in the delta's tokens */
    cmc_ids prefixes;
    align_place *place; size_t n;   /* for each of the host's tokens */
} align_span;

/* What the delta's context would be while the host gives ids[0..n), as in generating (docs/design.md, "The text is what host and delta share"): `before` are tokens of
 * a bare text that come before the first that counts. The leads are what host's and delta's responses begin with. */
typedef struct align_in {
    const cmc_vocab *host, *delta;
    const char *host_lead, *delta_lead;
    bool text;         /* a bare text: what is taken away before it is no lead that a map would have to know */
    const int32_t *before; size_t n_before;
    const int32_t *ids; size_t n;
    size_t cut;        /* the response is cut before ids[cut]: the delta too reads what follows in tokens of its own; SIZE_MAX: not */
} align_in;
/* That of a record's response `span`, as rendered for the host; not cut. */
typedef struct align_side { const cmc_vocab *v; cmc_template t; } align_side;
align_in align_of(align_side host, align_side delta, const cmc_record *r, const cmc_rendered *h, size_t span);
cmc_status align_span_make(const align_in *in, align_span *out, cmc_error *err);
void align_span_free(align_span *a);
#endif
