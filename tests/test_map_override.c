/* Hand edits of a map: what a line does, what is wrong with one and what is said of it, and that a bad file changes
 * nothing. */
#include "tests/vocab_help.h"
#include "tests/vocab_make.h"
#include "tokenmap/map.h"

#define NORMAL(s) {s, CMC_KIND_NORMAL, 0, 0, false}
#define SPACE_MARK "\xE2\x96\x81"

static const token_spec HOST[] = {
    {"<s>", CMC_KIND_CONTROL, CMC_ROLE_BOS, 0, false}, {"</s>", CMC_KIND_CONTROL, CMC_ROLE_EOS, 0, false},
    NORMAL(" the"), {"]", CMC_KIND_BYTE, 0, 1, false}, NORMAL("]"), NORMAL("a"), {"a", CMC_KIND_USER, 0, 0, false},
    {"\"\\\n\x01", CMC_KIND_NORMAL, 0, 0, false}, NORMAL("zebra"), {"n\0l", CMC_KIND_NORMAL, 0, 3, false},
    NORMAL("\xE4\xB8"), NORMAL("none"), NORMAL("8"), NORMAL("#"),
};
static const token_spec DELTA[] = {
    {"</s>", CMC_KIND_CONTROL, CMC_ROLE_EOS, 0, false}, NORMAL(" the"), NORMAL("]"), NORMAL("b"), NORMAL("b"),
    NORMAL("#"), NORMAL("none"),
};
enum { N_HOST = sizeof HOST / sizeof *HOST, N_DELTA = sizeof DELTA / sizeof *DELTA };

typedef struct fixture { cmc_vocab *host, *delta; cmc_map *m; char *dir; } fixture;

static cmc_map *built(const cmc_vocab *host, const cmc_vocab *delta) {
    cmc_map *m;
    assert_int_equal(cmc_map_build(host, delta, CMC_RULE_PREFIX, &m, NULL), CMC_OK);
    return m;
}

/* map_override_memory, which must succeed. */
static void edit(cmc_map *m, const cmc_vocab *host, const cmc_vocab *delta, const char *lines, size_t n) {
    cmc_error err = {0};
    if (map_override_memory(m, host, delta, (const uint8_t *)lines, n, "edits", &err) != CMC_OK) {
        fail_msg("%s", err.message);
    }
}

static int set_up(void **state) {
    static fixture f;
    f.host = vocab_make(HOST, N_HOST);
    f.delta = vocab_make(DELTA, N_DELTA);
    f.dir = tiny_dir_new();
    if (!f.host || !f.delta || !f.dir) {
        return -1;
    }
    f.m = built(f.host, f.delta);
    *state = &f;
    return 0;
}

static int tear_down(void **state) {
    fixture *f = *state;
    cmc_map_free(f->m);
    cmc_vocab_free(f->host);
    cmc_vocab_free(f->delta);
    tiny_dir_free(f->dir);
    return 0;
}

static const char *write_file(const fixture *f, const char *s, size_t n) {
    const char *path = tiny_path(f->dir, "map.txt");
    FILE *file = fopen(path, "wb");
    assert_non_null(file);
    assert_int_equal(fwrite(s, 1, n, file), n);
    assert_int_equal(fclose(file), 0);
    return path;
}

/* Text, and what the one host token that it names maps to afterwards. */
#define GOOD(text, host, to) {text, sizeof text - 1, host, to}

static void test_what_a_line_does(void **state) {
    fixture *f = *state;
    static const struct { const char *text; size_t n; int32_t host, to; } cases[] = {
        GOOD("2 -> 3", 2, 3),
        GOOD("2->3\n", 2, 3),
        GOOD(" \t2\t->  3 \r\n", 2, 3),
        GOOD("002 -> 03", 2, 3),
        GOOD("\n\n# nothing\n  # nothing\n2 -> 3 # why\n", 2, 3),
        GOOD("2 -> 3#why", 2, 3),
        GOOD("\xEF\xBB\xBF" "2 -> 3", 2, 3),
        GOOD("2 -> none", 2, -1),
        GOOD("2 -> none# -> 3", 2, -1),
        GOOD("1 -> none", 1, -1),
        GOOD("\"" SPACE_MARK "the\" -> \"]\"", 2, 2),
        GOOD("\"\\u2581the\" -> \"\\u005d\"", 2, 2),
        GOOD("\"<0x5D>\" -> \"#\" # not \"]\"", 3, 5),
        GOOD("\"<s>\" -> \"</s>\"", 0, 0),
        GOOD("\"\\\"\\\\\\n\\u0001\" -> 1", 7, 1),
        GOOD("\"n\\u0000l\" -> 1", 9, 1),
        GOOD("10 -> 1", 10, 1),
        GOOD("\"none\" -> \"none\"", 11, 6),
        GOOD("\"8\" -> 0", 12, 0),
        GOOD("8 -> 0", 8, 0),
        GOOD("\"#\"->\"#\"", 13, 5),
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        const char *path = write_file(f, cases[i].text, cases[i].n);
        cmc_map *before = built(f->host, f->delta);
        cmc_error err = {0};
        cmc_map_free(f->m);
        f->m = built(f->host, f->delta);
        if (cmc_map_override(f->m, f->host, f->delta, path, &err) != CMC_OK) {
            fail_msg("case %zu: %s", i, err.message);
        }
        for (int32_t id = 0; id < N_HOST; id++) {
            cmc_map_how how, how_before;
            int32_t to = cmc_map_get(f->m, id, &how, NULL), to_before = cmc_map_get(before, id, &how_before, NULL);
            bool edited = id == cases[i].host;
            assert_int_equal(to, edited ? cases[i].to : to_before);
            assert_int_equal(how, !edited ? how_before : cases[i].to < 0 ? CMC_HOW_NONE : CMC_HOW_OVERRIDE);
        }
        cmc_map_counts c;
        cmc_map_counts_get(f->m, &c);
        assert_int_equal(c.override_, cases[i].to >= 0);
        cmc_map_free(before);
    }
}

/* A file whose second line is wrong, behind one that is right. */
#define BAD(text, word) BAD_AT(2, "8 -> 3\n" text, word)
#define BAD_AT(line, text, word) {text, sizeof text - 1, line, word}

static void test_bad_lines_are_named_and_change_nothing(void **state) {
    fixture *f = *state;
    static const struct { const char *text; size_t n; int line; const char *word; } cases[] = {
        BAD("\"zebras\" -> 3", "no host token is spelled \"zebras\""),
        BAD("4 -> \"zebra\"", "no delta token is spelled \"zebra\""),
        BAD("\" the\" -> 3", "no host token is spelled \" the\""),
        BAD("\"\" -> 3", "no host token is spelled \"\""),
        BAD("\"a\" -> 3", "several host tokens are spelled \"a\" (5 and 6"),
        BAD("4 -> \"b\"", "several delta tokens are spelled \"b\" (3 and 4"),
        BAD("14 -> 3", "the host has no token 14, its ids should be from 0 to 13"),
        BAD("4 -> 7", "the delta has no token 7, its ids should be from 0 to 6"),
        BAD("4 -> 99999999999999999999999999", "the delta has no token 9999999"),
        BAD("4 -> 4294967296", "the delta has no token 4294967296"),
        BAD_AT(3, "8 -> 3\n4 -> 2\n\"zebra\" -> 3", "host token 8 stands on line 1 too"),
        BAD("8 -> none", "host token 8 stands on line 1 too"),
        BAD("zebra -> 3", "found `zebra -> 3`, should be a host token"),
        BAD("none -> 3", "found `none -> 3`, should be a host token"),
        BAD("-1 -> 3", "found `-1 -> 3`, should be a host token"),
        BAD("-> 3", "found `-> 3`, should be a host token"),
        BAD("4", "the line ends too soon, should be the arrow"),
        BAD("4 = 3", "found `= 3`, should be the arrow"),
        BAD("4 - > 3", "found `- > 3`, should be the arrow"),
        BAD("4a -> 3", "found `a -> 3`, should be the arrow"),
        BAD("4 ->", "the line ends too soon, should be a delta token"),
        BAD("4 -> # 3", "found `# 3`, should be a delta token"),
        BAD("4 -> -1", "found `-1`, should be a delta token"),
        BAD("4 -> None", "found `None`, should be a delta token"),
        BAD("4 -> 3 5", "found `5`, should be the end of the line"),
        BAD("4 -> nonesuch", "found `such`, should be the end of the line"),
        BAD("4 -> 3.0", "found `.0`, should be the end of the line"),
        BAD("\"zebra -> 3", "without an end"),
        BAD("\"zebra\\\" -> 3", "without an end"),
        BAD("\"zebra\\", "without an end"),
        BAD("\"", "without an end"),
        BAD("\"z\\ebra\" -> 3", "should be a JSON string"),
        BAD("\"z\tbra\" -> 3", "should be a JSON string"),
        BAD("\"\\ud800\" -> 3", "should be a JSON string"),
        BAD("\"\xE4\xB8\" -> 3", "byte 2 of the line is no UTF-8"),
        BAD("# \xFF\n", "byte 3 of the line is no UTF-8"),
        BAD("4 -> 3\0", "should be the end of the line"),
        BAD("\0", "should be a host token"),
        BAD("\xEF\xBB\xBF" "4 -> 3", "should be a host token"),
        BAD_AT(1, "8 -> 3\r4 -> 3\n", "should be the end of the line"),
        BAD("\"0123456789012345678901234567890123456789012345678901234567890\" -> 3", "6789...\""),
    };
    cmc_map *before = built(f->host, f->delta);
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        const char *path = write_file(f, cases[i].text, cases[i].n);
        char place[4200];
        cmc_error err = {0};
        cmc_status st = cmc_map_override(f->m, f->host, f->delta, path, &err);
        snprintf(place, sizeof place, "%s: line %d: ", path, cases[i].line);
        if (st != CMC_E_FORMAT || strncmp(err.message, place, strlen(place)) != 0 ||
            !strstr(err.message, cases[i].word) || strchr(err.message, '\n')) {
            fail_msg("case %zu: status %d, message \"%s\" should begin with \"%s\" and hold \"%s\"", i, (int)st,
                     err.message, place, cases[i].word);
        }
        assert_memory_equal(f->m->to, before->to, N_HOST * sizeof *before->to);
        assert_memory_equal(f->m->how, before->how, N_HOST);
        assert_memory_equal(f->m->distance, before->distance, N_HOST * sizeof *before->distance);
        assert_int_equal(cmc_map_override(f->m, f->host, f->delta, path, NULL), CMC_E_FORMAT);
    }
    cmc_map_free(before);
}

static void test_files_and_sizes(void **state) {
    fixture *f = *state;
    cmc_error err = {0};
    assert_int_equal(cmc_map_override(f->m, f->host, f->delta, tiny_path(f->dir, "missing"), &err), CMC_E_IO);
    assert_non_null(strstr(err.message, "missing"));
    assert_int_equal(cmc_map_override(f->m, f->host, f->delta, f->dir, &err), CMC_E_IO);
    assert_int_equal(cmc_map_override(f->m, f->host, f->delta, write_file(f, "", 0), &err), CMC_OK);
    const char *path = write_file(f, "0 -> 0", 6);
    assert_int_equal(cmc_map_override(f->m, f->delta, f->host, path, &err), CMC_E_ARG);
    assert_int_equal(cmc_map_override(f->m, f->host, f->host, path, &err), CMC_E_ARG);
    assert_non_null(strstr(err.message, path));
}

/* The two properties that the shift goes by follow the edits, and an edited map goes out and comes back. */
static void test_properties_and_exchange(void **state) {
    fixture *f = *state;
    cmc_map *same = built(f->host, f->host), *again;
    assert_true(same->identity && same->complete);
    edit(same, f->host, f->host, "2 -> 3", 6);
    assert_true(!same->identity && same->complete);
    edit(same, f->host, f->host, "2 -> 2", 6);
    assert_true(same->identity && same->complete);
    edit(same, f->host, f->host, "2 -> none", 9);
    assert_true(!same->identity && !same->complete);
    const char *path = tiny_path(f->dir, "ids.json");
    assert_int_equal(cmc_map_export(same, path, NULL), CMC_OK);
    assert_int_equal(cmc_map_import(path, N_HOST, N_HOST, &again, NULL), CMC_OK);
    assert_memory_equal(same->to, again->to, N_HOST * sizeof *same->to);
    cmc_map_free(same);
    cmc_map_free(again);
}

/* Every token of two vocabularies as files hold them, named by spelling where that is its own and by id elsewhere. */
static void test_every_token_can_be_named(void **state) {
    (void)state;
    const tiny_spec specs[] = {{.vocab = "bpe", .vocab_only = true}, {.vocab = "spm", .vocab_only = true}};
    for (size_t k = 0; k < 2; k++) {
        cmc_vocab *v = vocab_tiny(&specs[k]);
        cmc_map *m = built(v, v);
        text t = {0};
        char line[128];
        for (int32_t id = 0; id < v->n; id++) {
            size_t len;
            const char *s = cmc_vocab_spelling(v, id, &len);
            bool plain = len && !memchr(s, '"', len) && !memchr(s, '\\', len) && !memchr(s, '\n', len) &&
                         !memchr(s, '\t', len);
            text_add(&t, line, (size_t)(plain ? snprintf(line, sizeof line, "\"%.*s\" -> ", (int)len, s)
                                              : snprintf(line, sizeof line, "%d -> ", (int)id)));
            text_add(&t, line, (size_t)snprintf(line, sizeof line, "%d\n", (int)(v->n - 1 - id)));
        }
        edit(m, v, v, t.s, t.n);
        for (int32_t id = 0; id < v->n; id++) {
            assert_int_equal(cmc_map_get(m, id, NULL, NULL), v->n - 1 - id);
        }
        cmc_map_free(m);
        cmc_vocab_free(v);
        free(t.s);
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_what_a_line_does, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_bad_lines_are_named_and_change_nothing, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_files_and_sizes, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_properties_and_exchange, set_up, tear_down),
        cmocka_unit_test(test_every_token_can_be_named),
    };
    return cmocka_run_group_tests_name("hand edits of a map", tests, NULL, NULL);
}
