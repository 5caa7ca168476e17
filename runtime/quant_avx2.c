/* AVX2 kernels: decoding of rows, quantisation of activations and the exact dots, whose bits equal the plain code's; and the
 * tables, of AVX2 and of AVX-512 VNNI, which has dots of its own and these for the rest. */
#include "runtime/quant_impl.h"

#if defined(__x86_64__)
#include "runtime/quant_vnni.h"

/* w = a * u + m in the plain code's order: one product, one sum, each rounded. */
AVX2_INLINE void decode_group(__m256i q, __m256 a0, __m256 a1, __m256 m0, __m256 m1, bool min, float *out) {
    __m128i lo = _mm256_castsi256_si128(q), hi = _mm256_extracti128_si256(q, 1);
    __m256 w0 = _mm256_mul_ps(a0, _mm256_cvtepi32_ps(_mm256_cvtepi8_epi32(lo)));
    __m256 w1 = _mm256_mul_ps(a0, _mm256_cvtepi32_ps(_mm256_cvtepi8_epi32(_mm_srli_si128(lo, 8))));
    __m256 w2 = _mm256_mul_ps(a1, _mm256_cvtepi32_ps(_mm256_cvtepi8_epi32(hi)));
    __m256 w3 = _mm256_mul_ps(a1, _mm256_cvtepi32_ps(_mm256_cvtepi8_epi32(_mm_srli_si128(hi, 8))));
    _mm256_storeu_ps(out, min ? _mm256_add_ps(w0, m0) : w0);
    _mm256_storeu_ps(out + 8, min ? _mm256_add_ps(w1, m0) : w1);
    _mm256_storeu_ps(out + 16, min ? _mm256_add_ps(w2, m1) : w2);
    _mm256_storeu_ps(out + 24, min ? _mm256_add_ps(w3, m1) : w3);
}

AVX2_INLINE void decode_blocks(uint32_t type, const uint8_t *b, float *out, size_t n) {
    const __m256i offset = _mm256_set1_epi8((char)quant_offset(type));
    for (size_t i = 0; i < n; i += QUANT_GROUP, b += quant_block_bytes(type)) {
        __m256 a = _mm256_set1_ps(avx2_f16(b)), m = quant_has_min(type) ? _mm256_set1_ps(avx2_f16(b + 2)) : a;
        decode_group(_mm256_sub_epi8(avx2_unpack_block(type, b), offset), a, a, m, m, quant_has_min(type), out + i);
    }
}

AVX2_INLINE void decode_supers(uint32_t type, const uint8_t *b, float *out, size_t n) {
    const __m256i offset = _mm256_set1_epi8((char)quant_offset(type));
    for (size_t i = 0; i < n; i += QUANT_SUPER, b += quant_block_bytes(type)) {
        avx2_scales s = avx2_scales_load(type, b);
        float a[2][8], m[2][8];
        _mm256_storeu_ps(a[0], _mm256_mul_ps(_mm256_set1_ps(s.d), avx2_low_floats(s.scale)));
        _mm256_storeu_ps(a[1], _mm256_mul_ps(_mm256_set1_ps(s.d), avx2_high_floats(s.scale)));
        if (quant_has_min(type)) {
            _mm256_storeu_ps(m[0], _mm256_mul_ps(_mm256_set1_ps(s.dmin), avx2_low_floats(s.min)));
            _mm256_storeu_ps(m[1], _mm256_mul_ps(_mm256_set1_ps(s.dmin), avx2_high_floats(s.min)));
        }
        QUANT_UNROLL
        for (int g = 0; g < QUANT_SUPER_GROUPS; g++) {
            __m256 a0 = _mm256_set1_ps(a[0][g]), a1 = _mm256_set1_ps(a[1][g]);
            __m256 m0 = quant_has_min(type) ? _mm256_set1_ps(m[0][g]) : a0;
            __m256 m1 = quant_has_min(type) ? _mm256_set1_ps(m[1][g]) : a1;
            decode_group(_mm256_sub_epi8(avx2_unpack_super(type, b, g), offset), a0, a1, m0, m1, quant_has_min(type),
                         out + i + g * QUANT_GROUP);
        }
    }
}

AVX2_TARGET static void decode_f16(const uint8_t *row, float *out, size_t n) {
    size_t i = 0;
    for (; i + 8 <= n; i += 8)
        _mm256_storeu_ps(out + i, _mm256_cvtph_ps(avx2_load16(row + 2 * i)));
    for (; i < n; i++)
        out[i] = avx2_f16(row + 2 * i);
}

AVX2_TARGET static void decode_bf16(const uint8_t *row, float *out, size_t n) {
    size_t i = n / 8 * 8;
    for (size_t k = 0; k < i; k += 8) {
        __m256i v = _mm256_slli_epi32(_mm256_cvtepu16_epi32(avx2_load16(row + 2 * k)), 16);
        _mm256_storeu_ps(out + k, _mm256_castsi256_ps(v));
    }
    quant_decode_row_plain(CMC_BF16, row + 2 * i, out + i, n - i);
}

AVX2_TARGET static void decode_row(uint32_t type, const void *row, float *out, size_t n) {
    switch (type) {
    case CMC_F16: decode_f16(row, out, n); break;
    case CMC_BF16: decode_bf16(row, out, n); break;
    case CMC_Q4_0: decode_blocks(CMC_Q4_0, row, out, n); break;
    case CMC_Q4_1: decode_blocks(CMC_Q4_1, row, out, n); break;
    case CMC_Q5_0: decode_blocks(CMC_Q5_0, row, out, n); break;
    case CMC_Q5_1: decode_blocks(CMC_Q5_1, row, out, n); break;
    case CMC_Q8_0: decode_blocks(CMC_Q8_0, row, out, n); break;
    case CMC_IQ4_NL: decode_blocks(CMC_IQ4_NL, row, out, n); break;
    case CMC_Q2_K: decode_supers(CMC_Q2_K, row, out, n); break;
    case CMC_Q3_K: decode_supers(CMC_Q3_K, row, out, n); break;
    case CMC_Q4_K: decode_supers(CMC_Q4_K, row, out, n); break;
    case CMC_Q5_K: decode_supers(CMC_Q5_K, row, out, n); break;
    case CMC_Q6_K: decode_supers(CMC_Q6_K, row, out, n); break;
    case CMC_IQ4_XS: decode_supers(CMC_IQ4_XS, row, out, n); break;
    default: quant_decode_row_plain(type, row, out, n); break;
    }
}

/* ------------------------------------------------------------------------------------------------ activations */

AVX2_INLINE float group_max(const __m256 *x) {
    const __m256i abs = _mm256_set1_epi32(0x7fffffff);
    __m256i m = _mm256_and_si256(_mm256_castps_si256(x[0]), abs);
    for (int i = 1; i < 4; i++)
        m = _mm256_max_epi32(m, _mm256_and_si256(_mm256_castps_si256(x[i]), abs));
    __m128i v = _mm_max_epi32(_mm256_castsi256_si128(m), _mm256_extracti128_si256(m, 1));
    v = _mm_max_epi32(v, _mm_shuffle_epi32(v, 0x4e));
    v = _mm_max_epi32(v, _mm_shuffle_epi32(v, 0xb1));
    return _mm_cvtss_f32(_mm_castsi128_ps(v));
}

/* The sum of four int32. */
AVX2_INLINE int sum_4(__m128i v) {
    v = _mm_add_epi32(v, _mm_shuffle_epi32(v, 0x4e));
    return _mm_cvtsi128_si32(_mm_add_epi32(v, _mm_shuffle_epi32(v, 0xb1)));
}

/* Group g of a row. */
AVX2_INLINE void act_group(const __m256 *v, void *act, size_t n, size_t g) {
    float max = group_max(v), inv = max < QUANT_ACT_TINY ? 0 : 127.0f / max;
    __m256i k[4];
    for (int i = 0; i < 4; i++)
        k[i] = _mm256_cvtps_epi32(_mm256_mul_ps(v[i], _mm256_set1_ps(inv)));
    __m256i b = _mm256_packs_epi16(_mm256_packs_epi32(k[0], k[1]), _mm256_packs_epi32(k[2], k[3]));
    b = _mm256_permutevar8x32_epi32(b, _mm256_setr_epi32(0, 4, 1, 5, 2, 6, 3, 7));   /* packs work lane by lane */
    _mm256_storeu_si256((__m256i *)(void *)((int8_t *)act + g * QUANT_GROUP), b);
    __m256i sums = _mm256_madd_epi16(_mm256_maddubs_epi16(_mm256_set1_epi8(1), b), _mm256_set1_epi16(1));
    quant_act_put(act, n, g, max < QUANT_ACT_TINY ? 0 : max / 127.0f, sum_4(_mm256_castsi256_si128(sums)),
                  sum_4(_mm256_extracti128_si256(sums, 1)));
}

AVX2_TARGET static void act_row(const float *x, void *act, size_t n) {
    for (size_t g = 0; g < n / QUANT_GROUP; g++, x += QUANT_GROUP) {
        __m256 v[4];
        for (int i = 0; i < 4; i++)
            v[i] = _mm256_loadu_ps(x + 8 * i);
        act_group(v, act, n, g);
    }
}

AVX2_TARGET static void act_norm(const float *x, float scale, const float *w, float *y, void *act, size_t n) {
    const __m256 by = _mm256_set1_ps(scale);
    for (size_t g = 0; g < n / QUANT_GROUP; g++) {
        __m256 v[4];
        for (size_t i = 0; i < 4; i++) {
            const size_t at = g * QUANT_GROUP + 8 * i;
            v[i] = _mm256_mul_ps(_mm256_mul_ps(_mm256_loadu_ps(x + at), by), _mm256_loadu_ps(w + at));
            _mm256_storeu_ps(y + at, v[i]);
        }
        act_group(v, act, n, g);
    }
}

/* ------------------------------------------------------------------------------------------------- exact dots */

/* Lanes l and l + 8, l + 4, l + 2, l + 1. */
AVX2_INLINE float sum_16(__m256 lo, __m256 hi) {
    __m256 v8 = _mm256_add_ps(lo, hi);
    __m128 v4 = _mm_add_ps(_mm256_castps256_ps128(v8), _mm256_extractf128_ps(v8, 1));
    __m128 v2 = _mm_add_ps(v4, _mm_movehl_ps(v4, v4));
    return _mm_cvtss_f32(_mm_add_ss(v2, _mm_shuffle_ps(v2, v2, 1)));
}

/* No fused multiply-add: the plain code, and machines without it, round each product. */
AVX2_INLINE void dot_exact_cols(const float *row, const float *cols, size_t col_stride, size_t n, const int nc, float *out,
                                size_t out_stride) {
    __m256 lo[4], hi[4];
    for (int c = 0; c < nc; c++)
        lo[c] = hi[c] = _mm256_setzero_ps();
    size_t i = 0;
    for (; i + 16 <= n; i += 16) {
        __m256 a = _mm256_loadu_ps(row + i), b = _mm256_loadu_ps(row + i + 8);
        QUANT_UNROLL
        for (int c = 0; c < nc; c++) {
            const float *x = cols + (size_t)c * col_stride + i;
            lo[c] = _mm256_add_ps(lo[c], _mm256_mul_ps(a, _mm256_loadu_ps(x)));
            hi[c] = _mm256_add_ps(hi[c], _mm256_mul_ps(b, _mm256_loadu_ps(x + 8)));
        }
    }
    for (int c = 0; c < nc; c++) {
        float lane[16];
        _mm256_storeu_ps(lane, lo[c]);
        _mm256_storeu_ps(lane + 8, hi[c]);
        for (size_t l = 0; i + l < n; l++)
            lane[l] += row[i + l] * cols[(size_t)c * col_stride + i + l];
        out[(size_t)c * out_stride] = sum_16(_mm256_loadu_ps(lane), _mm256_loadu_ps(lane + 8));
    }
}

AVX2_TARGET static void dot_exact(const float *row, const float *cols, size_t col_stride, size_t n, size_t n_cols, float *out,
                                  size_t out_stride) {
    size_t c = 0;
    for (; c + 4 <= n_cols; c += 4)
        dot_exact_cols(row, cols + c * col_stride, col_stride, n, 4, out + c * out_stride, out_stride);
    for (; c < n_cols; c++)
        dot_exact_cols(row, cols + c * col_stride, col_stride, n, 1, out + c * out_stride, out_stride);
}

const quant_kernels *quant_kernels_avx2(void) {
    static const quant_kernels table = {
        .isa = "avx2",
        .decode_row = decode_row,
        .act_row = act_row,
        .act_norm = act_norm,
        .dot = quant_dot_rows_avx2,
        .dot_exact = dot_exact,
    };
    /* F16C: no processor has AVX2 without it, clang 14 cannot ask for it, and cpuid itself costs microseconds in a
     * virtual machine. */
    return __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") ? &table : NULL;
}

const quant_kernels *quant_kernels_vnni(void) {
    static const quant_kernels table = {
        .isa = "avx512-vnni",
        .decode_row = decode_row,
        .act_row = act_row,
        .act_norm = act_norm,
        .dot = quant_dot_rows_vnni,
        .dot_exact = dot_exact,
    };
    return vnni_supported() ? &table : NULL;
}

#else
const quant_kernels *quant_kernels_avx2(void) {
    return NULL;
}

const quant_kernels *quant_kernels_vnni(void) {
    return NULL;
}
#endif
