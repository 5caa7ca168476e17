/* Gradients of merges and of the alignment loss. Sums and what hangs on small angles are in double. */
#include "tinylm/lm_merge.h"

#include <math.h>
#include <string.h>

cmc_status align_parse(const char *name, align_kind *out, cmc_error *err) {
    static const char *const names[] = {
        [ALIGN_NONE] = "none", [ALIGN_MSE] = "mse", [ALIGN_RELATIVE] = "relative", [ALIGN_COSINE] = "cosine"};
    for (size_t i = 0; i < sizeof names / sizeof *names; i++)
        if (strcmp(name, names[i]) == 0) {
            *out = (align_kind)i;
            return CMC_OK;
        }
    return cmc_fail(err, CMC_E_ARG, "\"%.40s\" is no way to hold a block to its layer: none, mse, relative, cosine", name);
}

static double merge_square(const float *p, const float *e, size_t n) {
    double sum = 0.0;
    for (size_t i = 0; i < n; i++) {
        double d = (double)e[i] - (double)p[i];
        sum += d * d;
    }
    return sum;
}

/* The cosine of the angle, and 1 where one of the two is zero: then it has no gradient. */
static double merge_cosine(const expand_arc *arc) {
    double length = sqrt(arc->pp * arc->ee);
    return length > 0.0 ? arc->dot / length : 1.0;
}

double align_distance(align_kind kind, const float *p, const float *e, size_t n) {
    expand_arc arc;
    (void)expand_arc_of(p, e, n, &arc);
    double u = fmax(0.0, 1.0 - merge_cosine(&arc));
    switch (kind) {
    case ALIGN_MSE: return merge_square(p, e, n) / (double)n;
    case ALIGN_RELATIVE: return arc.pp > 0.0 ? merge_square(p, e, n) / arc.pp : 0.0;
    case ALIGN_COSINE: return u < 1.0 ? 0.5 * u * u : u - 0.5;
    case ALIGN_NONE: break;
    }
    return 0.0;
}

/* dp += by d cos / dp, de += by d cos / de; NULL: not wanted. */
static void merge_back_cosine(const expand_arc *arc, double by, const float *p, const float *e, float *dp, float *de, size_t n) {
    double length = sqrt(arc->pp * arc->ee), c = merge_cosine(arc);
    if (!(length > 0.0))
        return;
    for (size_t i = 0; dp && i < n; i++)
        dp[i] += (float)(by * ((double)e[i] / length - c * (double)p[i] / arc->pp));
    for (size_t i = 0; de && i < n; i++)
        de[i] += (float)(by * ((double)p[i] / length - c * (double)e[i] / arc->ee));
}

/* dp and de of what was merged along the arc; gives the share's gradient. */
static double merge_back_arc(const expand_arc *arc, double a, const float *p, const float *e, const float *dout, float *dp,
                             float *de, size_t n) {
    double t = arc->t, s = sin(t), rest = (1.0 - a) * t, part = a * t;
    double of_p = expand_dot(dout, p, n), of_e = expand_dot(dout, e, n);
    double by_p = ((1.0 - a) * cos(rest) * s - sin(rest) * cos(t)) / (s * s);
    double by_e = (a * cos(part) * s - sin(part) * cos(t)) / (s * s);
    for (size_t i = 0; i < n; i++) {
        dp[i] = (float)(sin(rest) / s) * dout[i];
        de[i] = (float)(sin(part) / s) * dout[i];
    }
    merge_back_cosine(arc, -(of_p * by_p + of_e * by_e) / s, p, e, dp, de, n);
    return t * (cos(part) * of_e - cos(rest) * of_p) / s;
}

static double merge_back_line(double a, const float *p, const float *e, const float *dout, float *dp, float *de, size_t n) {
    double sum = 0.0;
    for (size_t i = 0; i < n; i++) {
        sum += (double)dout[i] * ((double)e[i] - (double)p[i]);
        dp[i] = (float)(1.0 - a) * dout[i];
        de[i] = (float)a * dout[i];
    }
    return sum;
}

/* dp and de += those of `weight` times the distance; dp NULL: p only teaches. */
static void align_back(align_kind kind, double weight, const float *p, const float *e, float *dp, float *de, size_t n) {
    expand_arc arc;
    (void)expand_arc_of(p, e, n, &arc);
    if (kind == ALIGN_COSINE) {
        merge_back_cosine(&arc, -weight * fmin(1.0, fmax(0.0, 1.0 - merge_cosine(&arc))), p, e, dp, de, n);
        return;
    }
    if (kind == ALIGN_RELATIVE && !(arc.pp > 0.0))
        return;
    double by = 2.0 * weight / (kind == ALIGN_MSE ? (double)n : arc.pp);
    double size = kind == ALIGN_MSE ? 0.0 : merge_square(p, e, n) / arc.pp;
    for (size_t i = 0; i < n; i++) {
        double d = (double)e[i] - (double)p[i];
        de[i] += (float)(by * d);
        if (dp)
            dp[i] -= (float)(by * (d + size * (double)p[i]));
    }
}

float merge_back(const expand_gate *g, float a, const float *p, const float *e, const float *dout, const alignment *al, double weight,
                 float *dp, float *de, size_t n) {
    expand_arc arc;
    bool along = g->merge == EXPAND_SLERP && expand_arc_of(p, e, n, &arc);
    double da = along ? merge_back_arc(&arc, (double)a, p, e, dout, dp, de, n)
                      : merge_back_line((double)a, p, e, dout, dp, de, n);
    if (al->kind != ALIGN_NONE && weight != 0.0) {
        align_back(al->kind, al->by_share ? weight * (double)a : weight, p, e, al->through ? dp : NULL, de, n);
        da += al->by_share ? weight * align_distance(al->kind, p, e, n) : 0.0;
    }
    float dz = (float)((double)a * (1.0 - (double)a) * da);
    for (size_t i = 0; g->merge == EXPAND_DLERP && i < n; i++) {
        dp[i] += dz * g->w[i];
        de[i] += dz * g->w[n + i];
    }
    return dz;
}
