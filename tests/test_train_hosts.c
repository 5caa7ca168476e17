/* Training beside hosts with other vocabularies, and beside several at once: the loss through the map against its definition
 * and finite differences, targets and rows against scoring, and whole runs. */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

#include "base/mem.h"
#include "tests/scene.h"
#include "tests/slope.h"
#include "tests/tiny.h"
#include "tests/train_rig.h"

/* ------------------------------------------------------------------------------------------ the loss alone */

enum { ROWS = 37, EMBD = 16 };

/* n_delta 0: the host's own vocabulary under an identity map. Else a map of every kind: tokens that share a delta
 * token, delta tokens that none has, a tenth of the host's unmapped. */
typedef struct map_kind {
    int32_t n_delta;
    uint64_t rng;
} map_kind;

static int32_t map_to(int32_t i, void *user) {
    map_kind *k = user;
    return !k->n_delta ? i : uniform(&k->rng) < 0.1 ? -1 : (int32_t)(params_random(&k->rng) % (uint64_t)k->n_delta);
}

/* The delta's vocabulary is n_delta wide, 0: the host's own, with a map (map_kind) or, where `no_map`, without. */
static void hosts_open(scene *s, int threads, bool exact, int32_t n_delta, bool no_map, bool decode_head) {
    uint64_t rng = 7;
    map_kind kind = {n_delta, 21};
    scene_open(s, threads, exact, 0);
    int32_t n_host = cmc_model_n_vocab(s->host), n = n_delta ? n_delta : n_host;
    scene_map(s, n, map_to, &kind);
    params_shape shape = {.n_vocab = n, .n_embd = EMBD, .n_layer = 1, .n_head = 4, .n_head_kv = 2, .n_ff = 24};
    scene_net(s, shape, ROWS, !no_map, decode_head);
    scene_weights(s);
    for (size_t i = 0; i < ROWS; i++) {
        s->rows[i] = i;
        s->ids[i] = (int32_t)(params_random(&rng) % (uint64_t)n);
        s->targets[i] = (int32_t)(params_random(&rng) % (uint64_t)n_host);
        scene_state_random(s, i, &rng);
    }
    s->start[1] = ROWS;
    scene_batch(s, 1, ROWS);
}

/* The definition: host's logits by the runtime, the delta's by plain sums, steered by the plain shift, softmax in double. */
static double defined_loss(scene *s, double alpha) {
    size_t v = (size_t)cmc_model_n_vocab(s->host), nd = (size_t)s->p.s.n_vocab, he = (size_t)cmc_model_n_embd(s->host);
    float *state = cmc_alloc(he, sizeof *state), *h = cmc_alloc(v, sizeof *h), *d = cmc_alloc(nd, sizeof *d);
    float *work = cmc_alloc(2 * v, sizeof *work);
    double nll = 0.0;
    cmc_error err = {0};
    for (size_t i = 0; i < ROWS; i++) {
        hostcache_unpack(s->hrow[i], state, he);
        assert_int_equal(cmc_model_logits(s->host, state, 1, h, &err), CMC_OK);
        for (size_t j = 0; j < nd; j++) {
            double x = 0.0;
            for (size_t c = 0; c < EMBD; c++)
                x += (double)s->n.hidden[i * EMBD + c] * (double)s->n.w[s->p.embd + j * EMBD + c];
            d[j] = (float)x;
        }
        shift_in in = {s->map, (float)alpha, d};
        if (alpha != 0.0)
            shift_apply_plain(h, (int32_t)v, &in, 1, false, work);
        nll += shift_log_sum_plain(h, (int32_t)v) - (double)h[s->targets[i]];
    }
    free(state);
    free(h);
    free(d);
    free(work);
    return nll / ROWS;
}

static void test_loss_is_defined(void **state) {
    (void)state;
    static const double alphas[] = {0.0, 0.5, 1.0, 2.0};
    for (int threads = 1; threads <= 3; threads++) {
        scene s;
        hosts_open(&s, threads, true, 90, false, threads != 2);
        for (size_t a = 0; a < 4; a++)
            assert_true(fabs(scene_loss(&s, alphas[a]) - defined_loss(&s, alphas[a])) < 1e-4);
        assert_true(fabs(scene_grad(&s, 0.5f) - scene_loss(&s, 0.5)) < 1e-5);
        scene_close(&s);
    }
}

static double loss_of(void *s) {
    return scene_loss(s, 0.7);
}

static void test_gradient_through_the_map(void **state) {
    (void)state;
    for (int threads = 1; threads <= 2; threads++) {
        scene s;
        hosts_open(&s, threads, false, 90, false, true);
        scene_grad(&s, 0.7f);
        float *grad = cmc_alloc(s.p.n, sizeof *grad);
        memcpy(grad, s.n.grad, s.p.n * sizeof *grad);
        uint64_t rng = 5;
        slope_check c = {.loss = loss_of, .scene = &s, .h = 0.04, .least = 1e-4, .rel = 3e-3, .directions = 1};
        for (size_t i = 0; i < s.p.n_tensors; i++) {
            const params_tensor *t = &s.p.tensors[i];
            slope_assert(&c, t->name, s.n.w + t->off, grad + t->off, t->n_out * t->n_in, &rng);
        }
        free(grad);
        scene_close(&s);
    }
}

/* The path through the map, given an identity map, has the gradients of the path without one. */
static void test_identity_map(void **state) {
    (void)state;
    scene a, b;
    hosts_open(&a, 2, false, 0, true, true);
    hosts_open(&b, 2, false, 0, false, true);
    double x = scene_grad(&a, 0.9f), y = scene_grad(&b, 0.9f), top = 0.0, worst = 0.0;
    assert_true(fabs(x - y) < 1e-5);
    for (size_t i = 0; i < a.p.n; i++) {
        top = fmax(top, fabs((double)a.n.grad[i]));
        worst = fmax(worst, fabs((double)a.n.grad[i] - (double)b.n.grad[i]));
    }
    assert_true(top > 1e-3 && worst < 2e-5 * top);
    scene_close(&a);
    scene_close(&b);
}

/* ------------------------------------------------------------------------------------------------ whole runs */

/* A second host: its vocabulary is SentencePiece's. */
static char *other_host(const rig *r) {
    cmc_error err = {0};
    char *path = rig_path(r, "other.gguf");
    tiny_spec spec = {.arch = "llama", .vocab = "spm", .n_learnt = 120, .type = CMC_F32, .seed = 5};
    assert_int_equal(tiny_write(&spec, path, &err), CMC_OK);
    return path;
}

/* Mean NLL of the held-out responses under the delta by scoring, and the number of tokens. */
static double score_held_out(const rig *r, const char *host_path, const cmc_train_opts *o, size_t *n, double *alone) {
    cmc_error err = {0};
    cmc_model *host, *delta;
    cmc_steering *st;
    data_set d;
    double nll = 0.0;
    *n = 0;
    *alone = 0.0;
    assert_int_equal(cmc_model_open(r->rt, host_path, &host, &err), CMC_OK);
    assert_int_equal(cmc_model_open(r->rt, r->out, &delta, &err), CMC_OK);
    data_opts dopt = {.paths = r->paths, .n_paths = 1, .vocab = cmc_model_vocab(host), .max_len = 200,
                      .host_template = o->host_template, .delta_template = CMC_TMPL_PLAIN, .held_out = o->held_out};
    assert_int_equal(data_open(&dopt, &d, &err), CMC_OK);
    cmc_steering_opts so = {.host_template = o->host_template};
    assert_int_equal(cmc_steering_new(host, &so, &st, &err), CMC_OK);
    assert_int_equal(cmc_steering_add(st, delta, o->alpha, NULL, CMC_TMPL_AUTO, &err), CMC_OK);
    for (size_t i = 0; i < d.n_held; i++) {
        cmc_score s = {0};
        if (cmc_score_record(st, &d.records.v[d.v[d.held[i]].record], NULL, 0, &s, &err) != CMC_OK)
            fail_msg("%s", err.message);
        for (size_t k = 0; k < s.n; k++) {
            nll -= (double)s.logprob[k];
            *alone -= (double)s.host_logprob[k];
        }
        *n += s.n;
        cmc_score_free(&s);
    }
    cmc_steering_free(st);
    data_free(&d);
    cmc_model_free(delta);
    cmc_model_free(host);
    *alone /= (double)*n;
    return nll / (double)*n;
}

/* The trainer's held-out loss beside a host of another vocabulary is what scoring the saved delta gives. */
static void test_other_vocabulary_is_scored_alike(void **state) {
    (void)state;
    rig r;
    rig_open(&r, 2, true);
    char *other = other_host(&r);
    const char *hosts[] = {other};
    cmc_train_opts o = rig_opts(&r);
    cmc_error err = {0};
    char *vocab = rig_path(&r, "vocab.gguf");
    tiny_spec spec = {.arch = "llama", .type = CMC_F32, .add_bos = true, .seed = 6}; /* BOS: a row for a text's start */
    assert_int_equal(tiny_write(&spec, vocab, &err), CMC_OK);
    o.hosts = hosts;
    o.vocab_path = vocab;
    o.prefix_rows = true;
    o.alpha = 0.8;
    cmc_train_result res = rig_run(&r, &o, NULL, NULL, CMC_OK);
    size_t n;
    double alone, nll = score_held_out(&r, other, &o, &n, &alone);
    assert_true(res.targets_left_out == 0);
    assert_true(res.targets_prefix > 0 && res.targets > 2 * res.targets_prefix);
    assert_true(fabs(alone - res.held_out_host) < 1e-3);
    if (!(fabs(nll - res.held_out_steered) < 1e-3 && res.held_out_steered < alone - 0.5))
        fail_msg("scored %.6f, trained %.6f, host alone %.6f", nll, res.held_out_steered, alone);
    o.prefix_rows = false;
    cmc_train_result fewer = rig_run(&r, &o, NULL, NULL, CMC_OK);
    assert_int_equal(fewer.targets + fewer.targets_left_out, res.targets);
    assert_int_equal(fewer.targets_left_out, res.targets_prefix);
    free(vocab);
    free(other);
    rig_close(&r);
}

static bool first_loss(void *user, const cmc_train_progress *p) {
    double *first = user;
    if (strcmp(p->phase, "train") == 0 && isnan(*first))
        *first = p->loss;
    return true;
}

/* The loss beside two hosts is the weighted sum of the losses beside each; both gain. */
static void test_several_hosts(void **state) {
    (void)state;
    rig r;
    rig_open(&r, 2, false);
    char *other = other_host(&r);
    const char *both[] = {r.host, other};
    static const double weights[] = {3, 1};
    cmc_train_opts o = rig_opts(&r);
    o.vocab_path = r.host;
    double first[3] = {NAN, NAN, NAN};
    cmc_train_result res[3];
    for (int k = 0; k < 3; k++) {
        o.hosts = k < 2 ? both + k : both;
        o.n_hosts = k < 2 ? 1 : 2;
        o.host_weights = k < 2 ? NULL : weights;
        res[k] = rig_run(&r, &o, first_loss, &first[k], CMC_OK);
    }
    assert_true(fabs(first[2] - (0.75 * first[0] + 0.25 * first[1])) < 1e-5);
    assert_true(fabs(res[2].held_out_host - (0.75 * res[0].held_out_host + 0.25 * res[1].held_out_host)) < 1e-6);
    assert_true(res[2].held_out_steered < res[2].held_out_host - 0.5);
    for (int k = 0; k < 2; k++) {
        size_t n;
        double alone, nll = score_held_out(&r, both[k], &o, &n, &alone);
        assert_true(nll < alone - 0.5);
    }
    free(other);
    rig_close(&r);
}

/* A run beside two hosts that is stopped and resumed ends with the same bytes. */
static void test_resume(void **state) {
    (void)state;
    rig r;
    size_t n;
    rig_open(&r, 2, false);
    char *other = other_host(&r);
    const char *both[] = {r.host, other};
    cmc_train_opts o = rig_opts(&r);
    o.hosts = both;
    o.n_hosts = 2;
    rig_run(&r, &o, NULL, NULL, CMC_OK);
    uint8_t *whole = rig_bytes(r.out, &n);
    stopper s = {"train", 9, false};
    rig_run(&r, &o, rig_stop, &s, CMC_E_CANCELLED);
    o.resume = true;
    assert_true(rig_run(&r, &o, NULL, NULL, CMC_OK).resumed);
    rig_assert_same(r.out, whole, n);
    free(whole);
    free(other);
    rig_close(&r);
}

static void test_options(void **state) {
    (void)state;
    rig r;
    rig_open(&r, 1, false);
    char *other = other_host(&r);
    const char *twice[] = {r.host, r.host}, *both[] = {r.host, other};
    static const double bad[] = {1, 0};
    cmc_train_opts o = rig_opts(&r);
    o.n_hosts = 2;
    o.hosts = twice;
    rig_run(&r, &o, NULL, NULL, CMC_E_ARG);
    o.hosts = both;
    o.host_weights = bad;
    rig_run(&r, &o, NULL, NULL, CMC_E_ARG);
    o.host_weights = NULL;
    o.out_path = other;
    rig_run(&r, &o, NULL, NULL, CMC_E_ARG);
    free(other);
    rig_close(&r);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_loss_is_defined),
        cmocka_unit_test(test_gradient_through_the_map),
        cmocka_unit_test(test_identity_map),
        cmocka_unit_test(test_other_vocabulary_is_scored_alike),
        cmocka_unit_test(test_several_hosts),
        cmocka_unit_test(test_resume),
        cmocka_unit_test(test_options),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
