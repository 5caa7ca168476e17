/* The map's two rules case by case, its counts, and vocabularies of hard shapes; test_map_brute.c tries them on all. */
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "base/mem.h"
#include "tests/vocab_make.h"
#include "tokenmap/map.h"

typedef struct entry { int32_t to; cmc_map_how how; int32_t distance; } entry;

static cmc_map *build(const cmc_vocab *host, const cmc_vocab *delta, cmc_map_rule rule) {
    cmc_map *m;
    cmc_error err;
    if (cmc_map_build(host, delta, rule, &m, &err) != CMC_OK) {
        fail_msg("%s", err.message);
    }
    return m;
}

/* -------------------------------------------------------------------------------------------------- case by case */

#define NORMAL(s) {s, CMC_KIND_NORMAL, 0, 0, false}
#define USER(s) {s, CMC_KIND_USER, 0, 0, false}
#define BYTE(s) {s, CMC_KIND_BYTE, 0, 1, false}
#define CONTROL(s) {s, CMC_KIND_CONTROL, 0, 0, false}
#define UNUSED(s) {s, CMC_KIND_UNUSED, 0, 0, false}
#define ROLE(s, r) {s, CMC_KIND_CONTROL, r, 0, false}
#define NAMED_END(s) {s, CMC_KIND_CONTROL, 0, 0, true}

/* Maps the one host token `host` (behind two fillers and an end token, so that its id is 3) and gives its entry. */
static entry map_one(token_spec host, const token_spec *delta, size_t n, cmc_map_rule rule) {
    const token_spec all[] = {ROLE("<unk>", CMC_ROLE_UNK), ROLE("<s>", CMC_ROLE_BOS), ROLE("</s>", CMC_ROLE_EOS), host};
    cmc_vocab *h = vocab_make(all, 4), *d = vocab_make(delta, n);
    assert_true(h && d);
    cmc_map *m = build(h, d, rule);
    entry e;
    e.to = cmc_map_get(m, 3, &e.how, &e.distance);
    cmc_map_free(m);
    cmc_vocab_free(h);
    cmc_vocab_free(d);
    return e;
}

typedef struct map_case {
    const char *what;
    token_spec host, delta[8];       /* ends at the first whose bytes are NULL */
    entry want;
} map_case;

static const map_case PREFIX_CASES[] = {
    {"the same bytes", NORMAL(" the"), {NORMAL("the"), NORMAL(" the")}, {1, CMC_HOW_EXACT, 0}},
    {"the longest prefix", NORMAL("there"), {NORMAL("t"), NORMAL("the"), NORMAL("th")}, {1, CMC_HOW_PREFIX, 2}},
    {"the shortest extension", NORMAL("th"), {NORMAL("there"), NORMAL("them"), NORMAL("this")}, {1, CMC_HOW_PREFIX, 2}},
    {"a tie of prefix and extension", NORMAL("the"), {NORMAL("them"), NORMAL("th")}, {0, CMC_HOW_PREFIX, 1}},
    {"the same tie, the other way", NORMAL("the"), {NORMAL("th"), NORMAL("them")}, {0, CMC_HOW_PREFIX, 1}},
    {"only near, no prefix", NORMAL("the"), {NORMAL("tha"), NORMAL("he")}, {-1, CMC_HOW_NONE, 0}},
    {"normal before user-defined", NORMAL("x"), {USER("x"), NORMAL("x")}, {1, CMC_HOW_EXACT, 0}},
    {"normal before byte", NORMAL("]"), {BYTE("]"), NORMAL("]")}, {1, CMC_HOW_EXACT, 0}},
    {"user-defined before byte", NORMAL("]"), {BYTE("]"), USER("]")}, {1, CMC_HOW_EXACT, 0}},
    {"the byte token where it is the only one", NORMAL("\n"), {BYTE("\n"), NORMAL("n")}, {0, CMC_HOW_BYTE, 0}},
    {"a byte token is no prefix", NORMAL("\n\n"), {BYTE("\n")}, {-1, CMC_HOW_NONE, 0}},
    {"byte to byte", BYTE("]"), {NORMAL("]"), BYTE("]")}, {1, CMC_HOW_BYTE, 0}},
    {"byte to the text of that byte", BYTE("]"), {NORMAL("[]"), NORMAL("]")}, {1, CMC_HOW_BYTE, 0}},
    {"byte to no longer text", BYTE("]"), {NORMAL("])")}, {-1, CMC_HOW_NONE, 0}},
    {"user-defined counts as text", USER("\n\n\n"), {NORMAL("\n\n")}, {0, CMC_HOW_PREFIX, 1}},
    {"white space is not text", NORMAL(" a"), {NORMAL(" "), NORMAL("\t")}, {-1, CMC_HOW_NONE, 0}},
    {"wide space is not text", NORMAL("\xE3\x80\x80z"), {NORMAL("\xE3\x80\x80")}, {-1, CMC_HOW_NONE, 0}},
    {"white space for white space", NORMAL("    "), {NORMAL(" "), NORMAL("  ")}, {1, CMC_HOW_PREFIX, 2}},
    {"text after white space", NORMAL("  a"), {NORMAL("  "), NORMAL("  abc")}, {1, CMC_HOW_PREFIX, 2}},
    {"no cut within a character", NORMAL("\xC3\xA9"), {NORMAL("\xC3")}, {-1, CMC_HOW_NONE, 0}},
    {"nor in the other direction", NORMAL("\xE4"), {NORMAL("\xE4\xB8\xAD")}, {-1, CMC_HOW_NONE, 0}},
    {"a combining mark may be cut off", NORMAL("e\xCC\x81"), {NORMAL("e")}, {0, CMC_HOW_PREFIX, 2}},
    {"distances in bytes", NORMAL("a"), {NORMAL("a\xE4\xB8\xAD"), NORMAL("abc")}, {1, CMC_HOW_PREFIX, 2}},
    {"control to nothing", CONTROL("<pad>"), {CONTROL("<pad>"), NORMAL("<pad>")}, {-1, CMC_HOW_NONE, 0}},
    {"no text to control", NORMAL("<pad>"), {CONTROL("<pad>")}, {-1, CMC_HOW_NONE, 0}},
    {"unused to nothing", UNUSED("q"), {UNUSED("q"), NORMAL("q")}, {-1, CMC_HOW_NONE, 0}},
    {"no text to unused", NORMAL("q"), {UNUSED("q")}, {-1, CMC_HOW_NONE, 0}},
    {"empty to nothing", NORMAL(""), {NORMAL("q"), NORMAL("")}, {-1, CMC_HOW_NONE, 0}},
    {"nothing to empty", NORMAL("q"), {NORMAL("")}, {-1, CMC_HOW_NONE, 0}},
    {"bos to nothing", ROLE("<bos>", CMC_ROLE_BOS), {ROLE("<bos>", CMC_ROLE_BOS)}, {-1, CMC_HOW_NONE, 0}},
    {"eos to eos", ROLE("</s>", CMC_ROLE_EOS), {ROLE("<eot>", CMC_ROLE_EOT), ROLE("<eos>", CMC_ROLE_EOS)},
     {1, CMC_HOW_ROLE, 0}},
    {"eot to eot", ROLE("<im_end>", CMC_ROLE_EOT), {ROLE("<eos>", CMC_ROLE_EOS), ROLE("<eot>", CMC_ROLE_EOT)},
     {1, CMC_HOW_ROLE, 0}},
    {"eot to eos", ROLE("<im_end>", CMC_ROLE_EOT), {ROLE("<eos>", CMC_ROLE_EOS)}, {0, CMC_HOW_ROLE, 0}},
    {"eos to eot", ROLE("</s>", CMC_ROLE_EOS), {NORMAL("</s>"), ROLE("<eot>", CMC_ROLE_EOT)}, {1, CMC_HOW_ROLE, 0}},
    {"an end by name to eot", NAMED_END("<turn>"), {ROLE("<eos>", CMC_ROLE_EOS), ROLE("<eot>", CMC_ROLE_EOT)},
     {1, CMC_HOW_ROLE, 0}},
    {"eos to an end by name", ROLE("</s>", CMC_ROLE_EOS), {NORMAL("a"), NAMED_END("<turn>")}, {1, CMC_HOW_ROLE, 0}},
    {"eos where nothing ends", ROLE("</s>", CMC_ROLE_EOS), {NORMAL("</s>"), CONTROL("</s>")}, {-1, CMC_HOW_NONE, 0}},
    {"bos that is eos too", ROLE("<end>", CMC_ROLE_BOS | CMC_ROLE_EOS),
     {ROLE("<eos>", CMC_ROLE_EOS)}, {0, CMC_HOW_ROLE, 0}},
    {"one token for one", NORMAL("a"), {NORMAL("a")}, {0, CMC_HOW_EXACT, 0}},
};

static const map_case REFERENCE_CASES[] = {
    {"the identical spelling", NORMAL(" the"), {NORMAL("the"), NORMAL(" the")}, {1, CMC_HOW_EXACT, 0}},
    {"brackets: the same id", NORMAL("<abc>"), {NORMAL("<abc>"), NORMAL("b"), NORMAL("c"), NORMAL("d")},
     {3, CMC_HOW_ROLE, 0}},
    {"brackets beyond the delta", NORMAL("<abc>"), {NORMAL("<abc>")}, {-1, CMC_HOW_NONE, 0}},
    {"two characters are no brackets", NORMAL("<>"), {NORMAL("<>"), NORMAL("b"), NORMAL("c"), NORMAL("d")},
     {0, CMC_HOW_EXACT, 0}},
    {"a byte token: the same id", BYTE("x"), {NORMAL("x"), NORMAL("b"), NORMAL("c"), NORMAL("d")},
     {3, CMC_HOW_BYTE, 0}},
    {"bare space is no candidate", NORMAL(" a"), {NORMAL(" "), NORMAL("b")}, {-1, CMC_HOW_NONE, 0}},
    {"but for spaces it is", NORMAL("   "), {NORMAL("b"), NORMAL(" ")}, {1, CMC_HOW_PREFIX, 2}},
    {"two spaces are a candidate", NORMAL("  a"), {NORMAL(" "), NORMAL("  ")}, {1, CMC_HOW_PREFIX, 1}},
    {"distances in characters", NORMAL("a"), {NORMAL("a\xE4\xB8\xAD"), NORMAL("ab")}, {0, CMC_HOW_PREFIX, 1}},
    {"a tie to the lowest id", NORMAL("the"), {NORMAL("x"), NORMAL("them"), NORMAL("th")}, {1, CMC_HOW_PREFIX, 1}},
    {"a byte token's spelling is a candidate", NORMAL("<0x4"), {BYTE("A")}, {0, CMC_HOW_PREFIX, 2}},
    {"a control token's spelling too", NORMAL("<pa"), {CONTROL("<pad>")}, {0, CMC_HOW_PREFIX, 2}},
};

static void run_cases(const map_case *cases, size_t n, cmc_map_rule rule) {
    for (size_t i = 0; i < n; i++) {
        size_t n_delta = 0;
        while (n_delta < 8 && cases[i].delta[n_delta].bytes) {
            n_delta++;
        }
        entry got = map_one(cases[i].host, cases[i].delta, n_delta, rule), want = cases[i].want;
        if (got.to != want.to || got.how != want.how || got.distance != want.distance) {
            fail_msg("%s: %d (how %d, distance %d), should be %d (how %d, distance %d)", cases[i].what, (int)got.to,
                     (int)got.how, (int)got.distance, (int)want.to, (int)want.how, (int)want.distance);
        }
    }
}

static void test_default_rule_case_by_case(void **state) {
    (void)state;
    run_cases(PREFIX_CASES, sizeof PREFIX_CASES / sizeof *PREFIX_CASES, CMC_RULE_PREFIX);
}

static void test_reference_rule_case_by_case(void **state) {
    (void)state;
    run_cases(REFERENCE_CASES, sizeof REFERENCE_CASES / sizeof *REFERENCE_CASES, CMC_RULE_REFERENCE);
}

/* Equal vocabularies, in two objects: identity for every token, control, unused, repeated and empty ones too. */
static void test_equal_vocabularies_map_by_identity(void **state) {
    (void)state;
    const token_spec tokens[] = {ROLE("<bos>", CMC_ROLE_BOS), ROLE("<eos>", CMC_ROLE_EOS), BYTE("a"), NORMAL("a"),
                                 NORMAL("a"), NORMAL(""), UNUSED("u"), CONTROL("<c>"), USER("a")};
    enum { N = sizeof tokens / sizeof *tokens };
    cmc_vocab *a = vocab_make(tokens, N), *b = vocab_make(tokens, N), *shorter = vocab_make(tokens, N - 1);
    assert_true(a && b && shorter);
    cmc_map *m = build(a, b, CMC_RULE_PREFIX);
    assert_true(m->identity && m->complete);
    for (int32_t i = 0; i < N; i++) {
        assert_int_equal(cmc_map_get(m, i, NULL, NULL), i);
    }
    cmc_map_counts c;
    cmc_map_counts_get(m, &c);
    assert_true(c.identity);
    assert_int_equal(c.role, 3);
    assert_int_equal(c.byte, 1);
    assert_int_equal(c.exact, 5);
    cmc_map_free(m);
    m = build(a, shorter, CMC_RULE_PREFIX);
    assert_false(m->identity || m->complete);
    cmc_map_free(m);
    cmc_vocab_free(a);
    cmc_vocab_free(b);
    cmc_vocab_free(shorter);
}

static void test_counts_and_bounds(void **state) {
    (void)state;
    const token_spec tokens[] = {ROLE("<s>", CMC_ROLE_BOS), ROLE("</s>", CMC_ROLE_EOS), BYTE("a"), NORMAL("the"),
                                 NORMAL("then"), NORMAL("x"), USER("the")};
    cmc_vocab *host = vocab_make(tokens, 7), *delta = vocab_make(tokens, 4);
    assert_true(host && delta);
    cmc_map *m = build(host, delta, CMC_RULE_PREFIX);
    cmc_map_counts c;
    cmc_map_counts_get(m, &c);
    assert_int_equal(c.n_host, 7);
    assert_int_equal(c.n_delta, 4);
    assert_int_equal(c.role, 1);
    assert_int_equal(c.byte, 1);
    assert_int_equal(c.exact, 2);
    assert_int_equal(c.prefix, 1);
    assert_int_equal(c.none, 2);
    assert_true(c.seconds >= 0 && c.override_ == 0);
    cmc_map_how how = CMC_HOW_EXACT;
    int32_t distance = 7;
    assert_int_equal(cmc_map_get(m, -1, &how, &distance), -1);
    assert_int_equal(how, CMC_HOW_NONE);
    assert_int_equal(distance, 0);
    assert_int_equal(cmc_map_get(m, 7, NULL, NULL), -1);
    cmc_map_free(m);
    cmc_error err;
    assert_int_equal(cmc_map_build(host, delta, (cmc_map_rule)9, &m, &err), CMC_E_ARG);
    assert_null(m);
    cmc_vocab_free(host);
    cmc_vocab_free(delta);
    cmc_map_free(NULL);
}

/* Tokens that nest a thousand deep, and thousands of one token: neither the stack nor the time runs out. */
static void test_deep_nests_and_repeats(void **state) {
    (void)state;
    enum { N = 3000 };
    char *a = cmc_alloc(N + 1, 1);
    token_spec *nest = cmc_calloc(N, sizeof *nest), *many = cmc_calloc(N, sizeof *many);
    assert_true(a && nest && many);
    memset(a, 'a', N);
    for (size_t i = 0; i < N; i++) {
        nest[i] = (token_spec){a, CMC_KIND_NORMAL, 0, N - i, false};
        many[i] = (token_spec)NORMAL("ab");
    }
    cmc_vocab *deep = vocab_make(nest, N), *flat = vocab_make(many, N);
    assert_true(deep && flat);
    cmc_map *m = build(flat, deep, CMC_RULE_PREFIX);
    assert_int_equal(cmc_map_get(m, 0, NULL, NULL), N - 1);           /* "a" */
    assert_int_equal(cmc_map_get(m, N - 1, NULL, NULL), N - 1);
    cmc_map_free(m);
    m = build(deep, flat, CMC_RULE_PREFIX);
    assert_int_equal(cmc_map_get(m, N - 1, NULL, NULL), 0);           /* "a" to "ab" */
    assert_int_equal(cmc_map_get(m, 0, NULL, NULL), -1);
    cmc_map_free(m);
    cmc_vocab_free(deep);
    cmc_vocab_free(flat);
    free(a);
    free(nest);
    free(many);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_default_rule_case_by_case),
        cmocka_unit_test(test_reference_rule_case_by_case),
        cmocka_unit_test(test_equal_vocabularies_map_by_identity),
        cmocka_unit_test(test_counts_and_bounds),
        cmocka_unit_test(test_deep_nests_and_repeats),
    };
    return cmocka_run_group_tests_name("map", tests, NULL, NULL);
}
