/* The objectives: values and derivatives of a record's loss, the gradient of every objective and of the KL parts by finite
 * differences through a whole step, and what whole runs do to records that are to be forgotten and to those to be kept. */
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

static const char *const NAMES[] = {"sft", "ga", "graddiff", "kl", "idk", "dpo", "npo", "simnpo", "distil"};

static void test_names(void **state) {
    (void)state;
    objective o;
    cmc_error err = {0};
    for (size_t i = 0; i < sizeof NAMES / sizeof *NAMES; i++) {
        assert_int_equal(objective_parse(NAMES[i], NULL, &o, &err), CMC_OK);
        assert_string_equal(objective_name(o.kind), NAMES[i]);
        assert_int_equal(objective_parse(NAMES[i], "kl", &o, &err), CMC_OK);
        assert_int_equal(o.retain, RETAIN_KL);
    }
    assert_int_equal(objective_parse("rl", NULL, &o, &err), CMC_E_ARG);
    assert_non_null(strstr(err.message, "simnpo"));
    assert_int_equal(objective_parse("ga", "l2", &o, &err), CMC_E_ARG);
}

/* Values worked out from the papers' formulas, and derivatives against central differences. */
static void test_record_losses(void **state) {
    (void)state;
    static const struct {
        const char *name;
        double beta, gamma;
        objective_response r, refusal;
        double want;
    } cases[] = {
        /* npo: 2/b log(1 + (p/ref)^b) */
        {"npo", 0.1, 0, {20, 20, 8}, {0, 0, 0}, 20 * 0.69314718055994531},
        {"npo", 0.5, 0, {12, 10, 4}, {0, 0, 0}, 4 * 0.31326168751822286},          /* log(1 + e^-1) */
        /* simnpo: 2/b log(1 + e^{-b nll / n + g}) */
        {"simnpo", 2, 0, {10, 0, 10}, {0, 0, 0}, 0.12692801104297249},             /* log(1 + e^-2) */
        {"simnpo", 2, 1, {10, 0, 10}, {0, 0, 0}, 0.31326168751822286},
        /* dpo: log(1 + e^{-b ((ref_nll' - nll') - (ref_nll - nll))}) */
        {"dpo", 0.1, 0, {7, 7, 3}, {9, 9, 4}, 0.69314718055994531},
        {"dpo", 0.5, 0, {9, 8, 3}, {5, 6, 4}, 0.31326168751822286},                /* z = 0.5 (1 + 1) */
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        objective o;
        cmc_error err = {0};
        double d[2], unused[2], h = 1e-4;
        assert_int_equal(objective_parse(cases[i].name, NULL, &o, &err), CMC_OK);
        o.beta = cases[i].beta;
        o.gamma = cases[i].gamma;
        objective_response r = cases[i].r, f = cases[i].refusal;
        double got = objective_record(&o, &r, &f, &d[0], &d[1]);
        if (!(fabs(got - cases[i].want) < 1e-12 * (1 + cases[i].want)))
            fail_msg("%s: %.15g, wanted %.15g", cases[i].name, got, cases[i].want);
        for (int side = 0; side < 2; side++) {
            objective_response *moved = side ? &f : &r;
            moved->nll += h;
            double up = objective_record(&o, &r, &f, &unused[0], &unused[1]);
            moved->nll -= 2 * h;
            double down = objective_record(&o, &r, &f, &unused[0], &unused[1]);
            moved->nll += h;
            assert_true(fabs((up - down) / (2 * h) - d[side]) < 1e-7);
        }
    }
}

/* ---------------------------------------------------------------------------------------------- whole steps */

typedef struct unlearn {
    rig r;
    char *forget, *retain, *other, *teacher;   /* other: a host with another vocabulary; teacher: with the first's */
    const char *data[1], *kept[1], *hosts[2];
} unlearn;

static void unlearn_open(unlearn *u, int threads) {
    cmc_error err = {0};
    rig_open(&u->r, threads, false);
    u->forget = rig_path(&u->r, "forget.jsonl");
    u->retain = rig_path(&u->r, "retain.jsonl");
    u->other = rig_path(&u->r, "other.gguf");
    tiny_spec spec = {.arch = "llama", .vocab = "spm", .n_learnt = 120, .type = CMC_F32, .seed = 5};
    assert_int_equal(tiny_write(&spec, u->other, &err), CMC_OK);
    u->teacher = rig_path(&u->r, "teacher.gguf");
    assert_int_equal(tiny_write(&(tiny_spec){.arch = "llama", .n_embd = 32, .type = CMC_F32, .seed = 9}, u->teacher, &err), CMC_OK);
    rig_records(u->forget, "dog", 12);
    rig_records(u->retain, "bird", 10);
    u->data[0] = u->forget;
    u->kept[0] = u->retain;
    u->hosts[0] = u->r.host;
    u->hosts[1] = u->other;
}

static void unlearn_close(unlearn *u) {
    free(u->forget);
    free(u->retain);
    free(u->other);
    free(u->teacher);
    rig_close(&u->r);
}

static cmc_train_opts unlearn_opts(const unlearn *u, const char *name) {
    cmc_train_opts o = rig_opts(&u->r);
    objective obj;
    cmc_error err = {0};
    assert_int_equal(objective_parse(name, NULL, &obj, &err), CMC_OK);
    o.objective = name;
    o.teacher = obj.kind == OBJECTIVE_DISTIL ? u->teacher : NULL;
    o.data = u->data;
    o.retain = u->kept;
    o.n_retain = objective_needs(&obj, ROLE_RETAIN) ? 1 : 0;
    o.hosts = u->hosts;
    o.held_out = 0;
    return o;
}

/* A step on some examples. */
typedef struct step_scene {
    train *t;
    size_t index[3];
} step_scene;

static double step_loss(void *scene) {
    step_scene *s = scene;
    double total;
    uint64_t targets;
    cmc_error err = {0};
    if (train_gradient(s->t, s->index, 3, &total, &targets, &err) != CMC_OK)
        fail_msg("%s", err.message);
    return total;
}

/* Slope of the step's loss along its gradient, against the gradient's length. */
static void check_gradient(const unlearn *u, cmc_train_opts o, const char *what) {
    train t = {.rt = u->r.rt, .o = o};
    cmc_error err = {0};
    step_scene s = {&t, {0, 3, 5}};
    if (train_setup(&t, &err) != CMC_OK || train_start(&t, &err) != CMC_OK)
        fail_msg("%s: %s", what, err.message);
    for (size_t k = 0; k < t.n_hosts; k++)
        assert_int_equal(hostcache_open(t.hosts[k].cache, t.hosts[k].model, &t.hosts[k].data, NULL, NULL,
                                        &t.hosts[k].states, &err), CMC_OK);
    assert_int_equal(train_start_steps(&t, &err), CMC_OK);
    for (size_t i = 0; i < 3; i++)
        s.index[i] = train_data(&t)->train[s.index[i]];
    uint64_t rng = 4;
    for (size_t i = 0; i < t.body.n; i++) /* far from the start, where the delta says nothing */
        t.body.w[i] += 0.15f * (float)(uniform(&rng) - 0.5);
    memset(t.body.grad, 0, t.body.n * sizeof(float));
    step_loss(&s);
    float *g = cmc_alloc(t.body.n, sizeof *g);
    memcpy(g, t.body.grad, t.body.n * sizeof *g);
    slope_check c = {.loss = step_loss, .scene = &s, .h = 0.02, .least = 1e-3, .rel = 4e-3, .directions = 1};
    slope_assert(&c, what, t.body.w, g, t.body.n, &rng);
    free(g);
    train_release(&t);
}

static void test_gradients(void **state) {
    (void)state;
    unlearn u;
    unlearn_open(&u, 2);
    for (size_t i = 0; i < sizeof NAMES / sizeof *NAMES; i++) {
        char what[80];
        size_t most = strcmp(NAMES[i], "distil") == 0 ? 1 : 2;
        for (size_t hosts = 1; hosts <= most; hosts++) { /* the second host has another vocabulary */
            cmc_train_opts o = unlearn_opts(&u, NAMES[i]);
            o.n_hosts = hosts;
            o.prefix_rows = true;
            o.beta = 0.7;
            o.gamma = 0.3;
            o.alpha = 0.8;
            snprintf(what, sizeof what, "%s, %zu hosts", NAMES[i], hosts);
            check_gradient(&u, o, what);
        }
        cmc_train_opts o = unlearn_opts(&u, NAMES[i]);
        if (strcmp(NAMES[i], "sft") == 0)
            continue;
        o.n_hosts = most;
        o.retain_term = "kl";
        o.retain_weight = 0.6;
        o.n_retain = 1;
        snprintf(what, sizeof what, "%s with KL to retain", NAMES[i]);
        check_gradient(&u, o, what);
    }
    for (size_t hosts = 1; hosts <= 2; hosts++) {
        cmc_train_opts o = unlearn_opts(&u, "sft");
        o.n_hosts = hosts;
        o.kl = 0.5;
        check_gradient(&u, o, "sft with KL to the unsteered host");
    }
    for (size_t hosts = 1; hosts <= 2; hosts++) { /* with KL the first host too is reached through a map */
        for (int kl = 0; kl < 2; kl++) {
            cmc_train_opts o = unlearn_opts(&u, "sft");
            o.n_hosts = hosts;
            o.prefix_rows = true;
            o.host_temperature_lo = 0.4;
            o.host_temperature_hi = 3.0;
            o.host_mix = 0.8;
            o.kl = 0.5 * kl;
            check_gradient(&u, o, "sft beside perturbed hosts");
        }
    }
    for (int kl = 0; kl < 2; kl++) { /* a delta that maps some of the host's tokens only */
        cmc_train_opts o = unlearn_opts(&u, "distil");
        o.n_hosts = 1;
        o.vocab_path = u.other;
        o.prefix_rows = true;
        o.kl = 0.5 * kl;
        check_gradient(&u, o, "distil, another vocabulary");
    }
    for (size_t i = 0; i < 3; i++) { /* the KL counts in the loss that is reported, whatever else does */
        cmc_train_opts o = unlearn_opts(&u, NAMES[5 + i]);
        o.n_hosts = 2;
        o.kl = 0.5;
        check_gradient(&u, o, "by records, with KL to the unsteered host");
    }
    cmc_train_opts o = unlearn_opts(&u, "npo"); /* the same elements are left out at every call: the step has not changed */
    o.n_hosts = 2;
    o.dropout = 0.3;
    check_gradient(&u, o, "npo with dropout");
    unlearn_close(&u);
}

/* An adapter or blocks on a delta, beside hosts of its vocabulary and of another. */
static void test_added_gradients(void **state) {
    (void)state;
    static const struct {
        const char *what, *objective;
        int32_t rank;
        const char *kind, *merge, *align;
        bool unfrozen;
    } cases[] = {
        {"an adapter", "sft", 3, NULL, "lerp", "none", false},        {"an adapter, npo", "npo", 3, NULL, "lerp", "none", false},
        {"an adapter, dpo", "dpo", 2, NULL, "lerp", "none", false},   {"blocks beside", "sft", 0, "concat", "dlerp", "mse", false},
        {"blocks beside, kl", "kl", 0, "concat", "lerp", "cosine", false}, {"blocks behind", "sft", 0, "stack", "lerp", "none", false},
        {"nothing frozen", "sft", 0, "hybrid", "dlerpin", "mse", true},
    };
    unlearn u;
    unlearn_open(&u, 2);
    char *start = rig_path(&u.r, "start.gguf");
    cmc_train_opts first = rig_opts(&u.r);
    first.out_path = start;
    rig_run(&u.r, &first, NULL, NULL, CMC_OK);
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++)
        for (size_t hosts = 1; hosts <= 2; hosts++) {
            cmc_train_opts o = unlearn_opts(&u, cases[i].objective);
            o.n_hosts = hosts;
            o.init_path = start;
            o.lora_rank = cases[i].rank;
            o.expand = (cmc_expand_opts){.kind = cases[i].kind, .blocks = 2, .merge = cases[i].merge, .share = 0.4, .learn_share = true,
                                         .align = cases[i].align, .align_weight = 0.3, .align_through = true,
                                         .unfrozen = cases[i].unfrozen};
            check_gradient(&u, o, cases[i].what);
        }
    free(start);
    unlearn_close(&u);
}

/* A mask leaves out the share it should, is the same for the same key and another for another, and keeps the mean. */
static void test_dropout(void **state) {
    (void)state;
    enum { ROWS = 50, E = 300 };
    static float one[ROWS * E], a[ROWS * E], b[ROWS * E];
    params p = {.s = {.n_embd = E}};
    net n = {.p = &p, .dropout = 0.25f, .drop_key = 9};
    for (size_t i = 0; i < ROWS * E; i++)
        one[i] = 1.0f;
    for (uint64_t key = 0; key < 20; key++) {
        size_t zeros = 0, same = 0;
        double sum = 0.0;
        n.drop_key = key;
        net_drop_mul(&n, 3, one, a, 0, ROWS);
        memset(b, 0, sizeof b);
        net_drop_add(&n, 3, one, b, 0, 20); /* in two parts, as threads do */
        net_drop_add(&n, 3, one, b, 20, ROWS);
        assert_memory_equal(a, b, sizeof a);
        net_drop_mul(&n, 4, one, b, 0, ROWS);
        for (size_t i = 0; i < ROWS * E; i++) {
            zeros += a[i] == 0.0f;
            same += a[i] == b[i];
            sum += (double)a[i];
        }
        assert_true(fabs((double)zeros / (ROWS * E) - 0.25) < 0.02);
        assert_true(fabs((double)same / (ROWS * E) - 0.625) < 0.03);
        assert_true(fabs(sum / (ROWS * E) - 1.0) < 0.03);
    }
}

/* ------------------------------------------------------------------------------------------------ whole runs */

static void test_runs(void **state) {
    (void)state;
    unlearn u;
    unlearn_open(&u, 2);
    char *refusals = rig_path(&u.r, "refusals.txt");
    FILE *f = fopen(refusals, "w");
    fputs("cat\n\n  bird \r\n", f);
    fclose(f);
    for (size_t i = 1; i < sizeof NAMES / sizeof *NAMES; i++) {
        cmc_train_opts o = unlearn_opts(&u, NAMES[i]);
        double forget[2], retain[2];
        o.n_hosts = 1;
        o.max_steps = 30;
        o.lr = 2e-3;
        bool refuses = strcmp(NAMES[i], "idk") == 0 || strcmp(NAMES[i], "dpo") == 0;
        o.refusals_path = refuses ? refusals : NULL;
        cmc_train_result res = rig_run(&u.r, &o, NULL, NULL, CMC_OK);
        assert_int_equal(res.records_held_out, 0);
        forget[0] = rig_score(&u.r, u.r.out, u.forget, &forget[1]);
        retain[0] = rig_score(&u.r, u.r.out, u.retain, &retain[1]);
        bool away = strcmp(NAMES[i], "idk") != 0 && strcmp(NAMES[i], "distil") != 0;
        if (away && !(forget[0] > forget[1] + 0.02))
            fail_msg("%s: what is to be forgotten has %.4f, the host alone %.4f", NAMES[i], forget[0], forget[1]);
        if (strcmp(NAMES[i], "graddiff") == 0 || strcmp(NAMES[i], "idk") == 0)
            assert_true(retain[0] < retain[1]);
        if (strcmp(NAMES[i], "kl") == 0)
            assert_true(fabs(retain[0] - retain[1]) < fabs(forget[0] - forget[1]));
    }
    free(refusals);
    unlearn_close(&u);
}

/* The loss of the first step and of the last one so far. */
static bool note_loss(void *user, const cmc_train_progress *p) {
    double *seen = user;
    if (strcmp(p->phase, "train") == 0)
        seen[p->step > 1] = p->loss;
    return true;
}

/* Logits after each of the n ids, [n][n_vocab]; the caller frees them. */
static float *logits_after(cmc_model *m, const int32_t *ids, size_t n) {
    cmc_error err = {0};
    cmc_session *s;
    float *out = cmc_alloc(n * (size_t)cmc_model_n_vocab(m), sizeof *out);
    assert_int_equal(cmc_session_new(m, 0, &s, &err), CMC_OK);
    assert_int_equal(cmc_session_sync(s, ids, n, &err), CMC_OK);
    cmc_eval_item item = {s, CMC_WANT_LOGITS, n, out};
    assert_int_equal(cmc_eval(m, &item, 1, &err), CMC_OK);
    cmc_session_free(s);
    return out;
}

static double log_sum_exp(const float *z, size_t n) {
    double sum = 0.0;
    for (size_t i = 0; i < n; i++)
        sum += exp((double)z[i]);
    return log(sum);
}

/* KL(p || q) of the softmax of two rows. */
static double plain_kl(const float *p, const float *q, size_t n) {
    double a = log_sum_exp(p, n), b = log_sum_exp(q, n), kl = 0.0;
    for (size_t i = 0; i < n; i++)
        kl += exp((double)p[i] - a) * (((double)p[i] - a) - ((double)q[i] - b));
    return kl;
}

/* Mean KL(teacher || host) over the targets of what is to be forgotten, by its definition. */
static double teacher_distance(const unlearn *u) {
    cmc_error err = {0};
    cmc_model *host, *teacher;
    cmc_records r = {0};
    double sum = 0.0;
    size_t n = 0;
    assert_int_equal(cmc_model_open(u->r.rt, u->r.host, &host, &err), CMC_OK);
    assert_int_equal(cmc_model_open(u->r.rt, u->teacher, &teacher, &err), CMC_OK);
    assert_int_equal(cmc_records_read(u->forget, true, &r, &err), CMC_OK);
    size_t v = (size_t)cmc_model_n_vocab(host);
    for (size_t i = 0; i < r.n; i++) {
        cmc_rendered text = {0};
        assert_int_equal(cmc_render(cmc_model_vocab(host), CMC_TMPL_PLAIN, &r.v[i], false, &text, &err), CMC_OK);
        float *p = logits_after(teacher, text.ids.v, text.ids.n), *q = logits_after(host, text.ids.v, text.ids.n);
        for (size_t k = 0; k < text.n_spans; k++) {
            for (size_t t = 0; t < text.spans[k].n; t++, n++)
                sum += plain_kl(p + (text.spans[k].first + t - 1) * v, q + (text.spans[k].first + t - 1) * v, v);
        }
        free(p);
        free(q);
        cmc_rendered_free(&text);
    }
    cmc_records_free(&r);
    cmc_model_free(host);
    cmc_model_free(teacher);
    return sum / (double)n;
}

/* The loss is the distance from the teacher, which a delta of next to no strength leaves as it is, and one that is trained halves. */
static void test_distil(void **state) {
    (void)state;
    unlearn u;
    unlearn_open(&u, 2);
    double seen[2], want = teacher_distance(&u);
    cmc_train_opts o = unlearn_opts(&u, "distil");
    o.n_hosts = 1;
    o.max_steps = 1;
    o.batch = 12;
    o.alpha = 1e-3;
    rig_run(&u.r, &o, note_loss, seen, CMC_OK);
    if (!(fabs(seen[0] - want) < 1e-3 * want))
        fail_msg("KL from the teacher is %.6f, by its definition %.6f", seen[0], want);
    o = unlearn_opts(&u, "distil");
    o.n_hosts = 1;
    o.max_steps = 120;
    o.lr = 5e-3;
    rig_run(&u.r, &o, note_loss, seen, CMC_OK);
    if (!(seen[0] > 0.1 && seen[1] > 0.0 && seen[1] < 0.5 * seen[0]))
        fail_msg("KL from the teacher: %.4f at first, %.4f at last", seen[0], seen[1]);
    unlearn_close(&u);
}

/* A penalty on KL(steered || host) keeps the steered host nearer to the host. */
static void test_kl_holds_back(void **state) {
    (void)state;
    unlearn u;
    unlearn_open(&u, 1);
    double nll[3], host;
    static const double kl[] = {0, 1, 30};
    for (int k = 0; k < 3; k++) {
        cmc_train_opts o = unlearn_opts(&u, "sft");
        o.n_hosts = 1;
        o.kl = kl[k];
        rig_run(&u.r, &o, NULL, NULL, CMC_OK);
        nll[k] = rig_score(&u.r, u.r.out, u.forget, &host);
    }
    assert_true(nll[0] < nll[1] && nll[1] < nll[2] && nll[2] < host);
    unlearn_close(&u);
}

static void test_options(void **state) {
    (void)state;
    unlearn u;
    unlearn_open(&u, 1);
    static const char *const nowhere = "/nonexistent.txt";
    struct { const char *name, *teacher; size_t n_retain; const char *term, *refusals; cmc_status want; } cases[] = {
        {"graddiff", NULL, 0, NULL, NULL, CMC_E_ARG},      /* nothing to retain */
        {"ga", NULL, 1, NULL, NULL, CMC_E_ARG},            /* no term for it */
        {"ga", NULL, 1, "nll", NULL, CMC_OK},
        {"sft", NULL, 1, "nll", NULL, CMC_E_ARG},
        {"idk", NULL, 1, NULL, nowhere, CMC_E_IO},
        {"idk", NULL, 1, NULL, u.r.host, CMC_E_FORMAT},    /* no text */
        {"soon", NULL, 0, NULL, NULL, CMC_E_ARG},
        {"distil", u.teacher, 0, NULL, NULL, CMC_OK},
        {"distil", NULL, 0, NULL, NULL, CMC_E_ARG},        /* taught by nobody */
        {"npo", u.teacher, 0, NULL, NULL, CMC_E_ARG},
        {"distil", u.r.host, 0, NULL, NULL, CMC_E_ARG},    /* by itself */
        {"distil", u.other, 0, NULL, NULL, CMC_E_UNSUPPORTED},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        cmc_train_opts o = unlearn_opts(&u, "sft");
        o.objective = cases[i].name;
        o.n_hosts = 1;
        o.n_retain = cases[i].n_retain;
        o.retain_term = cases[i].term;
        o.refusals_path = cases[i].refusals;
        o.teacher = cases[i].teacher;
        o.max_steps = 2;
        rig_run(&u.r, &o, NULL, NULL, cases[i].want);
    }
    unlearn_close(&u);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_names),         cmocka_unit_test(test_record_losses), cmocka_unit_test(test_gradients), cmocka_unit_test(test_added_gradients),
        cmocka_unit_test(test_dropout),
        cmocka_unit_test(test_runs),          cmocka_unit_test(test_distil),        cmocka_unit_test(test_kl_holds_back),
        cmocka_unit_test(test_options),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
