/* The trainable language model: the same numbers as the runtime's exact mode for every family, and every gradient, of
 * all weights and of an adapter's, against finite differences. */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

#include "base/mem.h"
#include "tests/lm_scene.h"
#include "tests/slope.h"
#include "tinylm/rowmath.h"

/* ------------------------------------------------------------------------------------------------ fixture */

enum { TOKENS = LM_SCENE_TOKENS, TARGETS = LM_SCENE_TARGETS };

/* Every kind of tensor and every turn of the graph: shared key heads, values of another width, tied and untied output,
 * biases, norms of q and k, norms after branches, windows that end inside and outside a block of scores. */
static const struct {
    const char *name;
    tiny_spec spec;
} families[] = {
    {"llama", {.arch = "llama", .n_embd = 16, .n_ff = 24, .seed = 3}},
    {"llama, wide heads, factors", {.arch = "llama", .n_embd = 16, .n_ff = 24, .head_k = 6, .head_v = 10,
                                    .n_head_kv = 1, .rope_freqs = true, .rope_scale = 2, .tied = true,
                                    .o_bias = true, .seed = 4}},
    {"qwen2", {.arch = "qwen2", .n_embd = 16, .n_ff = 24, .o_bias = true, .seed = 5}},
    {"qwen3", {.arch = "qwen3", .n_embd = 16, .n_ff = 24, .head_k = 8, .head_v = 8, .tied = true, .seed = 6}},
    {"gemma3", {.arch = "gemma3", .n_embd = 16, .n_ff = 24, .n_layer = 3, .n_head_kv = 1, .head_k = 8, .head_v = 8,
                .rope_base = 5000, .rope_base_swa = 700, .rope_scale = 4, .swa_window = 7, .swa_period = 3,
                .tied = true, .seed = 7}},
    {"gemma3, long window", {.arch = "gemma3", .n_embd = 16, .n_ff = 24, .swa_window = 66, .swa_period = 2, .seed = 8}},
};
enum { FAMILIES = sizeof families / sizeof *families };

typedef lm_scene rig;

static void rig_open(rig *r, const tiny_spec *spec, int threads, bool exact, const lm_trainable *lora) {
    lm_scene_model(r, spec, threads, exact);
    lm_scene_net(r, lora, TOKENS, TARGETS);
    if (r->l.lora.n) {
        uint64_t rng = 21;
        lm_lora_start(&r->l, 1, r->n.trained);
        for (size_t i = 0; i < r->l.lora.n; i++) /* B is not zero here: every term of the gradient matters */
            r->n.trained[i] += (float)(0.6 * (uniform(&rng) - 0.5));
    }
}

/* ---------------------------------------------------------------------------------------------- the graph */

/* Largest difference of the logits of a sequence's tokens, runtime against trainable, over the largest logit. */
static double compare_logits(cmc_model *m, const lm_net *n, const int32_t *ids, size_t n_ids) {
    cmc_error err = {0};
    cmc_session *s;
    size_t v = (size_t)cmc_model_n_vocab(m), e = (size_t)cmc_model_n_embd(m);
    float *want = cmc_alloc(n_ids * v, sizeof *want), *got = cmc_alloc(n_ids * v, sizeof *got);
    assert_int_equal(cmc_session_new(m, 0, &s, &err), CMC_OK);
    assert_int_equal(cmc_session_sync(s, ids, n_ids, &err), CMC_OK);
    cmc_eval_item item = {s, CMC_WANT_LOGITS, n_ids, want};
    assert_int_equal(cmc_eval(m, &item, 1, &err), CMC_OK);
    blas_gemm(NULL, false, false, n_ids, v, e, 1.0f, n->hidden, e, n->w + n->l->head, e, 0.0f, got, v);
    double worst = 0.0, largest = 0.0;   /* a loop for each: of both in one gcc 12 makes an internal error on ARM */
    for (size_t i = 0; i < n_ids * v; i++)
        worst = fmax(worst, fabs((double)got[i] - (double)want[i]));
    for (size_t i = 0; i < n_ids * v; i++)
        largest = fmax(largest, fabs((double)want[i]));
    cmc_session_free(s);
    free(want);
    free(got);
    return worst / largest;
}

static void test_graph(void **state) {
    (void)state;
    for (size_t k = 0; k < FAMILIES; k++) {
        rig r;
        lm_trainable none = {0};
        rig_open(&r, &families[k].spec, 2, true, &none);
        size_t start[2] = {0, 80}, rows[80];
        for (size_t i = 0; i < 80; i++)
            rows[i] = i;
        net_batch b = {.ids = r.ids, .start = start, .rows = rows, .targets = r.ids, .n_tokens = 80, .n_seqs = 1,
                       .n_targets = 80};
        lm_forward(&r.n, &b);
        double off = compare_logits(r.m, &r.n, r.ids, 80);
        if (!(off < 2e-5))
            fail_msg("%s: logits differ by %g of the largest", families[k].name, off);
        lm_scene_close(&r);
    }
}

/* A batch's sequences do not see each other, and each sees what it would alone. */
static void test_packing(void **state) {
    (void)state;
    for (size_t k = 0; k < FAMILIES; k++) {
        rig r;
        lm_trainable none = {0};
        rig_open(&r, &families[k].spec, 2, true, &none);
        size_t e = (size_t)r.l.p.n_embd, first = 14, start[2] = {0, TOKENS - first}, row = TOKENS - first - 1;
        lm_forward(&r.n, &r.b);
        float *want = cmc_alloc(e, sizeof *want);
        memcpy(want, r.n.hidden + (TARGETS - 1) * e, e * sizeof *want);
        net_batch b = {.ids = r.ids + first, .start = start, .rows = &row, .targets = r.ids, .n_tokens = TOKENS - first,
                       .n_seqs = 1, .n_targets = 1};
        lm_forward(&r.n, &b);
        assert_memory_equal(want, r.n.hidden, e * sizeof *want);
        free(want);
        lm_scene_close(&r);
    }
}

static void test_graph_smollm2(void **state) {
    (void)state;
    const char *path = getenv("CMC_TEST_SMOLLM2");
    if (!path) {
        printf("SKIP test_graph_smollm2: CMC_TEST_SMOLLM2 is not set\n");
        return;
    }
    enum { N = 24 };
    cmc_error err = {0};
    cmc_runtime_opts ro = {.threads = 2, .exact = true};
    cmc_runtime *rt;
    cmc_model *m;
    lm_layout l;
    lm_net n;
    lm_trainable none = {0};
    cmc_ids ids = {0};
    static const char text[] = "The quick brown fox jumps over the lazy dog, said the old man, and went on along the "
                               "road towards the next village.";
    assert_int_equal(cmc_runtime_open(&ro, &rt, &err), CMC_OK);
    assert_int_equal(cmc_model_open(rt, path, &m, &err), CMC_OK);
    assert_int_equal(lm_layout_init(m, &none, &l, &err), CMC_OK);
    assert_int_equal(lm_new(rt, &l, N, N, &n, &err), CMC_OK);
    lm_load(&l, m, n.w);
    assert_int_equal(cmc_tokenize(cmc_model_vocab(m), text, sizeof text - 1, 0, &ids, &err), CMC_OK);
    assert_true(ids.n >= N);
    size_t start[2] = {0, N}, rows[N];
    for (size_t i = 0; i < N; i++)
        rows[i] = i;
    net_batch b = {.ids = ids.v, .start = start, .rows = rows, .targets = ids.v, .n_tokens = N, .n_seqs = 1,
                   .n_targets = N};
    lm_forward(&n, &b);
    double off = compare_logits(m, &n, ids.v, N);
    if (!(off < 1e-4))
        fail_msg("logits differ by %g of the largest", off);
    cmc_ids_free(&ids);
    lm_free(&n);
    lm_layout_free(&l);
    cmc_model_free(m);
    cmc_runtime_free(rt);
}

/* --------------------------------------------------------------------------------------------- gradients */

static void check_gradients(size_t family, int threads, const lm_trainable *lora) {
    rig r;
    uint64_t rng = 5;
    rig_open(&r, &families[family].spec, threads, false, lora);
    const params *p = lm_trained(&r.l);
    double a = lm_scene_grad(&r);
    float *grad = cmc_alloc(p->n_trained, sizeof *grad);
    memcpy(grad, r.n.grad, p->n_trained * sizeof *grad);
    assert_true(fabs(a - lm_scene_loss(&r)) < 1e-5);
    slope_check c = {.loss = lm_scene_loss, .scene = &r, .h = 0.02, .least = 1e-4, .rel = 3e-3, .abs = 3e-4,
                     .directions = 7};
    for (size_t i = 0; i < p->n_tensors; i++) {
        const params_tensor *t = &p->tensors[i];
        char what[120];
        if (!t->trained)
            continue;
        snprintf(what, sizeof what, "%s: %s", families[family].name, t->name);
        slope_assert(&c, what, r.n.trained + t->off, grad + t->off, t->n_out * t->n_in, &rng);
    }
    free(grad);
    lm_scene_close(&r);
}

static void test_gradients_full(void **state) {
    (void)state;
    lm_trainable none = {0};
    for (size_t k = 0; k < FAMILIES; k++)
        check_gradients(k, 2, &none);
    check_gradients(1, 3, &none);
}

static void test_gradients_lora(void **state) {
    (void)state;
    lm_trainable all = {.rank = 3, .alpha = 5}, some = {.rank = 1, .alpha = -2, .targets = "v,down"};
    for (size_t k = 0; k < FAMILIES; k++)
        check_gradients(k, 2, &all);
    check_gradients(0, 3, &some);
}

/* Where some of the model is trained: the same gradients as where all of it is, to the bit, and none beside them. */
static void check_part(size_t family, const lm_trainable *what, size_t n_trained, size_t lowest) {
    rig whole, part;
    lm_trainable all = {0};
    rig_open(&whole, &families[family].spec, 2, false, &all);
    rig_open(&part, &families[family].spec, 2, false, what);
    assert_true(lm_scene_grad(&whole) == lm_scene_grad(&part));
    const params *p = &part.l.base;
    size_t tensors = 0, floats = 0;
    assert_int_equal(whole.l.base.n_trained, whole.l.base.n);
    assert_int_equal(p->n, whole.l.base.n);
    for (size_t i = 0; i < p->n_tensors; i++) {
        const params_tensor *t = &p->tensors[i], *same = lm_find(&whole.l.base, t->name, strlen(t->name));
        size_t n = t->n_out * t->n_in;
        assert_memory_equal(part.n.w + t->off, whole.n.w + same->off, n * sizeof(float));
        assert_true(t->trained ? t->off + n <= p->n_trained : t->off >= p->n_trained);
        if (t->trained)
            assert_memory_equal(part.n.grad + t->off, whole.n.grad + same->off, n * sizeof(float));
        tensors += t->trained;
        floats += t->trained ? n : 0;
    }
    assert_int_equal(tensors, n_trained);
    assert_int_equal(floats, p->n_trained);
    assert_int_equal(p->lowest, lowest);
    lm_scene_close(&whole);
    lm_scene_close(&part);
}

static void test_gradients_part(void **state) {
    (void)state;
    static const struct {
        size_t family;
        lm_trainable what;
        size_t tensors, lowest;
    } cases[] = {
        {0, {.layers = "1-1", .modules = "up,down"}, 2, 4}, {0, {.layers = "50-100%"}, 9, 3},
        {0, {.modules = "q,v"}, 4, 1},                      {0, {.modules = "output"}, 2, 5},
        {0, {.modules = "embeddings"}, 1, 0},               {2, {.layers = "0", .modules = "k,o"}, 4, 1},
        {3, {.modules = "output,norms"}, 10, 0},            {4, {.layers = "2,0", .modules = "gate,norms"}, 14, 1},
        {4, {.layers = "1-2", .modules = "down"}, 2, 4},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        check_part(cases[i].family, &cases[i].what, cases[i].tensors, cases[i].lowest);
        check_gradients(cases[i].family, 2, &cases[i].what);
    }
    lm_trainable adapter = {.rank = 2, .alpha = 4, .layers = "1-1"};
    check_gradients(0, 2, &adapter);
}

/* An adapter whose B is zero changes no logit at all, and neither does a gradient touch what is frozen. */
static void test_lora_start(void **state) {
    (void)state;
    rig full, lora;
    lm_trainable none = {0}, eight = {.rank = 8, .alpha = 16};
    rig_open(&full, &families[2].spec, 2, false, &none);
    rig_open(&lora, &families[2].spec, 2, false, &eight);
    lm_lora_start(&lora.l, 1, lora.n.trained);
    assert_true(lm_scene_loss(&full) == lm_scene_loss(&lora));
    size_t n = lora.l.base.n;
    float *keep = cmc_alloc(n, sizeof *keep);
    memcpy(keep, lora.n.w, n * sizeof *keep);
    lm_scene_grad(&lora);
    assert_memory_equal(keep, lora.n.w, n * sizeof *keep);
    assert_int_equal(lora.l.lora.n_tensors, 2 * 7 * 2); /* two matrices for each of seven in two layers */
    free(keep);
    lm_scene_close(&full);
    lm_scene_close(&lora);
}

static void test_targets(void **state) {
    (void)state;
    static const char *const bad[] = {"", "w", "q,,k", "q k", "gates", "attn_q"};
    rig r;
    lm_trainable none = {0};
    lm_layout l;
    cmc_error err = {0};
    rig_open(&r, &families[0].spec, 1, true, &none);
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        lm_trainable lora = {.rank = 4, .alpha = 8, .targets = bad[i]};
        assert_int_equal(lm_layout_init(r.m, &lora, &l, &err), CMC_E_ARG);
    }
    lm_trainable lora = {.rank = 4, .alpha = 8, .targets = "q,v"};
    assert_int_equal(lm_layout_init(r.m, &lora, &l, &err), CMC_OK);
    assert_int_equal(l.lora.n_tensors, 2 * 2 * 2);
    assert_non_null(lm_find(&l.lora, "blk.1.attn_v.weight.lora_b", 26));
    assert_null(lm_find(&l.lora, "blk.1.attn_k.weight.lora_b", 26));
    lm_layout_free(&l);
    lora.layers = "1-1";
    assert_int_equal(lm_layout_init(r.m, &lora, &l, &err), CMC_OK);
    assert_int_equal(l.lora.n_tensors, 2 * 2);
    assert_int_equal(l.lora.lowest, 3);
    assert_null(lm_find(&l.lora, "blk.0.attn_v.weight.lora_b", 26));
    lm_layout_free(&l);
    lora.modules = "q";
    assert_int_equal(lm_layout_init(r.m, &lora, &l, &err), CMC_E_ARG);
    lm_scene_close(&r);
}

/* The gated GELU of the trainer against its definition in double, past the vector's width and in the tails. */
static void test_geglu(void **state) {
    (void)state;
    float gate[37], up[37], act[37], dact[37], g[37], u[37];
    for (size_t i = 0; i < 37; i++) {
        gate[i] = g[i] = (float)i * 0.6f - 11.0f;
        up[i] = u[i] = 0.3f + (float)(i % 5);
        dact[i] = 0.7f - 0.05f * (float)i;
    }
    row_geglu(gate, up, act, 37);
    row_geglu_grad(g, u, dact, 37);
    for (size_t i = 0; i < 37; i++) {
        double x = (double)gate[i], k = sqrt(2.0 / 3.14159265358979323846), v = k * (x + 0.044715 * x * x * x);
        double th = tanh(v), gelu = 0.5 * x * (1.0 + th);
        double dgelu = 0.5 * (1.0 + th) + 0.5 * x * (1.0 - th * th) * k * (1.0 + 3.0 * 0.044715 * x * x);
        assert_true(fabs((double)act[i] - gelu * (double)up[i]) < 1e-5 * (1.0 + fabs(gelu)));
        assert_true(fabs((double)g[i] - (double)dact[i] * (double)up[i] * dgelu) < 1e-5);
        assert_true(fabs((double)u[i] - (double)dact[i] * gelu) < 1e-5 * (1.0 + fabs(gelu)));
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_graph),          cmocka_unit_test(test_packing),
        cmocka_unit_test(test_graph_smollm2),  cmocka_unit_test(test_gradients_full),
        cmocka_unit_test(test_gradients_lora), cmocka_unit_test(test_lora_start),
        cmocka_unit_test(test_targets),        cmocka_unit_test(test_geglu),
        cmocka_unit_test(test_gradients_part),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
