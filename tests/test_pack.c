/* Packed weights: models whose sequences are decoded side by side give the same bits with them and without, and have them only where
 * that pays. */
#include <setjmp.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "runtime/graph.h"
#include "runtime/model.h"
#include "tests/tiny.h"

enum { SEQS = 8, STEPS = 3 };

static void ok(cmc_status st, const cmc_error *err) {
    if (st != CMC_OK)
        fail_msg("%s", err->message);
}

typedef struct fixture {
    char *dir;
    cmc_runtime *rt;
    cmc_model *m;
} fixture;

static fixture open_model(const tiny_spec *spec, int threads, bool exact) {
    fixture f = {.dir = tiny_dir_new()};
    cmc_error err = {0};
    const char *path = tiny_path(f.dir, "model.gguf");
    ok(cmc_runtime_open(&(cmc_runtime_opts){.threads = threads, .exact = exact}, &f.rt, &err), &err);
    ok(tiny_write(spec, path, &err), &err);
    ok(cmc_model_open(f.rt, path, &f.m, &err), &err);
    return f;
}

static void close_model(fixture *f) {
    cmc_model_free(f->m);
    cmc_runtime_free(f->rt);
    tiny_dir_free(f->dir);
}

/* Logits of n sequences that are decoded side by side, [STEPS][n][n_vocab]; expanded blocks count for half. */
static float *decode(cmc_model *m, size_t n, cmc_want want) {
    const size_t v = (size_t)cmc_model_n_vocab(m);
    cmc_error err = {0};
    cmc_session *s[SEQS];
    float *rows = malloc(STEPS * n * v * sizeof *rows);
    assert_non_null(rows);
    for (size_t i = 0; i < n; i++) {
        ok(cmc_session_new(m, 0, &s[i], &err), &err);
        if (cmc_model_expand(m, &(cmc_expand_info){0}))
            ok(cmc_session_set_expand(s[i], 0.5, &err), &err);
    }
    for (size_t step = 0; step < STEPS; step++) {
        cmc_eval_item items[SEQS];
        for (size_t i = 0; i < n; i++) {
            ok(cmc_session_append(s[i], (int32_t)(20 + 7 * i + step), &err), &err);
            items[i] = (cmc_eval_item){s[i], want, 1, rows + (step * n + i) * v};
        }
        ok(cmc_eval(m, items, n, &err), &err);
    }
    for (size_t i = 0; i < n; i++)
        cmc_session_free(s[i]);
    return rows;
}

enum { WIDE = 288 };   /* what is not narrow */

static const tiny_spec models[] = {
    {.arch = "llama", .type = CMC_Q4_1, .n_embd = WIDE},
    {.arch = "llama", .type = CMC_Q4_0, .n_embd = WIDE, .n_ff = 160, .expand = "hybrid", .expand_merge = "dlerp", .expand_f = -0.4},
    {.arch = "qwen2", .type = CMC_Q5_1, .n_embd = WIDE, .n_layer = 3, .tied = true},
    {.arch = "qwen3", .type = CMC_Q8_0, .n_embd = WIDE, .expand = "stack"},
    {.arch = "gemma3", .type = CMC_Q5_0, .n_embd = WIDE, .tied = true},
    {.arch = "llama", .type = CMC_F16, .n_embd = WIDE},   /* of floats none is packed */
};
enum { N_MODELS = sizeof models / sizeof *models };

/* Without kernels for packed weights everything stays as it is stored. */
static void test_bits(void **state) {
    (void)state;
    for (size_t k = 0; k < N_MODELS; k++)
        for (size_t n = 1; n <= SEQS; n++) {
            fixture packed = open_model(&models[k], 2, false), stored = open_model(&models[k], 2, false);
            const size_t bytes = STEPS * n * (size_t)cmc_model_n_vocab(packed.m) * sizeof(float);
            stored.rt->packed = NULL;
            float *a = decode(packed.m, n, CMC_WANT_LOGITS), *b = decode(stored.m, n, CMC_WANT_LOGITS);
            assert_memory_equal(a, b, bytes);
            assert_null(stored.m->pack.strips);
            const bool takes = packed.rt->packed && models[k].type != CMC_F16 && n >= MATMUL_TILE_MIN_COLS;
            assert_true((packed.m->pack.strips != NULL) == takes);
            assert_true((packed.m->layers[1].down.packed != NULL) == takes);
            assert_true((cmc_model_copies(packed.m) > cmc_model_bytes(packed.m) / 2) == takes && cmc_model_copies(stored.m) == 0);
            free(a);
            a = decode(packed.m, n, CMC_WANT_LOGITS);   /* once they are there */
            assert_memory_equal(a, b, bytes);
            free(a);
            free(b);
            close_model(&packed);
            close_model(&stored);
        }
}

/* Neither in exact mode nor for a prompt; a screened output matrix has a copy of its own. */
static void test_where(void **state) {
    (void)state;
    const tiny_spec *spec = &models[0];
    fixture f = open_model(spec, 1, true);
    free(decode(f.m, SEQS, CMC_WANT_LOGITS));
    assert_false(f.m->pack.tried);
    close_model(&f);
    f = open_model(spec, 2, false);
    if (!f.rt->packed) {
        print_message("SKIP packed weights: no AVX-512 VNNI\n");
        close_model(&f);
        return;
    }
    cmc_error err = {0};
    cmc_session *s;
    float *row = malloc((size_t)cmc_model_n_vocab(f.m) * sizeof *row);
    ok(cmc_session_new(f.m, 0, &s, &err), &err);
    ok(cmc_session_sync(s, (const int32_t[]){20, 21, 22, 23, 24, 25}, 6, &err), &err);
    ok(cmc_eval(f.m, &(cmc_eval_item){s, CMC_WANT_LOGITS, 1, row}, 1, &err), &err);
    assert_null(f.m->pack.strips);
    free(row);
    cmc_session_free(s);
    close_model(&f);
    f = open_model(spec, 2, false);
    f.rt->output = CMC_OUTPUT_SCREENED;
    free(decode(f.m, SEQS, CMC_WANT_SAMPLING));
    assert_non_null(f.m->pack.strips);
    assert_true(f.m->layers[0].wq.packed && !f.m->head.packed && f.m->screen.panels);
    close_model(&f);
}

/* A narrow model has its strips from the start; then a sequence has the same bits in any company. */
static void test_narrow(void **state) {
    (void)state;
    const tiny_spec spec = {.arch = "llama", .type = CMC_Q8_0, .tied = true};
    fixture f = open_model(&spec, 2, false);
    const size_t v = (size_t)cmc_model_n_vocab(f.m);
    assert_true((f.m->pack.strips != NULL) == (f.rt->packed != NULL));
    assert_true(!f.rt->packed || f.m->head.packed_from == 1);
    float *all = decode(f.m, SEQS, CMC_WANT_LOGITS);
    for (size_t n = 1; n < SEQS && f.rt->packed; n++) {
        float *some = decode(f.m, n, CMC_WANT_LOGITS);
        for (size_t step = 0; step < STEPS; step++)
            assert_memory_equal(some + step * n * v, all + step * SEQS * v, n * v * sizeof *all);
        free(some);
    }
    free(all);
    close_model(&f);
    f = open_model(&spec, 2, true);
    assert_null(f.m->pack.strips);
    close_model(&f);
}

/* A packed output matrix is not screened for as many sequences as take it; for fewer it is. */
static void test_output(void **state) {
    (void)state;
    fixture f = open_model(&models[0], 2, false);
    free(decode(f.m, SEQS, CMC_WANT_LOGITS));
    for (size_t n = 1; n <= SEQS && f.rt->packed; n++) {
        f.rt->output = CMC_OUTPUT_FULL;
        float *full = decode(f.m, n, CMC_WANT_SAMPLING);
        f.rt->output = CMC_OUTPUT_SCREENED;
        float *some = decode(f.m, n, CMC_WANT_SAMPLING);
        assert_true((memcmp(full, some, STEPS * n * (size_t)cmc_model_n_vocab(f.m) * sizeof *full) == 0) == (n >= MATMUL_TILE_MIN_COLS));
        free(full);
        free(some);
    }
    close_model(&f);
}

int main(void) {
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_bits), cmocka_unit_test(test_where), cmocka_unit_test(test_narrow), cmocka_unit_test(test_output)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
