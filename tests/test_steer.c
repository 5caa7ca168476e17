/* Steering at model level: the identities of the shift, strengths, templates, maps, leads. */
#include "tests/steered.h"

#include <math.h>

#include "runtime/lead.h"
#include "runtime/model.h"
#include "runtime/steering.h"

typedef struct fixture {
    char *dir;
    cmc_runtime *rt;
    cmc_model *host, *same, *spm, *bpe; /* same: the host's vocabulary; the others have their own */
} fixture;

static int setup(void **state) {
    static fixture f;
    cmc_error err = {0};
    f.dir = tiny_dir_new();
    OK(cmc_runtime_open(&(cmc_runtime_opts){.threads = 2, .exact = true}, &f.rt, &err));
    f.host = steered_model(f.rt, f.dir, &(tiny_spec){.arch = "llama", .seed = 1});
    f.same = steered_model(f.rt, f.dir, &(tiny_spec){.arch = "llama", .n_embd = 32, .n_layer = 1, .seed = 2});
    f.spm = steered_model(f.rt, f.dir, &(tiny_spec){.arch = "llama", .vocab = "spm", .n_learnt = 150, .seed = 3});
    f.bpe = steered_model(f.rt, f.dir, &(tiny_spec){.arch = "qwen2", .n_learnt = 120, .seed = 4});
    *state = &f;
    return 0;
}

static int teardown(void **state) {
    fixture *f = *state;
    cmc_model *all[] = {f->host, f->same, f->spm, f->bpe};
    for (size_t i = 0; i < 4; i++) cmc_model_free(all[i]);
    cmc_runtime_free(f->rt);
    tiny_dir_free(f->dir);
    return 0;
}

static float *random_row(const cmc_model *m, uint64_t seed, double scale) {
    size_t n = (size_t)cmc_model_n_vocab(m);
    float *x = malloc(n * sizeof *x);
    uint64_t state = seed + 88172645463325252u;
    for (size_t i = 0; i < n; i++) x[i] = (float)(scale * ((double)(steered_random(&state) >> 11) / 0x1p53 - 0.5));
    return x;
}

static double *log_softmax(const float *x, size_t n) {
    double *out = malloc(n * sizeof *out), sum = 0;
    for (size_t i = 0; i < n; i++) sum += exp((double)x[i]);
    for (size_t i = 0; i < n; i++) out[i] = (double)x[i] - log(sum);
    return out;
}

/* Steers a copy of h by the deltas' rows and gives log-probabilities. */
static double *steer(const cmc_steering *st, const float *h, const float *const *rows) {
    cmc_error err = {0};
    size_t n = (size_t)cmc_model_n_vocab(st->host);
    float *x = malloc(n * sizeof *x);
    memcpy(x, h, n * sizeof *x);
    OK(cmc_steering_apply(st, x, rows, &err));
    double *out = log_softmax(x, n);
    free(x);
    return out;
}

static cmc_steering *with(cmc_model *host, cmc_model *a, double alpha_a, cmc_model *b, double alpha_b, bool raw) {
    cmc_error err = {0};
    cmc_steering *st;
    OK(cmc_steering_new(host, &(cmc_steering_opts){.unmapped_raw = raw}, &st, &err));
    OK(cmc_steering_add(st, a, alpha_a, NULL, CMC_TMPL_AUTO, &err));
    if (b) OK(cmc_steering_add(st, b, alpha_b, NULL, CMC_TMPL_AUTO, &err));
    return st;
}

static void assert_close(const double *a, const double *b, size_t n, double tolerance) {
    for (size_t i = 0; i < n; i++) {
        if (!(fabs(a[i] - b[i]) <= tolerance)) fail_msg("token %zu: %.9g and %.9g", i, a[i], b[i]);
    }
}

/* An unmapped token keeps its probability; a constant added to a delta changes nothing; nor does the deltas' order. */
static void test_identities(void **state) {
    const fixture *f = *state;
    size_t n = (size_t)cmc_model_n_vocab(f->host), moved = 0, unmapped = 0;
    float *h = random_row(f->host, 1, 12), *a = random_row(f->spm, 2, 8), *b = random_row(f->bpe, 3, 8);
    cmc_steering *ab = with(f->host, f->spm, 0.7, f->bpe, -1.3, false),
                 *ba = with(f->host, f->bpe, -1.3, f->spm, 0.7, false);
    double *host = log_softmax(h, n), *one = steer(ab, h, (const float *[]){a, b}),
           *two = steer(ba, h, (const float *[]){b, a});
    assert_close(one, two, n, 2e-5);
    for (size_t i = 0; i < n; i++) {
        bool mapped = cmc_map_get(cmc_steering_map(ab, 0), (int32_t)i, NULL, NULL) >= 0
                   || cmc_map_get(cmc_steering_map(ab, 1), (int32_t)i, NULL, NULL) >= 0;
        if (!mapped && fabs(host[i] - one[i]) > 2e-5)
            fail_msg("unmapped token %zu: %.9g became %.9g", i, host[i], one[i]);
        unmapped += !mapped;
        moved += fabs(host[i] - one[i]) > 1e-2;
    }
    assert_true(unmapped > 0); /* else the test says nothing */
    assert_true(moved > n / 2);
    for (int32_t i = 0; i < cmc_model_n_vocab(f->spm); i++) a[i] += 17.5f;
    double *shifted = steer(ab, h, (const float *[]){a, b});
    assert_close(one, shifted, n, 1e-4);
    free(host); free(one); free(two); free(shifted); free(h); free(a); free(b);
    cmc_steering_free(ab);
    cmc_steering_free(ba);
}

/* The formula of the reference: h + alpha d[map]; a row that is NULL, or a strength of 0, leaves every bit. */
static void test_raw_and_left_out(void **state) {
    const fixture *f = *state;
    cmc_error err = {0};
    size_t n = (size_t)cmc_model_n_vocab(f->host);
    float *h = random_row(f->host, 4, 12), *a = random_row(f->spm, 5, 8), *x = malloc(n * sizeof *x);
    cmc_steering *st = with(f->host, f->spm, 0.5, NULL, 0, true);
    memcpy(x, h, n * sizeof *x);
    OK(cmc_steering_apply(st, x, (const float *[]){a}, &err));
    for (size_t i = 0; i < n; i++) {
        int32_t to = cmc_map_get(cmc_steering_map(st, 0), (int32_t)i, NULL, NULL);
        assert_true(fabsf(x[i] - (to < 0 ? h[i] : h[i] + 0.5f * a[to])) <= 1e-5f);
    }
    memcpy(x, h, n * sizeof *x);
    OK(cmc_steering_apply(st, x, (const float *[]){NULL}, &err));
    assert_memory_equal(x, h, n * sizeof *x);
    OK(cmc_steering_set_alpha(st, 0, 0.0, &err));
    OK(cmc_steering_apply(st, x, (const float *[]){a}, &err));
    assert_memory_equal(x, h, n * sizeof *x);
    free(h); free(a); free(x);
    cmc_steering_free(st);
}

/* cmc.* keys with strengths for two hosts. */
static cmc_alpha_entry entries[2];
static cmc_delta_info info;
static bool write_info(void *user, gguf_writer *w) {
    return delta_info_write(w, user);
}

static cmc_model *delta_with_keys(const fixture *f, const char *hash, const char *template_name) {
    entries[0] = (cmc_alpha_entry){.host_hash = "00000000000000000000000000000000", .host_name = "other", .alpha = 9};
    entries[1] = (cmc_alpha_entry){.host_name = "host", .alpha = 0.25};
    snprintf(entries[1].host_hash, sizeof entries[1].host_hash, "%s", hash);
    info = (cmc_delta_info){.format_version = 1, .alpha = 0.75, .n_alphas = 2, .alphas = entries, .objective = "sft",
                            .host_template = "plain"};
    snprintf(info.delta_template, sizeof info.delta_template, "%s", template_name);
    return steered_model(f->rt, f->dir, &(tiny_spec){.arch = "llama", .seed = 9, .extra = write_info, .user = &info});
}

static void test_alpha_and_template(void **state) {
    const fixture *f = *state;
    cmc_error err = {0};
    cmc_model *known = delta_with_keys(f, cmc_model_hash(f->host), "alpaca");
    cmc_model *unknown = delta_with_keys(f, "11111111111111111111111111111111", "plain");
    cmc_model *strange = delta_with_keys(f, "11111111111111111111111111111111", "klingon");
    cmc_steering *st;
    OK(cmc_steering_new(f->host, NULL, &st, &err));
    assert_int_equal(cmc_steering_template(st), CMC_TMPL_PLAIN);
    OK(cmc_steering_add(st, known, NAN, NULL, CMC_TMPL_AUTO, &err));
    OK(cmc_steering_add(st, unknown, NAN, NULL, CMC_TMPL_CHATML, &err));
    OK(cmc_steering_add(st, f->spm, NAN, NULL, CMC_TMPL_AUTO, &err));
    OK(cmc_steering_add(st, f->spm, -2, NULL, CMC_TMPL_AUTO, &err));
    static const double ALPHA[] = {0.25, 0.75, 1, -2};
    static const cmc_template TEMPLATE[] = {CMC_TMPL_ALPACA, CMC_TMPL_CHATML, CMC_TMPL_PLAIN, CMC_TMPL_PLAIN};
    assert_int_equal(cmc_steering_n_deltas(st), 4);
    for (size_t k = 0; k < 4; k++) {
        assert_true(fabs(cmc_steering_alpha(st, k) - ALPHA[k]) < 1e-6);
        assert_int_equal(st->deltas[k].t, TEMPLATE[k]);
    }
    assert_int_equal(cmc_steering_add(st, strange, 1, NULL, CMC_TMPL_AUTO, &err), CMC_E_UNSUPPORTED);
    assert_non_null(strstr(err.message, "klingon"));
    OK(cmc_steering_add(st, strange, 1, NULL, CMC_TMPL_PLAIN,
                        &err)); /* a template that is named goes before the stored one */
    assert_int_equal(cmc_steering_add(st, f->spm, (double)INFINITY, NULL, CMC_TMPL_AUTO, &err), CMC_E_ARG);
    assert_int_equal(cmc_steering_set_alpha(st, 0, NAN, &err), CMC_E_ARG);
    assert_int_equal(cmc_steering_set_alpha(st, 5, 1, &err), CMC_E_ARG);
    assert_true(fabs(cmc_steering_alpha(st, 0) - 0.25) < 1e-6);
    assert_int_equal(cmc_steering_add(st, f->bpe, 1, cmc_steering_map(st, 2), CMC_TMPL_AUTO, &err), CMC_E_ARG);
    assert_non_null(strstr(err.message, "the token map goes from"));
    assert_int_equal(cmc_steering_n_deltas(st), 5);
    cmc_steering_free(st);
    cmc_model_free(known);
    cmc_model_free(unknown);
    cmc_model_free(strange);
}

/* The first token's map: "the" looks at " the" under a delta whose answers begin with a space, and the other way round.
 */
static void test_first_map(void **state) {
    const fixture *f = *state;
    cmc_error err = {0};
    const cmc_vocab *hv = cmc_model_vocab(f->host), *dv = cmc_model_vocab(f->bpe);
    cmc_map *m, *add, *drop, *none;
    OK(cmc_map_build(hv, dv, CMC_RULE_DEFAULT, &m, &err));
    OK(lead_map_new(m, dv, "", " ", &add, &err));
    OK(lead_map_new(m, dv, " ", "", &drop, &err));
    OK(lead_map_new(m, dv, " ", " ", &none, &err));
    assert_null(none);
    size_t added = 0, dropped = 0;
    for (int32_t i = 0; i < hv->n; i++) {
        int32_t to = cmc_map_get(m, i, NULL, NULL), a = cmc_map_get(add, i, NULL, NULL),
                d = cmc_map_get(drop, i, NULL, NULL);
        assert_int_equal(to < 0, a < 0);
        assert_int_equal(to < 0, d < 0);
        if (to < 0) continue;
        size_t n, an, dn;
        const uint8_t *s = cmc_vocab_bytes(dv, to, &n), *as = cmc_vocab_bytes(dv, a, &an),
                      *ds = cmc_vocab_bytes(dv, d, &dn);
        if (n == 0) {
            assert_int_equal(a, to);
            assert_int_equal(d, to);
            continue;
        }
        assert_true(an <= n + 1 && as[0] == ' ' && memcmp(as + 1, s, an - 1) == 0);
        added += an == n + 1;
        if (n > 1 && s[0] == ' ') {
            assert_true(dn <= n - 1 && memcmp(ds, s + 1, dn) == 0);
            dropped += dn == n - 1;
        } else {
            assert_int_equal(d, to);
        }
    }
    assert_true(added > 5 && dropped > 5);
    cmc_map_free(m);
    cmc_map_free(add);
    cmc_map_free(drop);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_identities),
        cmocka_unit_test(test_raw_and_left_out),
        cmocka_unit_test(test_alpha_and_template),
        cmocka_unit_test(test_first_map),
    };
    return cmocka_run_group_tests_name("steer", tests, setup, teardown);
}
