/* Gradients against finite differences. */
#ifndef CMC_TESTS_SLOPE_H
#define CMC_TESTS_SLOPE_H
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

#include "base/mem.h"
#include "tinylm/params.h"

/* In [0, 1). */
static inline double uniform(uint64_t *rng) {
    return (double)(params_random(rng) >> 11) * 0x1p-53;
}

/* The loss of `scene` with its weights as they stand, and how its slope and its gradient are held together. */
typedef struct slope_check {
    double (*loss)(void *scene);
    void *scene;
    double h;            /* the longer of two steps */
    double least;        /* a gradient shorter than this would say nothing */
    double rel, abs;     /* the bound: rel times the gradient's length, and abs more where it is not along it */
    int directions;      /* 1: the gradient's own; 3: two random ones as well; more: single weights too */
} slope_check;

/* d loss / d eps of w + eps * u, by Richardson's extrapolation of two central differences. */
static inline double slope(const slope_check *c, float *w, size_t n, const double *u) {
    double d[2];
    float *keep = cmc_alloc(n, sizeof *keep);
    memcpy(keep, w, n * sizeof *w);
    for (int k = 0; k < 2; k++) {
        double e = k == 0 ? c->h : c->h / 2, side[2], moved = 0.0, norm = 0.0;
        for (int s = 0; s < 2; s++) {
            for (size_t i = 0; i < n; i++)
                w[i] = (float)((double)keep[i] + (s ? -e : e) * u[i]);
            side[s] = c->loss(c->scene);
        }
        for (size_t i = 0; i < n; i++) { /* the step that float took */
            float hi = (float)((double)keep[i] + e * u[i]), lo = (float)((double)keep[i] - e * u[i]);
            moved += ((double)hi - (double)lo) * u[i];
            norm += u[i] * u[i];
        }
        d[k] = (side[0] - side[1]) / (moved / norm);
    }
    memcpy(w, keep, n * sizeof *w);
    free(keep);
    return (4.0 * d[1] - d[0]) / 3.0;
}

/* The gradient grad[0..n) of the weights w[0..n) along itself, along random directions, and along single weights; each
 * against its own bound. */
static inline void slope_assert(const slope_check *c, const char *what, float *w, const float *grad, size_t n,
                                uint64_t *rng) {
    double *u = cmc_alloc(n, sizeof *u), norm = 0.0;
    for (size_t i = 0; i < n; i++)
        norm += (double)grad[i] * (double)grad[i];
    norm = sqrt(norm);
    if (!(norm > c->least))
        fail_msg("%s: the gradient is %g; the check would say nothing", what, norm);
    for (int k = 0; k < c->directions; k++) {
        double length = 0.0, want = 0.0;
        size_t one = (size_t)(params_random(rng) % n);
        for (size_t i = 0; i < n; i++) {
            u[i] = k == 0 ? (double)grad[i] : k < 3 ? uniform(rng) - 0.5 : i == one ? 1.0 : 0.0;
            length += u[i] * u[i];
        }
        for (size_t i = 0; i < n; i++) {
            u[i] /= sqrt(length);
            want += u[i] * (double)grad[i];
        }
        double got = slope(c, w, n, u);
        if (!(fabs(got - want) <= c->rel * norm + (k == 0 ? 0.0 : c->abs)))
            fail_msg("%s, direction %d: slope %.8g, gradient %.8g (norm %.8g)", what, k, got, want, norm);
    }
    free(u);
}
#endif
