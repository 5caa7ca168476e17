/* Word diffs: longest common subsequences against the table in full, and what must hold of any two texts. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

#include "eval/lcs.h"
#include "eval/word_diff.h"

enum { MOST = 40 };

static uint64_t next_random(uint64_t *state) {
    *state ^= *state << 13;
    *state ^= *state >> 7;
    *state ^= *state << 17;
    return *state;
}

static size_t random_list(uint64_t *rng, int32_t *v) {
    size_t n = next_random(rng) % (MOST + 1), kinds = 1 + next_random(rng) % 6;
    for (size_t i = 0; i < n; i++)
        v[i] = (int32_t)(next_random(rng) % kinds);
    return n;
}

/* By the definition: the table of all pairs of heads. */
static size_t plain_lcs(const int32_t *a, size_t n, const int32_t *b, size_t m) {
    size_t t[MOST + 1][MOST + 1] = {{0}};
    for (size_t i = 1; i <= n; i++) {
        for (size_t k = 1; k <= m; k++) {
            size_t skip = t[i - 1][k] > t[i][k - 1] ? t[i - 1][k] : t[i][k - 1];
            t[i][k] = a[i - 1] == b[k - 1] ? t[i - 1][k - 1] + 1 : skip;
        }
    }
    return t[n][m];
}

static size_t marked(const int32_t *v, const bool *in, size_t n, int32_t *out) {
    size_t count = 0;
    for (size_t i = 0; i < n; i++) {
        if (in[i])
            out[count++] = v[i];
    }
    return count;
}

/* What is marked is the same list on both sides, and as long as any can be. */
static void test_lcs(void **state) {
    (void)state;
    uint64_t rng = 1;
    for (int round = 0; round < 2000; round++) {
        int32_t a[MOST + 1], b[MOST + 1], x[MOST + 1], y[MOST + 1];
        bool in_a[MOST + 1], in_b[MOST + 1];
        size_t row[MOST + 1], n = random_list(&rng, a), m = random_list(&rng, b), want = plain_lcs(a, n, b, m);
        assert_int_equal(lcs_mark(a, n, b, m, in_a, in_b), CMC_OK);
        assert_int_equal(marked(a, in_a, n, x), want);
        assert_int_equal(marked(b, in_b, m, y), want);
        assert_memory_equal(x, y, want * sizeof *x);
        for (int from_end = 0; from_end < 2; from_end++) {
            lcs_lengths(a, n, b, m, from_end, row);
            for (size_t k = 0; k <= m; k++)
                assert_int_equal(row[k], from_end ? plain_lcs(a, n, b + m - k, k) : plain_lcs(a, n, b, k));
        }
    }
}

/* The runs of one side, each in brackets. */
static void show(const char *s, const diff_run *run, size_t n, char *out) {
    size_t at = 0;
    for (size_t i = 0; i < n; i++) {
        out += sprintf(out, "%.*s[%.*s]", (int)(run[i].first - at), s + at, (int)run[i].len, s + run[i].first);
        at = run[i].first + run[i].len;
    }
    strcpy(out, s + at);
}

static void check_diff(const char *a, const char *b, const char *want_a, const char *want_b) {
    const char *text[2] = {a, b}, *want[2] = {want_a, want_b};
    size_t len[2] = {strlen(a), strlen(b)};
    word_diff d;
    char shown[400];
    assert_int_equal(word_diff_make(text, len, &d), CMC_OK);
    for (int k = 0; k < 2; k++) {
        show(text[k], d.run[k], d.n[k], shown);
        assert_string_equal(shown, want[k]);
    }
    word_diff_free(&d);
}

static void test_texts(void **state) {
    (void)state;
    check_diff("", "", "", "");
    check_diff("one two", "one two", "one two", "one two");
    check_diff("one  two\n", " one two", "one  two\n", " one two");      /* white space does not count */
    check_diff("the old cat sat", "the cat sat down", "the [old] cat sat", "the cat sat [down]");
    check_diff("a b c", "x  y\tz", "[a b c]", "[x  y\tz]");                  /* neighbours are one run */
    check_diff("a b c", "", "[a b c]", "");
    check_diff("Yes. It is.", "Yes, it is.", "[Yes. It] is.", "[Yes, it] is.");
    check_diff("a x b", "a y b", "a [x] b", "a [y] b");
    check_diff("caf\xC3\xA9 \xC3", "caf\xC3 \xC3", "[caf\xC3\xA9] \xC3", "[caf\xC3] \xC3");   /* bytes, whole characters or not */
}

int main(void) {
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_lcs), cmocka_unit_test(test_texts)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
