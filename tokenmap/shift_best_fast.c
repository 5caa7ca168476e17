/* Greedy decoding's token of a steered row, several tokens at a time. The same results as shift_best.c; in AVX-512: shift_avx512.c. */
#include "tokenmap/shift_impl.h"
#include "tokenmap/shift_lanes.h"

#ifdef SHIFT_LANES

/* A block's second greatest sum: the greatest of all lanes but one that holds `top`, and of what each lane had below its own. */
INLINE float next_of_lanes(lanes tops, lanes nexts, float top) {
    float v[SHIFT_LANES];
    lanes_store(v, SHIFT_LANES, tops);
    int32_t i = 0;
    while (v[i] != top) {
        i++;
    }
    v[i] = -INFINITY;
    return lanes_top(lanes_max(nexts, lanes_load(v, SHIFT_LANES)));
}

/* The greatest of n logits; *odd: one is NaN. */
INLINE float top_of(const float *h, int32_t n, bool *odd) {
    lanes top = lanes_of(-INFINITY);
    lane_mask nan = {0};
#define STEP(i, left)                             \
    do {                                          \
        const lanes v = lanes_load(h + (i), left); \
        nan = lanes_note_nan(nan, v);             \
        top = lanes_max(top, v);                  \
    } while (0)
    FOR_LANES(n, STEP);
#undef STEP
    *odd |= lanes_any(nan);
    return lanes_top(top);
}

TARGET shift_span shift_span_lanes(const float *d, int32_t n) {
    const lanes nothing = lanes_of(-INFINITY);
    lanes most = nothing, low = nothing;
    lane_mask nan = {0};
#define STEP(i, left)                                                                             \
    do {                                                                                          \
        const lanes v = lanes_load(d + (i), left);                                                \
        nan = lanes_note_nan(nan, v);                                                             \
        most = lanes_max(most, v);                                                                \
        low = lanes_max(low, left < SHIFT_LANES ? lanes_pick(is_unmapped(v), nothing, -v) : -v);  \
    } while (0)
    FOR_LANES(n, STEP);
#undef STEP
    return (shift_span){.least = -lanes_top(low), .most = lanes_top(most), .odd = lanes_any(nan)};
}

TARGET void shift_look_lanes(const float *row, const shift_in *in, const shift_span *span, int32_t at, int32_t n, shift_best *best) {
    const float *h = row + at;
    if (top_of(h, n, &best->odd) < best->bar) {
        return;
    }
    const lanes nothing = lanes_of(-INFINITY);
    lanes top = nothing, next = nothing, outside = nothing;
    float y[SHIFT_BLOCK];
    gather_block(in, at, n, y);
#define STEP(i, left)                                                                                            \
    do {                                                                                                         \
        const lanes x = lanes_load(y + (i), left), own = lanes_load(h + (i), left);                              \
        const lane_mask none = is_unmapped(x);                                                                   \
        const lanes sum = lanes_pick(none, nothing, own + x);                                                    \
        lanes_store(y + (i), left, sum);                                                                         \
        next = lanes_max(next, lanes_min(top, sum));                                                             \
        top = lanes_max(top, sum);                                                                               \
        outside = lanes_max(outside, lanes_pick(none, own, nothing));                                            \
    } while (0)
    FOR_LANES(n, STEP);
#undef STEP
    best->free = fmaxf(best->free, lanes_top(outside));
    const float highest = lanes_top(top);
    if (highest > best->next) {   /* else the block changes neither */
        shift_take_best(best, span, y, at, highest, next_of_lanes(top, next, highest));
    }
}
#endif
