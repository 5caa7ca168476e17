/* The screened output product against the full one: which logits are its bits, how far off the others may be, and that
 * neither threads nor company matter. */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "runtime/graph.h"
#include "runtime/screen_panel.h"
#include "tests/tiny.h"

enum { N_IN = 96, ROWS = 5003, LEAST = (ROWS + 63) / 64, MOST = (ROWS + 15) / 16, COLS = 11 };

static void ok(cmc_status st, const cmc_error *err) {
    if (st != CMC_OK)
        fail_msg("%s", err->message);
}

static float random_float(uint64_t *s) {
    *s = *s * 6364136223846793005ULL + 1442695040888963407ULL;
    return (float)(int32_t)(*s >> 32) * 0x1p-31f;
}

/* A tiny model, with an output matrix of many rows in the place of its own. */
typedef struct bench {
    char *dir;
    cmc_runtime *rt;
    cmc_model *m;
    uint8_t *rows;
    float *w;           /* [ROWS][N_IN], as stored */
} bench;

static bench bench_open(uint32_t type, int threads, cmc_output output, float spread) {
    bench b = {.dir = tiny_dir_new()};
    cmc_error err = {0};
    const char *path = tiny_path(b.dir, "model.gguf");
    const tiny_spec spec = {.arch = "llama", .type = CMC_F32, .n_embd = N_IN};
    ok(cmc_runtime_open(&(cmc_runtime_opts){.threads = threads, .output = output}, &b.rt, &err), &err);
    ok(tiny_write(&spec, path, &err), &err);
    ok(cmc_model_open(b.rt, path, &b.m, &err), &err);
    const size_t bytes = cmc_type_row_bytes(type, N_IN);
    uint64_t seed = 7;
    b.rows = malloc(ROWS * bytes);
    b.w = malloc(ROWS * N_IN * sizeof *b.w);
    for (size_t r = 0; r < ROWS; r++) {
        float *w = b.w + r * N_IN;
        for (size_t i = 0; i < N_IN; i++)
            w[i] = spread * random_float(&seed);
        assert_true(quant_encode_row(type, w, b.rows + r * bytes, N_IN));
        quant_decode_row(type, b.rows + r * bytes, w, N_IN);
    }
    b.m->head = (weight){.type = type, .n_in = N_IN, .n_out = ROWS, .data = b.rows, .row_bytes = bytes};
    return b;
}

static void bench_close(bench *b) {
    cmc_model_free(b->m);
    cmc_runtime_free(b->rt);
    tiny_dir_free(b->dir);
    free(b->rows);
    free(b->w);
}

static void random_states(float *h, size_t n) {
    uint64_t seed = 3;
    for (size_t i = 0; i < n * N_IN; i++)
        h[i] = random_float(&seed);
}

static float *screened(bench *b, const float *h, size_t n) {
    cmc_error err = {0};
    float *y = malloc(n * ROWS * sizeof *y);
    ok(screen_logits(b->m, h, n, y, ROWS, &err), &err);
    return y;
}

/* Each row by itself, from the whole matrix. */
static float *full(bench *b, const float *h, size_t n) {
    cmc_error err = {0};
    float *y = malloc(n * ROWS * sizeof *y);
    for (size_t c = 0; c < n; c++)
        ok(graph_logits(b->m, h + c * N_IN, 1, y + c * ROWS, ROWS, &err), &err);
    return y;
}

/* What 4 bits and 8-bit activations can do to a row's product: half a step of every weight (a whole one at the end of the
 * scale where there is no level), of every activation too. */
static double most_off(const float *w, const float *h) {
    double sum = 0;
    for (size_t g = 0; g < N_IN; g += 32) {
        double top_w = 0, top_h = 0, sum_w = 0, sum_h = 0;
        for (size_t i = g; i < g + 32; i++) {
            top_w = fmax(top_w, fabs((double)w[i]));
            top_h = fmax(top_h, fabs((double)h[i]));
            sum_w += fabs((double)w[i]);
            sum_h += fabs((double)h[i]);
        }
        sum += top_w / 8 * (sum_h + 32 * top_h / 127) + top_h / 127 * sum_w;
    }
    return sum * 1.01 + 1e-5;
}

/* The greatest logit has the full product's bits, as have as many as were to be computed; the others are near. */
static void check_column(const bench *b, const float *h, const float *got, const float *want) {
    size_t same = 0, best = 0;
    for (size_t i = 0; i < ROWS; i++) {
        assert_true(fabs((double)got[i] - (double)want[i]) <= most_off(b->w + i * N_IN, h));
        best = got[i] > got[best] ? i : best;
        same += got[i] == want[i];
    }
    assert_true(got[best] == want[best]);
    assert_true(same >= LEAST);
    assert_true(same < ROWS / 4);        /* and most are estimates */
}

static void greatest_are_the_full_products(void **state) {
    (void)state;
    static const uint32_t types[] = {CMC_F32, CMC_F16, CMC_BF16, CMC_Q8_0, CMC_Q5_1};
    float h[COLS * N_IN];
    random_states(h, COLS);
    for (size_t k = 0; k < sizeof types / sizeof *types; k++) {
        bench b = bench_open(types[k], 2, CMC_OUTPUT_SCREENED, 1);
        float *got = screened(&b, h, COLS), *want = full(&b, h, COLS);
        for (size_t c = 0; c < COLS; c++)
            check_column(&b, h + c * N_IN, got + c * ROWS, want + c * ROWS);
        free(got);
        free(want);
        bench_close(&b);
    }
}

static size_t count_same(const float *a, const float *b) {
    size_t n = 0;
    for (size_t i = 0; i < ROWS; i++)
        n += a[i] == b[i];
    return n;
}

/* Where a few tokens have all of the probability the least number is computed; where all are alike, the most. */
static void as_many_as_matter(void **state) {
    (void)state;
    float h[N_IN];
    random_states(h, 1);
    size_t n[2];
    for (int k = 0; k < 2; k++) {
        bench b = bench_open(CMC_F32, 2, CMC_OUTPUT_SCREENED, k ? 4 : 0.25f);
        float *got = screened(&b, h, 1), *want = full(&b, h, 1);
        n[k] = count_same(got, want);
        free(got);
        free(want);
        bench_close(&b);
    }
    assert_true(n[0] >= MOST);
    assert_true(n[1] >= LEAST && n[1] < MOST);
}

static void threads_do_not_matter(void **state) {
    (void)state;
    float h[COLS * N_IN], *want = NULL;
    random_states(h, COLS);
    for (int threads = 1; threads <= 5; threads++) {
        bench b = bench_open(CMC_Q8_0, threads, CMC_OUTPUT_SCREENED, 1);
        float *got = screened(&b, h, COLS);
        if (want)
            assert_memory_equal(got, want, COLS * ROWS * sizeof *got);
        free(want);
        want = got;
        bench_close(&b);
    }
    free(want);
}

static void company_does_not_matter(void **state) {
    (void)state;
    float h[COLS * N_IN];
    random_states(h, COLS);
    bench b = bench_open(CMC_Q8_0, 2, CMC_OUTPUT_SCREENED, 1);
    float *all = screened(&b, h, COLS);
    for (size_t n = 1; n <= COLS; n++) {
        float *got = screened(&b, h + (COLS - n) * N_IN, n);
        assert_memory_equal(got, all + (COLS - n) * ROWS, n * ROWS * sizeof *got);
        free(got);
    }
    free(all);
    bench_close(&b);
}

/* Off, too small a matrix to pay, and logits of which all are the greatest. */
static void all_where_it_cannot_help(void **state) {
    (void)state;
    float h[N_IN];
    random_states(h, 1);
    for (int k = 0; k < 3; k++) {
        bench b = bench_open(CMC_F32, 2, k == 0 ? CMC_OUTPUT_FULL : k == 1 ? CMC_OUTPUT_AUTO : CMC_OUTPUT_SCREENED, k == 2 ? 0 : 1);
        float *got = screened(&b, h, 1), *want = full(&b, h, 1);
        assert_memory_equal(got, want, ROWS * sizeof *got);
        assert_true((b.m->screen.panels != NULL) == (k == 2));
        free(got);
        free(want);
        bench_close(&b);
    }
}

/* All rows the same, so that all are likely, and more than a thread keeps a list of: each is computed. */
static void all_alike(void **state) {
    (void)state;
    enum { MANY = 8 };
    float h[MANY * N_IN];
    random_states(h, MANY);
    for (int threads = 1; threads <= 2; threads++) {
        bench b = bench_open(CMC_Q8_0, threads, CMC_OUTPUT_SCREENED, 1);
        const size_t bytes = cmc_type_row_bytes(CMC_Q8_0, N_IN);
        for (size_t r = 1; r < ROWS; r++)
            memcpy(b.rows + r * bytes, b.rows, bytes);
        float *got = screened(&b, h, MANY);
        for (size_t c = 0; c < MANY; c++) {
            float *want = full(&b, h + c * N_IN, 1);
            assert_memory_equal(got + c * ROWS, want, ROWS * sizeof *want);
            free(want);
        }
        free(got);
        bench_close(&b);
    }
}

/* A state that is not finite gives logits that are not, and nothing worse. */
static void not_finite(void **state) {
    (void)state;
    bench b = bench_open(CMC_F32, 2, CMC_OUTPUT_SCREENED, 1);
    float h[N_IN];
    random_states(h, 1);
    for (int k = 0; k < 2; k++) {
        h[5] = k ? INFINITY : NAN;
        float *got = screened(&b, h, 1);
        for (size_t i = 0; i < ROWS; i++)
            assert_true(!isfinite(got[i]));
        free(got);
    }
    bench_close(&b);
}

/* ------------------------------------------------------------------------------------------------- cmc_eval */

static void eval_last(cmc_model *m, size_t n, size_t step, cmc_want want, float *out) {
    cmc_error err = {0};
    cmc_session *s;
    int32_t ids[8];
    for (size_t i = 0; i < 8; i++)
        ids[i] = (int32_t)(20 + 7 * i);
    ok(cmc_session_new(m, 0, &s, &err), &err);
    for (size_t at = step; at <= n; at += step) {
        ok(cmc_session_sync(s, ids, at, &err), &err);
        ok(cmc_eval(m, &(cmc_eval_item){s, want, 1, out}, 1, &err), &err);
    }
    cmc_session_free(s);
}

/* A prompt's row is the full product's, a decoded token's is screened; in exact mode neither is. */
static void eval_screens_decoding_alone(void **state) {
    (void)state;
    const tiny_spec spec = {.arch = "gemma3", .type = CMC_Q8_0, .tied = true};
    for (int exact = 0; exact < 2; exact++) {
        char *dir = tiny_dir_new();
        cmc_error err = {0};
        cmc_runtime *rt;
        cmc_model *m;
        const char *path = tiny_path(dir, "model.gguf");
        ok(cmc_runtime_open(&(cmc_runtime_opts){.threads = 2, .exact = exact, .output = CMC_OUTPUT_SCREENED}, &rt, &err), &err);
        ok(tiny_write(&spec, path, &err), &err);
        ok(cmc_model_open(rt, path, &m, &err), &err);
        const size_t v = (size_t)cmc_model_n_vocab(m);
        float *a = malloc(v * sizeof *a), *b = malloc(v * sizeof *b);
        eval_last(m, 8, 8, CMC_WANT_LOGITS, a);
        eval_last(m, 8, 8, CMC_WANT_SAMPLING, b);
        assert_memory_equal(a, b, v * sizeof *a);
        assert_null(m->screen.panels);
        eval_last(m, 8, 1, CMC_WANT_LOGITS, a);
        eval_last(m, 8, 1, CMC_WANT_SAMPLING, b);
        assert_true((memcmp(a, b, v * sizeof *a) == 0) == exact);
        assert_true((m->screen.panels == NULL) == exact);
        free(a);
        free(b);
        cmc_model_free(m);
        cmc_runtime_free(rt);
        tiny_dir_free(dir);
    }
}

/* --------------------------------------------------------------------------------------------------- panels */

/* Random rows, ties for the greatest, zeros of both signs, NaN. */
static void make_row(float *x, size_t r, uint64_t *seed) {
    for (size_t i = 0; i < N_IN; i++)
        x[i] = i < 32 ? random_float(seed) : i < 64 ? roundf(8 * random_float(seed)) / 2 : r % 2 ? 0 : -0.0f;
    if (r % 5 == 0)
        x[r] = NAN;
}

/* A panel holds what Q4_0 holds, and each way of encoding gives the same bytes. */
static void panels_hold_q4_0(void **state) {
    (void)state;
    const panel_kernels *fast = panel_kernels_vnni();
    uint8_t *panel = calloc(2, panel_bytes(N_IN)), *other = panel + panel_bytes(N_IN);
    uint64_t seed = 5;
    for (size_t r = 0; r < PANEL_ROWS; r++) {
        float x[N_IN], w[N_IN];
        uint8_t row[N_IN / 32 * 18];
        make_row(x, r, &seed);
        panel_kernels_plain.encode(x, N_IN, r, panel);
        if (fast)
            fast->encode(x, N_IN, r, other);
        assert_true(quant_encode_row(CMC_Q4_0, x, row, N_IN));
        quant_decode_row(CMC_Q4_0, row, w, N_IN);
        for (size_t i = 0; i < N_IN; i++) {
            const uint8_t *group = panel + i / 32 * PANEL_GROUP_BYTES;
            const int byte = group[32 + 64 * (i % 16 / 4) + 4 * r + i % 4], q = (i % 32 < 16 ? byte & 15 : byte >> 4) - 8;
            assert_true(w[i] == quant_f16_to_f32(quant_le16(group + 2 * r)) * (float)q);
        }
    }
    if (fast)
        assert_memory_equal(panel, other, panel_bytes(N_IN));
    free(panel);
}

/* The vector code's products are the plain code's but for rounding, and the same in any company. */
static void panels_multiply_alike(void **state) {
    (void)state;
    const panel_kernels *fast = panel_kernels_vnni();
    if (!fast)
        skip();
    const size_t stride = quant_act_bytes(N_IN);
    uint8_t *panel = calloc(1, panel_bytes(N_IN)), *acts = aligned_alloc(64, (PANEL_COLS * stride + 63) / 64 * 64);
    float x[N_IN], h[PANEL_COLS * N_IN], want[PANEL_COLS * PANEL_ROWS], got[PANEL_COLS * PANEL_ROWS], one[PANEL_ROWS];
    uint64_t seed = 11;
    for (size_t r = 0; r < PANEL_ROWS; r++) {
        for (size_t i = 0; i < N_IN; i++)
            x[i] = random_float(&seed);
        fast->encode(x, N_IN, r, panel);
    }
    random_states(h, PANEL_COLS);
    for (size_t c = 0; c < PANEL_COLS; c++)
        quant_act_row(h + c * N_IN, acts + c * stride, N_IN);
    panel_kernels_plain.dot(panel, N_IN, acts, stride, PANEL_COLS, want, PANEL_ROWS);
    for (size_t cols = 1; cols <= PANEL_COLS; cols++) {
        fast->dot(panel, N_IN, acts, stride, cols, got, PANEL_ROWS);
        for (size_t c = 0; c < cols; c++) {
            fast->dot(panel, N_IN, acts + c * stride, stride, 1, one, PANEL_ROWS);
            assert_memory_equal(got + c * PANEL_ROWS, one, sizeof one);
            for (size_t r = 0; r < PANEL_ROWS; r++)
                assert_true(fabsf(one[r] - want[c * PANEL_ROWS + r]) < 1e-4f);
        }
    }
    free(panel);
    free(acts);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(greatest_are_the_full_products), cmocka_unit_test(as_many_as_matter),
        cmocka_unit_test(threads_do_not_matter), cmocka_unit_test(company_does_not_matter),
        cmocka_unit_test(all_where_it_cannot_help), cmocka_unit_test(all_alike), cmocka_unit_test(not_finite),
        cmocka_unit_test(eval_screens_decoding_alone), cmocka_unit_test(panels_hold_q4_0),
        cmocka_unit_test(panels_multiply_alike),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
