/* Streams inside the library: their parts, and a hook for choosing tokens by other means than the sampler. */
#ifndef CMC_RUNTIME_STREAM_H
#define CMC_RUNTIME_STREAM_H
#include "runtime/follow.h"
#include "runtime/sampler.h"
#include "runtime/stream_text.h"

/* Chooses the next token from the steered logits[n]. */
typedef int32_t (*stream_pick_fn)(void *user, const float *logits, int32_t n);

/* One delta's part in a stream. It comes to life at the first step at which the delta's strength is not 0. */
typedef struct stream_delta {
    cmc_ids prompt;
    bool live;
    follow f;
    cmc_session *session;
    float *row;                 /* [n_vocab] of the delta */
} stream_delta;

struct cmc_stream {
    const cmc_steering *st;
    bool unsteered, ignore_end, is_text;
    int32_t max_tokens;
    int32_t repeat_last_n;
    size_t limit;               /* tokens that the host's context holds */
    cmc_ids seq; size_t n_prompt;   /* prompt, then what was emitted */
    cmc_session *host;
    float *logits;              /* [n_vocab] of the host; holds the next token's row where have_row */
    bool have_row;
    bool compare; float *host_row, *steered_row;   /* the last step's logits, before and after the shift; else NULL */
    stream_delta *deltas; size_t n_deltas;
    gate gate;
    const float **rows; steering_row *kinds; double *alphas;   /* [n_deltas] of the step */
    steering_work work;
    sampler *sampler;
    stream_pick_fn pick; void *pick_user;
    stream_text text;
    cmc_stop stop;
    char note[320];
    cmc_stream_timing timing;
    bool stepped;
};

/* Whether the next row is the prompt's. It is never estimated, so that whoever shares the prompt has the same. */
static inline bool stream_at_prompt(const cmc_stream *s) {
    return s->seq.n == s->n_prompt;
}
/* In place of the sampler, from the next step on. */
void stream_set_pick(cmc_stream *s, stream_pick_fn pick, void *user);
/* Delta k's context at the last step, prompt included; NULL where it took no part yet. *n_prompt: its
 * prompt's tokens. */
const cmc_ids *stream_delta_context(const cmc_stream *s, size_t k, size_t *n_prompt);
#endif
