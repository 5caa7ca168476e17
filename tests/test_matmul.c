/* Matrix products by every path against a double reference, and what must not change their bits. */
#include "runtime/matmul_impl.h"
#include "runtime/quant.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

typedef enum path { PATH_EXACT, PATH_DOT, PATH_INT8, PATH_INT15, PATH_BLAS, PATH_NO_BLAS, N_PATHS } path;
static const char *const path_names[] = {"exact", "dot", "int8", "int15", "blas", "no blas"};

static uint64_t random_next(uint64_t *s) {
    *s ^= *s << 13;
    *s ^= *s >> 7;
    return *s ^= *s << 17;
}

static float random_float(uint64_t *s) {
    return (float)(random_next(s) >> 40) * 0x1p-23f - 1;
}

static void *need(size_t n, size_t size) {
    void *p = calloc(n ? n : 1, size);
    assert_non_null(p);
    return p;
}

static cmc_runtime *open_runtime(int threads, path p) {
    cmc_runtime *rt = NULL;
    cmc_error err = {0};
    cmc_runtime_opts opts = {.threads = threads, .exact = p == PATH_EXACT, .batches = p == PATH_INT8    ? CMC_BATCHES_INT8
                                        : p == PATH_INT15 ? CMC_BATCHES_INT15
                                                          : CMC_BATCHES_FLOAT};
    if (cmc_runtime_open(&opts, &rt, &err) != CMC_OK)
        fail_msg("%s", err.message);
    assert_int_equal(cmc_runtime_threads(rt), threads);
    rt->gemm_min_cols = p <= PATH_INT15 ? SIZE_MAX : 1;
    return rt;
}

/* Weights of a type that can be written; K types are the dots' own test's business. */
static weight new_weight(uint32_t type, size_t n_in, size_t n_out, uint64_t *seed) {
    weight w = {.type = type, .n_in = n_in, .n_out = n_out, .row_bytes = cmc_type_row_bytes(type, n_in)};
    uint8_t *data = need(n_out, w.row_bytes);
    float *row = need(n_in, sizeof *row);
    for (size_t r = 0; r < n_out; r++) {
        for (size_t i = 0; i < n_in; i++)
            row[i] = random_float(seed);
        assert_true(quant_encode_row(type, row, data + r * w.row_bytes, n_in));
    }
    free(row);
    w.data = data;
    return w;
}

static void free_weight(weight *w) {
    free((void *)(uintptr_t)w->data);
}

static float *random_floats(size_t n, uint64_t *seed) {
    float *x = need(n, sizeof *x);
    for (size_t i = 0; i < n; i++)
        x[i] = random_float(seed);
    return x;
}

/* Y must be W x within `tol` of the sum of magnitudes, and nothing between its rows written. */
static void check_product(const char *what, const weight *w, const float *x, size_t ldx, size_t t, const float *y, size_t ldy,
                          double tol) {
    float *row = need(w->n_in, sizeof *row);
    for (size_t o = 0; o < w->n_out; o++) {
        weight_row(w, o, row);
        for (size_t c = 0; c < t; c++) {
            double sum = 0, size = 0;
            for (size_t i = 0; i < w->n_in; i++) {
                sum += (double)row[i] * (double)x[c * ldx + i];
                size += fabs((double)row[i] * (double)x[c * ldx + i]);
            }
            if (!(fabs((double)y[c * ldy + o] - sum) <= tol * size + 1e-7))
                fail_msg("%s, %s %zu x %zu, column %zu, row %zu: %g, not %g", what, cmc_type_name(w->type), w->n_out, w->n_in, c,
                         o, (double)y[c * ldy + o], sum);
        }
    }
    for (size_t c = 0; c < t; c++)
        for (size_t o = w->n_out; o < ldy; o++)
            assert_true(y[c * ldy + o] == -7.0f);
    free(row);
}

typedef struct product_case { uint32_t type; size_t n_in, n_out, t; } product_case;

static const product_case cases[] = {
    {CMC_F32, 37, 5, 3},   {CMC_F32, 1, 1, 1},     {CMC_F16, 45, 17, 2},   {CMC_BF16, 33, 70, 9},  {CMC_Q8_0, 96, 131, 1},
    {CMC_Q8_0, 576, 300, 33}, {CMC_Q4_0, 32, 1, 4}, {CMC_Q4_1, 160, 67, 5}, {CMC_Q5_0, 640, 129, 7}, {CMC_Q5_1, 64, 40, 40},
    {CMC_Q4_1, 2048, 35, 2}, {CMC_F32, 700, 260, 65},
};
enum { N_CASES = sizeof cases / sizeof cases[0] };

/* Of a product of quantised weights: of activations in 8 bits, 15, or floats. Few columns take 8 on every machine, and a
 * machine without integer batches decodes. */
static double tolerance(const cmc_runtime *rt, path p, size_t t) {
    if (p == PATH_INT15 && rt->integer_gemm && t >= 12)
        return 2e-4;
    return p == PATH_DOT || p == PATH_INT8 || p == PATH_INT15 || p == PATH_NO_BLAS ? 0.02 : 2e-6;
}

/* Three weights that share an input, the middle one of another type and size; strides wider than the rows. */
static void run_case(cmc_runtime *rt, path p, const product_case *k, uint64_t *seed) {
    bool integers = (p == PATH_INT8 || p == PATH_INT15) && quant_dot_uses_act(k->type);   /* a float among them would end that */
    uint32_t middle = integers ? CMC_Q5_1 : CMC_F32;
    weight w[3] = {new_weight(k->type, k->n_in, k->n_out, seed), new_weight(middle, k->n_in, 3, seed),
                   new_weight(k->type, k->n_in, 50, seed)};
    size_t ldx = k->n_in + 3;
    float *x = random_floats(k->t * ldx, seed), *y[3];
    matmul_out outs[3];
    for (size_t i = 0; i < 3; i++) {
        size_t ldy = w[i].n_out + 2;
        y[i] = need(k->t * ldy, sizeof(float));
        for (size_t j = 0; j < k->t * ldy; j++)
            y[i][j] = j % ldy < w[i].n_out ? NAN : -7;   /* what was there must not matter */
        outs[i] = (matmul_out){.w = &w[i], .y = y[i], .ldy = ldy};
    }
    matmul_work work = {0};
    assert_int_equal(matmul(rt, &work, x, ldx, k->t, outs, 3, NULL), CMC_OK);
    for (size_t i = 0; i < 3; i++) {
        check_product(path_names[p], &w[i], x, ldx, k->t, y[i], outs[i].ldy,
                      !quant_dot_uses_act(w[i].type) ? 2e-6 : tolerance(rt, p, k->t));
        free(y[i]);
        free_weight(&w[i]);
    }
    matmul_work_free(&work);
    assert_null(work.buf);
    free(x);
}

static void test_paths(void **state) {
    (void)state;
    for (int p = 0; p < N_PATHS; p++) {
        cmc_runtime *rt = open_runtime(2, (path)p);
        if (p == PATH_BLAS && !rt->blas) {
            print_message("SKIP blas: no libopenblas.so.0\n");
            cmc_runtime_free(rt);
            continue;
        }
        uint64_t seed = 42;
        blas *kept = rt->blas;
        if (p == PATH_NO_BLAS)
            rt->blas = NULL;   /* as on a machine without OpenBLAS: integer dots for any number of columns */
        for (size_t i = 0; i < N_CASES; i++)
            run_case(rt, (path)p, &cases[i], &seed);
        rt->blas = kept;
        cmc_runtime_free(rt);
    }
}

/* Runs one product into a fresh array. */
static float *product(int threads, path p, const weight *w, const float *x, size_t t) {
    cmc_runtime *rt = open_runtime(threads, p);
    float *y = need(t * w->n_out, sizeof *y);
    matmul_work work = {0};
    matmul_out out = {.w = w, .y = y, .ldy = w->n_out};
    assert_int_equal(matmul(rt, &work, x, w->n_in, t, &out, 1, NULL), CMC_OK);
    matmul_work_free(&work);
    cmc_runtime_free(rt);
    return y;
}

static void test_threads_do_not_change_bits(void **state) {
    (void)state;
    uint64_t seed = 5;
    for (size_t i = 0; i < N_CASES; i++) {
        weight w = new_weight(cases[i].type, cases[i].n_in, cases[i].n_out, &seed);
        float *x = random_floats(w.n_in * cases[i].t, &seed);
        for (int p = 0; p < PATH_NO_BLAS; p++) {
            float *one = product(1, (path)p, &w, x, cases[i].t);
            for (int threads = 2; threads <= 3; threads++) {
                float *more = product(threads, (path)p, &w, x, cases[i].t);
                assert_memory_equal(one, more, cases[i].t * w.n_out * sizeof *one);
                free(more);
            }
            free(one);
        }
        free(x);
        free_weight(&w);
    }
}

/* Exact and integer paths: a column's result is the same alone and in a batch of any size; the exact one is the one dot. The
 * products of batches begin at 12 columns, below are dots. */
static void test_batch_does_not_change_bits(void **state) {
    (void)state;
    enum { MOST = 21 };
    uint64_t seed = 6;
    for (size_t i = 0; i < N_CASES; i++) {
        weight w = new_weight(cases[i].type, cases[i].n_in, cases[i].n_out, &seed);
        float *x = random_floats(w.n_in * MOST, &seed), *row = need(w.n_in, sizeof *row);
        for (int p = 0; p <= PATH_INT15; p++) {
            const size_t most = p <= PATH_DOT ? 9 : MOST, least = p <= PATH_DOT ? 1 : 12;
            float *all = product(2, (path)p, &w, x, most);
            for (size_t t = least; t < most; t++) {
                float *some = product(2, (path)p, &w, x + (most - t) * w.n_in, t);
                assert_memory_equal(some, all + (most - t) * w.n_out, t * w.n_out * sizeof *some);
                free(some);
            }
            for (size_t o = 0; o < w.n_out && p == PATH_EXACT; o++) {
                weight_row(&w, o, row);
                float dot = quant_dot_exact(row, x, w.n_in);
                assert_memory_equal(&dot, &all[o], sizeof dot);
            }
            free(all);
        }
        free(x);
        free(row);
        free_weight(&w);
    }
}

/* Threads in any order take each unit once: their own from the low end, in parts, others' from the high end one by one. */
static void test_ranges(void **state) {
    (void)state;
    enum { THREADS = 3, MOST = 50, APART = 1000 };
    const size_t shares[] = {1, 8, SIZE_MAX};
    uint64_t seed = 12;
    for (size_t round = 0; round < 300; round++) {
        matmul_range ranges[THREADS];
        int taken[THREADS * APART] = {0};
        size_t left = 0, n[THREADS], first;
        bool more;
        for (size_t t = 0; t < THREADS; t++) {
            n[t] = random_next(&seed) % MOST;
            left += n[t];
            matmul_range_put(&ranges[t], t * APART, t * APART + n[t]);
        }
        while (left > 0) {
            const int t = (int)(random_next(&seed) % THREADS);
            const size_t got = matmul_range_take(ranges, shares[round % 3], t, THREADS, &first, &more);
            assert_true(got > 0 && got <= left && (got == 1 || first / APART == (size_t)t));
            for (size_t i = first; i < first + got; i++)
                assert_true(i % APART < n[i / APART] && taken[i]++ == 0);
            left -= got;
            if (more)   /* its own, and nobody has taken it yet */
                assert_true(first / APART == (size_t)t && (first + got) % APART < n[t] && !taken[first + got]);
        }
        for (int t = 0; t < THREADS; t++)
            assert_true(matmul_range_take(ranges, 1, t, THREADS, &first, &more) == 0);
    }
}

static void test_no_columns_and_mismatch(void **state) {
    (void)state;
    uint64_t seed = 8;
    cmc_runtime *rt = open_runtime(2, PATH_DOT);
    weight a = new_weight(CMC_Q8_0, 64, 8, &seed), b = new_weight(CMC_Q8_0, 32, 8, &seed);
    float x[64] = {0}, y[8] = {-7}, z[8] = {-7};
    matmul_out outs[2] = {{.w = &a, .y = y, .ldy = 8}, {.w = &b, .y = z, .ldy = 8}};
    matmul_work work = {0};
    cmc_error err = {0};
    assert_int_equal(matmul(rt, &work, x, 64, 0, outs, 1, &err), CMC_OK);
    assert_int_equal(matmul(rt, &work, x, 64, 1, outs, 0, &err), CMC_OK);
    assert_true(y[0] == -7);
    assert_int_equal(matmul(rt, &work, x, 64, 1, outs, 2, &err), CMC_E_ARG);
    assert_true(y[0] == -7 && z[0] == -7 && err.message[0] != 0);
    matmul_work_free(&work);
    free_weight(&a);
    free_weight(&b);
    cmc_runtime_free(rt);
}

static void test_weight_from_tensor(void **state) {
    (void)state;
    uint8_t data[34 * 2 * 3];
    const gguf_tensor good = {.name = {"w", 1}, .type = CMC_Q8_0, .n_dims = 2, .ne = {64, 3, 1, 1}, .bytes = sizeof data, .data = data};
    weight w;
    cmc_error err = {0};
    assert_int_equal(weight_from_tensor(&good, 64, 3, "f.gguf", &w, &err), CMC_OK);
    assert_true(w.n_in == 64 && w.n_out == 3 && w.row_bytes == 68 && w.data == data);
    assert_int_equal(weight_from_tensor(&good, 64, 4, "f.gguf", &w, &err), CMC_E_FORMAT);
    assert_non_null(strstr(err.message, "f.gguf"));
    assert_int_equal(weight_from_tensor(&good, 32, 3, "f.gguf", &w, &err), CMC_E_FORMAT);
    gguf_tensor bad = good;
    bad.n_dims = 3;
    assert_int_equal(weight_from_tensor(&bad, 64, 3, "f.gguf", &w, &err), CMC_E_FORMAT);
    bad = good;
    bad.type = 16;
    bad.data = NULL;
    assert_int_equal(weight_from_tensor(&bad, 64, 3, "f.gguf", &w, &err), CMC_E_UNSUPPORTED);
    assert_non_null(strstr(err.message, "IQ2_XXS"));
    bad = good;
    bad.ne[0] = 48;
    assert_int_equal(weight_from_tensor(&bad, 48, 3, "f.gguf", &w, &err), CMC_E_FORMAT);
}

/* ------------------------------------------------------------------------------------------- blas_gemm */

typedef struct gemm_case { size_t m, n, k; float alpha, beta; } gemm_case;

static void check_gemm(const blas *b, const gemm_case *g, bool a_is_km, bool b_is_kn) {
    uint64_t seed = 9;
    size_t lda = (a_is_km ? g->m : g->k) + 1, ldb = (b_is_kn ? g->n : g->k) + 2, ldc = g->n + 3;
    float *A = random_floats((a_is_km ? g->k : g->m) * lda + 1, &seed), *B = random_floats((b_is_kn ? g->k : g->n) * ldb + 1, &seed);
    float *C = random_floats(g->m * ldc, &seed), *old = need(g->m * ldc, sizeof *old);
    for (size_t i = 0; i < g->m * ldc; i++)
        if (g->beta == 0.0f && i % ldc < g->n)
            C[i] = NAN;
    memcpy(old, C, g->m * ldc * sizeof *C);
    blas_gemm(b, a_is_km, b_is_kn, g->m, g->n, g->k, g->alpha, A, lda, B, ldb, g->beta, C, ldc);
    for (size_t i = 0; i < g->m; i++) {
        for (size_t j = 0; j < g->n; j++) {
            double sum = 0;
            for (size_t p = 0; p < g->k; p++)
                sum += (double)(a_is_km ? A[p * lda + i] : A[i * lda + p]) * (double)(b_is_kn ? B[p * ldb + j] : B[j * ldb + p]);
            double want = (double)g->alpha * sum + (g->beta == 0.0f ? 0 : (double)g->beta * (double)old[i * ldc + j]);
            assert_true(fabs((double)C[i * ldc + j] - want) <= 1e-6 * (double)(g->k + 1));
        }
        for (size_t j = g->n; j < ldc; j++)
            assert_true(C[i * ldc + j] == old[i * ldc + j]);
    }
    free(A);
    free(B);
    free(C);
    free(old);
}

static void test_gemm(void **state) {
    (void)state;
    static const gemm_case gemms[] = {{1, 1, 1, 1, 0},    {3, 5, 7, 0.5f, 1},   {33, 65, 129, 1, 0}, {64, 1, 200, -2, 0.5f},
                                      {1, 130, 31, 1, 1}, {70, 100, 300, 1, 0}, {4, 4, 0, 1, 0.5f}};
    blas *b = blas_open();
    for (size_t i = 0; i < sizeof gemms / sizeof gemms[0]; i++)
        for (int trans = 0; trans < 4; trans++) {
            check_gemm(NULL, &gemms[i], trans & 1, trans & 2);
            if (b)
                check_gemm(b, &gemms[i], trans & 1, trans & 2);
        }
    if (!b)
        print_message("SKIP blas: no libopenblas.so.0\n");
    blas_close(b);
}

/* The plain loops sum each element in one order, whatever the size around it: exact mode relies on it. */
static void test_plain_gemm_bits(void **state) {
    (void)state;
    uint64_t seed = 10;
    enum { M = 37, N = 70, K = 300 };
    float *A = random_floats(M * K, &seed), *B = random_floats(N * K, &seed), *C = need(M * N, sizeof *C), one;
    blas_gemm(NULL, false, false, M, N, K, 1, A, K, B, K, 0, C, N);
    for (size_t i = 0; i < M; i++)
        for (size_t j = 0; j < N; j++) {
            blas_gemm(NULL, false, false, 1, 1, K, 1, A + i * K, K, B + j * K, K, 0, &one, 1);
            assert_memory_equal(&one, &C[i * N + j], sizeof one);
        }
    free(A);
    free(B);
    free(C);
}

typedef struct many_job { const blas *b; const float *A, *B; float *C[4]; } many_job;

enum { MANY = 96 };

static void many_thread(void *arg, int t, int nt) {
    (void)nt;
    const many_job *job = arg;
    for (int rep = 0; rep < 50; rep++)
        blas_gemm(job->b, false, false, MANY, MANY, MANY, 1, job->A, MANY, job->B, MANY, 0, job->C[t], MANY);
}

/* OpenBLAS, told to use one thread, from four of ours at once. */
static void test_gemm_from_many_threads(void **state) {
    (void)state;
    blas *b = blas_open();
    if (!b) {
        print_message("SKIP blas threads: no libopenblas.so.0\n");
        return;
    }
    uint64_t seed = 12;
    cmc_pool *pool;
    assert_int_equal(cmc_pool_new(4, &pool, NULL), CMC_OK);
    many_job job = {.b = b, .A = random_floats(MANY * MANY, &seed), .B = random_floats(MANY * MANY, &seed)};
    float *want = need(MANY * MANY, sizeof *want);
    blas_gemm(b, false, false, MANY, MANY, MANY, 1, job.A, MANY, job.B, MANY, 0, want, MANY);
    for (int t = 0; t < 4; t++)
        job.C[t] = need(MANY * MANY, sizeof(float));
    for (int rep = 0; rep < 10; rep++) {
        cmc_pool_run(pool, many_thread, &job);
        for (int t = 0; t < 4; t++) {
            assert_memory_equal(job.C[t], want, MANY * MANY * sizeof(float));
            memset(job.C[t], 0, MANY * MANY * sizeof(float));
        }
    }
    for (int t = 0; t < 4; t++)
        free(job.C[t]);
    free((void *)(uintptr_t)job.A);
    free((void *)(uintptr_t)job.B);
    free(want);
    cmc_pool_free(pool);
    blas_close(b);
}

static void test_runtime(void **state) {
    (void)state;
    cmc_runtime *rt = NULL;
    cmc_error err = {0};
    assert_int_equal(cmc_runtime_open(NULL, &rt, &err), CMC_OK);
    assert_true(cmc_runtime_threads(rt) >= 1);
    assert_string_equal(cmc_runtime_isa(rt), quant_isa());
    assert_string_equal(cmc_runtime_blas_core(rt), rt->blas ? blas_core(rt->blas) : "none");
    cmc_runtime_free(rt);
    cmc_runtime_free(NULL);
    assert_int_equal(cmc_runtime_open(&(cmc_runtime_opts){.threads = -1}, &rt, &err), CMC_E_ARG);
    assert_null(rt);
    assert_int_equal(cmc_runtime_open(&(cmc_runtime_opts){.threads = 1, .exact = true}, &rt, &err), CMC_OK);
    assert_null(rt->blas);
    cmc_runtime_free(rt);
    const char *advice = cmc_blas_core_advice();
    assert_true(!advice || strcmp(advice, "Haswell") == 0 || strcmp(advice, "SkylakeX") == 0);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_paths), cmocka_unit_test(test_threads_do_not_change_bits),
        cmocka_unit_test(test_batch_does_not_change_bits), cmocka_unit_test(test_ranges), cmocka_unit_test(test_no_columns_and_mismatch),
        cmocka_unit_test(test_weight_from_tensor), cmocka_unit_test(test_gemm), cmocka_unit_test(test_plain_gemm_bits),
        cmocka_unit_test(test_gemm_from_many_threads), cmocka_unit_test(test_runtime),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
