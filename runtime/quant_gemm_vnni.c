/* Products of quantised rows with several columns of int8 activations, by AVX-512's VNNI. A register holds 4 elements of 16 rows
 * (quant_rows_vnni.h). Few columns take a group of weights straight from where it was unpacked; for more, strips of 16 rows are
 * unpacked once, into a tile, and serve all columns.
 *
 * Every result has accumulators of its own and its groups are added in their order, so its bits do not depend on what is
 * computed beside it, nor on how many columns there are. */
#include "runtime/quant_impl.h"

#if defined(__x86_64__)
#include "runtime/quant_cols_vnni.h"

#include <math.h>

enum {
    CACHE_LINE = 64,
    STRIPS = QUANT_GEMM_ROWS / ROWS_WIDE
};

/* A strip of 16 rows, unpacked: bytes [group][quad][row][4], then scales and minima [group][half][row] (one half for most types). */
typedef struct gemm_strip {
    uint8_t *bytes;
    float *scale, *min;
} gemm_strip;

VNNI_INLINE gemm_strip strip_view(void *tile, size_t n, size_t i) {
    uint8_t *at = (uint8_t *)tile + i * ROWS_WIDE * (n + 2 * (n / 16) * sizeof(float));
    float *f = (float *)(void *)(at + n * ROWS_WIDE);
    return (gemm_strip){at, f, f + n / 16 * ROWS_WIDE};
}

/* ------------------------------------------------------------------------------------------------ unpacking */

/* A strip's rows: where they are, or in what the tile keeps for the last. */
VNNI_INLINE vnni_rows rows_of_strip(uint32_t type, const quant_dot_args *a, size_t strip, void *tile) {
    const size_t row = strip * ROWS_WIDE, bytes = cmc_type_row_bytes(type, a->n);
    return rows_whole(a->rows + row * a->row_stride, a->row_stride, a->n_rows - row, bytes,
                      (uint8_t *)tile + quant_gemm_bytes(a->n) - ROWS_WIDE * bytes);
}

/* Asks memory for what lies ahead of group g, whose block is at `at`: of each row once a line, about, the rows in turn. */
VNNI_INLINE void ask_ahead(uint32_t type, const vnni_rows *r, size_t at, size_t g, ptrdiff_t ahead) {
    const size_t block = quant_block_bytes(type), turns = quant_is_super(type) ? QUANT_SUPER_GROUPS : block < CACHE_LINE ? CACHE_LINE / block : 1;
    for (size_t i = g % turns; i < ROWS_WIDE; i += turns)
        for (size_t k = 0; k < block; k += CACHE_LINE)
            _mm_prefetch((const char *)((uintptr_t)(r->first + i * r->stride + at + k) + (uintptr_t)ahead), _MM_HINT_T1);
}

/* A group into the strip. */
VNNI_INLINE void put_group(const __m512i *w, const gemm_strip *t, size_t g) {
    QUANT_UNROLL
    for (size_t j = 0; j < GROUP_QUADS; j++)
        _mm512_storeu_si512(t->bytes + (g * GROUP_QUADS + j) * sizeof w[j], w[j]);
}

VNNI_INLINE void unpack_strip(uint32_t type, const quant_dot_args *a, size_t strip, const gemm_strip *t, void *tile) {
    const vnni_rows rows = rows_of_strip(type, a, strip, tile);
    const size_t step = groups_of_block(type), parts = (size_t)parts_of_group(type);
    for (size_t g0 = 0, at = 0; g0 < a->n / QUANT_GROUP; g0 += step, at += quant_block_bytes(type)) {
        rows_scales(type, &rows, at, t->scale + g0 * parts * ROWS_WIDE, t->min + g0 * parts * ROWS_WIDE);
        for (size_t g = 0; g < step; g++) {
            __m512i w[GROUP_QUADS];
            ask_ahead(type, &rows, at, g0 + g, a->ahead);
            rows_unpack(type, &rows, at, g, w);
            put_group(w, t, g0 + g);
        }
    }
}

/* ------------------------------------------------------------------------------------------------ types */

/* A strip's product with up to nc columns, from where its groups are unpacked; the strip keeps scales alone. */
VNNI_INLINE void straight(uint32_t type, const int nc, const quant_dot_args *a, size_t strip, const gemm_strip *t, void *tile) {
    const vnni_rows rows = rows_of_strip(type, a, strip, tile);
    const gemm_columns y = columns_from(type, false, nc, a, 0, a->n_cols, (int32_t *)(void *)t->bytes);
    const size_t groups = a->n / QUANT_GROUP, step = groups_of_block(type), parts = (size_t)parts_of_group(type);
    __m512 f[MAX_COLS];
    QUANT_UNROLL16
    for (int c = 0; c < nc; c++)
        f[c] = _mm512_setzero_ps();
    for (size_t g0 = 0, at = 0; g0 < groups; g0 += step, at += quant_block_bytes(type)) {
        rows_scales(type, &rows, at, t->scale + g0 * parts * ROWS_WIDE, t->min + g0 * parts * ROWS_WIDE);
        for (size_t g = g0; g < g0 + step; g++) {
            __m512i w[GROUP_QUADS];
            ask_ahead(type, &rows, at, g, a->ahead);
            rows_unpack(type, &rows, at, g - g0, w);
            add_group(type, false, nc, w, t->scale + g * parts * ROWS_WIDE, t->min + g * parts * ROWS_WIDE, &y, groups, g, f);
        }
    }
    columns_put(nc, a, strip, 0, a->n_cols, f);
}

/* An unpacked strip's product with `kept` <= nc columns from c0 on. */
VNNI_INLINE void columns(uint32_t type, bool fine, const int nc, const quant_dot_args *a, size_t strip, const gemm_strip *t,
                         const gemm_columns *y, size_t c0, size_t kept) {
    const size_t groups = a->n / QUANT_GROUP, parts = (size_t)parts_of_group(type);
    __m512 f[MAX_COLS];
    QUANT_UNROLL16
    for (int c = 0; c < nc; c++)
        f[c] = _mm512_setzero_ps();
    for (size_t g = 0; g < groups; g++)
        add_group(type, fine, nc, (const __m512i *)(const void *)(t->bytes + g * QUANT_GROUP * ROWS_WIDE),
                  t->scale + g * parts * ROWS_WIDE, t->min + g * parts * ROWS_WIDE, y, groups, g, f);
    columns_put(nc, a, strip, c0, kept, f);
}

/* Up to nc columns from c on, which go from strip to strip. */
VNNI_INLINE void some_columns(uint32_t type, bool fine, const int nc, const quant_dot_args *a, size_t strips, const gemm_strip *t, size_t c,
                              int32_t *less) {
    const size_t kept = a->n_cols - c < (size_t)nc ? a->n_cols - c : (size_t)nc;
    const gemm_columns y = columns_from(type, fine, nc, a, c, kept, less);
    for (size_t i = 0; i < strips; i++)
        columns(type, fine, nc, a, i, &t[i], &y, c, kept);
}

/* Columns go from strip to strip, for they are more than the strips. */
VNNI_INLINE void all_columns(uint32_t type, bool fine, const quant_dot_args *a, size_t strips, const gemm_strip *t, int32_t *less) {
    size_t c = 0;
    for (; c + 8 < a->n_cols; c += MAX_COLS)
        some_columns(type, fine, MAX_COLS, a, strips, t, c, less);
    if (c + 4 < a->n_cols)
        some_columns(type, fine, 8, a, strips, t, c, less);
    else if (c < a->n_cols)
        some_columns(type, fine, 4, a, strips, t, c, less);
}

VNNI_INLINE void gemm(uint32_t type, const quant_dot_args *a, void *tile) {
    const size_t strips = (a->n_rows + ROWS_WIDE - 1) / ROWS_WIDE;
    const bool is_straight = !a->fine && a->n_cols <= FEW_COLS;
    gemm_strip t[STRIPS];
    for (size_t i = 0; i < strips; i++) {
        t[i] = strip_view(tile, a->n, i);
        if (!is_straight)
            unpack_strip(type, a, i, &t[i], tile);
        else if (a->n_cols > 4)
            straight(type, FEW_COLS, a, i, &t[i], tile);
        else
            straight(type, 4, a, i, &t[i], tile);
    }
    if (is_straight)
        return;
    int32_t *less = (int32_t *)(void *)((uint8_t *)tile + quant_gemm_bytes(a->n) - less_bytes(a->n));
    if (a->fine)
        all_columns(type, true, a, strips, t, less);
    else
        all_columns(type, false, a, strips, t, less);
}

#define GEMM_OF_TYPE(name, type) \
    VNNI_TARGET static void name(const quant_dot_args *a, void *buf) { gemm(type, a, buf); }
GEMM_OF_TYPE(gemm_q4_0, CMC_Q4_0)
GEMM_OF_TYPE(gemm_q4_1, CMC_Q4_1)
GEMM_OF_TYPE(gemm_q5_0, CMC_Q5_0)
GEMM_OF_TYPE(gemm_q5_1, CMC_Q5_1)
GEMM_OF_TYPE(gemm_q8_0, CMC_Q8_0)
GEMM_OF_TYPE(gemm_iq4_nl, CMC_IQ4_NL)
GEMM_OF_TYPE(gemm_q2_k, CMC_Q2_K)
GEMM_OF_TYPE(gemm_q3_k, CMC_Q3_K)
GEMM_OF_TYPE(gemm_q4_k, CMC_Q4_K)
GEMM_OF_TYPE(gemm_q5_k, CMC_Q5_K)
GEMM_OF_TYPE(gemm_q6_k, CMC_Q6_K)
GEMM_OF_TYPE(gemm_iq4_xs, CMC_IQ4_XS)

static void gemm_of_any(uint32_t type, const quant_dot_args *a, void *buf) {
    switch (type) {
    case CMC_Q4_0: gemm_q4_0(a, buf); break;
    case CMC_Q4_1: gemm_q4_1(a, buf); break;
    case CMC_Q5_0: gemm_q5_0(a, buf); break;
    case CMC_Q5_1: gemm_q5_1(a, buf); break;
    case CMC_Q8_0: gemm_q8_0(a, buf); break;
    case CMC_IQ4_NL: gemm_iq4_nl(a, buf); break;
    case CMC_Q2_K: gemm_q2_k(a, buf); break;
    case CMC_Q3_K: gemm_q3_k(a, buf); break;
    case CMC_Q4_K: gemm_q4_k(a, buf); break;
    case CMC_Q5_K: gemm_q5_k(a, buf); break;
    case CMC_Q6_K: gemm_q6_k(a, buf); break;
    default: gemm_iq4_xs(a, buf); break;
    }
}

VNNI_TARGET static void act_row_fine(const float *x, void *act, size_t n) {
    int8_t *low = act, *high = low + n;
    for (size_t i = 0; i < n; i += QUANT_GROUP) {
        __m512 v[2] = {_mm512_loadu_ps(x + i), _mm512_loadu_ps(x + i + 16)};
        __m512i size = _mm512_max_epi32(_mm512_castps_si512(_mm512_abs_ps(v[0])), _mm512_castps_si512(_mm512_abs_ps(v[1])));
        uint32_t bits = (uint32_t)_mm512_reduce_max_epi32(size);   /* as integers, NaN is above all and not lost */
        float max;
        memcpy(&max, &bits, sizeof max);
        bool tiny = max < QUANT_ACT_TINY;
        const __mmask16 lanes = tiny || !(max < INFINITY) ? 0 : 0xffff;   /* NaN and infinity live on in d alone */
        int sum[2];
        QUANT_UNROLL
        for (int h = 0; h < 2; h++) {
            __m512i q = _mm512_maskz_cvtps_epi32(lanes, _mm512_mul_ps(v[h], _mm512_set1_ps((float)QUANT_FINE_MAX / max)));
            __m512i up = _mm512_srai_epi32(_mm512_add_epi32(q, _mm512_set1_epi32(1 << (QUANT_FINE_BITS - 1))), QUANT_FINE_BITS);
            __m512i rest = _mm512_sub_epi32(q, _mm512_slli_epi32(up, QUANT_FINE_BITS));
            _mm_storeu_si128((__m128i *)(void *)(high + i + 16 * (size_t)h), _mm512_cvtsepi32_epi8(up));
            _mm_storeu_si128((__m128i *)(void *)(low + i + 16 * (size_t)h), _mm512_cvtsepi32_epi8(rest));
            sum[h] = _mm512_reduce_add_epi32(q);
        }
        quant_act_put(high, n, i / QUANT_GROUP, tiny ? 0 : max / (float)QUANT_FINE_MAX, sum[0], sum[1]);
    }
}

const quant_gemm_kernels *quant_gemm_vnni(void) {
    static const quant_gemm_kernels table = {.gemm = gemm_of_any, .act_row_fine = act_row_fine};
    return vnni_supported() ? &table : NULL;
}

#else
const quant_gemm_kernels *quant_gemm_vnni(void) {
    return NULL;
}
#endif
