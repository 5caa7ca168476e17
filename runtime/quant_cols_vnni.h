/* Columns of int8 activations beside 16 rows of unpacked weights: what the products of several columns share, wherever the weights
 * come from. Include only in files that check for AVX-512 VNNI at run time. */
#ifndef CMC_RUNTIME_QUANT_COLS_VNNI_H
#define CMC_RUNTIME_QUANT_COLS_VNNI_H
#include "runtime/quant_rows_vnni.h"

enum {
    FEW_COLS = 8,                /* at a time, beside the registers of a group */
    MAX_COLS = QUANT_GEMM_COLS   /* and where that comes from memory: a register of integer and one of float sums for each */
};

VNNI_INLINE size_t groups_of_block(uint32_t type) {
    return quant_is_super(type) ? QUANT_SUPER_GROUPS : 1;
}

/* Scales of a group. */
VNNI_INLINE int parts_of_group(uint32_t type) {
    return quant_is_super(type) && quant_has_halves(type) ? 2 : 1;
}

/* Some columns: where each begins, and how far from there what is needed of it lies, `sum` of each half; and what offsets take away,
 * [column][group][half]. */
typedef struct gemm_columns {
    const uint8_t *at[MAX_COLS];
    size_t high, low, d, sum[2];
    const int32_t *less;
} gemm_columns;

/* Room for the latter. */
VNNI_INLINE size_t less_bytes(size_t n) {
    return MAX_COLS * (n / 16) * sizeof(int32_t);
}

/* Of each part the sum of the column's integers times the offset, negated. */
VNNI_INLINE void columns_less(uint32_t type, const int nc, const quant_dot_args *a, const gemm_columns *y, size_t act_at, int32_t *less) {
    const size_t groups = a->n / QUANT_GROUP, parts = (size_t)parts_of_group(type);
    for (size_t c = 0; c < (size_t)nc; c++) {
        const quant_act v = quant_act_view(y->at[c] + act_at, a->n);
        int32_t *to = less + c * groups * parts;
        for (size_t g = 0; g < groups; g++) {
            to[g * parts] = -vnni_offset(type) * (parts == 2 ? v.n0 : v.n)[g];
            if (parts == 2)
                to[g * parts + 1] = -vnni_offset(type) * v.n1[g];
        }
    }
}

/* The `kept` columns from c0 on; the last stands in for those that are not there. `less`: less_bytes, written. */
VNNI_INLINE gemm_columns columns_from(uint32_t type, bool fine, const int nc, const quant_dot_args *a, size_t c0, size_t kept, int32_t *less) {
    gemm_columns y;
    QUANT_UNROLL16
    for (size_t c = 0; c < (size_t)nc; c++)
        y.at[c] = a->acts + (c0 + (c < kept ? c : kept - 1)) * a->act_stride;
    const quant_act v = quant_act_view(y.at[0] + (fine ? a->n : 0), a->n);
    const bool halves = parts_of_group(type) == 2;
    const void *const places[] = {v.q, v.d, halves ? v.s0 : v.s, v.s1};
    size_t far[4];
    for (int i = 0; i < 4; i++)
        far[i] = (size_t)((const uint8_t *)places[i] - y.at[0]);
    y.high = y.low = far[0];
    if (fine)
        y.low = 0;
    y.d = far[1];
    y.sum[0] = far[2];
    y.sum[1] = far[3];
    y.less = less;
    if (vnni_offset(type))
        columns_less(type, nc, a, &y, fine ? a->n : 0, less);
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

/* The integer sums of part h of group g, less the offset; of fine activations the high parts come first, which count 128. */
VNNI_INLINE void sum_part(uint32_t type, bool fine, const int nc, const __m512i *w, const gemm_columns *y, size_t groups, size_t g,
                          const int h, __m512i *sum) {
    const size_t parts = (size_t)parts_of_group(type), first = g * QUANT_GROUP + (size_t)(h * 16);
    const uint8_t *less = (const uint8_t *)(y->less + g * parts + (size_t)h);
    const int quads = GROUP_QUADS / (int)parts;
    QUANT_UNROLL16
    for (size_t c = 0; c < (size_t)nc; c++)
        sum[c] = fine || !vnni_offset(type) ? _mm512_setzero_si512() : spread_int(less + c * groups * parts * sizeof(int32_t));
    if (fine) {
        add_quads(nc, w, quads, y, y->high + first, sum);
        QUANT_UNROLL16
        for (size_t c = 0; c < (size_t)nc; c++) {
            sum[c] = _mm512_slli_epi32(sum[c], QUANT_FINE_BITS);
            if (vnni_offset(type))
                sum[c] = _mm512_add_epi32(sum[c], spread_int(less + c * groups * parts * sizeof(int32_t)));
        }
    }
    add_quads(nc, w, quads, y, y->low + first, sum);
}

/* Adds part h of group g, of `groups` in a row: its scale times d of the column times the integer sums, and the minimum times the sum
 * of the column's values. `scale` and `min` are the part's. */
VNNI_INLINE void add_part(uint32_t type, bool fine, const int nc, const __m512i *w, const float *scale, const float *min,
                          const gemm_columns *y, size_t groups, size_t g, const int h, __m512 *f) {
    const size_t at = g * sizeof(float);
    __m512i sum[MAX_COLS];
    sum_part(type, fine, nc, w, y, groups, g, h, sum);
    const __m512 by = _mm512_loadu_ps(scale);
    QUANT_UNROLL16
    for (int c = 0; c < nc; c++)
        f[c] = _mm512_fmadd_ps(_mm512_mul_ps(_mm512_cvtepi32_ps(sum[c]), spread_float(y->at[c] + y->d + at)), by, f[c]);
    if (!quant_has_min(type))
        return;
    const __m512 addend = _mm512_loadu_ps(min);
    QUANT_UNROLL16
    for (int c = 0; c < nc; c++)
        f[c] = _mm512_fmadd_ps(addend, spread_float(y->at[c] + y->sum[h] + at), f[c]);
}

/* All of a group, whose parts' scales and minima follow one another. */
VNNI_INLINE void add_group(uint32_t type, bool fine, const int nc, const __m512i *w, const float *scale, const float *min,
                           const gemm_columns *y, size_t groups, size_t g, __m512 *f) {
    const int parts = parts_of_group(type);
    QUANT_UNROLL
    for (int h = 0; h < parts; h++)
        add_part(type, fine, nc, w + h * (GROUP_QUADS / parts), scale + h * ROWS_WIDE, min + h * ROWS_WIDE, y, groups, g, h, f);
}

/* The sums of rows [16 strip, 16 strip + 16) with `kept` <= nc columns from c0 on go to their places. */
VNNI_INLINE void columns_put(const int nc, const quant_dot_args *a, size_t strip, size_t c0, size_t kept, const __m512 *f) {
    const size_t left = a->n_rows - strip * ROWS_WIDE;
    const __mmask16 rows = (__mmask16)(left >= ROWS_WIDE ? 0xffff : (1u << left) - 1);
    QUANT_UNROLL16
    for (size_t c = 0; c < (size_t)nc; c++)
        if (c < kept)
            _mm512_mask_storeu_ps(a->out + (c0 + c) * a->out_stride + strip * ROWS_WIDE, rows, f[c]);
}
#endif
