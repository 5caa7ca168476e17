/* Products of quantised rows with several columns of int8 activations, by AVX-512's VNNI. A register holds 4 elements of 16 rows
 * (quant_rows_vnni.h). Few columns take a group of weights straight from where it was unpacked; for more, strips of 16 rows are
 * unpacked once, into a tile, and serve all columns.
 *
 * Every result has accumulators of its own and its groups are added in their order, so its bits do not depend on what is
 * computed beside it, nor on how many columns there are. */
#include "runtime/quant_impl.h"

#if defined(__x86_64__)
#include "runtime/quant_rows_vnni.h"

#include <math.h>

enum {
    CACHE_LINE = 64,
    STRIPS = QUANT_GEMM_ROWS / ROWS_WIDE,
    STRAIGHT_COLS = 8,   /* columns at a time beside the registers of a group */
    MAX_COLS = QUANT_GEMM_COLS   /* and where that comes from memory: a register of integer and one of float sums for each */
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

VNNI_INLINE int parts_of_group(uint32_t type) {
    return quant_is_super(type) && quant_has_halves(type) ? 2 : 1;
}

/* ------------------------------------------------------------------------------------------------ columns */

/* Some columns: where each begins, and how far from there what is needed of it lies; `sum` and `count` of each half. */
typedef struct gemm_columns {
    const uint8_t *at[MAX_COLS];
    size_t high, low, d, sum[2], count[2];
} gemm_columns;

/* The `kept` columns from c0 on; the last stands in for those that are not there. */
VNNI_INLINE gemm_columns columns_from(uint32_t type, bool fine, const int nc, const quant_dot_args *a, size_t c0, size_t kept) {
    gemm_columns y;
    QUANT_UNROLL16
    for (size_t c = 0; c < (size_t)nc; c++)
        y.at[c] = a->acts + (c0 + (c < kept ? c : kept - 1)) * a->act_stride;
    const quant_act v = quant_act_view(y.at[0] + (fine ? a->n : 0), a->n);
    const bool halves = parts_of_group(type) == 2;
    const void *const places[] = {v.q, v.d, halves ? v.s0 : v.s, v.s1, halves ? v.n0 : v.n, v.n1};
    size_t far[6];
    for (int i = 0; i < 6; i++)
        far[i] = (size_t)((const uint8_t *)places[i] - y.at[0]);
    y.high = y.low = far[0];
    if (fine)
        y.low = 0;
    y.d = far[1];
    y.sum[0] = far[2];
    y.sum[1] = far[3];
    y.count[0] = far[4];
    y.count[1] = far[5];
    return y;
}

VNNI_INLINE __m512i spread_int(const uint8_t *p) {
    return _mm512_set1_epi32((int)quant_le32(p));
}

VNNI_INLINE __m512 spread_float(const uint8_t *p) {
    float f;
    memcpy(&f, p, sizeof f);
    return _mm512_set1_ps(f);
}

/* Adds to the integer sums the products of some quads with the columns' bytes from `from` on. */
VNNI_INLINE void add_quads(const int nc, const __m512i *w, int quads, const gemm_columns *y, size_t from, __m512i *sum) {
    QUANT_UNROLL
    for (int j = 0; j < quads; j++) {
        const __m512i v = _mm512_loadu_si512(w + j);
        QUANT_UNROLL16
        for (int c = 0; c < nc; c++)
            sum[c] = _mm512_dpbusd_epi32(sum[c], v, spread_int(y->at[c] + from + 4 * (size_t)j));
    }
}

/* Part h of group g: integer sums less the offset, of fine activations the high parts first, which count 128; then floats: scale
 * times d of the column times those, and the minimum times the sum of the column's values. */
VNNI_INLINE void add_part(uint32_t type, bool fine, const int nc, const __m512i *w, const gemm_strip *t, const gemm_columns *y,
                          size_t g, const int h, __m512 *f) {
    const int parts = parts_of_group(type), quads = GROUP_QUADS / parts;
    const size_t p = g * (size_t)parts + (size_t)h, first = g * QUANT_GROUP + (size_t)(h * 16), at = g * sizeof(float);
    __m512i sum[MAX_COLS];
    QUANT_UNROLL16
    for (int c = 0; c < nc; c++)
        sum[c] = _mm512_setzero_si512();
    if (fine) {
        add_quads(nc, w, quads, y, y->high + first, sum);
        QUANT_UNROLL16
        for (int c = 0; c < nc; c++)
            sum[c] = _mm512_slli_epi32(sum[c], QUANT_FINE_BITS);
    }
    add_quads(nc, w, quads, y, y->low + first, sum);
    const __m512 scale = _mm512_loadu_ps(t->scale + p * ROWS_WIDE);
    QUANT_UNROLL16
    for (int c = 0; c < nc; c++) {
        if (vnni_offset(type))
            sum[c] = _mm512_sub_epi32(sum[c], _mm512_mullo_epi32(spread_int(y->at[c] + y->count[h] + at),
                                                                 _mm512_set1_epi32(vnni_offset(type))));
        const __m512 by = _mm512_mul_ps(_mm512_cvtepi32_ps(sum[c]), spread_float(y->at[c] + y->d + at));
        f[c] = _mm512_fmadd_ps(by, scale, f[c]);
    }
    if (!quant_has_min(type))
        return;
    const __m512 min = _mm512_loadu_ps(t->min + p * ROWS_WIDE);
    QUANT_UNROLL16
    for (int c = 0; c < nc; c++)
        f[c] = _mm512_fmadd_ps(min, spread_float(y->at[c] + y->sum[h] + at), f[c]);
}

VNNI_INLINE void add_group(uint32_t type, bool fine, const int nc, const __m512i *w, const gemm_strip *t, const gemm_columns *y,
                           size_t g, __m512 *f) {
    const int parts = parts_of_group(type);
    QUANT_UNROLL
    for (int h = 0; h < parts; h++)
        add_part(type, fine, nc, w + h * (GROUP_QUADS / parts), t, y, g, h, f);
}

VNNI_INLINE void columns_put(const int nc, const quant_dot_args *a, size_t strip, size_t c0, size_t kept, const __m512 *f) {
    const size_t left = a->n_rows - strip * ROWS_WIDE;
    const __mmask16 rows = (__mmask16)(left >= ROWS_WIDE ? 0xffff : (1u << left) - 1);
    QUANT_UNROLL16
    for (size_t c = 0; c < (size_t)nc; c++)
        if (c < kept)
            _mm512_mask_storeu_ps(a->out + (c0 + c) * a->out_stride + strip * ROWS_WIDE, rows, f[c]);
}

/* ------------------------------------------------------------------------------------------------ unpacking */

VNNI_INLINE size_t groups_of_block(uint32_t type) {
    return quant_is_super(type) ? QUANT_SUPER_GROUPS : 1;
}

/* A strip's rows. Of one that has fewer than 16 they are copied to where the last stands in for those that are not there. */
VNNI_INLINE vnni_rows rows_of_strip(uint32_t type, const quant_dot_args *a, size_t strip, void *tile) {
    const size_t row = strip * ROWS_WIDE, left = a->n_rows - row, bytes = a->n / (groups_of_block(type) * QUANT_GROUP) * quant_block_bytes(type);
    const uint8_t *first = a->rows + row * a->row_stride;
    if (left >= ROWS_WIDE)
        return (vnni_rows){first, a->row_stride};
    uint8_t *copy = (uint8_t *)tile + quant_gemm_bytes(a->n) - ROWS_WIDE * bytes;
    for (size_t i = 0; i < ROWS_WIDE; i++)
        memcpy(copy + i * bytes, first + (i < left ? i : left - 1) * a->row_stride, bytes);
    return (vnni_rows){copy, bytes};
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
    const gemm_columns y = columns_from(type, false, nc, a, 0, a->n_cols);
    const size_t step = groups_of_block(type), parts = (size_t)parts_of_group(type);
    __m512 f[MAX_COLS];
    QUANT_UNROLL16
    for (int c = 0; c < nc; c++)
        f[c] = _mm512_setzero_ps();
    for (size_t g0 = 0, at = 0; g0 < a->n / QUANT_GROUP; g0 += step, at += quant_block_bytes(type)) {
        rows_scales(type, &rows, at, t->scale + g0 * parts * ROWS_WIDE, t->min + g0 * parts * ROWS_WIDE);
        for (size_t g = 0; g < step; g++) {
            __m512i w[GROUP_QUADS];
            ask_ahead(type, &rows, at, g0 + g, a->ahead);
            rows_unpack(type, &rows, at, g, w);
            add_group(type, false, nc, w, t, &y, g0 + g, f);
        }
    }
    columns_put(nc, a, strip, 0, a->n_cols, f);
}

/* An unpacked strip's product with `kept` <= nc columns from c0 on. */
VNNI_INLINE void columns(uint32_t type, bool fine, const int nc, const quant_dot_args *a, size_t strip, const gemm_strip *t,
                         size_t c0, size_t kept) {
    const gemm_columns y = columns_from(type, fine, nc, a, c0, kept);
    __m512 f[MAX_COLS];
    QUANT_UNROLL16
    for (int c = 0; c < nc; c++)
        f[c] = _mm512_setzero_ps();
    for (size_t g = 0; g < a->n / QUANT_GROUP; g++)
        add_group(type, fine, nc, (const __m512i *)(const void *)(t->bytes + g * QUANT_GROUP * ROWS_WIDE), t, &y, g, f);
    columns_put(nc, a, strip, c0, kept, f);
}

/* Columns go from strip to strip, for they are more than the strips. */
VNNI_INLINE void all_columns(uint32_t type, bool fine, const quant_dot_args *a, size_t strips, const gemm_strip *t) {
    size_t c = 0;
    for (; c + 8 < a->n_cols; c += MAX_COLS)
        for (size_t i = 0; i < strips; i++)
            columns(type, fine, MAX_COLS, a, i, &t[i], c, a->n_cols - c < MAX_COLS ? a->n_cols - c : MAX_COLS);
    if (c + 4 < a->n_cols)
        for (size_t i = 0; i < strips; i++)
            columns(type, fine, 8, a, i, &t[i], c, a->n_cols - c);
    else if (c < a->n_cols)
        for (size_t i = 0; i < strips; i++)
            columns(type, fine, 4, a, i, &t[i], c, a->n_cols - c);
}

VNNI_INLINE void gemm(uint32_t type, const quant_dot_args *a, void *tile) {
    const size_t strips = (a->n_rows + ROWS_WIDE - 1) / ROWS_WIDE;
    const bool is_straight = !a->fine && a->n_cols <= STRAIGHT_COLS;
    gemm_strip t[STRIPS];
    for (size_t i = 0; i < strips; i++) {
        t[i] = strip_view(tile, a->n, i);
        if (!is_straight)
            unpack_strip(type, a, i, &t[i], tile);
        else if (a->n_cols > 4)
            straight(type, STRAIGHT_COLS, a, i, &t[i], tile);
        else
            straight(type, 4, a, i, &t[i], tile);
    }
    if (is_straight)
        return;
    if (a->fine)
        all_columns(type, true, a, strips, t);
    else
        all_columns(type, false, a, strips, t);
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
