/* What keeps a delta near its start while it learns something new: the soft mask, the pull to the start, replay, and what is
 * watched meanwhile. The arithmetic of mask and pull is tested in test_lm_keep.c. */
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
#include "tests/train_rig.h"

typedef struct keep_rig {
    rig r;
    char *old, *start, *importance;   /* records of counting, a delta that learnt them, and what matters in it */
    const char *olds[1];
} keep_rig;

static void keep_open(keep_rig *k) {
    cmc_error err = {0};
    rig_open(&k->r, 2, false);
    k->old = rig_path(&k->r, "old.jsonl");
    k->start = rig_path(&k->r, "start.gguf");
    k->importance = rig_path(&k->r, "importance.gguf");
    k->olds[0] = k->old;
    rig_old_data(k->old);
    cmc_train_opts t = rig_opts(&k->r);
    t.data = k->olds;
    t.out_path = k->start;
    rig_run(&k->r, &t, NULL, NULL, CMC_OK);
    cmc_importance_opts o = cmc_importance_defaults();
    o.model = k->start;
    o.data = k->r.paths;
    o.n_data = 1;
    o.out_path = k->importance;
    o.dropout = 0.1;
    if (cmc_importance(k->r.rt, &o, NULL, NULL, NULL, &err) != CMC_OK)
        fail_msg("%s", err.message);
}

static void keep_close(keep_rig *k) {
    free(k->old);
    free(k->start);
    free(k->importance);
    rig_close(&k->r);
}

/* The start goes on with the rig's records. */
static cmc_train_opts keep_opts(const keep_rig *k) {
    cmc_train_opts o = rig_opts(&k->r);
    o.n_embd = o.n_layer = o.n_head = o.n_head_kv = 0;
    o.init_path = k->start;
    o.checkpoint_path = k->r.ckpt;
    o.warmup = 0.0;
    o.max_steps = 12;
    o.eval_every = 4;
    return o;
}

static double moved(const keep_rig *k, const cmc_train_opts *o, const char *name, double *each) {
    rig_run(&k->r, o, NULL, NULL, CMC_OK);
    return rig_moved(k->start, k->r.out, name, each);
}

/* One step from the start: each row goes its factor of the way; of a key's rows the factor is that of the head that matters most. */
static void test_mask(void **state) {
    (void)state;
    enum { UNITS = 96, HEADS = 4, WIDTH = 32 };
    static double plain[UNITS], masked[UNITS];
    float factor[UNITS], *raw;
    size_t rows, width;
    keep_rig k;
    keep_open(&k);
    cmc_train_opts o = keep_opts(&k), m;
    o.max_steps = 1;
    o.held_out = 0.0;
    o.eps = 1e-13; /* next to nothing beside any gradient here */
    m = o;
    m.keep.soft_mask = k.importance;
    raw = rig_tensor(k.importance, "blk.1.ffn_up.importance", &rows, &width);
    assert_int_equal(width, UNITS);
    memcpy(factor, raw, sizeof factor);
    soft_mask_normalise(factor, UNITS);
    free(raw);
    moved(&k, &o, "blk.1.ffn_up.weight", plain);
    moved(&k, &m, "blk.1.ffn_up.weight", masked);
    for (size_t r = 0; r < UNITS; r++)
        assert_true(plain[r] > 1e-3 && fabs(masked[r] / plain[r] - (1.0 - (double)factor[r])) < 2e-3);
    raw = rig_tensor(k.importance, "blk.0.attn_head.importance", &rows, &width);
    assert_int_equal(width, HEADS);
    memcpy(factor, raw, HEADS * sizeof *factor);
    soft_mask_normalise(factor, HEADS);
    free(raw);
    moved(&k, &o, "blk.0.attn_k.weight", plain);
    moved(&k, &m, "blk.0.attn_k.weight", masked);
    for (size_t r = 0; r < WIDTH / 2; r++) { /* two heads share eight rows */
        size_t head = r / 8 * 2;
        double most = fmax((double)factor[head], (double)factor[head + 1]);
        assert_true(plain[r] > 1e-3 && fabs(masked[r] / plain[r] - (1.0 - most)) < 2e-3);
    }
    m.keep.mask_on = "gradient";
    moved(&k, &m, "blk.0.attn_k.weight", masked);
    for (size_t r = 0; r < WIDTH / 2; r++)
        assert_true(fabs(masked[r] / plain[r] - 1.0) < 1e-2);
    keep_close(&k);
}

static void test_l2(void **state) {
    (void)state;
    keep_rig k;
    keep_open(&k);
    cmc_train_opts o = keep_opts(&k);
    o.weight_decay = 0.0;
    o.held_out = 0.0;
    double far = moved(&k, &o, "blk.1.ffn_up.weight", NULL), before = far;
    for (double pull = 1.0; pull <= 100.0; pull *= 10.0) {
        o.keep.l2_start = pull;
        double now = moved(&k, &o, "blk.1.ffn_up.weight", NULL);
        if (!(now < before && now > 0.0))
            fail_msg("a pull of %g: moved %g, before %g", pull, now, before);
        before = now;
    }
    assert_true(before < 0.7 * far);
    keep_close(&k);
}

static void test_replay(void **state) {
    (void)state;
    keep_rig k;
    keep_open(&k);
    cmc_train_opts o = keep_opts(&k);
    o.max_steps = RIG_STEPS;
    cmc_train_result without = rig_run(&k.r, &o, NULL, NULL, CMC_OK);
    double plain = rig_score(&k.r, k.r.out, k.old, NULL);
    o.keep.replay = k.olds;
    o.keep.n_replay = 1;
    o.keep.replay_share = 0.5;
    cmc_train_result with = rig_run(&k.r, &o, NULL, NULL, CMC_OK);
    double replayed = rig_score(&k.r, k.r.out, k.old, NULL);
    assert_true(with.tokens > without.tokens && with.records == without.records);
    assert_true(with.records_held_out == without.records_held_out);
    if (!(replayed < plain - 0.2))
        fail_msg("old data: %g with replay, %g without", replayed, plain);
    keep_close(&k);
}

/* A share whose part of a batch is no whole number, rounded: a step has room for what it goes through (for ASan to see). */
static void test_replay_is_rounded(void **state) {
    (void)state;
    keep_rig k;
    keep_open(&k);
    cmc_train_opts o = keep_opts(&k);
    o.keep.replay = k.olds;
    o.keep.n_replay = 1;
    for (int32_t records = 1; records <= 12; records++) {
        size_t most = 0;
        o.batch = records;
        o.keep.replay_share = records == 7 ? 0.86 : 0.6;
        for (int64_t step = 0; step < 1000; step++) {
            size_t n = keep_replay_before(&o.keep, records, step + 1) - keep_replay_before(&o.keep, records, step);
            most = n > most ? n : most;
        }
        assert_true(most <= keep_replay_most(&o.keep, records) && most + 2 >= keep_replay_most(&o.keep, records));
    }
    o.batch = 8;
    o.max_steps = 6;
    rig_run(&k.r, &o, NULL, NULL, CMC_OK);
    keep_close(&k);
}

/* With all of it at once, and some of the layers trained: stopped anywhere, a run ends with the same bytes, what is frozen is
 * as it was, and a checkpoint is only taken over with the same settings. */
static void test_resume(void **state) {
    (void)state;
    keep_rig k;
    size_t n;
    keep_open(&k);
    cmc_train_opts o = keep_opts(&k);
    rig_keep_all(&o.keep, k.olds, k.importance);
    o.train_layers = "1-1";
    rig_run(&k.r, &o, NULL, NULL, CMC_OK);
    uint8_t *want = rig_bytes(k.r.out, &n);
    assert_true(rig_moved(k.start, k.r.out, "blk.0.ffn_up.weight", NULL) == 0.0);
    assert_true(rig_moved(k.start, k.r.out, "blk.1.ffn_up.weight", NULL) > 0.0);
    for (int64_t stop = 1; stop <= 12; stop += 5) {
        stopper s = {"train", stop, false};
        o.resume = false;
        rig_run(&k.r, &o, rig_stop, &s, CMC_E_CANCELLED);
        o.resume = true;
        for (int i = 0; i < RIG_KEEP_OTHERS - 1; i++) { /* without replay the data is another already */
            cmc_train_opts other = o;
            cmc_error err = {0};
            const char *says = rig_keep_other(&other.keep, i);
            assert_int_equal(cmc_train(k.r.rt, &other, NULL, NULL, NULL, &err), CMC_E_ARG);
            if (!strstr(err.message, "was made with") || !strstr(err.message, says))
                fail_msg("case %d: %s", i, err.message);
        }
        rig_run(&k.r, &o, NULL, NULL, CMC_OK);
        rig_assert_same(k.r.out, want, n);
    }
    free(want);
    keep_close(&k);
}

/* What is watched changes nothing, and its scores are those of the delta at the time. */
static void test_watch(void **state) {
    (void)state;
    keep_rig k;
    size_t n;
    double first[2] = {NAN, NAN}, last[2] = {NAN, NAN};
    keep_open(&k);
    cmc_train_opts o = keep_opts(&k);
    o.held_out = 0.0; /* so that the last weights are what is saved */
    rig_run(&k.r, &o, NULL, NULL, CMC_OK);
    uint8_t *want = rig_bytes(k.r.out, &n);
    const char *const watch[2] = {k.old, k.r.data};
    o.keep.watch = watch;
    o.keep.n_watch = 2;
    o.log_path = k.r.log;
    rig_run(&k.r, &o, NULL, NULL, CMC_OK);
    rig_assert_same(k.r.out, want, n);
    o.held_out = 0.2;
    o.patience = 0;
    rig_run(&k.r, &o, NULL, NULL, CMC_OK);
    assert_int_equal(rig_watched(k.r.log, first, last), 1 + 3);
    assert_true(fabs(first[0] - rig_score(&k.r, k.start, k.old, NULL)) < 5e-3);
    assert_true(fabs(last[0] - rig_score(&k.r, k.r.out, k.old, NULL)) < 5e-3);
    assert_true(fabs(last[1] - rig_score(&k.r, k.r.out, k.r.data, NULL)) < 5e-3);
    assert_true(fabs(last[0] - first[0]) > 0.02);
    free(want);
    keep_close(&k);
}

/* What is saved lies on the line to the start, and the score given is its. */
static void test_line(void **state) {
    (void)state;
    keep_rig k;
    keep_open(&k);
    cmc_train_opts o = keep_opts(&k);
    cmc_error err = {0};
    cmc_train_result r[2];
    double way[2];
    o.save_type = "f32";
    for (int i = 0; i < 2; i++) {
        o.keep.wise_ft = i ? 0.25 : 1.0;
        way[i] = moved(&k, &o, "blk.1.ffn_up.weight", NULL);
        assert_int_equal(cmc_train(k.r.rt, &o, NULL, NULL, &r[i], &err), CMC_OK);
    }
    if (!(fabs(way[1] - 0.25 * way[0]) < 1e-4 * way[0] && way[0] > 0.0))
        fail_msg("moved %g of %g", way[1], way[0]);
    assert_true(r[1].held_out_steered > r[0].held_out_steered);
    keep_close(&k);
}

static void test_refusals(void **state) {
    (void)state;
    keep_rig k;
    keep_open(&k);
    for (int i = 0; i < 11; i++) {
        cmc_train_opts o = keep_opts(&k);
        cmc_error err = {0};
        cmc_status want = CMC_E_ARG;
        switch (i) {
        case 0: o.keep.replay_share = 0.0; break;
        case 1: o.keep.l2_start = -1.0; break;
        case 2: o.keep.soft_mask = k.importance; o.keep.mask_control = "random"; break;
        case 3: o.keep.soft_mask = k.r.host; break;
        case 4: o.keep.replay = k.olds; o.keep.n_replay = 1; o.out_path = k.old; break;
        case 5: o.keep.replay = k.olds; o.keep.n_replay = 1; o.objective = "ga"; break;
        case 6: o.keep.watch = k.olds; o.keep.n_watch = 1; o.objective = "npo"; break;
        case 7: o.keep.l2_start = 1.0; o.init_path = NULL; break;
        case 8: o.keep.wise_ft = 0.5; o.init_path = NULL; break;
        case 9: o.keep.wise_ft = 1.5; break;
        default: o.keep.soft_mask = k.old; want = CMC_E_FORMAT; break;
        }
        if (cmc_train(k.r.rt, &o, NULL, NULL, NULL, &err) != want || err.message[0] == '\0')
            fail_msg("case %d: status %d: %s", i, (int)err.status, err.message);
        assert_false(checkpoint_exists(k.r.ckpt));
    }
    keep_close(&k);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_mask),  cmocka_unit_test(test_l2),       cmocka_unit_test(test_replay), cmocka_unit_test(test_replay_is_rounded), cmocka_unit_test(test_resume),
        cmocka_unit_test(test_watch), cmocka_unit_test(test_line), cmocka_unit_test(test_refusals),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
