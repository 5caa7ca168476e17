/* The bounded shift, plainly, and the search for its centre. Its fast twin is shift_bound_fast.c. */
#include "tokenmap/shift_bound.h"
#include "tokenmap/shift_lanes.h"

float bound_least(float top, double plausible) {
    return plausible > 0 ? (float)((double)top + log(plausible)) : -INFINITY;
}

/* At the least of the shifts no token falls, at the greatest none rises: the centre is between. Newton's step, which is exact while
 * the same tokens are at their bounds, but the middle where it leaves what is known to hold the centre, and every third time. */
double bound_centre(const bound_row *r, bound_eval *eval, double tolerance) {
    double low = r->low, high = r->high, c = fmin(fmax(0, low), high);
    for (int i = 0; high - low > tolerance * fmax(1, fabs(c)); i++) {
        const bound_sums sum = eval(r, c);
        const double over = sum.all - r->mass, room = sum.free - over;   /* room: what those at no bound are to weigh */
        if (fabs(over) <= tolerance * r->mass) {
            break;
        }
        if (over > 0) {
            low = c;
        } else {
            high = c;
        }
        const double next = sum.free > 0 && room > 0 ? c + log(sum.free / room) : high;
        c = i % 3 < 2 && next > low && next < high ? next : low + (high - low) / 2;
    }
    return c;
}

static double bounded(const bound_row *r, int32_t i, double shift) {
    return fmin(fmax(shift, -(double)r->limit), r->h[i] >= r->least ? (double)r->limit : 0);
}

static bound_sums bound_sums_plain(const bound_row *r, double c) {
    bound_sums sum = {0, 0};
    for (int32_t i = 0; i < r->n; i++) {
        if (r->s[i] > -INFINITY) {
            const double v = (double)r->s[i] - c, b = bounded(r, i, v);
            const double weight = exp(fmin((double)r->h[i] - (double)r->top + b, BOUND_MOST));
            sum.all += weight;
            sum.free += b < v || b > v ? 0 : weight;
        }
    }
    return sum;
}

/* What of the row does not hang on the centre. A banned token weighs nothing, wherever it is shifted to. */
static bound_row bound_row_plain(const float *h, const float *s, int32_t n, const shift_bounds *b) {
    bound_row r = {.h = h, .s = s, .n = n, .limit = (float)b->limit, .top = -INFINITY, .low = INFINITY, .high = -INFINITY};
    float top = -INFINITY;
    for (int32_t i = 0; i < n; i++) {
        top = fmaxf(top, h[i]);
        if (s[i] > -INFINITY && h[i] > -INFINITY) {
            r.top = fmaxf(r.top, h[i]);
            r.low = fmin(r.low, (double)s[i]);
            r.high = fmax(r.high, (double)s[i]);
        }
    }
    r.least = bound_least(top, b->plausible);
    for (int32_t i = 0; i < n; i++) {
        r.mass += s[i] > -INFINITY && r.top > -INFINITY ? exp((double)h[i] - (double)r.top) : 0;
    }
    return r;
}

void shift_apply_bounded_plain(float *logits, int32_t n_host, const shift_in *in, size_t n, bool raw, const shift_bounds *b,
                               float *work) {
    const double start = shift_sum_plain(logits, n_host, in, n, raw, work);
    for (int32_t i = 0; i < n_host; i++) {
        work[i] = (float)((double)work[i] - start);
    }
    const bound_row r = bound_row_plain(logits, work, n_host, b);
    const double c = raw || r.top == -INFINITY ? 0 : bound_centre(&r, bound_sums_plain, 1e-12);
    for (int32_t i = 0; i < n_host; i++) {
        if (work[i] > -INFINITY) {
            logits[i] = (float)((double)logits[i] + bounded(&r, i, (double)work[i] - c));
        }
    }
}

void shift_apply_bounded(float *logits, int32_t n_host, const shift_in *in, size_t n, bool raw, const shift_bounds *b, float *work) {
    if (n == 0) {
        return;
    }
#ifdef SHIFT_LANES
    if (lanes_here()) {
        shift_apply_bounded_lanes(logits, n_host, in, n, raw, b, work);
        return;
    }
#endif
    shift_apply_bounded_plain(logits, n_host, in, n, raw, b, work);
}
