/* Importance and soft masks: gradients of gates and of the two passes' KL against finite differences, dropout from keys, the
 * file, and what a mask makes of it. */
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
#include "tests/lm_scene.h"
#include "tests/slope.h"
#include "tests/train_rig.h"
#include "tinylm/drop.h"
#include "tinylm/lm_kl.h"
#include "tinylm/soft_mask.h"

/* ------------------------------------------------------------------------------------------------ fixture */

enum { SEQS = LM_SCENE_SEQS, TOKENS = LM_SCENE_TOKENS, TARGETS = LM_SCENE_TARGETS };

/* Shared key heads; norms of q and k and behind the branches, and windows that end inside a block of scores. */
static const tiny_spec families[] = {
    {.arch = "llama", .n_embd = 16, .n_ff = 24, .seed = 3},
    {.arch = "gemma3", .n_embd = 16, .n_ff = 24, .n_layer = 3, .n_head_kv = 1, .head_k = 8, .head_v = 8, .swa_window = 7,
     .swa_period = 3, .tied = true, .seed = 7},
};

/* A model with gates on its units, each 1 at first: a gate on a head scales its columns of o, one on a unit a row of up, one
 * on a channel a row of down. */
typedef struct scene {
    lm_scene of;
    lm_kl kl;
    importance_shape shape;
    size_t n_units;
    float *gate, *grad, *w;      /* [n_units] gates; [SEQS][n_units] their gradients; the weights without gates */
    float *h1, *d1, *d2;         /* [TOKENS][E] */
    size_t every[TOKENS];
    net_batch all;               /* the batch with every row as a target */
} scene;

static void scene_open(scene *s, const tiny_spec *spec, int threads) {
    cmc_error err = {0};
    lm_trainable gates = {.gates = true};
    lm_scene_model(&s->of, spec, threads, false);
    lm_scene_net(&s->of, &gates, TOKENS, TARGETS);
    assert_int_equal(lm_kl_new(s->of.rt, &s->of.l.p, &s->kl, &err), CMC_OK);
    assert_int_equal(s->of.l.base.n_trained, 0);
    s->shape = importance_shape_of(&s->of.l.p);
    s->n_units = s->shape.n_layer * s->shape.per_layer;
    size_t e = (size_t)s->of.l.p.n_embd;
    s->gate = cmc_alloc(s->n_units, sizeof(float));
    s->grad = cmc_calloc(SEQS * s->n_units, sizeof(float));
    s->w = cmc_alloc(s->of.l.base.n, sizeof(float));
    s->h1 = cmc_alloc(3 * TOKENS * e, sizeof(float));
    s->d1 = s->h1 + TOKENS * e;
    s->d2 = s->d1 + TOKENS * e;
    for (size_t i = 0; i < s->n_units; i++)
        s->gate[i] = 1.0f;
    memcpy(s->w, s->of.n.w, s->of.l.base.n * sizeof(float));
    s->of.n.gates = s->grad;
    for (size_t i = 0; i < TOKENS; i++)
        s->every[i] = i;
    s->all = s->of.b;
    s->all.rows = s->every;
    s->all.n_targets = TOKENS;
}

static void scene_close(scene *s) {
    free(s->gate);
    free(s->grad);
    free(s->w);
    free(s->h1);
    lm_kl_free(&s->kl);
    lm_scene_close(&s->of);
}

static void scale_row(scene *s, const lm_linear *m, size_t row, float g) {
    for (size_t c = 0; c < m->n_in; c++)
        s->of.n.w[m->w + row * m->n_in + c] = g * s->w[m->w + row * m->n_in + c];
}

static void apply_gates(scene *s) {
    size_t dv = (size_t)s->of.l.p.head_v;
    for (size_t i = 0; i < s->shape.n_layer; i++) {
        const lm_layer_layout *o = &s->of.l.layers[i];
        const float *heads = s->gate + importance_at(&s->shape, i, IMPORTANCE_HEADS);
        for (size_t u = 0; u < s->shape.width[IMPORTANCE_UP]; u++)
            scale_row(s, &o->up, u, s->gate[importance_at(&s->shape, i, IMPORTANCE_UP) + u]);
        for (size_t u = 0; u < s->shape.width[IMPORTANCE_DOWN]; u++)
            scale_row(s, &o->down, u, s->gate[importance_at(&s->shape, i, IMPORTANCE_DOWN) + u]);
        for (size_t r = 0; r < o->o.n_out; r++)
            for (size_t c = 0; c < o->o.n_in; c++)
                s->of.n.w[o->o.w + r * o->o.n_in + c] = heads[c / dv] * s->w[o->o.w + r * o->o.n_in + c];
    }
}

/* The gradients of all sequences together, [n_units]. */
static float *total_grad(const scene *s) {
    float *sum = cmc_calloc(s->n_units, sizeof *sum);
    for (size_t q = 0; q < SEQS; q++)
        for (size_t u = 0; u < s->n_units; u++)
            sum[u] += s->grad[q * s->n_units + u];
    return sum;
}

static void check_gates(scene *s, double (*of)(void *), double least, double rel, double abs) {
    static const char *const names[IMPORTANCE_KINDS] = {"heads", "up", "down"};
    uint64_t rng = 5;
    float *grad = total_grad(s);
    slope_check c = {.loss = of, .scene = s, .h = 0.05, .least = least, .rel = rel, .abs = abs, .directions = 7};
    for (size_t i = 0; i < s->shape.n_layer; i++)
        for (size_t k = 0; k < IMPORTANCE_KINDS; k++) {
            char what[60];
            size_t at = importance_at(&s->shape, i, k);
            snprintf(what, sizeof what, "layer %zu, %s", i, names[k]);
            slope_assert(&c, what, s->gate + at, grad + at, s->shape.width[k], &rng);
        }
    free(grad);
}

/* --------------------------------------------------------------------------------------------- gradients */

static double nll_of(void *scene_) {
    scene *s = scene_;
    apply_gates(s);
    return lm_scene_loss(&s->of);
}

static void nll_gates(scene *s) {
    double nll = 0.0;
    float *dhidden = s->d1;
    memset(s->grad, 0, SEQS * s->n_units * sizeof(float));
    lm_forward(&s->of.n, &s->of.b);
    lm_loss_train(&s->of.loss, &s->of.n, &s->of.b, NULL, 1.0f / TARGETS, dhidden, &nll);
    lm_backward(&s->of.n, &s->of.b, dhidden);
}

static void test_gates(void **state) {
    (void)state;
    for (size_t k = 0; k < 2; k++)
        for (int dropped = 0; dropped < 2; dropped++) {
            scene s;
            scene_open(&s, &families[k], 2 + (int)k);
            s.of.n.dropout = dropped ? 0.25f : 0.0f;
            s.of.n.drop_key = 11;
            nll_gates(&s);
            check_gates(&s, nll_of, 1e-4, 3e-3, 1e-4);
            scene_close(&s);
        }
}

/* Each sequence's gates have the gradient of its own targets, and no other. */
static void test_sequences(void **state) {
    (void)state;
    scene s;
    scene_open(&s, &families[0], 2);
    nll_gates(&s);
    size_t n = s.n_units, e = (size_t)s.of.l.p.n_embd;
    float *keep = cmc_alloc(SEQS * n, sizeof *keep), *zero = cmc_calloc(n, sizeof *zero);
    memcpy(keep, s.grad, SEQS * n * sizeof *keep);
    memset(s.grad, 0, SEQS * n * sizeof(float));
    for (size_t i = 0; i < TARGETS; i++)
        if (s.of.rows[i] < s.of.start[1] || s.of.rows[i] >= s.of.start[2])
            memset(s.d1 + i * e, 0, e * sizeof(float));
    lm_backward(&s.of.n, &s.of.b, s.d1);
    assert_memory_equal(s.grad, zero, n * sizeof(float));
    assert_memory_equal(s.grad + n, keep + n, n * sizeof(float));
    assert_memory_equal(s.grad + 2 * n, zero, n * sizeof(float));
    assert_memory_not_equal(s.grad + n, zero, n * sizeof(float));
    free(keep);
    free(zero);
    scene_close(&s);
}

/* Two passes, as cmc_importance makes them. */
static double kl_of(void *scene_) {
    scene *s = scene_;
    size_t bytes = TOKENS * (size_t)s->of.l.p.n_embd * sizeof(float);
    apply_gates(s);
    s->of.n.drop_key = 21;
    lm_forward(&s->of.n, &s->all);
    memcpy(s->h1, s->of.n.hidden, bytes);
    s->of.n.drop_key = 22;
    lm_forward(&s->of.n, &s->all);
    const float *head = s->of.n.w + s->of.l.head;
    lm_kl_side first = {.h = s->h1, .head = head, .dh = s->d1}, second = {.h = s->of.n.hidden, .head = head, .dh = s->d2};
    return lm_kl_train(&s->kl, &first, &second, TOKENS, 1.0f / TOKENS, false) / TOKENS;
}

static void test_kl_gates(void **state) {
    (void)state;
    for (size_t k = 0; k < 2; k++) {
        scene s;
        scene_open(&s, &families[k], 2);
        s.of.n.dropout = 0.25f;
        double kl = kl_of(&s);
        assert_true(kl > 1e-3);
        lm_backward(&s.of.n, &s.all, s.d2);
        s.of.n.drop_key = 21;
        lm_forward(&s.of.n, &s.all);
        lm_backward(&s.of.n, &s.all, s.d1);
        check_gates(&s, kl_of, 1e-5, 5e-3, 1e-4);
        s.of.n.dropout = 0.0f; /* the same pass twice */
        assert_true(fabs(kl_of(&s)) < 1e-9);
        scene_close(&s);
    }
}

/* The KL against its definition in double, and its gradient for both passes' states and output matrices; blocks of any size give
 * the same. */
typedef struct kl_scene { scene s; float *h, *head; size_t rows; } kl_scene;   /* [2][rows][E], [2][V][E] */

static double plain_kl(void *scene_) {
    kl_scene *k = scene_;
    const scene *s = &k->s;
    size_t v = (size_t)s->of.l.p.n_vocab, e = (size_t)s->of.l.p.n_embd;
    double *z = cmc_alloc(2 * v, sizeof *z), total = 0.0;
    for (size_t r = 0; r < k->rows; r++) {
        double lse[2];
        for (size_t p = 0; p < 2; p++) {
            const float *h = k->h + (p * k->rows + r) * e;
            double sum = 0.0;
            for (size_t c = 0; c < v; c++) {
                double x = 0.0;
                for (size_t i = 0; i < e; i++)
                    x += (double)h[i] * (double)k->head[(p * v + c) * e + i];
                z[p * v + c] = x;
                sum += exp(x);
            }
            lse[p] = log(sum);
        }
        for (size_t c = 0; c < v; c++)
            total += exp(z[v + c] - lse[1]) * ((z[v + c] - lse[1]) - (z[c] - lse[0]));
    }
    free(z);
    return total / (double)k->rows;
}

static void test_kl(void **state) {
    (void)state;
    kl_scene k = {.rows = 21};
    uint64_t rng = 3;
    scene_open(&k.s, &families[0], 3);
    size_t e = (size_t)k.s.of.l.p.n_embd, n = k.rows * e, m = (size_t)k.s.of.l.p.n_vocab * e;
    k.h = cmc_alloc(2 * n, sizeof *k.h);
    k.head = cmc_alloc(2 * m, sizeof *k.head);
    float *grad = cmc_alloc(2 * n, sizeof *grad), *dhead = cmc_alloc(2 * m, sizeof *dhead);
    for (size_t i = 0; i < 2 * n; i++)
        k.h[i] = (float)(4.0 * (uniform(&rng) - 0.5));
    for (size_t i = 0; i < 2 * m; i++)
        k.head[i] = k.s.of.n.w[k.s.of.l.head + i % m] + (float)(0.2 * (uniform(&rng) - 0.5));
    for (size_t rows = 5; rows <= 32; rows += 27) {
        k.s.kl.rows = rows;
        memset(dhead, 0, 2 * m * sizeof *dhead);
        lm_kl_side one = {k.h, k.head, grad, dhead}, two = {k.h + n, k.head + m, grad + n, dhead + m};
        double kl = lm_kl_train(&k.s.kl, &one, &two, k.rows, 1.0f / 21, false) / 21;
        assert_true(fabs(kl - plain_kl(&k)) < 1e-5 * (1.0 + kl) && kl > 0.1);
        slope_check c = {.loss = plain_kl, .scene = &k, .h = 0.02, .least = 1e-3, .rel = 1e-3, .abs = 1e-5, .directions = 7};
        slope_assert(&c, "first pass", k.h, grad, n, &rng);
        slope_assert(&c, "second pass", k.h + n, grad + n, n, &rng);
        slope_assert(&c, "first pass's matrix", k.head, dhead, m, &rng);
        slope_assert(&c, "second pass's matrix", k.head + m, dhead + m, m, &rng);
        float first = grad[0], again = dhead[0]; /* what is there is added to, where that is wanted, and of the matrix always */
        two = (lm_kl_side){.h = k.h + n, .head = k.head + m};
        lm_kl_train(&k.s.kl, &one, &two, k.rows, 1.0f / 21, true);
        assert_true(fabsf(grad[0] - 2 * first) <= 1e-6f && fabsf(dhead[0] - 2 * again) <= 1e-6f);
    }
    free(k.head);
    free(dhead);
    free(k.h);
    free(grad);
    scene_close(&k.s);
}

/* ----------------------------------------------------------------------------------------------- dropout */

static void test_drop(void **state) {
    (void)state;
    enum { N = 40000 };
    static float a[N], b[N];
    static const float p[] = {0.003f, 0.1f, 0.5f};
    for (size_t k = 0; k < 3; k++) {
        size_t zeros = 0;
        double sum = 0.0;
        drop_mask(drop_key(5, 1, 2), p[k], a, 0, N);
        for (size_t i = 0; i < N; i++) {
            zeros += a[i] == 0.0f;
            sum += (double)a[i];
            assert_true(a[i] == 0.0f || fabsf(a[i] * (1.0f - p[k]) - 1.0f) < 1e-4f);
        }
        double sd = sqrt((double)p[k] * (1.0 - (double)p[k]) / N);
        assert_true(fabs((double)zeros / N - (double)p[k]) < 5.0 * sd + 0x1p-16 && zeros > 0);
        assert_true(fabs(sum / N - 1.0) < 5.0 * sd / (1.0 - (double)p[k]));
        for (size_t from = 0; from < 300; from += 7) { /* a part of a row is that part of the row */
            drop_mask(drop_key(5, 1, 2), p[k], b, from, 501);
            assert_memory_equal(a + from, b, 501 * sizeof *a);
        }
    }
    drop_mask(drop_key(5, 1, 2), 0.5f, a, 0, 200);
    static const uint64_t other[][3] = {{6, 1, 2}, {5, 2, 2}, {5, 1, 3}, {5, 2, 1}};
    for (size_t i = 0; i < 4; i++) {
        drop_mask(drop_key(other[i][0], (size_t)other[i][1], (size_t)other[i][2]), 0.5f, b, 0, 200);
        assert_memory_not_equal(a, b, 200 * sizeof *a);
    }
}

/* ------------------------------------------------------------------------------------------------- files */

static cmc_importance_opts importance_opts(const rig *r) {
    cmc_importance_opts o = cmc_importance_defaults();
    o.model = r->host;
    o.data = r->paths;
    o.n_data = 1;
    o.out_path = r->out;
    o.host_template = CMC_TMPL_PLAIN;
    o.dropout = 0.1;
    o.seed = 4;
    return o;
}

static cmc_importance_result importance_run(const rig *r, const cmc_importance_opts *o, float *v, const importance_shape *s) {
    cmc_error err = {0};
    cmc_importance_result res;
    char hash[40];
    if (cmc_importance(r->rt, o, NULL, NULL, &res, &err) != CMC_OK)
        fail_msg("%s", err.message);
    if (importance_load(o->out_path, s, v, hash, &err) != CMC_OK)
        fail_msg("%s", err.message);
    return res;
}

static importance_shape host_shape(const rig *r) {
    cmc_error err = {0};
    cmc_model *m;
    assert_int_equal(cmc_model_open(r->rt, r->host, &m, &err), CMC_OK);
    importance_shape s = importance_shape_of(&m->p);
    cmc_model_free(m);
    return s;
}

/* The same seed gives the same file and another seed another; without their signs gradients add up to no less. */
static void test_run(void **state) {
    (void)state;
    rig r;
    size_t n;
    rig_open(&r, 2, false);
    importance_shape s = host_shape(&r);
    size_t units = s.n_layer * s.per_layer;
    float *v = cmc_alloc(2 * units, sizeof *v), *w = v + units;
    cmc_importance_opts o = importance_opts(&r);
    cmc_importance_result res = importance_run(&r, &o, v, &s);
    assert_true(res.records == RIG_RECORDS && res.units == units && res.tokens > RIG_RECORDS && res.kl > 0.0);
    uint8_t *first = rig_bytes(r.out, &n);
    importance_run(&r, &o, w, &s);
    rig_assert_same(r.out, first, n);
    o.absolute = false;
    importance_run(&r, &o, w, &s);
    size_t negative = 0, less = 0;
    for (size_t i = 0; i < units; i++) {
        assert_true(v[i] >= 0.0f && fabsf(w[i]) <= v[i] * 1.0001f);
        negative += w[i] < 0.0f;
        less += fabsf(w[i]) < 0.9f * v[i];
    }
    assert_true(negative > 0 && less > units / 4);
    o.absolute = true;
    o.seed++;
    importance_run(&r, &o, w, &s);
    assert_memory_not_equal(v, w, units * sizeof *v);
    free(first);
    free(v);
    rig_close(&r);
}

static bool stop_after(void *user, const cmc_train_progress *p) {
    int *pieces = user;
    (void)p;
    return --*pieces > 0;
}

/* A run that was stopped, twice, gives the file of one that was not; in between its checkpoint is for the same options alone. */
static void test_resume(void **state) {
    (void)state;
    rig r;
    size_t n;
    char ckpt[512];
    rig_open(&r, 2, false);
    importance_shape s = host_shape(&r);
    float *v = cmc_alloc(s.n_layer * s.per_layer, sizeof *v);
    cmc_importance_opts o = importance_opts(&r);
    o.batch = 3;
    importance_run(&r, &o, v, &s);
    uint8_t *whole = rig_bytes(r.out, &n);
    unlink(r.out);
    snprintf(ckpt, sizeof ckpt, "%s.ckpt", r.out);
    for (int i = 1; i <= 2; i++) {
        cmc_error err = {0};
        int pieces = i;
        o.resume = i > 1;
        assert_int_equal(cmc_importance(r.rt, &o, stop_after, &pieces, NULL, &err), CMC_E_CANCELLED);
        assert_int_equal(access(r.out, F_OK), -1);
        assert_int_equal(access(ckpt, F_OK), 0);
    }
    cmc_error err = {0};
    o.resume = false;
    assert_int_equal(cmc_importance(r.rt, &o, NULL, NULL, NULL, &err), CMC_E_ARG);
    assert_non_null(strstr(err.message, "--resume goes on"));
    o.resume = true;
    o.seed++;
    assert_int_equal(cmc_importance(r.rt, &o, NULL, NULL, NULL, &err), CMC_E_ARG);
    assert_non_null(strstr(err.message, "seed"));
    o.seed--;
    importance_run(&r, &o, v, &s);
    rig_assert_same(r.out, whole, n);
    assert_int_equal(access(ckpt, F_OK), -1);
    free(whole);
    free(v);
    rig_close(&r);
}

static bool stop_at_once(void *user, const cmc_train_progress *p) {
    (void)user;
    return strcmp(p->phase, "importance") != 0;
}

static void test_run_refusals(void **state) {
    (void)state;
    rig r;
    rig_open(&r, 1, false);
    for (int i = 0; i < 8; i++) {
        cmc_importance_opts o = importance_opts(&r);
        cmc_error err = {0};
        cmc_status want = CMC_E_ARG;
        switch (i) {
        case 0: o.dropout = 0.0; break;
        case 1: o.batch = 0; break;
        case 2: o.out_path = r.host; break;
        case 3: o.n_data = 0; break;
        case 4: o.memory = 1 << 20; want = CMC_E_NOMEM; break;
        case 5: o.model = r.data; want = CMC_E_FORMAT; break;
        case 6: o.resume = o.fresh = true; break;
        default: want = CMC_E_CANCELLED; break;
        }
        cmc_status st = cmc_importance(r.rt, &o, stop_at_once, NULL, NULL, &err);
        if (st != want || err.message[0] == '\0')
            fail_msg("case %d: status %d: %s", i, (int)st, err.message);
        assert_int_equal(access(r.out, F_OK), -1);
    }
    rig_close(&r);
}

/* --------------------------------------------------------------------------------------------- the mask */

static void test_normalise(void **state) {
    (void)state;
    float v[4] = {1.0f, 2.0f, 3.0f, 10.0f}, same[3] = {0.1f, 0.1f, 0.1f}, one[1] = {7.0f};
    soft_mask_normalise(v, 4); /* mean 4, unbiased standard deviation sqrt(50 / 3) */
    for (int i = 0; i < 4; i++) {
        static const double raw[4] = {1, 2, 3, 10};
        assert_true(fabs((double)v[i] - fabs(tanh((raw[i] - 4.0) / sqrt(50.0 / 3.0)))) < 1e-6);
    }
    soft_mask_normalise(same, 3);
    soft_mask_normalise(one, 1);
    assert_true(same[0] < 1e-3f && one[0] == 0.0f);
}

static int compare_floats(const void *a, const void *b) {
    float x = *(const float *)a, y = *(const float *)b;
    return (x > y) - (x < y);
}

static const float *mask_of(const soft_mask *m, const lm_layout *l, const char *name, size_t *n) {
    const params_tensor *t = lm_find(&l->base, name, strlen(name));
    *n = t->n_out;
    return m->rows[t - l->base.tensors];
}

/* Which rows have which factor; permuted: the same factors in other places; constant: all the same, their mean. */
static void test_mask(void **state) {
    (void)state;
    scene s;
    cmc_error err = {0};
    soft_mask real, other;
    uint64_t rng = 8;
    size_t n;
    scene_open(&s, &families[0], 1);
    const char *path = tiny_path(s.of.dir, "importance.gguf");
    importance_how how = {.model_hash = "m", .data_hash = "d", .tokens = 1};
    for (size_t i = 0; i < s.n_units; i++)
        s.gate[i] = (float)uniform(&rng);
    assert_int_equal(importance_save(path, &s.shape, &how, s.gate, &err), CMC_OK);
    assert_int_equal(soft_mask_open(path, &s.of.l.base, &s.of.l.p, SOFT_MASK_REAL, 1, &real, &err), CMC_OK);
    float *up = s.gate + importance_at(&s.shape, 1, IMPORTANCE_UP), *heads = s.gate + importance_at(&s.shape, 1, IMPORTANCE_HEADS);
    soft_mask_normalise(up, s.shape.width[IMPORTANCE_UP]);
    soft_mask_normalise(heads, 4);
    const float *f = mask_of(&real, &s.of.l, "blk.1.ffn_up.weight", &n);
    for (size_t i = 0; i < n; i++)
        assert_true(f[i] == 1.0f - up[i] && f[i] > 0.0f && f[i] <= 1.0f);
    f = mask_of(&real, &s.of.l, "blk.1.attn_q.weight", &n);
    for (size_t i = 0; i < n; i++)
        assert_true(f[i] == 1.0f - heads[i / (n / 4)]);
    f = mask_of(&real, &s.of.l, "blk.1.attn_k.weight", &n); /* two key heads, each for two query heads */
    for (size_t i = 0; i < n; i++)
        assert_true(f[i] == 1.0f - fmaxf(heads[i / (n / 2) * 2], heads[i / (n / 2) * 2 + 1]));
    static const char *const none[] = {"blk.1.ffn_gate.weight", "blk.1.attn_output.weight", "blk.1.ffn_norm.weight",
                                       "token_embd.weight"};
    for (size_t i = 0; i < 4; i++)
        assert_null(mask_of(&real, &s.of.l, none[i], &n));
    for (int control = SOFT_MASK_PERMUTED; control <= SOFT_MASK_CONSTANT; control++) {
        assert_int_equal(soft_mask_open(path, &s.of.l.base, &s.of.l.p, (soft_mask_control)control, 1, &other, &err), CMC_OK);
        const float *a = mask_of(&real, &s.of.l, "blk.0.ffn_down.weight", &n), *b = mask_of(&other, &s.of.l, "blk.0.ffn_down.weight", &n);
        float x[16], y[16];
        double mean = 0.0;
        assert_int_equal(n, 16);
        memcpy(x, a, sizeof x);
        memcpy(y, b, sizeof y);
        assert_memory_not_equal(x, y, sizeof x);
        for (size_t i = 0; i < n; i++)
            mean += (double)a[i] / (double)n;
        qsort(x, n, sizeof *x, compare_floats);
        qsort(y, n, sizeof *y, compare_floats);
        if (control == SOFT_MASK_PERMUTED)
            assert_memory_equal(x, y, sizeof x);
        else
            assert_true(y[0] == y[15] && fabs((double)y[0] - mean) < 1e-6);
        soft_mask_free(&other);
    }
    soft_mask_free(&real);
    scene_close(&s);
}

/* Files that are no importance, or for another model. */
static void test_files(void **state) {
    (void)state;
    scene s;
    cmc_error err = {0};
    soft_mask m;
    scene_open(&s, &families[0], 1);
    importance_how how = {.model_hash = "m", .data_hash = "d"};
    const char *path = tiny_path(s.of.dir, "importance.gguf"), *model = tiny_path(s.of.dir, "model.gguf");
    assert_int_equal(soft_mask_open(model, &s.of.l.base, &s.of.l.p, SOFT_MASK_REAL, 1, &m, &err), CMC_E_ARG);
    assert_non_null(strstr(err.message, "not importance"));
    importance_shape shape = s.shape;
    shape.n_layer = 1;
    assert_int_equal(importance_save(path, &shape, &how, s.gate, &err), CMC_OK);
    assert_int_equal(soft_mask_open(path, &s.of.l.base, &s.of.l.p, SOFT_MASK_REAL, 1, &m, &err), CMC_E_ARG);
    assert_non_null(strstr(err.message, "blk.1.attn_head.importance"));
    float *more = cmc_calloc(3 * s.shape.per_layer, sizeof *more);
    shape.n_layer = 3;
    assert_int_equal(importance_save(path, &shape, &how, more, &err), CMC_OK);
    assert_int_equal(soft_mask_open(path, &s.of.l.base, &s.of.l.p, SOFT_MASK_REAL, 1, &m, &err), CMC_E_ARG);
    assert_non_null(strstr(err.message, "more than 2 layers"));
    shape = s.shape;
    shape.width[IMPORTANCE_UP]--;
    assert_int_equal(importance_save(path, &shape, &how, s.gate, &err), CMC_OK);
    assert_int_equal(soft_mask_open(path, &s.of.l.base, &s.of.l.p, SOFT_MASK_REAL, 1, &m, &err), CMC_E_ARG);
    s.gate[3] = NAN;
    assert_int_equal(importance_save(path, &s.shape, &how, s.gate, &err), CMC_OK);
    assert_int_equal(soft_mask_open(path, &s.of.l.base, &s.of.l.p, SOFT_MASK_REAL, 1, &m, &err), CMC_E_FORMAT);
    assert_non_null(strstr(err.message, "no finite number"));
    assert_int_equal(soft_mask_open(tiny_path(s.of.dir, "nothing"), &s.of.l.base, &s.of.l.p, SOFT_MASK_REAL, 1, &m, &err), CMC_E_IO);
    for (int64_t bit = 0; bit < 8 * 600; bit += 5) { /* damage of any kind is refused or harmless */
        assert_int_equal(tiny_damage(path, model, -1, bit, &err), CMC_OK);
        if (soft_mask_open(model, &s.of.l.base, &s.of.l.p, SOFT_MASK_REAL, 1, &m, &err) == CMC_OK)
            soft_mask_free(&m);
    }
    free(more);
    scene_close(&s);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_drop),      cmocka_unit_test(test_kl),   cmocka_unit_test(test_gates),
        cmocka_unit_test(test_sequences), cmocka_unit_test(test_kl_gates), cmocka_unit_test(test_resume), cmocka_unit_test(test_run),
        cmocka_unit_test(test_run_refusals), cmocka_unit_test(test_normalise), cmocka_unit_test(test_mask),
        cmocka_unit_test(test_files),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
