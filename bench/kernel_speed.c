/* Speed of the matrix products by type, shape and number of columns, as JSON lines: what GEMM_MIN_COLS and the kernels'
 * shapes were chosen by.
 *
 *     kernel_speed [matvec|shapes|all] [seconds per figure]
 *
 * matvec: weights larger than the caches, one column: GB/s of weights read. shapes: the matrices of SmolLM2-135M and
 * Gemma-3-270M for 1 to 512 columns, integer dots beside BLAS and, where the machine has them, integer products of
 * batches: GFLOPS and microseconds. Each figure is the best run. */
#include "base/mem.h"
#include "runtime/matmul.h"
#include "runtime/quant.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

typedef struct shape { uint32_t type; size_t n_in, n_out; } shape;

static uint64_t random_next(uint64_t *s) {
    *s ^= *s << 13;
    *s ^= *s >> 7;
    return *s ^= *s << 17;
}

static float random_float(uint64_t *s) {
    return (float)(random_next(s) >> 40) * 0x1p-23f - 1;
}

static void die(const char *what) {
    fprintf(stderr, "kernel_speed: %s\n", what);
    exit(1);
}

/* Random bytes, with the float16 fields of every block made small and finite: NaN would not be slower, but is no weight. */
static weight random_weight(shape s) {
    size_t row = cmc_type_row_bytes(s.type, s.n_in), bytes = row * s.n_out;
    uint8_t *data = cmc_alloc_aligned(bytes + 8, 1);
    if (!data)
        die("no memory for weights");
    uint64_t seed = 88172645463325252ull;
    for (size_t i = 0; i < bytes; i += 8) {
        uint64_t v = random_next(&seed) & 0xbfbfbfbfbfbfbfbfull;   /* exponents below the greatest in every alignment */
        memcpy(data + i, &v, 8);
    }
    return (weight){.type = s.type, .n_in = s.n_in, .n_out = s.n_out, .data = data, .row_bytes = row};
}

typedef struct bench { cmc_runtime *rt; matmul_work work; float *x, *y; size_t ldy; double budget; } bench;

/* Best seconds of one product with `cols` columns. */
static double best_of(bench *b, const weight *w, size_t cols) {
    matmul_out out = {.w = w, .y = b->y, .ldy = w->n_out};
    double best = 1e9, begin = cmc_now();
    for (int i = 0; i < 3 || cmc_now() - begin < b->budget; i++) {
        double t = cmc_now();
        if (matmul(b->rt, &b->work, b->x, w->n_in, cols, &out, 1, NULL) != CMC_OK)
            die("matmul failed");
        t = cmc_now() - t;
        best = t < best ? t : best;
    }
    return best;
}

static void bench_matvec(bench *b) {
    static const uint32_t types[] = {CMC_F32, CMC_F16, CMC_BF16, CMC_Q8_0, CMC_Q4_0, CMC_Q4_1, CMC_Q5_0, CMC_Q5_1, CMC_Q2_K,
                                     CMC_Q3_K, CMC_Q4_K, CMC_Q5_K, CMC_Q6_K, CMC_IQ4_NL, CMC_IQ4_XS};
    for (size_t i = 0; i < sizeof types / sizeof types[0]; i++) {
        shape s = {types[i], 2048, 0};
        s.n_out = (96u << 20) / cmc_type_row_bytes(s.type, s.n_in);
        weight w = random_weight(s);
        double t = best_of(b, &w, 1);
        printf("{\"bench\":\"matvec\",\"type\":\"%s\",\"threads\":%d,\"isa\":\"%s\",\"gbps\":%.2f,\"gweights\":%.2f}\n",
               cmc_type_name(s.type), cmc_runtime_threads(b->rt), cmc_runtime_isa(b->rt), (double)(w.row_bytes * w.n_out) / t / 1e9,
               (double)(w.n_in * w.n_out) / t / 1e9);
        fflush(stdout);
        free((void *)(uintptr_t)w.data);
    }
}

static void bench_shapes(bench *b) {
    static const shape shapes[] = {{CMC_Q4_1, 576, 576}, {CMC_Q4_1, 576, 1536}, {CMC_Q4_1, 1536, 576}, {CMC_Q8_0, 576, 49152},
                                   {CMC_Q5_0, 640, 2048}, {CMC_Q6_K, 2048, 640}, {CMC_Q4_K, 1024, 640}, {CMC_Q8_0, 640, 262144}};
    static const size_t cols[] = {1, 2, 4, 8, 12, 16, 24, 32, 64, 128, 512};
    for (size_t i = 0; i < sizeof shapes / sizeof shapes[0]; i++) {
        weight w = random_weight(shapes[i]);
        for (size_t k = 0; k < sizeof cols / sizeof cols[0]; k++) {
            if (w.n_out * cols[k] > 32u << 20)
                break;   /* of results: models never ask for more at once */
            static const char *const paths[] = {"dot", "blas", "integer", "fine"};
            double flop = 2.0 * (double)(w.n_in * w.n_out * cols[k]) / 1e9;
            printf("{\"bench\":\"shape\",\"type\":\"%s\",\"n_in\":%zu,\"n_out\":%zu,\"cols\":%zu,\"threads\":%d,\"blas_core\":\"%s\"",
                   cmc_type_name(w.type), w.n_in, w.n_out, cols[k], cmc_runtime_threads(b->rt), cmc_runtime_blas_core(b->rt));
            for (int path = 0; path < 4; path++) {
                b->rt->gemm_min_cols = path == 1 ? 1 : SIZE_MAX;
                b->rt->integer_gemm = path >= 2 ? quant_gemm_vnni() : NULL;
                b->rt->fine_batches = path == 3;
                if (path >= 2 && !b->rt->integer_gemm)
                    continue;
                double t = best_of(b, &w, cols[k]);
                printf(",\"%s_us\":%.1f,\"%s_gflops\":%.1f", paths[path], t * 1e6, paths[path], flop / t);
            }
            puts("}");
            fflush(stdout);
        }
        free((void *)(uintptr_t)w.data);
    }
}

int main(int argc, char **argv) {
    const char *what = argc > 1 ? argv[1] : "all";
    bench b = {.budget = argc > 2 ? atof(argv[2]) : 0.3};
    size_t nx = 512 * 2048, ny = 33u << 20;
    b.x = cmc_alloc_aligned(nx, sizeof *b.x);
    b.y = cmc_alloc_aligned(ny, sizeof *b.y);
    if (!b.x || !b.y)
        die("no memory for activations");
    uint64_t seed = 1;
    for (size_t i = 0; i < nx; i++)
        b.x[i] = random_float(&seed);
    for (int threads = 1; threads <= 2; threads++) {
        cmc_error err;
        if (cmc_runtime_open(&(cmc_runtime_opts){.threads = threads}, &b.rt, &err) != CMC_OK)
            die(err.message);
        if (strcmp(what, "shapes") != 0)
            bench_matvec(&b);
        if (strcmp(what, "matvec") != 0)
            bench_shapes(&b);
        cmc_runtime_free(b.rt);
    }
    matmul_work_free(&b.work);
    free(b.x);
    free(b.y);
    return 0;
}
