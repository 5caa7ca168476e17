/* Plain dot products of quantised rows, and the choice of the kernels that fit the machine. */
#include "runtime/quant_impl.h"

#include <math.h>

bool quant_dot_uses_act(uint32_t type) {
    return type != CMC_F32 && type != CMC_F16 && type != CMC_BF16;
}

size_t quant_act_bytes(size_t n) {
    size_t bytes = n + n / QUANT_GROUP * QUANT_ACT_WORDS * sizeof(float);
    return (bytes + 63) / 64 * 64;
}

static float act_max(const float *x) {
    uint32_t max = 0;   /* of the bits of |x|: they order as the values do, with NaN above all, so NaN is not lost */
    for (int i = 0; i < QUANT_GROUP; i++) {
        uint32_t u;
        memcpy(&u, &x[i], sizeof u);
        u &= 0x7fffffff;
        max = u > max ? u : max;
    }
    float f;
    memcpy(&f, &max, sizeof f);
    return f;
}

/* Group g of a row. */
static void act_group(const float *x, void *act, size_t n, size_t g) {
    int8_t *q = (int8_t *)act + g * QUANT_GROUP;
    float max = act_max(x), inv = max < QUANT_ACT_TINY ? 0 : 127.0f / max;
    int sum[2] = {0, 0};
    for (int i = 0; i < QUANT_GROUP; i++) {
        float v = rintf(x[i] * inv);   /* |v| <= 127, or NaN */
        q[i] = (int8_t)(v == v ? (int)v : 0);
        sum[i / 16] += q[i];
    }
    quant_act_put(act, n, g, max < QUANT_ACT_TINY ? 0 : max / 127.0f, sum[0], sum[1]);
}

void quant_act_row_plain(const float *x, void *act, size_t n) {
    for (size_t g = 0; g < n / QUANT_GROUP; g++)
        act_group(x + g * QUANT_GROUP, act, n, g);
}

void quant_act_norm_plain(const float *x, float scale, const float *w, float *y, void *act, size_t n) {
    for (size_t g = 0; g < n / QUANT_GROUP; g++) {
        for (size_t i = g * QUANT_GROUP; i < (g + 1) * QUANT_GROUP; i++)
            y[i] = x[i] * scale * w[i];
        act_group(y + g * QUANT_GROUP, act, n, g);
    }
}

/* Lane l of 16 adds a[i] * b[i] for i = l, l + 16, ... in that order, each product rounded; then the lanes are added
 * l and l + 8, l and l + 4, l and l + 2, l and l + 1. */
static float dot_exact_one(const float *a, const float *b, size_t n) {
    float lane[16] = {0};
    size_t i = 0;
    for (; i + 16 <= n; i += 16)
        for (size_t l = 0; l < 16; l++)
            lane[l] += a[i + l] * b[i + l];
    for (size_t l = 0; i + l < n; l++)
        lane[l] += a[i + l] * b[i + l];
    for (size_t half = 8; half > 0; half /= 2)
        for (size_t l = 0; l < half; l++)
            lane[l] += lane[l + half];
    return lane[0];
}

static void dot_floats_plain(uint32_t type, const quant_dot_args *a) {
    float chunk[256];
    size_t elem = type == CMC_F32 ? 4 : 2;
    for (size_t r = 0; r < a->n_rows; r++) {
        for (size_t c = 0; c < a->n_cols; c++)
            a->out[c * a->out_stride + r] = 0;
        for (size_t i = 0; i < a->n; i += 256) {
            size_t len = a->n - i < 256 ? a->n - i : 256;
            quant_decode_row_plain(type, a->rows + r * a->row_stride + i * elem, chunk, len);
            for (size_t c = 0; c < a->n_cols; c++) {
                const float *x = (const float *)(const void *)(a->acts + c * a->act_stride) + i;
                a->out[c * a->out_stride + r] += dot_exact_one(chunk, x, len);
            }
        }
    }
}

static float dot_group(const quant_group *w, const quant_act *y, size_t g) {
    const int8_t *q = y->q + g * QUANT_GROUP;
    int sum[2] = {0, 0};
    for (int i = 0; i < 16; i++) {
        sum[0] += w->q[i] * q[i];
        sum[1] += w->q[16 + i] * q[16 + i];
    }
    return y->d[g] * (w->a[0] * (float)sum[0] + w->a[1] * (float)sum[1]) + (w->m[0] * y->s0[g] + w->m[1] * y->s1[g]);
}

void quant_dot_rows_plain(uint32_t type, const quant_dot_args *a) {
    if (!quant_dot_uses_act(type)) {
        dot_floats_plain(type, a);
        return;
    }
    for (size_t r = 0; r < a->n_rows; r++) {
        for (size_t c = 0; c < a->n_cols; c++)
            a->out[c * a->out_stride + r] = 0;
        for (size_t g = 0; g < a->n / QUANT_GROUP; g++) {
            quant_group w;
            quant_group_load(type, a->rows + r * a->row_stride, g, &w);
            for (size_t c = 0; c < a->n_cols; c++) {
                quant_act y = quant_act_view(a->acts + c * a->act_stride, a->n);
                a->out[c * a->out_stride + r] += dot_group(&w, &y, g);
            }
        }
    }
}

void quant_dot_exact_plain(const float *row, const float *cols, size_t col_stride, size_t n, size_t n_cols, float *out,
                           size_t out_stride) {
    for (size_t c = 0; c < n_cols; c++)
        out[c * out_stride] = dot_exact_one(row, cols + c * col_stride, n);
}

const quant_kernels quant_kernels_plain = {
    .isa = "portable",
    .decode_row = quant_decode_row_plain,
    .act_row = quant_act_row_plain,
    .act_norm = quant_act_norm_plain,
    .dot = quant_dot_rows_plain,
    .dot_exact = quant_dot_exact_plain,
};

const quant_kernels *quant_kernels_best(void) {
    const quant_kernels *k = quant_kernels_vnni();
    k = k ? k : quant_kernels_avx2();
    k = k ? k : quant_kernels_neon_dotprod();
    k = k ? k : quant_kernels_neon();
    return k ? k : &quant_kernels_plain;
}

void quant_decode_row(uint32_t type, const void *row, float *out, size_t n) {
    quant_kernels_best()->decode_row(type, row, out, n);
}

void quant_act_row(const float *x, void *act, size_t n) {
    quant_kernels_best()->act_row(x, act, n);
}

float quant_dot_exact(const float *a, const float *b, size_t n) {
    float out;
    quant_kernels_best()->dot_exact(a, b, 0, n, 1, &out, 0);
    return out;
}

const char *quant_isa(void) {
    return quant_kernels_best()->isa;
}
