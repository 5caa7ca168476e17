/* What a delta starts from: a vocabulary of its own from any file that holds one, and a cut of a larger model. */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <cmocka.h>

#include "base/mem.h"
#include "runtime/model.h"
#include "tests/tiny.h"
#include "tests/train_rig.h"

static cmc_model *open_model(const rig *r, const char *path) {
    cmc_error err = {0};
    cmc_model *m = NULL;
    if (cmc_model_open(r->rt, path, &m, &err) != CMC_OK)
        fail_msg("%s", err.message);
    return m;
}

/* ------------------------------------------------------------------------------------------------ vocabularies */

/* The same vocabulary as a GGUF file without tensors and as a .model: the deltas are the same but for the path. */
static void test_own_vocabulary(void **state) {
    (void)state;
    rig r;
    rig_open(&r, 1, true);
    char *vocab[] = {rig_path(&r, "v.gguf"), rig_path(&r, "v.model")};
    double held[2];
    for (int i = 0; i < 2; i++) {
        cmc_error err = {0};
        cmc_vocab_train_opts vo = cmc_vocab_train_defaults();
        vo.data = r.paths;
        vo.n_data = 1;
        vo.out_path = vocab[i];
        vo.size = 320;
        if (cmc_vocab_train(&vo, NULL, &err) != CMC_OK)
            fail_msg("%s", err.message);
        cmc_train_opts o = rig_opts(&r);
        o.vocab_path = vocab[i];
        cmc_train_result res = rig_run(&r, &o, NULL, NULL, CMC_OK);
        held[i] = res.held_out_steered;
        assert_true(res.held_out_steered < res.held_out_host);
        cmc_model *m = open_model(&r, r.out);
        cmc_vocab *v = NULL;
        assert_int_equal(cmc_vocab_open(vocab[i], &v, &err), CMC_OK);
        assert_true(cmc_vocab_equal(cmc_model_vocab(m), v));
        assert_int_equal(cmc_model_n_vocab(m), cmc_vocab_size(v));
        assert_string_equal(cmc_vocab_kind_name(cmc_model_vocab(m)), "spm");
        cmc_vocab_free(v);
        cmc_model_free(m);
    }
    assert_true(held[0] == held[1]);
    free(vocab[0]);
    free(vocab[1]);
    rig_close(&r);
}

/* Another vocabulary than the checkpoint's is told from it. */
static void test_vocabulary_is_a_setting(void **state) {
    (void)state;
    rig r;
    rig_open(&r, 1, true);
    char *a = rig_path(&r, "a.model"), *b = rig_path(&r, "b.model"), *json = rig_path(&r, "tokenizer.json");
    cmc_error err = {0};
    for (int i = 0; i < 2; i++) {
        cmc_vocab_train_opts vo = cmc_vocab_train_defaults();
        vo.data = r.paths;
        vo.n_data = 1;
        vo.out_path = i ? b : a;
        vo.size = 300 + 10 * i;
        assert_int_equal(cmc_vocab_train(&vo, NULL, &err), CMC_OK);
    }
    stopper stop = {.phase = "train", .step = 3};
    cmc_train_opts o = rig_opts(&r);
    o.vocab_path = a;
    rig_run(&r, &o, rig_stop, &stop, CMC_E_CANCELLED);
    o.resume = true;
    o.vocab_path = b;
    assert_int_not_equal(cmc_train(r.rt, &o, NULL, NULL, NULL, &err), CMC_OK);
    o.vocab_path = a;
    rig_run(&r, &o, NULL, NULL, CMC_OK);
    FILE *f = fopen(json, "w");
    fputs("{\"model\":{\"type\":\"BPE\",\"vocab\":{\"a\":0,\"b\":1},\"merges\":[]}}", f);
    fclose(f);
    o.resume = false;
    o.vocab_path = json;
    assert_int_equal(cmc_train(r.rt, &o, NULL, NULL, NULL, &err), CMC_E_UNSUPPORTED);
    assert_non_null(strstr(err.message, "tokenizer.json"));
    o.vocab_path = r.data; /* no vocabulary at all */
    assert_int_not_equal(cmc_train(r.rt, &o, NULL, NULL, NULL, &err), CMC_OK);
    free(a);
    free(b);
    free(json);
    rig_close(&r);
}

/* ------------------------------------------------------------------------------------------------------ cuts */

/* The final-norm states of m after its first k layers, by plain loops in double: RMSNorm, rotated neighbours, grouped
 * heads, SwiGLU. Nothing of it is shared with what is tested but the decoding of weights. */
typedef struct plain { const cmc_model *m; double *x; size_t n, e; } plain;

static void plain_norm(const float *gain, const double *x, double *y, size_t n, double eps) {
    double s = 0.0;
    for (size_t i = 0; i < n; i++)
        s += x[i] * x[i];
    s = 1.0 / sqrt(s / (double)n + eps);
    for (size_t i = 0; i < n; i++)
        y[i] = x[i] * s * (double)gain[i];
}

static void plain_mul(const weight *w, const double *x, double *y) {
    float *row = cmc_alloc(w->n_in, sizeof *row);
    assert_non_null(row);
    for (size_t r = 0; r < w->n_out; r++) {
        weight_row(w, r, row);
        y[r] = 0.0;
        for (size_t i = 0; i < w->n_in; i++)
            y[r] += (double)row[i] * x[i];
    }
    free(row);
}

static void plain_rotate(double *v, size_t heads, size_t d, size_t pos, double base) {
    for (size_t h = 0; h < heads; h++)
        for (size_t i = 0; i < d / 2; i++) {
            double a = (double)pos * pow(base, -2.0 * (double)i / (double)d), *p = v + h * d + 2 * i, c = p[0];
            p[0] = c * cos(a) - p[1] * sin(a);
            p[1] = c * sin(a) + p[1] * cos(a);
        }
}

static void plain_attention(const plain *s, const model_layer *l, double *out) {
    const model_params *p = &s->m->p;
    size_t d = (size_t)p->head_k, h = (size_t)p->n_head, kv = (size_t)p->n_head_kv;
    double *q = cmc_calloc(s->n * h * d, sizeof *q), *k = cmc_calloc(s->n * kv * d, sizeof *k),
           *v = cmc_calloc(s->n * kv * d, sizeof *v), *y = cmc_calloc(s->e, sizeof *y), *mix = cmc_calloc(h * d, sizeof *mix),
           *w = cmc_calloc(s->n, sizeof *w);
    for (size_t t = 0; t < s->n; t++) {
        plain_norm(l->attn_norm, s->x + t * s->e, y, s->e, (double)p->rms_eps);
        plain_mul(&l->wq, y, q + t * h * d);
        plain_mul(&l->wk, y, k + t * kv * d);
        plain_mul(&l->wv, y, v + t * kv * d);
        plain_rotate(q + t * h * d, h, d, t, (double)p->rope_base);
        plain_rotate(k + t * kv * d, kv, d, t, (double)p->rope_base);
    }
    for (size_t t = 0; t < s->n; t++) {
        memset(mix, 0, h * d * sizeof *mix);
        for (size_t a = 0; a < h; a++) {
            size_t g = a / (h / kv);
            double sum = 0.0;
            for (size_t u = 0; u <= t; u++) {
                double dot = 0.0;
                for (size_t i = 0; i < d; i++)
                    dot += q[(t * h + a) * d + i] * k[(u * kv + g) * d + i];
                w[u] = exp(dot / sqrt((double)d));
                sum += w[u];
            }
            for (size_t u = 0; u <= t; u++)
                for (size_t i = 0; i < d; i++)
                    mix[a * d + i] += w[u] / sum * v[(u * kv + g) * d + i];
        }
        plain_mul(&l->wo, mix, out + t * s->e);
    }
    double *all[] = {q, k, v, y, mix, w};
    for (size_t i = 0; i < 6; i++)
        free(all[i]);
}

static void plain_ffn(const plain *s, const model_layer *l, double *out) {
    size_t f = (size_t)s->m->p.n_ff;
    double *y = cmc_calloc(s->e, sizeof *y), *g = cmc_calloc(f, sizeof *g), *u = cmc_calloc(f, sizeof *u);
    for (size_t t = 0; t < s->n; t++) {
        plain_norm(l->ffn_norm, s->x + t * s->e, y, s->e, (double)s->m->p.rms_eps);
        plain_mul(&l->gate, y, g);
        plain_mul(&l->up, y, u);
        for (size_t i = 0; i < f; i++)
            g[i] = g[i] / (1.0 + exp(-g[i])) * u[i];
        plain_mul(&l->down, g, out + t * s->e);
    }
    free(y);
    free(g);
    free(u);
}

static double *plain_states(const cmc_model *m, int32_t layers, const int32_t *ids, size_t n) {
    plain s = {.m = m, .n = n, .e = (size_t)m->p.n_embd};
    s.x = cmc_calloc(n * s.e, sizeof *s.x);
    double *branch = cmc_calloc(n * s.e, sizeof *branch);
    float *row = cmc_alloc(s.e, sizeof *row);
    for (size_t t = 0; t < n; t++) {
        weight_row(&m->embd, (size_t)ids[t], row);
        for (size_t i = 0; i < s.e; i++)
            s.x[t * s.e + i] = (double)row[i];
    }
    for (int32_t k = 0; k < layers; k++) {
        plain_attention(&s, &m->layers[k], branch);
        for (size_t i = 0; i < n * s.e; i++)
            s.x[i] += branch[i];
        plain_ffn(&s, &m->layers[k], branch);
        for (size_t i = 0; i < n * s.e; i++)
            s.x[i] += branch[i];
    }
    for (size_t t = 0; t < n; t++)
        plain_norm(m->out_norm, s.x + t * s.e, s.x + t * s.e, s.e, (double)m->p.rms_eps);
    free(branch);
    free(row);
    return s.x;
}

/* A delta that was cut and not trained (a rate of next to nothing) has the states of `from` after `layers` layers. */
static void check_cut(const rig *r, const char *from, int32_t layers, double tolerance) {
    cmc_error err = {0};
    cmc_model *m = open_model(r, from), *d = open_model(r, r->out);
    cmc_ids ids = {0};
    cmc_session *s = NULL;
    const char *text = "the cat says that the dog is a bird";
    assert_int_equal(d->p.n_layer, layers);
    assert_int_equal(d->p.n_embd, m->p.n_embd);
    assert_int_equal(d->p.n_head_kv, m->p.n_head_kv);
    assert_int_equal(d->p.n_ff, m->p.n_ff);
    assert_true(d->p.rope_base == m->p.rope_base && d->p.rms_eps == m->p.rms_eps);
    assert_true(d->head.data == d->embd.data);
    assert_true(cmc_vocab_equal(cmc_model_vocab(d), cmc_model_vocab(m)));
    assert_int_equal(cmc_tokenize(cmc_model_vocab(d), text, strlen(text), CMC_TOK_BOS, &ids, &err), CMC_OK);
    double *want = plain_states(m, layers, ids.v, ids.n);
    float *have = cmc_alloc(ids.n * (size_t)d->p.n_embd, sizeof *have);
    assert_int_equal(cmc_session_new(d, 64, &s, &err), CMC_OK);
    assert_int_equal(cmc_session_sync(s, ids.v, ids.n, &err), CMC_OK);
    cmc_eval_item item = {.session = s, .want = CMC_WANT_HIDDEN, .n_rows = ids.n, .out = have};
    assert_int_equal(cmc_eval(d, &item, 1, &err), CMC_OK);
    double off = 0.0, size = 0.0;
    for (size_t i = 0; i < ids.n * (size_t)d->p.n_embd; i++) {
        off = fmax(off, fabs((double)have[i] - want[i]));
        size = fmax(size, fabs(want[i]));
    }
    if (!(off <= tolerance * size))
        fail_msg("states differ by %g of %g", off, size);
    free(want);
    free(have);
    cmc_ids_free(&ids);
    cmc_session_free(s);
    cmc_model_free(d);
    cmc_model_free(m);
}

static cmc_train_opts cut_opts(const rig *r, const char *from, int32_t layers) {
    cmc_train_opts o = rig_opts(r);
    o.init_path = from;
    o.cut = layers;
    o.cut_gain = 1.0;
    o.n_embd = o.n_layer = o.n_head = o.n_head_kv = 0;
    o.max_steps = 1;
    o.lr = 1e-12;
    o.weight_decay = 0.0;
    return o;
}

/* Models of 3 layers, with a head of their own and without, in several types, cut to fewer. */
static void test_cut(void **state) {
    (void)state;
    static const struct {
        uint32_t type;
        bool tied;
        int32_t layers;
        const char *vocab;
    } cases[] = {{CMC_F32, true, 2, "bpe"}, {CMC_F32, false, 1, "spm"}, {CMC_Q8_0, false, 2, "bpe"},
                 {CMC_Q4_0, true, 3, "bpe"}, {CMC_BF16, true, 2, "spm"}};
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        rig r;
        cmc_error err = {0};
        rig_open(&r, 1, true);
        char *from = rig_path(&r, "from.gguf");
        tiny_spec spec = {.arch = "llama", .type = cases[i].type, .tied = cases[i].tied, .vocab = cases[i].vocab,
                          .n_embd = 64, .n_layer = 3, .n_head = 4, .n_head_kv = 2, .rope_base = 50000.0, .seed = 11};
        assert_int_equal(tiny_write(&spec, from, &err), CMC_OK);
        cmc_train_opts o = cut_opts(&r, from, cases[i].layers);
        o.log_path = r.log;
        rig_run(&r, &o, NULL, NULL, CMC_OK);
        check_cut(&r, from, cases[i].layers, 1e-4);
        size_t n;
        char *log = (char *)rig_bytes(r.log, &n);
        char *line = cmc_strndup(log, n);
        assert_non_null(strstr(line, cases[i].tied ? "\"head_left_behind\":0" : "\"head_left_behind\":1"));
        free(log);
        free(line);
        free(from);
        rig_close(&r);
    }
}

/* By default a cut says next to nothing at first, and learns from there. */
static void test_quiet_start(void **state) {
    (void)state;
    rig r;
    cmc_error err = {0};
    rig_open(&r, 1, true);
    char *from = rig_path(&r, "from.gguf");
    tiny_spec spec = {.arch = "llama", .type = CMC_F32, .tied = true, .n_layer = 3, .seed = 21};
    assert_int_equal(tiny_write(&spec, from, &err), CMC_OK);
    cmc_train_opts o = cut_opts(&r, from, 2);
    o.cut_gain = 0.0;
    cmc_train_result a = rig_run(&r, &o, NULL, NULL, CMC_OK);
    assert_true(fabs(a.held_out_steered - a.held_out_host) < 0.01 * a.held_out_host);
    o.max_steps = 60;
    o.lr = 3e-3;
    cmc_train_result b = rig_run(&r, &o, NULL, NULL, CMC_OK);
    assert_true(b.held_out_steered < 0.9 * b.held_out_host);
    o.cut_gain = 1.0; /* loud from the start, and faster */
    cmc_train_result c = rig_run(&r, &o, NULL, NULL, CMC_OK);
    assert_true(c.held_out_steered < b.held_out_steered);
    free(from);
    rig_close(&r);
}

static void test_cut_refused(void **state) {
    (void)state;
    rig r;
    cmc_error err = {0};
    rig_open(&r, 1, true);
    static const struct {
        tiny_spec spec;
        int32_t cut;
        cmc_status status;
        const char *says;
    } cases[] = {
        {{.arch = "llama"}, 9, CMC_E_ARG, "it has 2"},
        {{.arch = "qwen2"}, 1, CMC_E_UNSUPPORTED, "architecture is qwen2"},
        {{.arch = "qwen3"}, 1, CMC_E_UNSUPPORTED, "architecture is qwen3"},
        {{.arch = "gemma3"}, 1, CMC_E_UNSUPPORTED, "architecture is gemma3"},
        {{.arch = "llama", .rope_freqs = true}, 1, CMC_E_UNSUPPORTED, "positions are scaled"},
        {{.arch = "llama", .head_k = 32, .head_v = 32}, 1, CMC_E_UNSUPPORTED, "heads"},
        {{.arch = "llama", .tied = false}, 0, CMC_E_UNSUPPORTED, "not tied"},
    };
    char *from = rig_path(&r, "from.gguf");
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        assert_int_equal(tiny_write(&cases[i].spec, from, &err), CMC_OK);
        cmc_train_opts o = cut_opts(&r, from, cases[i].cut);
        o.cut_gain = cases[i].cut ? o.cut_gain : 0.0;
        cmc_status st = cmc_train(r.rt, &o, NULL, NULL, NULL, &err);
        if (st != cases[i].status || strstr(err.message, cases[i].says) == NULL)
            fail_msg("case %zu: status %d, \"%s\"", i, (int)st, err.message);
    }
    cmc_train_opts o = rig_opts(&r);
    o.cut = 1;
    assert_int_equal(cmc_train(r.rt, &o, NULL, NULL, NULL, &err), CMC_E_ARG);
    assert_non_null(strstr(err.message, "init"));
    free(from);
    rig_close(&r);
}

/* Two layers of a real model. */
static void test_smollm2(void **state) {
    (void)state;
    const char *path = getenv("CMC_TEST_SMOLLM2");
    if (path == NULL || *path == '\0') {
        printf("SKIP test_smollm2: CMC_TEST_SMOLLM2 names no model\n");
        return;
    }
    rig r;
    rig_open(&r, 2, false);
    cmc_train_opts o = cut_opts(&r, path, 2);
    const char *host[] = {path};
    o.hosts = host;
    rig_run(&r, &o, NULL, NULL, CMC_OK);
    check_cut(&r, path, 2, 1e-3);
    o.cut_gain = 0.0;
    cmc_train_result a = rig_run(&r, &o, NULL, NULL, CMC_OK);
    printf("host %.4f, with the cut at first %.4f\n", a.held_out_host, a.held_out_steered);
    assert_true(fabs(a.held_out_steered - a.held_out_host) < 0.01 * a.held_out_host);
    o.max_steps = 6;
    o.lr = 1e-3;
    o.save_type = "q8_0";
    cmc_train_result b = rig_run(&r, &o, NULL, NULL, CMC_OK);
    assert_true(b.held_out_steered < a.held_out_steered);
    cmc_model *d = open_model(&r, r.out);
    assert_int_equal(d->p.n_layer, 2);
    assert_int_equal(d->p.n_embd, 576);
    assert_int_equal(cmc_model_n_vocab(d), 49152);
    cmc_model_free(d);
    rig_close(&r);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_own_vocabulary), cmocka_unit_test(test_vocabulary_is_a_setting),
        cmocka_unit_test(test_cut),            cmocka_unit_test(test_quiet_start),
        cmocka_unit_test(test_cut_refused),    cmocka_unit_test(test_smollm2),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
