/* Instruction checks: each kind passing and failing, and checks that are none. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

#include "eval/checks.h"

static const struct { const char *check, *pass, *fail; } KINDS[] = {
    {"{'kind':'words','n':3}", " one two  three\n", "one two"},
    {"{'kind':'min_words','n':2}", "one two", "one"},
    {"{'kind':'max_words','n':2}", "one two", "one two three"},
    {"{'kind':'max_words','n':0}", " \n", "x"},
    {"{'kind':'min_chars','n':4}", "caf\xc3\xa9", "\xc3\xa9\xc3\xa9\xc3\xa9"},
    {"{'kind':'max_chars','n':4}", "caf\xc3\xa9", "caf\xc3\xa9s"},
    {"{'kind':'lines','n':2}", "one\n\n  \ntwo\n", "one two"},
    {"{'kind':'min_lines','n':2}", "one\ntwo\nthree", "one\n \n"},
    {"{'kind':'max_lines','n':1}", "one", "one\ntwo"},
    {"{'kind':'items','n':3}", "See:\n- one\n  * two\n10. three", "- one\n-two\n3.14 is no item\n* three"},
    {"{'kind':'items','n':1}", "\xe2\x80\xa2 one", "one\n4."},
    {"{'kind':'contains','text':'cat'}", "concatenate", "Cat"},
    {"{'kind':'contains','text':'cat','ignore_case':true}", "The CAT", "dog"},
    {"{'kind':'contains','text':'STRA\\u00dfE','ignore_case':true}", "Hauptstrasse", "Strand"},
    {"{'kind':'contains','text':'cat','whole_words':true}", "concat, cat.", "concatenate cats caf\xc3\xa9" "cat"},
    {"{'kind':'contains','text':'-','whole_words':true}", "a-b", "a b"},
    {"{'kind':'excludes','text':'cat'}", "dog", "the cat"},
    {"{'kind':'excludes','text':'cat','whole_words':true,'ignore_case':true}", "Concatenate", "My Cat!"},
    {"{'kind':'starts_with','text':'Yes'}", "\n Yes, it is", "It is. Yes"},
    {"{'kind':'ends_with','text':'end.'}", "This is the end. \n", "end"},
    {"{'kind':'equals','text':'paris','ignore_case':true}", " Paris\n", "Paris."},
    {"{'kind':'regex','pattern':'^\\\\d{4}$'}", "1984", "in 1984"},
    {"{'kind':'regex','pattern':'\\\\bcaf\\u00e9\\\\b','ignore_case':true}", "A CAF\xc3\x89.", "cafe"},
    {"{'kind':'json'}", " [1, 2] ", "[1, 2"},
    {"{'kind':'json'}", "\"text\"", ""},
    {"{'kind':'json','keys':['name','age']}", "{\"age\":1,\"name\":null}", "{\"name\":1}"},
    {"{'kind':'json','keys':[]}", "{}", "[]"},
    {"{'kind':'lowercase'}", "all small, 3 \xc3\xa9", "\xc3\x89"},
    {"{'kind':'uppercase'}", "ALL GREAT \xc3\x89", "ALL GREAt"},
};

static const struct { const char *checks, *say; } BAD[] = {
    {"{'kind':'words'}", "not a list"},
    {"[{'kind':'json'},{'kind':'word','n':3}]", "check 2, word: no such kind"},
    {"[{'n':3}]", "check 1: needs \"kind\""},
    {"['words']", "check 1: needs \"kind\""},
    {"[{'kind':'words'}]", "needs \"n\""},
    {"[{'kind':'words','n':-1}]", "needs \"n\""},
    {"[{'kind':'words','n':1.5}]", "needs \"n\""},
    {"[{'kind':'words','n':1,'max':2}]", "has no key \"max\""},
    {"[{'kind':'equals','text':'a','whole_words':true}]", "has no key \"whole_words\""},
    {"[{'kind':'contains'}]", "needs \"text\""},
    {"[{'kind':'contains','text':''}]", "needs \"text\""},
    {"[{'kind':'contains','text':'a','ignore_case':1}]", "\"ignore_case\" is not true or false"},
    {"[{'kind':'regex','pattern':'('}]", "no regular expression: missing closing parenthesis at byte 1"},
    {"[{'kind':'regex'}]", "needs \"pattern\""},
    {"[{'kind':'json','keys':'a'}]", "\"keys\" is not a list"},
    {"[{'kind':'json','keys':[1]}]", "\"keys\" is not a list"},
};

/* JSON with ' for ". */
static json_t *parse(const char *s, bool list) {
    char text[256];
    snprintf(text, sizeof text, list ? "[%s]" : "%s", s);
    for (char *p = text; *p; p++)
        *p = *p == '\'' ? '"' : *p;
    json_t *j = json_loads(text, 0, NULL);
    assert_non_null(j);
    return j;
}

static bool passes(const checks *c, const char *text) {
    bool out;
    assert_int_equal(check_passes(c, 0, text, strlen(text), &out), CMC_OK);
    return out;
}

static void test_kinds(void **state) {
    (void)state;
    for (size_t i = 0; i < sizeof KINDS / sizeof *KINDS; i++) {
        checks c = {0};
        cmc_error err = {0};
        json_t *j = parse(KINDS[i].check, true);
        if (checks_read(j, &c, &err) != CMC_OK)
            fail_msg("%s: %s", KINDS[i].check, err.message);
        json_decref(j);
        assert_int_equal(c.n, 1);
        assert_non_null(strstr(KINDS[i].check, check_kind(&c, 0)));
        if (!passes(&c, KINDS[i].pass))
            fail_msg("%s does not pass \"%s\"", KINDS[i].check, KINDS[i].pass);
        if (passes(&c, KINDS[i].fail))
            fail_msg("%s passes \"%s\"", KINDS[i].check, KINDS[i].fail);
        checks_free(&c);
    }
}

static void test_bad(void **state) {
    (void)state;
    for (size_t i = 0; i < sizeof BAD / sizeof *BAD; i++) {
        checks c = {0};
        cmc_error err = {0};
        json_t *j = parse(BAD[i].checks, false);
        assert_int_equal(checks_read(j, &c, &err), CMC_E_FORMAT);
        if (!strstr(err.message, BAD[i].say))
            fail_msg("%s: says \"%s\", not \"%s\"", BAD[i].checks, err.message, BAD[i].say);
        assert_null(c.v);
        json_decref(j);
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_kinds),
        cmocka_unit_test(test_bad),
    };
    return cmocka_run_group_tests_name("checks", tests, NULL, NULL);
}
