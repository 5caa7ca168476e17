/* Porter's stemmer: M. Porter, "An algorithm for suffix stripping", Program 14.3 (1980), with the extensions of NLTK's
 * PorterStemmer in its default mode, which is what rouge-score stems with. Steps have the paper's numbers. */
#include "eval/stem.h"

#include <stdbool.h>
#include <string.h>

/* The word as it stands: only ever cut, or changed at its end. */
typedef struct stem_word { char *s; size_t n; } stem_word;

/* ------------------------------------------------------------------------------------------------- conditions */

/* A letter other than a, e, i, o, u, and other than y after a consonant. `before`: the letter before is a consonant. */
static bool stem_is_consonant(char c, bool first, bool before) {
    if (c == 'y')
        return first || !before;
    return !(c == 'a' || c == 'e' || c == 'i' || c == 'o' || c == 'u');
}

static bool stem_consonant_at(const char *s, size_t i) {
    bool consonant = false;
    for (size_t k = 0; k <= i; k++)
        consonant = stem_is_consonant(s[k], k == 0, consonant);
    return consonant;
}

/* The paper's m: how often a vowel is followed by a consonant in s[0..n). */
static int stem_measure(const char *s, size_t n) {
    bool consonant = true;
    int m = 0;
    for (size_t i = 0; i < n; i++) {
        bool now = stem_is_consonant(s[i], i == 0, consonant);
        m += i > 0 && now && !consonant;
        consonant = now;
    }
    return m;
}

static bool stem_has_vowel(const char *s, size_t n) {
    bool consonant = false;
    for (size_t i = 0; i < n; i++) {
        consonant = stem_is_consonant(s[i], i == 0, consonant);
        if (!consonant)
            return true;
    }
    return false;
}

static bool stem_double_consonant(const char *s, size_t n) {
    return n >= 2 && s[n - 1] == s[n - 2] && stem_consonant_at(s, n - 1);
}

/* The paper's *o: consonant, vowel, consonant other than w, x, y at the end; and, NLTK's, a whole of vowel, consonant. */
static bool stem_ends_cvc(const char *s, size_t n) {
    if (n == 2)
        return !stem_consonant_at(s, 0) && stem_consonant_at(s, 1);
    return n >= 3 && stem_consonant_at(s, n - 3) && !stem_consonant_at(s, n - 2) && stem_consonant_at(s, n - 1) &&
           !strchr("wxy", s[n - 1]);
}

/* ------------------------------------------------------------------------------------------------------ rules */

static bool stem_ends(const stem_word *w, const char *suffix) {
    size_t n = strlen(suffix);
    return w->n >= n && memcmp(w->s + w->n - n, suffix, n) == 0;
}

/* Puts `to`, which is no longer, in the place of the last n letters. */
static void stem_replace(stem_word *w, size_t n, const char *to) {
    size_t len = strlen(to);
    memcpy(w->s + w->n - n, to, len);
    w->n = w->n - n + len;
}

typedef struct stem_rule { const char *suffix, *to; } stem_rule;

/* The first rule whose suffix fits decides: it applies where the stem's measure is above `least`. */
static void stem_apply(stem_word *w, const stem_rule *rules, size_t n_rules, int least) {
    for (size_t i = 0; i < n_rules; i++) {
        if (stem_ends(w, rules[i].suffix)) {
            size_t n = strlen(rules[i].suffix);
            if (stem_measure(w->s, w->n - n) > least)
                stem_replace(w, n, rules[i].to);
            return;
        }
    }
}

#define STEM_COUNT(rules) (sizeof(rules) / sizeof *(rules))

/* ------------------------------------------------------------------------------------------------------ steps */

static void stem_step1a(stem_word *w) {
    if (stem_ends(w, "ies"))
        stem_replace(w, 3, w->n == 4 ? "ie" : "i");   /* NLTK: dies, die; flies, fli */
    else if (stem_ends(w, "sses"))
        stem_replace(w, 2, "");
    else if (stem_ends(w, "s") && !stem_ends(w, "ss"))
        stem_replace(w, 1, "");
}

/* What is left once -ed or -ing is gone. */
static void stem_step1b_mend(stem_word *w) {
    if (stem_ends(w, "at") || stem_ends(w, "bl") || stem_ends(w, "iz"))
        stem_replace(w, 0, "e");
    else if (stem_double_consonant(w->s, w->n))
        w->n -= !strchr("lsz", w->s[w->n - 1]);
    else if (stem_measure(w->s, w->n) == 1 && stem_ends_cvc(w->s, w->n))
        stem_replace(w, 0, "e");
}

static void stem_step1b(stem_word *w) {
    if (stem_ends(w, "ied")) {
        stem_replace(w, 3, w->n == 4 ? "ie" : "i");   /* NLTK: died, die; spied, spi */
    } else if (stem_ends(w, "eed")) {
        w->n -= stem_measure(w->s, w->n - 3) > 0;
    } else {
        size_t n = stem_ends(w, "ed") ? 2 : stem_ends(w, "ing") ? 3 : 0;
        if (n && stem_has_vowel(w->s, w->n - n)) {
            w->n -= n;
            stem_step1b_mend(w);
        }
    }
}

/* NLTK: y after a consonant that is not the word's first letter. */
static void stem_step1c(stem_word *w) {
    if (stem_ends(w, "y") && w->n > 2 && stem_consonant_at(w->s, w->n - 2))
        w->s[w->n - 1] = 'i';
}

static void stem_step2(stem_word *w) {
    static const stem_rule rules[] = {
        {"ational", "ate"}, {"tional", "tion"}, {"enci", "ence"}, {"anci", "ance"}, {"izer", "ize"}, {"bli", "ble"},
        {"alli", "al"}, {"entli", "ent"}, {"eli", "e"}, {"ousli", "ous"}, {"ization", "ize"}, {"ation", "ate"},
        {"ator", "ate"}, {"alism", "al"}, {"iveness", "ive"}, {"fulness", "ful"}, {"ousness", "ous"}, {"aliti", "al"},
        {"iviti", "ive"}, {"biliti", "ble"}, {"fulli", "ful"},
    };
    if (stem_ends(w, "alli") && stem_measure(w->s, w->n - 4) > 0)
        stem_replace(w, 2, "");   /* NLTK: -alli goes first, and what it leaves takes the step again */
    if (stem_ends(w, "logi"))     /* NLTK: the l counts with the stem */
        w->n -= stem_measure(w->s, w->n - 3) > 0;
    else
        stem_apply(w, rules, STEM_COUNT(rules), 0);
}

static void stem_step3(stem_word *w) {
    static const stem_rule rules[] = {{"icate", "ic"}, {"ative", ""}, {"alize", "al"}, {"iciti", "ic"},
                                      {"ical", "ic"}, {"ful", ""}, {"ness", ""}};
    stem_apply(w, rules, STEM_COUNT(rules), 0);
}

static void stem_step4(stem_word *w) {
    static const stem_rule rules[] = {
        {"al", ""}, {"ance", ""}, {"ence", ""}, {"er", ""}, {"ic", ""}, {"able", ""}, {"ible", ""}, {"ant", ""},
        {"ement", ""}, {"ment", ""}, {"ent", ""}, {"ou", ""}, {"ism", ""}, {"ate", ""}, {"iti", ""}, {"ous", ""},
        {"ive", ""}, {"ize", ""},
    };
    if (!stem_ends(w, "ion"))
        stem_apply(w, rules, STEM_COUNT(rules), 1);
    else if (stem_measure(w->s, w->n - 3) > 1 && strchr("st", w->s[w->n - 4]))
        w->n -= 3;
}

static void stem_step5(stem_word *w) {
    if (stem_ends(w, "e")) {
        int m = stem_measure(w->s, w->n - 1);
        w->n -= m > 1 || (m == 1 && !stem_ends_cvc(w->s, w->n - 1));
    }
    if (stem_ends(w, "ll") && stem_measure(w->s, w->n - 1) > 1)
        w->n--;
}

size_t stem_porter(char *s, size_t n) {
    static const stem_rule irregular[] = {
        {"sky", "sky"}, {"skies", "sky"}, {"dying", "die"}, {"lying", "lie"}, {"tying", "tie"}, {"news", "news"},
        {"innings", "inning"}, {"inning", "inning"}, {"outings", "outing"}, {"outing", "outing"},
        {"cannings", "canning"}, {"canning", "canning"}, {"howe", "howe"}, {"proceed", "proceed"},
        {"exceed", "exceed"}, {"succeed", "succeed"},
    };
    stem_word w = {s, n};
    for (size_t i = 0; i < STEM_COUNT(irregular); i++) {
        if (n == strlen(irregular[i].suffix) && memcmp(s, irregular[i].suffix, n) == 0) {
            stem_replace(&w, n, irregular[i].to);
            return w.n;
        }
    }
    if (n <= 2)
        return n;
    stem_step1a(&w);
    stem_step1b(&w);
    stem_step1c(&w);
    stem_step2(&w);
    stem_step3(&w);
    stem_step4(&w);
    stem_step5(&w);
    return w.n;
}
