/* Greedy decoding's token of a steered row, without the row: taking the centre off changes no order among the mapped tokens, and the
 * others are seldom near. So no exponential is needed, nothing is written, and a block of tokens that the host finds so unlikely that
 * no shift can make one of them the greatest is passed over. */
#include <math.h>

#include "tokenmap/shift_impl.h"

shift_span shift_span_plain(const float *d, int32_t n) {
    shift_span span = SHIFT_NO_SPAN;
    for (int32_t j = 0; j < n; j++) {
        span.least = fminf(span.least, d[j]);
        span.most = fmaxf(span.most, d[j]);
        span.odd |= isnan(d[j]);
    }
    return span;
}

/* Rounding keeps the order, so the ends of alpha d are alpha times those of d. */
void shift_part_span(const shift_in *in, int part, shift_span *span) {
    const int64_t n = in->map->n_delta;
    const int32_t lo = (int32_t)(n * part / SHIFT_PARTS), hi = (int32_t)(n * (part + 1) / SHIFT_PARTS);
    if (lo < hi) {
        const shift_span d = shift_span_here(in->logits + lo, hi - lo);
        const float one = in->alpha * d.least, other = in->alpha * d.most;
        span->least = fminf(span->least, fminf(one, other));
        span->most = fmaxf(span->most, fmaxf(one, other));
        span->odd |= d.odd;
    }
}

shift_span shift_all_spans(const shift_span *v, size_t n) {
    shift_span all = SHIFT_NO_SPAN;
    for (size_t i = 0; i < n; i++) {
        all.least = fminf(all.least, v[i].least);
        all.most = fmaxf(all.most, v[i].most);
        all.odd |= v[i].odd;
    }
    return all;
}

/* Sums below the bar plus the greatest shift, and unmapped logits below the bar, are farther from the greatest sum than matters. */
void shift_take_best(shift_best *best, const shift_span *span, const float *y, int32_t at, float top, float next) {
    best->next = fmaxf(fmaxf(best->next, next), fminf(best->top, top));
    if (top > best->top) {
        int32_t i = 0;
        while (y[i] != top) {
            i++;
        }
        best->top = top;
        best->id = at + i;
        best->bar = (float)((double)top - fmax((double)span->most, 0) - 2 * shift_room(span, top));
    }
}

void shift_look_plain(const float *h, const shift_in *in, const shift_span *span, int32_t at, int32_t n, shift_best *best) {
    const int32_t *to = in->map->to;
    for (int32_t i = at; i < at + n; i++) {
        best->odd |= isnan(h[i]);
        if (to[i] < 0) {
            best->free = fmaxf(best->free, h[i]);
        } else if (!(h[i] < best->bar)) {
            const float sum = h[i] + in->alpha * in->logits[to[i]];
            shift_take_best(best, span, &sum, i, sum, -INFINITY);
        }
    }
}

static void look_at_part(const float *logits, int32_t n_host, const shift_in *in, const shift_span *span, int part, shift_look *look,
                         shift_best *best) {
    int32_t lo, hi;
    shift_part_range(n_host, part, &lo, &hi);
    for (int32_t at = lo; at < hi; at += SHIFT_BLOCK) {
        look(logits, in, span, at, shift_block_at(at, hi), best);
    }
}

void shift_part_best_plain(const float *logits, int32_t n_host, const shift_in *in, const shift_span *span, int part, shift_best *best) {
    look_at_part(logits, n_host, in, span, part, shift_look_plain, best);
}

void shift_part_best(const float *logits, int32_t n_host, const shift_in *in, const shift_span *span, int part, shift_best *best) {
    look_at_part(logits, n_host, in, span, part, shift_look_here(in), best);
}

/* The centre is the logarithm of a mean of e^shift, so no more than the greatest of them. */
int32_t shift_best_id(const shift_best *v, size_t n, const shift_span *span, bool raw) {
    shift_best all = SHIFT_NO_BEST;
    bool odd = span->odd;
    for (size_t i = 0; i < n; i++) {
        all.next = fmaxf(fmaxf(all.next, v[i].next), fminf(all.top, v[i].top));
        if (v[i].top > all.top) {
            all.top = v[i].top;
            all.id = v[i].id;
        }
        all.free = fmaxf(all.free, v[i].free);
        odd |= v[i].odd;
    }
    if (odd || all.id < 0 || all.top == INFINITY) {
        return -1;
    }
    const double room = shift_room(span, all.top), top = (double)all.top, lowest = top - (raw ? 0 : (double)span->most) - room;
    return top - (double)all.next > room && lowest > (double)all.free ? all.id : -1;
}
