/* Block formats: decoding and encoding against gguf-py's, vector code against plain code, dots against decoded floats. */
#include "runtime/quant.h"
#include "runtime/quant_impl.h"
#include "runtime/vec.h"
#include "tests/data/quant_golden.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>

#include <cmocka.h>

static const uint32_t all_types[] = {CMC_F32, CMC_F16, CMC_BF16, CMC_Q4_0, CMC_Q4_1, CMC_Q5_0, CMC_Q5_1, CMC_Q8_0, CMC_Q2_K,
                                     CMC_Q3_K, CMC_Q4_K, CMC_Q5_K, CMC_Q6_K, CMC_IQ4_NL, CMC_IQ4_XS};
enum { N_TYPES = sizeof all_types / sizeof all_types[0], MAX_N = 2048, MAX_COLS = 17, MAX_KERNELS = 5 };

static uint64_t random_next(uint64_t *s) {
    *s ^= *s << 13;
    *s ^= *s >> 7;
    return *s ^= *s << 17;
}

static float random_float(uint64_t *s) {
    return (float)(random_next(s) >> 40) * 0x1p-23f - 1;
}

static uint32_t bits_of(float f) {
    uint32_t u;
    memcpy(&u, &f, sizeof u);
    return u;
}

/* A NaN's payload is nobody's business; everything else must agree in every bit, the sign of zero too. */
static bool same_float(float a, float b) {
    return (isnan(a) && isnan(b)) || bits_of(a) == bits_of(b);
}

static void assert_same_floats(uint32_t type, const float *a, const float *b, size_t n) {
    for (size_t i = 0; i < n; i++)
        if (!same_float(a[i], b[i]))
            fail_msg("%s[%zu]: %a and %a", cmc_type_name(type), i, (double)a[i], (double)b[i]);
}

/* ------------------------------------------------------------------------------------------- goldens */

static void check_decode(uint32_t type, const uint8_t *data, const uint32_t *bits, size_t n) {
    float plain[256], fast[256], want[256];
    assert_true(n <= 256);
    memcpy(want, bits, n * sizeof *bits);
    quant_decode_row_plain(type, data, plain, n);
    quant_decode_row(type, data, fast, n);
    assert_same_floats(type, plain, want, n);
    assert_same_floats(type, fast, want, n);
}

static void test_decode_golden(void **state) {
    (void)state;
#define CHECK(NAME, name) \
    check_decode(CMC_##NAME, golden_##name##_data, golden_##name##_bits, sizeof golden_##name##_bits / sizeof(uint32_t));
    GOLDEN_DECODE(CHECK)
#undef CHECK
}

static void check_encode(uint32_t type, const uint8_t *want, size_t bytes) {
    float x[96];
    uint8_t row[96 * 4 + 1];
    memcpy(x, golden_encode_input, sizeof x);
    assert_int_equal(bytes, cmc_type_row_bytes(type, 96));
    row[bytes] = 0x5a;
    assert_true(quant_encode_row(type, x, row, 96));
    assert_memory_equal(row, want, bytes);
    assert_int_equal(row[bytes], 0x5a);
}

static void test_encode_golden(void **state) {
    (void)state;
#define CHECK(NAME, name) check_encode(CMC_##NAME, golden_##name##_encoded, sizeof golden_##name##_encoded);
    GOLDEN_ENCODE(CHECK)
#undef CHECK
    float x[256] = {0};
    uint8_t row[1024];
    assert_false(quant_encode_row(CMC_Q4_K, x, row, 256));
    assert_false(quant_encode_row(CMC_Q4_K, x, row, 0));
    assert_false(quant_encode_row(99, x, row, 256));
}

/* ------------------------------------------------------------------------------------------- float16 */

static void test_f16_round_trip(void **state) {
    (void)state;
    for (uint32_t h = 0; h < 65536; h++) {
        float f = quant_f16_to_f32((uint16_t)h);
        bool nan = (h & 0x7c00) == 0x7c00 && (h & 0x3ff);
        assert_true(isnan(f) == nan);
        uint16_t back = quant_f32_to_f16(f);
        assert_int_equal(back, nan ? h | 0x200 : h);
        if (!nan && (h & 0x7c00) != 0x7c00)   /* by the definition of the format */
            assert_true((double)f == ldexp((double)((h & 0x3ff) | ((h & 0x7c00) ? 0x400 : 0)),
                                           (int)((h & 0x7c00) ? (h >> 10 & 31) : 1) - 25) * ((h & 0x8000) ? -1 : 1));
    }
}

/* Between two neighbours the nearer one, half-way the even one. */
static void test_f16_rounding(void **state) {
    (void)state;
    for (uint32_t h = 0; h < 0x7bff; h++) {
        double lo = (double)quant_f16_to_f32((uint16_t)h), hi = (double)quant_f16_to_f32((uint16_t)(h + 1));
        float mid = (float)((lo + hi) / 2);   /* exact: one bit more than float16 */
        assert_int_equal(quant_f32_to_f16(mid), h + (h & 1));
        assert_int_equal(quant_f32_to_f16(nextafterf(mid, 0)), h);
        assert_int_equal(quant_f32_to_f16(-nextafterf(mid, INFINITY)), 0x8000 | (h + 1));
    }
    assert_int_equal(quant_f32_to_f16(65519.996f), 0x7bff);
    assert_int_equal(quant_f32_to_f16(65520.0f), 0x7c00);
    assert_int_equal(quant_f32_to_f16(-INFINITY), 0xfc00);
    assert_int_equal(quant_f32_to_f16(0x1p-25f), 0);
    assert_int_equal(quant_f32_to_f16(0x1.000002p-25f), 1);
    assert_int_equal(quant_f32_to_f16(-0.0f), 0x8000);
}

/* ------------------------------------------------------------------------------------------- vector code */

static size_t row_len(uint32_t type, size_t k) {
    size_t block = cmc_type_block(type);
    return block == 1 ? 37 * k + k % 3 : block * (k + k % 2);
}

/* Every pattern of bytes, whatever floats it makes: a file is a stranger's. */
static void test_vector_decode_equals_plain(void **state) {
    (void)state;
    uint64_t seed = 7;
    for (size_t k = 0; k < N_TYPES; k++) {
        for (size_t rep = 0; rep < 200; rep++) {
            size_t n = row_len(all_types[k], 1 + rep % 4), bytes = cmc_type_row_bytes(all_types[k], n);
            uint8_t *row = malloc(bytes);   /* exactly: a sanitizer sees a read past the end */
            float *a = malloc(n * sizeof *a), *b = malloc(n * sizeof *b);
            assert_true(row && a && b);
            for (size_t i = 0; i < bytes; i++)
                row[i] = (uint8_t)(random_next(&seed) >> 32);
            quant_decode_row_plain(all_types[k], row, a, n);
            quant_decode_row(all_types[k], row, b, n);
            assert_same_floats(all_types[k], a, b, n);
            free(row);
            free(a);
            free(b);
        }
    }
}

static void test_act_equals_plain(void **state) {
    (void)state;
    enum { N = 32 * 11 };
    float x[N];
    uint8_t *a = calloc(2, quant_act_bytes(N)), *b = a + quant_act_bytes(N);
    assert_non_null(a);
    uint64_t seed = 3;
    for (int rep = 0; rep < 50; rep++) {
        for (size_t i = 0; i < N; i++)   /* a group of zeros, one below the threshold, ties, and wide ranges */
            x[i] = i < 32 ? 0 : i < 64 ? random_float(&seed) * 1e-31f : i < 96 ? (float)(i % 5) * 0.5f
                 : random_float(&seed) * powf(10, (float)(random_next(&seed) % 20) - 10);
        quant_act_row(x, a, N);
        quant_act_row_plain(x, b, N);
        assert_memory_equal(a, b, quant_act_bytes(N));
        quant_act y = quant_act_view(a, N);
        for (size_t i = 0; i < N; i++)
            assert_true(fabsf(y.d[i / 32] * (float)y.q[i] - x[i]) <= y.d[i / 32] * 0.5001f + 1e-30f);
    }
    x[40] = NAN;
    quant_act_row(x, a, N);
    assert_true(isnan(quant_act_view(a, N).d[1]) && !isnan(quant_act_view(a, N).d[2]));   /* not lost, not spread */
    free(a);
}

/* A norm that is quantised in the same pass: the bits of the two one after the other, in every table, in place too. */
static void test_act_norm(void **state) {
    (void)state;
    enum { N = 32 * 7 };
    const quant_kernels *const tables[] = {&quant_kernels_plain, quant_kernels_avx2(), quant_kernels_vnni(), quant_kernels_neon(),
                                           quant_kernels_neon_dotprod()};
    const vec_ops *vec = vec_fast();
    float x[N], w[N], y[N], want[N];
    uint8_t *a = calloc(2, quant_act_bytes(N)), *b = a + quant_act_bytes(N);
    assert_non_null(a);
    uint64_t seed = 5;
    for (int rep = 0; rep < 50; rep++) {
        for (size_t i = 0; i < N; i++) {
            x[i] = i < 32 && rep % 3 == 0 ? 0 : random_float(&seed) * powf(10, (float)(rep % 9) - 4);
            w[i] = random_float(&seed) + 1;
        }
        const float scale = vec->rms_scale(x, N, 1e-5f);
        vec->rms_norm(want, x, w, N, 1e-5f);
        quant_act_row_plain(want, b, N);
        for (size_t k = 0; k < sizeof tables / sizeof *tables; k++) {
            if (!tables[k])
                continue;
            tables[k]->act_norm(x, scale, w, y, a, N);
            assert_memory_equal(y, want, sizeof y);
            assert_memory_equal(a, b, quant_act_bytes(N));
            memcpy(y, x, sizeof y);
            tables[k]->act_norm(y, scale, w, y, a, N);
            assert_memory_equal(y, want, sizeof y);
            assert_memory_equal(a, b, quant_act_bytes(N));
        }
    }
    free(a);
}

/* ------------------------------------------------------------------------------------------- dots */

typedef struct dot_case {
    uint32_t type;
    size_t n, cols;
    uint8_t *row;
    float *w, *x;              /* [n], [cols][n] */
    uint8_t *act;
    size_t act_stride;         /* of what the dot takes, floats or quantised */
} dot_case;

static void *need(size_t n, size_t size) {
    void *p = calloc(n ? n : 1, size);
    assert_non_null(p);
    return p;
}

/* A row of random bytes whose float fields are finite, and random activations. */
static dot_case dot_case_new(uint32_t type, size_t n, size_t cols, uint64_t *seed) {
    dot_case c = {.type = type, .n = n, .cols = cols};
    size_t bytes = cmc_type_row_bytes(type, n);
    c.row = need(bytes, 1);
    c.w = need(n, sizeof *c.w);
    c.x = need(n * cols, sizeof *c.x);
    for (size_t i = 0; i < n; i++)
        c.w[i] = random_float(seed);
    if (!quant_encode_row(type, c.w, c.row, n)) {
        size_t block = cmc_type_block(type), size = cmc_type_block_bytes(type);
        const size_t at = type == CMC_Q2_K ? 80 : type == CMC_Q3_K ? 108 : type == CMC_Q6_K ? 208 : 0;
        for (size_t i = 0; i < bytes; i++)
            c.row[i] = (uint8_t)(random_next(seed) >> 32);
        for (size_t b = 0; b < n / block; b++)
            for (size_t k = 0; k < (type == CMC_Q2_K || type == CMC_Q4_K || type == CMC_Q5_K ? 2 : 1); k++) {
                uint16_t h = quant_f32_to_f16(random_float(seed) * 0.1f);
                memcpy(c.row + b * size + at + 2 * k, &h, sizeof h);
            }
    }
    quant_decode_row_plain(type, c.row, c.w, n);
    for (size_t i = 0; i < n * cols; i++)
        c.x[i] = random_float(seed) * (i % 31 == 0 ? 8 : 1);
    c.act_stride = quant_dot_uses_act(type) ? quant_act_bytes(n) : n * sizeof(float);
    c.act = need(cols, c.act_stride);
    for (size_t k = 0; k < cols; k++)
        if (quant_dot_uses_act(type))
            quant_act_row(c.x + k * n, c.act + k * c.act_stride, n);
        else
            memcpy(c.act + k * c.act_stride, c.x + k * n, n * sizeof(float));
    return c;
}

static void dot_case_free(dot_case *c) {
    free(c->row);
    free(c->w);
    free(c->x);
    free(c->act);
}

/* The exact product, and how far the fast one may be: half a step of every activation, and float rounding. */
static double reference(const dot_case *c, size_t col, double *bound, double *size) {
    double sum = 0;
    *bound = *size = 0;
    quant_act y = quant_act_view(c->act + col * c->act_stride, c->n);
    for (size_t i = 0; i < c->n; i++) {
        double w = (double)c->w[i], x = (double)c->x[col * c->n + i];
        sum += w * x;
        *size += fabs(w * x);
        if (quant_dot_uses_act(c->type))
            *bound += fabs(w) * 0.5001 * (double)y.d[i / 32];
    }
    /* types with a minimum or an offset add and subtract terms up to some 32 times the sum's own */
    *bound += 1e-5 * *size + 1e-6;
    return sum;
}

/* The tables of kernels that this machine can run; how many. */
static size_t kernels_here(const quant_kernels *out[MAX_KERNELS]) {
    const quant_kernels *all[MAX_KERNELS] = {&quant_kernels_plain, quant_kernels_avx2(), quant_kernels_vnni(), quant_kernels_neon(),
                                             quant_kernels_neon_dotprod()};
    size_t n = 0;
    for (size_t i = 0; i < MAX_KERNELS; i++)
        if (all[i])
            out[n++] = all[i];
    return n;
}

static void dot_by(const quant_kernels *k, const dot_case *c, size_t first, size_t cols, float *out, size_t stride) {
    quant_dot_args a = {.rows = c->row, .n_rows = 1, .acts = c->act + first * c->act_stride, .act_stride = c->act_stride,
                        .n_cols = cols, .n = c->n, .out = out, .out_stride = stride};
    k->dot(c->type, &a);
}

static void check_dot_by(const quant_kernels *kernels, const dot_case *c) {
    float fast[MAX_COLS * 3], plain[MAX_COLS * 3], alone;
    for (size_t k = 0; k < MAX_COLS * 3; k++)
        fast[k] = plain[k] = 12345;
    dot_by(kernels, c, 0, c->cols, fast, 3);
    dot_by(&quant_kernels_plain, c, 0, c->cols, plain, 3);
    for (size_t k = 0; k < c->cols; k++) {
        double bound, size, want = reference(c, k, &bound, &size);
        if (!(fabs((double)fast[3 * k] - want) <= bound))
            fail_msg("%s: %s n %zu, column %zu of %zu: %g, not %g within %g", kernels->isa, cmc_type_name(c->type), c->n, k,
                     c->cols, (double)fast[3 * k], want, bound);
        assert_true(fabs((double)plain[3 * k] - want) <= bound);
        assert_true(fabs((double)plain[3 * k] - (double)fast[3 * k]) <= 2e-5 * size + 1e-6);
        dot_by(kernels, c, k, 1, &alone, 1);
        assert_true(same_float(alone, fast[3 * k]));   /* the same bits alone and in company */
        assert_true(fast[3 * k + 1] == 12345.0f && fast[3 * k + 2] == 12345.0f);
    }
}

static void check_dot(const dot_case *c) {
    const quant_kernels *kernels[MAX_KERNELS];
    for (size_t k = kernels_here(kernels); k-- > 0;)
        check_dot_by(kernels[k], c);
}

static void test_dot(void **state) {
    (void)state;
    uint64_t seed = 11;
    for (size_t k = 0; k < N_TYPES; k++) {
        for (size_t cols = 1; cols <= MAX_COLS; cols++) {
            dot_case c = dot_case_new(all_types[k], row_len(all_types[k], cols % 5 + 1), cols, &seed);
            check_dot(&c);
            dot_case_free(&c);
        }
    }
}

/* Two rows at a time, as matmul takes them, give what each gives alone. */
static void test_dot_rows(void **state) {
    (void)state;
    uint64_t seed = 13;
    const quant_kernels *kernels[MAX_KERNELS];
    const size_t n_kernels = kernels_here(kernels);
    for (size_t k = 0; k < n_kernels * N_TYPES; k++) {
        uint32_t type = all_types[k / n_kernels];
        size_t n = row_len(type, 2);
        dot_case c = dot_case_new(type, n * 5, 3, &seed);   /* five rows of n in one */
        quant_dot_args a = {.rows = c.row, .row_stride = cmc_type_row_bytes(type, n), .n_rows = 5, .acts = c.act,
                            .act_stride = quant_dot_uses_act(type) ? quant_act_bytes(n) : n * sizeof(float), .n = n};
        for (size_t col = 0; quant_dot_uses_act(type) && col < 3; col++)
            quant_act_row(c.x + col * n, c.act + col * a.act_stride, n);
        for (a.n_cols = 1; a.n_cols <= 3; a.n_cols++) {
            float all[3 * 7], one;
            a.out = all;
            a.out_stride = 7;
            a.n_rows = 5;
            kernels[k % n_kernels]->dot(type, &a);
            for (size_t r = 0; r < 5; r++)
                for (size_t col = 0; col < a.n_cols; col++) {
                    quant_dot_args single = a;
                    single.rows += r * a.row_stride;
                    single.acts += col * a.act_stride;
                    single.n_rows = single.n_cols = 1;
                    single.out = &one;
                    kernels[k % n_kernels]->dot(type, &single);
                    assert_true(same_float(one, all[col * 7 + r]));
                }
        }
        dot_case_free(&c);
    }
}

/* The largest magnitudes everywhere: no 16-bit sum may saturate. */
static void test_dot_extremes(void **state) {
    (void)state;
    for (size_t k = 3; k < N_TYPES; k++) {
        uint32_t type = all_types[k];
        uint64_t seed = 5;
        for (int pattern = 0; pattern < 3; pattern++) {
            dot_case c = dot_case_new(type, 256, 1, &seed);
            size_t size = cmc_type_block_bytes(type);
            const size_t at = type == CMC_Q2_K ? 80 : type == CMC_Q3_K ? 108 : type == CMC_Q6_K ? 208 : 0;
            for (size_t i = 0; i < cmc_type_row_bytes(type, 256); i++) {
                size_t in = i % size;   /* scales stay finite */
                if (in < at || in >= at + (type == CMC_Q2_K || type == CMC_Q4_K || type == CMC_Q5_K ? 4u : 2u))
                    c.row[i] = (uint8_t)(pattern == 0 ? 0xff : pattern == 1 ? 0x80 : 0x00);
            }
            if (type == CMC_Q4_1 || type == CMC_Q5_1)   /* the minimum too is a float16 */
                for (size_t b = 0; b < 8; b++)
                    memcpy(c.row + b * size + 2, c.row + b * size, 2);
            quant_decode_row_plain(type, c.row, c.w, 256);
            for (size_t i = 0; i < 256; i++)
                c.x[i] = i % 64 < 32 ? 1.0f : -1.0f;
            quant_act_row(c.x, c.act, 256);
            check_dot(&c);
            dot_case_free(&c);
        }
    }
}

/* ------------------------------------------------------------------------------------------- batches */

enum { GEMM_ROWS = QUANT_GEMM_ROWS, GEMM_COLS = 13 };

/* The rows packed give the same bits, and write as little beside. */
static void check_packed(const quant_dot_args *stored, uint32_t type, const float *want, void *tile) {
    const quant_packed_kernels *p = quant_packed_vnni();
    const size_t bytes = p->strip_bytes(type, stored->n);
    float out[GEMM_COLS * (GEMM_ROWS + 3)];
    uint8_t *strips = need((stored->n_rows + QUANT_PACKED_ROWS - 1) / QUANT_PACKED_ROWS, bytes);
    for (size_t r = 0; r < stored->n_rows; r += QUANT_PACKED_ROWS) {
        const size_t left = stored->n_rows - r;
        p->pack(type, stored->rows + r * stored->row_stride, stored->row_stride, left < QUANT_PACKED_ROWS ? left : QUANT_PACKED_ROWS,
                stored->n, strips + r / QUANT_PACKED_ROWS * bytes, tile);
    }
    quant_dot_args a = *stored;
    a.rows = strips;
    a.row_stride = 0;
    a.out = out;
    for (size_t i = 0; i < sizeof out / sizeof *out; i++)
        out[i] = 12345;
    p->dot(type, &a, tile);
    assert_memory_equal(out, want, sizeof out);
    free(strips);
}

/* Within what rounding to 8 or 15 bits and float may do; nothing written beside; the same bits in other company. */
static void check_gemm(const quant_gemm_kernels *g, const dot_case *c, size_t n, size_t rows, size_t cols, bool fine) {
    size_t stride = quant_act_bytes(n) + (fine ? n : 0), ld = GEMM_ROWS + 3;
    uint8_t *acts = need(GEMM_COLS, stride), *tile = need(quant_gemm_bytes(n) + 64, 1);
    float out[GEMM_COLS * (GEMM_ROWS + 3)], alone[GEMM_ROWS];
    for (size_t k = 0; k < cols; k++)
        (fine ? g->act_row_fine : quant_act_row)(c->x + k * n, acts + k * stride, n);
    for (size_t i = 0; i < sizeof out / sizeof *out; i++)
        out[i] = 12345;
    quant_dot_args a = {.rows = c->row, .row_stride = cmc_type_row_bytes(c->type, n), .n_rows = rows, .acts = acts,
                        .act_stride = stride, .n_cols = cols, .fine = fine, .n = n, .out = out, .out_stride = ld};
    g->gemm(c->type, &a, tile);
    if (!fine)
        check_packed(&a, c->type, out, tile);
    for (size_t k = 0; k < cols; k++) {
        quant_act y = quant_act_view(acts + k * stride + (fine ? n : 0), n);
        for (size_t r = 0; r < rows; r++) {
            double sum = 0, bound = 1e-6, size = 0;
            for (size_t i = 0; i < n; i++) {
                double w = (double)c->w[r * n + i], x = (double)c->x[k * n + i];
                sum += w * x;
                size += fabs(w * x);
                bound += fabs(w) * 0.5001 * (double)y.d[i / 32];
            }
            if (!(fabs((double)out[k * ld + r] - sum) <= bound + 1e-5 * size))
                fail_msg("%s n %zu, row %zu of %zu, column %zu of %zu: %g, not %g", cmc_type_name(c->type), n, r, rows, k, cols,
                         (double)out[k * ld + r], sum);
        }
        for (size_t r = rows; r < ld; r++)
            assert_true(out[k * ld + r] == 12345.0f);
        a.acts = acts + k * stride;
        a.n_cols = 1;
        a.out = alone;
        g->gemm(c->type, &a, tile);
        assert_memory_equal(alone, out + k * ld, rows * sizeof *alone);
    }
    free(acts);
    free(tile);
}

static void test_batches(void **state) {
    (void)state;
    const quant_gemm_kernels *g = quant_gemm_vnni();
    uint64_t seed = 19;
    if (!g) {
        print_message("SKIP integer batches: no AVX-512 VNNI\n");
        return;
    }
    for (size_t k = 0; k < N_TYPES; k++) {
        size_t n = row_len(all_types[k], 2);
        if (!quant_dot_uses_act(all_types[k]))
            continue;
        dot_case c = dot_case_new(all_types[k], n * GEMM_ROWS, GEMM_COLS, &seed);
        for (size_t i = 0; i < GEMM_COLS * 2; i++)
            check_gemm(g, &c, n, i % 2 ? GEMM_ROWS : 1 + i * 5 % GEMM_ROWS, 1 + i / 2, i % 3 == 0);
        dot_case_free(&c);
    }
}

/* High and low parts make the value rounded to 15 bits; NaN stays, in its group alone. */
static void test_fine_activations(void **state) {
    (void)state;
    enum { N = 96 };
    const quant_gemm_kernels *g = quant_gemm_vnni();
    uint64_t seed = 23;
    float x[N];
    if (!g) {
        print_message("SKIP fine activations: no AVX-512 VNNI\n");
        return;
    }
    uint8_t *act = need(quant_act_bytes(N) + N, 1);
    for (size_t i = 0; i < N; i++)
        x[i] = random_float(&seed) * (i % 7 == 0 ? 1e4f : 1.0f);
    x[5] = 0;
    g->act_row_fine(x, act, N);
    quant_act y = quant_act_view(act + N, N);
    for (size_t i = 0; i < N; i++) {
        int low = ((const int8_t *)act)[i], q = 128 * y.q[i] + low;
        assert_true(low >= -64 && low <= 63 && abs(q) <= QUANT_FINE_MAX);
        assert_true(fabs((double)y.d[i / 32] * q - (double)x[i]) <= 0.501 * (double)y.d[i / 32]);
    }
    for (size_t b = 0; b < N / 32; b++)
        assert_true(y.n[b] == y.n0[b] + y.n1[b] && y.s[b] == y.d[b] * (float)y.n[b]);
    x[40] = NAN;
    g->act_row_fine(x, act, N);
    assert_true(isnan(y.d[1]) && !isnan(y.d[0]) && !isnan(y.d[2]));
    free(act);
}

/* The exact dot: its definition written out, in every implementation, for every length; and close to the true sum. */
static void test_dot_exact(void **state) {
    (void)state;
    uint64_t seed = 17;
    enum { LD = 300 };
    float a[LD], x[6 * LD], out[6 * 2];
    for (size_t i = 0; i < LD; i++)
        a[i] = random_float(&seed);
    for (size_t i = 0; i < 6 * LD; i++)
        x[i] = random_float(&seed);
    for (size_t n = 0; n < LD; n++) {
        for (size_t c = 0; c < 6; c++) {
            volatile float lane[16] = {0};   /* volatile: a compiler may fuse neither here nor there */
            double sum = 0, size = 0;
            for (size_t i = 0; i < n; i++) {
                volatile float product = a[i] * x[c * LD + i];
                lane[i % 16] = lane[i % 16] + product;
                sum += (double)a[i] * (double)x[c * LD + i];
                size += fabs((double)product);
            }
            for (size_t half = 8; half > 0; half /= 2)
                for (size_t l = 0; l < half; l++)
                    lane[l] = lane[l] + lane[l + half];
            float want = lane[0];
            quant_kernels_best()->dot_exact(a, x, LD, n, 6, out, 2);
            assert_true(same_float(out[2 * c], want));
            quant_kernels_plain.dot_exact(a, x, LD, n, 6, out, 2);
            assert_true(same_float(out[2 * c], want));
            assert_true(same_float(quant_dot_exact(a, x + c * LD, n), want));
            assert_true(fabs((double)want - sum) <= 1e-6 * size + 1e-12);
        }
    }
}

/* Encoded and decoded again, no element is further off than half a step (a whole one at the far end of Q4_0 and Q5_0, whose
 * levels are lopsided) and the rounding of the float16 fields (2^-11 of the
 * element). */
static void test_encode_error(void **state) {
    (void)state;
    static const struct { uint32_t type; double step; } cases[] = {
        {CMC_F32, 0}, {CMC_F16, 0x1p-11}, {CMC_BF16, 0x1p-8}, {CMC_Q8_0, 0.57 / 127}, {CMC_Q4_0, 1.02 / 8}, {CMC_Q4_1, 1.05 / 15},
        {CMC_Q5_0, 1.02 / 16}, {CMC_Q5_1, 1.05 / 31}};
    uint64_t seed = 23;
    for (size_t k = 0; k < sizeof cases / sizeof cases[0]; k++) {
        for (int rep = 0; rep < 100; rep++) {
            float x[64], y[64];
            uint8_t row[256];
            for (size_t i = 0; i < 64; i++)
                x[i] = random_float(&seed);
            assert_true(quant_encode_row(cases[k].type, x, row, 64));
            quant_decode_row(cases[k].type, row, y, 64);
            for (size_t i = 0; i < 64; i++)
                assert_true(fabs((double)x[i] - (double)y[i]) <= cases[k].step);
        }
        float odd[32] = {NAN, INFINITY, -INFINITY, 1}, zero[32] = {0};   /* must not trap or write outside */
        uint8_t row[128];
        assert_true(quant_encode_row(cases[k].type, odd, row, 32));
        assert_true(quant_encode_row(cases[k].type, zero, row, 32));
        quant_decode_row(cases[k].type, row, odd, 32);
        for (size_t i = 0; i < 32; i++)
            assert_true(odd[i] == 0);
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_decode_golden), cmocka_unit_test(test_encode_golden), cmocka_unit_test(test_f16_round_trip),
        cmocka_unit_test(test_f16_rounding), cmocka_unit_test(test_vector_decode_equals_plain),
        cmocka_unit_test(test_act_equals_plain),
        cmocka_unit_test(test_act_norm), cmocka_unit_test(test_dot), cmocka_unit_test(test_dot_rows),
        cmocka_unit_test(test_dot_extremes), cmocka_unit_test(test_batches), cmocka_unit_test(test_fine_activations), cmocka_unit_test(test_dot_exact), cmocka_unit_test(test_encode_error),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
