/* Models and sessions on tiny models: each family against the reference, the properties of batches and caches, split
 * files, contexts. */
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
#include "runtime/vec.h"
#include "tests/reference.h"
#include "tests/tiny.h"

typedef struct fixture {
    char *dir;
    cmc_runtime *exact, *exact3, *fast, *half, *int8; /* exact3: three threads; caches of fast: float32; half: float16; int8: that */
} fixture;

static void ok(cmc_status st, const cmc_error *err) {
    if (st != CMC_OK)
        fail_msg("%s", err->message);
}

static int set_up(void **state) {
    fixture *f = calloc(1, sizeof *f);
    cmc_error err = {0};
    f->dir = tiny_dir_new();
    const cmc_runtime_opts exact = {.threads = 1, .exact = true}, exact3 = {.threads = 3, .exact = true},
                           fast = {.threads = 2, .kv = CMC_KV_FLOAT}, half = {.threads = 2}, int8 = {.threads = 2, .kv = CMC_KV_INT8};
    ok(cmc_runtime_open(&exact, &f->exact, &err), &err);
    ok(cmc_runtime_open(&exact3, &f->exact3, &err), &err);
    ok(cmc_runtime_open(&fast, &f->fast, &err), &err);
    ok(cmc_runtime_open(&half, &f->half, &err), &err);
    ok(cmc_runtime_open(&int8, &f->int8, &err), &err);
    *state = f;
    return 0;
}

static int tear_down(void **state) {
    fixture *f = *state;
    cmc_runtime_free(f->exact);
    cmc_runtime_free(f->exact3);
    cmc_runtime_free(f->fast);
    cmc_runtime_free(f->half);
    cmc_runtime_free(f->int8);
    tiny_dir_free(f->dir);
    free(f);
    return 0;
}

static bool llama_window(void *user, gguf_writer *w) {
    (void)user;
    return gguf_put_u32(w, "llama.attention.sliding_window", 7);
}

static const tiny_spec specs[] = {
    {.arch = "llama", .type = CMC_F32},
    {.arch = "llama", .type = CMC_F16, .tied = true},
    {.arch = "llama", .type = CMC_Q8_0, .n_head_kv = 1, .rope_base = 500000},
    {.arch = "llama", .type = CMC_Q4_0, .rope_freqs = true},
    {.arch = "llama", .type = CMC_Q4_1, .rope_scale = 4, .vocab = "spm"},
    {.arch = "llama", .type = CMC_F32, .extra = llama_window},
    {.arch = "llama", .type = CMC_F32, .n_head = 3, .n_head_kv = 3, .head_k = 10, .head_v = 32, .n_layer = 1},
    {.arch = "qwen2", .type = CMC_BF16},
    {.arch = "qwen2", .type = CMC_Q5_0, .tied = true},
    {.arch = "qwen3", .type = CMC_F32, .tied = true, .head_k = 32, .head_v = 32},
    {.arch = "qwen3", .type = CMC_Q5_1, .n_head_kv = 4},
    {.arch = "gemma3", .type = CMC_F32, .n_head_kv = 1, .head_k = 24, .head_v = 24, .n_layer = 7, .swa_window = 6},
    {.arch = "gemma3", .type = CMC_Q8_0, .tied = true, .head_k = 32, .head_v = 32, .swa_window = 9, .swa_period = 2,
     .rope_scale = 8, .rope_base = 1000000, .rope_base_swa = 5000},
    {.arch = "gemma3", .type = CMC_Q4_0, .tied = true},
};
#define N_SPECS (sizeof specs / sizeof *specs)

/* A long one for what happens at the seams: chunks of the cache, passes of a batch, the window. */
static const tiny_spec long_spec = {.arch = "gemma3",
                                    .type = CMC_Q8_0,
                                    .tied = true,
                                    .n_embd = 32,
                                    .n_head = 2,
                                    .n_head_kv = 1,
                                    .n_ff = 32,
                                    .n_ctx = 1500,
                                    .swa_window = 200,
                                    .swa_period = 2};

static cmc_model *open_spec(const fixture *f, cmc_runtime *rt, const tiny_spec *s) {
    cmc_error err = {0};
    cmc_model *m;
    const char *path = tiny_path(f->dir, "model.gguf");
    ok(tiny_write(s, path, &err), &err);
    ok(cmc_model_open(rt, path, &m, &err), &err);
    return m;
}

static uint64_t next_random(uint64_t *s) {
    *s = *s * 6364136223846793005ULL + 1442695040888963407ULL;
    return *s >> 33;
}

static void random_ids(int32_t *ids, size_t n, int32_t n_vocab, uint64_t seed) {
    for (size_t i = 0; i < n; i++)
        ids[i] = (int32_t)(next_random(&seed) % (uint64_t)n_vocab);
}

static cmc_session *session_of(cmc_model *m, const int32_t *ids, size_t n) {
    cmc_error err = {0};
    cmc_session *s;
    ok(cmc_session_new(m, 0, &s, &err), &err);
    ok(cmc_session_sync(s, ids, n, &err), &err);
    return s;
}

static void eval_rows(cmc_session *s, size_t n, float *out) {
    cmc_error err = {0};
    const cmc_eval_item it = {s, n ? CMC_WANT_LOGITS : CMC_WANT_NONE, n, n ? out : NULL};
    ok(cmc_eval(cmc_session_model(s), &it, 1, &err), &err);
}

/* All rows of ids[0..n) at once, from an empty session; the caller frees them. */
static float *all_rows(cmc_model *m, const int32_t *ids, size_t n) {
    float *out = calloc(n * (size_t)cmc_model_n_vocab(m), sizeof *out);
    cmc_session *s = session_of(m, ids, n);
    eval_rows(s, n, out);
    cmc_session_free(s);
    return out;
}

static double largest_difference(const float *a, const double *b, size_t n, double *scale) {
    double d = 0, sum = 0;
    for (size_t i = 0; i < n; i++) {
        const double e = fabs((double)a[i] - b[i]);
        d = e > d || isnan(e) ? e : d;
        sum += b[i] * b[i];
    }
    *scale = sqrt(sum / (double)n);
    return d;
}

static void families_match_the_reference(void **state) {
    const fixture *f = *state;
    for (size_t k = 0; k < N_SPECS; k++)
        for (int exact = 0; exact < 2; exact++) {
            cmc_model *m = open_spec(f, exact ? f->exact : f->fast, &specs[k]);
            int32_t ids[40];
            random_ids(ids, 40, cmc_model_n_vocab(m), k);
            size_t v = 0;
            double *want = reference_logits(cmc_model_path(m), ids, 40, &v), scale;
            assert_non_null(want);
            assert_int_equal(v, cmc_model_n_vocab(m));
            float *got = all_rows(m, ids, 40);
            const double d = largest_difference(got, want, 40 * v, &scale);
            /* quantised activations carry 8 bits of the largest of each block */
            const double limit = exact ? 1e-4 : specs[k].type == CMC_F32 ? 1e-3 : 0.05;
            if (!(d <= limit * (scale > 1 ? scale : 1)) || scale < 1e-3)
                fail_msg("spec %zu (%s, type %u, %s): differs by %g at a scale of %g", k, specs[k].arch, specs[k].type,
                         exact ? "exact" : "fast", d, scale);
            free(got);
            free(want);
            cmc_model_free(m);
        }
}

/* Root mean square of a - b over that of b. */
static double relative_difference(const float *a, const float *b, size_t n) {
    double d = 0, sum = 0;
    for (size_t i = 0; i < n; i++) {
        d += ((double)a[i] - (double)b[i]) * ((double)a[i] - (double)b[i]);
        sum += (double)b[i] * (double)b[i];
    }
    return sqrt(d / sum);
}

/* Decoding one by one, in random steps and all at once give the same rows. */
static void incremental_equals_at_once(void **state) {
    const fixture *f = *state;
    for (size_t k = 0; k < N_SPECS; k++)
        for (int exact = 0; exact < 2; exact++) {
            cmc_model *m = open_spec(f, exact ? f->exact3 : f->fast, &specs[k]);
            const size_t v = (size_t)cmc_model_n_vocab(m), n = 60;
            int32_t ids[60];
            random_ids(ids, n, (int32_t)v, 100 + k);
            float *want = all_rows(m, ids, n), *got = calloc(n * v, sizeof *got);
            uint64_t seed = k;
            for (int one = 0; one < 2; one++) {
                cmc_session *s = session_of(m, NULL, 0);
                for (size_t at = 0; at < n;) {
                    size_t step = one ? 1 : 1 + next_random(&seed) % 17;
                    step = step < n - at ? step : n - at;
                    cmc_error err = {0};
                    for (size_t i = 0; i < step; i++)
                        ok(cmc_session_append(s, ids[at + i], &err), &err);
                    assert_int_equal(cmc_session_pending(s), step);
                    eval_rows(s, step, got + at * v);
                    at += step;
                    assert_int_equal(cmc_session_pending(s), 0);
                    assert_int_equal(cmc_session_length(s), at);
                }
                for (size_t i = 0; exact && i < n * v; i++)
                    if (memcmp(&got[i], &want[i], sizeof *got) != 0)
                        fail_msg("spec %zu: %a against %a at %zu", k, (double)got[i], (double)want[i], i);
                /* quantised activations when few tokens are evaluated together, floats when many are */
                const double apart = relative_difference(got, want, n * v);
                if (!exact && !(apart <= (specs[k].type == CMC_F32 ? 1e-5 : 0.02)))
                    fail_msg("spec %zu: fast steps differ by %g of the logits' size", k, apart);
                cmc_session_free(s);
            }
            free(want);
            free(got);
            cmc_model_free(m);
        }
}

/* Caches in float16 round keys and values to 11 bits, those in int8 to 8, and nothing else. */
static void rounded_caches(void **state) {
    const fixture *f = *state;
    for (size_t k = 0; k < 2 * N_SPECS; k++) {
        const bool int8 = k >= N_SPECS;
        cmc_model *m = open_spec(f, f->fast, &specs[k % N_SPECS]), *mh = open_spec(f, int8 ? f->int8 : f->half, &specs[k % N_SPECS]);
        const size_t v = (size_t)cmc_model_n_vocab(m), n = 200;
        int32_t ids[200];
        random_ids(ids, n, (int32_t)v, 300 + k);
        float *want = all_rows(m, ids, n), *got = all_rows(mh, ids, n);
        const double apart = relative_difference(got, want, n * v);
        if (!(apart <= (int8 ? 2e-2 : 2e-3)) || (apart == 0) != (!int8 && vec_fast() == &vec_plain))
            fail_msg("spec %zu: %s caches differ by %g of the logits' size", k % N_SPECS, int8 ? "int8" : "float16", apart);
        free(want);
        free(got);
        cmc_model_free(m);
        cmc_model_free(mh);
    }
}

/* Few tokens after a long context are attended to in parts, in batches of sequences of different lengths too: the rows are
 * those of a pass over everything. Float weights, so that nothing but the order of sums differs. */
static void long_contexts_in_parts_of(cmc_model *m) {
    const size_t v = (size_t)cmc_model_n_vocab(m), n = 1300, lengths[3] = {1297, 40, 700};
    int32_t *ids = calloc(n, sizeof *ids);
    random_ids(ids, n, (int32_t)v, 6);
    float *want = all_rows(m, ids, n), *rows = calloc(3 * 3 * v, sizeof *rows);
    cmc_session *s[3];
    cmc_eval_item items[3];
    cmc_error err = {0};
    for (size_t i = 0; i < 3; i++) {
        s[i] = session_of(m, ids, lengths[i]);
        eval_rows(s[i], 0, NULL);
        const size_t more = i == 0 ? 2 : 1; /* four tokens in all */
        ok(cmc_session_sync(s[i], ids, lengths[i] + more, &err), &err);
        items[i] = (cmc_eval_item){s[i], CMC_WANT_LOGITS, more, rows + i * 3 * v};
    }
    ok(cmc_eval(m, items, 3, &err), &err);
    for (size_t i = 0; i < 3; i++) {
        assert_true(relative_difference(items[i].out, want + lengths[i] * v, items[i].n_rows * v) <= 2e-5);
        cmc_session_free(s[i]);
    }
    free(ids); free(want); free(rows);
    cmc_model_free(m);
}

static void long_contexts_in_parts(void **state) {
    const fixture *f = *state;
    tiny_spec spec = long_spec;
    spec.type = CMC_F32;
    long_contexts_in_parts_of(open_spec(f, f->fast, &spec));
    long_contexts_in_parts_of(open_spec(f, f->int8, &spec));
}

/* Several passes of a batch, chunks of the cache, a window that has left the first chunks behind. */
static void long_sequences(void **state) {
    const fixture *f = *state;
    const size_t n = 1300;
    cmc_model *m1 = open_spec(f, f->exact, &long_spec), *m3 = open_spec(f, f->exact3, &long_spec),
              *mf = open_spec(f, f->half, &long_spec);
    const size_t v = (size_t)cmc_model_n_vocab(m1);
    int32_t *ids = calloc(n, sizeof *ids);
    random_ids(ids, n, (int32_t)v, 5);
    float *a = all_rows(m1, ids, n), *b = all_rows(m3, ids, n), *fast = all_rows(mf, ids, n);
    size_t rv;
    double scale, *want = reference_logits(cmc_model_path(m1), ids, n, &rv);
    assert_true(largest_difference(a, want, n * v, &scale) <= 1e-4 * (1 + scale));
    assert_true(largest_difference(fast, want, n * v, &scale) <= 0.05 * (1 + scale));
    assert_memory_equal(a, b, n * v * sizeof *a);
    float *row = calloc(v, sizeof *row);
    cmc_session *s = session_of(m3, ids, 130);
    eval_rows(s, 0, NULL);
    for (size_t at = 130, step = 1; at < n; at += step, step = step * 2 + 1) {
        step = step < n - at ? step : n - at;
        cmc_error err = {0};
        ok(cmc_session_sync(s, ids, at + step, &err), &err);
        assert_int_equal(cmc_session_pending(s), step);
        eval_rows(s, 1, row);
        assert_memory_equal(row, a + (at + step - 1) * v, v * sizeof *row);
    }
    cmc_session_free(s);
    free(ids); free(a); free(b); free(fast); free(want); free(row);
    cmc_model_free(m1);
    cmc_model_free(m3);
    cmc_model_free(mf);
}

/* A batch of sessions of different lengths and wants gives each what it would have had alone. */
static void batch_equals_each_alone(void **state) {
    const fixture *f = *state;
    enum { N = 24, LONGEST = 90 };
    const tiny_spec *table[] = {&specs[3], &specs[8], &specs[12]};
    for (size_t k = 0; k < 3; k++) {
        cmc_model *m = open_spec(f, f->exact3, table[k]);
        const size_t v = (size_t)cmc_model_n_vocab(m), e = (size_t)cmc_model_n_embd(m);
        cmc_session *s[N];
        cmc_eval_item items[N];
        int32_t ids[N][LONGEST];
        size_t length[N];
        uint64_t seed = 7;
        for (size_t i = 0; i < N; i++) {
            length[i] = 1 + next_random(&seed) % LONGEST;
            random_ids(ids[i], length[i], (int32_t)v, 1000 + i);
            s[i] = session_of(m, ids[i], length[i] / 2);
            eval_rows(s[i], 0, NULL);
        }
        for (size_t i = 0; i < N; i++) {
            cmc_error err = {0};
            ok(cmc_session_sync(s[i], ids[i], length[i], &err), &err);
            const cmc_want want = (cmc_want)(i % 3);
            const size_t rows = want ? 1 + next_random(&seed) % cmc_session_pending(s[i]) : 0;
            items[i] = (cmc_eval_item){s[i], want, rows, rows ? calloc(rows * (v > e ? v : e), sizeof(float)) : NULL};
        }
        cmc_error err = {0};
        ok(cmc_eval(m, items, N, &err), &err);
        for (size_t i = 0; i < N; i++) {
            assert_int_equal(cmc_session_pending(s[i]), 0);
            float *alone = all_rows(m, ids[i], length[i]), *logits = items[i].out;
            if (items[i].want == CMC_WANT_HIDDEN) {
                logits = calloc(items[i].n_rows * v, sizeof *logits);
                ok(cmc_model_logits(m, items[i].out, items[i].n_rows, logits, &err), &err);
            }
            if (items[i].want != CMC_WANT_NONE)
                assert_memory_equal(logits, alone + (length[i] - items[i].n_rows) * v,
                                    items[i].n_rows * v * sizeof *logits);
            if (logits != items[i].out)
                free(logits);
            free(items[i].out);
            free(alone);
            cmc_session_free(s[i]);
        }
        cmc_model_free(m);
    }
}

/* Random appends, crops, edits, forks and evaluations; now and then the last row is compared with a fresh session's: `apart`
 * of its size at most, 0 means the same bits. */
static void random_operations_on(cmc_model *m, double apart) {
    const size_t v = (size_t)cmc_model_n_vocab(m), n_ctx = (size_t)cmc_model_n_ctx(m);
    int32_t *ids = calloc(n_ctx, sizeof *ids);
    float *row = calloc(v, sizeof *row);
    size_t n = 0;
    uint64_t seed = 11;
    cmc_session *s = session_of(m, NULL, 0);
    for (int step = 0; step < 400; step++) {
        cmc_error err = {0};
        const uint64_t what = next_random(&seed) % 6;
        if (what == 0 && n > 0) { /* crop */
            n -= next_random(&seed) % n;
        } else if (what == 1 && n > 0) { /* an edit in the middle */
            ids[next_random(&seed) % n] = (int32_t)(next_random(&seed) % v);
        } else if (what == 2) { /* go on with a fork */
            cmc_session *fork;
            ok(cmc_session_fork(s, &fork, &err), &err);
            assert_int_equal(cmc_session_length(fork), cmc_session_length(s));
            assert_int_equal(cmc_session_pending(fork), cmc_session_pending(s));
            cmc_session_free(s);
            s = fork;
        } else {
            for (uint64_t i = next_random(&seed) % 40; i > 0 && n < n_ctx; i--)
                ids[n++] = (int32_t)(next_random(&seed) % v);
        }
        ok(cmc_session_sync(s, ids, n, &err), &err);
        assert_int_equal(cmc_session_length(s), n);
        assert_true(n == 0 || cmc_session_pending(s) > 0);
        if (n == 0 || next_random(&seed) % 3 == 0)
            continue;
        eval_rows(s, 1, row);
        cmc_session *fresh = session_of(m, ids, n);
        float *want = calloc(v, sizeof *want);
        eval_rows(fresh, 1, want);
        assert_true(apart == 0 ? memcmp(row, want, v * sizeof *row) == 0 : relative_difference(row, want, v) <= apart);
        free(want);
        cmc_session_free(fresh);
    }
    cmc_session_free(s);
    free(ids);
    free(row);
    cmc_model_free(m);
}

static void random_operations(void **state) {
    const fixture *f = *state;
    random_operations_on(open_spec(f, f->exact, &specs[12]), 0);
    random_operations_on(open_spec(f, f->half, &specs[0]), 5e-4); /* float weights: only the order of sums, and what it rounds to */
    random_operations_on(open_spec(f, f->int8, &specs[0]), 2e-2);
}

/* A fork and its origin go different ways. */
static void forks_are_independent(void **state) {
    const fixture *f = *state;
    cmc_model *m = open_spec(f, f->exact3, &specs[1]);
    const size_t v = (size_t)cmc_model_n_vocab(m);
    int32_t a[150], b[150];
    random_ids(a, 150, (int32_t)v, 1);
    random_ids(b, 150, (int32_t)v, 2);
    memcpy(b, a, 135 * sizeof *a);
    cmc_session *s = session_of(m, a, 135), *t;
    eval_rows(s, 0, NULL);
    cmc_error err = {0};
    ok(cmc_session_fork(s, &t, &err), &err);
    ok(cmc_session_sync(s, a, 150, &err), &err);
    ok(cmc_session_sync(t, b, 150, &err), &err);
    assert_int_equal(cmc_session_pending(t), 15);
    float *got = calloc(2 * v, sizeof *got), *wa = all_rows(m, a, 150), *wb = all_rows(m, b, 150);
    const cmc_eval_item items[] = {{s, CMC_WANT_LOGITS, 1, got}, {t, CMC_WANT_LOGITS, 1, got + v}};
    ok(cmc_eval(m, items, 2, &err), &err);
    assert_memory_equal(got, wa + 149 * v, v * sizeof *got);
    assert_memory_equal(got + v, wb + 149 * v, v * sizeof *got);
    free(got); free(wa); free(wb);
    cmc_session_free(s);
    cmc_session_free(t);
    cmc_model_free(m);
}

static void split_files_equal_one(void **state) {
    const fixture *f = *state;
    for (int parts = 2; parts <= 5; parts += 3) {
        cmc_error err = {0};
        char first[512], any[512];
        ok(tiny_write_split(&specs[12], tiny_path(f->dir, "split"), parts, first, sizeof first, &err), &err);
        cmc_model *one = open_spec(f, f->exact, &specs[12]), *split;
        (void)snprintf(any, sizeof any, "%s-%05d-of-%05d.gguf", tiny_path(f->dir, "split"), parts, parts);
        ok(cmc_model_open(f->exact, parts == 2 ? first : any, &split, &err), &err);
        int32_t ids[50];
        random_ids(ids, 50, cmc_model_n_vocab(one), 3);
        float *a = all_rows(one, ids, 50), *b = all_rows(split, ids, 50);
        assert_memory_equal(a, b, 50 * (size_t)cmc_model_n_vocab(one) * sizeof *a);
        assert_true(cmc_model_params(one) == cmc_model_params(split) && cmc_model_bytes(one) == cmc_model_bytes(split));
        assert_true(cmc_vocab_equal(cmc_model_vocab(one), cmc_model_vocab(split)));
        free(a);
        free(b);
        cmc_model_free(one);
        cmc_model_free(split);
    }
}

static void hashes(void **state) {
    const fixture *f = *state;
    cmc_error err = {0};
    char hash[3][40];
    for (size_t i = 0; i < 3; i++) {
        tiny_spec s = specs[2];
        s.seed = i == 2;
        cmc_model *m;
        const char *path = tiny_path(f->dir, i ? "other-name.gguf" : "name.gguf");
        ok(tiny_write(&s, path, &err), &err);
        ok(cmc_model_open(f->fast, path, &m, &err), &err);
        assert_int_equal(strlen(cmc_model_hash(m)), 32);
        memcpy(hash[i], cmc_model_hash(m), 33);
        cmc_model_free(m);
    }
    assert_string_equal(hash[0], hash[1]);
    assert_string_not_equal(hash[0], hash[2]);
}

static void contexts_and_ids(void **state) {
    const fixture *f = *state;
    cmc_model *m = open_spec(f, f->fast, &specs[0]);
    cmc_error err = {0};
    cmc_session *s;
    assert_int_equal(cmc_session_new(m, 257, &s, &err), CMC_E_RANGE);
    assert_null(s);
    assert_non_null(strstr(err.message, "257"));
    assert_non_null(strstr(err.message, "256"));
    assert_int_equal(cmc_session_new(m, -1, &s, &err), CMC_E_ARG);
    ok(cmc_session_new(m, 3, &s, &err), &err);
    assert_int_equal(cmc_session_n_ctx(s), 3);
    const int32_t v = cmc_model_n_vocab(m), good[] = {1, 2, 3, 4}, bad[] = {1, v}, negative[] = {-1};
    assert_int_equal(cmc_session_sync(s, good, 4, &err), CMC_E_RANGE);
    assert_int_equal(cmc_session_sync(s, bad, 2, &err), CMC_E_ARG);
    assert_int_equal(cmc_session_sync(s, negative, 1, &err), CMC_E_ARG);
    assert_int_equal(cmc_session_append(s, v, &err), CMC_E_ARG);
    assert_int_equal(cmc_session_length(s), 0);
    ok(cmc_session_sync(s, good, 3, &err), &err);
    assert_int_equal(cmc_session_append(s, 1, &err), CMC_E_RANGE);
    assert_int_equal(cmc_session_length(s), 3);
    cmc_session_free(s);
    cmc_model_free(m);

    tiny_spec vast = specs[0];
    vast.n_ctx = 1 << 28;
    m = open_spec(f, f->fast, &vast);
    if (cmc_mem_available() > 0) {
        assert_int_equal(cmc_session_new(m, 0, &s, &err), CMC_E_NOMEM);
        assert_non_null(strstr(err.message, "MiB"));
    }
    ok(cmc_session_new(m, 1000, &s, &err), &err);
    cmc_session_free(s);
    cmc_model_free(m);
}

static void batches_that_do_not_fit(void **state) {
    const fixture *f = *state;
    cmc_model *m = open_spec(f, f->exact, &specs[0]), *other = open_spec(f, f->exact, &specs[0]);
    const int32_t ids[] = {1, 2, 3};
    const size_t v = (size_t)cmc_model_n_vocab(m);
    float *out = calloc(4 * v, sizeof *out);
    cmc_session *s = session_of(m, ids, 3), *stranger = session_of(other, ids, 3);
    const cmc_eval_item wrong[][2] = {
        {{s, CMC_WANT_LOGITS, 1, out}, {s, CMC_WANT_LOGITS, 1, out}},
        {{s, CMC_WANT_LOGITS, 1, out}, {stranger, CMC_WANT_LOGITS, 1, out}},
        {{s, CMC_WANT_LOGITS, 4, out}, {0}},
        {{s, CMC_WANT_LOGITS, 1, NULL}, {0}},
        {{s, CMC_WANT_NONE, 1, out}, {0}},
        {{NULL, CMC_WANT_NONE, 0, NULL}, {0}},
    };
    for (size_t i = 0; i < sizeof wrong / sizeof *wrong; i++) {
        cmc_error err = {0};
        assert_int_equal(cmc_eval(m, wrong[i], wrong[i][1].session ? 2 : 1, &err), CMC_E_ARG);
        assert_true(err.message[0] != '\0');
        assert_int_equal(cmc_session_pending(s), 3);
    }
    cmc_error err = {0};
    ok(cmc_eval(m, NULL, 0, &err), &err);
    eval_rows(s, 3, out); /* a refused batch has left nothing behind */
    const cmc_eval_item nothing = {s, CMC_WANT_LOGITS, 0, NULL};
    ok(cmc_eval(m, &nothing, 1, &err), &err);
    free(out);
    cmc_session_free(s);
    cmc_session_free(stranger);
    cmc_model_free(m);
    cmc_model_free(other);
}

static void file_info(void **state) {
    const fixture *f = *state;
    cmc_model *m = open_spec(f, f->fast, &specs[4]);
    cmc_error err = {0};
    cmc_file_info *fi;
    ok(cmc_file_info_open(cmc_model_path(m), &fi, &err), &err);
    assert_string_equal(cmc_file_info_arch(fi), "llama");
    assert_string_equal(cmc_file_info_name(fi), "tiny");
    assert_true(cmc_file_info_params(fi) == cmc_model_params(m) && cmc_file_info_bytes(fi) == cmc_model_bytes(m));
    assert_int_equal(cmc_file_info_context(fi), 256);
    assert_int_equal(cmc_file_info_layers(fi), 2);
    assert_int_equal(cmc_file_info_embd(fi), 64);
    assert_null(cmc_file_info_delta(fi));
    assert_true(cmc_vocab_equal(cmc_file_info_vocab(fi), cmc_model_vocab(m)));
    size_t n;
    const cmc_type_count *types = cmc_file_info_types(fi, &n);
    uint64_t params = 0, matrices = 0;
    for (size_t i = 0; i < n; i++) {
        params += types[i].params;
        if (strcmp(types[i].type, "Q4_1") == 0)
            matrices = types[i].tensors;
    }
    assert_true(params == cmc_file_info_params(fi));
    assert_int_equal(matrices, 2 + 7 * 2);
    cmc_file_info_free(fi);
    cmc_model_free(m);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(families_match_the_reference),
        cmocka_unit_test(incremental_equals_at_once),
        cmocka_unit_test(rounded_caches),
        cmocka_unit_test(long_contexts_in_parts),
        cmocka_unit_test(long_sequences),
        cmocka_unit_test(batch_equals_each_alone),
        cmocka_unit_test(random_operations),
        cmocka_unit_test(forks_are_independent),
        cmocka_unit_test(split_files_equal_one),
        cmocka_unit_test(hashes),
        cmocka_unit_test(contexts_and_ids),
        cmocka_unit_test(batches_that_do_not_fit),
        cmocka_unit_test(file_info),
    };
    return cmocka_run_group_tests(tests, set_up, tear_down);
}
