/* Models between two of one shape: every weight on the line, whatever the two are stored in. */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

#include "base/mem.h"
#include "runtime/quant.h"
#include "tests/tiny.h"
#include "cmc.h"

typedef struct rig {
    char *dir, *a, *b, *out;
    cmc_runtime *rt;
    cmc_model *ma, *mb;
} rig;

static char *path_of(const rig *r, const char *name) {
    const char *p = tiny_path(r->dir, name);
    return cmc_strndup(p, strlen(p));
}

static void rig_open(rig *r, const tiny_spec *a, const tiny_spec *b) {
    cmc_error err = {0};
    cmc_runtime_opts ro = {.threads = 1};
    r->dir = tiny_dir_new();
    r->a = path_of(r, "a.gguf");
    r->b = path_of(r, "b.gguf");
    r->out = path_of(r, "out.gguf");
    assert_int_equal(tiny_write(a, r->a, &err), CMC_OK);
    assert_int_equal(tiny_write(b, r->b, &err), CMC_OK);
    assert_int_equal(cmc_runtime_open(&ro, &r->rt, &err), CMC_OK);
    assert_int_equal(cmc_model_open(r->rt, r->a, &r->ma, &err), CMC_OK);
    assert_int_equal(cmc_model_open(r->rt, r->b, &r->mb, &err), CMC_OK);
}

static void rig_close(rig *r) {
    cmc_model_free(r->ma);
    cmc_model_free(r->mb);
    cmc_runtime_free(r->rt);
    tiny_dir_free(r->dir);
    free(r->a);
    free(r->b);
    free(r->out);
}

/* The file's weights against (1 - share) a + share b; the largest difference. */
static double largest_off(const rig *r, double share) {
    cmc_error err = {0};
    gguf *g[3];
    const char *const path[3] = {r->a, r->b, r->out};
    double off = 0.0;
    for (int i = 0; i < 3; i++)
        assert_int_equal(gguf_open(path[i], &g[i], &err), CMC_OK);
    assert_int_equal(g[0]->n_tensors, g[2]->n_tensors);
    for (size_t i = 0; i < g[0]->n_tensors; i++) {
        char *name = cmc_strndup(g[0]->tensors[i].name.s, g[0]->tensors[i].name.n);
        size_t width = (size_t)g[0]->tensors[i].ne[0], rows = (size_t)g[0]->tensors[i].ne[1];
        float *row[3];
        for (int k = 0; k < 3; k++)
            row[k] = cmc_alloc(width, sizeof(float));
        for (size_t j = 0; j < rows; j++) {
            for (int k = 0; k < 3; k++) {
                const gguf_tensor *t = gguf_find_tensor(g[k], name);
                assert_non_null(t);
                quant_decode_row(t->type, t->data + j * cmc_type_row_bytes(t->type, width), row[k], width);
            }
            for (size_t c = 0; c < width; c++) {
                double want = (1.0 - share) * (double)row[0][c] + share * (double)row[1][c];
                off = fmax(off, fabs(want - (double)row[2][c]));
            }
        }
        for (int k = 0; k < 3; k++)
            free(row[k]);
        free(name);
    }
    for (int i = 0; i < 3; i++)
        gguf_free(g[i]);
    return off;
}

static void test_line(void **state) {
    (void)state;
    static const uint32_t types[][2] = {{CMC_F32, CMC_F32}, {CMC_Q4_1, CMC_F32}, {CMC_F16, CMC_Q8_0}};
    for (size_t i = 0; i < 3; i++) {
        rig r;
        cmc_error err = {0};
        tiny_spec a = {.arch = "gemma3", .type = types[i][0], .seed = 1}, b = {.arch = "gemma3", .type = types[i][1], .seed = 2};
        rig_open(&r, &a, &b);
        for (int k = 0; k <= 4; k++) {
            double share = 0.25 * k;
            if (cmc_model_save_mix(r.ma, r.mb, share, r.out, "f32", &err) != CMC_OK)
                fail_msg("%s", err.message);
            double off = largest_off(&r, share);
            if (!(k % 4 ? off < 1e-6 : off == 0.0))
                fail_msg("share %g: off by %g", share, off);
        }
        assert_true(largest_off(&r, 0.5) > 1e-3);
        cmc_model *m;
        assert_int_equal(cmc_model_open(r.rt, r.out, &m, &err), CMC_OK);
        assert_true(cmc_vocab_equal(cmc_model_vocab(m), cmc_model_vocab(r.ma)));
        cmc_model_free(m);
        rig_close(&r);
    }
}

static void test_refusals(void **state) {
    (void)state;
    static const tiny_spec a = {.arch = "llama", .seed = 1};
    static const struct {
        tiny_spec b;
        double share;
        const char *says;
    } cases[] = {
        {{.arch = "llama", .seed = 2}, -0.1, "a share of"},
        {{.arch = "llama", .seed = 2}, 1.5, "a share of"},
        {{.arch = "llama", .seed = 2}, NAN, "a share of"},
        {{.arch = "llama", .n_ff = 64}, 0.5, "has another shape"},
        {{.arch = "llama", .n_layer = 3}, 0.5, "has no tensor blk.2."},
        {{.arch = "llama", .n_layer = 1}, 0.5, "has no tensor blk.1."},
        {{.arch = "llama", .tied = true}, 0.5, "has no tensor output.weight"},
        {{.arch = "llama", .n_learnt = 50}, 0.5, "its vocabulary is not"},
        {{.arch = "qwen2", .pre = "smollm"}, 0.5, "its architecture is not"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        rig r;
        cmc_error err = {0};
        rig_open(&r, &a, &cases[i].b);
        assert_int_equal(cmc_model_save_mix(r.ma, r.mb, cases[i].share, r.out, "f32", &err), CMC_E_ARG);
        if (!strstr(err.message, cases[i].says))
            fail_msg("case %zu: %s", i, err.message);
        assert_int_equal(cmc_model_save_mix(r.ma, r.mb, 0.5, r.out, "q5_1", &err), CMC_E_ARG);
        rig_close(&r);
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_line), cmocka_unit_test(test_refusals)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
