/* Perturbing the host while training: what is drawn, the loss of it against its definition, and whole runs. */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

#include "base/mem.h"
#include "tests/scene.h"
#include "tests/slope.h"
#include "tests/tiny.h"
#include "tests/train_rig.h"

/* ------------------------------------------------------------------------------------------------- draws */

static void test_draws(void **state) {
    (void)state;
    enum { N = 4000 };
    cmc_train_opts o = {.host_temperature_lo = 0.5, .host_temperature_hi = 4.0, .host_mix = 0.6, .seed = 3};
    double mix = 0.0, log_t = 0.0;
    for (size_t i = 0; i < N; i++) {
        perturb p = perturb_draw(&o, (int64_t)(i / 50), i % 50);
        double t = (1.0 - (double)p.mix) / (double)p.scale;
        assert_true(p.mix >= 0.0f && p.mix < 0.6f && t > 0.4999 && t < 4.0001);
        mix += (double)p.mix / N;
        log_t += log(t) / N;
    }
    assert_true(fabs(mix - 0.3) < 0.02);                              /* uniform */
    assert_true(fabs(log_t - (log(0.5) + log(4.0)) / 2) < 0.05);      /* log-uniform */
    perturb a = perturb_draw(&o, 7, 5), b = perturb_draw(&o, 7, 5), c = perturb_draw(&o, 8, 5), d = perturb_draw(&o, 7, 6);
    assert_true(a.scale == b.scale && a.mix == b.mix);
    assert_true(a.mix != c.mix && a.mix != d.mix && c.mix != d.mix && a.scale != c.scale && a.scale != d.scale);
    o.seed = 4;
    assert_true(perturb_draw(&o, 7, 5).mix != a.mix);
    o = (cmc_train_opts){.host_temperature_lo = 1.0, .host_temperature_hi = 1.0};
    a = perturb_draw(&o, 7, 5);
    assert_true(a.scale == 1.0f && a.mix == 0.0f);
}

static void test_unigram(void **state) {
    (void)state;
    enum { V = 5 };
    int32_t one[] = {1, 1, 3}, two[] = {4, 4, 4};
    data_example v[] = {{.targets = one, .n_targets = 3}, {.targets = two, .n_targets = 3}};
    size_t first[] = {0};
    data_set d = {.v = v, .n = 2, .train = first, .n_train = 1};   /* the second is held out */
    static const double want[V] = {1, 3, 1, 2, 1};
    float log_u[V];
    perturb_unigram(&d, V, log_u);
    for (size_t i = 0; i < V; i++)
        assert_true(fabs((double)log_u[i] - log(want[i] / 8.0)) < 1e-6);
}

/* ------------------------------------------------------------------------------------------ the loss alone */

enum { ROWS = 37, EMBD = 16 };

static int32_t map_to(int32_t i, void *user) {
    uint64_t *rng = user;
    return uniform(rng) < 0.1 ? -1 : i % 90;
}

/* Host and delta with the same vocabulary, or through a map to 90 tokens. */
static void perturb_open(scene *s, int threads, bool mapped, bool decode_head) {
    uint64_t map_rng = 21;
    scene_open(s, threads, true, 0);
    int32_t n_host = cmc_model_n_vocab(s->host), n = mapped ? 90 : n_host;
    if (mapped)
        scene_map(s, n, map_to, &map_rng);
    params_shape shape = {.n_vocab = n, .n_embd = EMBD, .n_layer = 1, .n_head = 4, .n_head_kv = 2, .n_ff = 24};
    scene_net(s, shape, ROWS, mapped, decode_head);
    scene_weights(s);
    scene_random(s, ROWS, 7);
}

/* Host's logits by the runtime, perturbed in double and renormalised, steered by the plain shift. */
static double defined_loss(scene *s, float alpha, const perturb *p, const float *log_u) {
    size_t v = (size_t)cmc_model_n_vocab(s->host), nd = (size_t)s->p.s.n_vocab, he = (size_t)cmc_model_n_embd(s->host);
    float *state = cmc_alloc(he, sizeof *state), *h = cmc_alloc(v, sizeof *h), *d = cmc_alloc(nd, sizeof *d);
    float *work = cmc_alloc(2 * v, sizeof *work);
    double nll = 0.0;
    cmc_error err = {0};
    for (size_t i = 0; i < ROWS; i++) {
        hostcache_unpack(s->hrow[i], state, he);
        assert_int_equal(cmc_model_logits(s->host, state, 1, h, &err), CMC_OK);
        double mix = (double)p[i].mix, t = (1.0 - mix) / (double)p[i].scale, sum = 0.0;
        for (size_t j = 0; j < v; j++)
            sum += exp((double)h[j] / t);
        for (size_t j = 0; j < v; j++) /* p^(1-m) u^m, not normalised: the constant is no matter */
            h[j] = (float)((1.0 - mix) * log(exp((double)h[j] / t) / sum) + mix * (double)log_u[j]);
        scene_delta_logits(s, i, d);
        shift_in in = {s->map, alpha, d};
        for (size_t j = 0; j < v && !s->map; j++)
            h[j] += alpha * d[j];
        if (s->map)
            shift_apply_plain(h, (int32_t)v, &in, 1, false, work);
        nll += shift_log_sum_plain(h, (int32_t)v) - (double)h[s->targets[i]];
    }
    free(state);
    free(h);
    free(d);
    free(work);
    return nll;
}

static void test_loss_is_defined(void **state) {
    (void)state;
    static const cmc_train_opts how = {.host_temperature_lo = 0.3, .host_temperature_hi = 3.0, .host_mix = 0.9};
    for (int k = 0; k < 8; k++) {
        scene s;
        perturb p[ROWS];
        cmc_error err = {0};
        perturb_open(&s, 1 + k % 2, k & 2, k & 4);
        size_t v = (size_t)cmc_model_n_vocab(s.host);
        float *log_u = cmc_alloc(v, sizeof *log_u);
        uint64_t rng = 8;
        for (size_t j = 0; j < v; j++)
            log_u[j] = (float)(8.0 * (uniform(&rng) - 1.0));
        for (size_t i = 0; i < ROWS; i++)
            p[i] = perturb_draw(&how, 1, i);
        loss_parts parts = {.nll = 1.0f, .perturb = p, .log_unigram = log_u};
        double nll = 0.0, plain = 0.0, alpha = 0.6;
        net_forward(&s.n, &s.b);
        assert_int_equal(loss_train(&s.l, net_output(&s.n), &s.b, &parts, 0.6f, 1.0f, s.dhidden, &nll, &err), CMC_OK);
        double want = defined_loss(&s, 0.6f, p, log_u);
        if (!(fabs(nll - want) < 1e-4 * ROWS))
            fail_msg("loss %.6f, by its definition %.6f", nll, want);
        assert_int_equal(loss_score(&s.l, net_output(&s.n), &s.b, &alpha, 1, &plain, NULL, &err), CMC_OK); /* a score is of the host as it is */
        assert_true(fabs(plain - nll) > 0.1);
        for (size_t i = 0; i < ROWS; i++)
            p[i] = (perturb){1.0f, 0.0f};
        assert_true(fabs(plain - defined_loss(&s, 0.6f, p, log_u)) < 1e-4 * ROWS);
        free(log_u);
        scene_close(&s);
    }
}

/* ------------------------------------------------------------------------------------------------ whole runs */

static cmc_train_opts perturbed(const rig *r) {
    cmc_train_opts o = rig_opts(r);
    o.host_temperature_lo = 0.6;
    o.host_temperature_hi = 2.0;
    o.host_mix = 0.5;
    return o;
}

static char *other_host(const rig *r) {
    cmc_error err = {0};
    char *path = rig_path(r, "other.gguf");
    tiny_spec spec = {.arch = "llama", .vocab = "spm", .n_learnt = 120, .type = CMC_F32, .seed = 5};
    assert_int_equal(tiny_write(&spec, path, &err), CMC_OK);
    return path;
}

/* A temperature of 1 and no mixture change no bit; others do, but for the host's own held-out score. */
static void test_off(void **state) {
    (void)state;
    rig r;
    size_t n;
    rig_open(&r, 2, false);
    char *other = other_host(&r);
    const char *both[] = {r.host, other};
    cmc_train_opts o = rig_opts(&r);
    o.hosts = both;
    o.n_hosts = 2;
    cmc_train_result off = rig_run(&r, &o, NULL, NULL, CMC_OK);
    uint8_t *want = rig_bytes(r.out, &n);
    o.host_temperature_lo = o.host_temperature_hi = 1.0;
    rig_run(&r, &o, NULL, NULL, CMC_OK);
    rig_assert_same(r.out, want, n);
    for (int k = 0; k < 2; k++) {
        cmc_train_opts on = o;
        on.host_temperature_lo = on.host_temperature_hi = k ? 0.0 : 1.5;
        on.host_mix = k ? 0.4 : 0.0;
        cmc_train_result res = rig_run(&r, &on, NULL, NULL, CMC_OK);
        cmc_file f = rig_map(r.out);
        assert_true(f.size != n || memcmp(f.data, want, n) != 0);
        cmc_file_unmap(&f);
        assert_true(res.held_out_host == off.held_out_host);
        assert_true(res.held_out_steered < res.held_out_host - 0.5); /* it learns all the same */
    }
    free(want);
    free(other);
    rig_close(&r);
}

/* However the work is cut, a record is perturbed alike. */
static void test_pieces(void **state) {
    (void)state;
    rig r;
    cmc_error err = {0};
    rig_open(&r, 2, false);
    cmc_train_opts o = perturbed(&r);
    o.batch = 16;
    train t = {.rt = r.rt, .o = o};
    if (train_setup(&t, &err) != CMC_OK || train_start(&t, &err) != CMC_OK)
        fail_msg("%s", err.message);
    train_host *h = &t.hosts[0];
    assert_int_equal(hostcache_open(h->cache, h->model, &h->data, NULL, NULL, &h->states, &err), CMC_OK);
    assert_int_equal(train_start_steps(&t, &err), CMC_OK);
    size_t n, whole = t.batch.max_tokens;
    double total[3];
    for (int k = 0; k < 3; k++) { /* whole, an example at a time, and whole in the next step */
        uint64_t targets;
        const size_t *index = train_step_examples(&t, 0, &n);
        t.batch.max_tokens = k == 1 ? h->data.max_delta : whole;
        t.s.step = k == 2;
        assert_int_equal(train_gradient(&t, index, n, &total[k], &targets, &err), CMC_OK);
    }
    assert_true(n == 16 && whole > 4 * h->data.max_delta);
    assert_true(fabs(total[0] - total[1]) < 1e-5);
    assert_true(fabs(total[0] - total[2]) > 1e-3);
    train_release(&t);
    rig_close(&r);
}

/* Stopped and resumed it ends with the same bytes, and is not resumed with other numbers. */
static void test_resume(void **state) {
    (void)state;
    rig r;
    size_t n;
    cmc_error err = {0};
    rig_open(&r, 2, false);
    char *other = other_host(&r);
    const char *both[] = {r.host, other};
    cmc_train_opts o = perturbed(&r);
    o.hosts = both;
    o.n_hosts = 2;
    rig_run(&r, &o, NULL, NULL, CMC_OK);
    uint8_t *whole = rig_bytes(r.out, &n);
    stopper s = {"train", 9, false};
    rig_run(&r, &o, rig_stop, &s, CMC_E_CANCELLED);
    o.resume = true;
    for (int k = 0; k < 4; k++) {
        cmc_train_opts differs = o;
        switch (k) {
        case 0: differs.host_temperature_lo = 0.7; break;
        case 1: differs.host_temperature_hi = 2.5; break;
        case 2: differs.host_mix = 0.4; break;
        default: differs.host_mix = differs.host_temperature_lo = differs.host_temperature_hi = 0.0;
        }
        assert_int_equal(cmc_train(r.rt, &differs, NULL, NULL, NULL, &err), CMC_E_ARG);
        assert_non_null(strstr(err.message, "host_perturbed "));
    }
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
    static const double bad[][3] = {{0, 1, 0}, {1, 0, 0}, {2, 1, 0}, {-1, 1, 0}, {1, NAN, 0}, {1, INFINITY, 0},
                                    {NAN, 1, 0}, {0, 0, 1}, {0, 0, -0.1}, {0, 0, NAN}, {1e-3, 1e4, 0}};
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        cmc_train_opts o = rig_opts(&r);
        o.host_temperature_lo = bad[i][0];
        o.host_temperature_hi = bad[i][1];
        o.host_mix = bad[i][2];
        rig_run(&r, &o, NULL, NULL, CMC_E_ARG);
    }
    cmc_train_opts o = perturbed(&r);
    o.objective = "npo";
    o.retain_term = "none";
    rig_run(&r, &o, NULL, NULL, CMC_E_ARG);
    rig_close(&r);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_draws),  cmocka_unit_test(test_unigram), cmocka_unit_test(test_loss_is_defined),
        cmocka_unit_test(test_off),    cmocka_unit_test(test_pieces),  cmocka_unit_test(test_resume),
        cmocka_unit_test(test_options),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
