/* e^x in AVX2 with FMA, for kernels that are chosen at run time. */
#ifndef CMC_BASE_EXP_AVX2_H
#define CMC_BASE_EXP_AVX2_H
#if defined(__x86_64__) && defined(__GNUC__)
#include <immintrin.h>

/* e^x to about 1 ulp: x = n ln 2 + r with |r| <= ln 2 / 2, a degree-6 polynomial for e^r (Cephes' coefficients; ln 2 in
 * two parts). The argument is clamped to [-87.3, top], top being 88.3 at most, so that the result stays a normal
 * number. */
__attribute__((target("avx2,fma"))) static inline __m256 cmc_exp8(__m256 x, float top) {
    x = _mm256_max_ps(_mm256_set1_ps(-87.3f), x); /* operand order: a NaN in x comes through */
    x = _mm256_min_ps(_mm256_set1_ps(top), x);
    const __m256 n =
        _mm256_round_ps(_mm256_mul_ps(x, _mm256_set1_ps(1.44269504f)), _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC);
    __m256 r = _mm256_fnmadd_ps(n, _mm256_set1_ps(0.693359375f), x);
    r = _mm256_fnmadd_ps(n, _mm256_set1_ps(-2.12194440e-4f), r);
    __m256 p = _mm256_set1_ps(1.9875691500e-4f);
    p = _mm256_fmadd_ps(p, r, _mm256_set1_ps(1.3981999507e-3f));
    p = _mm256_fmadd_ps(p, r, _mm256_set1_ps(8.3334519073e-3f));
    p = _mm256_fmadd_ps(p, r, _mm256_set1_ps(4.1665795894e-2f));
    p = _mm256_fmadd_ps(p, r, _mm256_set1_ps(1.6666665459e-1f));
    p = _mm256_fmadd_ps(p, r, _mm256_set1_ps(5.0000001201e-1f));
    p = _mm256_fmadd_ps(p, _mm256_mul_ps(r, r), _mm256_add_ps(r, _mm256_set1_ps(1.0f)));
    const __m256i e = _mm256_slli_epi32(_mm256_add_epi32(_mm256_cvtps_epi32(n), _mm256_set1_epi32(127)), 23);
    return _mm256_mul_ps(p, _mm256_castsi256_ps(e));
}
#endif
#endif
