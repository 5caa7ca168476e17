/* A delta's context: its own prompt, then the response so far in its own tokens (docs/design.md, "The text is what host and delta share"). Streams and
 * scores both go through it, so that a score is what generating would have seen. */
#ifndef CMC_RUNTIME_FOLLOW_H
#define CMC_RUNTIME_FOLLOW_H
#include "runtime/steering.h"
#include "tokenmap/retok.h"

typedef struct follow {
    const cmc_vocab *host;     /* whose tokens are pushed */
    retok *rt;                 /* NULL: the host's ids as they are */
    cmc_ids own;               /* those ids */
    cmc_ids ctx; size_t n_prompt;
    const char *host_lead, *delta_lead;
    bool first_map;            /* the response's first token goes by the delta's first_map */
    bool begun;                /* the response has a byte */
    size_t n_ctx, skip;        /* the delta's context; how many of the response's ids it has left behind */
    bool cut;                  /* it ever had to */
} follow;

/* What a delta's follower needs of the record. A bare text is a response to an empty prompt, BOS at most. */
typedef struct follow_start {
    const int32_t *prompt; size_t n_prompt;
    bool text;
} follow_start;

cmc_status follow_init(follow *f, const cmc_steering *st, const steering_delta *d, follow_start start, cmc_error *err);
void follow_free(follow *f);
/* The host's next token of the response. */
cmc_status follow_push(follow *f, int32_t host_id, cmc_error *err);
/* The tokens of a text record that the host was given before the first one that counts. */
cmc_status follow_push_text(follow *f, const int32_t *ids, size_t n, cmc_error *err);
/* The delta's context now, in f->ctx, and whether its row counts: not while a UTF-8 character is unfinished (then the
 * context is as it was), nor where there is no token at all. */
cmc_status follow_context(follow *f, steering_row *kind, cmc_error *err);
/* What there is to say of a context that was cut, of a delta's that is `model`. */
void follow_note(const follow *f, const cmc_model *model, char *out, size_t size);
#endif
