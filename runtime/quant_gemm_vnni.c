/* Products of quantised rows with many columns of int8 activations, by AVX-512's VNNI: a tile of 32 rows is unpacked to bytes
 * once, laid out so that one register holds 4 elements of 16 rows, and then serves all columns.
 *
 * Every result has accumulators of its own and its groups are added in their order, so its bits do not depend on what is
 * computed beside it, nor on how many columns there are. */
#include "runtime/quant_impl.h"

#if defined(__x86_64__)
#include "runtime/quant_vnni.h"

#include <math.h>

enum {
    TILE_ROWS = QUANT_GEMM_ROWS,
    GROUP_QUADS = QUANT_GROUP / 4,   /* dwords of a group: what one dot instruction takes of each row */
    MAX_COLS = 6                     /* columns at a time: two registers of integer and two of float sums for each */
};

/* A tile of TILE_ROWS rows: bytes [group][quad][row][4], then scales and minima [group][half][row] (one half for most types). */
typedef struct gemm_tile {
    uint8_t *bytes;
    float *scale, *min;
} gemm_tile;

VNNI_INLINE gemm_tile tile_view(void *buf, size_t n) {
    float *f = (float *)(void *)((uint8_t *)buf + n * TILE_ROWS);
    return (gemm_tile){buf, f, f + n / 16 * TILE_ROWS};
}

/* ------------------------------------------------------------------------------------------------ unpacking */

/* Group g's bytes of rows row .. row + 16: from rows of 8 dwords to dwords of 16 rows. */
VNNI_INLINE void put_group(const __m256i *u, const gemm_tile *t, size_t g, size_t row) {
    __m512i z[8], p[8];
    QUANT_UNROLL
    for (int i = 0; i < 8; i++) { /* rows i | i + 4 of the first 8, then of the others */
        const int r = i % 4 + i / 4 * 8;
        z[i] = _mm512_inserti64x4(_mm512_castsi256_si512(u[r]), u[r + 4], 1);
    }
    QUANT_UNROLL
    for (int i = 0; i < 8; i += 4) { /* p[i + j]: dword j (and j + 4) of 4 rows in each lane */
        const __m512i a = _mm512_unpacklo_epi32(z[i], z[i + 1]), b = _mm512_unpacklo_epi32(z[i + 2], z[i + 3]);
        const __m512i c = _mm512_unpackhi_epi32(z[i], z[i + 1]), d = _mm512_unpackhi_epi32(z[i + 2], z[i + 3]);
        p[i] = _mm512_unpacklo_epi64(a, b);
        p[i + 1] = _mm512_unpackhi_epi64(a, b);
        p[i + 2] = _mm512_unpacklo_epi64(c, d);
        p[i + 3] = _mm512_unpackhi_epi64(c, d);
    }
    uint8_t *to = t->bytes + (g * GROUP_QUADS * TILE_ROWS + row) * 4;
    QUANT_UNROLL
    for (int j = 0; j < 4; j++) {
        _mm512_storeu_si512(to + (size_t)j * TILE_ROWS * 4, _mm512_shuffle_i64x2(p[j], p[j + 4], 0x88));
        _mm512_storeu_si512(to + (size_t)(j + 4) * TILE_ROWS * 4, _mm512_shuffle_i64x2(p[j], p[j + 4], 0xdd));
    }
}

/* The bytes of one group of 16 rows, of which the tile has `rows`; `b` the first row's block, `g` the group within a
 * super-block. */
VNNI_INLINE void unpack_group(uint32_t type, const uint8_t *b, size_t stride, size_t rows, const int g, __m256i *u) {
    QUANT_UNROLL16
    for (size_t r = 0; r < 16; r++) {
        u[r] = _mm256_setzero_si256();
        if (r < rows)
            u[r] = quant_is_super(type) ? avx2_unpack_super(type, b + r * stride, g) : avx2_unpack_block(type, b + r * stride);
        if (quant_is_signed(type))
            u[r] = _mm256_xor_si256(u[r], _mm256_set1_epi8((char)0x80));
    }
}

VNNI_INLINE void unpack_blocks(uint32_t type, const quant_dot_args *a, const gemm_tile *t) {
    for (size_t g = 0; g < a->n / QUANT_GROUP; g++) {
        const uint8_t *b = a->rows + g * quant_block_bytes(type);
        const bool ask = g % (64 / quant_block_bytes(type)) == 0;   /* once a line of memory, about */
        uint32_t dm[TILE_ROWS] = {0};   /* d, and above it m where the block has one */
        for (size_t r = 0; r < a->n_rows; r++) {
            if (ask)
                _mm_prefetch((const char *)((uintptr_t)(b + r * a->row_stride) + (uintptr_t)a->ahead), _MM_HINT_T1);
            dm[r] = quant_le32(b + r * a->row_stride);
        }
        for (size_t r = 0; r < TILE_ROWS; r += 16) {
            const __m512i v = _mm512_loadu_si512(dm + r);
            _mm512_storeu_ps(t->scale + g * TILE_ROWS + r, _mm512_cvtph_ps(_mm512_cvtepi32_epi16(v)));
            if (quant_has_min(type))
                _mm512_storeu_ps(t->min + g * TILE_ROWS + r, _mm512_cvtph_ps(_mm512_cvtepi32_epi16(_mm512_srli_epi32(v, 16))));
        }
        for (size_t r = 0; r < a->n_rows; r += 16) {
            __m256i u[16];
            unpack_group(type, b + r * a->row_stride, a->row_stride, a->n_rows - r, 0, u);
            put_group(u, t, g, r);
        }
    }
}

/* The scales of a row's super-block, whose first group is g0. */
VNNI_INLINE void unpack_scales(uint32_t type, const uint8_t *b, const gemm_tile *t, size_t g0, size_t row) {
    const size_t halves = quant_has_halves(type) ? 2 : 1;
    avx2_scales s = avx2_scales_load(type, b);
    int16_t scale[16], min[16];   /* the first halves of the 8 groups, then the second */
    _mm256_storeu_si256((__m256i *)(void *)scale, s.scale);
    _mm256_storeu_si256((__m256i *)(void *)min, s.min);
    for (size_t g = 0; g < QUANT_SUPER_GROUPS; g++) {
        for (size_t h = 0; h < halves; h++) {
            size_t at = ((g0 + g) * halves + h) * TILE_ROWS + row;
            t->scale[at] = s.d * (float)scale[8 * h + g];
            if (quant_has_min(type))
                t->min[at] = s.dmin * (float)min[8 * h + g];
        }
    }
}

VNNI_INLINE void unpack_supers(uint32_t type, const quant_dot_args *a, const gemm_tile *t) {
    const uint8_t *b = a->rows;
    for (size_t g0 = 0; g0 < a->n / QUANT_GROUP; g0 += QUANT_SUPER_GROUPS, b += quant_block_bytes(type)) {
        for (size_t r = 0; r < a->n_rows; r++) {
            for (size_t i = 0; i < quant_block_bytes(type); i += 64)
                _mm_prefetch((const char *)((uintptr_t)(b + r * a->row_stride + i) + (uintptr_t)a->ahead), _MM_HINT_T1);
            unpack_scales(type, b + r * a->row_stride, t, g0, r);
        }
        QUANT_UNROLL
        for (int g = 0; g < QUANT_SUPER_GROUPS; g++) {
            for (size_t r = 0; r < a->n_rows; r += 16) {
                __m256i u[16];
                unpack_group(type, b + r * a->row_stride, a->row_stride, a->n_rows - r, g, u);
                put_group(u, t, g0 + (size_t)g, r);
            }
        }
    }
}

VNNI_INLINE void unpack(uint32_t type, const quant_dot_args *a, const gemm_tile *t) {
    if (quant_is_super(type))
        unpack_supers(type, a, t);
    else
        unpack_blocks(type, a, t);
}

/* ------------------------------------------------------------------------------------------------ columns */

/* Sums of nc columns: integers of a group or half, floats of the groups so far; each of 32 rows in two registers. */
typedef struct gemm_sums {
    __m512i i[MAX_COLS][2];
    __m512 f[MAX_COLS][2];
} gemm_sums;

VNNI_INLINE void add_quads(const int nc, const uint8_t *bytes, const int8_t *const *q, size_t first, int quads, gemm_sums *s) {
    QUANT_UNROLL
    for (int j = 0; j < quads; j++) {
        __m512i w0 = _mm512_loadu_si512(bytes + (size_t)j * TILE_ROWS * 4);
        __m512i w1 = _mm512_loadu_si512(bytes + (size_t)j * TILE_ROWS * 4 + 64);
        QUANT_UNROLL
        for (int c = 0; c < nc; c++) {
            __m512i x = _mm512_set1_epi32((int)quant_le32((const uint8_t *)q[c] + first + 4 * (size_t)j));
            s->i[c][0] = _mm512_dpbusd_epi32(s->i[c][0], w0, x);
            s->i[c][1] = _mm512_dpbusd_epi32(s->i[c][1], w1, x);
        }
    }
}

/* The floats of part p (a group, or half of one) of the tile: scale times d of the column times the integer sums, and the
 * minimum times the sum of the column's values. */
VNNI_INLINE void add_floats(const int nc, bool has_min, const gemm_tile *t, size_t p, const float *const *d, size_t g,
                            const float *const *sum, gemm_sums *s) {
    QUANT_UNROLL
    for (int h = 0; h < 2; h++) {
        __m512 scale = _mm512_loadu_ps(t->scale + p * TILE_ROWS + 16 * h);
        QUANT_UNROLL
        for (int c = 0; c < nc; c++)
            s->f[c][h] = _mm512_fmadd_ps(_mm512_mul_ps(_mm512_cvtepi32_ps(s->i[c][h]), _mm512_set1_ps(d[c][g])), scale,
                                         s->f[c][h]);
        if (!has_min)
            continue;
        __m512 min = _mm512_loadu_ps(t->min + p * TILE_ROWS + 16 * h);
        QUANT_UNROLL
        for (int c = 0; c < nc; c++)
            s->f[c][h] = _mm512_fmadd_ps(min, _mm512_set1_ps(sum[c][g]), s->f[c][h]);
    }
}

/* The integer sums of 4 * quads elements from `first` on, less the offset: of fine activations the high parts come first, which
 * count 128. */
VNNI_INLINE void sum_ints(const int nc, bool fine, int offset, const uint8_t *bytes, const int8_t *const *high,
                          const int8_t *const *low, size_t first, int quads, const int32_t *const *count, size_t g,
                          gemm_sums *s) {
    QUANT_UNROLL
    for (int c = 0; c < nc; c++)
        s->i[c][0] = s->i[c][1] = _mm512_setzero_si512();
    if (fine)
        add_quads(nc, bytes, high, first, quads, s);
    QUANT_UNROLL
    for (int c = 0; c < nc; c++)
        QUANT_UNROLL
        for (int h = 0; h < 2; h++)
            s->i[c][h] = _mm512_sub_epi32(_mm512_slli_epi32(s->i[c][h], QUANT_FINE_BITS),
                                          _mm512_set1_epi32(offset ? offset * count[c][g] : 0));
    add_quads(nc, bytes, low, first, quads, s);
}

VNNI_INLINE void columns(uint32_t type, bool fine, const int nc, const quant_dot_args *a, const gemm_tile *t, size_t c0) {
    const int offset = vnni_offset(type);
    const bool halves = quant_is_super(type) && quant_has_halves(type), has_min = quant_has_min(type);
    const int8_t *high[MAX_COLS], *low[MAX_COLS];
    const float *d[MAX_COLS], *sum[2][MAX_COLS];
    const int32_t *count[2][MAX_COLS];
    gemm_sums s;
    QUANT_UNROLL
    for (int c = 0; c < nc; c++) {
        quant_act y = quant_act_view(a->acts + (c0 + (size_t)c) * a->act_stride + (fine ? a->n : 0), a->n);
        high[c] = y.q;
        low[c] = fine ? y.q - a->n : y.q;
        d[c] = y.d;
        sum[0][c] = halves ? y.s0 : y.s;
        sum[1][c] = y.s1;
        count[0][c] = halves ? y.n0 : y.n;
        count[1][c] = y.n1;
        s.f[c][0] = s.f[c][1] = _mm512_setzero_ps();
    }
    const int parts = halves ? 2 : 1, quads = GROUP_QUADS / parts;
    for (size_t g = 0; g < a->n / QUANT_GROUP; g++) {
        QUANT_UNROLL
        for (int h = 0; h < parts; h++) {
            size_t p = g * (size_t)parts + (size_t)h, first = g * QUANT_GROUP + (size_t)(h * 16);
            sum_ints(nc, fine, offset, t->bytes + first * TILE_ROWS, high, low, first, quads, count[h], g, &s);
            add_floats(nc, has_min, t, p, d, g, sum[h], &s);
        }
    }
    const __mmask16 mask = (__mmask16)(a->n_rows >= 16 ? 0xffff : (1u << a->n_rows) - 1);
    const __mmask16 mask2 = (__mmask16)(a->n_rows >= 32 ? 0xffff : a->n_rows <= 16 ? 0 : (1u << (a->n_rows - 16)) - 1);
    QUANT_UNROLL
    for (int c = 0; c < nc; c++) {
        float *out = a->out + (c0 + (size_t)c) * a->out_stride;
        _mm512_mask_storeu_ps(out, mask, s.f[c][0]);
        if (mask2)
            _mm512_mask_storeu_ps(out + 16, mask2, s.f[c][1]);
    }
}

/* ------------------------------------------------------------------------------------------------ types */

VNNI_INLINE void all_columns(uint32_t type, bool fine, const quant_dot_args *a, const gemm_tile *t) {
    size_t c = 0;
    for (; c + MAX_COLS <= a->n_cols; c += MAX_COLS)
        columns(type, fine, MAX_COLS, a, t, c);
    if (c + 4 <= a->n_cols) {
        columns(type, fine, 4, a, t, c);
        c += 4;
    }
    if (c + 2 <= a->n_cols) {
        columns(type, fine, 2, a, t, c);
        c += 2;
    }
    if (c < a->n_cols)
        columns(type, fine, 1, a, t, c);
}

VNNI_INLINE void gemm(uint32_t type, const quant_dot_args *a, void *buf) {
    const gemm_tile t = tile_view(buf, a->n);
    unpack(type, a, &t);
    if (a->fine)
        all_columns(type, true, a, &t);
    else
        all_columns(type, false, a, &t);
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
