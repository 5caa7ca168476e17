/* Records: every form, every way of being wrong, line numbers, hashes. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include <cmocka.h>

#include "runtime/prompt.h"

/* Messages as "role:text|role:text", a text record as "text:...". */
static char *flat(const cmc_record *r) {
    static const char LETTER[] = {'s', 'u', 'a'};
    char *out = NULL;
    size_t n = 0;
    FILE *f = open_memstream(&out, &n);
    if (r->text) fprintf(f, "text:%.*s", (int)r->text_len, r->text);
    for (size_t i = 0; i < r->n_messages; i++) {
        fprintf(f, "%s%c:%.*s", i ? "|" : "", LETTER[r->messages[i].role], (int)r->messages[i].len,
                r->messages[i].text);
    }
    fclose(f);
    return out;
}

static const struct { const char *json, *want; bool need; } GOOD[] = {
    {"{\"instruction\":\"Add\",\"input\":\"1 2\",\"output\":\"3\"}", "u:Add\n1 2|a:3", true},
    {"{\"instruction\":\"Add\",\"input\":\"\",\"output\":\"3\"}", "u:Add|a:3", true},
    {"{\"instruction\":\"Add\",\"output\":\"3\",\"text\":\"Add 3\"}", "u:Add|a:3", true},
    {"{\"question\":\"Q\",\"answer\":\"A\",\"id\":7}", "u:Q|a:A", true},
    {"{\"prompt\":\"P\",\"response\":\"R\"}", "u:P|a:R", true},
    {"{\"prompt\":\"P\"}", "u:P", false},
    {"{\"prompt\":\"P\",\"response\":null}", "u:P", false},
    {"{\"prompt\":\"P\",\"response\":\"\"}", "u:P", false},
    {"{\"text\":\"T\\u00e9\"}", "text:T\xc3\xa9", true},
    {"{\"messages\":[{\"role\":\"system\",\"content\":\"S\"},{\"role\":\"user\",\"content\":\"U\"},"
     "{\"role\":\"assistant\",\"content\":\"A\"},{\"role\":\"user\",\"content\":\"V\"}]}", "s:S|u:U|a:A|u:V", true},
    {"  \t{\"prompt\":\"P\"}\r\n\r\n", "u:P", false},
    {"\xef\xbb\xbf{\"prompt\":\"P\"}", "u:P", false},
    {"\n [ {\"prompt\":\"P\"} ]\n", "u:P", false},
};

static void test_forms(void **state) {
    (void)state;
    for (size_t i = 0; i < sizeof GOOD / sizeof GOOD[0]; i++) {
        cmc_records r = {0};
        cmc_error err = {0};
        cmc_status s = records_read_memory(GOOD[i].json, strlen(GOOD[i].json), "f", GOOD[i].need, &r, &err);
        if (s != CMC_OK) fail_msg("%s: %s", GOOD[i].json, err.message);
        assert_int_equal(r.n, 1);
        char *got = flat(&r.v[0]);
        assert_string_equal(got, GOOD[i].want);
        assert_int_equal(strlen(r.hash), 32);
        free(got);
        cmc_records_free(&r);
    }
}

static const struct { const char *json, *message; bool need;
} BAD[] = {
    {"{\"prompt\":\"P\"}\n{\"prompt\":", "f: line 2: no valid JSON", false},
    {"{\"prompt\":\"P\"}\n\n{\"prompt\":\"P\"} x", "f: line 3: no valid JSON", false},
    {"{\"prompt\":\"P\"}", "f: line 1: \"response\" is missing, expected", true},
    {"{\"prompt\":\"P\",\"response\":\"\"}", "f: line 1: \"response\" is empty, expected", true},
    {"{\"prompt\":7}", "f: line 1: \"prompt\" is not a string", false},
    {"{\"prompt\":null}", "f: line 1: \"prompt\" is null", false},
    {"{\"quest\":\"P\"}", "f: line 1: no known record form", false},
    {"7", "f: line 1: ", false},
    {"\"s\"", "f: line 1: ", false},
    {"{\"prompt\":\"\xff\"}", "f: line 1: no valid JSON", false},
    {"{\"prompt\":\"\\ud800\"}", "f: line 1: no valid JSON", false},
    {"{\"text\":\"\"}", "f: line 1: \"text\" is empty", true},
    {"{\"messages\":[]}", "f: line 1: \"messages\" is not a list of messages", false},
    {"{\"messages\":{}}", "f: line 1: \"messages\" is not a list of messages", false},
    {"{\"messages\":[3]}", "f: line 1: messages[0] is not an object", false},
    {"{\"messages\":[{\"role\":\"tool\",\"content\":\"\"}]}", "f: line 1: messages[0] has the role \"tool\", expected",
     false},
    {"{\"messages\":[{\"role\":\"user\"}]}", "f: line 1: messages[0] has no \"content\"", false},
    {"{\"messages\":[{\"role\":\"user\",\"content\":\"U\"}]}", "f: line 1: \"messages\" holds no response", true},
    {"{\"messages\":[{\"role\":\"assistant\",\"content\":\"\"}]}", "f: line 1: messages[0] is an empty response", true},
    {"[\n{\"prompt\":\"P\"},\n{\"prompt\":\n3}]", "f: line 3: \"prompt\" is not a string", false},
    {"[{\"prompt\":\"P\"}\n{\"prompt\":\"P\"}]", "f: line 2: no comma", false},
    {"[{\"prompt\":\"P\"},\n\n{\"prompt\"}]", "f: line 3: no valid JSON", false},
    {"[{\"prompt\":\"P\"},]", "f: line 1: no valid JSON", false},
    {"[{\"prompt\":\"P\"}", "f: line 1: the list does not end", false},
    {"[{\"prompt\":\"P\"}]\n3", "f: line 2: something follows", false},
    {"[]", "f: holds no record", false},
    {"", "f: holds no record", false},
    {"\n\n", "f: holds no record", false},
};

static void test_bad(void **state) {
    (void)state;
    for (size_t i = 0; i < sizeof BAD / sizeof BAD[0]; i++) {
        cmc_records r = {0};
        cmc_error err = {0};
        cmc_status s = records_read_memory(BAD[i].json, strlen(BAD[i].json), "f", BAD[i].need, &r, &err);
        assert_int_equal(s, CMC_E_FORMAT);
        if (strncmp(err.message, BAD[i].message, strlen(BAD[i].message)) != 0) {
            fail_msg("%s\n  gave \"%s\"\n  not  \"%s\"", BAD[i].json, err.message, BAD[i].message);
        }
        assert_int_equal(r.n, 0); /* nothing is half-changed */
        assert_string_equal(r.hash, "");
        cmc_records_free(&r);
    }
}

static void test_lines_nul_and_length(void **state) {
    (void)state;
    size_t big = 3u << 20;
    char *s = malloc(big + 200), *p = s;
    p += sprintf(p, "{\"prompt\":\"a\\u0000b\"}\n\n{\"prompt\":\"");
    memset(p, 'x', big);
    p += big;
    p += sprintf(p, "\"}\n{\"prompt\":\"last\"}");
    cmc_records r = {0};
    assert_int_equal(records_read_memory(s, (size_t)(p - s), "f", false, &r, NULL), CMC_OK);
    assert_int_equal(r.n, 3);
    assert_int_equal(r.v[0].messages[0].len, 3);
    assert_memory_equal(r.v[0].messages[0].text, "a\0b", 3);
    assert_int_equal(r.v[1].messages[0].len, big);
    assert_int_equal(r.v[0].line, 1);
    assert_int_equal(r.v[1].line, 3);
    assert_int_equal(r.v[2].line, 4);
    cmc_records_free(&r);
    free(s);
}

/* A file gives what its bytes give; the hash covers every file read and their order. */
static void test_files_and_hash(void **state) {
    (void)state;
    char path[] = "/tmp/cmc-record-XXXXXX";
    const char *a = "{\"prompt\":\"A\"}\n", *b = "{\"prompt\":\"B\"}\n";
    int fd = mkstemp(path);
    assert_true(fd >= 0);
    assert_int_equal(write(fd, a, strlen(a)), strlen(a));
    close(fd);
    cmc_records file = {0}, one = {0}, two = {0};
    cmc_error err = {0};
    assert_int_equal(cmc_records_read(path, false, &file, &err), CMC_OK);
    assert_int_equal(records_read_memory(a, strlen(a), "a", false, &one, &err), CMC_OK);
    assert_string_equal(file.hash, one.hash);
    assert_int_equal(records_read_memory(b, strlen(b), "b", false, &one, &err), CMC_OK);
    assert_int_equal(one.n, 2);
    assert_string_not_equal(file.hash, one.hash);
    assert_int_equal(records_read_memory(b, strlen(b), "b", false, &two, &err), CMC_OK);
    assert_int_equal(records_read_memory(a, strlen(a), "a", false, &two, &err), CMC_OK);
    assert_string_not_equal(one.hash, two.hash);
    unlink(path);
    assert_int_equal(cmc_records_read(path, false, &two, &err), CMC_E_IO);
    assert_non_null(strstr(err.message, path));
    assert_int_equal(two.n, 2);
    cmc_records_free(&file);
    cmc_records_free(&one);
    cmc_records_free(&two);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_forms),
        cmocka_unit_test(test_bad),
        cmocka_unit_test(test_lines_nul_and_length),
        cmocka_unit_test(test_files_and_hash),
    };
    return cmocka_run_group_tests_name("record", tests, NULL, NULL);
}
