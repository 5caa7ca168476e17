/* What keeps a tuned model near what it was: masked steps, the pull back to the start, replay. Each does what its definition
 * says, and runs with them go on exactly where they stopped. */
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
#include "tests/slope.h"
#include "tests/tiny.h"
#include "tests/train_rig.h"
#include "tinylm/lm_train.h"

/* --------------------------------------------------------------------------------------------- optimiser */

/* Masked AdamW against a plain one in double, on the update and on the gradient; rows are cut by the threads' shares. */
static void check_masked(int threads, bool on_gradient) {
    cmc_pool *pool;
    cmc_error err = {0};
    params p;
    params_shape shape = {.n_vocab = 300, .n_embd = 36, .n_layer = 1, .n_head = 2, .n_head_kv = 1, .head_dim = 18, .n_ff = 50,
                          .rms_eps = 1e-5f, .rope_base = 1e4f};
    assert_int_equal(params_init(&p, &shape, &err), CMC_OK);
    assert_int_equal(cmc_pool_new(threads, &pool, &err), CMC_OK);
    size_t n = p.n;
    float *x = cmc_calloc(4 * n, sizeof *x), *w = x, *grad = x + n, *factor = cmc_alloc(n, sizeof *factor);
    double *d = cmc_calloc(3 * n, sizeof *d), *w2 = d, *m2 = d + n, *v2 = d + 2 * n;
    const float **mask = cmc_calloc(p.n_tensors, sizeof *mask);
    uint64_t rng = 4;
    adamw a = {.beta1 = 0.9, .beta2 = 0.95, .eps = 1e-8, .weight_decay = 0.3, .m = x + 2 * n, .v = x + 3 * n, .mask = mask,
               .mask_gradient = on_gradient};
    params_randomise(&p, 1, w);
    for (size_t i = 0; i < n; i++) {
        w2[i] = (double)w[i];
        factor[i] = (float)(0.05 + 0.95 * uniform(&rng));
    }
    mask[0] = factor; /* the embedding, and a layer's down */
    mask[1 + PARAMS_DOWN] = factor + 300;
    for (int step = 1; step <= 4; step++) {
        for (size_t i = 0; i < n; i++)
            grad[i] = (float)(uniform(&rng) - 0.5);
        for (size_t k = 0; k < p.n_tensors; k++) {
            const params_tensor *t = &p.tensors[k];
            for (size_t i = 0; i < t->n_out * t->n_in; i++) {
                size_t at = t->off + i;
                double f = mask[k] ? (double)mask[k][i / t->n_in] : 1.0, g = 0.5 * (double)grad[at] * (on_gradient ? f : 1.0);
                m2[at] = 0.9 * m2[at] + 0.1 * g;
                v2[at] = 0.95 * v2[at] + 0.05 * g * g;
                double move = (t->matrix ? 0.3 : 0.0) * w2[at] +
                              m2[at] / (1 - pow(0.9, step)) / (sqrt(v2[at] / (1 - pow(0.95, step))) + 1e-8);
                w2[at] -= 0.01 * (on_gradient ? 1.0 : f) * move;
            }
        }
        adamw_step(pool, &a, &p, w, grad, 0.5, 0.01, step);
    }
    for (size_t i = 0; i < n; i++)
        assert_true(fabs(w2[i] - (double)w[i]) < 1e-5 && grad[i] == 0.0f);
    free(x);
    free(d);
    free(factor);
    free(mask);
    params_free(&p);
    cmc_pool_free(pool);
}

static void test_masked(void **state) {
    (void)state;
    for (int threads = 1; threads <= 3; threads++) {
        check_masked(threads, false);
        check_masked(threads, true);
    }
}

typedef struct pull_scene { float *w, *start; size_t n; } pull_scene;

static double pull_loss(void *scene) {
    const pull_scene *s = scene;
    double sum = 0.0;
    for (size_t i = 0; i < s->n; i++)
        sum += ((double)s->w[i] - (double)s->start[i]) * ((double)s->w[i] - (double)s->start[i]);
    return 0.5 * 0.7 * sum;
}

static void test_pull(void **state) {
    (void)state;
    enum { N = 5000 };
    cmc_pool *pool;
    cmc_error err = {0};
    uint64_t rng = 6;
    pull_scene s = {cmc_alloc(N, sizeof(float)), cmc_alloc(N, sizeof(float)), N};
    float *grad = cmc_calloc(N, sizeof *grad);
    for (size_t i = 0; i < N; i++) {
        s.w[i] = (float)uniform(&rng);
        s.start[i] = (float)uniform(&rng);
    }
    assert_int_equal(cmc_pool_new(3, &pool, &err), CMC_OK);
    adamw_pull(pool, s.w, s.start, N, 0.7, grad);
    slope_check c = {.loss = pull_loss, .scene = &s, .h = 0.05, .least = 1.0, .rel = 1e-4, .abs = 1e-3, .directions = 7};
    slope_assert(&c, "pull", s.w, grad, N, &rng);
    cmc_pool_free(pool);
    free(s.w);
    free(s.start);
    free(grad);
}

/* -------------------------------------------------------------------------------------------------- runs */

typedef struct keep_rig {
    rig r;
    char *old, *importance;
    const char *olds[1];
} keep_rig;

static void keep_open(keep_rig *k) {
    cmc_error err = {0};
    rig_open(&k->r, 2, false);
    k->old = rig_path(&k->r, "old.jsonl");
    k->importance = rig_path(&k->r, "importance.gguf");
    k->olds[0] = k->old;
    rig_old_data(k->old);
    cmc_importance_opts o = cmc_importance_defaults();
    o.model = k->r.host;
    o.data = k->olds;
    o.n_data = 1;
    o.out_path = k->importance;
    o.dropout = 0.1;
    if (cmc_importance(k->r.rt, &o, NULL, NULL, NULL, &err) != CMC_OK)
        fail_msg("%s", err.message);
}

static void keep_close(keep_rig *k) {
    free(k->old);
    free(k->importance);
    rig_close(&k->r);
}

static cmc_tune_opts tune_opts(const keep_rig *k) {
    cmc_tune_opts o = rig_tune_opts(&k->r);
    o.how.max_steps = 10;
    o.how.eval_every = 5;
    o.how.warmup = 0.0;
    return o;
}

/* How far blk.1.ffn_up went in a run; each row's distance where `each` is given. */
static double moved(const keep_rig *k, const cmc_tune_opts *o, double *each) {
    rig_tune(&k->r, o, NULL, NULL, CMC_OK);
    return rig_moved(k->r.host, k->r.out, "blk.1.ffn_up.weight", each);
}

/* One step from the start: a mask on the update scales each row's way by its factor; one on the gradient changes next to
 * nothing, for AdamW divides by the gradient's own size. */
static void test_mask_modes(void **state) {
    (void)state;
    enum { ROWS = 96 };
    static double plain[ROWS], update[ROWS], gradient[ROWS], constant[ROWS];
    keep_rig k;
    keep_open(&k);
    cmc_tune_opts o = tune_opts(&k);
    o.how.max_steps = 1;
    o.how.held_out = 0.0;
    o.how.eps = 1e-13; /* next to nothing beside any gradient here; where eps counts, so does the mask on it */
    moved(&k, &o, plain);
    o.how.keep.soft_mask = k.importance;
    moved(&k, &o, update);
    o.how.keep.mask_control = "constant";
    moved(&k, &o, constant);
    o.how.keep.mask_control = "none";
    o.how.keep.mask_on = "gradient";
    moved(&k, &o, gradient);
    float v[ROWS], *raw;
    size_t rows, width;
    raw = rig_tensor(k.importance, "blk.1.ffn_up.importance", &rows, &width);
    assert_int_equal(width, ROWS);
    memcpy(v, raw, sizeof v);
    soft_mask_normalise(v, ROWS);
    double mean = 0.0;
    for (size_t r = 0; r < ROWS; r++)
        mean += (1.0 - (double)v[r]) / ROWS;
    for (size_t r = 0; r < ROWS; r++) {
        assert_true(plain[r] > 1e-3);
        assert_true(fabs(update[r] / plain[r] - (1.0 - (double)v[r])) < 2e-3);
        assert_true(fabs(constant[r] / plain[r] - mean) < 2e-3);
        assert_true(fabs(gradient[r] / plain[r] - 1.0) < 1e-2);
    }
    free(raw);
    keep_close(&k);
}

static void test_l2(void **state) {
    (void)state;
    keep_rig k;
    keep_open(&k);
    cmc_tune_opts o = tune_opts(&k);
    o.how.weight_decay = 0.0;
    o.how.held_out = 0.0;
    double far = moved(&k, &o, NULL), before = far;
    for (double pull = 1.0; pull <= 100.0; pull *= 10.0) {
        o.how.keep.l2_start = pull;
        double now = moved(&k, &o, NULL);
        if (!(now < before && now > 0.0))
            fail_msg("a pull of %g: moved %g, before %g", pull, now, before);
        before = now;
    }
    assert_true(before < 0.7 * far);
    keep_close(&k);
}

/* NLL of old data under the model in k->r.out. */
static double old_nll(const keep_rig *k, const char *model) {
    cmc_tune_opts o = tune_opts(k);
    char *out = rig_path(&k->r, "scored.gguf");
    o.base = model;
    o.how.data = k->olds;
    o.how.held_out = 0.9;
    o.how.max_steps = 1;
    o.how.out_path = out;
    double nll = rig_tune(&k->r, &o, NULL, NULL, CMC_OK).held_out_host;
    free(out);
    return nll;
}

static void test_replay(void **state) {
    (void)state;
    keep_rig k;
    keep_open(&k);
    cmc_tune_opts o = tune_opts(&k);
    cmc_train_result without = rig_tune(&k.r, &o, NULL, NULL, CMC_OK);
    double plain = old_nll(&k, k.r.out);
    o.how.keep.replay = k.olds;
    o.how.keep.n_replay = 1;
    o.how.keep.replay_share = 0.5;
    cmc_train_result with = rig_tune(&k.r, &o, NULL, NULL, CMC_OK);
    double replayed = old_nll(&k, k.r.out);
    assert_true(with.tokens > without.tokens && with.records == without.records);
    if (!(replayed < plain - 0.5))
        fail_msg("old data: %g with replay, %g without", replayed, plain);
    keep_close(&k);
}

/* Over many steps the share of records is what it should be, however small a step's part is. */
static void test_replay_share(void **state) {
    (void)state;
    static const double shares[] = {0.01, 0.05, 0.3, 0.5, 0.9};
    for (size_t i = 0; i < sizeof shares / sizeof *shares; i++) {
        cmc_keep_opts k = {.replay_share = shares[i], .n_replay = 1};
        size_t old = keep_replay_before(&k, 8, 1000), most = keep_replay_before(&k, 8, 1) + 1;
        assert_true(fabs((double)old / (8000.0 + (double)old) - shares[i]) < 1e-3);
        for (int64_t s = 0; s < 1000; s++)
            assert_true(keep_replay_before(&k, 8, s + 1) - keep_replay_before(&k, 8, s) <= most);
        k.n_replay = 0;
        assert_int_equal(keep_replay_before(&k, 8, 1000), 0);
    }
}

/* With all of it at once, some of the layers trained: stopped anywhere, a run ends with the same bytes; and a checkpoint is
 * only taken over with the same settings. */
static void test_resume(void **state) {
    (void)state;
    keep_rig k;
    size_t n;
    keep_open(&k);
    cmc_tune_opts o = tune_opts(&k);
    rig_keep_all(&o.how.keep, k.olds, k.importance);
    o.how.train_layers = "1-1";
    rig_tune(&k.r, &o, NULL, NULL, CMC_OK);
    uint8_t *want = rig_bytes(k.r.out, &n);
    for (int64_t stop = 1; stop <= 10; stop += 3) {
        stopper s = {"train", stop, false};
        o.how.resume = false;
        rig_tune(&k.r, &o, rig_stop, &s, CMC_E_CANCELLED);
        o.how.resume = true;
        for (int i = 0; i < RIG_KEEP_OTHERS; i++) {
            cmc_tune_opts other = o;
            cmc_error err = {0};
            const char *says = rig_keep_other(&other.how.keep, i);
            assert_int_equal(cmc_tune(k.r.rt, &other, NULL, NULL, NULL, &err), CMC_E_ARG);
            if (!strstr(err.message, "was made with") || !strstr(err.message, says))
                fail_msg("case %d: %s", i, err.message);
        }
        rig_tune(&k.r, &o, NULL, NULL, CMC_OK);
        rig_assert_same(k.r.out, want, n);
    }
    free(want);
    keep_close(&k);
}

/* What is watched changes nothing, and its scores are those of the weights at the time. */
static void test_watch(void **state) {
    (void)state;
    keep_rig k;
    size_t n;
    double base[2] = {NAN, NAN}, last[2] = {NAN, NAN};
    keep_open(&k);
    cmc_tune_opts o = tune_opts(&k);
    rig_tune(&k.r, &o, NULL, NULL, CMC_OK);
    uint8_t *want = rig_bytes(k.r.out, &n);
    const char *const watch[2] = {k.old, k.r.data};
    o.how.keep.watch = watch;
    o.how.keep.n_watch = 2;
    o.how.log_path = k.r.log;
    rig_tune(&k.r, &o, NULL, NULL, CMC_OK);
    rig_assert_same(k.r.out, want, n);
    assert_int_equal(rig_watched(k.r.log, base, last), 3);
    assert_true(fabs(base[0] - last[0]) > 0.05);
    o.how.keep.n_watch = DATA_WATCHED + 1;
    rig_tune(&k.r, &o, NULL, NULL, CMC_E_ARG);
    free(want);
    keep_close(&k);
}

/* What is saved lies on the line to the start, and the score given is its. */
static void test_line(void **state) {
    (void)state;
    keep_rig k;
    keep_open(&k);
    cmc_tune_opts o = tune_opts(&k);
    o.how.save_type = "f32";
    cmc_train_result whole = rig_tune(&k.r, &o, NULL, NULL, CMC_OK);
    double all = rig_moved(k.r.host, k.r.out, "blk.1.ffn_up.weight", NULL);
    o.how.keep.wise_ft = 0.25;
    cmc_train_result part = rig_tune(&k.r, &o, NULL, NULL, CMC_OK);
    double some = rig_moved(k.r.host, k.r.out, "blk.1.ffn_up.weight", NULL);
    if (!(fabs(some - 0.25 * all) < 1e-4 * all && all > 0.0))
        fail_msg("moved %g of %g", some, all);
    assert_true(part.held_out_steered > whole.held_out_steered && part.held_out_steered < part.held_out_host);
    assert_true(part.held_out_host == whole.held_out_host);
    keep_close(&k);
}

/* Of an adapter, whose product begins at 0, one factor goes along the line. */
static void test_line_of_adapter(void **state) {
    (void)state;
    keep_rig k;
    keep_open(&k);
    cmc_tune_opts o = tune_opts(&k);
    char *part = rig_path(&k.r, "part.gguf");
    double off[2];
    o.how.lora_rank = 2;
    o.how.save_type = "f32";
    cmc_train_result whole = rig_tune(&k.r, &o, NULL, NULL, CMC_OK);
    o.how.out_path = part;
    for (int i = 0; i < 2; i++) {
        o.how.keep.wise_ft = i ? 0.25 : 0.5;
        cmc_train_result now = rig_tune(&k.r, &o, NULL, NULL, CMC_OK);
        assert_true(rig_moved(k.r.out, part, "blk.1.ffn_up.weight.lora_a", NULL) == 0.0);
        off[i] = rig_moved(k.r.out, part, "blk.1.ffn_up.weight.lora_b", NULL);
        assert_true(now.held_out_steered > whole.held_out_steered && now.held_out_steered < now.held_out_host);
    }
    assert_true(off[0] > 0.0 && fabs(off[1] / off[0] - 1.5) < 1e-4);
    free(part);
    keep_close(&k);
}

static void test_refusals(void **state) {
    (void)state;
    keep_rig k;
    keep_open(&k);
    for (int i = 0; i < 12; i++) {
        cmc_tune_opts o = tune_opts(&k);
        cmc_error err = {0};
        cmc_status want = CMC_E_ARG;
        switch (i) {
        case 0: o.how.keep.replay_share = 0.0; break;
        case 1: o.how.keep.replay_share = 0.95; break;
        case 2: o.how.keep.l2_start = -1.0; break;
        case 3: o.how.keep.l2_start = 1.0; o.how.lora_rank = 2; break;
        case 4: o.how.keep.soft_mask = k.importance; o.how.lora_rank = 2; break;
        case 5: o.how.keep.soft_mask = k.importance; o.how.keep.mask_on = "weights"; break;
        case 6: o.how.keep.soft_mask = k.importance; o.how.keep.mask_control = "random"; break;
        case 7: o.how.keep.soft_mask = k.r.host; break;
        case 8: o.how.keep.replay = k.olds; o.how.keep.n_replay = 1; o.how.out_path = k.old; break;
        case 9: o.how.keep.wise_ft = 0.0; break;
        case 10: o.how.keep.wise_ft = 0.5; o.how.expand.kind = "concat"; o.how.expand.blocks = 1; break;
        default: o.how.keep.soft_mask = k.old; want = CMC_E_FORMAT; break;
        }
        if (cmc_tune(k.r.rt, &o, NULL, NULL, NULL, &err) != want || err.message[0] == '\0')
            fail_msg("case %d: status %d: %s", i, (int)err.status, err.message);
        assert_false(checkpoint_exists(k.r.ckpt));
    }
    keep_close(&k);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_masked),      cmocka_unit_test(test_pull),         cmocka_unit_test(test_mask_modes),
        cmocka_unit_test(test_l2),          cmocka_unit_test(test_replay),       cmocka_unit_test(test_replay_share),
        cmocka_unit_test(test_resume),      cmocka_unit_test(test_line), cmocka_unit_test(test_line_of_adapter), cmocka_unit_test(test_refusals),     cmocka_unit_test(test_watch),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
