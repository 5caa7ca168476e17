/* Expanded models at run time: every kind and merge against the reference, the base's bits where the blocks are left out,
 * sessions of different strengths in one batch, and files that are refused. */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "base/mem.h"
#include "cmc.h"
#include "runtime/expand.h"
#include "tests/reference.h"
#include "tests/steered.h"

typedef struct fixture {
    char *dir;
    cmc_runtime *exact, *fast, *half; /* fast: caches in float32 */
} fixture;

static void ok(cmc_status st, const cmc_error *err) {
    if (st != CMC_OK)
        fail_msg("%s", err->message);
}

static int set_up(void **state) {
    static fixture f;
    cmc_error err = {0};
    const cmc_runtime_opts exact = {.threads = 3, .exact = true}, fast = {.threads = 2, .kv = CMC_KV_FLOAT}, half = {.threads = 2};
    f.dir = tiny_dir_new();
    ok(cmc_runtime_open(&exact, &f.exact, &err), &err);
    ok(cmc_runtime_open(&fast, &f.fast, &err), &err);
    ok(cmc_runtime_open(&half, &f.half, &err), &err);
    *state = &f;
    return 0;
}

static int tear_down(void **state) {
    fixture *f = *state;
    cmc_runtime_free(f->exact);
    cmc_runtime_free(f->fast);
    cmc_runtime_free(f->half);
    tiny_dir_free(f->dir);
    return 0;
}

static const tiny_spec specs[] = {
    {.arch = "llama", .type = CMC_F32, .n_layer = 4, .expand = "concat", .expand_blocks = 2, .expand_f = 0.7},
    {.arch = "llama", .type = CMC_F32, .n_layer = 4, .expand = "stack", .expand_blocks = 2},
    {.arch = "llama", .type = CMC_F32, .n_layer = 4, .expand = "hybrid", .expand_merge = "dlerp", .expand_f = -0.4},
    {.arch = "llama", .type = CMC_F32, .expand = "concat", .expand_merge = "dlerp", .expand_f = 0.2},
    {.arch = "llama", .type = CMC_F32, .expand = "concat", .expand_merge = "dlerpin", .expand_f = -0.3},
    {.arch = "llama", .type = CMC_F32, .expand = "concat", .expand_merge = "slerp", .expand_f = 0.5},
    {.arch = "llama", .type = CMC_Q8_0, .expand = "concat"},
    {.arch = "qwen2", .type = CMC_F32, .n_layer = 3, .expand = "hybrid", .expand_merge = "dlerpin", .tied = true},
    {.arch = "qwen3", .type = CMC_F32, .n_layer = 3, .expand = "concat", .expand_blocks = 1},
    {.arch = "gemma3", .type = CMC_F32, .n_head_kv = 1, .n_layer = 6, .swa_window = 9, .swa_period = 2, .expand = "hybrid",
     .expand_merge = "slerp"},
};
enum { SPECS = sizeof specs / sizeof *specs, N = 40 };

static cmc_model *open_spec(const fixture *f, cmc_runtime *rt, const tiny_spec *s) {
    cmc_error err = {0};
    cmc_model *m;
    const char *path = tiny_path(f->dir, s->expand ? "expanded.gguf" : "base.gguf");
    ok(tiny_write(s, path, &err), &err);
    ok(cmc_model_open(rt, path, &m, &err), &err);
    return m;
}

static void some_ids(int32_t *ids, size_t n, int32_t n_vocab, uint64_t seed) {
    for (size_t i = 0; i < n; i++) {
        seed = seed * 6364136223846793005ULL + 1442695040888963407ULL;
        ids[i] = (int32_t)((seed >> 33) % (uint64_t)n_vocab);
    }
}

static cmc_session *session_of(cmc_model *m, double strength, const int32_t *ids, size_t n) {
    cmc_error err = {0};
    cmc_session *s;
    ok(cmc_session_new(m, 0, &s, &err), &err);
    ok(cmc_session_set_expand(s, strength, &err), &err);
    ok(cmc_session_sync(s, ids, n, &err), &err);
    return s;
}

static void eval_rows(cmc_session *s, size_t n, float *out) {
    cmc_error err = {0};
    const cmc_eval_item it = {s, n ? CMC_WANT_LOGITS : CMC_WANT_NONE, n, n ? out : NULL};
    ok(cmc_eval(cmc_session_model(s), &it, 1, &err), &err);
}

/* All rows of ids[0..n), `step` tokens at a time; the caller frees them. */
static float *rows_of(cmc_model *m, double strength, const int32_t *ids, size_t n, size_t step) {
    const size_t v = (size_t)cmc_model_n_vocab(m);
    float *out = calloc(n * v, sizeof *out);
    cmc_session *s = session_of(m, strength, NULL, 0);
    for (size_t at = 0; at < n; at += step) {
        cmc_error err = {0};
        step = step < n - at ? step : n - at;
        ok(cmc_session_sync(s, ids, at + step, &err), &err);
        eval_rows(s, step, out + at * v);
    }
    cmc_session_free(s);
    return out;
}

/* Root mean square of a - b over that of b. */
static double apart(const float *a, const double *b, size_t n) {
    double d = 0, sum = 0;
    for (size_t i = 0; i < n; i++) {
        d += ((double)a[i] - b[i]) * ((double)a[i] - b[i]);
        sum += b[i] * b[i];
    }
    return sqrt(d / sum);
}

/* A prompt at once, and token by token. */
static void match_the_reference(void **state) {
    const fixture *f = *state;
    static const double strengths[] = {1, 0.35, 0, -0.5, 1.6};
    for (size_t k = 0; k < SPECS; k++)
        for (size_t i = 0; i < 3 * sizeof strengths / sizeof *strengths; i++) {
            const double strength = strengths[i / 3];
            cmc_model *m = open_spec(f, i % 3 == 0 ? f->exact : f->fast, &specs[k]);
            int32_t ids[N];
            size_t v;
            some_ids(ids, N, cmc_model_n_vocab(m), k);
            double *want = reference_logits_at(cmc_model_path(m), strength, ids, N, &v);
            float *got = rows_of(m, strength, ids, N, i % 3 == 2 ? 1 : N);
            const double d = apart(got, want, N * v);
            if (!(d <= (specs[k].type == CMC_F32 || i % 3 == 0 ? 2e-5 : 0.02)))
                fail_msg("spec %zu, strength %g, way %zu: differs by %g of the logits' size", k, strength, i % 3, d);
            free(want);
            free(got);
            cmc_model_free(m);
        }
}

/* Left out, the blocks leave the bits of a file that has none; blocks that are copies of their layers change no bit. */
static void the_base_bit_for_bit(void **state) {
    const fixture *f = *state;
    for (size_t k = 0; k < SPECS; k++)
        for (int way = 0; way < 6; way++) {
            cmc_runtime *rt = way / 2 == 0 ? f->exact : way / 2 == 1 ? f->fast : f->half;
            tiny_spec plain = specs[k], copies = specs[k];
            plain.expand = NULL;
            copies.expand = "concat";
            copies.expand_copies = true;
            cmc_model *m = open_spec(f, rt, &specs[k]), *base = open_spec(f, rt, &plain), *same = open_spec(f, rt, &copies);
            int32_t ids[N];
            const size_t v = (size_t)cmc_model_n_vocab(m), step = way % 2 ? 1 : N;
            some_ids(ids, N, (int32_t)v, k);
            float *want = rows_of(base, 1, ids, N, step), *without = rows_of(m, 0, ids, N, step);
            float *copied = rows_of(same, 1, ids, N, step), *with = rows_of(m, 1, ids, N, step);
            assert_memory_equal(want, without, N * v * sizeof *want);
            assert_memory_equal(want, copied, N * v * sizeof *want);
            assert_memory_not_equal(want, with, N * v * sizeof *want);
            assert_string_not_equal(cmc_model_hash(m), cmc_model_hash(base));
            float *all[] = {want, without, copied, with};
            for (size_t i = 0; i < 4; i++)
                free(all[i]);
            cmc_model_free(m);
            cmc_model_free(base);
            cmc_model_free(same);
        }
}

/* Sessions of different strengths in one batch: each gets what it gets alone, whether few tokens are pending or many. */
static void mixed_batches(void **state) {
    const fixture *f = *state;
    static const double strengths[] = {0, 1, 0.5, 0, -1, 0, 1};
    enum { SESSIONS = 7 };
    for (size_t k = 0; k < SPECS; k++)
        for (int way = 0; way < 4; way++) {
            cmc_model *m = open_spec(f, way < 2 ? f->exact : f->fast, &specs[k]);
            const size_t v = (size_t)cmc_model_n_vocab(m);
            cmc_session *s[SESSIONS];
            cmc_eval_item items[SESSIONS];
            int32_t ids[SESSIONS][N];
            size_t n[SESSIONS];
            cmc_error err = {0};
            for (size_t i = 0; i < SESSIONS; i++) {
                n[i] = 12 + 4 * i;
                some_ids(ids[i], n[i], (int32_t)v, 50 * k + i);
                s[i] = session_of(m, strengths[i], ids[i], way % 2 ? n[i] - 1 : 5);
                eval_rows(s[i], 0, NULL);
                ok(cmc_session_sync(s[i], ids[i], n[i], &err), &err);
                const size_t rows = i == 2 ? 0 : way % 2 ? 1 : 1 + i;
                items[i] = (cmc_eval_item){s[i], rows ? CMC_WANT_LOGITS : CMC_WANT_NONE, rows,
                                           rows ? calloc(rows * v, sizeof(float)) : NULL};
            }
            ok(cmc_eval(m, items, SESSIONS, &err), &err);
            for (size_t i = 0; i < SESSIONS; i++) {
                float *alone = rows_of(m, strengths[i], ids[i], n[i], N), *last = alone + (n[i] - items[i].n_rows) * v;
                if (way < 2 && items[i].n_rows)
                    assert_memory_equal(items[i].out, last, items[i].n_rows * v * sizeof *last);
                for (size_t j = 0; j < items[i].n_rows * v; j++)
                    if (!(fabs((double)items[i].out[j] - (double)last[j]) <= (specs[k].type == CMC_F32 ? 1e-3 : 0.6)))
                        fail_msg("spec %zu, way %d, session %zu: %g alone, %g in the batch", k, way, i, (double)last[j],
                                 (double)items[i].out[j]);
                free(alone);
                free(items[i].out);
                cmc_session_free(s[i]);
            }
            cmc_model_free(m);
        }
}

/* Another strength makes everything pending; forks keep theirs; what is cropped is forgotten by blocks too. */
static void strengths_of_sessions(void **state) {
    const fixture *f = *state;
    cmc_model *m = open_spec(f, f->exact, &specs[2]);
    const size_t v = (size_t)cmc_model_n_vocab(m);
    cmc_error err = {0};
    cmc_session *fork;
    int32_t ids[N], other[N];
    float *row = calloc(v, sizeof *row);
    some_ids(ids, N, (int32_t)v, 1);
    memcpy(other, ids, sizeof ids);
    some_ids(other + 20, N - 20, (int32_t)v, 2);
    cmc_session *s = session_of(m, 1, ids, N);
    eval_rows(s, 0, NULL);
    assert_int_equal(cmc_session_pending(s), 0);
    ok(cmc_session_set_expand(s, 1, &err), &err);
    assert_int_equal(cmc_session_pending(s), 0);
    static const double strengths[] = {0, 0.5, 1, 0, 1};
    for (size_t i = 0; i < sizeof strengths / sizeof *strengths; i++) {
        ok(cmc_session_set_expand(s, strengths[i], &err), &err);
        assert_int_equal(cmc_session_pending(s), N);
        eval_rows(s, 1, row);
        ok(cmc_session_fork(s, &fork, &err), &err);
        assert_true(cmc_session_expand(fork) == strengths[i]);
        ok(cmc_session_sync(fork, other, N, &err), &err);
        assert_int_equal(cmc_session_pending(fork), N - 20);
        float *want = rows_of(m, strengths[i], ids, N, N), *turned = rows_of(m, strengths[i], other, N, N);
        assert_memory_equal(row, want + (N - 1) * v, v * sizeof *row);
        eval_rows(fork, 1, row);
        assert_memory_equal(row, turned + (N - 1) * v, v * sizeof *row);
        cmc_session_free(fork);
        free(want);
        free(turned);
    }
    static const double bad[] = {NAN, INFINITY, 101, -101};
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++)
        assert_int_equal(cmc_session_set_expand(s, bad[i], &err), CMC_E_ARG);
    assert_true(cmc_session_expand(s) == 1);
    cmc_session_free(s);
    free(row);
    cmc_model_free(m);
}

/* -------------------------------------------------------------------------------------------- streams and scores */

/* n tokens from the stream; from the `turn`-th on at that strength. */
static void generate(const cmc_steering *st, size_t n, size_t turn, double strength, int32_t *ids) {
    cmc_error err = {0};
    const cmc_stream_opts o = {.max_tokens = (int32_t)n, .ignore_end = true, .sampling = cmc_sampling_defaults()};
    char question[] = "Why?";
    cmc_message m[2];
    cmc_record r = steered_record(m, question, NULL);
    cmc_stream *s;
    size_t got;
    ok(cmc_stream_new(st, &r, &o, &s, &err), &err);
    for (size_t i = 0; i < n; i++) {
        if (i == turn)
            ok(cmc_stream_set_expand(s, strength, &err), &err);
        ok(cmc_streams_step(&s, 1, &err), &err);
    }
    const int32_t *v = cmc_stream_ids(s, &got);
    assert_int_equal(got, n);
    memcpy(ids, v, n * sizeof *v);
    cmc_stream_free(s);
}

/* A stream's dial: from its first token on it is the other's, from a later one the text goes on as that text would. */
static void dial_of_streams(void **state) {
    const fixture *f = *state;
    enum { TOKENS = 24, TURN = 9 };
    tiny_spec plain = specs[3];
    plain.expand = NULL;
    cmc_error err = {0};
    cmc_steering *st, *of_base;
    cmc_model *m = open_spec(f, f->exact, &specs[3]), *base = open_spec(f, f->exact, &plain);
    ok(cmc_steering_new(m, &(cmc_steering_opts){.host_template = CMC_TMPL_PLAIN}, &st, &err), &err);
    ok(cmc_steering_new(base, &(cmc_steering_opts){.host_template = CMC_TMPL_PLAIN}, &of_base, &err), &err);
    int32_t with[TOKENS], without[TOKENS], got[TOKENS];
    generate(st, TOKENS, TOKENS, 1, with);
    generate(of_base, TOKENS, TOKENS, 1, without);
    assert_memory_not_equal(with, without, sizeof with);
    generate(st, TOKENS, 0, 0, got);
    assert_memory_equal(got, without, sizeof got);
    generate(of_base, TOKENS, 3, 0.5, got); /* no blocks: no effect */
    assert_memory_equal(got, without, sizeof got);
    generate(st, TOKENS, TURN, 0, got);
    assert_memory_equal(got, with, TURN * sizeof *got);
    ok(cmc_steering_set_expand(st, 0, &err), &err);
    generate(st, TOKENS, TOKENS, 1, got);
    assert_memory_equal(got, without, sizeof got);
    generate(st, TOKENS, 0, 1, got);
    assert_memory_equal(got, with, sizeof got);
    assert_int_equal(cmc_steering_set_expand(st, NAN, &err), CMC_E_ARG);
    char question[] = "Why?", answer[] = "The quick brown fox jumps over it.";
    cmc_message turns[2];
    cmc_record r = steered_record(turns, question, answer);
    cmc_score a, b;
    ok(cmc_score_record(st, &r, NULL, 0, &a, &err), &err);
    ok(cmc_score_record(of_base, &r, NULL, 0, &b, &err), &err);
    assert_int_equal(a.n, b.n);
    assert_memory_equal(a.host_logprob, b.host_logprob, a.n * sizeof *a.host_logprob);
    cmc_score_free(&b);
    ok(cmc_steering_set_expand(st, 1, &err), &err);
    ok(cmc_score_record(st, &r, NULL, 0, &b, &err), &err);
    assert_memory_not_equal(a.host_logprob, b.host_logprob, a.n * sizeof *a.host_logprob);
    cmc_score_free(&a);
    cmc_score_free(&b);
    cmc_steering_free(st);
    cmc_steering_free(of_base);
    cmc_model_free(m);
    cmc_model_free(base);
}

/* ---------------------------------------------------------------------------------------------------------- files */

static void says_what_it_is(void **state) {
    const fixture *f = *state;
    cmc_error err = {0};
    cmc_expand_info from_model, from_file;
    cmc_file_info *fi;
    cmc_model *m = open_spec(f, f->exact, &specs[2]);
    assert_true(cmc_model_expand(m, &from_model));
    ok(cmc_file_info_open(cmc_model_path(m), &fi, &err), &err);
    assert_true(cmc_file_info_expand(fi, &from_file));
    assert_string_equal(from_model.kind, "hybrid");
    assert_string_equal(from_file.merge, "dlerp");
    assert_int_equal(from_model.n, 4);
    for (size_t i = 0; i < 4; i++) {
        assert_int_equal(from_file.points[i].layer, i);
        assert_true(from_file.points[i].stack == (i % 2 == 0));
    }
    cmc_file_info_free(fi);
    cmc_model_free(m);
    tiny_spec plain = specs[2];
    plain.expand = NULL;
    m = open_spec(f, f->exact, &plain);
    assert_false(cmc_model_expand(m, &from_model));
    cmc_model_free(m);
}

/* A block at the last layer of each group, and nothing that does not come out even. */
static void plans(void **state) {
    (void)state;
    cmc_error err = {0};
    expand_spec s;
    ok(expand_plan(EXPAND_CONCAT, EXPAND_LERP, 3, 30, &s, &err), &err);
    assert_int_equal(s.n, 3);
    assert_true(s.v[0].layer == 9 && s.v[1].layer == 19 && s.v[2].layer == 29 && !s.v[1].stack);
    expand_spec_free(&s);
    ok(expand_plan(EXPAND_HYBRID, EXPAND_LERP, 8, 32, &s, &err), &err);
    assert_true(s.v[0].layer == 3 && s.v[0].stack && !s.v[1].stack && s.v[7].layer == 31);
    expand_spec_free(&s);
    static const int32_t bad[] = {0, -1, 4, 31};
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++)
        assert_int_equal(expand_plan(EXPAND_STACK, EXPAND_LERP, bad[i], 30, &s, &err), CMC_E_ARG);
    assert_int_equal(expand_plan(EXPAND_HYBRID, EXPAND_LERP, 1, 30, &s, &err), CMC_E_ARG);
}

/* Keys with something wrong: each is refused by a message that names what. */
typedef struct bad_keys {
    uint32_t version;
    const char *merge;
    uint32_t layers[3]; size_t n_layers;
    const char *kinds[3]; size_t n_kinds;
    bool signed_layers;
    cmc_status want;
    const char *message;
} bad_keys;

static bool put_bad(void *user, gguf_writer *w) {
    const bad_keys *b = user;
    gguf_str kinds[3];
    for (size_t i = 0; i < b->n_kinds; i++)
        kinds[i] = (gguf_str){b->kinds[i], strlen(b->kinds[i])};
    return gguf_put_u32(w, "cmc.expand.version", b->version) &&
           (!b->merge || gguf_put_str(w, "cmc.expand.merge", b->merge, strlen(b->merge))) &&
           gguf_put_array(w, "cmc.expand.layers", b->signed_layers ? GGUF_I32 : GGUF_U32, b->layers, b->n_layers) &&
           gguf_put_str_array(w, "cmc.expand.kinds", kinds, b->n_kinds);
}

static void refused_keys(void **state) {
    const fixture *f = *state;
    static const bad_keys cases[] = {
        {2, "lerp", {0}, 1, {"concat"}, 1, false, CMC_E_UNSUPPORTED, "a newer cmc"},
        {0, "lerp", {0}, 1, {"concat"}, 1, false, CMC_E_FORMAT, "cmc.expand.version"},
        {1, NULL, {0}, 1, {"concat"}, 1, false, CMC_E_FORMAT, "cmc.expand.merge"},
        {1, "prog", {0}, 1, {"concat"}, 1, false, CMC_E_UNSUPPORTED, "\"prog\""},
        {1, "lerp", {0}, 0, {"concat"}, 0, false, CMC_E_FORMAT, "0 entries"},
        {1, "lerp", {0, 1}, 2, {"concat"}, 1, false, CMC_E_FORMAT, "cmc.expand.kinds 1"},
        {1, "lerp", {0, 1, 2}, 3, {"concat", "stack", "stack"}, 3, false, CMC_E_FORMAT, "from 1 to 2"},
        {1, "lerp", {2}, 1, {"concat"}, 1, false, CMC_E_FORMAT, "entry 0 of cmc.expand.layers is 2"},
        {1, "lerp", {1, 0}, 2, {"concat", "concat"}, 2, false, CMC_E_FORMAT, "entry 1 of cmc.expand.layers is 0"},
        {1, "lerp", {1, 1}, 2, {"concat", "concat"}, 2, false, CMC_E_FORMAT, "ascending"},
        {1, "lerp", {UINT32_MAX}, 1, {"concat"}, 1, false, CMC_E_FORMAT, "4294967295"},
        {1, "lerp", {0}, 1, {"beside"}, 1, false, CMC_E_UNSUPPORTED, "\"beside\""},
        {1, "lerp", {0}, 1, {"concat"}, 1, true, CMC_E_FORMAT, "an array of uint32"},
        {1, "lerp", {0}, 1, {"concat"}, 1, false, CMC_E_FORMAT, "blk.0.cmc_expand.attn_q.weight is missing"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        bad_keys b = cases[i];
        const tiny_spec spec = {.arch = "llama", .extra = put_bad, .user = &b};
        const char *path = tiny_path(f->dir, "bad.gguf");
        cmc_error err = {0};
        cmc_model *m;
        ok(tiny_write(&spec, path, &err), &err);
        if (cmc_model_open(f->exact, path, &m, &err) != cases[i].want || !strstr(err.message, cases[i].message))
            fail_msg("case %zu: %s", i, err.message);
        assert_memory_equal(err.message, path, strlen(path));
    }
}

static void refused_tensors(void **state) {
    const fixture *f = *state;
    cmc_error err = {0};
    cmc_model *m;
    tiny_spec spec = specs[0];
    const char *path = tiny_path(f->dir, "bad.gguf"), *good = tiny_path(f->dir, "good.gguf");
    spec.expand_f = NAN;
    ok(tiny_write(&spec, path, &err), &err);
    assert_int_equal(cmc_model_open(f->exact, path, &m, &err), CMC_E_FORMAT);
    assert_non_null(strstr(err.message, "blk.1.cmc_merge.bias holds no finite number"));
    ok(tiny_write(&specs[0], good, &err), &err); /* blocks, but no keys that tell of them */
    cmc_file file;
    ok(cmc_file_map(good, &file, &err), &err);
    const uint8_t *at = memmem(file.data, file.size, "cmc.expand.version", 18);
    const int64_t bit = 8 * (int64_t)(at - file.data);
    cmc_file_unmap(&file);
    ok(tiny_damage(good, path, -1, bit, &err), &err);
    assert_int_equal(cmc_model_open(f->exact, path, &m, &err), CMC_E_UNSUPPORTED);
    assert_non_null(strstr(err.message, "cmc_"));
}

/* Any bit of the header turned over: opened or refused, never worse; what opens can be evaluated. */
static void turned_bits(void **state) {
    const fixture *f = *state;
    cmc_error err = {0};
    const tiny_spec spec = {.arch = "llama", .n_embd = 32, .n_head = 2, .n_head_kv = 1, .n_ff = 32, .n_learnt = 5, .tied = true,
                            .expand = "hybrid", .expand_merge = "dlerp"};
    const char *good = tiny_path(f->dir, "good.gguf"), *bad = tiny_path(f->dir, "bad.gguf");
    gguf *g;
    ok(tiny_write(&spec, good, &err), &err);
    ok(gguf_open(good, &g, &err), &err);
    const int64_t bits = 8 * (int64_t)g->header_bytes;
    gguf_free(g);
    size_t refused = 0, opened = 0;
    for (int64_t bit = 0; bit < bits; bit += 101) {
        cmc_model *m;
        ok(tiny_damage(good, bad, -1, bit, &err), &err);
        if (cmc_model_open(f->fast, bad, &m, &err) != CMC_OK) {
            refused++;
            continue;
        }
        opened++;
        cmc_session *s;
        if (cmc_session_new(m, 2, &s, &err) == CMC_OK) {
            float *row = calloc((size_t)cmc_model_n_vocab(m), sizeof *row);
            ok(cmc_session_append(s, 0, &err), &err);
            ok(cmc_session_append(s, 0, &err), &err);
            eval_rows(s, 1, row);
            free(row);
            cmc_session_free(s);
        }
        cmc_model_free(m);
    }
    assert_true(refused > 0 && opened > 0);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(match_the_reference),   cmocka_unit_test(the_base_bit_for_bit),
        cmocka_unit_test(mixed_batches),         cmocka_unit_test(strengths_of_sessions),
        cmocka_unit_test(dial_of_streams),       cmocka_unit_test(says_what_it_is),
        cmocka_unit_test(plans),                 cmocka_unit_test(refused_keys),
        cmocka_unit_test(refused_tensors),       cmocka_unit_test(turned_bits),
    };
    return cmocka_run_group_tests(tests, set_up, tear_down);
}
