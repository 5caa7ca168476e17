/* A delta that goes on by an adapter or by blocks in its weights' place: what is saved is what was trained, what is not trained stays, runs
 * go on exactly where they stopped. The gradients are tested in test_train_objective.c. */
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
#include "tests/sanitized.h"
#include "tests/train_rig.h"

typedef struct added_rig {
    rig r;
    char *start;                 /* a delta that learnt the rig's old data */
} added_rig;

static void added_open(added_rig *a) {
    rig_open(&a->r, 2, false);
    char *old = rig_path(&a->r, "old.jsonl");
    const char *olds[1] = {old};
    a->start = rig_path(&a->r, "start.gguf");
    rig_old_data(old);
    cmc_train_opts o = rig_opts(&a->r);
    o.data = olds;
    o.out_path = a->start;
    rig_run(&a->r, &o, NULL, NULL, CMC_OK);
    free(old);
}

static void added_close(added_rig *a) {
    free(a->start);
    rig_close(&a->r);
}

static const struct { const char *what; int32_t rank; const char *targets, *layers, *kind, *merge, *align; } ways[] = {
    {"adapter", 4, NULL, NULL, NULL, "lerp", "none"},     {"adapter on some", 2, "q,v,up", "1-1", NULL, "lerp", "none"},
    {"beside", 0, NULL, NULL, "concat", "lerp", "mse"},   {"by token", 0, NULL, NULL, "concat", "dlerp", "relative"},
    {"behind", 0, NULL, NULL, "stack", "lerp", "none"},   {"in turn", 0, NULL, NULL, "hybrid", "lerp", "mse"},
};
enum { WAYS = sizeof ways / sizeof *ways };

static cmc_train_opts added_opts(const added_rig *a, size_t way) {
    cmc_train_opts o = rig_opts(&a->r);
    o.n_embd = o.n_layer = o.n_head = o.n_head_kv = 0;
    o.init_path = a->start;
    o.checkpoint_path = a->r.ckpt;
    o.lora_rank = ways[way].rank;
    o.lora_targets = ways[way].targets;
    o.train_layers = ways[way].layers;
    o.expand.kind = ways[way].kind;
    o.expand.blocks = 2;
    o.expand.merge = ways[way].merge;
    o.expand.align = ways[way].align;
    return o;
}

static bool is_block(size_t way) { return ways[way].kind != NULL; }

/* The trainer and the runtime agree about the file: what a run says of its weights, the runtime measures with what it saved. */
static void test_saved(void **state) {
    (void)state;
    added_rig a;
    added_open(&a);
    double before = rig_score(&a.r, a.start, a.r.data, NULL);
    for (size_t i = 0; i < WAYS; i++) {
        double first[2] = {NAN, NAN}, last[2] = {NAN, NAN};
        cmc_train_opts o = added_opts(&a, i);
        const char *const watch[2] = {a.r.data, a.r.data};
        o.held_out = 0.0; /* so that the last weights are saved; nothing is scored but what is watched */
        rig_run(&a.r, &o, NULL, NULL, CMC_OK);
        double now = rig_score(&a.r, a.r.out, a.r.data, NULL);
        if (!(now < before - 0.1))
            fail_msg("%s: %g nats a token, before %g", ways[i].what, now, before);
        o.held_out = 0.2;
        o.patience = 0;
        o.keep.watch = watch;
        o.keep.n_watch = 2;
        o.log_path = a.r.log;
        rig_run(&a.r, &o, NULL, NULL, CMC_OK);
        assert_true(rig_watched(a.r.log, first, last) > 1);
        if (!(fabs(first[0] - before) < 5e-3))
            fail_msg("%s: the trainer starts at %g, the delta scores %g", ways[i].what, first[0], before);
        now = rig_score(&a.r, a.r.out, a.r.data, NULL);
        if (!(fabs(last[0] - now) < 5e-3))
            fail_msg("%s: the trainer ends at %g, what it saved scores %g", ways[i].what, last[0], now);
    }
    added_close(&a);
}

/* What is not trained is as it was: all of the start with blocks; with an adapter all that has none, and what has one moves by a matrix of
 * no greater rank. */
static void test_frozen(void **state) {
    (void)state;
    static const char *const names[] = {"token_embd.weight",     "output_norm.weight",  "blk.0.attn_q.weight", "blk.1.attn_q.weight",
                                        "blk.0.ffn_down.weight", "blk.1.attn_v.weight", "blk.1.ffn_norm.weight"};
    added_rig a;
    added_open(&a);
    for (size_t i = 0; i < WAYS; i++) {
        cmc_train_opts o = added_opts(&a, i);
        o.max_steps = 6;
        rig_run(&a.r, &o, NULL, NULL, CMC_OK);
        for (size_t k = 0; k < sizeof names / sizeof *names; k++) {
            bool some = ways[i].layers != NULL, matrix = k >= 2 && k < 6;
            bool trained = !is_block(i) && matrix && (!some || k == 3 || k == 5);
            double way = rig_moved(a.start, a.r.out, names[k], NULL);
            if ((way > 0.0) != trained)
                fail_msg("%s: %s moved %g", ways[i].what, names[k], way);
        }
    }
    added_close(&a);
}

/* The difference that an adapter of rank 1 makes has rank 1: all 2 x 2 minors are zero. */
static void test_rank(void **state) {
    (void)state;
    added_rig a;
    size_t rows, width;
    added_open(&a);
    cmc_train_opts o = added_opts(&a, 0);
    o.lora_rank = 1;
    rig_run(&a.r, &o, NULL, NULL, CMC_OK);
    float *was = rig_tensor(a.start, "blk.1.ffn_up.weight", &rows, &width), *is = rig_tensor(a.r.out, "blk.1.ffn_up.weight", &rows, &width);
    double most = 0.0, minor = 0.0;
    for (size_t i = 0; i < rows * width; i++) {
        is[i] -= was[i];
        most = fmax(most, fabs((double)is[i]));
    }
    for (size_t r = 1; r < rows; r++)
        for (size_t c = 1; c < width; c++)
            minor = fmax(minor, fabs((double)is[0] * (double)is[r * width + c] - (double)is[c] * (double)is[r * width]));
    assert_true(most > 1e-3 && minor < 1e-4 * most * most + 1e-6 * most);
    free(was);
    free(is);
    added_close(&a);
}

static void test_resume(void **state) {
    (void)state;
    added_rig a;
    size_t n;
    added_open(&a);
    for (size_t i = 0; i < WAYS; i++) {
        cmc_train_opts o = added_opts(&a, i);
        o.max_steps = 8;
        o.eval_every = 4;
        if (!is_block(i))
            o.keep.wise_ft = 0.5;
        rig_run(&a.r, &o, NULL, NULL, CMC_OK);
        uint8_t *want = rig_bytes(a.r.out, &n);
        for (int64_t stop = 1; stop <= 8; stop += 3) {
            stopper s = {"train", stop, false};
            cmc_error err = {0};
            o.resume = false;
            rig_run(&a.r, &o, rig_stop, &s, CMC_E_CANCELLED);
            o.resume = true;
            cmc_train_opts other = added_opts(&a, (i + 1) % WAYS);
            other.max_steps = 8;
            other.eval_every = 4;
            other.resume = true;
            assert_int_equal(cmc_train(a.r.rt, &other, NULL, NULL, NULL, &err), CMC_E_ARG);
            assert_non_null(strstr(err.message, "was made with"));
            rig_run(&a.r, &o, NULL, NULL, CMC_OK);
            rig_assert_same(a.r.out, want, n);
        }
        free(want);
    }
    added_close(&a);
}

/* The file says of itself what any delta does: strengths and what it was trained with are the new run's, each key once. */
static void test_says(void **state) {
    (void)state;
    added_rig a;
    cmc_error err = {0};
    added_open(&a);
    for (size_t i = 0; i < WAYS; i++) {
        cmc_train_opts o = added_opts(&a, i);
        cmc_model *m;
        o.seed = 23;
        o.max_steps = 6;
        cmc_train_result res = rig_run(&a.r, &o, NULL, NULL, CMC_OK);
        assert_int_equal(cmc_model_open(a.r.rt, a.r.out, &m, &err), CMC_OK);
        const cmc_delta_info *info = cmc_model_delta_info(m);
        assert_true(info && info->seed == 23);
        assert_true(info->n_alphas == 1 && fabs(info->alphas[0].alpha - res.alpha) < 1e-6);
        assert_int_equal(cmc_model_expand(m, &(cmc_expand_info){0}), is_block(i));
        cmc_model_free(m);
    }
    added_close(&a);
}

/* Within a bound a little below what it takes without, the result is the same but for rounding. */
static void test_bounded(void **state) {
    (void)state;
    added_rig a;
    added_open(&a);
    for (size_t i = 0; i < 3; i += 2) {
        cmc_train_opts o = added_opts(&a, i);
        o.batch = 32;
        o.max_steps = 2;
        cmc_train_result wide = rig_run(&a.r, &o, NULL, NULL, CMC_OK);
        assert_true(wide.memory_peak <= wide.memory_planned + (8 << 20));
        o.memory = wide.memory_planned - (1 << 20);
        cmc_train_result narrow = rig_run(&a.r, &o, NULL, NULL, CMC_OK);
        assert_true(narrow.memory_planned <= o.memory || SANITIZED);
        assert_true(fabs(narrow.held_out_steered - wide.held_out_steered) < 1e-3);
    }
    added_close(&a);
}

static void test_refusals(void **state) {
    (void)state;
    static const struct { size_t way; const char *says; } cases[] = {
        {0, "lora_rank adds to a start"},          {0, "dropout is for a delta whose own weights are trained"},
        {0, "l2_start is for training weights"},   {0, "modules are chosen where the model itself is trained"},
        {0, "is no matrix that an adapter"},       {0, "a rank of -1"},
        {2, "wise_ft is 0.5; expanded blocks"},    {2, "soft_mask is for training weights"},
        {2, "no adapter, layers or modules"},      {2, "no adapter, layers or modules"},
        {2, "3 blocks for a model of 2 layers"},   {2, "expand adds to a start"},
        {2, "cut is for a delta whose own weights are trained"},
    };
    added_rig a;
    added_open(&a);
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        cmc_train_opts o = added_opts(&a, cases[i].way);
        cmc_error err = {0};
        switch (i) {
        case 0: case 11: o.init_path = NULL; break;
        case 1: o.dropout = 0.1; break;
        case 2: o.keep.l2_start = 0.1; break;
        case 3: o.train_modules = "up"; break;
        case 4: o.lora_targets = "qkv"; break;
        case 5: o.lora_rank = -1; break;
        case 6: o.keep.wise_ft = 0.5; break;
        case 7: o.keep.soft_mask = a.r.host; break;
        case 8: o.lora_rank = 2; break;
        case 9: o.train_layers = "0-0"; break;
        case 10: o.expand.blocks = 3; break;
        default: o.cut = 1; break;
        }
        if (cmc_train(a.r.rt, &o, NULL, NULL, NULL, &err) != CMC_E_ARG || !strstr(err.message, cases[i].says))
            fail_msg("case %zu: status %d: %s", i, (int)err.status, err.message);
        assert_false(checkpoint_exists(a.r.ckpt));
    }
    added_close(&a);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_saved), cmocka_unit_test(test_frozen), cmocka_unit_test(test_rank),    cmocka_unit_test(test_resume),
        cmocka_unit_test(test_says),  cmocka_unit_test(test_bounded), cmocka_unit_test(test_refusals),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
