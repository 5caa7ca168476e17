/* The shift and its transpose, plainly: each formula of steering (docs/design.md) as one loop, sums in double. The fast twin of this
 * file is shift_fast.c, which is tested against it. */
#include <math.h>

#include "tokenmap/shift_impl.h"

static bool mapped_by_any(const shift_in *in, size_t n, int32_t i) {
    for (size_t k = 0; k < n; k++) {
        if (in[k].map->to[i] >= 0) {
            return true;
        }
    }
    return false;
}

/* C = log( sum_M p_i e^{s_i} / sum_M p_i ), M the tokens that any of in[0..n) maps, p = softmax(h). The softmax's own
 * denominator cancels, so everything is taken relative to h's greatest value on M: exact for logits of any size.
 * 0 where the host gives all of M no probability. */
static double centre(const float *h, const float *s, int32_t n_host, const shift_in *in, size_t n) {
    double top_h = -INFINITY, top_y = -INFINITY, sum_h = 0, sum_y = 0;
    for (int32_t i = 0; i < n_host; i++) {
        if (mapped_by_any(in, n, i)) {
            top_h = fmax(top_h, (double)h[i]);
        }
    }
    if (top_h == -INFINITY) {
        return 0;
    }
    for (int32_t i = 0; i < n_host; i++) {
        if (mapped_by_any(in, n, i)) {
            top_y = fmax(top_y, (double)h[i] - top_h + (double)s[i]);
        }
    }
    for (int32_t i = 0; i < n_host; i++) {
        if (mapped_by_any(in, n, i)) {
            sum_h += exp((double)h[i] - top_h);
            sum_y += exp((double)h[i] - top_h + (double)s[i] - top_y);
        }
    }
    return top_y + log(sum_y) - log(sum_h);
}

double shift_sum_plain(const float *logits, int32_t n_host, const shift_in *in, size_t n, bool raw, float *work) {
    float *s = work, *x = work + n_host;     /* the sum over deltas, and one delta's alpha_k d_k[map_k[i]] */
    for (int32_t i = 0; i < n_host; i++) {
        s[i] = 0;
    }
    for (size_t k = 0; k < n; k++) {
        const int32_t *to = in[k].map->to;
        for (int32_t i = 0; i < n_host; i++) {
            x[i] = to[i] < 0 ? 0.0f : in[k].alpha * in[k].logits[to[i]];
        }
        double c = raw ? 0 : centre(logits, x, n_host, &in[k], 1);
        for (int32_t i = 0; i < n_host; i++) {
            s[i] += to[i] < 0 ? 0.0f : (float)((double)x[i] - c);
        }
    }
    double c = raw ? 0 : centre(logits, s, n_host, in, n);
    for (int32_t i = 0; i < n_host; i++) {
        if (!mapped_by_any(in, n, i)) {
            s[i] = -INFINITY;
        }
    }
    return c;
}

void shift_apply_plain(float *logits, int32_t n_host, const shift_in *in, size_t n, bool raw, float *work) {
    const double c = shift_sum_plain(logits, n_host, in, n, raw, work);
    for (int32_t i = 0; i < n_host; i++) {
        if (work[i] != -INFINITY) {
            logits[i] = (float)((double)logits[i] + ((double)work[i] - c));
        }
    }
}

/* Of logits that are all -inf or NaN. */
static double log_sum_nothing(const float *logits, int32_t n) {
    for (int32_t i = 0; i < n; i++) {
        if (isnan(logits[i])) {
            return NAN;
        }
    }
    return -INFINITY;
}

double shift_log_sum_plain(const float *logits, int32_t n) {
    double top = -INFINITY, sum = 0;
    for (int32_t i = 0; i < n; i++) {
        top = fmax(top, (double)logits[i]);
    }
    for (int32_t i = 0; i < n && top > -INFINITY; i++) {
        sum += exp((double)logits[i] - top);
    }
    return top == -INFINITY && sum == 0 ? log_sum_nothing(logits, n) : top + log(sum);
}

/* With o the steered logits, q = softmax(o), M the mapped tokens and P_M their probability, the same before and after:
 *   dL/dd[j] = alpha ( sum_{i: map[i]=j} q_i / P_M - [map[y]=j] ),   0 where the target y is unmapped;
 *   raw:       alpha ( sum_{i: map[i]=j} q_i - [map[y]=j] ).
 * So the softmax is over M, or over everything where raw. */
void shift_transpose_plain(const cmc_map *m, float alpha, bool raw, const float *host_logits,
                           const float *steered_logits, int32_t target, float *ddelta) {
    (void)host_logits;
    const float *o = steered_logits;
    const int32_t *to = m->to;
    if (!raw && to[target] < 0) {
        return;
    }
    double top = -INFINITY, sum = 0;
    for (int32_t i = 0; i < m->n_host; i++) {
        if (raw || to[i] >= 0) {
            top = fmax(top, (double)o[i]);
        }
    }
    if (top == -INFINITY) {
        return;
    }
    for (int32_t i = 0; i < m->n_host; i++) {
        if (raw || to[i] >= 0) {
            sum += exp((double)o[i] - top);
        }
    }
    for (int32_t i = 0; i < m->n_host; i++) {
        if (to[i] >= 0) {
            ddelta[to[i]] += (float)((double)alpha * exp((double)o[i] - top) / sum);
        }
    }
    if (to[target] >= 0) {
        ddelta[to[target]] -= alpha;
    }
}
