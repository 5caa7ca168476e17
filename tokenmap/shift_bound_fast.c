/* The bounded shift, several tokens at a time. The same results as shift_bound.c up to rounding. */
#include "tokenmap/shift_bound.h"
#include "tokenmap/shift_lanes.h"

#ifdef SHIFT_LANES

enum { BLOCK = SHIFT_BLOCK };

/* Runs STEP(i, left) over the row, and AFTER once a block: sums in float are taken no further than that. */
#define FOR_BLOCKS(n, STEP, AFTER)                                          \
    do {                                                                    \
        for (int32_t at = 0; at < (n); at += BLOCK) {                       \
            FOR_LANES((n) - at < BLOCK ? (n) - at : BLOCK, STEP);           \
            AFTER;                                                          \
        }                                                                   \
    } while (0)

INLINE lanes bounded(const bound_row *r, lanes h, lanes shift) {
    const lanes rise = lanes_pick(lanes_at_least(h, lanes_of(r->least)), lanes_of(r->limit), lanes_of(0));
    return lanes_min(lanes_max(shift, lanes_of(-r->limit)), rise);
}

static TARGET bound_sums bound_sums_lanes(const bound_row *r, double c) {
    const lanes centre = lanes_of((float)c), top = lanes_of(r->top), none = lanes_of(-INFINITY), zero = lanes_of(0);
    bound_sums sum = {0, 0};
    lanes all = zero, at_none = zero;
#define STEP(i, left)                                                                                            \
    do {                                                                                                         \
        const lanes s = lanes_load(r->s + at + (i), left), h = lanes_load(r->h + at + (i), left);                \
        const lanes v = s - centre, b = bounded(r, h, v), u = lanes_pick(is_unmapped(s), none, h - top) + b;     \
        const lanes weight = lanes_exp(lanes_min(u, lanes_of(BOUND_MOST)));                                      \
        all = all + weight;                                                                                      \
        at_none = at_none + lanes_pick(lanes_equal(b, v), weight, zero);                                         \
    } while (0)
#define AFTER                           \
    do {                                \
        sum.all += lanes_sum(all);      \
        sum.free += lanes_sum(at_none); \
        all = at_none = zero;           \
    } while (0)
    FOR_BLOCKS(r->n, STEP, AFTER);
#undef STEP
#undef AFTER
    return sum;
}

static TARGET double mass_lanes(const bound_row *r) {
    const lanes top = lanes_of(r->top), none = lanes_of(-INFINITY);
    double sum = 0;
    lanes part = lanes_of(0);
#define STEP(i, left)                                                                                            \
    part = part + lanes_exp(lanes_pick(is_unmapped(lanes_load(r->s + at + (i), left)), none,                     \
                                       lanes_load(r->h + at + (i), left) - top))
#define AFTER                   \
    do {                        \
        sum += lanes_sum(part); \
        part = lanes_of(0);     \
    } while (0)
    FOR_BLOCKS(r->n, STEP, AFTER);
#undef STEP
#undef AFTER
    return sum;
}

/* Takes `start` from the shifts, so that the centre is next to 0 and its rounding to float matters little. */
static TARGET bound_row bound_row_lanes(const float *h, float *s, int32_t n, double start, const shift_bounds *b) {
    bound_row r = {.h = h, .s = s, .n = n, .limit = (float)b->limit};
    const lanes base = lanes_of((float)start), none = lanes_of(-INFINITY);
    lanes top = none, top_mapped = none, low = none, high = none;    /* low: of -s */
#define STEP(i, left)                                                                                            \
    do {                                                                                                         \
        const lanes x = lanes_load(h + (i), left), v = lanes_load(s + (i), left) - base;                         \
        const lanes weighs = lanes_pick(lanes_equal(x, none), none, v);                                          \
        lanes_store(s + (i), left, v);                                                                           \
        top = lanes_max(top, x);                                                                                 \
        top_mapped = lanes_max(top_mapped, lanes_pick(is_unmapped(v), none, x));                                 \
        low = lanes_max(low, lanes_pick(is_unmapped(weighs), none, lanes_of(0) - weighs));                       \
        high = lanes_max(high, weighs);                                                                          \
    } while (0)
    FOR_LANES(n, STEP);
#undef STEP
    r.top = lanes_top(top_mapped);
    r.low = -(double)lanes_top(low);
    r.high = (double)lanes_top(high);
    r.least = bound_least(lanes_top(top), b->plausible);
    return r;
}

static TARGET void add_bounded(const bound_row *r, float *h, double c) {
    const lanes centre = lanes_of((float)c);
#define STEP(i, left)                                                                                            \
    do {                                                                                                         \
        const lanes s = lanes_load(r->s + (i), left), x = lanes_load(h + (i), left);                             \
        lanes_store(h + (i), left, lanes_pick(is_unmapped(s), x, x + bounded(r, x, s - centre)));                \
    } while (0)
    FOR_LANES(r->n, STEP);
#undef STEP
}

void shift_apply_bounded_lanes(float *logits, int32_t n_host, const shift_in *in, size_t n, bool raw, const shift_bounds *b,
                               float *work) {
    const double start = shift_sum_lanes(logits, n_host, in, n, raw, work);
    bound_row r = bound_row_lanes(logits, work, n_host, start, b);
    double c = 0;
    if (!raw && r.top > -INFINITY) {
        r.mass = mass_lanes(&r);
        c = bound_centre(&r, bound_sums_lanes, 1e-6);
    }
    add_bounded(&r, logits, c);
}
#else
typedef int shift_bound_fast_is_empty; /* ISO C wants a declaration */
#endif
