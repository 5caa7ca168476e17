/* OpenBLAS through dlopen, plain loops where there is none, and which core type OpenBLAS 0.3.21 should be told. */
#include "runtime/blas.h"

#include "base/mem.h"

#include <dlfcn.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>

#if defined(__x86_64__)
#include <cpuid.h>
#endif

/* The LP64 interface: Debian's libopenblas.so.0 takes blasint = int. */
typedef void (*blas_sgemm_fn)(int order, int trans_a, int trans_b, int m, int n, int k, float alpha, const float *a, int lda,
                              const float *b, int ldb, float beta, float *c, int ldc);
enum { BLAS_ROW_MAJOR = 101, BLAS_NO_TRANS = 111, BLAS_TRANS = 112 };

/* Of all threads. */
typedef struct blas_count {
    atomic_ullong flop, nanoseconds;
} blas_count;

struct blas {
    void *lib;
    blas_count *count;
    blas_sgemm_fn sgemm;
    char core[32];
};

/* ISO C has no cast from an object pointer to a function's; POSIX wants the bits to be the same. */
static bool load_symbol(void *lib, const char *name, void *fn) {
    void *p = dlsym(lib, name);
    memcpy(fn, &p, sizeof p);
    return p != NULL;
}

blas *blas_open(void) {
    /* NODELETE: its idle threads must not lose their code when the last runtime goes. */
    void *lib = dlopen("libopenblas.so.0", RTLD_NOW | RTLD_LOCAL | RTLD_NODELETE);
    if (!lib)
        return NULL;
    blas *b = cmc_calloc(1, sizeof *b);
    void (*set_threads)(int);
    char *(*corename)(void);
    if (b)
        b->count = cmc_calloc(1, sizeof *b->count);
    if (!b || !b->count || !load_symbol(lib, "cblas_sgemm", &b->sgemm) ||
        !load_symbol(lib, "openblas_set_num_threads", &set_threads) ||
        !load_symbol(lib, "openblas_get_corename", &corename)) {
        if (b)
            free(b->count);
        free(b);
        dlclose(lib);
        return NULL;
    }
    b->lib = lib;
    set_threads(1);
    const char *core = corename();
    strncpy(b->core, core ? core : "unknown", sizeof b->core - 1);
    return b;
}

void blas_close(blas *b) {
    if (!b)
        return;
    dlclose(b->lib);
    free(b->count);
    free(b);
}

const char *blas_core(const blas *b) {
    return b ? b->core : "none";
}

blas_work blas_work_of(const blas *b) {
    if (!b)
        return (blas_work){0};
    return (blas_work){(double)atomic_load(&b->count->flop), (double)atomic_load(&b->count->nanoseconds) * 1e-9};
}

/* ------------------------------------------------------------------------------------------------ plain loops */

enum { PLAIN_M = 32, PLAIN_N = 64, PLAIN_K = 128 };

typedef struct plain_tiles {
    float a[PLAIN_M][PLAIN_K];   /* op(A), rows of k */
    float b[PLAIN_K][PLAIN_N];   /* op(B) transposed, rows of n; zero beyond the edge */
} plain_tiles;

static size_t min_size(size_t a, size_t b) {
    return a < b ? a : b;
}

static void plain_pack(plain_tiles *t, const float *A, size_t lda, bool a_is_km, size_t mb, const float *B, size_t ldb,
                       bool b_is_kn, size_t nb, size_t kb) {
    for (size_t i = 0; i < mb; i++)
        for (size_t p = 0; p < kb; p++)
            t->a[i][p] = a_is_km ? A[p * lda + i] : A[i * lda + p];
    for (size_t p = 0; p < kb; p++)
        for (size_t j = 0; j < PLAIN_N; j++)
            t->b[p][j] = j >= nb ? 0 : b_is_kn ? B[p * ldb + j] : B[j * ldb + p];
}

/* Adds alpha * a b to the tile of C; every element is summed in the order of k. */
static void plain_tile(const plain_tiles *t, size_t mb, size_t nb, size_t kb, float alpha, float *C, size_t ldc) {
    for (size_t i = 0; i < mb; i++) {
        float acc[PLAIN_N] = {0};
        for (size_t p = 0; p < kb; p++) {
            float a = t->a[i][p];
            for (size_t j = 0; j < PLAIN_N; j++)
                acc[j] += a * t->b[p][j];
        }
        for (size_t j = 0; j < nb; j++)
            C[i * ldc + j] += alpha * acc[j];
    }
}

static void plain_scale(size_t m, size_t n, float beta, float *C, size_t ldc) {
    for (size_t i = 0; i < m; i++)
        for (size_t j = 0; j < n; j++)
            C[i * ldc + j] = beta == 0 ? 0 : beta * C[i * ldc + j];   /* beta 0: C may hold anything, NaN too */
}

static void plain_gemm(bool a_is_km, bool b_is_kn, size_t m, size_t n, size_t k, float alpha, const float *A, size_t lda,
                       const float *B, size_t ldb, float beta, float *C, size_t ldc) {
    plain_tiles t;
    plain_scale(m, n, beta, C, ldc);
    for (size_t p = 0; p < k; p += PLAIN_K) {
        size_t kb = min_size(PLAIN_K, k - p);
        for (size_t i = 0; i < m; i += PLAIN_M) {
            size_t mb = min_size(PLAIN_M, m - i);
            for (size_t j = 0; j < n; j += PLAIN_N) {
                size_t nb = min_size(PLAIN_N, n - j);
                plain_pack(&t, a_is_km ? A + p * lda + i : A + i * lda + p, lda, a_is_km, mb,
                           b_is_kn ? B + p * ldb + j : B + j * ldb + p, ldb, b_is_kn, nb, kb);
                plain_tile(&t, mb, nb, kb, alpha, C + i * ldc + j, ldc);
            }
        }
    }
}

/* BLAS counts in int. No model here comes near, but a stride is a caller's: then the plain loops are right, if slow. */
static bool fits_int(size_t m, size_t n, size_t k, size_t lda, size_t ldb, size_t ldc) {
    return (m | n | k | lda | ldb | ldc) <= 0x7fffffff;
}

void blas_gemm(const blas *b, bool a_is_km, bool b_is_kn, size_t m, size_t n, size_t k, float alpha, const float *A,
               size_t lda, const float *B, size_t ldb, float beta, float *C, size_t ldc) {
    if (m == 0 || n == 0)
        return;
    if (!b || k == 0 || !fits_int(m, n, k, lda, ldb, ldc)) {
        plain_gemm(a_is_km, b_is_kn, m, n, k, alpha, A, lda, B, ldb, beta, C, ldc);
        return;
    }
    double begin = cmc_now();
    b->sgemm(BLAS_ROW_MAJOR, a_is_km ? BLAS_TRANS : BLAS_NO_TRANS, b_is_kn ? BLAS_NO_TRANS : BLAS_TRANS, (int)m, (int)n,
             (int)k, alpha, A, (int)lda, B, (int)ldb, beta, C, (int)ldc);
    atomic_fetch_add_explicit(&b->count->flop, 2ull * m * n * k, memory_order_relaxed);
    atomic_fetch_add_explicit(&b->count->nanoseconds, (unsigned long long)((cmc_now() - begin) * 1e9), memory_order_relaxed);
}

/* ------------------------------------------------------------------------------------------------ core advice */

#if defined(__x86_64__)
static bool has_skylakex(void) {
    return __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") && __builtin_cpu_supports("avx512dq") &&
           __builtin_cpu_supports("avx512vl") && __builtin_cpu_supports("avx512cd");
}

/* Family as AMD and Intel document it: the extended family counts where the base one is 15. */
static unsigned cpu_family(void) {
    unsigned a = 0, b, c, d;
    if (!__get_cpuid(1, &a, &b, &c, &d))
        return 0;
    unsigned family = (a >> 8) & 15;
    return family == 15 ? family + ((a >> 20) & 255) : family;
}

static bool vendor_is(const char *name) {
    unsigned a, r[3];
    return __get_cpuid(0, &a, &r[0], &r[2], &r[1]) && memcmp(name, r, 12) == 0;
}

const char *cmc_blas_core_advice(void) {
    if (has_skylakex())          /* new Intel cores are taken for Prescott, AVX-512 Zens for AVX2 ones */
        return "SkylakeX";
    if (!__builtin_cpu_supports("avx2") || !__builtin_cpu_supports("fma"))
        return NULL;
    if (vendor_is("GenuineIntel"))
        return "Haswell";        /* what 0.3.21 says of the AVX2 models it knows, and what the others need */
    unsigned family = cpu_family();
    if ((vendor_is("AuthenticAMD") && (family == 0x15 || family == 0x17 || family == 0x19)) ||
        (vendor_is("HygonGenuine") && family == 0x18))
        return NULL;             /* Excavator, Zen 1 to 3: detected */
    return "Haswell";
}
#else
const char *cmc_blas_core_advice(void) {
    return NULL;
}
#endif
