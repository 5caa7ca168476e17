/* Text synchronisation against its definition: after every append, the ids of the whole text tokenised from scratch. */
#include "tests/vocab_help.h"
#include "tokenmap/retok.h"

/* What is known of a text without its retok: the text, and the ids it had at the last call. */
typedef struct shadow {
    const cmc_vocab *v;
    retok *r;
    text t;
    cmc_ids last, want;
} shadow;

static void shadow_start(shadow *s, const cmc_vocab *v) {
    *s = (shadow){.v = v};
    assert_int_equal(retok_new(v, &s->r, NULL), CMC_OK);
}

static void shadow_end(shadow *s) {
    retok_free(s->r);
    free(s->t.s);
    cmc_ids_free(&s->last);
    cmc_ids_free(&s->want);
}

static void shadow_append(shadow *s, const char *bytes, size_t n) {
    text_add(&s->t, bytes, n);
    assert_int_equal(retok_append(s->r, (const uint8_t *)bytes, n, NULL), CMC_OK);
}

static void shadow_check(shadow *s) {
    const int32_t *ids;
    size_t n, kept, same = 0, n_text, whole = cmc_utf8_whole((const uint8_t *)s->t.s, s->t.n);
    cmc_error err = {0};
    if (retok_ids(s->r, &ids, &n, &kept, &err) != CMC_OK) {
        fail_msg("%s", err.message);
    }
    tokenize_must(s->v, s->t.s, whole, CMC_TOK_CONTINUE, &s->want);
    assert_ids(s->t.s, s->t.n, ids, n, s->want.v, s->want.n);
    assert_int_equal(retok_whole(s->r), whole == s->t.n);
    while (same < n && same < s->last.n && ids[same] == s->last.v[same]) {
        same++;
    }
    assert_int_equal(kept, same);
    const uint8_t *all = retok_text(s->r, &n_text);
    assert_int_equal(n_text, s->t.n);
    assert_true(n_text == 0 || memcmp(all, s->t.s, n_text) == 0);
    s->last.n = 0;
    assert_int_equal(cmc_ids_append(&s->last, ids, n), CMC_OK);
}

/* What a host emits next: a token's bytes, or a piece of a text, perhaps cut inside a character. */
static void shadow_step(shadow *s, rng *r, const cmc_vocab *host) {
    text t = {0};
    if (rng_below(r, 3) == 0) {
        size_t n;
        const uint8_t *b = cmc_vocab_bytes(host, (int32_t)rng_below(r, (uint32_t)cmc_vocab_size(host)), &n);
        text_add(&t, (const char *)b, n);
    } else {
        text_add_thing(&t, r, rng_below(r, 8) == 0);
        t.n = rng_below(r, 4) == 0 ? rng_below(r, (uint32_t)t.n + 1) : t.n;
    }
    shadow_append(s, t.s, t.n);
    free(t.s);
}

static void check_texts(const cmc_vocab *v, const cmc_vocab *host, uint64_t seed, int n_texts, int n_steps) {
    rng r = {seed};
    for (int k = 0; k < n_texts; k++) {
        shadow s;
        shadow_start(&s, v);
        shadow_check(&s);
        for (int i = 0; i < n_steps; i++) {
            shadow_step(&s, &r, host);
            if (rng_below(&r, 8) != 0) { /* now and then several appends before a look */
                shadow_check(&s);
            }
        }
        shadow_check(&s);
        shadow_end(&s);
    }
}

/* Long stretches of one thing, a few bytes at a time: where boundaries are rare. */
static void check_runs(const cmc_vocab *v) {
    static const char *const runs[] = {
        " ", "\n", " \n", "\t ", "a", "ab", "9", "=", "'", "'l", "\xe4\xb8\xad\xe6\x96\x87", "\xf0\x9f\x98\x80",
        "e\xcc\x81", "\xe2\x96\x81", "aGVsbG8", "</", "<b>", "\xe2\x82", "\0x",
    };
    for (size_t k = 0; k < sizeof runs / sizeof *runs; k++) {
        size_t n = runs[k][0] == '\0' ? 2 : strlen(runs[k]);
        shadow s;
        shadow_start(&s, v);
        for (int i = 0; i < 70; i++) {
            for (size_t j = 0; j < n; j++) {
                shadow_append(&s, runs[k] + j, 1);
                shadow_check(&s);
            }
        }
        shadow_append(&s, "5 x", 3);
        shadow_check(&s);
        shadow_end(&s);
    }
}

/* Bytes tokenised for each byte of a prose text that arrives token by token. */
static double prose_cost(const cmc_vocab *v, const char *prose, size_t len) {
    retok *r;
    cmc_ids ids = {0};
    tokenize_must(v, prose, len, CMC_TOK_CONTINUE, &ids);
    assert_int_equal(retok_new(v, &r, NULL), CMC_OK);
    for (size_t i = 0; i < ids.n; i++) {
        const int32_t *got;
        size_t n, n_got, kept;
        const uint8_t *b = cmc_vocab_bytes(v, ids.v[i], &n);
        assert_int_equal(retok_append(r, b, n, NULL), CMC_OK);
        assert_int_equal(retok_ids(r, &got, &n_got, &kept, NULL), CMC_OK);
    }
    double cost = (double)retok_merged(r) / (double)len;
    retok_free(r);
    cmc_ids_free(&ids);
    return cost;
}

static void check_cost(const char *name, const cmc_vocab *v) {
    text t = {0};
    for (int i = 0; i < 8; i++) {
        text_add(&t, tiny_text(), strlen(tiny_text()));
    }
    double once = prose_cost(v, t.s, t.n / 8), all = prose_cost(v, t.s, t.n);
    printf("%s: %.1f bytes tokenised for each byte of %zu\n", name, all, t.n);
    assert_true(all < once * 1.5); /* the cost of a step does not grow with the text */
    assert_true(all < 40);
    free(t.s);
}

/* Words that nothing cuts: letters, one letter, Chinese, as they come byte by byte. However long they are, little of
 * them is merged again. */
static void check_long_words(const cmc_vocab *v) {
    rng r = {31};
    for (int kind = 0; kind < 3; kind++) {
        text t = {0};
        while (t.n < 6000) {
            static const int32_t first[] = {'a', 'a', 0x4e00};
            static const uint32_t many[] = {26, 1, 99};
            text_add_char(&t, first[kind] + (int32_t)rng_below(&r, many[kind]));
        }
        retok *k;
        const int32_t *ids;
        size_t n, kept;
        cmc_ids want = {0};
        assert_int_equal(retok_new(v, &k, NULL), CMC_OK);
        for (size_t i = 0; i < t.n; i++) {
            assert_int_equal(retok_append(k, (const uint8_t *)t.s + i, 1, NULL), CMC_OK);
            assert_int_equal(retok_ids(k, &ids, &n, &kept, NULL), CMC_OK);
        }
        tokenize_must(v, t.s, t.n, CMC_TOK_CONTINUE, &want);
        assert_ids(t.s, t.n, ids, n, want.v, want.n);
        assert_true(retok_merged(k) < 60 * t.n);
        retok_free(k);
        cmc_ids_free(&want);
        free(t.s);
    }
}

static void check_all(const char *name, const cmc_vocab *v, int n_texts) {
    check_texts(v, v, 1, n_texts, 60);
    check_runs(v);
    check_cost(name, v);
    check_long_words(v);
}

static const char *const BPE_PRE[] = {"gpt-2", "smollm", "llama-bpe", "qwen2", "default"};

static void test_tiny_bpe(void **state) {
    (void)state;
    for (size_t i = 0; i < sizeof BPE_PRE / sizeof *BPE_PRE; i++) {
        cmc_vocab *v = vocab_tiny(&(tiny_spec){.arch = "llama", .pre = BPE_PRE[i], .vocab_only = true});
        check_all(BPE_PRE[i], v, 40);
        cmc_vocab_free(v);
    }
}

static void test_tiny_spm(void **state) {
    (void)state;
    static const char *const archs[] = {"llama", "gemma3"};
    for (size_t i = 0; i < 2; i++) {
        cmc_vocab *v = vocab_tiny(&(tiny_spec){.arch = archs[i], .vocab = "spm", .vocab_only = true});
        check_all(archs[i], v, 40);
        cmc_vocab_free(v);
    }
}

/* The delta's vocabulary is seldom the host's: bytes of one, ids of the other. */
static void test_two_vocabularies(void **state) {
    (void)state;
    cmc_vocab *bpe = vocab_tiny(&(tiny_spec){.arch = "qwen2", .vocab_only = true});
    cmc_vocab *spm = vocab_tiny(&(tiny_spec){.arch = "gemma3", .vocab_only = true});
    check_texts(bpe, spm, 5, 30, 60);
    check_texts(spm, bpe, 6, 30, 60);
    cmc_vocab_free(bpe);
    cmc_vocab_free(spm);
}

/* Pieces that reach over spaces, and user-defined tokens that begin one another: the cuts must see them coming. */
static void test_overlaps(void **state) {
    (void)state;
    static const mini_token tokens[] = {
        {"<unk>", 2, 0}, {"<s>", 3, 0}, {"a", 1, -9}, {"b", 1, -9}, {"c", 1, -9}, {"\xe2\x96\x81", 1, -9},
        {"a\xe2\x96\x81", 1, -1}, {"a\xe2\x96\x81" "b", 1, -2}, {"\xe2\x96\x81" "b", 1, -3}, {"bc", 1, -4},
        {"ab", 1, -5}, {"cab", 4, 0}, {"ca", 4, 0}, {"abca b", 4, 0}, {"  ", 4, 0}, {"x", 5, -1}, {"xa", 1, -1},
        {NULL, 0, 0},
    };
    const mini m = {.model = "llama", .tokens = tokens, .space_prefix = 1, .add_bos = -1};
    cmc_vocab *v;
    assert_int_equal(mini_open(&m, &v, NULL), CMC_OK);
    rng r = {9};
    for (int k = 0; k < 300; k++) {
        shadow s;
        shadow_start(&s, v);
        for (int i = 0; i < 40; i++) {
            shadow_append(&s, &"abc  abcx\xe2"[rng_below(&r, 10)], 1);
            shadow_check(&s);
        }
        shadow_end(&s);
    }
    cmc_vocab_free(v);
}

static void test_control_adds_no_bytes(void **state) {
    (void)state;
    cmc_vocab *v = vocab_tiny(&(tiny_spec){.arch = "llama", .vocab_only = true});
    shadow s;
    shadow_start(&s, v);
    shadow_append(&s, "", 0);
    shadow_check(&s);
    shadow_append(&s, "caf\xc3", 4);
    assert_false(retok_whole(s.r));
    shadow_check(&s);
    shadow_append(&s, "\xa9", 1);
    assert_true(retok_whole(s.r));
    shadow_check(&s);
    shadow_end(&s);
    cmc_vocab_free(v);
}

static void test_real(const char *env, int n_texts) {
    cmc_vocab *v = vocab_real(env, "retok");
    if (v != NULL) {
        check_all(env, v, n_texts);
        cmc_vocab_free(v);
    }
}

static void test_smollm2(void **state) {
    (void)state;
    test_real("CMC_TEST_SMOLLM2", 60);
}

static void test_gemma(void **state) {
    (void)state;
    test_real("CMC_TEST_GEMMA", 60);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_tiny_bpe),
        cmocka_unit_test(test_tiny_spm),
        cmocka_unit_test(test_two_vocabularies),
        cmocka_unit_test(test_overlaps),
        cmocka_unit_test(test_control_adds_no_bytes),
        cmocka_unit_test(test_smollm2),
        cmocka_unit_test(test_gemma),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
