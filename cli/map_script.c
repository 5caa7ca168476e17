/* Scripts through PCRE2's properties: one expression that finds the next letter and says in which script it is. */
#include "cli/map_script.h"
#include "cli/text.h"

#define PCRE2_CODE_UNIT_WIDTH 8
#include <pcre2.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { SCRIPT_NO_TEXT, SCRIPT_PART, SCRIPT_WHITE, SCRIPT_DIGITS, SCRIPT_SIGNS, SCRIPT_SEVERAL, SCRIPT_OTHER,
       SCRIPT_FIRST };

/* Groups, then the scripts of living languages and of what tokenizers' texts hold besides, by Unicode's names. */
static const char *const script_names[] = {
    "no text", "parts of characters", "white space", "digits", "punctuation and symbols", "several scripts",
    "another script",
    "Latin", "Cyrillic", "Greek", "Han", "Hiragana", "Katakana", "Hangul", "Arabic", "Hebrew", "Devanagari", "Bengali",
    "Gurmukhi", "Gujarati", "Oriya", "Tamil", "Telugu", "Kannada", "Malayalam", "Sinhala", "Thai", "Lao", "Tibetan",
    "Myanmar", "Khmer", "Georgian", "Armenian", "Ethiopic", "Mongolian", "Cherokee", "Canadian_Aboriginal", "Thaana",
    "Syriac", "Tifinagh", "Nko", "Yi", "Bopomofo", "Braille", "Coptic", "Gothic", "Runic", "Ogham", "Javanese",
    "Balinese", "Sundanese", "Cham", "Tai_Le", "Ol_Chiki", "Meetei_Mayek", "Vai", "Glagolitic", "Cuneiform",
    "Egyptian_Hieroglyphs",
};
enum { SCRIPT_COUNT = sizeof script_names / sizeof *script_names };

struct map_scripts {
    pcre2_code *letter;       /* its mark is the script's index */
    pcre2_code *digit, *white;
    pcre2_match_data *match;
};

size_t map_scripts_count(void) {
    return SCRIPT_COUNT;
}

const char *map_script_name(size_t script) {
    return script_names[script];
}

bool map_script_is_script(size_t script) {
    return script >= SCRIPT_FIRST;
}

static pcre2_code *script_compile(const char *pattern) {
    int code;
    PCRE2_SIZE at;
    return pcre2_compile((PCRE2_SPTR)pattern, PCRE2_ZERO_TERMINATED, PCRE2_UTF, &code, &at, NULL);
}

/* `property` names the script's property: PCRE2 took \p{Latin} for Script before 10.40 and takes it for
 * Script_Extensions since, where sc: asks for Script. */
static pcre2_code *script_letter(const char *property) {
    char pattern[64 + SCRIPT_COUNT * 48] = "(?=[\\p{L}\\p{M}])(?:";
    size_t n = strlen(pattern);
    for (size_t i = SCRIPT_FIRST; i < SCRIPT_COUNT; i++)
        n += (size_t)snprintf(pattern + n, sizeof pattern - n, "\\p{%s%s}(*MARK:%zu)|", property, script_names[i], i);
    /* Marks that go with any script (Inherited, Common) say nothing. */
    snprintf(pattern + n, sizeof pattern - n, "(?![\\p{%sInherited}\\p{%sCommon}]).(*MARK:%d))", property, property,
             SCRIPT_OTHER);
    return script_compile(pattern);
}

map_scripts *map_scripts_new(void) {
    map_scripts *s = calloc(1, sizeof *s);
    if (!s)
        return NULL;
    s->letter = script_letter("sc:");
    if (!s->letter)
        s->letter = script_letter("");
    s->digit = script_compile("\\p{N}");
    s->white = script_compile("^(?:\\p{Z}|[\\x09-\\x0d\\x85])+\\z");
    s->match = pcre2_match_data_create(1, NULL);
    if (s->letter && s->digit && s->white && s->match)
        return s;
    map_scripts_free(s);
    return NULL;
}

void map_scripts_free(map_scripts *s) {
    if (!s)
        return;
    pcre2_code_free(s->letter);
    pcre2_code_free(s->digit);
    pcre2_code_free(s->white);
    pcre2_match_data_free(s->match);
    free(s);
}

static bool script_matches(const map_scripts *s, const pcre2_code *code, const uint8_t *bytes, size_t n, size_t *from) {
    if (pcre2_match(code, bytes, n, *from, PCRE2_NO_UTF_CHECK, s->match, NULL) < 0)
        return false;
    *from = pcre2_get_ovector_pointer(s->match)[1];
    return true;
}

size_t map_script_of(const map_scripts *s, const uint8_t *bytes, size_t n) {
    size_t found = 0, at = 0;
    if (n == 0)
        return SCRIPT_NO_TEXT;
    if (!text_valid((const char *)bytes, n))
        return SCRIPT_PART;
    while (script_matches(s, s->letter, bytes, n, &at)) {
        size_t script = (size_t)strtoul((const char *)pcre2_get_mark(s->match), NULL, 10);
        if (found && found != script)
            return SCRIPT_SEVERAL;
        found = script;
    }
    if (found)
        return found;
    at = 0;
    if (script_matches(s, s->digit, bytes, n, &at))
        return SCRIPT_DIGITS;
    return script_matches(s, s->white, bytes, n, &at) ? SCRIPT_WHITE : SCRIPT_SIGNS;
}
