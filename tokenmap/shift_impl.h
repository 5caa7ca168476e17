/* What the vector versions of the shift share. */
#ifndef CMC_TOKENMAP_SHIFT_IMPL_H
#define CMC_TOKENMAP_SHIFT_IMPL_H
#include <math.h>

#include "tokenmap/map.h"

#if defined(__x86_64__) && defined(__GNUC__)
#define SHIFT_X86 1
#endif

enum { SHIFT_BLOCK = 512 };   /* host tokens: a block's rows (2 KiB each) stay in the first-level cache */

/* Host tokens [*lo, *hi) of a part: whole blocks, so that it makes no difference to a block which part it is in. */
static inline void shift_part_range(int32_t n_host, int part, int32_t *lo, int32_t *hi) {
    const int64_t blocks = (n_host + SHIFT_BLOCK - 1) / SHIFT_BLOCK;
    const int64_t first = blocks * part / SHIFT_PARTS * SHIFT_BLOCK, last = blocks * (part + 1) / SHIFT_PARTS * SHIFT_BLOCK;
    *lo = (int32_t)first;
    *hi = last < n_host ? (int32_t)last : n_host;
}

/* Tokens of a block that begins at `at`, in [at, end). */
static inline int32_t shift_block_at(int32_t at, int32_t end) {
    return end - at < SHIFT_BLOCK ? end - at : SHIFT_BLOCK;
}

/* Running log-sum-exps over the tokens seen: of the host's logits h, and of h + s. */
static const shift_sums SHIFT_NO_SUMS = {.top_h = -INFINITY, .top_y = -INFINITY};

/* Takes the references of the sums up to a block's greatest h. */
static inline void shift_raise_h(shift_sums *sum, float top_h) {
    if (top_h > sum->top_h) {
        double grown = sum->top_h == -INFINITY ? 0 : (double)top_h - (double)sum->top_h;
        sum->sum_h *= exp(-grown);
        sum->top_y -= grown;
        sum->top_h = top_h;
    }
}

/* And to its greatest h - top_h + s. */
static inline void shift_raise_y(shift_sums *sum, double top_y) {
    if (top_y > sum->top_y) {
        sum->sum_y *= exp(sum->top_y - top_y);
        sum->top_y = top_y;
    }
}

static inline double shift_sums_centre(const shift_sums *sum) {
    return sum->sum_h > 0 ? sum->top_y + log(sum->sum_y) - log(sum->sum_h) : 0;
}

/* The deltas' shifts added up, each centred, into work[0..n_host), -inf where none maps the token; gives what is to be taken
 * from all of them so that they are centred on the union. raw: 0 both times. work: [2 * n_host]. */
typedef double shift_sum(const float *logits, int32_t n_host, const shift_in *in, size_t n, bool raw, float *work);
shift_sum shift_sum_plain, shift_sum_lanes;

/* Adds alpha d[map[i]] to the mapped ones of host tokens [at, at + n), n <= SHIFT_BLOCK, and, but for raw, them to the sums. The same
 * logits from both, and the same sums up to rounding. h: the whole row. */
typedef void shift_add(float *h, const shift_in *in, bool raw, int32_t at, int32_t n, shift_sums *sum);
bool shift_have_avx512(void);
shift_add shift_add_lanes, shift_add_avx512;   /* only where the machine has them */
/* h -= centre for the mapped ones of host tokens [lo, hi). */
void shift_centre_avx512(float *h, const cmc_map *m, int32_t lo, int32_t hi, double centre);

/* Takes host tokens [at, at + n), n <= SHIFT_BLOCK, into `best`, the same from all; h: the whole row. */
typedef void shift_look(const float *h, const shift_in *in, const shift_span *span, int32_t at, int32_t n, shift_best *best);
shift_look shift_look_plain, shift_look_lanes, shift_look_avx512;   /* the last two only where the machine has them */
shift_look *shift_look_here(const shift_in *in);                    /* the fastest that there is (shift_fast.c) */
/* The span of n floats, the same from both. */
shift_span shift_span_plain(const float *d, int32_t n), shift_span_lanes(const float *d, int32_t n), shift_span_here(const float *d, int32_t n);
/* How far below the greatest sum one must be to stay below it whatever is rounded: shifts are added, then the centre taken. */
static inline double shift_room(const shift_span *span, float top) {
    return 1e-6 * (1 + fabs((double)top) + 4 * fmax(fabs((double)span->least), fabs((double)span->most)));
}
/* A block's two greatest sums into `best`; y: [n] the block's sums. */
void shift_take_best(shift_best *best, const shift_span *span, const float *y, int32_t at, float top, float next);
#endif
