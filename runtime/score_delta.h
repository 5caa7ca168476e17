/* The final hidden states that a delta has at every scored token, for scoring. */
#ifndef CMC_RUNTIME_SCORE_DELTA_H
#define CMC_RUNTIME_SCORE_DELTA_H
#include "runtime/follow.h"

/* Positions of a sequence at which a row is wanted, and where each goes. Ascending; one may be there twice. */
typedef struct score_want { size_t pos; float *out; } score_want;

/* Evaluates ids[0..want[n-1].pos] in `s`, keeping what it has of it, and gives the final hidden state at each wanted
 * position, a block of tokens at a time. */
cmc_status score_rows(cmc_session *s, const int32_t *ids, const score_want *want, size_t n, cmc_error *err);

/* For delta d and every scored token q of the host's rendering `host` of `r` (spans in order, each from token
 * max(first, 1)): kinds[q], and hidden[q][n_embd of the delta] where it is not STEERING_NO_ROW. Of a context that was full, `note`
 * says so, where it is empty so far. */
enum { SCORE_NOTE = 400 };
cmc_status score_delta(const cmc_steering *st, const steering_delta *d, const cmc_record *r, const cmc_rendered *host,
                       steering_row *kinds, float *hidden, char note[SCORE_NOTE], cmc_error *err);
#endif
