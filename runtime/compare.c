/* How far steering moved one step's distribution: two softmaxes side by side. */
#include "runtime/compare.h"

#include <math.h>

#include "runtime/model.h"
#include "runtime/stream.h"
#include "tokenmap/map.h"

/* The tokens whose probability changed most in one direction, the greatest change first. */
typedef struct compare_best { cmc_moved *v; size_t n; double by[CMC_MOVED]; } compare_best;

/* Ids come in ascending order: of equal changes the lowest id stays first. */
static void compare_keep(compare_best *b, double by, cmc_moved token) {
    if (!(by > 0) || (b->n == CMC_MOVED && !(by > b->by[CMC_MOVED - 1]))) return;
    size_t at = b->n < CMC_MOVED ? b->n++ : CMC_MOVED - 1;
    for (; at > 0 && by > b->by[at - 1]; at--) {
        b->by[at] = b->by[at - 1];
        b->v[at] = b->v[at - 1];
    }
    b->by[at] = by;
    b->v[at] = token;
}

void compare_rows(const float *host, const float *steered, int32_t n, int32_t id, cmc_comparison *out) {
    double host_sum = shift_log_sum_plain(host, n), sum = shift_log_sum_plain(steered, n);
    compare_best raised = {.v = out->raised}, lowered = {.v = out->lowered};
    out->kl = 0;
    for (int32_t i = 0; i < n; i++) {
        cmc_moved t = {i, (double)host[i] - host_sum, (double)steered[i] - sum};
        double q = exp(t.host_logprob), p = exp(t.logprob);
        out->kl += p > 0 ? p * (t.logprob - t.host_logprob) : 0;
        compare_keep(&raised, p - q, t);
        compare_keep(&lowered, q - p, t);
        if (i == 0 || t.host_logprob > out->host_top.host_logprob) out->host_top = t;
        if (i == 0 || t.logprob > out->top.logprob) out->top = t;
        if (i == id) out->token = t;
    }
    if (out->kl < 0) out->kl = 0; /* rounding */
    out->n_raised = raised.n;
    out->n_lowered = lowered.n;
}

cmc_status cmc_stream_compare(const cmc_stream *s, cmc_comparison *out, cmc_error *err) {
    *out = (cmc_comparison){0};
    if (!s->compare) return cmc_fail(err, CMC_E_ARG, "the stream keeps nothing to compare: `compare` was not asked for");
    if (s->seq.n == s->n_prompt) return cmc_fail(err, CMC_E_ARG, "the stream has no token yet, so there is nothing to compare");
    compare_rows(s->host_row, s->steered_row, cmc_model_n_vocab(s->st->host), s->seq.v[s->seq.n - 1], out);
    for (size_t k = 0; k < s->n_deltas; k++) {
        bool active = steering_active(s->alphas[k]);
        out->n_deltas += active;
        out->n_waiting += active && s->kinds[k] == STEERING_NO_ROW;
    }
    return CMC_OK;
}
