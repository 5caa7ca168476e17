/* The shift and its transpose, fast: one sweep over the host's vocabulary for each sum of exponentials, several
 * tokens at a time where the machine can (shift_lanes.h; one delta's blocks also in AVX-512: shift_avx512.c). The same results as shift.c up to rounding.
 *
 * A sum is kept online: each block is taken relative to the greatest logit seen so far, and what was summed before is
 * rescaled when that grows. So a block's gathered shifts are used while they are in the first-level cache. In a row
 * of shifts, -inf says that the token is not mapped: no map entry has to be looked at twice. */
#include "tokenmap/shift_impl.h"
#include "tokenmap/shift_lanes.h"

#ifdef SHIFT_LANES

enum { BLOCK = SHIFT_BLOCK };

/* Adds a block of n <= BLOCK tokens with shifts s (-inf: not mapped) to the sums. */
INLINE void sum_block(shift_sums *sum, const float *h, const float *s, int32_t n) {
    float u[BLOCK], y[BLOCK];                    /* h, and h - top_h + s; -inf where unmapped, and up to whole lanes */
    const lanes nothing = lanes_of(-INFINITY);
    lanes top = nothing;
#define STEP(i, left)                                                                                            \
    do {                                                                                                         \
        lanes v = lanes_pick(is_unmapped(lanes_load(s + (i), left)), nothing, lanes_load(h + (i), left));        \
        lanes_store(u + (i), SHIFT_LANES, v);                                                                    \
        top = lanes_max(top, v);                                                                                 \
    } while (0)
    FOR_LANES(n, STEP);
#undef STEP
    shift_raise_h(sum, lanes_top(top));
    if (sum->top_h == -INFINITY) {
        return;
    }
    const lanes ref_h = lanes_of(sum->top_h);
    top = nothing;
#define STEP(i, left)                                                                                            \
    do {                                                                                                         \
        lanes v = (lanes_load(u + (i), SHIFT_LANES) - ref_h) + lanes_load(s + (i), left);                        \
        lanes_store(y + (i), SHIFT_LANES, v);                                                                    \
        top = lanes_max(top, v);                                                                                 \
    } while (0)
    FOR_LANES(n, STEP);
#undef STEP
    shift_raise_y(sum, (double)lanes_top(top));
    const lanes ref_y = lanes_of((float)sum->top_y);
    lanes acc_h = lanes_of(0), acc_y = lanes_of(0);
    for (int32_t i = 0; i < n; i += SHIFT_LANES) {
        acc_h = acc_h + lanes_exp(lanes_load(u + i, SHIFT_LANES) - ref_h);
        acc_y = acc_y + lanes_exp(lanes_load(y + i, SHIFT_LANES) - ref_y);
    }
    sum->sum_h += lanes_sum(acc_h);
    sum->sum_y += lanes_sum(acc_y);
}

/* x = one delta's alpha d[map[i]], -inf where unmapped; gives its centre. */
static TARGET double sweep_delta(const float *h, int32_t n_host, const shift_in *in, bool raw, float *x) {
    shift_sums sum = SHIFT_NO_SUMS;
    for (int32_t at = 0; at < n_host; at += BLOCK) {
        int32_t n = shift_block_at(at, n_host);
        gather_block(in, at, n, x + at);
        if (!raw) {
            sum_block(&sum, h + at, x + at, n);
        }
    }
    return shift_sums_centre(&sum);
}

/* h += s - c where mapped. */
static TARGET void add_shift(float *h, int32_t n, const float *s, double c) {
    const lanes centre = lanes_of((float)c);
#define STEP(i, left)                                                                                            \
    do {                                                                                                         \
        lanes old = lanes_load(h + (i), left), x = lanes_load(s + (i), left);                                    \
        lanes_store(h + (i), left, lanes_pick(is_unmapped(x), old, old + (x - centre)));                         \
    } while (0)
    FOR_LANES(n, STEP);
#undef STEP
}

/* h -= c where mapped. */
static TARGET void take_centre(float *h, int32_t n, const int32_t *to, double c) {
    const lanes centre = lanes_of((float)c), none = lanes_of(0);
#define STEP(i, left)                                                                                            \
    lanes_store(h + (i), left, lanes_load(h + (i), left) - lanes_pick(ids_none(ids_load(to + (i), left)), none, centre))
    FOR_LANES(n, STEP);
#undef STEP
}

/* s += x - c where x is mapped, both with -inf for unmapped. */
static TARGET void unite_shift(float *s, int32_t n_host, const float *x, double c) {
    const lanes centre = lanes_of((float)c);
#define STEP(i, left)                                                                                            \
    do {                                                                                                         \
        lanes old = lanes_load(s + (i), left), v = lanes_load(x + (i), left);                                    \
        lanes before = lanes_pick(is_unmapped(old), lanes_of(0), old);                                           \
        lanes_store(s + (i), left, lanes_pick(is_unmapped(v), old, before + (v - centre)));                      \
    } while (0)
    FOR_LANES(n_host, STEP);
#undef STEP
}

/* Several deltas: the sum of their centred shifts is centred once more, over the union of their tokens. */
static TARGET double sum_several(const float *h, int32_t n_host, const shift_in *in, size_t n_in, bool raw, float *work) {
    float *s = work, *x = work + n_host;
    for (int32_t i = 0; i < n_host; i++) {
        s[i] = -INFINITY;
    }
    for (size_t k = 0; k < n_in; k++) {
        double c = sweep_delta(h, n_host, &in[k], raw, x);
        unite_shift(s, n_host, x, c);
    }
    shift_sums sum = SHIFT_NO_SUMS;
    for (int32_t at = 0; !raw && at < n_host; at += BLOCK) {
        sum_block(&sum, h + at, s + at, shift_block_at(at, n_host));
    }
    return shift_sums_centre(&sum);
}

/* One delta: its own centring leaves the sum over M unchanged already. */
double shift_sum_lanes(const float *logits, int32_t n_host, const shift_in *in, size_t n, bool raw, float *work) {
    return n == 1 ? sweep_delta(logits, n_host, in, raw, work) : sum_several(logits, n_host, in, n, raw, work);
}

/* o where the map's entry is not -1 (to NULL: everywhere), else -inf. */
INLINE lanes load_mapped(const float *o, const int32_t *to, int32_t left) {
    lanes v = lanes_load(o, left);
    return to ? lanes_pick(ids_none(ids_load(to, left)), lanes_of(-INFINITY), v) : v;
}

/* sum over M (to NULL: over everything) of e^(o - *top); 0 where all of M is banned. */
static TARGET double sum_softmax(const float *o, const int32_t *to, int32_t n, float *top) {
    lanes v = lanes_of(-INFINITY);
#define STEP(i, left) v = lanes_max(v, load_mapped(o + (i), to ? to + (i) : NULL, left))
    FOR_LANES(n, STEP);
#undef STEP
    *top = lanes_top(v);
    const lanes ref = lanes_of(*top);
    double sum = 0;
    for (int32_t at = 0; *top > -INFINITY && at < n; at += BLOCK) {
        lanes acc = lanes_of(0);
#define STEP(i, left) acc = acc + lanes_exp(load_mapped(o + at + (i), to ? to + at + (i) : NULL, left) - ref)
        FOR_LANES(shift_block_at(at, n), STEP);
#undef STEP
        sum += lanes_sum(acc);
    }
    return sum;
}

static TARGET bool any_nan(const float *o, int32_t n) {
    lane_mask odd = {0};
#define STEP(i, left) odd = lanes_note_nan(odd, lanes_load(o + (i), left))
    FOR_LANES(n, STEP);
#undef STEP
    return lanes_any(odd);
}

static double log_sum_lanes(const float *o, int32_t n) {
    float top;
    if (any_nan(o, n)) {
        return NAN;
    }
    double sum = sum_softmax(o, NULL, n, &top);
    return sum > 0 ? (double)top + log(sum) : -INFINITY;
}

/* cell[i] and p[i] say what a block of the gradient adds where. An unmapped token adds 0 to one of the first cells:
 * which tokens are mapped follows no pattern, and a branch on it costs more than all the rest. */
INLINE void transpose_block(const float *o, const int32_t *to, int32_t n, lanes ref, lanes scale, lane_ids spare,
                            int32_t *cell, float *p) {
#define STEP(i, left)                                                                                            \
    do {                                                                                                         \
        lane_ids id = ids_load(to + (i), left);                                                                  \
        lane_mask none = ids_none(id);                                                                           \
        lanes u = load_mapped(o + (i), to + (i), left) - ref;                                                    \
        ids_store(cell + (i), ids_pick(none, spare, id));                                                        \
        lanes_store(p + (i), SHIFT_LANES, lanes_pick(none, lanes_of(0), scale * lanes_exp(u)));                  \
    } while (0)
    FOR_LANES(n, STEP);
#undef STEP
}

static TARGET void transpose_lanes(const cmc_map *m, float alpha, bool raw, const float *o, int32_t target, float *ddelta) {
    float top, p[BLOCK];
    int32_t cell[BLOCK];
    double sum = sum_softmax(o, raw || m->complete ? NULL : m->to, m->n_host, &top);
    if (sum == 0) {
        return;
    }
    const lanes scale = lanes_of((float)((double)alpha / sum)), ref = lanes_of(top);
    const lane_ids spare = ids_first(m->n_delta - 1);
    for (int32_t at = 0; at < m->n_host; at += BLOCK) {
        int32_t n = shift_block_at(at, m->n_host);
        transpose_block(o + at, m->to + at, n, ref, scale, spare, cell, p);
        if (m->identity) {
            for (int32_t i = 0; i < n; i++) {
                ddelta[at + i] += p[i];
            }
        } else {
            for (int32_t i = 0; i < n; i++) {
                ddelta[cell[i]] += p[i];
            }
        }
    }
    if (m->to[target] >= 0) {
        ddelta[m->to[target]] -= alpha;
    }
}

#endif

bool shift_has_parts(void) {
#ifdef SHIFT_LANES
    return lanes_here();
#else
    return false;
#endif
}

#ifdef SHIFT_LANES
TARGET void shift_add_lanes(float *h, const shift_in *in, bool raw, int32_t at, int32_t n, shift_sums *sum) {
    float x[BLOCK];
    gather_block(in, at, n, x);
    if (!raw) {
        sum_block(sum, h + at, x, n);
    }
    add_shift(h + at, n, x, 0);
}

#ifdef SHIFT_X86
/* Of an identity there is nothing to gather, and narrow lanes do as well. */
static bool wide_lanes(const shift_in *in) {
    return shift_have_avx512() && !in->map->identity;
}
#endif

static shift_add *add_of(const shift_in *in) {
#ifdef SHIFT_X86
    if (wide_lanes(in)) {
        return shift_add_avx512;
    }
#endif
    (void)in;
    return shift_add_lanes;
}
#endif

shift_look *shift_look_here(const shift_in *in) {
#ifdef SHIFT_X86
    if (wide_lanes(in)) {
        return shift_look_avx512;
    }
#endif
    (void)in;
#ifdef SHIFT_LANES
    if (lanes_here()) {
        return shift_look_lanes;
    }
#endif
    return shift_look_plain;
}

shift_span shift_span_here(const float *d, int32_t n) {
#ifdef SHIFT_LANES
    if (lanes_here()) {
        return shift_span_lanes(d, n);
    }
#endif
    return shift_span_plain(d, n);
}

void shift_part_add(float *logits, int32_t n_host, const shift_in *in, bool raw, int part, shift_sums *out) {
    *out = SHIFT_NO_SUMS;
#ifdef SHIFT_LANES
    shift_add *add = add_of(in);
    int32_t lo, hi;
    shift_part_range(n_host, part, &lo, &hi);
    for (int32_t at = lo; at < hi; at += BLOCK) {
        add(logits, in, raw, at, shift_block_at(at, hi), out);
    }
#else
    (void)logits, (void)n_host, (void)in, (void)raw, (void)part;
#endif
}

/* The centre of all parts together: each part's sums are taken relative to the greatest references. */
double shift_parts_centre(const shift_sums part[SHIFT_PARTS]) {
    shift_sums all = SHIFT_NO_SUMS;
    for (int p = 0; p < SHIFT_PARTS; p++) {
        all.top_h = fmaxf(all.top_h, part[p].top_h);
    }
    for (int p = 0; p < SHIFT_PARTS; p++) {
        all.top_y = fmax(all.top_y, part[p].top_y + ((double)part[p].top_h - (double)all.top_h));
    }
    for (int p = 0; p < SHIFT_PARTS; p++) {
        if (part[p].top_h > -INFINITY) {
            double below = (double)part[p].top_h - (double)all.top_h;
            all.sum_h += part[p].sum_h * exp(below);
            all.sum_y += part[p].sum_y * exp(part[p].top_y + below - all.top_y);
        }
    }
    return shift_sums_centre(&all);
}

void shift_part_centre(float *logits, int32_t n_host, const shift_in *in, double centre, int part) {
#ifdef SHIFT_LANES
    int32_t lo, hi;
    shift_part_range(n_host, part, &lo, &hi);
    if (centre == 0) {
        return;
    }
#ifdef SHIFT_X86
    if (wide_lanes(in)) {
        shift_centre_avx512(logits, in->map, lo, hi, centre);
        return;
    }
#endif
    if (lo < hi) {
        take_centre(logits + lo, hi - lo, in->map->to + lo, centre);
    }
#else
    (void)logits, (void)n_host, (void)in, (void)centre, (void)part;
#endif
}

#ifdef SHIFT_LANES
/* One delta needs no row of shifts: they are added where they are found, and the centre is taken from the sum. */
static void apply_one(float *logits, int32_t n_host, const shift_in *in, bool raw) {
    shift_sums sums[SHIFT_PARTS];
    for (int p = 0; p < SHIFT_PARTS; p++) {
        shift_part_add(logits, n_host, in, raw, p, &sums[p]);
    }
    const double centre = shift_parts_centre(sums);
    for (int p = 0; p < SHIFT_PARTS; p++) {
        shift_part_centre(logits, n_host, in, centre, p);
    }
}
#endif

void shift_apply(float *logits, int32_t n_host, const shift_in *in, size_t n, bool raw, float *work) {
    if (n == 0) {
        return;
    }
#ifdef SHIFT_LANES
    if (lanes_here() && n == 1) {
        apply_one(logits, n_host, in, raw);
        return;
    }
    if (lanes_here()) {
        double c = shift_sum_lanes(logits, n_host, in, n, raw, work);
        add_shift(logits, n_host, work, c);
        return;
    }
#endif
    shift_apply_plain(logits, n_host, in, n, raw, work);
}

double shift_log_sum(const float *logits, int32_t n) {
#ifdef SHIFT_LANES
    if (lanes_here()) {
        return log_sum_lanes(logits, n);
    }
#endif
    return shift_log_sum_plain(logits, n);
}

void shift_transpose(const cmc_map *m, float alpha, bool raw, const float *host_logits, const float *steered_logits,
                     int32_t target, float *ddelta) {
#ifdef SHIFT_LANES
    if (lanes_here()) {
        if (raw || m->to[target] >= 0) {
            transpose_lanes(m, alpha, raw, steered_logits, target, ddelta);
        }
        return;
    }
#endif
    shift_transpose_plain(m, alpha, raw, host_logits, steered_logits, target, ddelta);
}
