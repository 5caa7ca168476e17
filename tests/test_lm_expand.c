/* Expanded models as something to train: at the start the base's numbers, afterwards the runtime's, and every gradient, of
 * blocks, merges and alignment losses, against finite differences. */
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
#include "tinylm/lm_save.h"

/* ------------------------------------------------------------------------------------------------ fixture */

enum { TOKENS = 5 + 9 + 30, TARGETS = 20 };

/* Shared key heads, biases, norms of q and k, norms after branches, windows. */
static const tiny_spec families[] = {
    {.arch = "llama", .n_embd = 16, .n_ff = 24, .n_layer = 4, .seed = 3},
    {.arch = "qwen2", .n_embd = 16, .n_ff = 24, .n_layer = 4, .o_bias = true, .tied = true, .seed = 5},
    {.arch = "gemma3", .n_embd = 16, .n_ff = 24, .n_layer = 4, .n_head_kv = 1, .head_k = 8, .head_v = 8, .swa_window = 7,
     .swa_period = 2, .tied = true, .seed = 7},
};
enum { FAMILIES = sizeof families / sizeof *families };

typedef struct way {
    expand_kind kind;
    expand_merge merge;
    int32_t blocks;
    bool learn, unfrozen;
    alignment align;
} way;

static const way ways[] = {
    {EXPAND_CONCAT, EXPAND_LERP, 2, true, false, {ALIGN_NONE, false, false}},
    {EXPAND_CONCAT, EXPAND_LERP, 1, false, false, {ALIGN_MSE, false, false}},
    {EXPAND_CONCAT, EXPAND_LERP, 2, true, false, {ALIGN_MSE, true, true}},
    {EXPAND_CONCAT, EXPAND_LERP, 4, false, false, {ALIGN_RELATIVE, false, true}},
    {EXPAND_CONCAT, EXPAND_DLERP, 2, true, false, {ALIGN_COSINE, false, true}},
    {EXPAND_CONCAT, EXPAND_DLERP, 1, false, false, {ALIGN_RELATIVE, true, false}},
    {EXPAND_CONCAT, EXPAND_DLERPIN, 4, true, false, {ALIGN_COSINE, true, true}},
    {EXPAND_CONCAT, EXPAND_SLERP, 2, true, false, {ALIGN_MSE, false, true}},
    {EXPAND_CONCAT, EXPAND_SLERP, 4, true, false, {ALIGN_COSINE, true, true}},
    {EXPAND_STACK, EXPAND_LERP, 2, false, false, {ALIGN_NONE, false, false}},
    {EXPAND_HYBRID, EXPAND_DLERPIN, 4, false, false, {ALIGN_RELATIVE, true, true}},
    {EXPAND_HYBRID, EXPAND_SLERP, 2, true, false, {ALIGN_NONE, false, false}},
    {EXPAND_CONCAT, EXPAND_DLERP, 2, false, true, {ALIGN_MSE, true, true}},
    {EXPAND_HYBRID, EXPAND_LERP, 2, true, true, {ALIGN_RELATIVE, false, true}},
};
enum { WAYS = sizeof ways / sizeof *ways };

typedef struct rig {
    lm_scene s;
    expand_spec spec;
} rig;

/* w NULL: the base as it is. */
static void rig_open(rig *r, const tiny_spec *spec, const way *w, int threads, bool exact) {
    cmc_error err = {0};
    r->spec = (expand_spec){0};
    lm_scene_model(&r->s, spec, threads, exact);
    if (w && expand_plan(w->kind, w->merge, w->blocks, r->s.m->p.n_layer, &r->spec, &err) != CMC_OK)
        fail_msg("%s", err.message);
    lm_trainable what = {.expand = w ? &r->spec : NULL, .learn_share = w && w->learn, .unfrozen = w && w->unfrozen};
    lm_scene_net(&r->s, &what, TOKENS, TARGETS);
    lm_expand_copy(&r->s.l, r->s.n.w);
    lm_expand_gates(&r->s.l, 0.4, 11, r->s.n.w);
    if (w) {
        r->s.n.align = w->align;
        r->s.n.align_weight = w->align.kind != ALIGN_NONE ? 2.0 / TOKENS : 0.0;
    }
}

static void rig_close(rig *r) {
    lm_scene_close(&r->s);
    expand_spec_free(&r->spec);
}

/* As after some training: nothing is at its start, so that every term of the gradients matters. */
static void rig_train(rig *r) {
    uint64_t rng = 21;
    for (size_t i = 0; i < r->s.l.base.n_trained; i++)
        r->s.n.w[i] += (float)(0.3 * (uniform(&rng) - 0.5));
}

static double rig_loss(void *rig_) {
    rig *r = rig_;
    double nll = lm_scene_loss(&r->s);
    return nll + lm_align_loss(&r->s.n);
}

static double rig_grad(rig *r) {
    double nll = lm_scene_grad(&r->s);
    return nll + lm_align_loss(&r->s.n);
}

/* ---------------------------------------------------------------------------------------------- the graph */

/* Before the first step an expanded model gives the base's hidden states, whatever it merges by. */
static void test_start(void **state) {
    (void)state;
    for (size_t f = 0; f < FAMILIES; f++)
        for (size_t k = 0; k < WAYS; k++) {
            rig base, r;
            rig_open(&base, &families[f], NULL, 2, false);
            rig_open(&r, &families[f], &ways[k], 2, false);
            double a = rig_loss(&base), b = rig_loss(&r), off = 0.0;
            size_t n = TARGETS * (size_t)r.s.l.p.n_embd;
            for (size_t i = 0; i < n; i++)
                off = fmax(off, fabs((double)r.s.n.hidden[i] - (double)base.s.n.hidden[i]));
            if (!(off <= 1e-5 && fabs(a - b) <= 1e-5))
                fail_msg("family %zu, way %zu: states differ by %g, losses by %g", f, k, off, fabs(a - b));
            assert_true(ways[k].align.kind == ALIGN_NONE || lm_align_loss(&r.s.n) == 0.0);
            rig_close(&base);
            rig_close(&r);
        }
}

/* What is saved is what was trained: the runtime gives the trainer's numbers, and with the blocks left out the base's. */
static void test_saved(void **state) {
    (void)state;
    for (size_t f = 0; f < FAMILIES; f++)
        for (size_t k = 0; k < WAYS; k++) {
            rig r;
            cmc_error err = {0};
            cmc_model *m;
            cmc_session *s;
            rig_open(&r, &families[f], &ways[k], 2, true);
            rig_train(&r);
            const char *path = tiny_path(r.s.dir, "expanded.gguf");
            assert_int_equal(lm_save_expanded(path, &r.s.l, r.s.m, &r.spec, r.s.n.w, r.s.n.trained, CMC_F32, NULL, &err), CMC_OK);
            if (cmc_model_open(r.s.rt, path, &m, &err) != CMC_OK)
                fail_msg("%s", err.message);
            size_t e = (size_t)r.s.l.p.n_embd, first = r.s.start[2], start[2] = {0, TOKENS - first}, rows[TOKENS];
            for (size_t i = 0; i < TOKENS; i++)
                rows[i] = i;
            net_batch b = {.ids = r.s.ids + first, .start = start, .rows = rows, .targets = r.s.ids, .n_tokens = start[1],
                           .n_seqs = 1, .n_targets = start[1]};
            lm_forward(&r.s.n, &b);
            float *got = cmc_alloc(start[1] * e, sizeof *got);
            assert_int_equal(cmc_session_new(m, 0, &s, &err), CMC_OK);
            assert_int_equal(cmc_session_sync(s, b.ids, start[1], &err), CMC_OK);
            cmc_eval_item item = {s, CMC_WANT_HIDDEN, start[1], got};
            assert_int_equal(cmc_eval(m, &item, 1, &err), CMC_OK);
            double off = 0.0;
            for (size_t i = 0; i < start[1] * e; i++)
                off = fmax(off, fabs((double)got[i] - (double)r.s.n.hidden[i]));
            if (!(off < 1e-4))
                fail_msg("family %zu, way %zu: states differ by %g", f, k, off);
            free(got);
            cmc_session_free(s);
            cmc_model_free(m);
            rig_close(&r);
        }
}

/* --------------------------------------------------------------------------------------------- gradients */

static void check_gradients(size_t family, const way *w, int threads) {
    rig r;
    uint64_t rng = 5;
    rig_open(&r, &families[family], w, threads, false);
    rig_train(&r);
    const params *p = &r.s.l.base;
    double a = rig_grad(&r);
    float *grad = cmc_alloc(p->n_trained, sizeof *grad);
    memcpy(grad, r.s.n.grad, p->n_trained * sizeof *grad);
    assert_true(fabs(a - rig_loss(&r)) < 1e-5);
    slope_check c = {.loss = rig_loss, .scene = &r, .least = 1e-5, .abs = 3e-4, .directions = 5};
    size_t learnt = 0;
    for (size_t i = 0; i < p->n_tensors; i++) {
        const params_tensor *t = &p->tensors[i];
        char what[120];
        snprintf(what, sizeof what, "family %zu, way %d: %s", family, (int)(w - ways), t->name);
        c.h = t->n_in == 1 ? 0.2 : 0.02; /* one number, which the loss hangs on so little that its rounding shows */
        c.rel = t->n_in == 1 ? 2e-2 : 4e-3;
        if (t->trained)
            slope_assert(&c, what, r.s.n.trained + t->off, grad + t->off, t->n_out * t->n_in, &rng);
        learnt += t->trained;
    }
    assert_true(learnt > 0);
    free(grad);
    rig_close(&r);
}

static void test_gradients(void **state) {
    (void)state;
    for (size_t k = 0; k < WAYS; k++) {
        check_gradients(0, &ways[k], 2);
        if (k % 3 == 0)
            check_gradients(1 + k / 3 % 2, &ways[k], 3);
    }
}

/* Where layers only teach, the last block's gradients are the same as where they learn too; earlier blocks', which move what
 * later ones are held to, are not. */
static void test_teacher(void **state) {
    (void)state;
    rig through, taught;
    way w = {EXPAND_CONCAT, EXPAND_LERP, 2, true, false, {ALIGN_MSE, false, true}};
    rig_open(&through, &families[0], &w, 2, false);
    w.align.through = false;
    rig_open(&taught, &families[0], &w, 2, false);
    rig_train(&through);
    rig_train(&taught);
    assert_true(rig_grad(&through) == rig_grad(&taught));
    const params *p = &taught.s.l.base;
    size_t same = 0, other = 0;
    for (size_t i = 0; i < p->n_tensors; i++) {
        const params_tensor *t = &p->tensors[i];
        if (!t->trained)
            continue;
        bool equal = memcmp(through.s.n.grad + t->off, taught.s.n.grad + t->off, t->n_out * t->n_in * sizeof(float)) == 0;
        assert_true(equal == (strncmp(t->name, "blk.3.", 6) == 0));
        same += equal;
        other += !equal;
    }
    assert_true(same > 0 && other > 0);
    rig_close(&through);
    rig_close(&taught);
}

/* Merges and distances by themselves, in double: the gradients of p and e, which the whole model sees only in sums. */
typedef struct pair { expand_gate g; alignment al; float p[6], e[6], x[6], dout[6]; double weight; } pair;

static double pair_loss(const pair *q) {
    float out[6];
    double sum = 0.0, a = (double)expand_share(&q->g, q->x, q->p, q->e, 6);
    memcpy(out, q->p, sizeof out);
    expand_mix(q->g.merge, (float)a, out, q->e, 6);
    for (size_t i = 0; i < 6; i++)
        sum += (double)q->dout[i] * (double)out[i];
    return sum + q->weight * (q->al.by_share ? a : 1.0) * align_distance(q->al.kind, q->p, q->e, 6);
}

static double pair_slope(const pair *q, bool of_p, size_t i) {
    pair hi = *q, lo = *q;
    (of_p ? hi.p : hi.e)[i] += 0.005f;
    (of_p ? lo.p : lo.e)[i] -= 0.005f;
    return (pair_loss(&hi) - pair_loss(&lo)) / ((double)(of_p ? hi.p : hi.e)[i] - (double)(of_p ? lo.p : lo.e)[i]);
}

static void test_pairs(void **state) {
    (void)state;
    uint64_t rng = 3;
    float w[12];
    for (int round = 0; round < 400; round++) {
        pair q = {.g = {(expand_merge)(round % 4), (float)(2.0 * uniform(&rng) - 1.0), w},
                  .al = {(align_kind)(round / 4 % 4), round / 16 % 2 == 1, true}, .weight = 1.5};
        for (size_t i = 0; i < 12; i++)
            w[i] = (float)(uniform(&rng) - 0.5);
        for (size_t i = 0; i < 6; i++) {
            q.p[i] = (float)(2.0 * uniform(&rng) - 1.0);
            q.e[i] = (round % 3 == 0 ? q.p[i] : 0.0f) + (float)(2.0 * uniform(&rng) - 1.0); /* near, or at any angle */
            q.x[i] = (float)(uniform(&rng) - 0.5);
            q.dout[i] = (float)(uniform(&rng) - 0.5);
        }
        float dp[6], de[6], a = expand_share(&q.g, q.x, q.p, q.e, 6);
        merge_back(&q.g, a, q.p, q.e, q.dout, &q.al, q.weight, dp, de, 6);
        for (size_t i = 0; i < 12; i++) {
            double want = pair_slope(&q, i < 6, i % 6), got = (double)(i < 6 ? dp[i] : de[i % 6]);
            if (!(fabs(got - want) <= 2e-3 * (1.0 + fabs(want))))
                fail_msg("round %d, %c[%zu]: slope %g, gradient %g", round, i < 6 ? 'p' : 'e', i % 6, want, got);
        }
    }
}

/* Nothing but blocks and merges is trained, unless the model is not frozen, and f only where it is to be. */
static void test_what_is_trained(void **state) {
    (void)state;
    cmc_error err = {0};
    for (size_t k = 0; k < WAYS; k++) {
        rig r;
        rig_open(&r, &families[2], &ways[k], 1, false);
        const params *p = &r.s.l.base;
        for (size_t i = 0; i < p->n_tensors; i++) {
            const params_tensor *t = &p->tensors[i];
            bool block = strstr(t->name, "cmc_expand."), gate = strstr(t->name, "cmc_merge.weight");
            bool f = strstr(t->name, "cmc_merge.bias"), own = !block && !gate && !f;
            assert_true(t->trained == (block || gate || (f && ways[k].learn) || (own && ways[k].unfrozen)));
        }
        assert_int_equal(r.s.l.n_merges, ways[k].kind == EXPAND_STACK ? 0 : ways[k].kind == EXPAND_CONCAT ? ways[k].blocks
                                                                                                    : ways[k].blocks / 2);
        rig_close(&r);
    }
    rig r;
    lm_layout l;
    rig_open(&r, &families[0], NULL, 1, false);
    assert_int_equal(expand_plan(EXPAND_CONCAT, EXPAND_LERP, 2, 4, &r.spec, &err), CMC_OK);
    lm_trainable bad[] = {{.expand = &r.spec, .rank = 2, .alpha = 4}, {.expand = &r.spec, .layers = "0"},
                          {.expand = &r.spec, .modules = "up"}};
    for (size_t i = 0; i < 3; i++)
        assert_int_equal(lm_layout_init(r.s.m, &bad[i], &l, &err), CMC_E_ARG);
    rig_close(&r);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_start),   cmocka_unit_test(test_saved), cmocka_unit_test(test_gradients),
        cmocka_unit_test(test_teacher), cmocka_unit_test(test_pairs), cmocka_unit_test(test_what_is_trained),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
