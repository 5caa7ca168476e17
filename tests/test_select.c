/* Training some of a model's layers and modules: what a choice means, and that the rest stays the same bytes. */
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
#include "tests/tiny.h"
#include "tests/train_rig.h"
#include "tinylm/select.h"

/* ----------------------------------------------------------------------------------------------- choices */

/* The layers as a row of digits. */
static void check_layers(const char *list, int32_t n_layer, const char *want) {
    selection s;
    cmc_error err = {0};
    cmc_status st = select_parse(list, NULL, n_layer, false, &s, &err);
    if (!want) {
        assert_int_equal(st, CMC_E_ARG);
        assert_non_null(strstr(err.message, "is no choice of layers"));
        return;
    }
    if (st != CMC_OK)
        fail_msg("%s of %d: %s", list, n_layer, err.message);
    for (int32_t i = 0; i < n_layer; i++)
        if (s.layers[i] != want[i] - '0')
            fail_msg("%s of %d: layer %d", list, n_layer, i);
    select_free(&s);
}

static void test_layers(void **state) {
    (void)state;
    check_layers("0-25%", 6, "100000");      /* quarters of six: 0 | 1, 2 | 3 | 4, 5 */
    check_layers("25-50%", 6, "011000");
    check_layers("50-75%", 6, "000100");
    check_layers("75-100%", 6, "000011");
    check_layers("25-50%", 12, "000111000000");
    check_layers("0-100%", 3, "111");
    check_layers("33.4-66.7%", 3, "010");
    check_layers("0", 3, "100");
    check_layers("2-2", 3, "001");
    check_layers("0,2", 3, "101");
    check_layers("1,4-5,0", 6, "110011");
    static const char *const bad[] = {"", "3", "1-3", "2-1", "-1", "0,", ",0", "0,,1", "0 1", "a", "0-", "50%", "50-25%", "0-101%",
                                      "1-30%", "0-50%,2", "0-50", "+1", "nan-50%"};
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++)
        check_layers(bad[i], 3, NULL);
}

static bool has(const char *layers, const char *modules, bool tied, const char *tensor) {
    selection s;
    cmc_error err = {0};
    if (select_parse(layers, modules, 2, tied, &s, &err) != CMC_OK)
        fail_msg("%s", err.message);
    bool yes = select_has(&s, tensor);
    select_free(&s);
    return yes;
}

static void test_modules(void **state) {
    (void)state;
    static const char *const norms[] = {"attn_norm", "ffn_norm", "post_attention_norm", "post_ffw_norm", "attn_q_norm",
                                        "attn_k_norm"};
    char name[48];
    for (size_t i = 0; i < sizeof norms / sizeof *norms; i++) {
        snprintf(name, sizeof name, "blk.1.%s.weight", norms[i]);
        assert_true(has(NULL, "norms", false, name) && !has(NULL, "q,k,v,o,gate,up,down,embeddings,output", true, name));
    }
    assert_true(has(NULL, "q", false, "blk.1.attn_q.weight") && has(NULL, "q", false, "blk.1.attn_q.bias"));
    assert_true(has("1-1", NULL, false, "blk.1.attn_q.weight.lora_a") && !has("0", NULL, false, "blk.1.attn_q.weight.lora_a"));
    assert_true(has(NULL, "o", false, "blk.0.attn_output.weight") && !has(NULL, "q", false, "blk.0.attn_output.weight"));
    assert_true(has(NULL, "up,down", false, "blk.0.ffn_down.weight") && !has(NULL, "up,down", false, "blk.0.ffn_gate.weight"));
    assert_true(has(NULL, NULL, false, "token_embd.weight") && has(NULL, NULL, false, "output_norm.weight"));
    assert_false(has("0-1", NULL, false, "token_embd.weight") || has("0-1", NULL, false, "output_norm.weight"));
    assert_true(has("0", "up,output", false, "output.weight") && has("0", "output", false, "output_norm.weight"));
    assert_false(has(NULL, "output", false, "token_embd.weight"));
    assert_true(has(NULL, "output", true, "token_embd.weight") && has("0", "embeddings", false, "token_embd.weight"));
    assert_false(has("0", "up", false, "blk.1.ffn_up.weight"));
    static const char *const bad[] = {"", "w", "q,,k", "up down", "ffn_up"};
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        selection s;
        cmc_error err = {0};
        assert_int_equal(select_parse(NULL, bad[i], 2, false, &s, &err), CMC_E_ARG);
        assert_non_null(strstr(err.message, "is no module that can be trained: q, k, v, o, gate, up, down, norms, embeddings, "
                                            "output"));
    }
}

/* ------------------------------------------------------------------------------------------------- files */

/* Which tensors differ: every one whose name has one of `moved` in it, and no other. */
static void check_files(const char *before, const char *after, const char *const *moved, size_t n_moved) {
    cmc_error err = {0};
    gguf *a, *b;
    assert_int_equal(gguf_open(before, &a, &err), CMC_OK);
    assert_int_equal(gguf_open(after, &b, &err), CMC_OK);
    assert_int_equal(a->n_tensors, b->n_tensors);
    for (size_t i = 0; i < a->n_tensors; i++) {
        const gguf_tensor *x = &a->tensors[i];
        char *name = cmc_strndup(x->name.s, x->name.n);
        const gguf_tensor *y = gguf_find_tensor(b, name);
        bool want = false;
        assert_non_null(y);
        for (size_t k = 0; k < n_moved; k++)
            want = want || strstr(name, moved[k]) != NULL;
        bool same = x->type == y->type && x->bytes == y->bytes && memcmp(x->data, y->data, x->bytes) == 0;
        if (same == want)
            fail_msg("%s: %s", name, same ? "was to be trained and is the same" : "was to stay and is not the same");
        free(name);
    }
    gguf_free(a);
    gguf_free(b);
}

static cmc_tune_opts tune_opts(const rig *r) {
    cmc_tune_opts o = rig_tune_opts(r);
    o.how.max_steps = 8;
    o.how.train_layers = "50-100%";
    o.how.train_modules = "up,down";
    return o;
}

/* A base's frozen tensors are stored as they were, of whatever type; what is trained is what was scored. */
static void test_base(void **state) {
    (void)state;
    static const uint32_t types[] = {CMC_F32, CMC_Q4_1, CMC_BF16};
    static const char *const moved[] = {"blk.1.ffn_up", "blk.1.ffn_down"};
    for (size_t i = 0; i < 3; i++) {
        rig r;
        cmc_error err = {0};
        rig_open(&r, 2, false);
        tiny_spec spec = {.arch = "llama", .type = types[i], .rope_freqs = true, .seed = 3};
        assert_int_equal(tiny_write(&spec, r.host, &err), CMC_OK);
        cmc_tune_opts o = tune_opts(&r);
        cmc_train_result res = rig_tune(&r, &o, NULL, NULL, CMC_OK);
        assert_int_equal(res.params, 2 * 64 * 96);
        assert_true(res.held_out_steered < res.held_out_host);
        check_files(r.host, r.out, moved, 2);
        char *again = rig_path(&r, "again.gguf");
        cmc_tune_opts next = o;
        next.base = r.out;
        next.how.out_path = again;
        next.how.max_steps = 1;
        cmc_train_result base = rig_tune(&r, &next, NULL, NULL, CMC_OK);
        assert_true(base.held_out_host == res.held_out_steered);
        free(again);
        rig_close(&r);
    }
}

static void test_resume(void **state) {
    (void)state;
    rig r;
    size_t n;
    cmc_error err = {0};
    rig_open(&r, 2, false);
    cmc_tune_opts o = tune_opts(&r);
    cmc_train_result whole = rig_tune(&r, &o, NULL, NULL, CMC_OK);
    uint8_t *want = rig_bytes(r.out, &n);
    for (int64_t stop = 1; stop <= 8; stop += 3) {
        stopper s = {"train", stop, false};
        o.how.resume = false;
        rig_tune(&r, &o, rig_stop, &s, CMC_E_CANCELLED);
        cmc_tune_opts other = o;
        o.how.resume = other.how.resume = true;
        other.how.train_modules = "up";
        assert_int_equal(cmc_tune(r.rt, &other, NULL, NULL, NULL, &err), CMC_E_ARG);
        assert_non_null(strstr(err.message, "was made with \"trained layers 50-100% modules up,down\""));
        cmc_train_result res = rig_tune(&r, &o, NULL, NULL, CMC_OK);
        assert_true(res.resumed && res.held_out_steered == whole.held_out_steered && res.held_out_host == whole.held_out_host);
        rig_assert_same(r.out, want, n);
    }
    free(want);
    rig_close(&r);
}

/* Of a small part the moments and gradients are small too: it fits a bound that the whole does not. */
static void test_memory(void **state) {
    (void)state;
    rig r;
    rig_open(&r, 1, false);
    cmc_tune_opts o = tune_opts(&r);
    o.how.max_steps = 1;
    uint64_t part = rig_tune(&r, &o, NULL, NULL, CMC_OK).memory_planned;
    o.how.train_layers = o.how.train_modules = NULL;
    cmc_train_result whole = rig_tune(&r, &o, NULL, NULL, CMC_OK);
    uint64_t less = 4 * (whole.params - 2 * 64 * 96) * sizeof(float); /* gradient, two moments, the best */
    assert_true(whole.memory_planned - part > less - 4096 && whole.memory_planned - part < less + 4096);
    rig_close(&r);
}

/* A delta's start, too. */
static void test_delta(void **state) {
    (void)state;
    static const char *const moved[] = {"blk.0.attn_v", "blk.0.ffn_norm", "blk.0.attn_norm"};
    rig r;
    cmc_error err = {0};
    rig_open(&r, 2, false);
    cmc_train_opts o = rig_opts(&r);
    o.max_steps = 6;
    o.train_layers = "0";
    assert_int_equal(cmc_train(r.rt, &o, NULL, NULL, NULL, &err), CMC_E_ARG); /* a random start is trained whole */
    o.train_layers = NULL;
    rig_run(&r, &o, NULL, NULL, CMC_OK);
    char *first = rig_path(&r, "first.gguf");
    assert_int_equal(rename(r.out, first), 0);
    o.init_path = first;
    o.train_layers = "0";
    o.train_modules = "v,norms";
    rig_run(&r, &o, NULL, NULL, CMC_OK);
    check_files(first, r.out, moved, 3);
    size_t n;
    uint8_t *want = rig_bytes(r.out, &n);
    stopper s = {"train", 3, false};
    rig_run(&r, &o, rig_stop, &s, CMC_E_CANCELLED);
    o.resume = true;
    o.train_modules = "v";
    assert_int_equal(cmc_train(r.rt, &o, NULL, NULL, NULL, &err), CMC_E_ARG);
    o.train_modules = "v,norms";
    rig_run(&r, &o, NULL, NULL, CMC_OK);
    rig_assert_same(r.out, want, n);
    free(want);
    free(first);
    rig_close(&r);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_layers), cmocka_unit_test(test_modules), cmocka_unit_test(test_base),
        cmocka_unit_test(test_resume), cmocka_unit_test(test_memory),  cmocka_unit_test(test_delta),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
