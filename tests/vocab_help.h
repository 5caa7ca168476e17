/* What the tests of vocabularies and tokenizers share: texts made at random, vocabularies made by hand, real ones by
 * path. */
#ifndef CMC_TESTS_VOCAB_HELP_H
#define CMC_TESTS_VOCAB_HELP_H
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "base/mem.h"
#include "base/utf8.h"
#include "tests/tiny.h"
#include "tokenmap/vocab.h"

#define HELP static __attribute__((unused))

/* ------------------------------------------------------------------------------------------------ chance */
typedef struct rng { uint64_t s; } rng;

HELP uint32_t rng_next(rng *r) {           /* splitmix64's top half: the same cases on every machine */
    uint64_t z = r->s += 0x9e3779b97f4a7c15u;
    z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9u;
    z = (z ^ (z >> 27)) * 0x94d049bb133111ebu;
    return (uint32_t)((z ^ (z >> 31)) >> 32);
}

HELP uint32_t rng_below(rng *r, uint32_t n) {
    return (uint32_t)((uint64_t)rng_next(r) * n >> 32);
}

/* A text of any bytes. */
typedef struct text { char *s; size_t n, cap; } text;

HELP void text_add(text *t, const char *s, size_t n) {
    void *v = t->s;
    assert_true(cmc_grow(&v, &t->cap, t->n + n + 1, 1));
    t->s = v;
    memcpy(t->s + t->n, s, n);
    t->s[t->n += n] = '\0';
}

HELP void text_add_char(text *t, int32_t cp) {
    uint8_t c[4];
    text_add(t, (const char *)c, cmc_utf8_encode(cp, c));
}

/* Characters of one script in a row. */
HELP void text_add_run(text *t, rng *r, uint32_t n) {
    static const struct {
        int32_t lo, hi;
    } scripts[] = {
        {'a', 'z'},       {'A', 'Z'},         {'0', '9'},         {'a', 'f'},           {0x4e00, 0x9fff},
        {0x3041, 0x3096}, {0xac00, 0xd7a3},   {0x0e01, 0x0e3a},   {0x0391, 0x03c9},     {0x0410, 0x044f},
        {0x0300, 0x036f}, {0x1f600, 0x1f64f}, {0x1f3fb, 0x1f3ff}, {'!', '/'},           {0x2000, 0x200f},
        {0x0660, 0x0669}, {0x00c0, 0x00ff},   {0xe000, 0xe010},   {0x10ff00, 0x10ffff}, {0x0900, 0x094f},
    };
    uint32_t k = rng_below(r, sizeof scripts / sizeof *scripts);
    for (; n > 0; n--) {
        text_add_char(t, scripts[k].lo + (int32_t)rng_below(r, (uint32_t)(scripts[k].hi - scripts[k].lo + 1)));
    }
}

/* One thing that texts are made of; sometimes bytes that are no UTF-8, where `broken`. */
HELP void text_add_thing(text *t, rng *r, bool broken) {
    static const char *const things[] = {
        " the", " of", "The", "don't", "I'LL", "we've", "'s", "'", "''", "\xe2\x80\x99s", ".", "...", ", ", "!?",
        "=====", "----", "\n", "\n\n", "\r\n", "\t", " ", "  ", "    ", "         ", "\n   ", " \n", "\xc2\xa0",
        "\xe3\x80\x80", "\xe1\xa0\x8e", "\xe2\x96\x81", "\xe2\x96\x81\xe2\x96\x81", "\xef\xbf\xbd",
        "https://example.org/a/b?c=d&e=%20f#g", "aGVsbG8gd29ybGQgaGVsbG8gd29ybGQ=", "1", "12", "123", "1234567",
        "3.14", "x86_64", "<b>", "</b>", "</s>", "<s>", "<", ">", "<|im_end|>", "<|im_", "<end_of_turn>", "<0x0A>",
        "\xf0\x9f\x91\xa8\xe2\x80\x8d\xf0\x9f\x91\xa9\xe2\x80\x8d\xf0\x9f\x91\xa7",
        "\xf0\x9f\x91\x8d\xf0\x9f\x8f\xbd", "e\xcc\x81", "na\xc3\xafve", "\xe2\x80\x9cquote\xe2\x80\x9d",
        "def f(x):\n\treturn x", "{\"a\": [1, 2]}", "[", "]", "(", ")", "_", "$", "+", "^", "|",
    };
    static const char *const bad[] = {"\x80",     "\xff",         "\xe2",     "\xe2\x82", "\xf0\x9f\x98",
                                      "\xc0\xaf", "\xed\xa0\x80", "\xf5\x80", "\xc3"};
    switch (rng_below(r, broken ? 12 : 10)) {
    case 0: text_add_run(t, r, 1 + rng_below(r, 12)); break;
    case 1: text_add_run(t, r, 1 + rng_below(r, 3)); break;
    case 2: text_add(t, "\0", 1); break;
    case 10: {
        const char *s = bad[rng_below(r, sizeof bad / sizeof *bad)];
        text_add(t, s, strlen(s));
        break;
    }
    case 11: {
        char c = (char)rng_next(r);
        text_add(t, &c, 1);
        break;
    }
    default: {
        const char *s = things[rng_below(r, sizeof things / sizeof *things)];
        text_add(t, s, strlen(s));
    }
    }
}

HELP void text_random(text *t, rng *r, bool broken) {
    t->n = 0;
    for (uint32_t n = rng_below(r, 12); n > 0; n--) {
        text_add_thing(t, r, broken);
    }
    text_add(t, "", 0);
}

/* ------------------------------------------------------------------------------------------- vocabularies */
HELP cmc_vocab *vocab_must_open(const char *path) {
    cmc_vocab *v;
    cmc_error err = {0};
    if (cmc_vocab_open(path, &v, &err) != CMC_OK) {
        fail_msg("%s", err.message);
    }
    return v;
}

/* A real model's, by the path in an environment variable; NULL, said so, where it is not set. */
HELP cmc_vocab *vocab_real(const char *env, const char *test) {
    const char *path = getenv(env);
    if (path == NULL || *path == '\0') {
        printf("SKIP %s: %s is not set\n", test, env);
        return NULL;
    }
    return vocab_must_open(path);
}

HELP cmc_vocab *vocab_tiny(const tiny_spec *spec) {
    char *dir = tiny_dir_new();
    cmc_error err = {0};
    assert_non_null(dir);
    if (tiny_write(spec, tiny_path(dir, "v.gguf"), &err) != CMC_OK) {
        fail_msg("%s", err.message);
    }
    cmc_vocab *v = vocab_must_open(tiny_path(dir, "v.gguf"));
    tiny_dir_free(dir);
    return v;
}

/* A vocabulary written down token by token; ends with a NULL spelling. */
typedef struct mini_token { const char *s; int32_t type; float score; } mini_token;
typedef struct mini_key { const char *key; int32_t id; } mini_key;   /* id keys; ends with NULL */
typedef struct mini {
    const char *model, *pre;           /* NULL: no such key */
    const mini_token *tokens;
    const char *const *merges;         /* ends with NULL; NULL: no such key */
    const mini_key *keys;
    int space_prefix, add_bos;         /* -1: no such key */
    bool no_types, no_scores;
    size_t n_types;                    /* 0: as many as tokens */
    const char *name;                  /* of the model; NULL: no such key */
} mini;

HELP size_t mini_arrays(const mini *m, gguf_writer *w, gguf_str *tokens, int32_t *types, float *scores) {
    size_t n = 0;
    for (; m->tokens[n].s != NULL; n++) {
        tokens[n] = (gguf_str){m->tokens[n].s, strlen(m->tokens[n].s)};
        types[n] = m->tokens[n].type;
        scores[n] = m->tokens[n].score;
    }
    assert_true(gguf_put_str_array(w, "tokenizer.ggml.tokens", tokens, n));
    if (!m->no_types) {
        assert_true(gguf_put_array(w, "tokenizer.ggml.token_type", GGUF_I32, types, m->n_types != 0 ? m->n_types : n));
    }
    if (!m->no_scores) {
        assert_true(gguf_put_array(w, "tokenizer.ggml.scores", GGUF_F32, scores, n));
    }
    return n;
}

/* Opens what `m` says, written to a file. */
HELP cmc_status mini_open(const mini *m, cmc_vocab **out, cmc_error *err) {
    static gguf_str tokens[1024], merges[1024];
    static int32_t types[1024];
    static float scores[1024];
    gguf_writer *w = gguf_writer_new();
    assert_non_null(w);
    assert_true(gguf_put_str(w, "general.architecture", "llama", 5));
    if (m->name != NULL) {
        assert_true(gguf_put_str(w, "general.name", m->name, strlen(m->name)));
    }
    if (m->model != NULL) {
        assert_true(gguf_put_str(w, "tokenizer.ggml.model", m->model, strlen(m->model)));
    }
    if (m->pre != NULL) {
        assert_true(gguf_put_str(w, "tokenizer.ggml.pre", m->pre, strlen(m->pre)));
    }
    mini_arrays(m, w, tokens, types, scores);
    if (m->merges != NULL) {
        size_t n = 0;
        for (; m->merges[n] != NULL; n++) {
            merges[n] = (gguf_str){m->merges[n], strlen(m->merges[n])};
        }
        assert_true(gguf_put_str_array(w, "tokenizer.ggml.merges", merges, n));
    }
    for (const mini_key *k = m->keys; k != NULL && k->key != NULL; k++) {
        assert_true(gguf_put_u32(w, k->key, (uint32_t)k->id));
    }
    assert_true(m->space_prefix < 0 || gguf_put_bool(w, "tokenizer.ggml.add_space_prefix", m->space_prefix));
    assert_true(m->add_bos < 0 || gguf_put_bool(w, "tokenizer.ggml.add_bos_token", m->add_bos));
    char *dir = tiny_dir_new();
    assert_non_null(dir);
    assert_int_equal(gguf_writer_save(w, tiny_path(dir, "mini.gguf"), NULL), CMC_OK);
    gguf_writer_free(w);
    cmc_status st = cmc_vocab_open(tiny_path(dir, "mini.gguf"), out, err);
    tiny_dir_free(dir);
    return st;
}

/* ------------------------------------------------------------------------------------------------- checks */
HELP void tokenize_must(const cmc_vocab *v, const char *s, size_t n, unsigned flags, cmc_ids *ids) {
    cmc_error err = {0};
    ids->n = 0;
    if (cmc_tokenize(v, s, n, flags, ids, &err) != CMC_OK) {
        fail_msg("%s", err.message);
    }
}

/* The bytes of ids, one after the other. */
HELP void text_of_ids(const cmc_vocab *v, const int32_t *ids, size_t n, text *t) {
    t->n = 0;
    for (size_t i = 0; i < n; i++) {
        size_t len;
        const uint8_t *b = cmc_vocab_bytes(v, ids[i], &len);
        text_add(t, (const char *)b, len);
    }
    text_add(t, "", 0);
}

HELP void print_ids(const char *what, const int32_t *ids, size_t n) {
    printf("%s:", what);
    for (size_t i = 0; i < n; i++) {
        printf(" %d", ids[i]);
    }
    printf("\n");
}

HELP void print_bytes(const char *what, const char *s, size_t n) {
    printf("%s: \"", what);
    for (size_t i = 0; i < n; i++) {
        unsigned char c = (unsigned char)s[i];
        printf(c >= 0x20 && c < 0x7f && c != '"' && c != '\\' ? "%c" : "\\x%02x", c);
    }
    printf("\"\n");
}

HELP void assert_ids(const char *s, size_t len, const int32_t *got, size_t n_got, const int32_t *want, size_t n_want) {
    if (n_got != n_want || (n_got > 0 && memcmp(got, want, n_got * sizeof *got) != 0)) {
        print_bytes("text", s, len);
        print_ids("got ", got, n_got);
        print_ids("want", want, n_want);
        fail_msg("ids differ");
    }
}
#endif
