/* Rotary position embeddings (arXiv 2104.09864). */
#include "runtime/rope.h"

#include <math.h>

void rope_frequencies(float *inv, int32_t n_rot, float base, float scale, const float *factors) {
    for (int32_t i = 0; i < n_rot / 2; i++) {
        const double f = 1.0 / pow((double)base, 2.0 * i / n_rot);
        inv[i] = (float)(f * (double)scale / (factors ? (double)factors[i] : 1.0));
    }
}

void rope_angles(const float *inv, size_t n_half, size_t pos, float *cos_out, float *sin_out) {
    for (size_t i = 0; i < n_half; i++) {
        const float angle = (float)pos * inv[i]; /* a float, as the models were trained with */
        sincosf(angle, &sin_out[i], &cos_out[i]);
    }
}

void rope_rotate(float *x, size_t n_half, bool halves, const float *cos_in, const float *sin_in) {
    const size_t step = halves ? 1 : 2, other = halves ? n_half : 1;
    for (size_t i = 0; i < n_half; i++) {
        float *p = x + i * step;
        const float a = p[0], b = p[other];
        p[0] = a * cos_in[i] - b * sin_in[i];
        p[other] = a * sin_in[i] + b * cos_in[i];
    }
}
