/* The trainer's arithmetic: gradients against finite differences through the whole loss, the loss against its
 * definition in double, the optimiser against a plain one, packing, the schedule. */
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
#include "tinylm/adamw.h"
#include "tinylm/rowmath.h"
#include "tinylm/select.h"

/* ------------------------------------------------------------------------------------------------ fixture */

enum { SEQS = 3, TOKENS = 5 + 9 + 70, TARGETS = 40 };

static const loss_parts nll_alone = {.nll = 1.0f};

static const float ALPHA = 0.7f;

static void grad_batch(scene *s) {
    static const size_t start[SEQS + 1] = {0, 5, 14, TOKENS};
    uint64_t rng = 7;
    size_t n_vocab = (size_t)s->p.s.n_vocab;
    memcpy(s->start, start, sizeof start);
    for (size_t i = 0; i < TOKENS; i++)
        s->ids[i] = (int32_t)(params_random(&rng) % n_vocab);
    for (size_t i = 0; i < TARGETS; i++) {
        s->rows[i] = i * (TOKENS - 1) / (TARGETS - 1); /* ascending, every sequence has some, the last token too */
        s->targets[i] = (int32_t)(params_random(&rng) % n_vocab);
        scene_state_random(s, i, &rng);
    }
    scene_batch(s, SEQS, TARGETS);
}

static void grad_open(scene *s, int threads, bool exact, int32_t n_head_kv, bool decode_head) {
    scene_open(s, threads, exact, 0);
    params_shape shape = {.n_vocab = cmc_model_n_vocab(s->host), .n_embd = 16, .n_layer = 2, .n_head = 4,
                          .n_head_kv = n_head_kv, .n_ff = 24};
    scene_net(s, shape, TOKENS, false, decode_head);
    scene_weights(s);
    grad_batch(s);
}

/* --------------------------------------------------------------------------------------------- gradients */

static double loss_of(void *s) {
    return scene_loss(s, (double)ALPHA);
}

static void check_gradients(int threads, int32_t n_head_kv, bool decode_head) {
    scene s;
    uint64_t rng = 5;
    grad_open(&s, threads, false, n_head_kv, decode_head);
    double a = scene_grad(&s, ALPHA);
    float *grad = cmc_alloc(s.p.n, sizeof *grad);
    memcpy(grad, s.n.grad, s.p.n * sizeof *grad);
    assert_true(fabs(a - scene_loss(&s, (double)ALPHA)) < 1e-5);
    slope_check c = {.loss = loss_of, .scene = &s, .h = 0.04, .least = 1e-4, .rel = 2e-3, .abs = 2e-4,
                     .directions = 7};
    for (size_t i = 0; i < s.p.n_tensors; i++) {
        const params_tensor *t = &s.p.tensors[i];
        slope_assert(&c, t->name, s.n.w + t->off, grad + t->off, t->n_out * t->n_in, &rng);
    }
    free(grad);
    scene_close(&s);
}

static void test_gradients(void **state) {
    (void)state;
    check_gradients(2, 4, true);
}

static void test_gradients_gqa(void **state) {
    (void)state;
    check_gradients(2, 2, true);
    check_gradients(3, 1, false);
}

/* Where some tensors are trained they have the gradients that they have where all are, and the rest has none; a step of the
 * optimiser leaves the rest's bits. */
static void check_part(const char *layers, const char *modules, size_t n_trained, size_t lowest) {
    scene s;
    selection what;
    cmc_error err = {0};
    grad_open(&s, 2, false, 2, true);
    scene_grad(&s, ALPHA);
    size_t bytes = s.p.n * sizeof(float), trained = 0;
    float *grad = cmc_alloc(s.p.n, sizeof *grad), *w = cmc_alloc(s.p.n, sizeof *w);
    memcpy(grad, s.n.grad, bytes);
    memcpy(w, s.n.w, bytes);
    assert_int_equal(select_parse(layers, modules, s.p.s.n_layer, true, &what, &err), CMC_OK);
    select_apply(&what, &s.p);
    select_free(&what);
    assert_int_equal(s.p.lowest, lowest);
    memset(s.n.grad, 0, bytes);
    scene_grad(&s, ALPHA);
    adamw a = {.beta1 = 0.9, .beta2 = 0.95, .eps = 1e-8, .weight_decay = 0.3};
    a.m = cmc_calloc(s.p.n, sizeof *a.m);
    a.v = cmc_calloc(s.p.n, sizeof *a.v);
    for (size_t i = 0; i < s.p.n_tensors; i++) {
        const params_tensor *t = &s.p.tensors[i];
        for (size_t k = t->off; k < t->off + t->n_out * t->n_in; k++)
            assert_true(t->trained ? fabsf(s.n.grad[k] - grad[k]) < 1e-5f : s.n.grad[k] == 0.0f);
        trained += t->trained;
    }
    assert_int_equal(trained, n_trained);
    adamw_step(s.rt->pool, &a, &s.p, s.n.w, s.n.grad, 1.0, 0.1, 1);
    for (size_t i = 0; i < s.p.n_tensors; i++) {
        const params_tensor *t = &s.p.tensors[i];
        bool same = memcmp(w + t->off, s.n.w + t->off, t->n_out * t->n_in * sizeof *w) == 0;
        assert_true(same != t->trained);
    }
    free(a.m);
    free(a.v);
    free(grad);
    free(w);
    scene_close(&s);
}

static void test_part(void **state) {
    (void)state;
    check_part(NULL, "q,v", 4, 1);
    check_part(NULL, "k,up", 4, 1);
    check_part("1-1", "up,down", 2, 4);
    check_part("50-100%", NULL, 9, 3);
    check_part(NULL, "norms", 4, 1);
    check_part(NULL, "output", 2, 0);
    check_part("0", "q,k,o,embeddings", 4, 0);
}

/* Gradients add up: two halves of a batch give what the whole does. */
static void test_pieces(void **state) {
    (void)state;
    scene s;
    double nll = 0.0;
    cmc_error err = {0};
    grad_open(&s, 2, true, 2, true);
    scene_grad(&s, ALPHA);
    float *whole = cmc_alloc(s.p.n, sizeof *whole);
    memcpy(whole, s.n.grad, s.p.n * sizeof *whole);
    memset(s.n.grad, 0, s.p.n * sizeof(float));
    size_t cut = 0, first = 5;
    while (s.rows[cut] < first)
        cut++;
    size_t start2[SEQS], rows2[TARGETS];
    for (size_t i = 0; i < SEQS; i++)
        start2[i] = s.start[i + 1] - first;
    for (size_t i = cut; i < TARGETS; i++)
        rows2[i - cut] = s.rows[i] - first;
    net_batch piece[2] = {s.b, s.b};
    piece[0].n_tokens = first;
    piece[0].n_seqs = 1;
    piece[0].n_targets = cut;
    piece[1] = (net_batch){.ids = s.ids + first,
                           .start = start2,
                           .rows = rows2,
                           .targets = s.targets + cut,
                           .host = s.hrow + cut,
                           .n_tokens = TOKENS - first,
                           .n_seqs = SEQS - 1,
                           .n_targets = TARGETS - cut};
    for (int i = 0; i < 2; i++) {
        net_forward(&s.n, &piece[i]);
        assert_int_equal(loss_train(&s.l, net_output(&s.n), &piece[i], &nll_alone, ALPHA, 1.0f / TARGETS, s.dhidden, &nll, &err),
                         CMC_OK);
        net_backward(&s.n, &piece[i], s.dhidden);
    }
    for (size_t i = 0; i < s.p.n; i++)
        assert_true(fabsf(whole[i] - s.n.grad[i]) < 1e-6f);
    free(whole);
    scene_close(&s);
}

/* -------------------------------------------------------------------------------------------------- loss */

/* The definition, in double: host logits by the runtime, delta logits by plain sums. */
static double plain_loss(scene *s, double alpha) {
    size_t v = (size_t)s->p.s.n_vocab, e = 16, he = (size_t)cmc_model_n_embd(s->host);
    float *state = cmc_alloc(he, sizeof *state), *h = cmc_alloc(v, sizeof *h);
    double *z = cmc_alloc(v, sizeof *z), nll = 0.0;
    cmc_error err = {0};
    for (size_t i = 0; i < TARGETS; i++) {
        hostcache_unpack(s->hrow[i], state, he);
        assert_int_equal(cmc_model_logits(s->host, state, 1, h, &err), CMC_OK);
        double max = -INFINITY, sum = 0.0;
        for (size_t j = 0; j < v; j++) {
            double d = 0.0;
            for (size_t c = 0; c < e; c++)
                d += (double)s->n.hidden[i * e + c] * (double)s->n.w[s->p.embd + j * e + c];
            z[j] = (double)h[j] + alpha * d;
            max = z[j] > max ? z[j] : max;
        }
        for (size_t j = 0; j < v; j++)
            sum += exp(z[j] - max);
        nll += max + log(sum) - z[s->targets[i]];
    }
    free(state);
    free(h);
    free(z);
    return nll;
}

static void test_loss(void **state) {
    (void)state;
    static const double alphas[] = {0.0, 0.25, 1.0, 3.0};
    for (int threads = 1; threads <= 3; threads++) {
        scene s;
        double nll[4] = {0};
        cmc_error err = {0};
        grad_open(&s, threads, true, 2, threads != 2);
        net_forward(&s.n, &s.b);
        assert_int_equal(loss_score(&s.l, net_output(&s.n), &s.b, alphas, 4, nll, NULL, &err), CMC_OK);
        for (int a = 0; a < 4; a++)
            assert_true(fabs(nll[a] - plain_loss(&s, alphas[a])) < 1e-4 * TARGETS);
        scene_close(&s);
    }
}

/* A row's largest state decides its scale: nothing overflows a half, nothing is rounded more than 2^-11 of the largest.
 */
static void test_pack(void **state) {
    (void)state;
    enum { N = 37 };
    static const float scale[] = {1e-30f, 1e-6f, 1.0f, 300.0f, 1e6f, 1e30f};
    uint64_t rng = 1;
    for (size_t k = 0; k < sizeof scale / sizeof *scale; k++) {
        float x[N], y[N], max = 0.0f;
        uint8_t row[256];
        assert_true(hostcache_row_bytes(N) <= sizeof row);
        for (int i = 0; i < N; i++) {
            x[i] = scale[k] * (float)(uniform(&rng) - 0.5);
            max = fabsf(x[i]) > max ? fabsf(x[i]) : max;
        }
        hostcache_pack(x, row, N);
        hostcache_unpack(row, y, N);
        for (int i = 0; i < N; i++)
            assert_true(fabsf(x[i] - y[i]) <= max * 0x1p-11f);
    }
    float zero[4] = {0}, back[4] = {1, 1, 1, 1};
    uint8_t row[32];
    hostcache_pack(zero, row, 4);
    hostcache_unpack(row, back, 4);
    assert_memory_equal(zero, back, sizeof zero);
}

/* --------------------------------------------------------------------------------------------- optimiser */

static void test_adamw(void **state) {
    (void)state;
    scene s;
    grad_open(&s, 2, false, 2, true);
    size_t n = s.p.n;
    float *m = cmc_calloc(n, sizeof *m), *v = cmc_calloc(n, sizeof *v);
    double *w = cmc_alloc(n, sizeof *w), *m2 = cmc_calloc(n, sizeof *m2), *v2 = cmc_calloc(n, sizeof *v2), norm = 0.0;
    uint64_t rng = 2;
    adamw a = {.beta1 = 0.9, .beta2 = 0.95, .eps = 1e-8, .weight_decay = 0.3, .m = m, .v = v};
    for (size_t i = 0; i < n; i++)
        w[i] = (double)s.n.w[i];
    for (int step = 1; step <= 5; step++) {
        for (size_t i = 0; i < n; i++)
            s.n.grad[i] = (float)(uniform(&rng) - 0.5);
        norm = 0.0;
        for (size_t k = 0; k < s.p.n_tensors; k++) {
            const params_tensor *t = &s.p.tensors[k];
            for (size_t i = t->off; i < t->off + t->n_out * t->n_in; i++) {
                double g = 0.5 * (double)s.n.grad[i];
                norm += (double)s.n.grad[i] * (double)s.n.grad[i];
                m2[i] = 0.9 * m2[i] + 0.1 * g;
                v2[i] = 0.95 * v2[i] + 0.05 * g * g;
                w[i] -= 0.01 * ((t->matrix ? 0.3 : 0.0) * w[i] +
                                m2[i] / (1 - pow(0.9, step)) / (sqrt(v2[i] / (1 - pow(0.95, step))) + 1e-8));
            }
        }
        assert_true(fabs(adamw_norm(s.rt->pool, s.n.grad, n) - sqrt(norm)) < 1e-4);
        adamw_step(s.rt->pool, &a, &s.p, s.n.w, s.n.grad, 0.5, 0.01, step);
    }
    for (size_t i = 0; i < n; i++) {
        assert_true(fabs(w[i] - (double)s.n.w[i]) < 1e-5);
        assert_true(s.n.grad[i] == 0.0f);
    }
    free(m);
    free(v);
    free(w);
    free(m2);
    free(v2);
    scene_close(&s);
}

static void test_schedule(void **state) {
    (void)state;
    assert_true(fabs(adamw_lr(2.0, 0.1, 4, 100, 1) - 0.5) < 1e-12);
    assert_true(fabs(adamw_lr(2.0, 0.1, 4, 100, 4) - 2.0) < 1e-12);
    assert_true(fabs(adamw_lr(2.0, 0.1, 4, 100, 52) - 1.1) < 1e-12);
    assert_true(fabs(adamw_lr(2.0, 0.1, 4, 100, 100) - 0.2) < 1e-12);
    assert_true(fabs(adamw_lr(2.0, 0.1, 0, 1, 1) - 0.2) < 1e-12);
    for (int64_t s = 5; s < 100; s++)
        assert_true(adamw_lr(2.0, 0.1, 4, 100, s + 1) < adamw_lr(2.0, 0.1, 4, 100, s));
}

/* Row primitives against libm, at every tail length. */
static void test_rows(void **state) {
    (void)state;
    uint64_t rng = 9;
    for (size_t n = 1; n < 1100; n = n < 40 ? n + 1 : n * 2 + 1) {
        float *x = cmc_alloc(n, sizeof *x), *d = cmc_alloc(n, sizeof *d), *y = cmc_alloc(n, sizeof *y);
        double sum = 0.0, mix = 0.0, max = -INFINITY;
        for (size_t i = 0; i < n; i++) {
            x[i] = (float)(40.0 * (uniform(&rng) - 0.5));
            d[i] = (float)(4.0 * (uniform(&rng) - 0.5));
            max = (double)x[i] > max ? (double)x[i] : max;
        }
        assert_true((double)row_max(x, n) == max);
        for (size_t i = 0; i < n; i++) {
            sum += exp((double)x[i] - max);
            mix += exp((double)x[i] + 0.5 * (double)d[i] - 22.0);
        }
        assert_true(fabs(row_mix_exp_sum(x, d, 0.5f, 22.0f, n) / mix - 1.0) < 4e-6);
        row_swiglu(x, d, y, n);
        for (size_t i = 0; i < n; i++) {
            double want = (double)x[i] / (1.0 + exp(-(double)x[i])) * (double)d[i];
            assert_true(fabs((double)y[i] - want) <= 1e-6 * (1.0 + fabs(want)));
        }
        assert_true(fabs(row_exp_sum(x, n, (float)max) / sum - 1.0) < 4e-6);
        x[n / 2] = NAN;
        assert_true(isnan(row_exp_sum(x, n, 0.0f)));
        free(x);
        free(d);
        free(y);
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_rows),      cmocka_unit_test(test_pack),          cmocka_unit_test(test_schedule),
        cmocka_unit_test(test_adamw),     cmocka_unit_test(test_loss),          cmocka_unit_test(test_pieces),
        cmocka_unit_test(test_gradients), cmocka_unit_test(test_gradients_gqa),
        cmocka_unit_test(test_part),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
