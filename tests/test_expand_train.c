/* Runs that expand a model: the loss falls and the base stays the same bytes, runs go on exactly where they stopped, what is
 * saved is what was trained, and what folding the blocks in keeps of it. */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include <cmocka.h>

#include "base/mem.h"
#include "runtime/model.h"
#include "tests/tiny.h"
#include "tests/train_rig.h"

enum { STEPS = 12 };

static cmc_tune_opts expand_opts(const rig *r, const char *kind, const char *merge, const char *align) {
    cmc_tune_opts o = rig_tune_opts(r);
    o.how.expand.kind = kind;
    o.how.expand.blocks = 2;
    o.how.expand.merge = merge;
    o.how.expand.align = align;
    o.how.expand.align_weight = 0.3;
    o.how.max_steps = STEPS;
    return o;
}

static const struct { const char *kind, *merge, *align; bool learn; } ways[] = {
    {"concat", "lerp", "mse", false},       {"concat", "lerp", "none", true},  {"concat", "dlerp", "relative", true},
    {"concat", "dlerpin", "cosine", false}, {"concat", "slerp", "mse", true},  {"stack", "lerp", "none", false},
    {"hybrid", "dlerp", "relative", false},
};
enum { WAYS = sizeof ways / sizeof *ways };

static cmc_tune_opts opts_of(const rig *r, size_t way) {
    cmc_tune_opts o = expand_opts(r, ways[way].kind, ways[way].merge, ways[way].align);
    o.how.expand.learn_share = ways[way].learn;
    return o;
}

/* NLL per response token of all records, under that strength. */
static double score_of(const rig *r, const char *path, double strength) {
    cmc_error err = {0};
    cmc_model *m;
    cmc_steering *st;
    cmc_records records = {0};
    double nll = 0.0;
    size_t n = 0;
    if (cmc_model_open(r->rt, path, &m, &err) != CMC_OK)
        fail_msg("%s", err.message);
    assert_int_equal(cmc_steering_new(m, &(cmc_steering_opts){.host_template = CMC_TMPL_PLAIN}, &st, &err), CMC_OK);
    assert_int_equal(cmc_steering_set_expand(st, strength, &err), CMC_OK);
    assert_int_equal(cmc_records_read(r->data, true, &records, &err), CMC_OK);
    for (size_t i = 0; i < records.n; i++) {
        cmc_score s;
        assert_int_equal(cmc_score_record(st, &records.v[i], NULL, 0, &s, &err), CMC_OK);
        for (size_t k = 0; k < s.n; k++)
            nll -= (double)s.host_logprob[k];
        n += s.n;
        cmc_score_free(&s);
    }
    cmc_records_free(&records);
    cmc_steering_free(st);
    cmc_model_free(m);
    return nll / (double)n;
}

/* Every tensor of the base is in the new file, of the same type, with the same bytes; what else is there is the blocks'. */
static void assert_base_kept(const char *base, const char *path) {
    cmc_error err = {0};
    gguf *a, *b;
    size_t same = 0, more = 0;
    assert_int_equal(gguf_open(base, &a, &err), CMC_OK);
    assert_int_equal(gguf_open(path, &b, &err), CMC_OK);
    for (size_t i = 0; i < b->n_tensors; i++) {
        const gguf_tensor *t = &b->tensors[i], *u = NULL;
        for (size_t k = 0; k < a->n_tensors; k++)
            if (a->tensors[k].name.n == t->name.n && memcmp(a->tensors[k].name.s, t->name.s, t->name.n) == 0)
                u = &a->tensors[k];
        more += u == NULL;
        assert_true((u == NULL) == expand_owns(t->name));
        if (!u)
            continue;
        assert_true(u->type == t->type && u->bytes == t->bytes);
        assert_memory_equal(u->data, t->data, t->bytes);
        same++;
    }
    assert_true(same == a->n_tensors && more > 0);
    gguf_free(a);
    gguf_free(b);
}

static void test_learns(void **state) {
    (void)state;
    rig r;
    rig_open(&r, 2, false);
    double before = score_of(&r, r.host, 1);
    for (size_t k = 0; k < WAYS; k++) {
        cmc_tune_opts o = opts_of(&r, k);
        cmc_train_result res = rig_tune(&r, &o, NULL, NULL, CMC_OK);
        assert_true(res.finished && res.steps == STEPS && res.records_held_out > 0);
        if (!(res.held_out_steered < res.held_out_host - 0.2))
            fail_msg("way %zu: %g before, %g after", k, res.held_out_host, res.held_out_steered);
        assert_base_kept(r.host, r.out);
        assert_true(score_of(&r, r.out, 0) == before);
        assert_true(score_of(&r, r.out, 1) < before - 0.2);
        double half = score_of(&r, r.out, 0.5);
        assert_true(half != before && isfinite(half));
    }
    rig_close(&r);
}

/* A base that is quantised stays so; blocks are stored as they are asked to be. */
static void test_types(void **state) {
    (void)state;
    static const char *const types[] = {"f32", "f16", "q8_0"};
    static const uint32_t numbers[] = {CMC_F32, CMC_F16, CMC_Q8_0};
    rig r;
    cmc_error err = {0};
    rig_open(&r, 2, false);
    for (size_t i = 0; i < 3; i++) {
        tiny_spec spec = {.arch = i == 1 ? "gemma3" : "qwen2", .type = CMC_Q4_1, .swa_window = i == 1 ? 8 : 0, .seed = 4};
        assert_int_equal(tiny_write(&spec, r.host, &err), CMC_OK);
        cmc_tune_opts o = opts_of(&r, 2);
        o.how.save_type = types[i];
        rig_tune(&r, &o, NULL, NULL, CMC_OK);
        assert_base_kept(r.host, r.out);
        gguf *g;
        assert_int_equal(gguf_open(r.out, &g, &err), CMC_OK);
        assert_int_equal(gguf_find_tensor(g, "blk.1.cmc_expand.ffn_down.weight")->type, numbers[i]);
        assert_int_equal(gguf_find_tensor(g, "blk.1.cmc_expand.ffn_norm.weight")->type, CMC_F32);
        assert_int_equal(gguf_find_tensor(g, "blk.0.cmc_merge.weight")->type, CMC_F32);
        assert_int_equal(gguf_find_tensor(g, "blk.0.attn_q.weight")->type, CMC_Q4_1);
        gguf_free(g);
        assert_true(score_of(&r, r.out, 0) == score_of(&r, r.host, 1));
    }
    rig_close(&r);
}

/* With nothing frozen all of a quantised base is trained and stored anew, and the file still is an expanded model. */
static void test_unfrozen(void **state) {
    (void)state;
    rig r;
    cmc_error err = {0};
    rig_open(&r, 2, false);
    tiny_spec spec = {.arch = "qwen2", .type = CMC_Q4_1, .seed = 4};
    assert_int_equal(tiny_write(&spec, r.host, &err), CMC_OK);
    cmc_tune_opts o = opts_of(&r, 0);
    cmc_train_result frozen = rig_tune(&r, &o, NULL, NULL, CMC_OK);
    double kept = score_of(&r, r.out, 0);
    o.how.expand.unfrozen = true;
    cmc_train_result res = rig_tune(&r, &o, NULL, NULL, CMC_OK);
    assert_true(res.params > 2 * frozen.params && res.held_out_steered < res.held_out_host - 0.2);
    assert_true(score_of(&r, r.out, 0) < kept - 0.1);
    gguf *g;
    assert_int_equal(gguf_open(r.out, &g, &err), CMC_OK);
    assert_int_equal(gguf_find_tensor(g, "blk.0.attn_q.weight")->type, CMC_F32);
    gguf_free(g);
    rig_close(&r);
}

static void test_exact_resume(void **state) {
    (void)state;
    rig r;
    rig_open(&r, 2, false);
    for (size_t k = 2; k < WAYS; k += 4)
        rig_tune_resumes(&r, opts_of(&r, k));
    cmc_tune_opts o = opts_of(&r, 0);
    o.how.expand.unfrozen = true;
    rig_tune_resumes(&r, o);
    rig_close(&r);
}

/* A checkpoint is for its own blocks, merge and alignment alone. */
static void test_whose_checkpoint(void **state) {
    (void)state;
    rig r;
    rig_open(&r, 2, false);
    cmc_tune_opts o = opts_of(&r, 0);
    stopper s = {"train", 2, false};
    rig_tune(&r, &o, rig_stop, &s, CMC_E_CANCELLED);
    o.how.resume = true;
    for (int i = 0; i < 10; i++) {
        cmc_tune_opts other = o;
        cmc_error err = {0};
        switch (i) {
        case 0: other.how.expand.kind = NULL; break;
        case 1: other.how.expand.kind = "hybrid"; break;
        case 2: other.how.expand.blocks = 1; break;
        case 3: other.how.expand.merge = "slerp"; break;
        case 4: other.how.expand.share = 0.4; break;
        case 5: other.how.expand.learn_share = true; break;
        case 6: other.how.expand.align = "cosine"; break;
        case 7: other.how.expand.align_weight = 0.4; break;
        case 8: other.how.expand.unfrozen = true; break;
        default: other.how.expand.align_through = true; break;
        }
        if (cmc_tune(r.rt, &other, NULL, NULL, NULL, &err) != CMC_E_ARG || !strstr(err.message, "was made with"))
            fail_msg("case %d: %s", i, err.message);
    }
    rig_tune(&r, &o, NULL, NULL, CMC_OK);
    rig_close(&r);
}

static void test_refusals(void **state) {
    (void)state;
    rig r;
    rig_open(&r, 1, false);
    for (int i = 0; i < 13; i++) {
        cmc_tune_opts o = opts_of(&r, 0);
        cmc_error err = {0};
        cmc_status want = CMC_E_ARG;
        switch (i) {
        case 0: o.how.expand.kind = "beside"; break;
        case 1: o.how.expand.merge = "prog"; break;
        case 2: o.how.expand.align = "dot"; break;
        case 3: o.how.expand.blocks = 3; break;
        case 4: o.how.expand.blocks = 0; break;
        case 5: o.how.expand.share = 1.0; break;
        case 6: o.how.expand.share = 0.0; break;
        case 7: o.how.expand.align_weight = -1.0; break;
        case 8: o.how.lora_rank = 2; break;
        case 9: o.how.train_layers = "0"; break;
        case 10: o.how.keep.soft_mask = r.data; break;
        case 11: o.how.expand.align_weight = NAN; break;
        default: o.how.memory = 1 << 20; want = CMC_E_NOMEM; break;
        }
        if (cmc_tune(r.rt, &o, NULL, NULL, NULL, &err) != want || err.message[0] == '\0')
            fail_msg("case %d: status %d: %s", i, (int)err.status, err.message);
        assert_false(checkpoint_exists(r.ckpt));
    }
    cmc_tune_opts o = opts_of(&r, 0);
    rig_tune(&r, &o, NULL, NULL, CMC_OK);
    char *again = rig_path(&r, "again.gguf");
    o.base = r.out;
    o.how.out_path = again;
    o.how.checkpoint_path = r.ckpt;
    rig_tune(&r, &o, NULL, NULL, CMC_E_UNSUPPORTED); /* expanded already */
    free(again);
    rig_close(&r);
}

/* A bound on memory cuts the work, not the result but for rounding. */
static void test_memory(void **state) {
    (void)state;
    rig r;
    rig_open(&r, 2, false);
    rig_tune_bounded(&r, opts_of(&r, 2));
    rig_close(&r);
}

/* -------------------------------------------------------------------------------------------------------- folding */

static void fold(const rig *r, double strength, const char *to, const char *type, cmc_status want) {
    cmc_error err = {0};
    cmc_model *m;
    assert_int_equal(cmc_model_open(r->rt, r->out, &m, &err), CMC_OK);
    cmc_status st = cmc_model_save_folded(m, strength, to, type, &err);
    if (st != want)
        fail_msg("status %d, wanted %d: %s", (int)st, (int)want, err.message);
    cmc_model_free(m);
}

/* No block is left, and the file is as many layers deep as it should be. */
static void assert_ordinary(const rig *r, const char *path, int32_t layers) {
    cmc_error err = {0};
    cmc_model *m;
    cmc_expand_info x;
    if (cmc_model_open(r->rt, path, &m, &err) != CMC_OK)
        fail_msg("%s", err.message);
    assert_false(cmc_model_expand(m, &x));
    assert_int_equal(m->p.n_layer, layers);
    for (size_t i = 0; i < m->parts[0]->n_kv; i++)
        assert_false(expand_owns(m->parts[0]->kv[i].key));
    cmc_model_free(m);
}

/* Blocks beside layers, averaged with them: little is lost of what was learnt, nothing of the base where they do not count. */
static void test_fold_lerp(void **state) {
    (void)state;
    rig r;
    rig_open(&r, 2, false);
    char *folded = rig_path(&r, "folded.gguf");
    double before = score_of(&r, r.host, 1);
    cmc_tune_opts o = opts_of(&r, 0);
    rig_tune(&r, &o, NULL, NULL, CMC_OK);
    double with = score_of(&r, r.out, 1);
    fold(&r, 1, folded, "f32", CMC_OK);
    assert_ordinary(&r, folded, 2);
    double after = score_of(&r, folded, 1);
    if (!(after < before - 0.5 * (before - with) && after != with))
        fail_msg("%g before, %g with blocks, %g folded", before, with, after);
    fold(&r, 0, folded, "f32", CMC_OK);
    assert_true(score_of(&r, folded, 1) == before);
    fold(&r, 0.5, folded, "q8_0", CMC_OK);
    double half = score_of(&r, folded, 1);
    assert_true(half < before && half > after);
    free(folded);
    rig_close(&r);
}

/* Blocks behind layers become layers: the same numbers. */
static void test_fold_stack(void **state) {
    (void)state;
    rig r;
    rig_open(&r, 2, true);
    char *folded = rig_path(&r, "folded.gguf");
    cmc_tune_opts o = opts_of(&r, 5);
    rig_tune(&r, &o, NULL, NULL, CMC_OK);
    fold(&r, 1, folded, "f32", CMC_OK);
    assert_ordinary(&r, folded, 4);
    assert_true(score_of(&r, folded, 1) == score_of(&r, r.out, 1));
    fold(&r, 0.5, folded, "f32", CMC_E_UNSUPPORTED);
    o = expand_opts(&r, "hybrid", "lerp", "mse");
    o.how.fresh = true;
    rig_tune(&r, &o, NULL, NULL, CMC_OK);
    fold(&r, 1, folded, "f32", CMC_OK);
    assert_ordinary(&r, folded, 3);
    double with = score_of(&r, r.out, 1), before = score_of(&r, r.host, 1), after = score_of(&r, folded, 1);
    assert_true(after < before - 0.5 * (before - with));
    free(folded);
    rig_close(&r);
}

static void test_fold_refusals(void **state) {
    (void)state;
    rig r;
    cmc_error err = {0};
    rig_open(&r, 1, false);
    char *folded = rig_path(&r, "folded.gguf");
    tiny_spec spec = {.arch = "llama", .type = CMC_F32, .expand = "concat", .expand_merge = "dlerp"};
    static const char *const merges[] = {"dlerp", "dlerpin", "slerp"};
    for (size_t i = 0; i < 3; i++) {
        spec.expand_merge = merges[i];
        assert_int_equal(tiny_write(&spec, r.out, &err), CMC_OK);
        fold(&r, 1, folded, "f32", CMC_E_UNSUPPORTED);
    }
    spec.expand_merge = NULL;
    assert_int_equal(tiny_write(&spec, r.out, &err), CMC_OK);
    fold(&r, NAN, folded, "f32", CMC_E_ARG);
    fold(&r, 1, folded, "q4_0", CMC_E_ARG);
    spec.expand = NULL;
    assert_int_equal(tiny_write(&spec, r.out, &err), CMC_OK);
    fold(&r, 1, folded, "f32", CMC_E_ARG); /* not expanded */
    spec = (tiny_spec){.arch = "gemma3", .type = CMC_F32, .expand = "stack", .swa_window = 8, .swa_period = 2};
    assert_int_equal(tiny_write(&spec, r.out, &err), CMC_OK);
    fold(&r, 1, folded, "f32", CMC_E_UNSUPPORTED);
    assert_true(access(folded, F_OK) != 0);
    free(folded);
    rig_close(&r);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_learns),    cmocka_unit_test(test_types), cmocka_unit_test(test_unfrozen),      cmocka_unit_test(test_exact_resume),
        cmocka_unit_test(test_whose_checkpoint), cmocka_unit_test(test_refusals), cmocka_unit_test(test_memory),
        cmocka_unit_test(test_fold_lerp), cmocka_unit_test(test_fold_stack), cmocka_unit_test(test_fold_refusals),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
