/* What the vector versions of the shift share. */
#ifndef CMC_TOKENMAP_SHIFT_IMPL_H
#define CMC_TOKENMAP_SHIFT_IMPL_H
#include <math.h>

#include "tokenmap/map.h"

#if defined(__x86_64__) && defined(__GNUC__)
#define SHIFT_X86 1
#endif

enum { SHIFT_BLOCK = 512 };   /* host tokens: a block's rows (2 KiB each) stay in the first-level cache */

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
#endif
