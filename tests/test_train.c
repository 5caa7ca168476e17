/* Whole training runs beside a tiny host: the loss falls, runs repeat bit for bit, resume exactly, and refuse what they must. */
#include <glob.h>
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>
#include <cmocka.h>

#include "base/file.h"
#include "base/mem.h"
#include "tests/tiny.h"
#include "tinylm/train.h"

/* ------------------------------------------------------------------------------------------------ fixture */

enum { RECORDS = 48, STEPS = 24 };

typedef struct rig {
    char *dir, *host, *data, *out, *ckpt, *cache, *log;
    const char *paths[1];
    cmc_runtime *rt;
} rig;

static char *rig_path(const rig *r, const char *name)
{
    const char *p = tiny_path(r->dir, name);
    return cmc_strndup(p, strlen(p));
}

/* Questions with answers that follow from them; every third record is a conversation, every fifth a bare text. */
static void rig_data(const char *path)
{
    static const char *const animal[] = {"cat", "dog", "bird", "fish"}, *const sound[] = {"meow", "woof", "tweet", "blub"};
    FILE *f = fopen(path, "w");
    assert_non_null(f);
    for (int i = 0; i < RECORDS; i++) {
        const char *a = animal[i % 4], *s = sound[i % 4];
        char who = (char)('a' + i % 26);
        if (i % 3 == 1)
            fprintf(f, "{\"messages\":[{\"role\":\"user\",\"content\":\"the %s of %c%c\"},{\"role\":\"assistant\",\"content\":"
                       "\"it says %s\"},{\"role\":\"user\",\"content\":\"again\"},{\"role\":\"assistant\",\"content\":\"%s %s\"}]}\n",
                    a, who, 'a' + i / 26, s, s, s);
        else if (i % 5 == 0)
            fprintf(f, "{\"text\":\"the %s of %c%c says %s and %s\"}\n", a, who, 'a' + i / 26, s, s);
        else
            fprintf(f, "{\"instruction\":\"what says the %s of %c%c\",\"output\":\"the %s says %s\"}\n", a, who, 'a' + i / 26, a, s);
    }
    assert_int_equal(fclose(f), 0);
}

static void rig_open(rig *r, int threads, bool exact)
{
    cmc_error err = {0};
    cmc_runtime_opts ro = {.threads = threads, .exact = exact};
    tiny_spec spec = {.arch = "llama", .type = CMC_F32, .seed = 3};
    memset(r, 0, sizeof *r);
    r->dir = tiny_dir_new();
    r->host = rig_path(r, "host.gguf");
    r->data = rig_path(r, "data.jsonl");
    r->out = rig_path(r, "delta.gguf");
    r->ckpt = rig_path(r, "delta.gguf.ckpt");
    r->log = rig_path(r, "log.jsonl");
    r->cache = cmc_strndup(r->dir, strlen(r->dir));
    r->paths[0] = r->data;
    assert_int_equal(tiny_write(&spec, r->host, &err), CMC_OK);
    rig_data(r->data);
    assert_int_equal(cmc_runtime_open(&ro, &r->rt, &err), CMC_OK);
}

static void rig_close(rig *r)
{
    cmc_runtime_free(r->rt);
    tiny_dir_free(r->dir);
    free(r->host);
    free(r->data);
    free(r->out);
    free(r->ckpt);
    free(r->log);
    free(r->cache);
}

static cmc_train_opts rig_opts(const rig *r)
{
    cmc_train_opts o = cmc_train_defaults();
    o.host_path = r->host;
    o.data = r->paths;
    o.n_data = 1;
    o.out_path = r->out;
    o.cache_dir = r->cache;
    o.host_template = CMC_TMPL_PLAIN;
    o.n_embd = 32;
    o.n_layer = 2;
    o.n_head = 4;
    o.n_head_kv = 2;
    o.max_steps = STEPS;
    o.batch = 4;
    o.lr = 3e-3;
    o.held_out = 0.2;
    o.eval_every = 6;
    o.seed = 17;
    o.save_type = "f32";
    return o;
}

static cmc_train_result run(const rig *r, const cmc_train_opts *o, cmc_train_callback cb, void *user, cmc_status want)
{
    cmc_error err = {0};
    cmc_train_result res;
    cmc_status st = cmc_train(r->rt, o, cb, user, &res, &err);
    if (st != want)
        fail_msg("status %d, wanted %d: %s", (int)st, (int)want, err.message);
    assert_int_equal(err.status, want);
    if (want == CMC_OK) /* a finished run leaves no checkpoint and no half-written file */
        assert_false(checkpoint_exists(r->ckpt));
    return res;
}

static cmc_file slurp(const char *path)
{
    cmc_file f;
    cmc_error err = {0};
    if (cmc_file_map(path, &f, &err) != CMC_OK)
        fail_msg("%s", err.message);
    return f;
}

/* The bytes of a file, copied, so that it can be written anew. */
static uint8_t *keep_bytes(const char *path, size_t *n)
{
    cmc_file f = slurp(path);
    uint8_t *p = cmc_alloc(f.size, 1);
    memcpy(p, f.data, f.size);
    *n = f.size;
    cmc_file_unmap(&f);
    return p;
}

static void assert_same_file(const char *path, const uint8_t *want, size_t n)
{
    cmc_file f = slurp(path);
    assert_int_equal(f.size, n);
    assert_memory_equal(f.data, want, n);
    cmc_file_unmap(&f);
}

/* --------------------------------------------------------------------------------------------- learning */

typedef struct watch { double first, last; int evals; int64_t steps; bool states, memory; } watch;

static bool watch_cb(void *user, const cmc_train_progress *p)
{
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

static void test_learns(void **state)
{
    (void)state;
    rig r;
    watch w = {0};
    rig_open(&r, 2, false);
    cmc_train_opts o = rig_opts(&r);
    o.max_steps = 90;
    o.eval_every = 30;
    o.lr = 0.01;
    cmc_train_result res = run(&r, &o, watch_cb, &w, CMC_OK);
    assert_int_equal(res.steps, 90);
    assert_int_equal(w.steps, 90);
    assert_int_equal(w.evals, 3);
    assert_true(w.states && w.memory && res.finished && !res.resumed);
    assert_int_equal(res.records + res.records_held_out + res.records_left_out, RECORDS);
    assert_true(res.records_held_out > 0 && res.records_left_out == 0);
    if (!(w.last < 0.5 * w.first) || !(res.held_out_steered < 0.7 * res.held_out_host))
        fail_msg("loss %g to %g, held out %g against the host's %g", w.first, w.last, res.held_out_steered, res.held_out_host);
    assert_true(res.alpha > 0.0);
    rig_close(&r);
}

/* What the file says, and that each type opens and scores about the same. */
static void test_file(void **state)
{
    (void)state;
    static const char *const types[] = {"f32", "f16", "q8_0"};
    rig r;
    rig_open(&r, 2, false);
    for (size_t i = 0; i < 3; i++) {
        cmc_error err = {0};
        cmc_model *m;
        cmc_train_opts o = rig_opts(&r);
        o.save_type = types[i];
        cmc_train_result res = run(&r, &o, NULL, NULL, CMC_OK);
        if (cmc_model_open(r.rt, r.out, &m, &err) != CMC_OK)
            fail_msg("%s: %s", types[i], err.message);
        const cmc_delta_info *d = cmc_model_delta_info(m);
        assert_non_null(d);
        assert_string_equal(d->host_template, "plain");
        assert_string_equal(d->delta_template, "plain");
        assert_string_equal(d->objective, "sft");
        assert_int_equal(d->n_alphas, 1);
        assert_true(fabs(d->alphas[0].alpha - res.alpha) < 1e-6);
        assert_true(fabs(d->alpha - 0.5 * res.alpha) < 1e-6);
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
static void test_forward_is_the_runtimes(void **state)
{
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
    run(&r, &o, NULL, NULL, CMC_OK);
    assert_int_equal(cmc_model_open(r.rt, r.out, &m, &err), CMC_OK);
    assert_int_equal(load_shape(m, cmc_model_vocab(m), &s, &err), CMC_OK);
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
static void score_held_out(const rig *r, const cmc_train_opts *o, double nll[2])
{
    cmc_error err = {0};
    cmc_model *host, *delta;
    cmc_steering *st;
    data_set d;
    size_t n = 0;
    assert_int_equal(cmc_model_open(r->rt, r->host, &host, &err), CMC_OK);
    assert_int_equal(cmc_model_open(r->rt, r->out, &delta, &err), CMC_OK);
    data_opts dopt = {.paths = r->paths, .n_paths = 1, .vocab = cmc_model_vocab(host), .host_template = o->host_template,
                      .delta_template = o->delta_template, .max_len = 200, .held_out = o->held_out};
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

static void test_loss_is_the_scores(void **state)
{
    (void)state;
    static const struct { cmc_template host, delta; double alpha; } cases[] = {
        {CMC_TMPL_PLAIN, CMC_TMPL_PLAIN, 1.0}, {CMC_TMPL_PLAIN, CMC_TMPL_PLAIN, 0.6}, {CMC_TMPL_CHATML, CMC_TMPL_ALPACA, 1.3},
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
        cmc_train_result res = run(&r, &o, NULL, NULL, CMC_OK);
        score_held_out(&r, &o, nll);
        /* the trainer's host states are rounded to halves: that moves both scores alike, by some 1e-5 of logits' size */
        double gain = res.held_out_host - res.held_out_steered;
        if (!(fabs(nll[0] - res.held_out_host) < 3e-5 * nll[0]) || !(fabs(nll[0] - nll[1] - gain) < 5e-5))
            fail_msg("case %zu: trainer %.7f and %.7f, score %.7f and %.7f", i, res.held_out_host, res.held_out_steered, nll[0],
                     nll[1]);
        rig_close(&r);
    }
}

/* A further host's strength goes into the table and decides the default. */
static void test_alpha_hosts(void **state)
{
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
    run(&r, &o, NULL, NULL, CMC_OK);
    assert_int_equal(cmc_model_open(r.rt, r.out, &m, &err), CMC_OK);
    const cmc_delta_info *d = cmc_model_delta_info(m);
    assert_int_equal(d->n_alphas, 2);
    assert_true(d->alphas[1].alpha >= 0.0 && d->alphas[1].gain >= 0.0);
    assert_true(fabs(d->alpha - d->alphas[1].alpha) < 1e-6);
    cmc_model_free(m);
    free(other);
    rig_close(&r);
}

/* ------------------------------------------------------------------------------- repeating and resuming */

typedef struct stopper { const char *phase; int64_t step; bool kill; } stopper;

static bool stop_cb(void *user, const cmc_train_progress *p)
{
    const stopper *s = user;
    if (strcmp(p->phase, s->phase) != 0 || p->step < s->step)
        return true;
    if (s->kill)
        _exit(42);
    return false;
}

/* Checks that the log's last run names each step once, in order, from 1. */
static void check_log(const char *path, int64_t steps)
{
    cmc_file f = slurp(path);
    const char *p = (const char *)f.data, *end = p + f.size;
    int64_t next = 1;
    while (p < end) {
        const char *nl = memchr(p, '\n', (size_t)(end - p));
        assert_non_null(nl);
        char head[64];
        next = strncmp(p, "{\"event\":\"start\"", 16) == 0 ? 1 : next;
        if (strncmp(p, "{\"event\":\"step\"", 15) == 0) {
            int n = snprintf(head, sizeof head, "{\"event\":\"step\",\"step\":%lld,", (long long)next);
            assert_memory_equal(p, head, (size_t)n);
            next++;
        }
        p = nl + 1;
    }
    assert_int_equal(next, steps + 1);
    cmc_file_unmap(&f);
}

/* A process of its own that dies without a word at a step. */
static void run_killed(const char *host, const rig *r, stopper *s)
{
    pid_t pid = fork();
    assert_true(pid >= 0);
    if (pid == 0) {
        cmc_runtime_opts ro = {.threads = 2};
        cmc_runtime *rt;
        cmc_error err = {0};
        cmc_train_opts o = rig_opts(r);
        o.host_path = host;
        o.log_path = r->log;
        o.resume = true;
        if (cmc_runtime_open(&ro, &rt, &err) == CMC_OK)
            cmc_train(rt, &o, stop_cb, s, NULL, &err);
        _exit(1);
    }
    int status;
    assert_int_equal(waitpid(pid, &status, 0), pid);
    assert_true(WIFEXITED(status) && WEXITSTATUS(status) == 42);
}

static void test_exact_resume(void **state)
{
    (void)state;
    rig r;
    size_t n;
    rig_open(&r, 2, false);
    cmc_train_opts o = rig_opts(&r);
    cmc_train_result whole = run(&r, &o, NULL, NULL, CMC_OK);
    uint8_t *want = keep_bytes(r.out, &n);
    assert_int_equal(unlink(r.out), 0);
    run(&r, &o, NULL, NULL, CMC_OK); /* the same again */
    assert_same_file(r.out, want, n);
    o.log_path = r.log;
    static const int64_t stop[] = {1, 5, 6, 13, STEPS};
    for (size_t i = 0; i < sizeof stop / sizeof *stop; i++) {
        stopper s = {"train", stop[i], false};
        unlink(r.log);
        o.resume = false;
        run(&r, &o, stop_cb, &s, CMC_E_CANCELLED);
        assert_same_file(r.out, want, n); /* untouched until the end */
        assert_true(checkpoint_exists(r.ckpt));
        assert_int_equal(unlink(r.out), 0);
        o.resume = true;
        cmc_train_result res = run(&r, &o, NULL, NULL, CMC_OK);
        assert_true(res.resumed);
        assert_true(res.held_out_steered == whole.held_out_steered && res.tokens == whole.tokens);
        assert_same_file(r.out, want, n);
        check_log(r.log, STEPS);
    }
    unlink(r.log);
    static const int64_t kill_at[] = {4, 8, 19}; /* killed three times on the way, each time past the last checkpoint */
    for (size_t i = 0; i < 3; i++) {
        stopper s = {"train", kill_at[i], true};
        run_killed(r.host, &r, &s);
    }
    assert_true(run(&r, &o, NULL, NULL, CMC_OK).resumed);
    assert_same_file(r.out, want, n);
    check_log(r.log, STEPS);
    free(want);
    rig_close(&r);
}

/* Host states: a fill that is stopped goes on; damage is found and repaired; what is no cache of ours is left alone. */
static void test_host_states(void **state)
{
    (void)state;
    rig r;
    size_t n;
    rig_open(&r, 2, false);
    cmc_train_opts o = rig_opts(&r);
    stopper s = {"host states", 1, false};
    run(&r, &o, stop_cb, &s, CMC_E_CANCELLED);
    assert_false(checkpoint_exists(r.ckpt));
    run(&r, &o, NULL, NULL, CMC_OK);
    uint8_t *want = keep_bytes(r.out, &n);
    glob_t found;
    char pattern[512];
    snprintf(pattern, sizeof pattern, "%s/*.states", r.dir);
    assert_int_equal(glob(pattern, 0, NULL, &found), 0);
    assert_int_equal(found.gl_pathc, 1);
    const char *cache = found.gl_pathv[0];
    FILE *f = fopen(cache, "r+b");
    assert_non_null(f);
    fseek(f, -100, SEEK_END);
    fputs("damage", f);
    fclose(f);
    run(&r, &o, NULL, NULL, CMC_OK);
    assert_same_file(r.out, want, n);
    assert_int_equal(truncate(cache, 5000), 0);
    run(&r, &o, NULL, NULL, CMC_OK);
    assert_same_file(r.out, want, n);
    f = fopen(cache, "r+b");
    assert_non_null(f);
    fputs("something of the user's", f);
    fclose(f);
    run(&r, &o, NULL, NULL, CMC_E_FORMAT);
    globfree(&found);
    free(want);
    rig_close(&r);
}

static void test_checkpoint_damage(void **state)
{
    (void)state;
    rig r;
    rig_open(&r, 1, false);
    cmc_train_opts o = rig_opts(&r);
    stopper s = {"train", 3, false};
    cmc_error err = {0};
    run(&r, &o, stop_cb, &s, CMC_E_CANCELLED);
    char *good = rig_path(&r, "good.ckpt");
    assert_int_equal(rename(r.ckpt, good), 0);
    struct stat st;
    assert_int_equal(stat(good, &st), 0);
    o.resume = true;
    const int64_t cut[] = {0, 1, 15, 39, 40, 71, 200, 5000, st.st_size - 1};
    for (size_t i = 0; i < sizeof cut / sizeof *cut; i++) {
        assert_int_equal(tiny_damage(good, r.ckpt, cut[i], -1, &err), CMC_OK);
        run(&r, &o, NULL, NULL, CMC_E_FORMAT);
    }
    uint64_t rng = 4;
    for (int i = 0; i < 24; i++) {
        int64_t bit = i < 12 ? i * 27 : (int64_t)(params_random(&rng) % (uint64_t)(st.st_size * 8));
        assert_int_equal(tiny_damage(good, r.ckpt, -1, bit, &err), CMC_OK);
        run(&r, &o, NULL, NULL, CMC_E_FORMAT);
    }
    assert_int_equal(rename(good, r.ckpt), 0);
    assert_true(run(&r, &o, NULL, NULL, CMC_OK).resumed);
    free(good);
    rig_close(&r);
}

/* A checkpoint is neither lost nor mixed with other options. */
static void test_checkpoint_rules(void **state)
{
    (void)state;
    rig r;
    rig_open(&r, 1, false);
    cmc_error err = {0};
    cmc_train_result res;
    cmc_train_opts o = rig_opts(&r);
    stopper s = {"train", 3, false};
    run(&r, &o, stop_cb, &s, CMC_E_CANCELLED);
    assert_int_equal(cmc_train(r.rt, &o, NULL, NULL, &res, &err), CMC_E_ARG);
    assert_non_null(strstr(err.message, "--resume"));
    assert_non_null(strstr(err.message, "--fresh"));
    cmc_train_opts other = o;
    other.resume = true;
    other.lr = 1e-4;
    assert_int_equal(cmc_train(r.rt, &other, NULL, NULL, &res, &err), CMC_E_ARG);
    assert_non_null(strstr(err.message, "\"lr 0.003"));
    other.lr = o.lr;
    other.n_ff = 64;
    assert_int_equal(cmc_train(r.rt, &other, NULL, NULL, &res, &err), CMC_E_ARG);
    assert_non_null(strstr(err.message, "n_ff"));
    FILE *f = fopen(r.data, "a");
    fputs("{\"prompt\":\"one\",\"response\":\"more\"}\n", f);
    fclose(f);
    other.n_ff = 0;
    assert_int_equal(cmc_train(r.rt, &other, NULL, NULL, &res, &err), CMC_E_ARG);
    assert_non_null(strstr(err.message, "\"data "));
    assert_true(checkpoint_exists(r.ckpt));
    other.resume = false;
    other.fresh = true;
    assert_false(run(&r, &other, NULL, NULL, CMC_OK).resumed);
    rig_close(&r);
}

/* ------------------------------------------------------------------------------------------ other endings */

/* Training that goes wrong on the held-out part stops, and the best weights are what is saved. */
static void test_early_stop(void **state)
{
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
    cmc_train_result res = run(&r, &o, NULL, NULL, CMC_OK);
    assert_true(res.steps < 2000 && res.steps % 2 == 0 && res.steps >= 8);
    score_held_out(&r, &o, nll);
    assert_true(fabs(nll[1] - res.held_out_steered) < 3e-5 * nll[0]);
    rig_close(&r);
}

static void test_init(void **state)
{
    (void)state;
    rig r;
    watch w = {0};
    cmc_error err = {0};
    cmc_train_result res;
    rig_open(&r, 2, false);
    cmc_train_opts o = rig_opts(&r);
    o.max_steps = 60;
    run(&r, &o, watch_cb, &w, CMC_OK);
    char *first = rig_path(&r, "first.gguf");
    assert_int_equal(rename(r.out, first), 0);
    double scratch = w.first;
    w = (watch){0};
    o.init_path = first;
    o.n_embd = o.n_layer = o.n_head = o.n_head_kv = 0;
    run(&r, &o, watch_cb, &w, CMC_OK);
    assert_true(w.first < 0.8 * scratch);
    o.n_layer = 3;
    assert_int_equal(cmc_train(r.rt, &o, NULL, NULL, &res, &err), CMC_E_ARG);
    assert_non_null(strstr(err.message, "n_layer"));
    o.n_layer = 0;
    char *other = rig_path(&r, "other.gguf");
    tiny_spec spec = {.arch = "llama", .type = CMC_F32, .n_learnt = 50, .tied = true};
    assert_int_equal(tiny_write(&spec, other, &err), CMC_OK);
    o.init_path = other;
    run(&r, &o, NULL, NULL, CMC_E_ARG);
    o.init_path = r.host; /* the same vocabulary, but its head is not tied */
    run(&r, &o, NULL, NULL, CMC_E_UNSUPPORTED);
    free(first);
    free(other);
    rig_close(&r);
}

/* NaN is named with its step and records, and no delta is written. */
static void test_divergence(void **state)
{
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
    run(&r, &o, NULL, NULL, CMC_OK);
    assert_int_equal(cmc_model_open(r.rt, r.out, &m, &err), CMC_OK);
    assert_int_equal(load_shape(m, cmc_model_vocab(m), &s, &err), CMC_OK);
    assert_int_equal(params_init(&p, &s, &err), CMC_OK);
    float *w = cmc_alloc(p.n, sizeof *w);
    load_weights(m, &p, w);
    w[p.layers[1].up + 5] = NAN;
    char *bad = rig_path(&r, "bad.gguf");
    assert_int_equal(save_delta(bad, &p, w, CMC_F32, 256, m, cmc_model_delta_info(m), &err), CMC_OK);
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

static void test_options(void **state)
{
    (void)state;
    rig r;
    cmc_error err = {0};
    cmc_train_result res;
    rig_open(&r, 1, false);
    const cmc_train_opts good = rig_opts(&r);
    cmc_train_opts o;
#define REFUSED(change, status, word) do { o = good; change; \
        assert_int_equal(cmc_train(r.rt, &o, NULL, NULL, &res, &err), status); \
        if (!strstr(err.message, word)) fail_msg("\"%s\" does not name %s", err.message, word); } while (0)
    REFUSED(o.lr = 0.0, CMC_E_ARG, "lr");
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
    REFUSED(o.cache_dir = "/nonexistent", CMC_E_IO, "/nonexistent");
    REFUSED(o.host_path = "/nonexistent.gguf", CMC_E_IO, "/nonexistent.gguf");
    REFUSED(o.resume = true; o.fresh = true, CMC_E_ARG, "fresh");
    REFUSED(o.max_len = 3, CMC_E_ARG, "longer than 3");
    REFUSED(o.checkpoint_path = o.out_path, CMC_E_ARG, "checkpoint");
    REFUSED(o.n_embd = 65536; o.n_layer = 1024; o.n_head = 1; o.n_head_kv = 1, CMC_E_NOMEM, "MiB");
#undef REFUSED
    assert_int_not_equal(access(r.out, F_OK), 0);
    rig_close(&r);
}

/* ------------------------------------------------------------------------------------------------- data */

static double split_of(const char *prompt)
{
    cmc_message m = {CMC_USER, (char *)(uintptr_t)prompt, strlen(prompt)};
    cmc_record r = {.messages = &m, .n_messages = 1};
    return data_split_point(&r);
}

static void test_split(void **state)
{
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
static void test_alignment(void **state)
{
    (void)state;
    rig r;
    cmc_error err = {0};
    cmc_model *host;
    data_set d;
    rig_open(&r, 1, false);
    assert_int_equal(cmc_model_open(r.rt, r.host, &host, &err), CMC_OK);
    data_opts o = {.paths = r.paths, .n_paths = 1, .vocab = cmc_model_vocab(host), .host_template = CMC_TMPL_CHATML,
                   .delta_template = CMC_TMPL_ALPACA, .max_len = 250, .held_out = 0.25};
    assert_int_equal(data_open(&o, &d, &err), CMC_OK);
    assert_int_equal(d.n, RECORDS);
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
    data_shuffle(&d, 1, 0, a);
    data_shuffle(&d, 1, 0, b);
    assert_memory_equal(a, b, d.n_train * sizeof *a);
    data_shuffle(&d, 1, 1, b);
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

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_split), cmocka_unit_test(test_alignment), cmocka_unit_test(test_options),
        cmocka_unit_test(test_learns), cmocka_unit_test(test_file), cmocka_unit_test(test_forward_is_the_runtimes),
        cmocka_unit_test(test_exact_resume), cmocka_unit_test(test_host_states), cmocka_unit_test(test_checkpoint_damage),
        cmocka_unit_test(test_checkpoint_rules), cmocka_unit_test(test_init), cmocka_unit_test(test_divergence),
        cmocka_unit_test(test_early_stop), cmocka_unit_test(test_loss_is_the_scores), cmocka_unit_test(test_alpha_hosts),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
