/* The objectives in tuning a model by itself: the same losses and gradients as a delta's where the logits are the same, gradients
 * by finite differences through a whole step, what whole runs do to records that are to be forgotten and to those to be kept, and
 * runs that go on exactly where they stopped. */
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
#include "tests/train_rig.h"
#include "tinylm/lm_save.h"
#include "tinylm/lm_train.h"

static const char *const NAMES[] = {"sft", "ga", "graddiff", "kl", "idk", "dpo", "npo", "simnpo"};
enum { N_NAMES = sizeof NAMES / sizeof *NAMES, EXAMPLES = 3 };

/* ------------------------------------------------------------------------------------------------ fixture */

typedef struct scene {
    rig r;
    char *forget, *retain, *flat;   /* flat: the rig's host with a last norm of 0, so that it says nothing */
    const char *data[1], *kept[1], *hosts[1];
} scene;

static cmc_model *open_model(const scene *s, const char *path) {
    cmc_error err = {0};
    cmc_model *m;
    if (cmc_model_open(s->r.rt, path, &m, &err) != CMC_OK)
        fail_msg("%s", err.message);
    return m;
}

static void write_flat(const scene *s) {
    cmc_error err = {0};
    lm_layout l;
    lm_trainable whole = {0};
    cmc_model *m = open_model(s, s->r.host);
    assert_int_equal(lm_layout_init(m, &whole, &l, &err), CMC_OK);
    float *w = cmc_alloc(l.base.n, sizeof *w);
    lm_load(&l, m, w);
    memset(w + l.out_norm, 0, (size_t)l.p.n_embd * sizeof *w);
    assert_int_equal(lm_save_model(s->flat, &l, m, w, CMC_F32, &err), CMC_OK);
    free(w);
    lm_layout_free(&l);
    cmc_model_free(m);
}

static void scene_open(scene *s, int threads) {
    cmc_error err = {0};
    tiny_spec spec = {.arch = "llama", .n_embd = 32, .n_ff = 48, .tied = true, .type = CMC_F32, .seed = 3};
    rig_open(&s->r, threads, false);
    s->forget = rig_path(&s->r, "forget.jsonl");
    s->retain = rig_path(&s->r, "retain.jsonl");
    s->flat = rig_path(&s->r, "flat.gguf");
    assert_int_equal(tiny_write(&spec, s->r.host, &err), CMC_OK);
    write_flat(s);
    rig_records(s->forget, "dog", 12);
    rig_records(s->retain, "bird", 10);
    s->data[0] = s->forget;
    s->kept[0] = s->retain;
    s->hosts[0] = s->flat;
}

static void scene_close(scene *s) {
    free(s->forget);
    free(s->retain);
    free(s->flat);
    rig_close(&s->r);
}

/* `o` with the objective, and with data for it. */
static cmc_train_opts with_objective(const scene *s, cmc_train_opts o, const char *name, const char *term) {
    objective obj;
    cmc_error err = {0};
    assert_int_equal(objective_parse(name, term, &obj, &err), CMC_OK);
    o.objective = name;
    o.retain_term = term;
    o.data = s->data;
    o.retain = s->kept;
    o.n_retain = objective_needs(&obj, ROLE_RETAIN) ? 1 : 0;
    o.held_out = 0;
    o.beta = 0.1;
    o.gamma = 0.3;
    o.retain_weight = 0.6;
    return o;
}

static cmc_tune_opts tune_opts(const scene *s, const char *name, const char *term) {
    cmc_tune_opts o = rig_tune_opts(&s->r);
    o.how.expand.align = "none"; /* it teaches in one direction only, which no difference of losses shows */
    o.how = with_objective(s, o.how, name, term);
    return o;
}

/* -------------------------------------------------------------------------------------- beside a delta's loss */

/* A step of a delta beside the flat host, with the weights of the rig's host: the steered logits are these weights' own. */
static double delta_step(const scene *s, cmc_train_opts o, const char *what, train *t, uint64_t *targets) {
    cmc_error err = {0};
    size_t index[EXAMPLES];
    double total;
    *t = (train){.rt = s->r.rt, .o = o};
    if (train_setup(t, &err) != CMC_OK || train_start(t, &err) != CMC_OK)
        fail_msg("%s: %s", what, err.message);
    train_host *h = &t->hosts[0];
    assert_int_equal(hostcache_open(h->cache, h->model, &h->data, NULL, NULL, &h->states, &err), CMC_OK);
    assert_int_equal(train_start_steps(t, &err), CMC_OK);
    for (size_t i = 0; i < EXAMPLES; i++)
        index[i] = train_data(t)->train[2 * i];
    if (train_gradient(t, index, EXAMPLES, &total, targets, &err) != CMC_OK)
        fail_msg("%s: %s", what, err.message);
    return total;
}

/* One of the flat host tuned by itself, which has come as far as these weights. */
static double tuned_step(const scene *s, cmc_tune_opts o, const char *what, tune *t, uint64_t *targets) {
    cmc_error err = {0};
    size_t index[EXAMPLES];
    cmc_model *m = open_model(s, s->r.host);
    o.base = s->flat;
    *t = (tune){.rt = s->r.rt, .o = o};
    if (tune_setup(t, &err) != CMC_OK || tune_start(t, &err) != CMC_OK)
        fail_msg("%s: %s", what, err.message);
    lm_load(&t->layout, m, t->net.w);
    cmc_model_free(m);
    for (size_t i = 0; i < EXAMPLES; i++)
        index[i] = t->data.train[2 * i];
    return tune_gradient(t, index, EXAMPLES, targets);
}

/* Every tensor's gradient, against the length of all. */
static void compare_gradients(const train *a, const tune *b, const char *what) {
    double norm = adamw_norm(a->rt->pool, a->body.grad, a->p.n), worst = 0.0;
    for (size_t k = 0; k < a->p.n_tensors; k++) {
        const params_tensor *x = &a->p.tensors[k], *y = lm_find(&b->layout.base, x->name, strlen(x->name));
        assert_true(y && y->n_out == x->n_out && y->n_in == x->n_in);
        for (size_t i = 0; i < x->n_out * x->n_in; i++)
            worst = fmax(worst, fabs((double)a->body.grad[x->off + i] - (double)b->net.grad[y->off + i]));
    }
    if (!(norm > 1e-3 && worst < 1e-5 * norm))
        fail_msg("%s: gradients are %g apart, their length %g", what, worst, norm);
}

static void check_delta(const scene *s, const char *name, const char *term, double kl) {
    char what[80];
    train a;
    tune b;
    uint64_t targets[2];
    cmc_train_opts o = with_objective(s, rig_opts(&s->r), name, term);
    cmc_tune_opts p = tune_opts(s, name, term);
    o.hosts = s->hosts;
    o.init_path = s->r.host;
    o.n_embd = o.n_layer = o.n_head = o.n_head_kv = 0;
    o.kl = p.how.kl = kl;
    snprintf(what, sizeof what, "%s, retain term %s, kl %g", name, term, kl);
    double x = delta_step(s, o, what, &a, &targets[0]), y = tuned_step(s, p, what, &b, &targets[1]);
    if (!(fabs(x - y) < 1e-5 * (1.0 + fabs(x))) || targets[0] != targets[1])
        fail_msg("%s: beside a host %.9g, by itself %.9g (%d and %d targets)", what, x, y, (int)targets[0], (int)targets[1]);
    compare_gradients(&a, &b, what);
    tune_release(&b);
    train_release(&a);
}

static void test_as_a_delta(void **state) {
    (void)state;
    scene s;
    scene_open(&s, 2);
    for (size_t i = 0; i < N_NAMES; i++) {
        check_delta(&s, NAMES[i], "default", 0.0);
        check_delta(&s, NAMES[i], "default", 0.4);
        if (i > 0) {
            check_delta(&s, NAMES[i], "nll", 0.0);
            check_delta(&s, NAMES[i], "kl", 0.0);
        }
    }
    scene_close(&s);
}

/* As it starts a model is what it is compared with: npo is 2/beta log 2, dpo log 2, and KL 0. */
static void test_start(void **state) {
    (void)state;
    scene s;
    scene_open(&s, 2);
    static const struct { const char *name; double want; } cases[] = {
        {"npo", 2.0 / 0.1 * 0.69314718055994531}, {"dpo", 0.69314718055994531}};
    for (size_t k = 0; k < 2; k++) {
        for (int32_t rank = 0; rank <= 3; rank += 3) {
            cmc_tune_opts o = tune_opts(&s, cases[k].name, "kl");
            o.how.lora_rank = rank;
            tune t = {.rt = s.r.rt, .o = o};
            cmc_error err = {0};
            uint64_t targets;
            assert_int_equal(tune_setup(&t, &err), CMC_OK);
            assert_int_equal(tune_start(&t, &err), CMC_OK);
            double got = tune_gradient(&t, t.data.train, EXAMPLES, &targets);
            if (!(fabs(got - cases[k].want) < 1e-6))
                fail_msg("%s, rank %d: %.12g", cases[k].name, rank, got);
            tune_release(&t);
        }
    }
    scene_close(&s);
}

/* -------------------------------------------------------------------------------------- finite differences */

typedef struct step_scene { tune *t; size_t index[EXAMPLES]; } step_scene;

static double step_loss(void *scene_) {
    step_scene *s = scene_;
    uint64_t targets;
    return tune_gradient(s->t, s->index, EXAMPLES, &targets);
}

static void check_gradient(const scene *s, cmc_tune_opts o, const char *what) {
    tune t = {.rt = s->r.rt, .o = o};
    cmc_error err = {0};
    uint64_t rng = 4;
    if (tune_setup(&t, &err) != CMC_OK || tune_start(&t, &err) != CMC_OK)
        fail_msg("%s: %s", what, err.message);
    step_scene c = {&t, {t.data.train[0], t.data.train[3], t.data.train[5]}};
    size_t n = lm_trained(&t.layout)->n_trained;
    for (size_t i = 0; i < n; i++) /* far from the start */
        t.net.trained[i] += 0.15f * (float)(uniform(&rng) - 0.5);
    step_loss(&c);
    float *g = cmc_alloc(n, sizeof *g);
    memcpy(g, t.net.grad, n * sizeof *g);
    slope_check slope = {.loss = step_loss, .scene = &c, .h = 0.02, .least = 1e-3, .rel = 4e-3, .abs = 1e-4, .directions = 2};
    slope_assert(&slope, what, t.net.trained, g, n, &rng);
    free(g);
    tune_release(&t);
}

static void test_gradients(void **state) {
    (void)state;
    scene s;
    scene_open(&s, 2);
    for (size_t i = 0; i < N_NAMES; i++) {
        for (int way = 0; way < 4; way++) {
            char what[80];
            cmc_tune_opts o = tune_opts(&s, NAMES[i], i > 0 && way % 2 ? "kl" : "default");
            o.how.kl = way == 2 ? 0.4 : 0.0;
            o.how.lora_rank = way == 1 ? 3 : 0;
            o.how.train_layers = way == 2 ? "1-1" : NULL;   /* the output matrix is not among what is trained */
            o.how.expand.kind = way == 3 ? "concat" : NULL;
            o.how.expand.blocks = 2;
            snprintf(what, sizeof what, "%s, way %d", NAMES[i], way);
            check_gradient(&s, o, what);
        }
    }
    scene_close(&s);
}

/* ------------------------------------------------------------------------------------------------ whole runs */

/* Mean NLL a token of the file's responses. */
static double score_file(cmc_model *m, const char *data) {
    cmc_error err = {0};
    cmc_steering *st;
    cmc_records r = {0};
    size_t n = 0;
    double nll = 0.0;
    cmc_steering_opts so = {.host_template = CMC_TMPL_PLAIN};
    assert_int_equal(cmc_records_read(data, true, &r, &err), CMC_OK);
    assert_int_equal(cmc_steering_new(m, &so, &st, &err), CMC_OK);
    for (size_t i = 0; i < r.n; i++) {
        cmc_score one = {0};
        assert_int_equal(cmc_score_record(st, &r.v[i], NULL, 0, &one, &err), CMC_OK);
        for (size_t k = 0; k < one.n; k++)
            nll -= (double)one.logprob[k];
        n += one.n;
        cmc_score_free(&one);
    }
    cmc_records_free(&r);
    cmc_steering_free(st);
    return nll / (double)n;
}

static void check_run(const scene *s, const char *name, int32_t rank) {
    cmc_error err = {0};
    cmc_tune_opts o = tune_opts(s, name, NULL);
    o.how.lora_rank = rank;
    o.how.max_steps = 30;
    o.how.lr = rank ? 5e-3 : 2e-3;
    o.how.retain_weight = 1.0;
    cmc_train_result res = rig_tune(&s->r, &o, NULL, NULL, CMC_OK);
    assert_true(res.records_held_out == 0 && res.records == 12);
    cmc_model *was = open_model(s, s->r.host), *is = open_model(s, rank ? s->r.host : s->r.out);
    if (rank)
        assert_int_equal(cmc_model_add_lora(is, s->r.out, 1.0, &err), CMC_OK);
    double forget = score_file(is, s->forget) - score_file(was, s->forget);
    double retain = score_file(is, s->retain) - score_file(was, s->retain);
    if (strcmp(name, "idk") != 0 && !(forget > 0.02))
        fail_msg("%s, rank %d: what is to be forgotten has changed by %g", name, rank, forget);
    if (strcmp(name, "graddiff") == 0 || strcmp(name, "idk") == 0)
        assert_true(retain < 0.0);
    if (strcmp(name, "kl") == 0)
        assert_true(fabs(retain) < forget);
    cmc_model_free(was);
    cmc_model_free(is);
}

static void test_runs(void **state) {
    (void)state;
    scene s;
    scene_open(&s, 2);
    for (size_t i = 1; i < N_NAMES; i++) {
        check_run(&s, NAMES[i], 0);
        check_run(&s, NAMES[i], 4);
    }
    scene_close(&s);
}

static void test_resume(void **state) {
    (void)state;
    scene s;
    scene_open(&s, 2);
    for (size_t i = 1; i < N_NAMES; i++) {
        cmc_tune_opts o = tune_opts(&s, NAMES[i], i % 2 ? "kl" : NULL);
        o.how.lora_rank = i % 4 < 2 ? 3 : 0;
        rig_tune_resumes(&s.r, o);
    }
    scene_close(&s);
}

/* A checkpoint of another objective, or of the same with other weights, is not gone on with. */
static void test_whose_checkpoint(void **state) {
    (void)state;
    scene s;
    scene_open(&s, 2);
    cmc_tune_opts o = tune_opts(&s, "npo", "kl");
    stopper stop = {"train", 2, false};
    rig_tune(&s.r, &o, rig_stop, &stop, CMC_E_CANCELLED);
    o.how.resume = true;
    for (int i = 0; i < 5; i++) {
        cmc_tune_opts other = i == 0 ? tune_opts(&s, "simnpo", "kl") : i == 1 ? tune_opts(&s, "npo", "nll") : o;
        cmc_error err = {0};
        other.how.resume = true;
        other.how.beta = i == 2 ? 0.2 : other.how.beta;
        other.how.retain_weight = i == 3 ? 1.0 : other.how.retain_weight;
        other.how.kl = i == 4 ? 0.1 : 0.0;
        assert_int_equal(cmc_tune(s.r.rt, &other, NULL, NULL, NULL, &err), CMC_E_ARG);
        assert_non_null(strstr(err.message, "was made with"));
    }
    rig_tune(&s.r, &o, NULL, NULL, CMC_OK);
    scene_close(&s);
}

/* A bound on memory cuts the work, with pairs and a second set of weights too; what is compared with the start costs that. */
static void test_memory(void **state) {
    (void)state;
    scene s;
    scene_open(&s, 2);
    for (size_t k = 0; k < 2; k++) {
        cmc_tune_opts o = tune_opts(&s, k ? "dpo" : "ga", "nll");
        o.how.batch = 12;
        o.how.max_steps = 2;
        uint64_t alone = rig_tune(&s.r, &o, NULL, NULL, CMC_OK).memory_planned;
        o.how.retain_term = "kl";
        cmc_train_result res = rig_tune(&s.r, &o, NULL, NULL, CMC_OK);
        assert_true(res.memory_planned > alone + (k ? 0 : res.params * sizeof(float)));
        o.how.memory = res.memory_planned - (200 << 10);
        assert_true(rig_tune(&s.r, &o, NULL, NULL, CMC_OK).memory_planned <= o.how.memory);
        o.how.memory = alone / 4;
        rig_tune(&s.r, &o, NULL, NULL, CMC_E_NOMEM);
    }
    scene_close(&s);
}

static void test_options(void **state) {
    (void)state;
    scene s;
    scene_open(&s, 1);
    static const struct { const char *name, *term; size_t n_retain; bool replay, watch; cmc_status want; } cases[] = {
        {"graddiff", NULL, 0, false, false, CMC_E_ARG},   /* nothing to retain */
        {"ga", NULL, 1, false, false, CMC_E_ARG},         /* no term for it */
        {"ga", "nll", 1, false, false, CMC_OK},
        {"sft", "nll", 1, false, false, CMC_E_ARG},
        {"soon", NULL, 0, false, false, CMC_E_ARG},
        {"ga", NULL, 0, true, false, CMC_E_ARG},
        {"ga", NULL, 0, false, true, CMC_E_ARG},
        {"sft", NULL, 0, true, true, CMC_OK},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        cmc_tune_opts o = tune_opts(&s, "sft", NULL);
        o.how.objective = cases[i].name;
        o.how.retain_term = cases[i].term;
        o.how.n_retain = cases[i].n_retain;
        o.how.keep.replay = o.how.keep.watch = s.kept;
        o.how.keep.n_replay = cases[i].replay ? 1 : 0;
        o.how.keep.n_watch = cases[i].watch ? 1 : 0;
        o.how.max_steps = 2;
        rig_tune(&s.r, &o, NULL, NULL, cases[i].want);
    }
    scene_close(&s);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_as_a_delta), cmocka_unit_test(test_start),  cmocka_unit_test(test_gradients),
        cmocka_unit_test(test_runs),       cmocka_unit_test(test_resume), cmocka_unit_test(test_whose_checkpoint),
        cmocka_unit_test(test_memory),     cmocka_unit_test(test_options),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
