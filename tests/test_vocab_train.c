/* Vocabularies learnt from data: any bytes come back, the same data give the same file, and every reader agrees. */
#include <setjmp.h>
#include <math.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include <cmocka.h>

#include "base/file.h"
#include "base/utf8.h"
#include "tests/tiny.h"
#include "tokenmap/retok.h"
#include "tokenmap/spm_shim.h"
#include "tokenmap/vocab.h"

static char *dir;
static const char *const KINDS[] = {"bpe", "unigram"};

static int setup(void **state) {
    (void)state;
    dir = tiny_dir_new();
    return dir == NULL;
}

static int teardown(void **state) {
    (void)state;
    tiny_dir_free(dir);
    return 0;
}

static void write_file(const char *name, const char *s, size_t n) {
    FILE *f = fopen(tiny_path(dir, name), "wb");
    assert_non_null(f);
    assert_int_equal(fwrite(s, 1, n, f), n);
    assert_int_equal(fclose(f), 0);
}

/* A path of its own, for tiny_path's are gone after eight. */
static char *path_of(const char *name) {
    const char *p = tiny_path(dir, name);
    char *copy = malloc(strlen(p) + 1);
    assert_non_null(copy);
    return strcpy(copy, p);
}

static cmc_vocab_train_opts options(const char *kind, const char *const *data, size_t n, const char *out) {
    cmc_vocab_train_opts o = cmc_vocab_train_defaults();
    o.kind = kind;
    o.size = 500;
    o.data = data;
    o.n_data = n;
    o.out_path = out;
    return o;
}

static cmc_vocab_train_result train_to(const cmc_vocab_train_opts *o) {
    cmc_error err = {0};
    cmc_vocab_train_result r;
    if (cmc_vocab_train(o, &r, &err) != CMC_OK)
        fail_msg("%s", err.message);
    return r;
}

static cmc_vocab *open_vocab(const char *path) {
    cmc_error err = {0};
    cmc_vocab *v = NULL;
    if (cmc_vocab_open(path, &v, &err) != CMC_OK)
        fail_msg("%s", err.message);
    return v;
}

/* The usual data: records with newlines, and the tiny models' text in several languages. */
static cmc_vocab *learnt(const char *kind, const char *name) {
    static const char records[] =
        "{\"question\":\"What is the capital of France?\",\"answer\":\"Paris.\\nIt is on the Seine.\\n\\n- the end\"}\n"
        "{\"prompt\":\"if (x) {\\n    return 12345;\\n}\",\"response\":\"The capital is what the capital was\"}\n"
        "{\"text\":\"the cat    and the dog and the cat\\tand \\u2585 the \\u0000 dog\"}\n";
    write_file("data.jsonl", records, sizeof records - 1);
    write_file("data.txt", tiny_text(), strlen(tiny_text()));
    char *jsonl = path_of("data.jsonl"), *txt = path_of("data.txt"), *out = path_of(name);
    const char *data[] = {jsonl, txt};
    cmc_vocab_train_opts o = options(kind, data, 2, out);
    cmc_vocab_train_result r = train_to(&o);
    assert_int_equal(r.records, 3);
    assert_true(r.bytes > strlen(tiny_text()) / 2);
    cmc_vocab *v = open_vocab(out);
    assert_int_equal(cmc_vocab_size(v), r.tokens);
    assert_in_range(r.tokens, 300, 500);
    free(jsonl);
    free(txt);
    free(out);
    return v;
}

static uint64_t next_random(uint64_t *s) {
    *s ^= *s << 13;
    *s ^= *s >> 7;
    *s ^= *s << 17;
    return *s;
}

static const char *const TEXTS[] = {
    "", " ", "\n", "\n\n\n", "a\r\nb", "  leading and trailing  ", "a          b", "\t\ttabs\tand  spaces",
    "the capital of France",
    "\xf0\x9f\x98\x80\xf0\x9f\x91\xa9\xe2\x80\x8d\xf0\x9f\x94\xac", "\xe4\xb8\xad\xe6\x96\x87", "na\xc3\xafve",
    "<s></s><unk><0x41>",
    "\xff\xfe", "a\xc3", "\xe2\x96", "x\xed\xa0\x80y", "\xe2\x96\x85", "12345 67", "<|im_end|>",
    "if (x) {\n    return;\n}\n",
};
enum { N_TEXTS = sizeof TEXTS / sizeof *TEXTS };

/* A random text: bytes, known words, spaces and newlines in runs, characters from everywhere but U+2581. */
static size_t random_text(uint64_t *rng, char *out, size_t cap) {
    static const char *const word[] = {"the ", " capital", "France", "\n",  "    ", " ", ".\n\n",
                                       "cat",  "and",      "fox",    "\xe4\xb8\xad"};
    size_t n = 0, parts = next_random(rng) % 30;
    for (size_t i = 0; i < parts && n + 32 < cap; i++) {
        uint64_t r = next_random(rng);
        if (r % 4 == 0) {
            out[n++] = (char)(r >> 32);
        } else if (r % 4 == 1) {
            int32_t cp = (int32_t)((r >> 32) % 0x11000);
            n += cmc_utf8_encode(cp == 0x2581 ? 'x' : cp, (uint8_t *)out + n);
        } else {
            const char *w = word[(r >> 32) % (sizeof word / sizeof *word)];
            memcpy(out + n, w, strlen(w));
            n += strlen(w);
        }
    }
    for (size_t i = 0; i + 2 < n; i++) /* stray bytes may have made one */
        if (memcmp(out + i, "\xe2\x96\x81", 3) == 0)
            out[i] = 'x';
    return n;
}

static cmc_ids tokens_of(const cmc_vocab *v, const char *s, size_t n) {
    cmc_ids ids = {0};
    cmc_error err = {0};
    if (cmc_tokenize(v, s, n, 0, &ids, &err) != CMC_OK)
        fail_msg("%s", err.message);
    return ids;
}

static void check_round_trip(const cmc_vocab *v, const char *s, size_t n) {
    cmc_ids ids = tokens_of(v, s, n);
    size_t at = 0;
    for (size_t i = 0; i < ids.n; i++) {
        size_t len;
        const uint8_t *b = cmc_vocab_bytes(v, ids.v[i], &len);
        assert_in_range(len, 1, n - at);
        assert_memory_equal(b, s + at, len);
        at += len;
    }
    assert_int_equal(at, n);
    cmc_ids_free(&ids);
}

static void test_round_trip(void **state) {
    (void)state;
    for (size_t k = 0; k < 2; k++) {
        cmc_vocab *v = learnt(KINDS[k], "v.gguf");
        uint64_t rng = 88172645463325252u;
        char text[1024];
        for (size_t i = 0; i < N_TEXTS; i++)
            check_round_trip(v, TEXTS[i], strlen(TEXTS[i]));
        for (int i = 0; i < 3000; i++)
            check_round_trip(v, text, random_text(&rng, text, sizeof text));
        for (int b = 0; b < 256; b++)
            check_round_trip(v, (const char[]){(char)b}, 1);
        cmc_vocab_free(v);
    }
}

static void compare_files(const char *a, const char *b) {
    cmc_file x, y;
    cmc_error err = {0};
    assert_int_equal(cmc_file_map(a, &x, &err), CMC_OK);
    assert_int_equal(cmc_file_map(b, &y, &err), CMC_OK);
    assert_int_equal(x.size, y.size);
    assert_memory_equal(x.data, y.data, x.size);
    cmc_file_unmap(&x);
    cmc_file_unmap(&y);
}

static void test_same_data_same_bytes(void **state) {
    (void)state;
    for (size_t k = 0; k < 2; k++) {
        static const char *const pairs[][2] = {{"one.gguf", "two.gguf"}, {"one.model", "two.model"}};
        for (size_t i = 0; i < 2; i++) {
            cmc_vocab_free(learnt(KINDS[k], pairs[i][0]));
            cmc_vocab_free(learnt(KINDS[k], pairs[i][1]));
            compare_files(tiny_path(dir, pairs[i][0]), tiny_path(dir, pairs[i][1]));
        }
    }
}

static void check_same_ids(const cmc_vocab *a, const cmc_vocab *b, const char *s, size_t n) {
    cmc_ids x = tokens_of(a, s, n), y = tokens_of(b, s, n);
    assert_int_equal(x.n, y.n);
    if (x.n > 0)
        assert_memory_equal(x.v, y.v, x.n * sizeof *x.v);
    cmc_ids_free(&x);
    cmc_ids_free(&y);
}

/* The GGUF file and the .model are the same vocabulary, down to the scores and flags. */
static void test_gguf_is_model(void **state) {
    (void)state;
    for (size_t k = 0; k < 2; k++) {
        cmc_vocab *g = learnt(KINDS[k], "v.gguf"), *m = learnt(KINDS[k], "v.model");
        assert_string_equal(cmc_vocab_kind_name(g), k == 0 ? "spm" : "unigram");
        assert_string_equal(cmc_vocab_kind_name(m), cmc_vocab_kind_name(g));
        assert_true(cmc_vocab_equal(g, m));
        assert_memory_equal(g->score, m->score, (size_t)g->n * sizeof *g->score);
        assert_memory_equal(g->roles, m->roles, (size_t)g->n);
        assert_memory_equal(g->is_end, m->is_end, (size_t)g->n);
        assert_int_equal(g->bos, 1);
        assert_int_equal(m->bos, 1);
        assert_int_equal(g->eos, 2);
        assert_int_equal(g->unk, 0);
        assert_int_equal(m->unk, 0);
        assert_true(g->add_bos && m->add_bos && !g->add_space_prefix && !m->add_space_prefix);
        uint64_t rng = 7;
        char text[1024];
        for (int i = 0; i < 500; i++)
            check_same_ids(g, m, text, random_text(&rng, text, sizeof text));
        cmc_vocab_free(g);
        cmc_vocab_free(m);
    }
}

static bool push_id(void *user, int id, size_t begin, size_t end) {
    (void)begin;
    (void)end;
    return cmc_ids_push(user, id) == CMC_OK;
}

static double score_of(const cmc_vocab *v, const cmc_ids *ids) {
    double sum = 0.0;
    for (size_t i = 0; i < ids->n; i++)
        sum += (double)v->score[ids->v[i]];
    return sum;
}

/* libsentencepiece with the very model that its trainer gave, on whole texts. With Unigram, five spaces can be four and
 * one or one and four: which of two equally good ways it takes goes there by how sums of all that stands before are
 * rounded. */
static void test_ids_are_libsentencepieces(void **state) {
    (void)state;
    for (size_t k = 0; k < 2; k++) {
        cmc_vocab *v = learnt(KINDS[k], "v.model");
        char msg[256], text[1024];
        uint64_t rng = 99;
        cmc_file f;
        cmc_error err = {0};
        assert_int_equal(cmc_file_map(tiny_path(dir, "v.model"), &f, &err), CMC_OK);
        spm_shim *shim = spm_shim_load(f.data, f.size, msg, sizeof msg);
        assert_non_null(shim);
        size_t checked = 0, ties = 0;
        for (int i = 0; i < 2000; i++) {
            size_t n = random_text(&rng, text, sizeof text);
            if (!cmc_utf8_valid((const uint8_t *)text, n))
                continue;
            cmc_ids want = {0}, have = tokens_of(v, text, n);
            assert_true(spm_shim_encode(shim, text, n, false, push_id, &want, msg, sizeof msg));
            bool same = have.n == want.n && (have.n == 0 || memcmp(have.v, want.v, have.n * sizeof *have.v) == 0);
            assert_true(same || (v->unigram && fabs(score_of(v, &have) - score_of(v, &want)) < 1e-3));
            ties += !same;
            cmc_ids_free(&want);
            cmc_ids_free(&have);
            checked++;
        }
        assert_true(checked > 100 && ties * 20 < checked);
        spm_shim_free(shim);
        cmc_file_unmap(&f);
        cmc_vocab_free(v);
    }
}

/* Every token stands for something that can be said, and nearly every one is what its own bytes are cut into. */
static void test_tokens(void **state) {
    (void)state;
    for (size_t k = 0; k < 2; k++) {
        cmc_vocab *v = learnt(KINDS[k], "v.gguf");
        int32_t bytes = 0, control = 0, normal = 0, itself = 0;
        bool newline = false;
        for (int32_t id = 0; id < cmc_vocab_size(v); id++) {
            size_t len;
            const uint8_t *b = cmc_vocab_bytes(v, id, &len);
            cmc_token_kind kind = cmc_vocab_kind(v, id);
            bytes += kind == CMC_KIND_BYTE;
            control += kind == CMC_KIND_CONTROL;
            if (kind != CMC_KIND_NORMAL)
                continue;
            assert_true(len > 0 && cmc_utf8_valid(b, len));
            cmc_ids ids = tokens_of(v, (const char *)b, len);
            itself += ids.n == 1 && ids.v[0] == id;
            normal++;
            newline = newline || memchr(b, '\n', len) != NULL;
            cmc_ids_free(&ids);
        }
        assert_int_equal(bytes, 256);
        assert_int_equal(control, 3);
        assert_true(newline);
        assert_true(itself * 100 >= normal * (k == 0 ? 99 : 90));
        cmc_vocab_free(v);
    }
}

/* A growing text has the ids at every length that it has when it is tokenised anew. */
static void test_growing_text(void **state) {
    (void)state;
    for (size_t k = 0; k < 2; k++) {
        cmc_vocab *v = learnt(KINDS[k], "v.gguf");
        cmc_error err = {0};
        retok *r;
        uint64_t rng = 5;
        char *text = malloc(9000);
        size_t n = 0;
        assert_non_null(text);
        assert_int_equal(retok_new(v, &r, &err), CMC_OK);
        while (n < 8000) {
            size_t add = random_text(&rng, text + n, 900), have_n, kept;
            const int32_t *have;
            if (!cmc_utf8_valid((const uint8_t *)text + n, add) || add == 0)
                continue;
            assert_int_equal(retok_append(r, (const uint8_t *)text + n, add, &err), CMC_OK);
            n += add;
            assert_int_equal(retok_ids(r, &have, &have_n, &kept, &err), CMC_OK);
            cmc_ids want = tokens_of(v, text, n);
            assert_int_equal(have_n, want.n);
            assert_memory_equal(have, want.v, want.n * sizeof *want.v);
            cmc_ids_free(&want);
        }
        retok_free(r);
        free(text);
        cmc_vocab_free(v);
    }
}

static void test_symbols(void **state) {
    (void)state;
    cmc_vocab_free(learnt("bpe", "other.gguf")); /* for the data */
    char *txt = path_of("data.txt"), *out = path_of("s.gguf");
    const char *data[] = {txt}, *symbols[] = {"new york", "a,\"b\""}, *control[] = {"<|tool|>"};
    for (size_t k = 0; k < 2; k++) {
        cmc_vocab_train_opts o = options(KINDS[k], data, 1, out);
        o.t = CMC_TMPL_CHATML;
        o.symbols = symbols;
        o.n_symbols = 2;
        o.control = control;
        o.n_control = 1;
        o.split_digits = true;
        train_to(&o);
        cmc_vocab *v = open_vocab(out);
        int32_t end = cmc_vocab_find_special(v, "<|im_end|>");
        assert_true(end > 0 && cmc_vocab_kind(v, end) == CMC_KIND_CONTROL && cmc_vocab_is_end(v, end));
        assert_int_equal(cmc_vocab_role_token(v, CMC_ROLE_EOT), end);
        assert_int_equal(cmc_vocab_kind(v, cmc_vocab_find_special(v, "<|im_start|>")), CMC_KIND_CONTROL);
        assert_int_equal(cmc_vocab_kind(v, cmc_vocab_find_special(v, "<|tool|>")), CMC_KIND_CONTROL);
        for (size_t i = 0; i < 2; i++) {
            int32_t id = cmc_vocab_find_special(v, symbols[i]);
            assert_int_equal(cmc_vocab_kind(v, id), CMC_KIND_USER);
            cmc_ids ids = tokens_of(v, symbols[i], strlen(symbols[i]));
            assert_int_equal(ids.n, 1);
            assert_int_equal(ids.v[0], id);
            cmc_ids_free(&ids);
        }
        for (int32_t id = 0; id < cmc_vocab_size(v); id++) {
            size_t len, digits = 0;
            const uint8_t *b = cmc_vocab_bytes(v, id, &len);
            for (size_t i = 0; i < len; i++)
                digits += b[i] >= '0' && b[i] <= '9';
            assert_true(digits <= 1);
        }
        check_round_trip(v, "see new york,a,\"b\" 42", 21);
        cmc_vocab_free(v);
    }
    free(txt);
    free(out);
}

/* Data that would take the trainer down: a word of 200,000 letters, bytes that are no text, its own reserved
 * characters. */
static void test_hostile_data(void **state) {
    (void)state;
    enum { N = 200000 };
    char *s = malloc(N), *path = path_of("hostile.txt"), *out = path_of("h.gguf");
    const char *data[] = {path};
    assert_non_null(s);
    for (int round = 0; round < 2; round++) {
        uint64_t rng = 3;
        for (size_t i = 0; i < N; i++)
            s[i] = round == 0 ? (char)('a' + next_random(&rng) % 3) : (char)(next_random(&rng) >> 20);
        write_file("hostile.txt", s, round == 0 ? N : N / 10);
        for (size_t k = 0; k < 2; k++) {
            cmc_vocab_train_opts o = options(KINDS[k], data, 1, out);
            o.coverage = 0.98;
            o.size = 3000;
            train_to(&o);
            cmc_vocab *v = open_vocab(out);
            check_round_trip(v, s, 5000);
            cmc_vocab_free(v);
        }
    }
    free(s);
    free(path);
    free(out);
}

static void test_refused(void **state) {
    (void)state;
    write_file("a.txt", "some text to learn from", 23);
    write_file("empty.txt", "", 0);
    write_file("tabs.txt", "\t\t\xff", 3);
    write_file("bad.jsonl", "{\"no\":1}\n", 9);
    char *txt = path_of("a.txt"), *empty = path_of("empty.txt"), *tabs = path_of("tabs.txt"), *bad = path_of("bad.jsonl"),
         *out = path_of("r.gguf"), *none = path_of("none.txt"), *folder = path_of("no/r.gguf");
    const struct {
        const char *data, *out, *kind, *symbol;
        int32_t size;
        double coverage;
        cmc_status status;
        const char *says;
    } cases[] = {
        {none, out, "bpe", NULL, 300, 1, CMC_E_IO, "none.txt"},
        {empty, out, "bpe", NULL, 300, 1, CMC_E_FORMAT, "empty"},
        {tabs, out, "bpe", NULL, 300, 1, CMC_E_FORMAT, "no text"},
        {bad, out, "bpe", NULL, 300, 1, CMC_E_FORMAT, "line 1"},
        {txt, txt, "bpe", NULL, 300, 1, CMC_E_ARG, "data as well"},
        {txt, dir, "bpe", NULL, 300, 1, CMC_E_IO, "regular file"},
        {txt, folder, "bpe", NULL, 300, 1, CMC_E_IO, "no/r.gguf"},
        {txt, out, "word", NULL, 300, 1, CMC_E_ARG, "bpe or unigram"},
        {txt, out, "bpe", NULL, 100, 1, CMC_E_ARG, "from 260"},
        {txt, out, "bpe", NULL, 262, 1, CMC_E_ARG, "larger size"},
        {txt, out, "bpe", NULL, 300, 0.5, CMC_E_ARG, "coverage"},
        {txt, out, "bpe", "", 300, 1, CMC_E_ARG, "symbol"},
        {txt, out, "bpe", "a\tb", 300, 1, CMC_E_ARG, "tabs"},
        {txt, out, "bpe", "\xff", 300, 1, CMC_E_ARG, "UTF-8"},
        {txt, out, "bpe", "<s>", 300, 1, CMC_E_ARG, "already"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        cmc_vocab_train_opts o = options(cases[i].kind, &cases[i].data, 1, cases[i].out);
        cmc_error err = {0};
        o.size = cases[i].size;
        o.coverage = cases[i].coverage;
        o.symbols = &cases[i].symbol;
        o.n_symbols = cases[i].symbol != NULL;
        cmc_status st = cmc_vocab_train(&o, NULL, &err);
        if (st != cases[i].status || strstr(err.message, cases[i].says) == NULL)
            fail_msg("case %zu: status %d, \"%s\"", i, (int)st, err.message);
        assert_int_not_equal(access(out, F_OK), 0);
    }
    char *const all[] = {txt, empty, tabs, bad, out, none, folder};
    for (size_t i = 0; i < sizeof all / sizeof *all; i++)
        free(all[i]);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_round_trip),     cmocka_unit_test(test_same_data_same_bytes),
        cmocka_unit_test(test_gguf_is_model),  cmocka_unit_test(test_ids_are_libsentencepieces),
        cmocka_unit_test(test_tokens),         cmocka_unit_test(test_growing_text),
        cmocka_unit_test(test_symbols),        cmocka_unit_test(test_hostile_data),
        cmocka_unit_test(test_refused),
    };
    return cmocka_run_group_tests(tests, setup, teardown);
}
