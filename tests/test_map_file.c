/* Map files: what is written comes back, and what is wrong with a file is said in one line. */
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h>

#include "base/file.h"
#include "tests/tiny.h"
#include "tests/vocab_make.h"
#include "tokenmap/map.h"

static int set_up(void **state) {
    *state = tiny_dir_new();
    return *state ? 0 : -1;
}

static int tear_down(void **state) {
    tiny_dir_free(*state);
    return 0;
}

static void write_file(const char *path, const char *s, size_t n) {
    FILE *f = fopen(path, "wb");
    assert_non_null(f);
    assert_int_equal(fwrite(s, 1, n, f), n);
    assert_int_equal(fclose(f), 0);
}

static void test_good_lists(void **state) {
    static const struct { const char *text; int32_t want[3]; bool identity, complete; } cases[] = {
        {"[0, 1, 2]", {0, 1, 2}, false, true},
        {"[4,-1,0]", {4, -1, 0}, false, false},
        {" \r\n[\t-1 ,\n -1, -1 ] \n", {-1, -1, -1}, false, false},
        {"[-0, 0, 0]", {0, 0, 0}, false, true},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        const char *path = tiny_path(*state, "map.json");
        write_file(path, cases[i].text, strlen(cases[i].text));
        cmc_map *m;
        assert_int_equal(cmc_map_import(path, 3, 5, &m, NULL), CMC_OK);
        int mapped = 0;
        for (int32_t id = 0; id < 3; id++) {
            cmc_map_how how;
            assert_int_equal(cmc_map_get(m, id, &how, NULL), cases[i].want[id]);
            assert_int_equal(how, cases[i].want[id] < 0 ? CMC_HOW_NONE : CMC_HOW_OVERRIDE);
            mapped += cases[i].want[id] >= 0;
        }
        cmc_map_counts c;
        cmc_map_counts_get(m, &c);
        assert_int_equal(c.override_, mapped);
        assert_int_equal(c.none, 3 - mapped);
        assert_int_equal(m->identity, cases[i].identity);
        assert_int_equal(m->complete, cases[i].complete);
        cmc_map_free(m);
    }
    cmc_map *m;
    assert_int_equal(map_import_memory((const uint8_t *)"[0,1,2]", 7, "x", 3, 3, &m, NULL), CMC_OK);
    assert_true(m->identity);
    cmc_map_free(m);
}

#define BAD(text, word) {text, sizeof text - 1, word}

static void test_bad_lists_are_named(void **state) {
    static const struct { const char *text; size_t n; const char *word; } cases[] = {
        BAD("", "line 1"),
        BAD("   ", "line 1"),
        BAD("[0, 1, 2", "line 1"),
        BAD("[0, 1, 2]]", "line 1"),
        BAD("[0, 1,\n 2,]", "line 2"),
        BAD("[0, 1, 2] trailing", "line 1"),
        BAD("[0, 1, 2]\0", "line 1"),
        BAD("[0, \0 1, 2]", "line 1"),
        BAD("[0, 1, \"\xFF\"]", "line 1"),
        BAD("[0, 1, \"a\nb\"]", "line 1"),
        BAD("\xEF\xBB\xBF", "line 1"),
        BAD("\xEF\xBB\xBF\xEF\xBB\xBF[0, 1, 2]", "line 1"),
        BAD("{\"0\": 1}", "should be a list of 3"),
        BAD("3", "line 1"),
        BAD("null", "line 1"),
        BAD("[]", "0 elements, should be 3"),
        BAD("[0, 1]", "2 elements, should be 3"),
        BAD("[0, 1, 2, 3]", "4 elements, should be 3"),
        BAD("[0, 1, 5]", "element 2 is 5, should be -1 (none) or 0 to 4"),
        BAD("[-2, 1, 2]", "element 0 is -2"),
        BAD("[0, 4294967296, 2]", "element 1 is 4294967296"),
        BAD("[0, -9223372036854775808, 2]", "element 1 is -9223372036854775808"),
        BAD("[0, 9223372036854775808, 2]", "line 1"),
        BAD("[0, 1.0, 2]", "element 1 is a fraction"),
        BAD("[0, 1, 1e2]", "element 2 is a fraction"),
        BAD("[0, \"1\", 2]", "element 1 is a string"),
        BAD("[0, null, 2]", "element 1 is null"),
        BAD("[true, 1, 2]", "element 0 is true"),
        BAD("[false, 1, 2]", "element 0 is false"),
        BAD("[0, [1], 2]", "element 1 is a list"),
        BAD("[0, {}, 2]", "element 1 is an object"),
        BAD("[01, 1, 2]", "line 1"),
        BAD("[NaN, 1, 2]", "line 1"),
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        const char *path = tiny_path(*state, "bad.json");
        write_file(path, cases[i].text, cases[i].n);
        cmc_map *m = (cmc_map *)&cases;
        cmc_error err = {0};
        assert_int_equal(cmc_map_import(path, 3, 5, &m, &err), CMC_E_FORMAT);
        assert_null(m);
        assert_int_equal(err.status, CMC_E_FORMAT);
        assert_ptr_equal(strstr(err.message, path), err.message);
        if (!strstr(err.message, cases[i].word) || strchr(err.message, '\n')) {
            fail_msg("case %zu: message \"%s\" should hold \"%s\"", i, err.message, cases[i].word);
        }
    }
}

/* Deeper than the parser goes, and longer than such a list can be. */
static void test_deep_and_long_files(void **state) {
    enum { DEEP = 4000, LONG = 3 * 64 + 4096 };
    static char deep[DEEP], padded[LONG + 1];
    (void)state;
    memset(deep, '[', DEEP);
    cmc_map *m;
    cmc_error err = {0};
    assert_int_equal(map_import_memory((const uint8_t *)deep, DEEP, "deep", 3, 5, &m, &err), CMC_E_FORMAT);
    assert_null(m);
    memset(padded, ' ', sizeof padded);
    memcpy(padded, "[0,1,2]", 7);
    assert_int_equal(map_import_memory((const uint8_t *)padded, LONG, "long", 3, 5, &m, &err), CMC_OK);
    cmc_map_free(m);
    assert_int_equal(map_import_memory((const uint8_t *)padded, LONG + 1, "long", 3, 5, &m, &err), CMC_E_FORMAT);
    assert_null(m);
    assert_non_null(strstr(err.message, "4289 bytes"));
}

static void test_places_that_are_no_files(void **state) {
    cmc_map *m;
    cmc_error err = {0};
    assert_int_equal(cmc_map_import(tiny_path(*state, "missing.json"), 3, 5, &m, &err), CMC_E_IO);
    assert_null(m);
    assert_non_null(strstr(err.message, "missing.json"));
    assert_int_equal(cmc_map_import(*state, 3, 5, &m, &err), CMC_E_IO);
    assert_null(m);
    assert_int_equal(cmc_map_import(tiny_path(*state, "x"), 3, 5, &m, NULL), CMC_E_IO);
    static const int32_t sizes[][2] = {{0, 5}, {5, 0}, {-1, 5}, {5, -1}};
    for (size_t i = 0; i < 4; i++) {
        const uint8_t *list = (const uint8_t *)"[]";
        assert_int_equal(map_import_memory(list, 2, "x", sizes[i][0], sizes[i][1], &m, &err), CMC_E_ARG);
        assert_null(m);
    }
}

static cmc_map *built_map(void) {
    static const token_spec host[] = {{"</s>", CMC_KIND_CONTROL, CMC_ROLE_EOS, 0, false}, {"the", 0, 0, 0, false},
                                      {"zz", 0, 0, 0, false}, {"]", CMC_KIND_BYTE, 0, 0, false}};
    static const token_spec delta[] = {{"th", 0, 0, 0, false}, {"]", CMC_KIND_BYTE, 0, 0, false},
                                       {"</s>", CMC_KIND_CONTROL, CMC_ROLE_EOS, 0, false}};
    cmc_vocab *h = vocab_make(host, 4), *d = vocab_make(delta, 3);
    assert_true(h && d);
    cmc_map *m;
    assert_int_equal(cmc_map_build(h, d, CMC_RULE_PREFIX, &m, NULL), CMC_OK);
    cmc_vocab_free(h);
    cmc_vocab_free(d);
    return m;
}

/* The very bytes that Python's json.dump would write, and back. */
static void test_export_and_import(void **state) {
    const char *path = tiny_path(*state, "out.json");
    cmc_map *m = built_map(), *again;
    assert_int_equal(cmc_map_export(m, path, NULL), CMC_OK);
    cmc_file f;
    assert_int_equal(cmc_file_map(path, &f, NULL), CMC_OK);
    static const char want[] = "[2, 0, -1, 1]";
    assert_int_equal(f.size, sizeof want - 1);
    assert_memory_equal(f.data, want, sizeof want - 1);
    cmc_file_unmap(&f);
    assert_int_equal(cmc_map_import(path, 4, 3, &again, NULL), CMC_OK);
    assert_memory_equal(m->to, again->to, 4 * sizeof *m->to);
    cmc_map_free(m);
    cmc_map_free(again);
}

/* Where it cannot be written nothing is left, and a file that was there stays as it was. */
static void test_export_is_whole_or_nothing(void **state) {
    cmc_map *m = built_map();
    cmc_error err = {0};
    assert_int_equal(cmc_map_export(m, tiny_path(*state, "no/such/place.json"), &err), CMC_E_IO);
    assert_non_null(strstr(err.message, "place.json"));
    const char *dir = tiny_path(*state, "dir.json");
    assert_int_equal(mkdir(dir, 0700), 0);
    assert_int_equal(cmc_map_export(m, dir, &err), CMC_E_IO);
    struct stat st;
    assert_true(stat(dir, &st) == 0 && S_ISDIR(st.st_mode));
    assert_int_equal(rmdir(dir), 0);
    cmc_map_free(m);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_good_lists, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_bad_lists_are_named, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_deep_and_long_files, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_places_that_are_no_files, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_export_and_import, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_export_is_whole_or_nothing, set_up, tear_down),
    };
    return cmocka_run_group_tests_name("map files", tests, NULL, NULL);
}
