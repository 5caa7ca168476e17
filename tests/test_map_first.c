/* The rule `default`: what it has in common with `prefix`, and the first token of the delta's tokenizer for the rest; by hand,
 * over tiny vocabularies of every kind in both directions, and over real ones. */
#include <math.h>

#include "tests/vocab_help.h"
#include "tokenmap/map.h"

static cmc_map *build(const cmc_vocab *host, const cmc_vocab *delta, cmc_map_rule rule) {
    cmc_map *m;
    cmc_error err = {0};
    if (cmc_map_build(host, delta, rule, &m, &err) != CMC_OK) {
        fail_msg("%s", err.message);
    }
    return m;
}

/* The definition, once more: the first id, where its bytes begin the text, end with a character, and are not white space alone
 * before something else, and it is no byte token. */
static int32_t first_by_definition(const cmc_vocab *host, const cmc_vocab *delta, int32_t id) {
    size_t n, k;
    const uint8_t *s = cmc_vocab_bytes(host, id, &n);
    cmc_ids ids = {0};
    cmc_error err = {0};
    assert_int_equal(cmc_tokenize(delta, (const char *)s, n, CMC_TOK_CONTINUE, &ids, &err), CMC_OK);
    int32_t to = ids.n ? ids.v[0] : -1;
    cmc_ids_free(&ids);
    if (to < 0) {
        return -1;
    }
    const uint8_t *t = cmc_vocab_bytes(delta, to, &k);
    bool cut = k < n && (s[k] & 0xc0) == 0x80;
    bool begins = k > 0 && k <= n && memcmp(s, t, k) == 0;
    bool byte = delta->kind[to] != CMC_KIND_NORMAL && delta->kind[to] != CMC_KIND_USER;
    return byte || !begins || cut || (map_blank(t, k) && !map_blank(s, n)) ? -1 : to;
}

/* Gives how many entries differ from the rule `prefix`. */
static size_t check_pair(const cmc_vocab *host, const cmc_vocab *delta, int32_t step) {
    cmc_map *m = build(host, delta, CMC_RULE_DEFAULT), *p = build(host, delta, CMC_RULE_PREFIX);
    size_t differ = 0;
    for (int32_t id = 0; id < host->n; id++) {
        bool is_text = host->kind[id] == CMC_KIND_NORMAL || host->kind[id] == CMC_KIND_USER;
        bool inexact = p->how[id] == CMC_HOW_PREFIX || (p->how[id] == CMC_HOW_NONE && is_text && !host->is_end[id] &&
                                                         !(host->roles[id] & (CMC_ROLE_BOS | CMC_ROLE_PAD | CMC_ROLE_UNK)) &&
                                                         host->byte_off[id] < host->byte_off[id + 1]);
        differ += m->to[id] != p->to[id];
        if (!inexact) {
            assert_int_equal(m->to[id], p->to[id]);
            assert_int_equal(m->how[id], p->how[id]);
            assert_int_equal(m->distance[id], p->distance[id]);
        } else if (id % step == 0) {
            int32_t want = first_by_definition(host, delta, id);
            if (m->to[id] != want) {
                fail_msg("host token %d: %d, wanted %d", id, m->to[id], want);
            }
            assert_int_equal(m->how[id], want < 0 ? CMC_HOW_NONE : CMC_HOW_PREFIX);
        }
    }
    cmc_map_free(m);
    cmc_map_free(p);
    return differ;
}

static void test_tiny_vocabularies(void **state) {
    (void)state;
    static const struct { const char *vocab, *pre; int32_t n; } kinds[] = {
        {"bpe", NULL, 0}, {"bpe", "llama-bpe", 60}, {"bpe", "qwen2", 150}, {"spm", NULL, 0}, {"spm", NULL, 70},
    };
    enum { KINDS = sizeof kinds / sizeof *kinds };
    cmc_vocab *v[KINDS];
    size_t differ = 0;
    char *dir = tiny_dir_new();
    cmc_error err = {0};
    for (size_t i = 0; i < KINDS; i++) {
        const char *path = tiny_path(dir, "v.gguf");
        tiny_spec spec = {.arch = "llama", .vocab = kinds[i].vocab, .pre = kinds[i].pre, .n_learnt = kinds[i].n,
                          .vocab_only = true};
        assert_int_equal(tiny_write(&spec, path, &err), CMC_OK);
        assert_int_equal(cmc_vocab_open(path, &v[i], &err), CMC_OK);
    }
    for (size_t i = 0; i < KINDS; i++) {
        for (size_t k = 0; k < KINDS; k++) {
            differ += i == k ? 0 : check_pair(v[i], v[k], 1);
        }
    }
    assert_true(differ > 20); /* else the rules could be one */
    for (size_t i = 0; i < KINDS; i++) {
        cmc_vocab_free(v[i]);
    }
    tiny_dir_free(dir);
}

/* Both ways between real vocabularies, where the work is shared out over threads; every 97th entry is worked out again. */
static void test_real_vocabularies(void **state) {
    (void)state;
    const char *a = getenv("CMC_TEST_SMOLLM2"), *b = getenv("CMC_TEST_GEMMA");
    cmc_vocab *v[2];
    cmc_error err = {0};
    if (!a || !b) {
        puts("SKIP real vocabularies: CMC_TEST_SMOLLM2 and CMC_TEST_GEMMA are not both set");
        return;
    }
    assert_int_equal(cmc_vocab_open(a, &v[0], &err), CMC_OK);
    assert_int_equal(cmc_vocab_open(b, &v[1], &err), CMC_OK);
    assert_true(check_pair(v[1], v[0], 97) > 1000);
    assert_true(check_pair(v[0], v[1], 97) > 100);
    cmc_vocab_free(v[0]);
    cmc_vocab_free(v[1]);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_tiny_vocabularies),
        cmocka_unit_test(test_real_vocabularies),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
