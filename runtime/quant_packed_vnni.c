/* Rows laid out as the products of several columns take them: 16 at a time, element by element side by side, so that nothing is left
 * to turn. Bit for bit the results of quant_gemm_vnni.c, which turns them each time.
 *
 * A strip of 16 rows is a row of groups. Each has its weights, [quad][row][4] bytes or, where they are 4 bits or less, quads j and
 * j + 4 in the low and the high half of a byte; then scales and, where the type has them, minima, [half][row] floats. */
#include "runtime/quant_impl.h"

#if defined(__x86_64__)
#include "runtime/quant_cols_vnni.h"

enum { CACHE_LINE = 64, QUAD_BYTES = 4 * ROWS_WIDE };

VNNI_INLINE bool is_nibbles(uint32_t type) {
    return type == CMC_Q4_0 || type == CMC_Q4_1 || type == CMC_Q4_K || type == CMC_Q2_K || type == CMC_Q3_K;
}

VNNI_INLINE size_t weight_bytes(uint32_t type) {
    return (is_nibbles(type) ? GROUP_QUADS / 2 : GROUP_QUADS) * QUAD_BYTES;
}

VNNI_INLINE size_t factor_bytes(uint32_t type) {
    return (size_t)parts_of_group(type) * ROWS_WIDE * sizeof(float);
}

VNNI_INLINE size_t group_bytes(uint32_t type) {
    return weight_bytes(type) + factor_bytes(type) * (quant_has_min(type) ? 2 : 1);
}

VNNI_TARGET static size_t strip_bytes(uint32_t type, size_t n) {
    return n / QUANT_GROUP * group_bytes(type);
}

/* ------------------------------------------------------------------------------------------------ packing */

VNNI_INLINE void put_weights(uint32_t type, const __m512i *w, uint8_t *to) {
    const int half = GROUP_QUADS / 2, n = is_nibbles(type) ? half : GROUP_QUADS;
    QUANT_UNROLL
    for (int j = 0; j < n; j++)
        _mm512_storeu_si512(to + j * QUAD_BYTES, is_nibbles(type) ? _mm512_or_si512(w[j], _mm512_slli_epi16(w[j + half], 4)) : w[j]);
}

VNNI_INLINE void pack_strip(uint32_t type, const vnni_rows *rows, size_t n, uint8_t *to) {
    const size_t step = groups_of_block(type), floats = factor_bytes(type) / sizeof(float);
    float scale[QUANT_SUPER_GROUPS * 2 * ROWS_WIDE], min[QUANT_SUPER_GROUPS * 2 * ROWS_WIDE];
    for (size_t g0 = 0, at = 0; g0 < n / QUANT_GROUP; g0 += step, at += quant_block_bytes(type)) {
        rows_scales(type, rows, at, scale, min);
        for (size_t g = 0; g < step; g++, to += group_bytes(type)) {
            __m512i w[GROUP_QUADS];
            rows_unpack(type, rows, at, g, w);
            put_weights(type, w, to);
            memcpy(to + weight_bytes(type), scale + g * floats, factor_bytes(type));
            if (quant_has_min(type))
                memcpy(to + weight_bytes(type) + factor_bytes(type), min + g * floats, factor_bytes(type));
        }
    }
}

/* ------------------------------------------------------------------------------------------------ products */

VNNI_INLINE void take_weights(uint32_t type, const uint8_t *from, __m512i *w) {
    const int half = GROUP_QUADS / 2, n = is_nibbles(type) ? half : GROUP_QUADS;
    QUANT_UNROLL
    for (int j = 0; j < n; j++) {
        const __m512i v = _mm512_loadu_si512(from + j * QUAD_BYTES);
        w[j] = is_nibbles(type) ? rows_field(v, 0, 4) : v;
        if (is_nibbles(type))
            w[j + half] = rows_field(v, 4, 4);
    }
}

VNNI_INLINE void strip_dot(uint32_t type, const int nc, const quant_dot_args *a, size_t strip, const gemm_columns *y, size_t c0, size_t kept) {
    const size_t groups = a->n / QUANT_GROUP, bytes = group_bytes(type);
    const uint8_t *at = a->rows + strip * groups * bytes;
    __m512 f[MAX_COLS];
    QUANT_UNROLL16
    for (int c = 0; c < nc; c++)
        f[c] = _mm512_setzero_ps();
    for (size_t g = 0; g < groups; g++, at += bytes) {
        __m512i w[GROUP_QUADS];
        const float *scale = (const float *)(const void *)(at + weight_bytes(type));
        QUANT_UNROLL16
        for (size_t k = 0; k < bytes; k += CACHE_LINE)
            _mm_prefetch((const char *)((uintptr_t)(at + k) + (uintptr_t)a->ahead), _MM_HINT_T1);
        take_weights(type, at, w);
        add_group(type, false, nc, w, scale, scale + factor_bytes(type) / sizeof(float), y, groups, g, f);
    }
    columns_put(nc, a, strip, c0, kept, f);
}

VNNI_INLINE void some_dots(uint32_t type, const int nc, const quant_dot_args *a, size_t c, int32_t *less) {
    const size_t kept = a->n_cols - c < (size_t)nc ? a->n_cols - c : (size_t)nc;
    const gemm_columns y = columns_from(type, false, nc, a, c, kept, less);
    for (size_t i = 0; i < (a->n_rows + ROWS_WIDE - 1) / ROWS_WIDE; i++)
        strip_dot(type, nc, a, i, &y, c, kept);
}

VNNI_INLINE void all_dots(uint32_t type, const quant_dot_args *a, void *less) {
    size_t c = 0;
    for (; c + 4 < a->n_cols; c += FEW_COLS)
        some_dots(type, FEW_COLS, a, c, less);
    if (c + 2 < a->n_cols)
        some_dots(type, 4, a, c, less);
    else if (c + 1 < a->n_cols)
        some_dots(type, 2, a, c, less);
    else if (c < a->n_cols)
        some_dots(type, 1, a, c, less);
}

/* ------------------------------------------------------------------------------------------------ types */

#define PACKED_OF_TYPE(name, type) \
    VNNI_TARGET static void pack_##name(const vnni_rows *rows, size_t n, uint8_t *to) { pack_strip(type, rows, n, to); } \
    VNNI_TARGET static void dot_##name(const quant_dot_args *a, void *less) { all_dots(type, a, less); }
PACKED_OF_TYPE(q4_0, CMC_Q4_0)
PACKED_OF_TYPE(q4_1, CMC_Q4_1)
PACKED_OF_TYPE(q5_0, CMC_Q5_0)
PACKED_OF_TYPE(q5_1, CMC_Q5_1)
PACKED_OF_TYPE(q8_0, CMC_Q8_0)
PACKED_OF_TYPE(iq4_nl, CMC_IQ4_NL)
PACKED_OF_TYPE(q2_k, CMC_Q2_K)
PACKED_OF_TYPE(q3_k, CMC_Q3_K)
PACKED_OF_TYPE(q4_k, CMC_Q4_K)
PACKED_OF_TYPE(q5_k, CMC_Q5_K)
PACKED_OF_TYPE(q6_k, CMC_Q6_K)
PACKED_OF_TYPE(iq4_xs, CMC_IQ4_XS)

typedef struct packed_type {
    uint32_t type;
    void (*pack)(const vnni_rows *rows, size_t n, uint8_t *to);
    void (*dot)(const quant_dot_args *a, void *less);
} packed_type;

static const packed_type *packed_find(uint32_t type) {
    static const packed_type table[] = {
        {CMC_Q4_0, pack_q4_0, dot_q4_0}, {CMC_Q4_1, pack_q4_1, dot_q4_1}, {CMC_Q5_0, pack_q5_0, dot_q5_0},
        {CMC_Q5_1, pack_q5_1, dot_q5_1}, {CMC_Q8_0, pack_q8_0, dot_q8_0}, {CMC_IQ4_NL, pack_iq4_nl, dot_iq4_nl},
        {CMC_Q2_K, pack_q2_k, dot_q2_k}, {CMC_Q3_K, pack_q3_k, dot_q3_k}, {CMC_Q4_K, pack_q4_k, dot_q4_k},
        {CMC_Q5_K, pack_q5_k, dot_q5_k}, {CMC_Q6_K, pack_q6_k, dot_q6_k}, {CMC_IQ4_XS, pack_iq4_xs, dot_iq4_xs},
    };
    const packed_type *t = table;
    while (t->type != type)
        t++;
    return t;
}

VNNI_TARGET static void pack(uint32_t type, const uint8_t *rows, size_t row_stride, size_t n_rows, size_t n, uint8_t *to, void *tile) {
    const vnni_rows whole = rows_whole(rows, row_stride, n_rows, cmc_type_row_bytes(type, n), tile);
    packed_find(type)->pack(&whole, n, to);
}

static void dot(uint32_t type, const quant_dot_args *a, void *tile) {
    packed_find(type)->dot(a, tile);
}

const quant_packed_kernels *quant_packed_vnni(void) {
    static const quant_packed_kernels table = {.strip_bytes = strip_bytes, .pack = pack, .dot = dot};
    return vnni_supported() ? &table : NULL;
}

#else
const quant_packed_kernels *quant_packed_vnni(void) {
    return NULL;
}
#endif
