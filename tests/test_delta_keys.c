/* The cmc.* keys: written and read back; values that a stranger's file might hold. */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "cmc.h"
#include "runtime/model.h"
#include "tests/tiny.h"

static void ok(cmc_status st, const cmc_error *err) {
    if (st != CMC_OK)
        fail_msg("%s", err->message);
}

static void hash_of(char out[40], unsigned i) {
    (void)snprintf(out, 40, "%032x", i);
}

static void round_trip(void **state) {
    (void)state;
    char *dir = tiny_dir_new();
    cmc_error err = {0};
    for (size_t n = 0; n < 40; n += 13) {
        cmc_alpha_entry table[40];
        memset(table, 0, sizeof table);
        for (size_t i = 0; i < n; i++) {
            hash_of(table[i].host_hash, (unsigned)i * 77);
            (void)snprintf(table[i].host_name, sizeof table[i].host_name, "Gastgeber %zu ☃", i);
            table[i].alpha = 0.1 * (double)i;
            table[i].gain = -0.25 * (double)i;
        }
        cmc_delta_info d = {.host_template = "chatml",
                            .delta_template = "alpaca",
                            .alpha = 0.7,
                            .n_alphas = n,
                            .alphas = table,
                            .trained_host = "SmolLM2 135M",
                            .objective = "sft",
                            .steps = UINT64_MAX,
                            .seed = 42,
                            .gain = 0.125};
        hash_of(d.trained_host_hash, 1);
        hash_of(d.data_hash, 2);
        gguf_writer *w = gguf_writer_new();
        assert_true(delta_info_write(w, &d));
        ok(gguf_writer_save(w, tiny_path(dir, "d.gguf"), &err), &err);
        gguf_writer_free(w);
        gguf *g;
        ok(gguf_open(tiny_path(dir, "d.gguf"), &g, &err), &err);
        cmc_delta_info *r;
        ok(delta_info_read(g, &r, &err), &err);
        assert_non_null(r);
        assert_int_equal(r->format_version, 1);
        assert_string_equal(r->host_template, d.host_template);
        assert_string_equal(r->delta_template, d.delta_template);
        assert_string_equal(r->trained_host, d.trained_host);
        assert_string_equal(r->trained_host_hash, d.trained_host_hash);
        assert_string_equal(r->data_hash, d.data_hash);
        assert_string_equal(r->objective, d.objective);
        assert_true(r->alpha == d.alpha && r->steps == d.steps && r->seed == d.seed && r->gain == d.gain);
        assert_int_equal(r->n_alphas, n);
        for (size_t i = 0; i < n; i++) {
            assert_string_equal(r->alphas[i].host_hash, table[i].host_hash);
            assert_string_equal(r->alphas[i].host_name, table[i].host_name);
            assert_true(r->alphas[i].alpha == table[i].alpha && r->alphas[i].gain == table[i].gain);
        }
        delta_info_free(r);
        gguf_free(g);
    }
    tiny_dir_free(dir);
}

/* A delta is an ordinary model: it opens, and both the model and the file's description show the keys. */
static bool put_delta(void *user, gguf_writer *w) {
    return delta_info_write(w, user);
}

static void in_a_model(void **state) {
    (void)state;
    char *dir = tiny_dir_new();
    cmc_error err = {0};
    cmc_alpha_entry entry = {.host_name = "h", .alpha = 0.5, .gain = 1};
    hash_of(entry.host_hash, 9);
    cmc_delta_info d = {.host_template = "gemma", .alpha = 0.3, .n_alphas = 1, .alphas = &entry};
    const tiny_spec spec = {.arch = "llama", .extra = put_delta, .user = &d};
    ok(tiny_write(&spec, tiny_path(dir, "d.gguf"), &err), &err);
    const cmc_runtime_opts opts = {.threads = 1};
    cmc_runtime *rt;
    cmc_model *m;
    cmc_file_info *fi;
    ok(cmc_runtime_open(&opts, &rt, &err), &err);
    ok(cmc_model_open(rt, tiny_path(dir, "d.gguf"), &m, &err), &err);
    ok(cmc_file_info_open(tiny_path(dir, "d.gguf"), &fi, &err), &err);
    const cmc_delta_info *both[] = {cmc_model_delta_info(m), cmc_file_info_delta(fi)};
    for (size_t i = 0; i < 2; i++) {
        assert_non_null(both[i]);
        assert_string_equal(both[i]->host_template, "gemma");
        assert_string_equal(both[i]->delta_template, "");
        assert_int_equal(both[i]->n_alphas, 1);
        assert_true(both[i]->alphas[0].alpha == 0.5 && both[i]->alpha == 0.3);
    }
    cmc_file_info_free(fi);
    cmc_model_free(m);
    cmc_runtime_free(rt);
    tiny_dir_free(dir);
}

/* One key of a good set in another form. */
typedef struct hostile {
    const char *key;
    enum { MISSING, U32, F64, TEXT, STRINGS, NUMBERS } form;
    double number;
    const char *text;     /* of TEXT, and of each of STRINGS */
    uint64_t n;           /* of STRINGS and NUMBERS */
    cmc_status status;    /* CMC_OK: it is read */
    const char *message;
} hostile;

#define LONG_64 "0123456789012345678901234567890123456789012345678901234567890123"
#define GOOD_HASH "00000000000000000000000000000001"

static const hostile table[] = {
    {.key = "cmc.format_version", .form = U32, .number = 2, .status = CMC_E_UNSUPPORTED, .message = "newer"},
    {.key = "cmc.format_version", .form = U32, .number = 0, .status = CMC_E_FORMAT, .message = "cmc.format_version"},
    {.key = "cmc.format_version", .form = TEXT, .text = "1", .status = CMC_E_FORMAT, .message = "cmc.format_version"},
    {.key = "cmc.template.host", .form = U32, .number = 1, .status = CMC_E_FORMAT, .message = "cmc.template.host"},
    {.key = "cmc.template.host", .form = TEXT, .text = LONG_64, .status = CMC_E_FORMAT, .message = "64 bytes"},
    {.key = "cmc.template.host", .form = TEXT, .text = "a\nb", .status = CMC_E_FORMAT, .message = "control character"},
    {.key = "cmc.template.delta",
     .form = TEXT,
     .text = "\x1b[31m",
     .status = CMC_E_FORMAT,
     .message = "control character"},
    {.key = "cmc.template.delta", .form = TEXT, .text = "\xff\xfe", .status = CMC_E_FORMAT, .message = "UTF-8"},
    {.key = "cmc.template.delta", .form = MISSING},
    {.key = "cmc.train.host_name",
     .form = TEXT,
     .text = LONG_64 LONG_64,
     .status = CMC_E_FORMAT,
     .message = "at most 127"},
    {.key = "cmc.train.steps", .form = F64, .number = 3, .status = CMC_E_FORMAT, .message = "cmc.train.steps"},
    {.key = "cmc.train.seed", .form = TEXT, .text = "x", .status = CMC_E_FORMAT, .message = "cmc.train.seed"},
    {.key = "cmc.alpha.default", .form = F64, .number = NAN, .status = CMC_E_FORMAT, .message = "cmc.alpha.default"},
    {.key = "cmc.alpha.default",
     .form = F64,
     .number = INFINITY,
     .status = CMC_E_FORMAT,
     .message = "cmc.alpha.default"},
    {.key = "cmc.alpha.default", .form = MISSING},
    {.key = "cmc.alpha.host_hashes",
     .form = STRINGS,
     .text = "no hash",
     .n = 2,
     .status = CMC_E_FORMAT,
     .message = "32 hex"},
    {.key = "cmc.alpha.host_hashes",
     .form = STRINGS,
     .text = LONG_64,
     .n = 2,
     .status = CMC_E_FORMAT,
     .message = "64 bytes"},
    {.key = "cmc.alpha.host_hashes",
     .form = STRINGS,
     .text = GOOD_HASH,
     .n = 3,
     .status = CMC_E_FORMAT,
     .message = "entries"},
    {.key = "cmc.alpha.host_hashes",
     .form = STRINGS,
     .text = GOOD_HASH,
     .n = 70000,
     .status = CMC_E_FORMAT,
     .message = "70000"},
    {.key = "cmc.alpha.host_hashes", .form = NUMBERS, .n = 2, .status = CMC_E_FORMAT, .message = "array of strings"},
    {.key = "cmc.alpha.host_hashes", .form = MISSING, .status = CMC_E_FORMAT, .message = "cmc.alpha.host_hashes"},
    {.key = "cmc.alpha.host_names",
     .form = STRINGS,
     .text = "n",
     .n = 1,
     .status = CMC_E_FORMAT,
     .message = "has 1 entries"},
    {.key = "cmc.alpha.host_names",
     .form = STRINGS,
     .text = "a\tb",
     .n = 2,
     .status = CMC_E_FORMAT,
     .message = "control character"},
    {.key = "cmc.alpha.host_names", .form = U32, .number = 1, .status = CMC_E_FORMAT, .message = "array of strings"},
    {.key = "cmc.alpha.values",
     .form = NUMBERS,
     .number = NAN,
     .n = 2,
     .status = CMC_E_FORMAT,
     .message = "not a finite"},
    {.key = "cmc.alpha.values",
     .form = NUMBERS,
     .number = 1,
     .n = 0,
     .status = CMC_E_FORMAT,
     .message = "has 0 entries"},
    {.key = "cmc.alpha.gains",
     .form = STRINGS,
     .text = "1",
     .n = 2,
     .status = CMC_E_FORMAT,
     .message = "64-bit floats"},
    {.key = "cmc.alpha.gains", .form = MISSING, .status = CMC_E_FORMAT, .message = "cmc.alpha.gains"},
};

static bool put_hostile(gguf_writer *w, const hostile *h) {
    switch (h->form) {
    case MISSING: return true;
    case U32: return gguf_put_u32(w, h->key, (uint32_t)h->number);
    case F64: return gguf_put_f64(w, h->key, h->number);
    case TEXT: return gguf_put_str(w, h->key, h->text, strlen(h->text));
    case STRINGS: {
        gguf_str *v = calloc((size_t)h->n + 1, sizeof *v);
        for (uint64_t i = 0; i < h->n; i++)
            v[i] = (gguf_str){h->text, strlen(h->text)};
        const bool done = gguf_put_str_array(w, h->key, v, h->n);
        free(v);
        return done;
    }
    default: {
        double *v = calloc((size_t)h->n + 1, sizeof *v);
        for (uint64_t i = 0; i < h->n; i++)
            v[i] = h->number;
        const bool done = gguf_put_array(w, h->key, GGUF_F64, v, h->n);
        free(v);
        return done;
    }
    }
}

static void hostile_values(void **state) {
    (void)state;
    char *dir = tiny_dir_new();
    cmc_error err = {0};
    cmc_alpha_entry entries[2] = {{.host_name = "a", .alpha = 1}, {.host_name = "b", .alpha = 2}};
    hash_of(entries[0].host_hash, 1);
    hash_of(entries[1].host_hash, 2);
    const cmc_delta_info d = {.host_template = "plain",
                              .delta_template = "plain",
                              .alpha = 1,
                              .n_alphas = 2,
                              .alphas = entries,
                              .trained_host = "h"};
    gguf_writer *w = gguf_writer_new();
    assert_true(delta_info_write(w, &d));
    ok(gguf_writer_save(w, tiny_path(dir, "good.gguf"), &err), &err);
    gguf_writer_free(w);
    for (size_t i = 0; i < sizeof table / sizeof *table; i++) {
        const hostile *h = &table[i];
        gguf *g;
        ok(gguf_open(tiny_path(dir, "good.gguf"), &g, &err), &err);
        w = gguf_writer_new();
        for (size_t k = 0; k < g->n_kv; k++)
            if (g->kv[k].key.n != strlen(h->key) || memcmp(g->kv[k].key.s, h->key, g->kv[k].key.n) != 0)
                assert_true(gguf_put_kv(w, &g->kv[k]));
        assert_true(put_hostile(w, h));
        ok(gguf_writer_save(w, tiny_path(dir, "bad.gguf"), &err), &err);
        gguf_writer_free(w);
        gguf_free(g);
        ok(gguf_open(tiny_path(dir, "bad.gguf"), &g, &err), &err);
        cmc_delta_info *r;
        const cmc_status st = delta_info_read(g, &r, &err);
        if (st != h->status ||
            (st != CMC_OK && (!strstr(err.message, h->message) || !strstr(err.message, "bad.gguf: "))))
            fail_msg("case %zu (%s): status %d, message: %s", i, h->key, (int)st, err.message);
        assert_true((st == CMC_OK) == (r != NULL));
        delta_info_free(r);
        gguf_free(g);
    }
    tiny_dir_free(dir);
}

static void no_keys_no_delta(void **state) {
    (void)state;
    char *dir = tiny_dir_new();
    cmc_error err = {0};
    const tiny_spec spec = {.arch = "llama", .vocab_only = true};
    ok(tiny_write(&spec, tiny_path(dir, "v.gguf"), &err), &err);
    cmc_file_info *fi;
    ok(cmc_file_info_open(tiny_path(dir, "v.gguf"), &fi, &err), &err);
    assert_null(cmc_file_info_delta(fi));
    cmc_file_info_free(fi);
    tiny_dir_free(dir);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(round_trip),
        cmocka_unit_test(in_a_model),
        cmocka_unit_test(hostile_values),
        cmocka_unit_test(no_keys_no_delta),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
