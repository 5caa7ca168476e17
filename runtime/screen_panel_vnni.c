/* Panels by AVX-512's VNNI: a register holds 4 columns of the 16 rows, so that no sum crosses lanes. */
#include "runtime/screen_panel.h"

#if defined(__x86_64__)
#include "runtime/quant_vnni.h"

/* The first of 32 elements whose magnitude is the greatest, as the plain code finds it; NaN has none. */
VNNI_INLINE float first_greatest(const float *x, __m512 low, __m512 high) {
    const __m512 a = _mm512_max_ps(_mm512_abs_ps(low), _mm512_setzero_ps());    /* operand order: NaN becomes 0 */
    const __m512 b = _mm512_max_ps(_mm512_abs_ps(high), _mm512_setzero_ps());
    const float most = _mm512_reduce_max_ps(_mm512_max_ps(a, b));
    const __m512 top = _mm512_set1_ps(most);
    const unsigned at = (unsigned)_mm512_cmpeq_ps_mask(a, top) | (unsigned)_mm512_cmpeq_ps_mask(b, top) << 16;
    return most > 0 ? x[__builtin_ctz(at)] : 0;
}

VNNI_INLINE __m512i level(__m512 x, float inverse) {
    const __m512 v = _mm512_add_ps(_mm512_mul_ps(x, _mm512_set1_ps(inverse)), _mm512_set1_ps(8.5f));
    return _mm512_cvttps_epi32(_mm512_min_ps(_mm512_max_ps(v, _mm512_setzero_ps()), _mm512_set1_ps(15)));
}

VNNI_TARGET static void encode(const float *x, size_t n, size_t r, uint8_t *panel) {
    for (size_t i = 0; i < n; i += QUANT_GROUP, panel += PANEL_GROUP_BYTES) {
        const __m512 low = _mm512_loadu_ps(x + i), high = _mm512_loadu_ps(x + i + 16);
        const float d = first_greatest(x + i, low, high) / -8, inverse = d != 0 ? 1 / d : 0;
        const __m512i q = _mm512_or_si512(level(low, inverse), _mm512_slli_epi32(level(high, inverse), 4));
        const int scale = _mm_cvtsi128_si32(_mm_cvtps_ph(_mm_set_ss(d), _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC));
        uint32_t words[4];
        memcpy(panel + 2 * r, &scale, 2);
        _mm_storeu_si128((__m128i *)(void *)words, _mm512_cvtepi32_epi8(q));
        QUANT_UNROLL
        for (size_t k = 0; k < 4; k++)
            memcpy(panel + 2 * PANEL_ROWS + 4 * (k * PANEL_ROWS + r), &words[k], 4);
    }
}

/* Four activations of a column in all lanes. */
VNNI_INLINE __m512i four(const int8_t *q) {
    return _mm512_set1_epi32((int)quant_le32((const uint8_t *)q));
}

VNNI_INLINE void dot_cols(const uint8_t *panel, size_t n, const uint8_t *acts, size_t act_stride, const int nc, float *out, size_t ld) {
    const size_t bytes = panel_bytes(n);
    const __m512i nibble = _mm512_set1_epi8(15);
    quant_act y[PANEL_COLS];
    __m512 sum[PANEL_COLS];
    QUANT_UNROLL
    for (int c = 0; c < nc; c++) {
        y[c] = quant_act_view(acts + (size_t)c * act_stride, n);
        sum[c] = _mm512_setzero_ps();
    }
    for (size_t g = 0; g < n / QUANT_GROUP; g++, panel += PANEL_GROUP_BYTES) {
        const __m512 scale = _mm512_cvtph_ps(avx2_load(panel));
        __m512i low[4], high[4];
        for (size_t i = 0; i < PANEL_GROUP_BYTES; i += 64)    /* of the panel after this one */
            _mm_prefetch((const char *)((uintptr_t)panel + bytes + i), _MM_HINT_T0);
        QUANT_UNROLL
        for (int k = 0; k < 4; k++) {
            const __m512i w = _mm512_loadu_si512(panel + 2 * PANEL_ROWS + 64 * k);
            low[k] = _mm512_and_si512(w, nibble);
            high[k] = _mm512_and_si512(_mm512_srli_epi16(w, 4), nibble);
        }
        QUANT_UNROLL
        for (int c = 0; c < nc; c++) {
            const int8_t *q = y[c].q + g * QUANT_GROUP;
            __m512i a = _mm512_set1_epi32(-8 * y[c].n[g]), b = _mm512_setzero_si512();
            QUANT_UNROLL
            for (int k = 0; k < 4; k++) {
                a = _mm512_dpbusd_epi32(a, low[k], four(q + 4 * k));
                b = _mm512_dpbusd_epi32(b, high[k], four(q + 16 + 4 * k));
            }
            const __m512 by = _mm512_mul_ps(scale, _mm512_set1_ps(y[c].d[g]));
            sum[c] = _mm512_fmadd_ps(by, _mm512_cvtepi32_ps(_mm512_add_epi32(a, b)), sum[c]);
        }
    }
    QUANT_UNROLL
    for (int c = 0; c < nc; c++)
        _mm512_storeu_ps(out + (size_t)c * ld, sum[c]);
}

VNNI_TARGET static void dot(const uint8_t *panel, size_t n, const uint8_t *acts, size_t act_stride, size_t cols, float *out, size_t ld) {
    size_t c = 0;
    for (; c + 8 <= cols; c += 8)
        dot_cols(panel, n, acts + c * act_stride, act_stride, 8, out + c * ld, ld);
    for (; c + 4 <= cols; c += 4)
        dot_cols(panel, n, acts + c * act_stride, act_stride, 4, out + c * ld, ld);
    for (; c + 2 <= cols; c += 2)
        dot_cols(panel, n, acts + c * act_stride, act_stride, 2, out + c * ld, ld);
    if (c < cols)
        dot_cols(panel, n, acts + c * act_stride, act_stride, 1, out + c * ld, ld);
}

const panel_kernels *panel_kernels_vnni(void) {
    static const panel_kernels table = {.encode = encode, .dot = dot};
    return vnni_supported() ? &table : NULL;
}

#else
const panel_kernels *panel_kernels_vnni(void) {
    return NULL;
}
#endif
