/* Streams and scores: batches, forks, text, the delta's context, and that a score is what generating would have seen.
 */
#include "tests/steered.h"

#include <math.h>

#include "base/utf8.h"
#include "runtime/model.h"

typedef struct fixture {
    char *dir;
    cmc_runtime *rt;
    cmc_model *host, *spm_host, *same, *spm, *qwen, *narrow; /* narrow: a delta with a context of 48 tokens */
} fixture;

static cmc_model *model(const fixture *f, tiny_spec spec) {
    return steered_model(f->rt, f->dir, &spec);
}

static int setup(void **state) {
    static fixture f;
    cmc_error err = {0};
    f.dir = tiny_dir_new();
    OK(cmc_runtime_open(&(cmc_runtime_opts){.threads = 2, .exact = true}, &f.rt, &err));
    f.host = model(&f, (tiny_spec){.arch = "llama", .add_bos = true, .seed = 1, .n_ctx = 512});
    f.spm_host = model(&f, (tiny_spec){.arch = "llama", .vocab = "spm", .seed = 5});
    f.same = model(&f, (tiny_spec){.arch = "llama", .add_bos = true, .n_embd = 32, .n_layer = 1, .seed = 2});
    f.spm = model(&f, (tiny_spec){.arch = "llama", .vocab = "spm", .n_learnt = 150, .seed = 3});
    f.qwen = model(&f, (tiny_spec){.arch = "qwen2", .n_learnt = 120, .seed = 4});
    f.narrow = model(&f, (tiny_spec){.arch = "llama", .n_learnt = 200, .n_ctx = 48, .seed = 6});
    *state = &f;
    return 0;
}

static int teardown(void **state) {
    fixture *f = *state;
    cmc_model *all[] = {f->host, f->spm_host, f->same, f->spm, f->qwen, f->narrow};
    for (size_t i = 0; i < sizeof all / sizeof all[0]; i++) cmc_model_free(all[i]);
    cmc_runtime_free(f->rt);
    tiny_dir_free(f->dir);
    return 0;
}

static cmc_steering *steering(cmc_model *host, cmc_template ht, cmc_model *delta, double alpha, cmc_template dt) {
    cmc_error err = {0};
    cmc_steering *st;
    OK(cmc_steering_new(host, &(cmc_steering_opts){.host_template = ht}, &st, &err));
    if (delta) OK(cmc_steering_add(st, delta, alpha, NULL, dt, &err));
    return st;
}

static cmc_stream_opts opts_of(int32_t max_tokens) {
    return (cmc_stream_opts){.max_tokens = max_tokens, .ignore_end = true, .sampling = cmc_sampling_defaults()};
}

static cmc_stream *stream_of(const cmc_steering *st, const char *question, const cmc_stream_opts *o) {
    cmc_error err = {0};
    cmc_message m[2];
    char q[200];
    cmc_stream *s;
    snprintf(q, sizeof q, "%s", question);
    cmc_record r = steered_record(m, q, NULL);
    OK(cmc_stream_new(st, &r, o, &s, &err));
    return s;
}

static void run(cmc_stream *s) {
    cmc_error err = {0};
    while (cmc_stream_stopped(s) == CMC_STOP_NONE) OK(cmc_streams_step(&s, 1, &err));
}

/* ------------------------------------------------------------------------------------------- forcing tokens */

/* Plays ids in order, and keeps the log-probability that each had, and how far above the others' it was. */
typedef struct script {
    const int32_t *ids; size_t n, at;
    double inverse_temperature; /* 0: 1 */
    double logprob[512], lead[512];
} script;

static int32_t play(void *user, const float *logits, int32_t n) {
    script *sc = user;
    double top = -INFINITY, sum = 0, by = sc->inverse_temperature > 0 ? sc->inverse_temperature : 1;
    for (int32_t i = 0; i < n; i++) top = fmax(top, (double)logits[i]);
    for (int32_t i = 0; i < n; i++) sum += exp(((double)logits[i] - top) * by);
    assert_true(sc->at < sc->n && sc->n <= 512);
    int32_t id = sc->ids[sc->at];
    double other = -INFINITY;
    for (int32_t i = 0; i < n; i++)
        if (i != id) other = fmax(other, (double)logits[i]);
    sc->lead[sc->at] = (double)logits[id] - other;
    sc->logprob[sc->at++] = ((double)logits[id] - top) * by - log(sum);
    return id;
}

/* The token whose bytes are just this one. */
static int32_t byte_id(const cmc_vocab *v, uint8_t b) {
    for (int32_t i = 0; i < v->n; i++) {
        size_t n;
        const uint8_t *s = cmc_vocab_bytes(v, i, &n);
        if (n == 1 && s[0] == b) return i;
    }
    fail_msg("no token for byte %u", b);
    return -1;
}

/* ------------------------------------------------------------------------------- bits, seeds, batches and forks */

/* Every row of logits that a stream met, one after the other. */
typedef struct tape { float *v; size_t n; } tape;

static int32_t record_rows(void *user, const float *logits, int32_t n) {
    tape *t = user;
    t->v = realloc(t->v, (t->n + (size_t)n) * sizeof *t->v);
    memcpy(t->v + t->n, logits, (size_t)n * sizeof *logits);
    t->n += (size_t)n;
    int32_t best = 0;
    for (int32_t i = 1; i < n; i++) best = logits[i] > logits[best] ? i : best;
    return best;
}

static tape tape_of(const cmc_steering *st, bool unsteered) {
    cmc_stream_opts o = opts_of(12);
    o.unsteered = unsteered;
    cmc_stream *s = stream_of(st, "the cat", &o);
    tape t = {0};
    stream_set_pick(s, record_rows, &t);
    run(s);
    cmc_stream_free(s);
    return t;
}

/* No delta, a delta of strength 0 and a stream without deltas are the same, bit for bit; a delta is not. */
static void test_alpha_zero(void **state) {
    const fixture *f = *state;
    cmc_steering *none = steering(f->host, CMC_TMPL_PLAIN, NULL, 0, CMC_TMPL_AUTO);
    cmc_steering *zero = steering(f->host, CMC_TMPL_PLAIN, f->spm, 0, CMC_TMPL_AUTO);
    cmc_steering *one = steering(f->host, CMC_TMPL_PLAIN, f->spm, 1, CMC_TMPL_AUTO);
    tape a = tape_of(none, false), b = tape_of(zero, false), c = tape_of(one, true), d = tape_of(one, false);
    assert_int_equal(a.n, 12 * (size_t)cmc_model_n_vocab(f->host));
    assert_memory_equal(a.v, b.v, a.n * sizeof *a.v);
    assert_memory_equal(a.v, c.v, a.n * sizeof *a.v);
    assert_int_equal(a.n, d.n);
    assert_true(memcmp(a.v, d.v, a.n * sizeof *a.v) != 0);
    free(a.v); free(b.v); free(c.v); free(d.v);
    cmc_steering_free(none);
    cmc_steering_free(zero);
    cmc_steering_free(one);
}

static const char *const QUESTIONS[] = {"the cat", "a hat?", "caf\xc3\xa9 au lait", "1 2 3"};
enum { N_QUESTIONS = 4 };

static cmc_stream_opts sampled(uint64_t seed) {
    cmc_stream_opts o = opts_of(20);
    o.sampling.temperature = 1.0;
    o.sampling.top_p = 0.95;
    o.sampling.repeat_penalty = 1.1;
    o.sampling.repeat_last_n = 8;
    o.sampling.seed = seed;
    return o;
}

static void assert_same(const cmc_stream *a, const cmc_stream *b) {
    size_t n, m, ln, lm;
    const int32_t *x = cmc_stream_ids(a, &n), *y = cmc_stream_ids(b, &m);
    assert_int_equal(n, m);
    assert_memory_equal(x, y, n * sizeof *x);
    const char *s = cmc_stream_text(a, &ln), *t = cmc_stream_text(b, &lm);
    assert_int_equal(ln, lm);
    assert_memory_equal(s, t, ln);
    assert_int_equal(cmc_stream_stopped(a), cmc_stream_stopped(b));
}

/* Seeds decide; streams in a batch do what each does alone. */
static void test_seed_and_batch(void **state) {
    const fixture *f = *state;
    cmc_error err = {0};
    cmc_steering *st = steering(f->host, CMC_TMPL_PLAIN, f->spm, 0.8, CMC_TMPL_AUTO);
    OK(cmc_steering_add(st, f->same, -0.5, NULL, CMC_TMPL_AUTO, &err));
    OK(cmc_steering_add(st, f->spm, 0.2, NULL, CMC_TMPL_ALPACA, &err)); /* one model, in two parts */
    cmc_stream *alone[N_QUESTIONS], *batch[N_QUESTIONS];
    for (int i = 0; i < N_QUESTIONS; i++) {
        cmc_stream_opts o = sampled((uint64_t)i);
        o.unsteered = i == 2;
        alone[i] = stream_of(st, QUESTIONS[i], &o);
        batch[i] = stream_of(st, QUESTIONS[i], &o);
        run(alone[i]);
    }
    for (int step = 0; step < 25; step++) OK(cmc_streams_step(batch, N_QUESTIONS, &err));
    for (int i = 0; i < N_QUESTIONS; i++) {
        assert_int_equal(cmc_stream_stopped(batch[i]), CMC_STOP_LENGTH);
        assert_same(alone[i], batch[i]);
    }
    cmc_stream_opts other = sampled(99);
    cmc_stream *s = stream_of(st, QUESTIONS[0], &other);
    run(s);
    size_t n;
    const int32_t *a = cmc_stream_ids(s, &n), *b = cmc_stream_ids(alone[0], &n);
    assert_true(memcmp(a, b, n * sizeof *a) != 0);
    cmc_stream_free(s);
    for (int i = 0; i < N_QUESTIONS; i++) {
        cmc_stream_free(alone[i]);
        cmc_stream_free(batch[i]);
    }
    cmc_steering_free(st);
}

/* Greedy decoding, which leaves steered logits unwritten where it can, takes the greatest of those that a hook is shown. */
static void test_greedy(void **state) {
    const fixture *f = *state;
    cmc_error err = {0};
    cmc_model *const deltas[] = {f->same, f->spm, f->qwen};
    for (size_t k = 0; k < 3; k++) {
        for (int raw = 0; raw < 2; raw++) {
            cmc_steering *st;
            OK(cmc_steering_new(f->host, &(cmc_steering_opts){.host_template = CMC_TMPL_PLAIN, .unmapped_raw = raw}, &st, &err));
            OK(cmc_steering_add(st, deltas[k], 1.5, NULL, CMC_TMPL_AUTO, &err));
            cmc_stream_opts o = opts_of(60);
            cmc_stream *a = stream_of(st, "the cat", &o), *b = stream_of(st, "the cat", &o), *v[2];
            tape t = {0};
            stream_set_pick(b, record_rows, &t);
            run(b);
            if (raw) run(a);
            v[0] = a, v[1] = stream_of(st, "a hat?", &o);
            while (cmc_stream_stopped(a) == CMC_STOP_NONE) OK(cmc_streams_step(v, 2, &err)); /* each by one thread */
            assert_same(a, b);
            free(t.v);
            cmc_stream_free(a);
            cmc_stream_free(b);
            cmc_stream_free(v[1]);
            cmc_steering_free(st);
        }
    }
}

/* A fork before, at and after the first step, and the next turn of a conversation, give what a stream of their own
 * gives. */
static void test_fork_and_next(void **state) {
    const fixture *f = *state;
    cmc_error err = {0};
    cmc_steering *st = steering(f->host, CMC_TMPL_CHATML, f->spm, 0.8, CMC_TMPL_CHATML);
    cmc_stream_opts plain = sampled(1), steered = sampled(2);
    plain.unsteered = true;
    for (int before = 0; before < 3; before++) {
        cmc_stream *a = stream_of(st, "the cat", &plain), *own_a = stream_of(st, "the cat", &plain), *b;
        cmc_stream *own_b = stream_of(st, "the cat", &steered);
        for (int i = 0; i < before; i++) OK(cmc_streams_step(&a, 1, &err));
        OK(cmc_stream_fork(a, &steered, &b, &err));
        cmc_stream *both[] = {a, b};
        for (int i = 0; i < 25; i++) OK(cmc_streams_step(both, 2, &err));
        run(own_a);
        run(own_b);
        assert_same(a, own_a);
        assert_same(b, own_b);
        cmc_message m[3] = {{CMC_USER, (char *)"the cat", 7},
                            {CMC_ASSISTANT, (char *)"sat", 3},
                            {CMC_USER, (char *)"where?", 6}};
        cmc_record r = {.messages = m, .n_messages = 3};
        cmc_stream *next, *own;
        OK(cmc_stream_next(a, &r, &steered, &next, &err));
        OK(cmc_stream_new(st, &r, &steered, &own, &err));
        assert_true(cmc_session_length(next->host) - cmc_session_pending(next->host) >= 9); /* something is shared */
        run(next);
        run(own);
        assert_same(next, own);
        cmc_stream *all[] = {a, b, own_a, own_b, next, own};
        for (int i = 0; i < 6; i++) cmc_stream_free(all[i]);
    }
    cmc_steering_free(st);
}

/* ---------------------------------------------------------------------------------------------------- the text */

/* Plays bytes; after each, the text that is shown. */
static void assert_shown(const cmc_steering *st, const char *bytes, const char *const *stop, size_t n_stop,
                         const char *const *shown, cmc_stop how) {
    cmc_error err = {0};
    const cmc_vocab *v = cmc_model_vocab(st->host);
    int32_t ids[64];
    script sc = {.ids = ids, .n = strlen(bytes)};
    for (size_t i = 0; i < sc.n; i++) ids[i] = byte_id(v, (uint8_t)bytes[i]);
    cmc_stream_opts o = opts_of((int32_t)sc.n);
    o.stop = stop;
    o.n_stop = n_stop;
    cmc_stream *s = stream_of(st, "x", &o);
    stream_set_pick(s, play, &sc);
    for (size_t i = 0; cmc_stream_stopped(s) == CMC_STOP_NONE; i++) {
        OK(cmc_streams_step(&s, 1, &err));
        size_t n;
        const char *text = cmc_stream_text(s, &n);
        if (n != strlen(shown[i]) || memcmp(text, shown[i], n) != 0) {
            fail_msg("after %zu bytes of \"%s\": \"%.*s\", not \"%s\"", i + 1, bytes, (int)n, text, shown[i]);
        }
    }
    assert_int_equal(cmc_stream_stopped(s), how);
    assert_int_equal(shown[sc.at] == NULL, 1);
    cmc_stream_free(s);
}

static void test_text(void **state) {
    const fixture *f = *state;
    cmc_steering *st = steering(f->host, CMC_TMPL_RAW, f->spm, 1, CMC_TMPL_RAW);
    const char *const end[] = {"END", "\n\n"}, *const over[] = {"aab"};
    assert_shown(st, "abEND", end, 2, (const char *const[]){"a", "ab", "ab", "ab", "ab", NULL}, CMC_STOP_STRING);
    assert_shown(st, "aEEN.", end, 2, (const char *const[]){"a", "a", "aE", "aE", "aEEN.", NULL}, CMC_STOP_LENGTH);
    assert_shown(st, "a\nb\n\n", end, 2, (const char *const[]){"a", "a", "a\nb", "a\nb", "a\nb", NULL},
                 CMC_STOP_STRING);
    assert_shown(st, "aaab", over, 1, (const char *const[]){"", "", "a", "a", NULL}, CMC_STOP_STRING);
    assert_shown(st, "aa", over, 1, (const char *const[]){"", "aa", NULL}, CMC_STOP_LENGTH);
    assert_shown(st, "a\xe2\x82\xac.", NULL, 0,
                 (const char *const[]){"a", "a", "a", "a\xe2\x82\xac", "a\xe2\x82\xac.", NULL}, CMC_STOP_LENGTH);
    assert_shown(st, "a\xe2\x82", NULL, 0, (const char *const[]){"a", "a", "a\xe2\x82", NULL}, CMC_STOP_LENGTH);
    cmc_steering_free(st);
    st = steering(f->host, CMC_TMPL_PLAIN, f->spm, 1, CMC_TMPL_PLAIN); /* the lead is no part of the text */
    assert_shown(st, " Yo", NULL, 0, (const char *const[]){"", "Y", "Yo", NULL}, CMC_STOP_LENGTH);
    assert_shown(st, "Yo ", NULL, 0, (const char *const[]){"Y", "Yo", "Yo ", NULL}, CMC_STOP_LENGTH);
    cmc_steering_free(st);
}

static void test_stopping(void **state) {
    const fixture *f = *state;
    cmc_error err = {0};
    cmc_steering *st = steering(f->host, CMC_TMPL_PLAIN, NULL, 0, CMC_TMPL_AUTO);
    const cmc_vocab *v = cmc_model_vocab(f->host);
    int32_t ids[] = {byte_id(v, ' '), byte_id(v, 'a'), prompt_end_token(v, CMC_TMPL_PLAIN)};
    script sc = {.ids = ids, .n = 3};
    cmc_stream_opts o = opts_of(-1);
    o.ignore_end = false;
    cmc_stream *s = stream_of(st, "x", &o);
    stream_set_pick(s, play, &sc);
    run(s);
    size_t n, len;
    cmc_stream_ids(s, &n);
    assert_int_equal(n, 3); /* the end token included */
    assert_int_equal(cmc_stream_stopped(s), CMC_STOP_EOS);
    const char *text = cmc_stream_text(s, &len);
    assert_int_equal(len, 1);
    assert_memory_equal(text, "a", 1);
    OK(cmc_streams_step(&s, 1, &err)); /* nothing more */
    cmc_stream_ids(s, &n);
    assert_int_equal(n, 3);
    cmc_stream_free(s);
    o = opts_of(0);
    s = stream_of(st, "x", &o);
    assert_int_equal(cmc_stream_stopped(s), CMC_STOP_LENGTH);
    cmc_stream_free(s);
    o = opts_of(-1); /* as many as fit */
    o.n_ctx = 40;
    s = stream_of(st, "x", &o);
    run(s);
    cmc_stream_ids(s, &n);
    assert_int_equal(cmc_stream_stopped(s), CMC_STOP_LENGTH);
    assert_int_equal(n + cmc_stream_prompt_tokens(s), 41);
    cmc_stream_free(s);
    cmc_steering_free(st);
}

static void test_refusals(void **state) {
    const fixture *f = *state;
    cmc_error err = {0};
    cmc_stream *s;
    cmc_message m[2], m_empty[2];
    char text[] = "a long prompt that does not fit", none[] = "";
    cmc_record r = steered_record(m, text, NULL), empty = steered_record(m_empty, none, NULL);
    cmc_steering *st = steering(f->host, CMC_TMPL_PLAIN, NULL, 0, CMC_TMPL_AUTO);
    cmc_steering *raw = steering(f->qwen, CMC_TMPL_RAW, NULL, 0, CMC_TMPL_AUTO);
    cmc_stream_opts o = opts_of(1);
    o.n_ctx = 8;
    assert_int_equal(cmc_stream_new(st, &r, &o, &s, &err), CMC_E_RANGE);
    assert_null(s);
    o = opts_of(1);
    assert_int_equal(cmc_stream_new(raw, &empty, &o, &s, &err), CMC_E_ARG);
    assert_non_null(strstr(err.message, "the prompt is empty"));
    const char *const stop[] = {""};
    o.stop = stop;
    o.n_stop = 1;
    assert_int_equal(cmc_stream_new(st, &r, &o, &s, &err), CMC_E_ARG);
    cmc_steering_free(st);
    cmc_steering_free(raw);
    st = steering(f->host, CMC_TMPL_PLAIN, f->narrow, 1,
                  CMC_TMPL_ALPACA); /* the preamble alone is more than its context */
    o = opts_of(1);
    OK(cmc_stream_new(st, &r, &o, &s, &err));
    assert_int_equal(cmc_streams_step(&s, 1, &err), CMC_E_RANGE);
    assert_non_null(strstr(err.message, "in the delta's template"));
    OK(cmc_steering_set_alpha(st, 0, 0, &err)); /* left out, it is no hindrance; the host's row is still there */
    OK(cmc_streams_step(&s, 1, &err));
    assert_int_equal(cmc_stream_stopped(s), CMC_STOP_LENGTH);
    cmc_stream_free(s);
    cmc_steering_free(st);
}

/* ------------------------------------------------------------------------------------------- the delta's context */

/* Emits random tokens and checks at each one that every delta's ids are those of tokenising the whole text. */
typedef struct prober {
    cmc_stream *s;
    uint64_t random;
    size_t waits, checks, cuts;
} prober;

/* What the delta should see: lead and response proper (the response as it is, where its lead is missing). */
static size_t delta_text(const cmc_stream *s, size_t k, uint8_t *out) {
    const char *hl = s->st->lead, *dl = s->st->deltas[k].lead;
    size_t n = 0, len;
    uint8_t all[4096];
    for (size_t i = s->n_prompt; i < s->seq.n; i++) {
        const uint8_t *b = cmc_vocab_bytes(cmc_model_vocab(s->st->host), s->seq.v[i], &len);
        memcpy(all + n, b, len);
        n += len;
    }
    size_t drop = strcmp(hl, dl) != 0 && *hl && n > 0 && all[0] == ' ',
           lead = strcmp(hl, dl) != 0 && n > 0 ? strlen(dl) : 0;
    memcpy(out, dl, lead);
    memcpy(out + lead, all + drop, n - drop);
    return lead + n - drop;
}

static int32_t probe(void *user, const float *logits, int32_t n) {
    prober *p = user;
    (void)logits;
    for (size_t k = 0; k < p->s->n_deltas; k++) {
        uint8_t text[4096];
        size_t len = delta_text(p->s, k, text), n_prompt;
        const cmc_ids *ctx = stream_delta_context(p->s, k, &n_prompt);
        if (cmc_utf8_whole(text, len) < len) { /* a character is unfinished: no shift */
            assert_int_equal(p->s->kinds[k], STEERING_NO_ROW);
            p->waits++;
            continue;
        }
        cmc_ids want = {0};
        assert_int_equal(
            cmc_tokenize(cmc_model_vocab(p->s->st->deltas[k].model), (char *)text, len, CMC_TOK_CONTINUE, &want, NULL),
            CMC_OK);
        size_t have = ctx->n - n_prompt, room = (size_t)cmc_model_n_ctx(p->s->st->deltas[k].model) - n_prompt;
        assert_true(have <= want.n && have <= room);
        if (have < want.n) {
            assert_true(have >= room / 2 - 4);
            p->cuts++;
        }
        assert_memory_equal(ctx->v + n_prompt, want.v + want.n - have, have * sizeof *want.v);
        assert_int_equal(cmc_session_length(p->s->deltas[k].session), ctx->n);
        assert_int_equal(p->s->kinds[k], len == 0 && p->s->st->deltas[k].first_map ? STEERING_FIRST_ROW : STEERING_ROW);
        cmc_ids_free(&want);
        p->checks++;
    }
    return (int32_t)(steered_random(&p->random) % (uint64_t)n);
}

static void test_context_is_the_text(void **state) {
    const fixture *f = *state;
    cmc_error err = {0};
    size_t waits = 0, checks = 0, cuts = 0;
    const cmc_template hosts[] = {CMC_TMPL_PLAIN, CMC_TMPL_CHATML};
    for (uint64_t seed = 1; seed <= 6; seed++) {
        cmc_steering *st = steering(seed % 3 ? f->host : f->spm_host, hosts[seed & 1], f->spm, 0.3, CMC_TMPL_PLAIN);
        OK(cmc_steering_add(st, f->qwen, 0.3, NULL, CMC_TMPL_CHATML, &err));
        OK(cmc_steering_add(st, f->narrow, 0.3, NULL, CMC_TMPL_PLAIN, &err));
        cmc_stream_opts o = opts_of(60);
        prober p = {.s = stream_of(st, "hat", &o), .random = seed * 7919};
        stream_set_pick(p.s, probe, &p);
        run(p.s);
        waits += p.waits;
        checks += p.checks;
        cuts += p.cuts;
        assert_int_equal(cmc_stream_note(p.s) != NULL, p.cuts > 0);
        cmc_stream_free(p.s);
        cmc_steering_free(st);
    }
    assert_true(waits > 20 && checks > 200 && cuts > 20); /* it met all of them */
}

/* A delta of the host's own vocabulary takes the host's ids as they are; one whose strength is raised later catches up.
 */
static void test_same_vocabulary_and_late_start(void **state) {
    const fixture *f = *state;
    cmc_error err = {0};
    cmc_steering *st = steering(f->host, CMC_TMPL_PLAIN, f->same, 0, CMC_TMPL_CHATML);
    cmc_stream_opts o = opts_of(30);
    cmc_stream *s = stream_of(st, "hat", &o);
    prober p = {.s = s, .random = 5};
    s->n_deltas = 0; /* the prober has nothing to check yet */
    stream_set_pick(s, probe, &p);
    for (int i = 0; i < 10; i++) OK(cmc_streams_step(&s, 1, &err));
    s->n_deltas = 1;
    OK(cmc_steering_set_alpha(st, 0, 1, &err));
    size_t n, n_prompt;
    const int32_t *ids = cmc_stream_ids(s, &n);
    script sc = {.ids = (const int32_t[]){7}, .n = 1};
    stream_set_pick(s, play, &sc);
    OK(cmc_streams_step(&s, 1, &err));
    const cmc_ids *ctx = stream_delta_context(s, 0, &n_prompt);
    assert_non_null(ctx);
    ids = cmc_stream_ids(s, &n);
    assert_int_equal(n, 11);
    assert_int_equal(ctx->n - n_prompt, 10);
    assert_memory_equal(ctx->v + n_prompt, ids, 10 * sizeof *ids);
    cmc_stream_free(s);
    cmc_steering_free(st);
}

/* One step's row, for comparison with the shift done by hand. */
static int32_t keep_row(void *user, const float *logits, int32_t n) {
    memcpy(user, logits, (size_t)n * sizeof *logits);
    return 0;
}

/* Before its first byte, a response whose leads differ is steered through the first token's map; after it, as ever. */
static void test_first_token(void **state) {
    const fixture *f = *state;
    cmc_error err = {0};
    size_t n = (size_t)cmc_model_n_vocab(f->host), bytes = n * sizeof(float);
    cmc_steering *st = steering(f->host, CMC_TMPL_CHATML, f->qwen, 2, CMC_TMPL_PLAIN);
    float *plain = malloc(bytes), *steered = malloc(bytes), *want = malloc(bytes), *work = malloc(2 * bytes);
    cmc_stream_opts o = opts_of(2);
    cmc_stream *a = stream_of(st, "hat", &o), *b = stream_of(st, "hat", &o);
    a->unsteered = true;
    stream_set_pick(a, keep_row, plain);
    stream_set_pick(b, keep_row, steered);
    assert_non_null(st->deltas[0].first_map);
    for (int step = 0; step < 2; step++) {
        OK(cmc_streams_step((cmc_stream *[]){a, b}, 2, &err));
        const cmc_map *maps[] = {step == 0 ? st->deltas[0].first_map : st->deltas[0].map, /* the right one, the other */
                                 step == 0 ? st->deltas[0].map : st->deltas[0].first_map};
        for (int other = 0; other < 2; other++) {
            double worst = 0;
            shift_in in = {.map = maps[other], .alpha = 2, .logits = b->deltas[0].row};
            memcpy(want, plain, bytes);
            shift_apply_plain(want, (int32_t)n, &in, 1, false, work);
            for (size_t i = 0; i < n; i++) worst = fmax(worst, fabs((double)want[i] - (double)steered[i]));
            assert_true(other ? worst > 1e-2 : worst < 1e-4);
        }
    }
    cmc_stream_free(a);
    cmc_stream_free(b);
    cmc_steering_free(st);
    free(plain); free(steered); free(want); free(work);
}

/* ------------------------------------------------------------------------------------------------------ scores */

/* Scores a record, then generates its responses token by token: the log-probabilities are the same, and so are the likeliest
 * tokens. */
static void score_at_is_stream(const cmc_steering *st, const cmc_record *r, double temperature, const double *alphas, size_t n_sets,
                               cmc_steering *live) {
    cmc_error err = {0};
    cmc_score score;
    OK(temperature == 1 ? cmc_score_record(st, r, alphas, n_sets, &score, &err)
                        : cmc_score_record_at(st, r, temperature, alphas, n_sets, &score, &err));
    assert_true(score.n > 0);
    double worst = 0;
    for (size_t a = 0; a < n_sets; a++) {
        for (size_t k = 0; k < st->n; k++) OK(cmc_steering_set_alpha(live, k, alphas[a * st->n + k], &err));
        size_t q = 0;
        for (size_t i = 0; i < r->n_messages || (r->text && i == 0); i++) {
            if (!r->text && r->messages[i].role != CMC_ASSISTANT) continue;
            cmc_record prompt = {.messages = r->messages, .n_messages = i};
            char none[] = "";
            if (r->text) prompt = (cmc_record){.text = none}; /* BOS alone */
            size_t first = q, n = 0;
            while (first + n < score.n && score.pos[first + n] == score.pos[first] + n) n++;
            cmc_stream_opts o = opts_of((int32_t)n);
            cmc_stream *s;
            script sc = {.ids = score.ids.v + score.pos[first], .n = n, .inverse_temperature = 1 / temperature};
            OK(cmc_stream_new(live, &prompt, &o, &s, &err));
            assert_int_equal(cmc_stream_prompt_tokens(s), score.pos[first]);
            stream_set_pick(s, play, &sc);
            run(s);
            for (size_t t = 0; t < n; t++) {
                size_t at = a * score.n + first + t;
                worst = fmax(worst, fabs(sc.logprob[t] - (double)score.logprob[at]));
                if (fabs(sc.lead[t]) > 1e-4) assert_int_equal(score.top[at], sc.lead[t] > 0);
            }
            q += n;
            cmc_stream_free(s);
        }
        assert_int_equal(q, score.n);
    }
    if (worst > 2e-5 / fmin(1, temperature)) fail_msg("a score is %g from what generating saw", worst);
    cmc_score_free(&score);
}

static void score_is_stream(const cmc_steering *st, const cmc_record *r, const double *alphas, size_t n_sets, cmc_steering *live) {
    score_at_is_stream(st, r, 1, alphas, n_sets, live);
}

static void test_score_is_stream(void **state) {
    const fixture *f = *state;
    cmc_error err = {0};
    const double alphas[] = {0.5, -1, 0.25, 0, 0, 0, 1, 1, 1};
    const cmc_template t[] = {CMC_TMPL_PLAIN, CMC_TMPL_CHATML};
    cmc_message m[4] = {{CMC_USER, (char *)"the cat?", 8},
                        {CMC_ASSISTANT, (char *)"caf\xc3\xa9 \xf0\x9f\x98\x80 thethe \xe4\xb8\xad\xe6\x96\x87 cat", 29},
                        {CMC_USER, (char *)"and", 3},
                        {CMC_ASSISTANT, (char *)"the hat, the cat and the dog sat on the mat", 43}};
    for (int c = 0; c < 8; c++) {
        cmc_model *host = c & 4 ? f->spm_host : f->host;
        cmc_steering *st[2];
        for (int i = 0; i < 2; i++) {
            st[i] = steering(host, t[c & 1], f->spm, 1, t[c >> 1 & 1]);
            OK(cmc_steering_add(st[i], f->qwen, 1, NULL, t[c & 1], &err));
            OK(cmc_steering_add(st[i], c & 4 ? f->narrow : f->same, 1, NULL, CMC_TMPL_PLAIN, &err));
        }
        cmc_record r = {.messages = m, .n_messages = c & 4 ? 2 : 4}; /* two turns are more than the narrow one holds */
        score_is_stream(st[0], &r, alphas, 3, st[1]);
        char text[] = "the caf\xc3\xa9 and the \xf0\x9f\x98\x80 hat";
        cmc_record bare = {.text = text, .text_len = strlen(text)};
        score_is_stream(st[0], &bare, alphas, 3, st[1]);
        score_at_is_stream(st[0], &bare, c & 1 ? 0.6 : 1.7, alphas, 3, st[1]);
        cmc_steering_free(st[0]);
        cmc_steering_free(st[1]);
    }
}

/* Under guards too: schedules and markers open and close at the same tokens, in each response anew. */
static void test_score_is_stream_guarded(void **state) {
    const fixture *f = *state;
    cmc_error err = {0};
    const double alphas[] = {1.5, -1};
    const cmc_guards sets[] = {
        {.shift_limit = 0.7, .plausible = 0.2, .alpha_length = -1},
        {.shift_limit = INFINITY, .alpha_start = 2, .alpha_length = 3, .alpha_decay = 0.6},
        {.shift_limit = INFINITY, .alpha_length = -1, .from = "t, th", .until = "og"},
        {.shift_limit = 1, .alpha_start = 1, .alpha_length = 1, .alpha_decay = 0.5, .until = "\xa9 \xf0\x9f"},
    };
    cmc_message m[4] = {{CMC_USER, (char *)"the cat?", 8},
                        {CMC_ASSISTANT, (char *)"caf\xc3\xa9 \xf0\x9f\x98\x80 thethe cat, the hat", 30},
                        {CMC_USER, (char *)"and", 3},
                        {CMC_ASSISTANT, (char *)"the hat, the cat and the dog sat on the mat", 43}};
    const cmc_record r = {.messages = m, .n_messages = 4};
    for (size_t c = 0; c < 2 * sizeof sets / sizeof *sets; c++) {
        cmc_steering *st[2];
        for (int i = 0; i < 2; i++) {
            OK(cmc_steering_new(c % 2 ? f->spm_host : f->host, &(cmc_steering_opts){.guards = &sets[c / 2]}, &st[i], &err));
            OK(cmc_steering_add(st[i], f->spm, 1, NULL, CMC_TMPL_PLAIN, &err));
            OK(cmc_steering_add(st[i], f->qwen, 1, NULL, CMC_TMPL_PLAIN, &err));
        }
        score_is_stream(st[0], &r, alphas, 1, st[1]);
        score_at_is_stream(st[0], &r, 0.7, alphas, 1, st[1]);
        cmc_score score;
        size_t same = 0;
        OK(cmc_score_record(st[0], &r, alphas, 1, &score, &err));
        for (size_t q = 0; q < score.n; q++) same += score.logprob[q] == score.host_logprob[q];
        assert_true(same > 3 && same < score.n); /* it is steered, but not everywhere; what is not plausible is held */
        cmc_score_free(&score);
        cmc_steering_free(st[0]);
        cmc_steering_free(st[1]);
    }
}

/* The token that a stream takes first is marked as the likeliest when it is scored. */
static void test_score_top(void **state) {
    const fixture *f = *state;
    cmc_error err = {0};
    int seen = 0;
    cmc_steering *st = steering(f->host, CMC_TMPL_CHATML, f->same, 2, CMC_TMPL_CHATML);
    for (int i = 0; i < 40; i++) {
        for (int side = 0; side < 2; side++) {
            char question[32], answer[64];
            cmc_message m[2];
            cmc_stream_opts o = opts_of(1);
            cmc_stream *s;
            cmc_score score;
            size_t len, n;
            snprintf(question, sizeof question, "the cat %d?", i);
            cmc_record r = steered_record(m, question, NULL);
            o.unsteered = side == 0;
            OK(cmc_stream_new(st, &r, &o, &s, &err));
            run(s);
            const char *text = cmc_stream_text(s, &len);
            snprintf(answer, sizeof answer, "%.*s", (int)len, text);
            int32_t id = cmc_stream_ids(s, &n)[0];
            cmc_stream_free(s);
            if (!answer[0]) continue;
            r = steered_record(m, question, answer);
            OK(cmc_score_record(st, &r, NULL, 0, &score, &err));
            if (score.ids.v[score.pos[0]] == id) {
                assert_true(side ? score.top[0] : score.host_top[0]);
                seen |= 1 << side;
            }
            cmc_score_free(&score);
        }
    }
    assert_int_equal(seen, 3);
    cmc_steering_free(st);
}

/* Contexts that do not fit: the score slides as the stream does, also where guards let the delta speak at some steps alone. */
static void test_score_overflow(void **state) {
    const fixture *f = *state;
    const double alphas[] = {1};
    const cmc_guards sets[] = {
        {.shift_limit = INFINITY, .alpha_length = -1},
        {.shift_limit = INFINITY, .alpha_start = 50, .alpha_length = -1},
        {.shift_limit = INFINITY, .alpha_length = 30},
        {.shift_limit = INFINITY, .alpha_length = -1, .from = "dog; the caf\xc3\xa9, the hat and a d", .until = "hat"},
    };
    char answer[600] = "", question[] = "go";
    for (int i = 0; i < 16; i++) strcat(answer, "the caf\xc3\xa9, the hat and a dog; ");
    cmc_message m[2];
    cmc_record r = steered_record(m, question, answer);
    for (size_t c = 0; c < sizeof sets / sizeof *sets; c++) {
        cmc_steering *st[2];
        cmc_error err = {0};
        for (int i = 0; i < 2; i++) {
            OK(cmc_steering_new(f->host, &(cmc_steering_opts){.host_template = CMC_TMPL_PLAIN, .guards = &sets[c]}, &st[i], &err));
            OK(cmc_steering_add(st[i], f->narrow, 1, NULL, CMC_TMPL_PLAIN, &err));
        }
        score_is_stream(st[0], &r, alphas, 1, st[1]);
        cmc_steering_free(st[0]);
        cmc_steering_free(st[1]);
    }
}

/* Deltas that are added while a stream is there have no part in it, nor in its forks (for ASan to see, too). */
static void test_added_later(void **state) {
    const fixture *f = *state;
    cmc_error err = {0};
    cmc_stream_opts o = opts_of(12);
    size_t n[3];
    const int32_t *ids[3];
    cmc_stream *s[3];
    cmc_steering *st = steering(f->host, CMC_TMPL_PLAIN, f->spm, 2, CMC_TMPL_PLAIN);
    for (int i = 0; i < 2; i++) s[i] = stream_of(st, "the cat?", &o);
    run(s[0]);
    OK(cmc_streams_step(&s[1], 1, &err));
    for (int i = 0; i < 40; i++) OK(cmc_steering_add(st, i % 2 ? f->qwen : f->same, 3, NULL, CMC_TMPL_PLAIN, &err));
    OK(cmc_stream_fork(s[1], &o, &s[2], &err));
    for (int i = 1; i < 3; i++) run(s[i]);
    for (int i = 0; i < 3; i++) ids[i] = cmc_stream_ids(s[i], &n[i]);
    for (int i = 1; i < 3; i++) {
        assert_int_equal(n[i], n[0]);
        assert_memory_equal(ids[i], ids[0], n[0] * sizeof *ids[0]);
    }
    for (int i = 0; i < 3; i++) cmc_stream_free(s[i]);
    cmc_steering_free(st);
}

static int32_t pick_none(void *user, const float *logits, int32_t n) {
    (void)user;
    (void)logits;
    (void)n;
    return -1;
}

/* A stream that fails in a group: the others have the tokens that they would have had. */
static void test_one_fails(void **state) {
    const fixture *f = *state;
    cmc_error err = {0};
    cmc_stream_opts o = opts_of(6);
    cmc_stream *s[3];
    size_t n[2];
    cmc_steering *st = steering(f->host, CMC_TMPL_PLAIN, f->spm, 2, CMC_TMPL_PLAIN);
    for (int i = 0; i < 3; i++) s[i] = stream_of(st, "the cat?", &o);
    stream_set_pick(s[0], pick_none, NULL);
    assert_int_equal(cmc_streams_step(s, 2, &err), CMC_E_FORMAT);
    assert_non_null(strstr(err.message, "no token can be picked"));
    cmc_stream_ids(s[0], &n[0]);
    cmc_stream_ids(s[1], &n[1]);
    assert_true(n[0] == 0 && n[1] == 1);
    for (int i = 1; i < 3; i++) run(s[i]);
    const int32_t *a = cmc_stream_ids(s[1], &n[0]), *b = cmc_stream_ids(s[2], &n[1]);
    assert_true(n[0] == n[1] && memcmp(a, b, n[0] * sizeof *a) == 0);
    for (int i = 0; i < 3; i++) cmc_stream_free(s[i]);
    cmc_steering_free(st);
}

static void test_score_temperatures(void **state) {
    const fixture *f = *state;
    const double bad[] = {0, -1, 1e-7, 1e7, NAN, INFINITY};
    cmc_steering *st = steering(f->host, CMC_TMPL_PLAIN, NULL, 0, CMC_TMPL_AUTO);
    char text[] = "the cat";
    const cmc_record bare = {.text = text, .text_len = strlen(text)};
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        cmc_score s;
        assert_int_equal(cmc_score_record_at(st, &bare, bad[i], NULL, 0, &s, NULL), CMC_E_ARG);
    }
    cmc_steering_free(st);
}

/* Which tokens count, their bytes, and what no delta leaves. */
static void test_score_counts(void **state) {
    const fixture *f = *state;
    cmc_error err = {0};
    cmc_score s;
    cmc_message m[2];
    char q[] = "the cat?", a[] = "caf\xc3\xa9", text[] = "the caf\xc3\xa9";
    cmc_record r = steered_record(m, q, a), bare = {.text = text, .text_len = strlen(text)};
    cmc_steering *none = steering(f->host, CMC_TMPL_PLAIN, NULL, 0, CMC_TMPL_AUTO);
    OK(cmc_score_record(none, &r, NULL, 0, &s, &err));
    assert_int_equal(s.bytes, 6); /* " café" */
    assert_int_equal(s.end[s.n - 1], 1);
    for (size_t i = 0; i < s.n; i++) {
        assert_true(s.logprob[i] == s.host_logprob[i] && s.top[i] == s.host_top[i]);
        assert_true(i + 1 == s.n || s.end[i] == 0);
    }
    cmc_score_free(&s);
    OK(cmc_score_record(none, &bare, NULL, 0, &s, &err));
    assert_int_equal(s.bytes, 9); /* BOS comes first: all of the text counts */
    assert_int_equal(s.n, s.ids.n - 1);
    cmc_score_free(&s);
    cmc_steering_free(none);
    none = steering(f->spm_host, CMC_TMPL_PLAIN, f->spm, 0, CMC_TMPL_AUTO);
    OK(cmc_score_record(none, &bare, NULL, 0, &s, &err));
    assert_int_equal(s.bytes, 9); /* the dummy space is no byte of it */
    assert_memory_equal(s.logprob, s.host_logprob, s.n * sizeof *s.logprob); /* alpha 0 */
    cmc_score_free(&s);
    char *big = calloc(3000, 1);
    memset(big, 'x', 2999);
    cmc_record huge = {.line = 7, .text = big, .text_len = 2999};
    assert_int_equal(cmc_score_record(none, &huge, NULL, 0, &s, &err), CMC_E_RANGE);
    assert_non_null(strstr(err.message, "line 7"));
    free(big);
    cmc_steering_free(none);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_alpha_zero),
        cmocka_unit_test(test_greedy),
        cmocka_unit_test(test_seed_and_batch),
        cmocka_unit_test(test_fork_and_next),
        cmocka_unit_test(test_text),
        cmocka_unit_test(test_stopping),
        cmocka_unit_test(test_refusals),
        cmocka_unit_test(test_context_is_the_text),
        cmocka_unit_test(test_same_vocabulary_and_late_start),
        cmocka_unit_test(test_first_token),
        cmocka_unit_test(test_score_is_stream),
        cmocka_unit_test(test_score_is_stream_guarded),
        cmocka_unit_test(test_score_top),
        cmocka_unit_test(test_added_later),
        cmocka_unit_test(test_one_fails),
        cmocka_unit_test(test_score_overflow),
        cmocka_unit_test(test_score_temperatures), cmocka_unit_test(test_score_counts),
    };
    return cmocka_run_group_tests_name("stream", tests, setup, teardown);
}
