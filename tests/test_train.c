/* Whole training runs beside a tiny host: the loss falls, is the runtime's, stops in time; bad options are refused. */
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
#include "tests/tiny.h"
#include "tests/train_rig.h"

/* --------------------------------------------------------------------------------------------- learning */

typedef struct watch {
    double first, last;
    int evals;
    int64_t steps;
    bool states, memory;
} watch;

static bool watch_cb(void *user, const cmc_train_progress *p) {
    watch *w = user;
    w->states = w->states || strcmp(p->phase, "host states") == 0;
    w->memory = p->memory > 0;
    if (strcmp(p->phase, "train") != 0)
        return true;
    w->first = p->step == 1 ? p->loss : w->first;
    w->last = p->loss;
    w->evals += p->is_eval;
    w->steps++;
    return true;
}

static void test_learns(void **state) {
    (void)state;
    rig r;
    watch w = {0};
    rig_open(&r, 2, false);
    cmc_train_opts o = rig_opts(&r);
    o.max_steps = 90;
    o.eval_every = 30;
    o.lr = 0.01;
    cmc_train_result res = rig_run(&r, &o, watch_cb, &w, CMC_OK);
    assert_int_equal(res.steps, 90);
    assert_int_equal(w.steps, 90);
    assert_int_equal(w.evals, 3);
    assert_true(w.states && w.memory && res.finished && !res.resumed);
    assert_int_equal(res.records + res.records_held_out + res.records_left_out, RIG_RECORDS);
    assert_true(res.records_held_out > 0 && res.records_left_out == 0);
    if (!(w.last < 0.5 * w.first) || !(res.held_out_steered < 0.7 * res.held_out_host))
        fail_msg("loss %g to %g, held out %g against the host's %g", w.first, w.last, res.held_out_steered,
                 res.held_out_host);
    assert_true(res.alpha > 0.0);
    rig_close(&r);
}

/* What the file says, and that each type opens and scores about the same. */
static void test_file(void **state) {
    (void)state;
    static const char *const types[] = {"f32", "f16", "q8_0"};
    rig r;
    rig_open(&r, 2, false);
    for (size_t i = 0; i < 3; i++) {
        cmc_error err = {0};
        cmc_model *m;
        cmc_train_opts o = rig_opts(&r);
        o.save_type = types[i];
        cmc_train_result res = rig_run(&r, &o, NULL, NULL, CMC_OK);
        if (cmc_model_open(r.rt, r.out, &m, &err) != CMC_OK)
            fail_msg("%s: %s", types[i], err.message);
        const cmc_delta_info *d = cmc_model_delta_info(m);
        assert_non_null(d);
        assert_string_equal(d->host_template, "plain");
        assert_string_equal(d->delta_template, "plain");
        assert_string_equal(d->objective, "sft");
        assert_int_equal(d->n_alphas, 1);
        assert_true(fabs(d->alphas[0].alpha - res.alpha) < 1e-6);
        assert_true(fabs(d->alpha - res.alpha) < 1e-6);
        assert_int_equal(d->seed, 17);
        assert_true(d->gain > 0.0);
        assert_int_equal(cmc_model_params(m), res.params);
        cmc_model *host;
        assert_int_equal(cmc_model_open(r.rt, r.host, &host, &err), CMC_OK);
        assert_string_equal(d->alphas[0].host_hash, cmc_model_hash(host));
        assert_true(cmc_vocab_equal(cmc_model_vocab(m), cmc_model_vocab(host)));
        cmc_model_free(host);
        cmc_model_free(m);
    }
    rig_close(&r);
}

/* ------------------------------------------------------------------------------- the same as the runtime */

/* The trainer's states against the runtime's exact ones on the saved file. */
static void test_forward_is_the_runtimes(void **state) {
    (void)state;
    rig r;
    cmc_error err = {0};
    cmc_model *m;
    params p;
    params_shape s;
    net n;
    cmc_session *ses;
    rig_open(&r, 2, true);
    cmc_train_opts o = rig_opts(&r);
    rig_run(&r, &o, NULL, NULL, CMC_OK);
    assert_int_equal(cmc_model_open(r.rt, r.out, &m, &err), CMC_OK);
    assert_int_equal(load_shape(m, cmc_model_vocab(m), 0, &s, &err), CMC_OK);
    assert_int_equal(s.n_head_kv, 2);
    assert_int_equal(params_init(&p, &s, &err), CMC_OK);
    enum { LEN = 150 };
    assert_int_equal(net_new(r.rt, &p, LEN, LEN, &n, &err), CMC_OK);
    load_weights(m, &p, n.w);
    int32_t ids[LEN];
    size_t rows[LEN], start[2] = {0, LEN};
    uint64_t rng = 1;
    for (size_t i = 0; i < LEN; i++) {
        ids[i] = (int32_t)(params_random(&rng) % (uint64_t)s.n_vocab);
        rows[i] = i;
    }
    net_batch b = {.ids = ids, .start = start, .rows = rows, .n_tokens = LEN, .n_seqs = 1, .n_targets = LEN};
    net_forward(&n, &b);
    float *want = cmc_alloc(LEN * 32, sizeof *want);
    assert_int_equal(cmc_session_new(m, LEN, &ses, &err), CMC_OK);
    assert_int_equal(cmc_session_sync(ses, ids, LEN, &err), CMC_OK);
    cmc_eval_item it = {ses, CMC_WANT_HIDDEN, LEN, want};
    assert_int_equal(cmc_eval(m, &it, 1, &err), CMC_OK);
    for (size_t i = 0; i < LEN * 32; i++)
        assert_true(fabsf(want[i] - n.hidden[i]) < 1e-4f);
    free(want);
    cmc_session_free(ses);
    net_free(&n);
    params_free(&p);
    cmc_model_free(m);
    rig_close(&r);
}

/* Mean NLL over the held-out targets by cmc_score_record, steered and not. */
static void score_held_out(const rig *r, const cmc_train_opts *o, double nll[2]) {
    cmc_error err = {0};
    cmc_model *host, *delta;
    cmc_steering *st;
    data_set d;
    size_t n = 0;
    assert_int_equal(cmc_model_open(r->rt, r->host, &host, &err), CMC_OK);
    assert_int_equal(cmc_model_open(r->rt, r->out, &delta, &err), CMC_OK);
    data_opts dopt = {.paths = r->paths,
                      .n_paths = 1,
                      .vocab = cmc_model_vocab(host),
                      .host_template = o->host_template,
                      .delta_template = o->delta_template,
                      .max_len = 200,
                      .held_out = o->held_out};
    assert_int_equal(data_open(&dopt, &d, &err), CMC_OK);
    cmc_steering_opts so = {.host_template = o->host_template};
    assert_int_equal(cmc_steering_new(host, &so, &st, &err), CMC_OK);
    assert_int_equal(cmc_steering_add(st, delta, o->alpha, NULL, CMC_TMPL_AUTO, &err), CMC_OK);
    nll[0] = nll[1] = 0.0;
    for (size_t i = 0; i < d.n_held; i++) {
        cmc_score s = {0};
        if (cmc_score_record(st, &d.records.v[d.v[d.held[i]].record], NULL, 0, &s, &err) != CMC_OK)
            fail_msg("%s", err.message);
        assert_int_equal(s.n, d.v[d.held[i]].n_targets);
        for (size_t k = 0; k < s.n; k++) {
            nll[0] -= (double)s.host_logprob[k];
            nll[1] -= (double)s.logprob[k];
        }
        n += s.n;
        cmc_score_free(&s);
    }
    nll[0] /= (double)n;
    nll[1] /= (double)n;
    cmc_steering_free(st);
    data_free(&d);
    cmc_model_free(delta);
    cmc_model_free(host);
}

static void test_loss_is_the_scores(void **state) {
    (void)state;
    static const struct {
        cmc_template host, delta;
        double alpha;
    } cases[] = {
        {CMC_TMPL_PLAIN, CMC_TMPL_PLAIN, 1.0},
        {CMC_TMPL_PLAIN, CMC_TMPL_PLAIN, 0.6},
        {CMC_TMPL_CHATML, CMC_TMPL_ALPACA, 1.3},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        rig r;
        double nll[2];
        rig_open(&r, 2, true);
        cmc_train_opts o = rig_opts(&r);
        o.host_template = cases[i].host;
        o.delta_template = cases[i].delta;
        o.alpha = cases[i].alpha;
        o.patience = 0;
        cmc_train_result res = rig_run(&r, &o, NULL, NULL, CMC_OK);
        score_held_out(&r, &o, nll);
        /* the trainer's host states are rounded to halves: that moves both scores alike, by some 1e-5 of logits' size
         */
        double gain = res.held_out_host - res.held_out_steered;
        if (!(fabs(nll[0] - res.held_out_host) < 3e-5 * nll[0]) || !(fabs(nll[0] - nll[1] - gain) < 5e-5))
            fail_msg("case %zu: trainer %.7f and %.7f, score %.7f and %.7f", i, res.held_out_host, res.held_out_steered,
                     nll[0], nll[1]);
        rig_close(&r);
    }
}

/* A further host's strength goes into the table and decides the default. */
static void test_alpha_hosts(void **state) {
    (void)state;
    rig r;
    cmc_error err = {0};
    cmc_model *m;
    rig_open(&r, 2, false);
    char *other = rig_path(&r, "other.gguf");
    const char *hosts[] = {other};
    tiny_spec spec = {.arch = "gemma3", .type = CMC_F32, .seed = 8};
    assert_int_equal(tiny_write(&spec, other, &err), CMC_OK);
    cmc_train_opts o = rig_opts(&r);
    o.alpha_hosts = hosts;
    o.n_alpha_hosts = 1;
    rig_run(&r, &o, NULL, NULL, CMC_OK);
    assert_int_equal(cmc_model_open(r.rt, r.out, &m, &err), CMC_OK);
    const cmc_delta_info *d = cmc_model_delta_info(m);
    assert_int_equal(d->n_alphas, 2);
    assert_true(d->alphas[1].alpha >= 0.0 && d->alphas[1].gain >= 0.0);
    assert_true(fabs(d->alpha - d->alphas[1].alpha) < 1e-6);
    cmc_model_free(m);
    free(other);
    rig_close(&r);
}

/* ------------------------------------------------------------------------------------------ other endings */

/* Training that goes wrong on the held-out part stops, and the best weights are what is saved. */
static void test_early_stop(void **state) {
    (void)state;
    rig r;
    double nll[2];
    rig_open(&r, 2, true);
    cmc_train_opts o = rig_opts(&r);
    o.delta_template = CMC_TMPL_PLAIN;
    o.max_steps = 2000;
    o.lr = 0.05;
    o.warmup = 0.0;
    o.eval_every = 2;
    o.patience = 3;
    cmc_train_result res = rig_run(&r, &o, NULL, NULL, CMC_OK);
    assert_true(res.steps < 2000 && res.steps % 2 == 0 && res.steps >= 8);
    score_held_out(&r, &o, nll);
    assert_true(fabs(nll[1] - res.held_out_steered) < 3e-5 * nll[0]);
    rig_close(&r);
}

/* Weights that do not move: the losses tell which records a step had. Every epoch has its own order, all of the data.
 */
typedef struct losses {
    double v[64], epoch[2];
    size_t n;
} losses;

static bool losses_cb(void *user, const cmc_train_progress *p) {
    losses *l = user;
    if (strcmp(p->phase, "train") == 0 && l->n < 64)
        l->v[l->n++] = p->loss;
    return true;
}

static void test_epochs(void **state) {
    (void)state;
    rig r;
    losses l = {0};
    rig_open(&r, 1, false);
    cmc_train_opts o = rig_opts(&r);
    o.lr = 1e-12;
    o.max_steps = 0;
    o.epochs = 2;
    o.batch = 5;
    cmc_train_result res = rig_run(&r, &o, losses_cb, &l, CMC_OK);
    size_t half = (res.records + 4) / 5, moved = 0;
    assert_int_equal(l.n, 2 * half);
    for (size_t i = 0; i < half; i++)
        moved += fabs(l.v[i] - l.v[half + i]) > 1e-3;
    assert_true(moved > half / 2);
    rig_close(&r);
}

/* Scores of a run with a rate that is too high: they go up and down, and `patience` of them in a row without a new best
 * end it. */
typedef struct scores {
    double v[512];
    size_t n;
} scores;

static bool scores_cb(void *user, const cmc_train_progress *p) {
    scores *s = user;
    if (p->is_eval && s->n < 512)
        s->v[s->n++] = p->held_out;
    return true;
}

static void test_patience(void **state) {
    (void)state;
    rig r;
    scores s = {0};
    rig_open(&r, 2, false);
    cmc_train_opts o = rig_opts(&r);
    o.max_steps = 400;
    o.lr = 0.02;
    o.eval_every = 1;
    o.patience = 6;
    cmc_train_result res = rig_run(&r, &o, scores_cb, &s, CMC_OK);
    size_t since = 0, setbacks = 0, stop = 0;
    double best = INFINITY;
    for (size_t i = 0; i < s.n; i++) {
        since = s.v[i] < best ? 0 : since + 1;
        best = s.v[i] < best ? s.v[i] : best;
        setbacks += since > 0;
        stop = since >= 6 && stop == 0 ? i + 1 : stop;
    }
    assert_true(setbacks > 6); /* or the run would not tell a row of setbacks from a sum of them */
    assert_int_equal(res.steps, stop);
    assert_true(res.held_out_steered == best);
    rig_close(&r);
}

static void test_init(void **state) {
    (void)state;
    rig r;
    watch w = {0};
    cmc_error err = {0};
    cmc_train_result res;
    rig_open(&r, 2, false);
    cmc_train_opts o = rig_opts(&r);
    o.max_steps = 60;
    rig_run(&r, &o, watch_cb, &w, CMC_OK);
    char *first = rig_path(&r, "first.gguf");
    assert_int_equal(rename(r.out, first), 0);
    double scratch = w.first;
    w = (watch){0};
    o.init_path = first;
    o.n_embd = o.n_layer = o.n_head = o.n_head_kv = 0;
    rig_run(&r, &o, watch_cb, &w, CMC_OK);
    assert_true(w.first < 0.8 * scratch);
    o.n_layer = 3;
    assert_int_equal(cmc_train(r.rt, &o, NULL, NULL, &res, &err), CMC_E_ARG);
    assert_non_null(strstr(err.message, "n_layer"));
    o.n_layer = 0;
    char *other = rig_path(&r, "other.gguf");
    tiny_spec spec = {.arch = "llama", .type = CMC_F32, .n_learnt = 50, .tied = true};
    assert_int_equal(tiny_write(&spec, other, &err), CMC_OK);
    o.init_path = other; /* a start brings its vocabulary; another one for the delta contradicts it */
    o.vocab_path = r.host;
    rig_run(&r, &o, NULL, NULL, CMC_E_ARG);
    o.vocab_path = NULL;
    o.init_path = r.host; /* the same vocabulary, but its head is not tied */
    rig_run(&r, &o, NULL, NULL, CMC_E_UNSUPPORTED);
    free(first);
    free(other);
    rig_close(&r);
}

/* NaN is named with its step and records, and no delta is written. */
static void test_divergence(void **state) {
    (void)state;
    rig r;
    cmc_error err = {0};
    cmc_train_result res;
    cmc_model *m;
    params p;
    params_shape s;
    rig_open(&r, 2, false);
    cmc_train_opts o = rig_opts(&r);
    o.max_steps = 2;
    rig_run(&r, &o, NULL, NULL, CMC_OK);
    assert_int_equal(cmc_model_open(r.rt, r.out, &m, &err), CMC_OK);
    assert_int_equal(load_shape(m, cmc_model_vocab(m), 0, &s, &err), CMC_OK);
    assert_int_equal(params_init(&p, &s, &err), CMC_OK);
    float *w = cmc_alloc(p.n, sizeof *w);
    load_weights(m, &p, w);
    w[p.layers[1].up + 5] = NAN;
    char *bad = rig_path(&r, "bad.gguf");
    assert_int_equal(save_delta(bad, &p, w, CMC_F32, 256, &(save_vocab){cmc_model_vocab(m), m->parts[0]},
                                cmc_model_delta_info(m), &err), CMC_OK);
    cmc_model_free(m);
    assert_int_equal(unlink(r.out), 0);
    o.init_path = bad;
    assert_int_equal(cmc_train(r.rt, &o, NULL, NULL, &res, &err), CMC_E_DIVERGED);
    assert_non_null(strstr(err.message, "step 1"));
    assert_non_null(strstr(err.message, "records of lines "));
    assert_int_not_equal(access(r.out, F_OK), 0);
    free(w);
    free(bad);
    params_free(&p);
    rig_close(&r);
}

static void test_options(void **state) {
    (void)state;
    rig r;
    cmc_error err = {0};
    cmc_train_result res;
    rig_open(&r, 1, false);
    const cmc_train_opts good = rig_opts(&r);
    cmc_train_opts o;
    static const char *const nowhere = "/nonexistent.gguf";
#define REFUSED(change, status, word)                                                                                  \
    do {                                                                                                               \
        o = good;                                                                                                      \
        change;                                                                                                        \
        assert_int_equal(cmc_train(r.rt, &o, NULL, NULL, &res, &err), status);                                         \
        if (!strstr(err.message, word))                                                                                \
            fail_msg("\"%s\" does not name %s", err.message, word);                                                    \
    } while (0)
    REFUSED(o.lr = -1.0, CMC_E_ARG, "lr");
    REFUSED(o.lr = NAN, CMC_E_ARG, "lr");
    REFUSED(o.batch = 0, CMC_E_ARG, "batch");
    REFUSED(o.max_steps = 0; o.epochs = 0, CMC_E_ARG, "epochs");
    REFUSED(o.held_out = 1.0, CMC_E_ARG, "held_out");
    REFUSED(o.alpha = 0.0, CMC_E_ARG, "alpha");
    REFUSED(o.max_len = 1, CMC_E_ARG, "max_len");
    REFUSED(o.n_head = 3, CMC_E_ARG, "heads");
    REFUSED(o.n_head_kv = 3, CMC_E_ARG, "heads");
    REFUSED(o.n_embd = 40; o.save_type = "q8_0", CMC_E_ARG, "32");
    REFUSED(o.save_type = "q9", CMC_E_ARG, "q9");
    REFUSED(o.out_path = NULL, CMC_E_ARG, "path");
    REFUSED(o.out_path = r.host, CMC_E_ARG, "inputs");
    REFUSED(o.out_path = r.data, CMC_E_ARG, "inputs");
    REFUSED(o.out_path = "/nonexistent/dir/delta.gguf", CMC_E_IO, "/nonexistent/dir");
    REFUSED(o.out_path = r.dir, CMC_E_IO, "regular");
    REFUSED(o.cache_dir = "/nonexistent/cache", CMC_E_IO, "/nonexistent/cache");
    REFUSED(o.hosts = &nowhere, CMC_E_IO, "/nonexistent.gguf");
    REFUSED(o.resume = true; o.fresh = true, CMC_E_ARG, "fresh");
    REFUSED(o.max_len = 3, CMC_E_ARG, "longer than 3");
    REFUSED(o.checkpoint_path = o.out_path, CMC_E_ARG, "checkpoint");
    REFUSED(o.n_embd = 65536; o.n_layer = 1024; o.n_head = 1; o.n_head_kv = 1, CMC_E_NOMEM, "MiB");
#undef REFUSED
    assert_int_not_equal(access(r.out, F_OK), 0);
    rig_close(&r);
}

/* ------------------------------------------------------------------------------------------------- data */

static double split_of(const char *prompt) {
    cmc_message m = {CMC_USER, (char *)(uintptr_t)prompt, strlen(prompt)};
    cmc_record r = {.messages = &m, .n_messages = 1};
    return data_split_point(&r);
}

static void test_split(void **state) {
    (void)state;
    double a = split_of("What is the capital of France?");
    assert_true(a >= 0.0 && a < 1.0);
    assert_true(a == split_of("what is the  capital of france"));
    assert_true(a != split_of("what is the capital of Spain?"));
    assert_true(split_of("Add 12 and 7.") == split_of("add 345 and 90"));
    assert_true(split_of("Add 12 and 7.") != split_of("add 345 and 90 and 1"));
    size_t low = 0;
    for (int i = 0; i < 2000; i++) {
        char s[8] = {(char)('a' + i % 26), (char)('a' + i / 26 % 26), (char)('a' + i / 676), '\0'};
        low += split_of(s) < 0.1;
    }
    assert_true(low > 140 && low < 260);
}

/* Where each target stands, in both renderings, on every record. */
static void test_alignment(void **state) {
    (void)state;
    rig r;
    cmc_error err = {0};
    cmc_model *host;
    data_set d;
    rig_open(&r, 1, false);
    assert_int_equal(cmc_model_open(r.rt, r.host, &host, &err), CMC_OK);
    data_opts o = {.paths = r.paths,
                   .n_paths = 1,
                   .vocab = cmc_model_vocab(host),
                   .host_template = CMC_TMPL_CHATML,
                   .delta_template = CMC_TMPL_ALPACA,
                   .max_len = 250,
                   .held_out = 0.25};
    assert_int_equal(data_open(&o, &d, &err), CMC_OK);
    assert_int_equal(d.n, RIG_RECORDS);
    assert_int_equal(d.n_train + d.n_held, d.n);
    for (size_t i = 0; i < d.n; i++) {
        const data_example *x = &d.v[i];
        cmc_rendered h = {0};
        size_t k = 0;
        assert_int_equal(cmc_render(o.vocab, CMC_TMPL_CHATML, &d.records.v[x->record], false, &h, &err), CMC_OK);
        for (size_t s = 0; s < h.n_spans; s++)
            for (size_t j = 0; j < h.spans[s].n; j++, k++) {
                assert_int_equal(x->targets[k], h.ids.v[h.spans[s].first + j]);
                assert_int_equal(x->host_row[k], h.spans[s].first + j - 1);
                if (j > 0) /* the token before a target, inside a response, is the target before it */
                    assert_int_equal(x->delta_ids[x->delta_row[k]], x->targets[k - 1]);
            }
        assert_int_equal(k, x->n_targets);
        assert_int_equal(x->n_delta, x->delta_row[k - 1] + 1);
        cmc_rendered_free(&h);
    }
    size_t *a = cmc_alloc(d.n_train, sizeof *a), *b = cmc_alloc(d.n_train, sizeof *b), seen = 0;
    data_shuffle(d.train, d.n_train, 1, 0, a);
    data_shuffle(d.train, d.n_train, 1, 0, b);
    assert_memory_equal(a, b, d.n_train * sizeof *a);
    data_shuffle(d.train, d.n_train, 1, 1, b);
    assert_memory_not_equal(a, b, d.n_train * sizeof *a);
    for (size_t i = 0; i < d.n_train; i++)
        for (size_t j = 0; j < d.n_train; j++)
            seen += d.train[i] == b[j];
    assert_int_equal(seen, d.n_train);
    free(a);
    free(b);
    data_free(&d);
    cmc_model_free(host);
    rig_close(&r);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_split),
        cmocka_unit_test(test_alignment),
        cmocka_unit_test(test_options),
        cmocka_unit_test(test_learns),
        cmocka_unit_test(test_epochs),
        cmocka_unit_test(test_file),
        cmocka_unit_test(test_forward_is_the_runtimes),
        cmocka_unit_test(test_loss_is_the_scores),
        cmocka_unit_test(test_alpha_hosts),
        cmocka_unit_test(test_early_stop),
        cmocka_unit_test(test_patience),
        cmocka_unit_test(test_init),
        cmocka_unit_test(test_divergence),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
