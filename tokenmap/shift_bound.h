/* What the two versions of the bounded shift share. */
#ifndef CMC_TOKENMAP_SHIFT_BOUND_H
#define CMC_TOKENMAP_SHIFT_BOUND_H
#include "tokenmap/shift_impl.h"

enum { BOUND_MOST = 60 };   /* a token that would weigh more than e^60 times the host's greatest weighs that: c is far too low */

/* A host row, the deltas' summed shifts s (-inf: not mapped), and the bounds on what is added. */
typedef struct bound_row {
    const float *h, *s;
    int32_t n;
    float least;            /* the host logit from which a token may rise */
    float limit;            /* nats, up or down; INFINITY: none */
    float top;              /* greatest h on M, the mapped tokens; -inf: all of M is banned */
    double low, high;       /* least and greatest s on M */
    double mass;            /* sum over M of e^(h - top) */
} bound_row;

/* Over M, at a centre c, with b = s - c within its bounds: sums of e^(h - top + b), of all and of those at no bound. */
typedef struct bound_sums { double all, free; } bound_sums;
typedef bound_sums bound_eval(const bound_row *r, double c);

float bound_least(float top, double plausible);   /* top: the greatest of all host logits */
/* The centre at which the mass is kept, to `tolerance` of it. */
double bound_centre(const bound_row *r, bound_eval *eval, double tolerance);
/* shift_bound_fast.c; only where the machine has lanes. */
void shift_apply_bounded_lanes(float *logits, int32_t n_host, const shift_in *in, size_t n, bool raw, const shift_bounds *b, float *work);
#endif
