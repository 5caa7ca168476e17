/* What the files of the quantised kernels share: the layout of activations, one group of weights, and the table of kernels
 * that each instruction set fills. */
#ifndef CMC_RUNTIME_QUANT_IMPL_H
#define CMC_RUNTIME_QUANT_IMPL_H
#include "runtime/quant.h"

#include <string.h>

/* Every block format is read in groups of 32 elements; a super-block (the K types, IQ4_XS) holds 8 groups. */
enum { QUANT_GROUP = 32, QUANT_SUPER = 256, QUANT_SUPER_GROUPS = 8 };

/* Quantised activations of n elements, G = n / 32 groups: int8 q[n], then float d[G], s[G], s0[G], s1[G], ds[G][2], and
 * int32 n[G], n0[G], n1[G]. x ~ d * q; n0, n1 are the sums of q over the group's first and second 16, n over all 32; s, s0, s1 are
 * those times d; ds has d and s side by side, as a block's own scale and minimum are. */
typedef struct quant_act {
    const int8_t *q;
    const float *d, *s, *s0, *s1, *ds;
    const int32_t *n, *n0, *n1;
} quant_act;

enum { QUANT_ACT_WORDS = 9 };   /* floats and integers a group */

static inline quant_act quant_act_view(const void *act, size_t n) {
    size_t groups = n / QUANT_GROUP;
    const float *d = (const float *)(const void *)((const char *)act + n);
    const int32_t *count = (const int32_t *)(const void *)(d + 6 * groups);
    return (quant_act){.q = act, .d = d, .s = d + groups, .s0 = d + 2 * groups, .s1 = d + 3 * groups, .ds = d + 4 * groups,
                       .n = count, .n0 = count + groups, .n1 = count + 2 * groups};
}

/* Writes the floats and integers of group g. */
static inline void quant_act_put(void *act, size_t n, size_t g, float d, int sum0, int sum1) {
    size_t groups = n / QUANT_GROUP;
    float *f = (float *)(void *)((char *)act + n) + g, s = d * (float)(sum0 + sum1);
    f[0] = d;
    f[groups] = s;
    f[2 * groups] = d * (float)sum0;
    f[3 * groups] = d * (float)sum1;
    f[4 * groups + g] = d;
    f[4 * groups + g + 1] = s;
    int32_t *count = (int32_t *)(void *)((char *)act + n) + 6 * groups + g;
    count[0] = sum0 + sum1;
    count[groups] = sum0;
    count[2 * groups] = sum1;
}

/* Below this a group's largest magnitude counts as 0: its reciprocal would overflow. */
#define QUANT_ACT_TINY 1e-30f

/* One group of weights: w[i] = a[i / 16] * q[i] + m[i / 16]. A type without minimum has m = -0, which adds nothing to
 * any float, -0 included. */
typedef struct quant_group {
    int8_t q[QUANT_GROUP];
    float a[2], m[2];
} quant_group;

/* Group g of a row of a block type (not F32, F16, BF16). */
void quant_group_load(uint32_t type, const uint8_t *row, size_t g, quant_group *out);

/* The 16 values of IQ4_NL and IQ4_XS. */
extern const int8_t quant_iq4_values[16];

static inline uint16_t quant_le16(const uint8_t *p) {
    uint16_t v;
    memcpy(&v, p, sizeof v);
    return v;
}

static inline uint32_t quant_le32(const uint8_t *p) {
    uint32_t v;
    memcpy(&v, p, sizeof v);
    return v;
}

/* Rows against columns: out[c * out_stride + r] for r < n_rows, c < n_cols. */
typedef struct quant_dot_args {
    const uint8_t *rows;
    size_t row_stride;        /* bytes */
    size_t n_rows;
    ptrdiff_t ahead;          /* from a byte of the rows to one to be asked of memory meanwhile; a hint */
    const uint8_t *acts;      /* quantised activations, or floats (quant_dot_uses_act) */
    size_t act_stride;        /* bytes */
    size_t n_cols;
    bool fine;                /* activations of 15 bits: quant_gemm_kernels alone takes them */
    size_t n;                 /* elements of a row */
    float *out;
    size_t out_stride;        /* floats between columns */
} quant_dot_args;

/* The kernels of one instruction set. To add one: a file with such a table, and a line in quant_kernels_best.
 * Decoding, act_row, act_norm, and the exact dots give the same bits in all of them. Each result of `dot` depends on its row and
 * column alone, not on how many of them a call has. */
typedef struct quant_kernels {
    const char *isa;
    void (*decode_row)(uint32_t type, const void *row, float *out, size_t n);
    void (*act_row)(const float *x, void *act, size_t n);
    /* y = x * scale * w, in that order, and act_row of it, in one pass: an RMSNorm whose scale is known. y may be x. */
    void (*act_norm)(const float *x, float scale, const float *w, float *y, void *act, size_t n);
    void (*dot)(uint32_t type, const quant_dot_args *a);
    /* out[c * out_stride] = quant_dot_exact(row, cols + c * col_stride): float columns, strides in floats. */
    void (*dot_exact)(const float *row, const float *cols, size_t col_stride, size_t n, size_t n_cols, float *out,
                      size_t out_stride);
} quant_kernels;

/* Products with many columns. `gemm`: a->n_rows <= QUANT_GEMM_ROWS rows of a type that takes quantised activations; `tile` is
 * scratch of quant_gemm_bytes. The same results as `dot` but for rounding; each depends on its row and column alone.
 *
 * Fine activations are 15 bits: x ~ d * (128 * high + low), laid out as int8 low[n], then those of quant_act with q = high and
 * the sums of the whole values. They cost half as much again and take away nearly all that rounding to 8 bits does. */
enum { QUANT_GEMM_ROWS = 32, QUANT_GEMM_COLS = 12, QUANT_FINE_BITS = 7, QUANT_FINE_MAX = 127 << QUANT_FINE_BITS };
typedef struct quant_gemm_kernels {
    void (*gemm)(uint32_t type, const quant_dot_args *a, void *tile);
    void (*act_row_fine)(const float *x, void *act, size_t n);
} quant_gemm_kernels;
/* Unpacked rows with their scales and minima; and as stored, with some room, the 16 that the last may be a part of. */
static inline size_t quant_gemm_bytes(size_t n) {
    return QUANT_GEMM_ROWS * (n + 2 * (n / 16) * sizeof(float)) + 16 * (n + n / 8);
}
/* NULL where the machine (or the build) does not have it. */
const quant_gemm_kernels *quant_gemm_vnni(void);

/* Rows laid out anew, in strips of QUANT_PACKED_ROWS, for products of few columns: the results of `gemm`, bit for bit. Of types that
 * take quantised activations; `tile` is scratch of quant_gemm_bytes.
 * `pack`: n_rows rows, QUANT_PACKED_ROWS or what there is of the last strip, to strip_bytes at `to`. `dot`: a->rows is the first strip
 * of n_rows rows; row_stride is not looked at. */
enum { QUANT_PACKED_ROWS = 16 };
typedef struct quant_packed_kernels {
    size_t (*strip_bytes)(uint32_t type, size_t n);
    void (*pack)(uint32_t type, const uint8_t *rows, size_t row_stride, size_t n_rows, size_t n, uint8_t *to, void *tile);
    void (*dot)(uint32_t type, const quant_dot_args *a, void *tile);
} quant_packed_kernels;
/* NULL where the machine (or the build) does not have it. */
const quant_packed_kernels *quant_packed_vnni(void);

extern const quant_kernels quant_kernels_plain;
/* NULL where the machine (or the build) does not have it. */
const quant_kernels *quant_kernels_avx2(void);
const quant_kernels *quant_kernels_vnni(void);
const quant_kernels *quant_kernels_neon(void);
const quant_kernels *quant_kernels_neon_dotprod(void);
const quant_kernels *quant_kernels_best(void);

/* The portable parts, which other tables may take over where they have nothing better. */
void quant_act_row_plain(const float *x, void *act, size_t n);
void quant_act_norm_plain(const float *x, float scale, const float *w, float *y, void *act, size_t n);
void quant_dot_rows_plain(uint32_t type, const quant_dot_args *a);
void quant_dot_exact_plain(const float *row, const float *cols, size_t col_stride, size_t n, size_t n_cols, float *out,
                           size_t out_stride);
#endif
