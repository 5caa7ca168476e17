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
#include "tests/slope.h"
#include "tests/tiny.h"
#include "tinylm/adamw.h"
#include "tinylm/hostcache.h"
#include "tinylm/loss.h"
#include "tinylm/rowmath.h"

/* ------------------------------------------------------------------------------------------------ fixture */

enum { SEQS = 3, TOKENS = 5 + 9 + 70, TARGETS = 40 };

static const loss_parts nll_alone = {.nll = 1.0f};

typedef struct rig {
    char *dir;
    cmc_runtime *rt;
    cmc_model *host;
    params p;
    net n;
    loss l;
    int32_t ids[TOKENS], targets[TARGETS];
    size_t start[SEQS + 1], rows[TARGETS];
    uint8_t *packed;
    const uint8_t *hrow[TARGETS];
    net_batch b;
    float *dhidden;
    float alpha;
} rig;

static void rig_batch(rig *r) {
    static const size_t start[SEQS + 1] = {0, 5, 14, TOKENS};
    uint64_t rng = 7;
    size_t n_vocab = (size_t)r->p.s.n_vocab, he = (size_t)cmc_model_n_embd(r->host), bytes = hostcache_row_bytes(he);
    memcpy(r->start, start, sizeof start);
    for (size_t i = 0; i < TOKENS; i++)
        r->ids[i] = (int32_t)(params_random(&rng) % n_vocab);
    r->packed = cmc_alloc(TARGETS, bytes);
    float *x = cmc_alloc(he, sizeof *x);
    for (size_t i = 0; i < TARGETS; i++) {
        r->rows[i] = i * (TOKENS - 1) / (TARGETS - 1); /* ascending, every sequence has some, the last token too */
        r->targets[i] = (int32_t)(params_random(&rng) % n_vocab);
        for (size_t c = 0; c < he; c++)
            x[c] = (float)(2.0 * uniform(&rng) - 1.0);
        hostcache_pack(x, r->packed + i * bytes, he);
        r->hrow[i] = r->packed + i * bytes;
    }
    free(x);
    r->b = (net_batch){.ids = r->ids,
                       .start = r->start,
                       .rows = r->rows,
                       .targets = r->targets,
                       .host = r->hrow,
                       .n_tokens = TOKENS,
                       .n_seqs = SEQS,
                       .n_targets = TARGETS};
}

static void rig_open(rig *r, int threads, bool exact, int32_t n_head_kv, bool decode_head) {
    cmc_error err = {0};
    cmc_runtime_opts ro = {.threads = threads, .exact = exact};
    memset(r, 0, sizeof *r);
    r->dir = tiny_dir_new();
    const char *path = tiny_path(r->dir, "host.gguf");
    tiny_spec spec = {.arch = "llama", .type = CMC_F32, .seed = 3};
    assert_int_equal(tiny_write(&spec, path, &err), CMC_OK);
    assert_int_equal(cmc_runtime_open(&ro, &r->rt, &err), CMC_OK);
    if (cmc_model_open(r->rt, path, &r->host, &err) != CMC_OK)
        fail_msg("%s", err.message);
    params_shape s = {.n_vocab = cmc_model_n_vocab(r->host),
                      .n_embd = 16,
                      .n_layer = 2,
                      .n_head = 4,
                      .n_head_kv = n_head_kv,
                      .head_dim = 4,
                      .n_ff = 24,
                      .rms_eps = 1e-5f,
                      .rope_base = 10000.0f};
    assert_int_equal(params_init(&r->p, &s, &err), CMC_OK);
    assert_int_equal(net_new(r->rt, &r->p, TOKENS, TOKENS, &r->n, &err), CMC_OK);
    assert_int_equal(loss_new(r->host, NULL, 16, decode_head, LOSS_BLOCK_BYTES, &r->l, &err), CMC_OK);
    r->dhidden = cmc_alloc(TARGETS * 16, sizeof *r->dhidden);
    r->alpha = 0.7f;
    rig_batch(r);
    uint64_t rng = 11; /* large weights, norms off 1: every term of the gradient matters */
    for (size_t i = 0; i < r->p.n; i++)
        r->n.w[i] = (float)(0.8 * (uniform(&rng) - 0.5));
    for (size_t i = 0; i < r->p.n_tensors; i++)
        for (size_t j = 0; !r->p.tensors[i].matrix && j < r->p.tensors[i].n_in; j++)
            r->n.w[r->p.tensors[i].off + j] += 1.0f;
}

static void rig_close(rig *r) {
    free(r->dhidden);
    free(r->packed);
    loss_free(&r->l);
    net_free(&r->n);
    params_free(&r->p);
    cmc_model_free(r->host);
    cmc_runtime_free(r->rt);
    tiny_dir_free(r->dir);
}

/* Mean NLL over the targets, without gradients. */
static double rig_loss(rig *r) {
    double nll = 0.0, alpha = (double)r->alpha;
    cmc_error err = {0};
    net_forward(&r->n, &r->b);
    assert_int_equal(loss_score(&r->l, &r->n, &r->b, &alpha, 1, &nll, NULL, &err), CMC_OK);
    return nll / TARGETS;
}

static double rig_grad(rig *r) {
    double nll = 0.0;
    cmc_error err = {0};
    memset(r->n.grad, 0, r->p.n * sizeof(float));
    net_forward(&r->n, &r->b);
    assert_int_equal(loss_train(&r->l, &r->n, &r->b, &nll_alone, r->alpha, 1.0f / TARGETS, r->dhidden, &nll, &err), CMC_OK);
    net_backward(&r->n, &r->b, r->dhidden);
    return nll / TARGETS;
}

/* --------------------------------------------------------------------------------------------- gradients */

static double rig_loss_of(void *r) {
    return rig_loss(r);
}

static void check_gradients(int threads, int32_t n_head_kv, bool decode_head) {
    rig r;
    uint64_t rng = 5;
    rig_open(&r, threads, false, n_head_kv, decode_head);
    double a = rig_grad(&r);
    float *grad = cmc_alloc(r.p.n, sizeof *grad);
    memcpy(grad, r.n.grad, r.p.n * sizeof *grad);
    assert_true(fabs(a - rig_loss(&r)) < 1e-5);
    slope_check c = {.loss = rig_loss_of, .scene = &r, .h = 0.04, .least = 1e-4, .rel = 2e-3, .abs = 2e-4,
                     .directions = 7};
    for (size_t i = 0; i < r.p.n_tensors; i++) {
        const params_tensor *t = &r.p.tensors[i];
        slope_assert(&c, t->name, r.n.w + t->off, grad + t->off, t->n_out * t->n_in, &rng);
    }
    free(grad);
    rig_close(&r);
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

/* Gradients add up: two halves of a batch give what the whole does. */
static void test_pieces(void **state) {
    (void)state;
    rig r;
    double nll = 0.0;
    cmc_error err = {0};
    rig_open(&r, 2, true, 2, true);
    rig_grad(&r);
    float *whole = cmc_alloc(r.p.n, sizeof *whole);
    memcpy(whole, r.n.grad, r.p.n * sizeof *whole);
    memset(r.n.grad, 0, r.p.n * sizeof(float));
    size_t cut = 0, first = 5;
    while (r.rows[cut] < first)
        cut++;
    size_t start2[SEQS], rows2[TARGETS];
    for (size_t i = 0; i < SEQS; i++)
        start2[i] = r.start[i + 1] - first;
    for (size_t i = cut; i < TARGETS; i++)
        rows2[i - cut] = r.rows[i] - first;
    net_batch piece[2] = {r.b, r.b};
    piece[0].n_tokens = first;
    piece[0].n_seqs = 1;
    piece[0].n_targets = cut;
    piece[1] = (net_batch){.ids = r.ids + first,
                           .start = start2,
                           .rows = rows2,
                           .targets = r.targets + cut,
                           .host = r.hrow + cut,
                           .n_tokens = TOKENS - first,
                           .n_seqs = SEQS - 1,
                           .n_targets = TARGETS - cut};
    for (int i = 0; i < 2; i++) {
        net_forward(&r.n, &piece[i]);
        assert_int_equal(loss_train(&r.l, &r.n, &piece[i], &nll_alone, r.alpha, 1.0f / TARGETS, r.dhidden, &nll, &err), CMC_OK);
        net_backward(&r.n, &piece[i], r.dhidden);
    }
    for (size_t i = 0; i < r.p.n; i++)
        assert_true(fabsf(whole[i] - r.n.grad[i]) < 1e-6f);
    free(whole);
    rig_close(&r);
}

/* -------------------------------------------------------------------------------------------------- loss */

/* The definition, in double: host logits by the runtime, delta logits by plain sums. */
static double plain_loss(rig *r, double alpha) {
    size_t v = (size_t)r->p.s.n_vocab, e = 16, he = (size_t)cmc_model_n_embd(r->host);
    float *state = cmc_alloc(he, sizeof *state), *h = cmc_alloc(v, sizeof *h);
    double *z = cmc_alloc(v, sizeof *z), nll = 0.0;
    cmc_error err = {0};
    for (size_t i = 0; i < TARGETS; i++) {
        hostcache_unpack(r->hrow[i], state, he);
        assert_int_equal(cmc_model_logits(r->host, state, 1, h, &err), CMC_OK);
        double max = -INFINITY, sum = 0.0;
        for (size_t j = 0; j < v; j++) {
            double d = 0.0;
            for (size_t c = 0; c < e; c++)
                d += (double)r->n.hidden[i * e + c] * (double)r->n.w[r->p.embd + j * e + c];
            z[j] = (double)h[j] + alpha * d;
            max = z[j] > max ? z[j] : max;
        }
        for (size_t j = 0; j < v; j++)
            sum += exp(z[j] - max);
        nll += max + log(sum) - z[r->targets[i]];
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
        rig r;
        double nll[4] = {0};
        cmc_error err = {0};
        rig_open(&r, threads, true, 2, threads != 2);
        net_forward(&r.n, &r.b);
        assert_int_equal(loss_score(&r.l, &r.n, &r.b, alphas, 4, nll, NULL, &err), CMC_OK);
        for (int a = 0; a < 4; a++)
            assert_true(fabs(nll[a] - plain_loss(&r, alphas[a])) < 1e-4 * TARGETS);
        rig_close(&r);
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
    rig r;
    rig_open(&r, 2, false, 2, true);
    size_t n = r.p.n;
    float *m = cmc_calloc(n, sizeof *m), *v = cmc_calloc(n, sizeof *v);
    double *w = cmc_alloc(n, sizeof *w), *m2 = cmc_calloc(n, sizeof *m2), *v2 = cmc_calloc(n, sizeof *v2), norm = 0.0;
    uint64_t rng = 2;
    adamw a = {.beta1 = 0.9, .beta2 = 0.95, .eps = 1e-8, .weight_decay = 0.3, .m = m, .v = v};
    for (size_t i = 0; i < n; i++)
        w[i] = (double)r.n.w[i];
    for (int step = 1; step <= 5; step++) {
        for (size_t i = 0; i < n; i++)
            r.n.grad[i] = (float)(uniform(&rng) - 0.5);
        norm = 0.0;
        for (size_t k = 0; k < r.p.n_tensors; k++) {
            const params_tensor *t = &r.p.tensors[k];
            for (size_t i = t->off; i < t->off + t->n_out * t->n_in; i++) {
                double g = 0.5 * (double)r.n.grad[i];
                norm += (double)r.n.grad[i] * (double)r.n.grad[i];
                m2[i] = 0.9 * m2[i] + 0.1 * g;
                v2[i] = 0.95 * v2[i] + 0.05 * g * g;
                w[i] -= 0.01 * ((t->matrix ? 0.3 : 0.0) * w[i] +
                                m2[i] / (1 - pow(0.9, step)) / (sqrt(v2[i] / (1 - pow(0.95, step))) + 1e-8));
            }
        }
        assert_true(fabs(adamw_norm(r.rt->pool, r.n.grad, n) - sqrt(norm)) < 1e-4);
        adamw_step(r.rt->pool, &a, &r.p, r.n.w, r.n.grad, 0.5, 0.01, step);
    }
    for (size_t i = 0; i < n; i++) {
        assert_true(fabs(w[i] - (double)r.n.w[i]) < 1e-5);
        assert_true(r.n.grad[i] == 0.0f);
    }
    free(m);
    free(v);
    free(w);
    free(m2);
    free(v2);
    rig_close(&r);
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
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
