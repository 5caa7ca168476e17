/* e^x in NEON: the twin of exp_avx2.h. */
#ifndef CMC_BASE_EXP_NEON_H
#define CMC_BASE_EXP_NEON_H
#if defined(__aarch64__)
#include <arm_neon.h>

/* e^x to about 1 ulp: x = n ln 2 + r with |r| <= ln 2 / 2, a degree-6 polynomial for e^r (Cephes' coefficients; ln 2 in
 * two parts). The argument is clamped to [-87.3, top], top being 88.3 at most, so that the result stays a normal
 * number; a NaN comes through. */
static inline float32x4_t cmc_exp4(float32x4_t x, float top) {
    x = vminq_f32(vmaxq_f32(x, vdupq_n_f32(-87.3f)), vdupq_n_f32(top));
    const float32x4_t n = vrndnq_f32(x * vdupq_n_f32(1.44269504f));
    float32x4_t r = vfmsq_f32(x, n, vdupq_n_f32(0.693359375f));
    r = vfmsq_f32(r, n, vdupq_n_f32(-2.12194440e-4f));
    float32x4_t p = vdupq_n_f32(1.9875691500e-4f);
    p = vfmaq_f32(vdupq_n_f32(1.3981999507e-3f), p, r);
    p = vfmaq_f32(vdupq_n_f32(8.3334519073e-3f), p, r);
    p = vfmaq_f32(vdupq_n_f32(4.1665795894e-2f), p, r);
    p = vfmaq_f32(vdupq_n_f32(1.6666665459e-1f), p, r);
    p = vfmaq_f32(vdupq_n_f32(5.0000001201e-1f), p, r);
    p = vfmaq_f32(r + vdupq_n_f32(1.0f), p, r * r);
    const int32x4_t e = vshlq_n_s32(vcvtnq_s32_f32(n) + vdupq_n_s32(127), 23);
    return p * vreinterpretq_f32_s32(e);
}
#endif
#endif
