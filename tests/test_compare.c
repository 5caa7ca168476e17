/* What steering moved at a step: two rows against a plain computation, and a stream's steps against scores. */
#include "tests/steered.h"

#include <math.h>

#include "runtime/compare.h"
#include "runtime/model.h"

/* -------------------------------------------------------------------------------------------------------- rows */

enum { ROW = 300 };

static float random_logit(uint64_t *rng) {
    return (float)((double)(steered_random(rng) >> 11) / 9007199254740992.0 * 24 - 12);
}

static void softmax(const float *row, int32_t n, long double *p) {
    long double top = -INFINITY, sum = 0;
    for (int32_t i = 0; i < n; i++) top = fmaxl(top, (long double)row[i]);
    for (int32_t i = 0; i < n; i++) sum += p[i] = expl((long double)row[i] - top);
    for (int32_t i = 0; i < n; i++) p[i] /= sum;
}

/* How many changes of a sign are greater than this one, or as great and of a lower id. */
static size_t rank_of(const long double *by, int32_t n, int32_t id) {
    size_t rank = 0;
    for (int32_t i = 0; i < n; i++) rank += by[i] > by[id] || (i < id && by[i] == by[id]);
    return rank;
}

/* Each of the moved tokens stands in its rank, up to changes that rounding makes equal. */
static void check_movers(const cmc_moved *v, size_t n_moved, const long double *by, int32_t n) {
    size_t changed = 0;
    for (int32_t i = 0; i < n; i++) changed += by[i] > 0;
    assert_int_equal(n_moved, changed < CMC_MOVED ? changed : CMC_MOVED);
    for (size_t k = 0; k < n_moved; k++) {
        assert_in_range(v[k].id, 0, n - 1);
        assert_int_equal(rank_of(by, n, v[k].id), k);
        assert_true(fabsl(by[v[k].id] - fabsl(expl(v[k].logprob) - expl(v[k].host_logprob))) < 1e-12L);
    }
}

static void check_rows(const float *host, const float *steered, int32_t n, int32_t id) {
    long double q[ROW], p[ROW], up[ROW], down[ROW], kl = 0;
    int32_t host_top = 0, top = 0;
    cmc_comparison c;
    softmax(host, n, q);
    softmax(steered, n, p);
    for (int32_t i = 0; i < n; i++) {
        kl += p[i] > 0 ? p[i] * logl(p[i] / q[i]) : 0;
        up[i] = p[i] - q[i];
        down[i] = q[i] - p[i];
        host_top = host[i] > host[host_top] ? i : host_top;
        top = steered[i] > steered[top] ? i : top;
    }
    compare_rows(host, steered, n, id, &c);
    assert_true(c.kl >= 0 && fabsl((long double)c.kl - kl) < 1e-12L * (1 + kl));
    assert_int_equal(c.host_top.id, host_top);
    assert_int_equal(c.top.id, top);
    assert_int_equal(c.token.id, id);
    assert_true(fabsl(expl(c.token.logprob) - p[id]) < 1e-12L && fabsl(expl(c.token.host_logprob) - q[id]) < 1e-12L);
    check_movers(c.raised, c.n_raised, up, n);
    check_movers(c.lowered, c.n_lowered, down, n);
}

static void test_rows(void **state) {
    (void)state;
    uint64_t rng = 7;
    float host[ROW], steered[ROW];
    for (int round = 0; round < 300; round++) {
        int32_t n = 1 + (int32_t)(steered_random(&rng) % ROW);
        for (int32_t i = 0; i < n; i++) {
            host[i] = random_logit(&rng);
            steered[i] = host[i] + (round % 3 ? random_logit(&rng) : (float)(i % 2));
            if (steered_random(&rng) % 8 == 0) host[i] = steered[i] = -INFINITY; /* cannot come, steered or not */
        }
        host[0] = 1;
        steered[0] = 2;
        check_rows(host, steered, n, (int32_t)(steered_random(&rng) % (uint64_t)n));
    }
}

/* Nothing moves between equal rows, nor where a constant is added. */
static void test_same(void **state) {
    (void)state;
    uint64_t rng = 9;
    float host[ROW], steered[ROW];
    cmc_comparison c;
    for (int32_t i = 0; i < ROW; i++) host[i] = random_logit(&rng);
    compare_rows(host, host, ROW, 3, &c);
    assert_true(c.kl == 0.0);
    assert_int_equal(c.n_raised + c.n_lowered, 0);
    assert_true(c.token.logprob == c.token.host_logprob);
    for (int32_t i = 0; i < ROW; i++) {
        host[i] = (float)(i % 17);
        steered[i] = host[i] + 64; /* exact in float32 */
    }
    compare_rows(host, steered, ROW, 3, &c);
    assert_true(c.kl >= 0 && c.kl < 1e-15);
}

/* Changes of one size come by id. */
static void test_ties(void **state) {
    (void)state;
    float host[12] = {0}, steered[12] = {0};
    cmc_comparison c;
    for (int i = 4; i < 12; i++) steered[i] = 1;
    compare_rows(host, steered, 12, 0, &c);
    assert_int_equal(c.n_raised, CMC_MOVED);
    assert_int_equal(c.n_lowered, 4);
    for (int k = 0; k < CMC_MOVED; k++) assert_int_equal(c.raised[k].id, 4 + k);
    for (int k = 0; k < 4; k++) assert_int_equal(c.lowered[k].id, k);
    assert_int_equal(c.host_top.id, 0);
    assert_int_equal(c.top.id, 4);
}

/* ----------------------------------------------------------------------------------------------------- streams */

typedef struct fixture {
    char *dir;
    cmc_runtime *rt;
    cmc_model *host, *spm, *same;
} fixture;

static int setup(void **state) {
    static fixture f;
    cmc_error err = {0};
    f.dir = tiny_dir_new();
    OK(cmc_runtime_open(&(cmc_runtime_opts){.threads = 2, .exact = true}, &f.rt, &err));
    f.host = steered_model(f.rt, f.dir, &(tiny_spec){.arch = "llama", .add_bos = true, .seed = 1, .n_ctx = 512});
    f.spm = steered_model(f.rt, f.dir, &(tiny_spec){.arch = "llama", .vocab = "spm", .n_learnt = 150, .seed = 3});
    f.same = steered_model(f.rt, f.dir, &(tiny_spec){.arch = "llama", .add_bos = true, .n_embd = 32, .n_layer = 1, .seed = 2});
    *state = &f;
    return 0;
}

static int teardown(void **state) {
    fixture *f = *state;
    cmc_model_free(f->host);
    cmc_model_free(f->spm);
    cmc_model_free(f->same);
    cmc_runtime_free(f->rt);
    tiny_dir_free(f->dir);
    return 0;
}

static cmc_steering *steering(cmc_model *host, cmc_model *delta, double alpha) {
    cmc_error err = {0};
    cmc_steering *st;
    OK(cmc_steering_new(host, &(cmc_steering_opts){.host_template = CMC_TMPL_PLAIN}, &st, &err));
    OK(cmc_steering_add(st, delta, alpha, NULL, CMC_TMPL_PLAIN, &err));
    return st;
}

static cmc_stream_opts comparing(int32_t max_tokens) {
    return (cmc_stream_opts){.max_tokens = max_tokens, .ignore_end = true, .sampling = cmc_sampling_defaults(), .compare = true};
}

static cmc_stream *stream_of(const cmc_steering *st, char *question, const cmc_stream_opts *o) {
    cmc_error err = {0};
    cmc_message m[2];
    cmc_stream *s;
    cmc_record r = steered_record(m, question, NULL);
    OK(cmc_stream_new(st, &r, o, &s, &err));
    return s;
}

/* Emits given ids in order. */
typedef struct player { const int32_t *ids; size_t at; } player;

static int32_t play(void *user, const float *logits, int32_t n) {
    player *p = user;
    (void)logits;
    (void)n;
    return p->ids[p->at++];
}

/* At every token of an answer a stream moves what scoring that answer says. */
static void check_against_score(cmc_model *host, cmc_model *delta, double alpha) {
    cmc_error err = {0};
    cmc_steering *st = steering(host, delta, alpha);
    cmc_message m[2];
    char question[] = "where did they go", answer[] = "over the hills, and na\xC3\xAFve \xE2\x98\x83 snow";
    cmc_record r = steered_record(m, question, answer);
    cmc_score sc;
    OK(cmc_score_record(st, &r, NULL, 0, &sc, &err));
    assert_true(sc.n > 8);
    player p = {.ids = sc.ids.v + sc.pos[0]};
    cmc_stream_opts o = comparing((int32_t)sc.n);
    cmc_stream *s = stream_of(st, question, &o);
    stream_set_pick(s, play, &p);
    size_t waits = 0, moves = 0;
    for (size_t i = 0; i < sc.n; i++) {
        cmc_comparison c;
        OK(cmc_streams_step(&s, 1, &err));
        OK(cmc_stream_compare(s, &c, &err));
        assert_int_equal(c.token.id, sc.ids.v[sc.pos[i]]);
        assert_true(fabs(c.token.host_logprob - (double)sc.host_logprob[i]) < 1e-5);
        assert_true(fabs(c.token.logprob - (double)sc.logprob[i]) < 1e-5);
        assert_int_equal(c.top.id == c.token.id, sc.top[i]);
        assert_int_equal(c.host_top.id == c.token.id, sc.host_top[i]);
        assert_int_equal(c.n_deltas, alpha != 0.0);
        if (alpha == 0.0 || c.n_waiting) {
            assert_true(c.kl == 0.0);
            assert_int_equal(c.n_raised + c.n_lowered, 0);
        }
        waits += c.n_waiting;
        moves += c.kl > 0;
    }
    assert_int_equal(moves > 0, alpha != 0.0);
    assert_int_equal(waits > 0, alpha != 0.0 && !cmc_vocab_equal(cmc_model_vocab(host), cmc_model_vocab(delta)));
    cmc_stream_free(s);
    cmc_score_free(&sc);
    cmc_steering_free(st);
}

static void test_steps(void **state) {
    const fixture *f = *state;
    check_against_score(f->host, f->spm, 1);
    check_against_score(f->host, f->spm, -0.5);
    check_against_score(f->host, f->spm, 0);
    check_against_score(f->host, f->same, 1.5);
}

/* Penalties and a temperature change what is chosen, not what is compared; and comparing changes nothing. */
static void test_before_sampling(void **state) {
    const fixture *f = *state;
    cmc_error err = {0};
    char question[] = "the cat";
    cmc_steering *st = steering(f->host, f->spm, 1);
    cmc_stream_opts o = comparing(1);
    cmc_comparison greedy, drawn;
    cmc_stream *s = stream_of(st, question, &o);
    OK(cmc_streams_step(&s, 1, &err));
    OK(cmc_stream_compare(s, &greedy, &err));
    assert_int_equal(greedy.token.id, greedy.top.id);
    cmc_stream_free(s);
    o.sampling = (cmc_sampling){.temperature = 3, .top_k = 40, .top_p = 0.9, .repeat_penalty = 2, .repeat_last_n = 64, .seed = 5};
    s = stream_of(st, question, &o);
    OK(cmc_streams_step(&s, 1, &err));
    OK(cmc_stream_compare(s, &drawn, &err));
    assert_true(drawn.kl == greedy.kl && drawn.top.logprob == greedy.top.logprob);
    cmc_stream_free(s);
    cmc_stream *pair[2];
    o.max_tokens = 20;
    for (int k = 0; k < 2; k++) {
        o.compare = k == 1;
        pair[k] = stream_of(st, question, &o);
    }
    while (cmc_stream_stopped(pair[0]) == CMC_STOP_NONE) OK(cmc_streams_step(pair, 2, &err));
    assert_memory_equal(cmc_stream_ids(pair[0], NULL), cmc_stream_ids(pair[1], NULL), 20 * sizeof(int32_t));
    cmc_stream_free(pair[0]);
    cmc_stream_free(pair[1]);
    cmc_steering_free(st);
}

/* Where guards shut the deltas out, none has a part in the step. */
static void test_gate(void **state) {
    const fixture *f = *state;
    cmc_error err = {0};
    cmc_guards g = cmc_guards_defaults();
    char question[] = "the cat";
    cmc_steering *st;
    g.alpha_start = 2;
    g.alpha_length = 3;
    OK(cmc_steering_new(f->host, &(cmc_steering_opts){.host_template = CMC_TMPL_PLAIN, .guards = &g}, &st, &err));
    OK(cmc_steering_add(st, f->same, 1, NULL, CMC_TMPL_PLAIN, &err));
    cmc_stream_opts o = comparing(8);
    cmc_stream *s = stream_of(st, question, &o);
    for (int i = 0; i < 8; i++) {
        cmc_comparison c;
        bool on = i >= 2 && i < 5;
        OK(cmc_streams_step(&s, 1, &err));
        OK(cmc_stream_compare(s, &c, &err));
        assert_int_equal(c.n_deltas, on);
        assert_int_equal(c.n_waiting, 0);
        assert_int_equal(c.kl > 0, on);
    }
    cmc_stream_free(s);
    cmc_steering_free(st);
}

static void test_refusals(void **state) {
    const fixture *f = *state;
    cmc_error err = {0};
    char question[] = "the cat";
    cmc_comparison c;
    cmc_steering *st = steering(f->host, f->spm, 1);
    cmc_stream_opts o = comparing(2);
    cmc_stream *s = stream_of(st, question, &o);
    assert_int_equal(cmc_stream_compare(s, &c, &err), CMC_E_ARG);
    assert_non_null(strstr(err.message, "no token yet"));
    cmc_stream_free(s);
    o.compare = false;
    s = stream_of(st, question, &o);
    OK(cmc_streams_step(&s, 1, &err));
    assert_int_equal(cmc_stream_compare(s, &c, &err), CMC_E_ARG);
    assert_non_null(strstr(err.message, "was not asked for"));
    cmc_stream_free(s);
    cmc_steering_free(st);
}

/* ---------------------------------------------------------------------------------------------------- estimates */

/* Where choosing a token goes by estimates, comparing does not: prompts of one token, forks and all. */
static void check_full(const fixture *f, cmc_output output, bool parent_compares, cmc_comparison *out, size_t n) {
    cmc_error err = {0};
    cmc_runtime *rt;
    cmc_stream *s, *fork;
    char text[] = "a";
    OK(cmc_runtime_open(&(cmc_runtime_opts){.threads = 2, .output = output}, &rt, &err));
    cmc_model *host = steered_model(rt, f->dir, &(tiny_spec){.arch = "llama", .type = CMC_Q8_0, .seed = 8, .n_embd = 288});
    cmc_model *delta = steered_model(rt, f->dir, &(tiny_spec){.arch = "llama", .vocab = "spm", .n_learnt = 150, .seed = 3});
    cmc_steering *st = steering(host, delta, 1);
    cmc_record r = {.line = 1, .text = text, .text_len = 1};
    cmc_stream_opts o = comparing((int32_t)n);
    o.compare = parent_compares;
    OK(cmc_stream_new(st, &r, &o, &s, &err));
    assert_int_equal(cmc_stream_prompt_tokens(s), 1);
    o.compare = true;
    OK(cmc_stream_fork(s, &o, &fork, &err));
    for (size_t i = 0; i < n; i++) {
        OK(cmc_streams_step(&fork, 1, &err));
        OK(cmc_stream_compare(fork, &out[i], &err));
    }
    cmc_stream_free(s);
    cmc_stream_free(fork);
    cmc_steering_free(st);
    cmc_model_free(host);
    cmc_model_free(delta);
    cmc_runtime_free(rt);
}

static void test_no_estimates(void **state) {
    const fixture *f = *state;
    enum { STEPS = 6 };
    cmc_comparison full[STEPS], screened[STEPS];
    check_full(f, CMC_OUTPUT_FULL, true, full, STEPS);
    for (int parent = 0; parent < 2; parent++) {
        check_full(f, CMC_OUTPUT_SCREENED, parent, screened, STEPS);
        for (size_t i = 0; i < STEPS; i++) {
            assert_true(screened[i].kl == full[i].kl);
            assert_int_equal(screened[i].token.id, full[i].token.id);
            for (size_t k = 0; k < CMC_MOVED; k++) assert_true(screened[i].raised[k].logprob == full[i].raised[k].logprob);
        }
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_rows),  cmocka_unit_test(test_same),            cmocka_unit_test(test_ties),
        cmocka_unit_test(test_steps), cmocka_unit_test(test_before_sampling), cmocka_unit_test(test_gate),
        cmocka_unit_test(test_refusals), cmocka_unit_test(test_no_estimates)};
    return cmocka_run_group_tests(tests, setup, teardown);
}
