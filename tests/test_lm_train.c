/* Tuning models by themselves: the loss falls, runs go on exactly where they stopped, what is saved is what was
 * trained, and adapters beside a model, merged into it, or left out give what they should. */
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

static cmc_tune_opts tune_opts(const rig *r, int32_t rank) {
    cmc_tune_opts o = rig_tune_opts(r);
    o.how.lora_rank = rank;
    o.how.max_steps = STEPS;
    o.how.lr = rank ? 1e-2 : o.how.lr;
    return o;
}

static cmc_model *open_model(cmc_runtime *rt, const char *path) {
    cmc_error err = {0};
    cmc_model *m;
    if (cmc_model_open(rt, path, &m, &err) != CMC_OK)
        fail_msg("%s", err.message);
    return m;
}

static void add_lora(cmc_model *m, const char *path, double scale) {
    cmc_error err = {0};
    if (cmc_model_add_lora(m, path, scale, &err) != CMC_OK)
        fail_msg("%s", err.message);
}

static void save_model(const cmc_model *m, const char *path, const char *type) {
    cmc_error err = {0};
    if (cmc_model_save(m, path, type, &err) != CMC_OK)
        fail_msg("%s", err.message);
}

enum { PROMPT = 40 };

/* Logits after each of PROMPT ids; `beside` others of the same ids are in the batch. The caller frees them. */
static float *logits_of(cmc_model *m, size_t beside) {
    cmc_error err = {0};
    cmc_session *s[4];
    cmc_eval_item item[4];
    int32_t ids[PROMPT];
    size_t n = PROMPT * (size_t)cmc_model_n_vocab(m);
    float *out = cmc_alloc(n, sizeof *out), *other = cmc_alloc((size_t)cmc_model_n_vocab(m), sizeof *other);
    for (int32_t i = 0; i < PROMPT; i++)
        ids[i] = (i * 37 + 11) % cmc_model_n_vocab(m);
    for (size_t k = 0; k <= beside; k++) {
        assert_int_equal(cmc_session_new(m, 0, &s[k], &err), CMC_OK);
        assert_int_equal(cmc_session_sync(s[k], ids, k ? PROMPT / 2 : PROMPT, &err), CMC_OK);
        item[k] = k ? (cmc_eval_item){s[k], CMC_WANT_LOGITS, 1, other}
                    : (cmc_eval_item){s[k], CMC_WANT_LOGITS, PROMPT, out};
    }
    assert_int_equal(cmc_eval(m, item, beside + 1, &err), CMC_OK);
    for (size_t k = 0; k <= beside; k++)
        cmc_session_free(s[k]);
    free(other);
    return out;
}

/* The largest difference of two models' logits over the largest logit. */
static double logits_off(cmc_model *a, cmc_model *b) {
    float *x = logits_of(a, 0), *y = logits_of(b, 0);
    double off = 0.0, most = 0.0;
    for (size_t i = 0; i < PROMPT * (size_t)cmc_model_n_vocab(a); i++) {
        off = fmax(off, fabs((double)x[i] - (double)y[i]));
        most = fmax(most, fabs((double)x[i]));
    }
    free(x);
    free(y);
    return off / most;
}

/* ------------------------------------------------------------------------------------------------- runs */

/* What a file that was written holds is what was trained: it scores the held-out records as the run did. */
static void test_learns(void **state) {
    (void)state;
    rig r;
    rig_open(&r, 2, false);
    char *merged = rig_path(&r, "merged.gguf");
    for (int32_t rank = 0; rank <= 4; rank += 4) {
        cmc_tune_opts o = tune_opts(&r, rank);
        cmc_train_result res = rig_tune(&r, &o, NULL, NULL, CMC_OK);
        assert_true(res.held_out_steered < res.held_out_host - 0.5);
        assert_true(res.finished && res.steps == STEPS && res.tokens > 0 && res.records_held_out > 0);
        cmc_tune_opts again = tune_opts(&r, 1);
        again.base = r.out;
        again.how.out_path = rig_path(&r, "again.gguf");
        again.how.checkpoint_path = r.ckpt;
        again.how.max_steps = 1;
        if (rank) {
            cmc_model *m = open_model(r.rt, r.host);
            add_lora(m, r.out, 1.0);
            save_model(m, merged, "f32");
            cmc_model_free(m);
            again.base = merged;
        }
        cmc_train_result base = rig_tune(&r, &again, NULL, NULL, CMC_OK);
        double off = fabs(base.held_out_host - res.held_out_steered);
        if (!(rank ? off < 1e-4 : off == 0.0))
            fail_msg("rank %d: trained to %.9g, saved %.9g", rank, res.held_out_steered, base.held_out_host);
        free((char *)(uintptr_t)again.how.out_path);
    }
    free(merged);
    rig_close(&r);
}

static void test_exact_resume(void **state) {
    (void)state;
    rig r;
    rig_open(&r, 2, false);
    rig_tune_resumes(&r, tune_opts(&r, 0));
    rig_tune_resumes(&r, tune_opts(&r, 3));
    rig_close(&r);
}

/* A checkpoint is not taken over by a run with other settings, nor overwritten by a new one. */
static void test_whose_checkpoint(void **state) {
    (void)state;
    rig r;
    rig_open(&r, 2, false);
    cmc_tune_opts o = tune_opts(&r, 3);
    stopper s = {"train", 2, false};
    rig_tune(&r, &o, rig_stop, &s, CMC_E_CANCELLED);
    rig_tune(&r, &o, NULL, NULL, CMC_E_ARG);
    o.how.resume = true;
    for (int i = 0; i < 4; i++) {
        cmc_tune_opts other = o;
        other.how.lora_rank = i == 0 ? 4 : 3;
        other.how.lora_alpha = i == 1 ? 7.0 : 0.0;
        other.how.lora_targets = i == 2 ? "q,v" : NULL;
        other.how.lr = i == 3 ? 1e-4 : o.how.lr;
        cmc_error err = {0};
        assert_int_equal(cmc_tune(r.rt, &other, NULL, NULL, NULL, &err), CMC_E_ARG);
        assert_non_null(strstr(err.message, "was made with"));
    }
    rig_tune(&r, &o, NULL, NULL, CMC_OK);
    rig_close(&r);
}

static void test_refusals(void **state) {
    (void)state;
    rig r;
    rig_open(&r, 1, false);
    const char *hosts[1] = {r.host};
    for (int i = 0; i < 12; i++) {
        cmc_tune_opts o = tune_opts(&r, 2);
        cmc_error err = {0};
        cmc_status want = CMC_E_ARG;
        switch (i) {
        case 0: o.how.hosts = hosts; o.how.n_hosts = 1; break;
        case 1: o.how.objective = "rl"; break;
        case 2: o.how.dropout = 0.1; break;
        case 3: o.how.init_path = r.host; break;
        case 4: o.how.n_embd = 32; break;
        case 5: o.how.out_path = r.host; break;
        case 6: o.how.out_path = r.data; break;
        case 7: o.how.lora_rank = -1; break;
        case 8: o.how.lora_targets = "qkv"; break;
        case 9: o.how.save_type = "q4_0"; break;
        case 10: o.how.memory = 1 << 20; want = CMC_E_NOMEM; break;
        default: o.base = r.data; want = CMC_E_FORMAT; break;
        }
        if (cmc_tune(r.rt, &o, NULL, NULL, NULL, &err) != want || err.message[0] == '\0')
            fail_msg("case %d: status %d: %s", i, (int)err.status, err.message);
        assert_false(checkpoint_exists(r.ckpt));
    }
    rig_close(&r);
}

/* A bound on memory cuts the work, not the result but for rounding; a bound below the least is refused with figures. */
static void test_memory(void **state) {
    (void)state;
    rig r;
    rig_open(&r, 2, false);
    rig_tune_bounded(&r, tune_opts(&r, 3));
    rig_close(&r);
}

static void test_diverges(void **state) {
    (void)state;
    rig r;
    cmc_error err = {0};
    rig_open(&r, 2, false);
    cmc_tune_opts o = tune_opts(&r, 0);
    o.how.lr = 10.0;
    o.how.warmup = 0.0;
    o.how.weight_decay = 100.0;
    o.how.max_steps = 400;
    assert_int_equal(cmc_tune(r.rt, &o, NULL, NULL, NULL, &err), CMC_E_DIVERGED);
    assert_non_null(strstr(err.message, "lower lr"));
    assert_non_null(strstr(err.message, "step "));
    assert_true(access(r.out, F_OK) != 0);
    rig_close(&r);
}

/* --------------------------------------------------------------------------------------------- adapters */

static const struct {
    const char *name;
    tiny_spec spec;
} families[] = {
    {"llama", {.arch = "llama", .type = CMC_F32, .seed = 3}},
    {"llama q8_0, odd widths", {.arch = "llama", .type = CMC_Q8_0, .head_k = 8, .head_v = 24, .n_ff = 160, .seed = 4}},
    {"qwen2 f16", {.arch = "qwen2", .type = CMC_F16, .tied = true, .seed = 5}},
    {"qwen3", {.arch = "qwen3", .type = CMC_F32, .n_embd = 40, .seed = 6}},
    {"gemma3", {.arch = "gemma3", .type = CMC_F32, .swa_window = 8, .swa_period = 2, .tied = true, .seed = 7}},
};
enum { FAMILIES = sizeof families / sizeof *families };

/* Beside the model, merged into it, twice by half: the same logits; left out: the base's, bit for bit. */
static void check_adapter(const rig *r, cmc_runtime *rt, const char *name, double bound) {
    cmc_model *base = open_model(rt, r->host), *with = open_model(rt, r->host), *none = open_model(rt, r->host);
    cmc_model *twice = open_model(rt, r->host), *half = open_model(rt, r->host);
    char *path = rig_path(r, "merged.gguf");
    add_lora(with, r->out, 1.0);
    add_lora(none, r->out, 0.0);
    add_lora(twice, r->out, 0.5);
    add_lora(half, r->out, 0.5);
    add_lora(twice, r->out, 0.5);
    save_model(with, path, "f32");
    cmc_model *merged = open_model(rt, path);
    double off = logits_off(with, merged), moved = logits_off(with, base), two = logits_off(with, twice);
    if (!(off < bound && two < bound && moved > 0.02 && moved > 4 * bound))
        fail_msg("%s: merged differs by %g, twice half by %g, the base by %g", name, off, two, moved);
    assert_true(logits_off(base, none) == 0.0);
    assert_true(logits_off(half, with) > 0.0);
    assert_string_equal(cmc_model_hash(base), cmc_model_hash(none));
    assert_string_not_equal(cmc_model_hash(base), cmc_model_hash(with));
    assert_string_not_equal(cmc_model_hash(half), cmc_model_hash(with));
    assert_string_not_equal(cmc_model_hash(half), cmc_model_hash(twice));
    cmc_model *const all[] = {base, with, none, twice, half, merged};
    for (size_t i = 0; i < 6; i++)
        cmc_model_free(all[i]);
    free(path);
}

static void test_adapters(void **state) {
    (void)state;
    for (size_t k = 0; k < FAMILIES; k++) {
        rig r;
        cmc_error err = {0};
        cmc_runtime_opts ro = {.threads = 2, .exact = true};
        cmc_runtime *exact;
        rig_open(&r, 2, false);
        assert_int_equal(tiny_write(&families[k].spec, r.host, &err), CMC_OK);
        assert_int_equal(cmc_runtime_open(&ro, &exact, &err), CMC_OK);
        cmc_tune_opts o = tune_opts(&r, k == 1 ? 1 : 5);
        o.how.save_type = k == 2 ? "f16" : "q8_0"; /* of an adapter: f32 */
        rig_tune(&r, &o, NULL, NULL, CMC_OK);
        check_adapter(&r, exact, families[k].name, 2e-5);
        check_adapter(&r, r.rt, families[k].name, families[k].spec.type == CMC_Q8_0 ? 2e-2 : 2e-4);
        cmc_runtime_free(exact);
        rig_close(&r);
    }
}

/* With an adapter too a sequence's logits do not depend on what else is in the batch: where the model is exact, and
 * where it is quantised and the batch too small for BLAS. */
static void test_batch(void **state) {
    (void)state;
    rig r;
    cmc_error err = {0};
    tiny_spec spec = {.arch = "llama", .type = CMC_Q8_0, .seed = 3};
    rig_open(&r, 2, false);
    assert_int_equal(tiny_write(&spec, r.host, &err), CMC_OK);
    cmc_tune_opts o = tune_opts(&r, 4);
    rig_tune(&r, &o, NULL, NULL, CMC_OK);
    for (int exact = 0; exact < 2; exact++) {
        cmc_runtime_opts ro = {.threads = 2, .exact = exact == 1, .batches = CMC_BATCHES_FLOAT};
        cmc_runtime *rt;
        assert_int_equal(cmc_runtime_open(&ro, &rt, &err), CMC_OK);
        rt->gemm_min_cols = SIZE_MAX;
        cmc_model *m = open_model(rt, r.host);
        add_lora(m, r.out, 1.0);
        float *alone = logits_of(m, 0), *together = logits_of(m, 3);
        assert_memory_equal(alone, together, PROMPT * (size_t)cmc_model_n_vocab(m) * sizeof *alone);
        free(alone);
        free(together);
        cmc_model_free(m);
        cmc_runtime_free(rt);
    }
    rig_close(&r);
}

/* A saved model keeps the tokenizer and the keys of its base and, in the type that has, its logits. */
static void test_save(void **state) {
    (void)state;
    static const char *const types[] = {"f32", "f16", "q8_0"};
    static const uint32_t numbers[] = {CMC_F32, CMC_F16, CMC_Q8_0};
    rig r;
    cmc_error err = {0};
    rig_open(&r, 1, true);
    for (size_t i = 0; i < 3; i++) {
        tiny_spec spec = {.arch = "gemma3", .type = numbers[i], .swa_window = 8, .chat_template = "{{ x }}", .seed = 9};
        assert_int_equal(tiny_write(&spec, r.host, &err), CMC_OK);
        cmc_model *a = open_model(r.rt, r.host);
        save_model(a, r.out, types[i]);
        cmc_model *b = open_model(r.rt, r.out);
        assert_true(logits_off(a, b) == 0.0);
        assert_true(cmc_vocab_equal(cmc_model_vocab(a), cmc_model_vocab(b)));
        assert_string_equal(cmc_vocab_chat_template(cmc_model_vocab(b)), "{{ x }}");
        assert_string_equal(cmc_model_name(a), cmc_model_name(b));
        assert_int_equal(cmc_model_save(a, r.out, "q5_1", &err), CMC_E_ARG);
        cmc_model_free(a);
        cmc_model_free(b);
    }
    rig_close(&r);
}

/* An adapter file with something wrong with it: each is refused by a message that names the file. */
typedef struct bad {
    const char *type, *kind, *arch, *a, *b;
    uint64_t a_in, a_rank, b_rank, b_out;
    bool switched, nan_alpha;
    cmc_status want;
} bad;

static void write_adapter(const char *path, const bad *x) {
    static float zeros[64 * 96];
    cmc_error err = {0};
    gguf_writer *w = gguf_writer_new();
    uint64_t a[2] = {x->a_in, x->a_rank}, b[2] = {x->b_rank, x->b_out};
    uint32_t ids[2] = {1, 2};
    gguf_put_str(w, "general.type", x->type, strlen(x->type));
    gguf_put_str(w, "adapter.type", x->kind, strlen(x->kind));
    gguf_put_str(w, "general.architecture", x->arch, strlen(x->arch));
    gguf_put_f32(w, "adapter.lora.alpha", x->nan_alpha ? NAN : 4.0f);
    if (x->switched)
        gguf_put_array(w, "adapter.alora.invocation_tokens", GGUF_U32, ids, 2);
    if (x->a)
        gguf_put_tensor(w, x->a, CMC_F32, a, 2, zeros);
    if (x->b)
        gguf_put_tensor(w, x->b, CMC_F32, b, 2, zeros);
    assert_int_equal(gguf_writer_save(w, path, &err), CMC_OK);
    gguf_writer_free(w);
}

static void test_bad_adapters(void **state) {
    (void)state;
    static const char qa[] = "blk.0.attn_q.weight.lora_a", qb[] = "blk.0.attn_q.weight.lora_b";
    static const bad cases[] = {
        {"adapter", "lora", "llama", qa, qb, 64, 2, 2, 64, false, false, CMC_OK},
        {"model", "lora", "llama", qa, qb, 64, 2, 2, 64, false, false, CMC_E_FORMAT},
        {"adapter", "control_vector", "llama", qa, qb, 64, 2, 2, 64, false, false, CMC_E_UNSUPPORTED},
        {"adapter", "lora", "gemma3", qa, qb, 64, 2, 2, 64, false, false, CMC_E_ARG},
        {"adapter", "lora", "llama", qa, NULL, 64, 2, 2, 64, false, false, CMC_E_FORMAT},
        {"adapter", "lora", "llama", NULL, qb, 64, 2, 2, 64, false, false, CMC_E_FORMAT},
        {"adapter", "lora", "llama", NULL, NULL, 64, 2, 2, 64, false, false, CMC_E_FORMAT},
        {"adapter", "lora", "llama", qa, qb, 32, 2, 2, 64, false, false, CMC_E_FORMAT},
        {"adapter", "lora", "llama", qa, qb, 64, 2, 3, 64, false, false, CMC_E_FORMAT},
        {"adapter", "lora", "llama", qa, qb, 64, 2, 2, 32, false, false, CMC_E_FORMAT},
        {"adapter", "lora", "llama", qa, qb, 64, 2, 2, 64, true, false, CMC_E_UNSUPPORTED},
        {"adapter", "lora", "llama", qa, qb, 64, 2, 2, 64, false, true, CMC_E_FORMAT},
        {"adapter", "lora", "llama", "blk.9.attn_q.weight.lora_a", "blk.9.attn_q.weight.lora_b", 64, 2, 2, 64, false,
         false, CMC_E_UNSUPPORTED},
        {"adapter", "lora", "llama", "blk.-1.attn_q.weight.lora_a", "blk.-1.attn_q.weight.lora_b", 64, 2, 2, 64, false,
         false, CMC_E_UNSUPPORTED},
        {"adapter", "lora", "llama", "token_embd.weight.lora_a", "token_embd.weight.lora_b", 64, 2, 2, 64, false, false,
         CMC_E_UNSUPPORTED},
        {"adapter", "lora", "llama", qa, "blk.0.attn_norm.weight", 64, 2, 2, 64, false, false, CMC_E_FORMAT},
        {"adapter", "lora", "llama", ".lora_a", ".lora_b", 64, 2, 2, 64, false, false, CMC_E_UNSUPPORTED},
    };
    rig r;
    rig_open(&r, 1, true);
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        cmc_error err = {0};
        cmc_model *m = open_model(r.rt, r.host);
        write_adapter(r.out, &cases[i]);
        cmc_status st = cmc_model_add_lora(m, r.out, 1.0, &err);
        if (st != cases[i].want)
            fail_msg("case %zu: status %d, wanted %d: %s", i, (int)st, (int)cases[i].want, err.message);
        if (st != CMC_OK)
            assert_memory_equal(err.message, r.out, strlen(r.out));
        cmc_model_free(m);
    }
    rig_close(&r);
}

/* Damage of any kind is refused or harmless: never a crash (run under a sanitiser). */
static void test_damaged_adapters(void **state) {
    (void)state;
    rig r;
    cmc_error err = {0};
    rig_open(&r, 1, true);
    bad good = {"adapter", "lora", "llama", "blk.0.attn_q.weight.lora_a", "blk.0.attn_q.weight.lora_b", 64, 2, 2, 64,
                false, false, CMC_OK};
    write_adapter(r.out, &good);
    for (int64_t bit = 0; bit < 8 * 420; bit += 3) {
        cmc_model *m = open_model(r.rt, r.host);
        assert_int_equal(tiny_damage(r.out, r.log, -1, bit, &err), CMC_OK);
        if (cmc_model_add_lora(m, r.log, 1.0, &err) == CMC_OK)
            free(logits_of(m, 0));
        cmc_model_free(m);
    }
    rig_close(&r);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_learns),           cmocka_unit_test(test_exact_resume),
        cmocka_unit_test(test_whose_checkpoint), cmocka_unit_test(test_refusals),
        cmocka_unit_test(test_memory),           cmocka_unit_test(test_diverges),
        cmocka_unit_test(test_adapters),         cmocka_unit_test(test_batch),
        cmocka_unit_test(test_save),             cmocka_unit_test(test_bad_adapters),
        cmocka_unit_test(test_damaged_adapters),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
