/* The map's two rules against a search through every pair with true edit distances, and case by case. */
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "base/mem.h"
#include "base/utf8.h"
#include "tests/vocab_make.h"
#include "tokenmap/map.h"

/* --------------------------------------------------------------------------------- the rules, by looking at all */

typedef struct text { const uint8_t *s; size_t n; } text;

static text bytes_of(const cmc_vocab *v, int32_t id) {
    text t;
    t.s = cmc_vocab_bytes(v, id, &t.n);
    return t;
}

static text spelling_of(const cmc_vocab *v, int32_t id) {
    text t;
    t.s = (const uint8_t *)cmc_vocab_spelling(v, id, &t.n);
    return t;
}

/* Units that distances count: bytes, or characters (a byte of none is a unit of its own). */
static size_t units(text t, bool characters, int32_t *out) {
    size_t n = 0;
    for (size_t i = 0, len = 1; i < t.n; i += len) {
        int32_t cp = characters ? cmc_utf8_decode(t.s + i, t.n - i, &len) : t.s[i];
        if (cp < 0) {
            cp = 0x110000 + t.s[i];
            len = 1;
        }
        out[n++] = cp;
    }
    return n;
}

enum { LONGEST = 64 };

static int32_t levenshtein(text a, text b, bool characters) {
    int32_t x[LONGEST], y[LONGEST], row[LONGEST + 1];
    assert_true(a.n < LONGEST && b.n < LONGEST);
    size_t n = units(a, characters, x), m = units(b, characters, y);
    for (size_t j = 0; j <= m; j++) {
        row[j] = (int32_t)j;
    }
    for (size_t i = 1; i <= n; i++) {
        int32_t diagonal = row[0];
        row[0] = (int32_t)i;
        for (size_t j = 1; j <= m; j++) {
            int32_t swap = diagonal + (x[i - 1] != y[j - 1]);
            diagonal = row[j];
            int32_t gap = 1 + (row[j] < row[j - 1] ? row[j] : row[j - 1]);
            row[j] = swap < gap ? swap : gap;
        }
    }
    return row[m];
}

static bool same(text a, text b) {
    return a.n == b.n && memcmp(a.s, b.s, a.n) == 0;
}

/* One is a prefix of the other and the cut is not within a character. */
static bool prefixes(text a, text b) {
    text shorter = a.n < b.n ? a : b, longer = a.n < b.n ? b : a;
    return shorter.n < longer.n && memcmp(shorter.s, longer.s, shorter.n) == 0 && (longer.s[shorter.n] & 0xC0) != 0x80;
}

/* Only what the test's alphabet holds: space, tab, line feed, no-break space, ideographic space. */
static bool blank(text t) {
    while (t.n) {
        size_t len = *t.s == ' ' || *t.s == '\t' || *t.s == '\n' ? 1
                     : t.n >= 2 && memcmp(t.s, "\xC2\xA0", 2) == 0 ? 2
                     : t.n >= 3 && memcmp(t.s, "\xE3\x80\x80", 3) == 0 ? 3 : 0;
        if (!len) {
            return false;
        }
        t.s += len;
        t.n -= len;
    }
    return true;
}

static bool all_lower_block(text t) {
    for (; t.n >= 3 && memcmp(t.s, "\xE2\x96\x81", 3) == 0; t.s += 3, t.n -= 3) {
    }
    return t.n == 0;
}

typedef struct entry { int32_t to; cmc_map_how how; int32_t distance; } entry;

static const entry NONE = {-1, CMC_HOW_NONE, 0};

static entry reference_by_search(const cmc_vocab *host, const cmc_vocab *delta, int32_t id) {
    text h = spelling_of(host, id);
    if (id <= 2 || (h.n > 2 && h.s[0] == '<' && h.s[h.n - 1] == '>')) {
        cmc_map_how how = cmc_vocab_kind(host, id) == CMC_KIND_BYTE ? CMC_HOW_BYTE : CMC_HOW_ROLE;
        return id < cmc_vocab_size(delta) ? (entry){id, how, 0} : NONE;
    }
    entry best = NONE;
    for (int32_t j = 0; j < cmc_vocab_size(delta); j++) {
        text d = spelling_of(delta, j);
        if (same(h, d)) {
            return (entry){j, CMC_HOW_EXACT, 0};
        }
        bool bare = d.n == 3 && all_lower_block(d) && !all_lower_block(h);
        if (bare || !prefixes(h, d)) {
            continue;
        }
        int32_t distance = levenshtein(h, d, true);
        if (best.to < 0 || distance < best.distance) {
            best = (entry){j, CMC_HOW_PREFIX, distance};
        }
    }
    return best;
}

static bool is_text(const cmc_vocab *v, int32_t id) {
    return cmc_vocab_kind(v, id) == CMC_KIND_NORMAL || cmc_vocab_kind(v, id) == CMC_KIND_USER;
}

/* Text tokens that have the same bytes count once: as the first normal one, else the first user-defined one. */
static int32_t stand_in(const cmc_vocab *v, int32_t id) {
    for (int kind = 0; kind < 2; kind++) {
        for (int32_t j = 0; j < cmc_vocab_size(v); j++) {
            bool fits = cmc_vocab_kind(v, j) == (kind ? CMC_KIND_USER : CMC_KIND_NORMAL) && !cmc_vocab_is_end(v, j);
            if (fits && same(bytes_of(v, j), bytes_of(v, id))) {
                return j;
            }
        }
    }
    return -1;
}

static int32_t byte_token(const cmc_vocab *v, uint8_t byte) {
    for (int32_t j = 0; j < cmc_vocab_size(v); j++) {
        if (cmc_vocab_kind(v, j) == CMC_KIND_BYTE && !cmc_vocab_is_end(v, j) && bytes_of(v, j).s[0] == byte) {
            return j;
        }
    }
    return -1;
}

static entry end_by_search(const cmc_vocab *host, const cmc_vocab *delta, int32_t id) {
    unsigned first = cmc_vocab_roles(host, id) & CMC_ROLE_EOS ? CMC_ROLE_EOS : CMC_ROLE_EOT;
    int32_t to = cmc_vocab_role_token(delta, first);
    to = to >= 0 ? to : cmc_vocab_role_token(delta, first ^ (CMC_ROLE_EOS | CMC_ROLE_EOT));
    for (int32_t j = 0; to < 0 && j < cmc_vocab_size(delta); j++) {
        to = cmc_vocab_is_end(delta, j) ? j : -1;
    }
    return to < 0 ? NONE : (entry){to, CMC_HOW_ROLE, 0};
}

static entry default_by_search(const cmc_vocab *host, const cmc_vocab *delta, int32_t id) {
    text h = bytes_of(host, id);
    if (cmc_vocab_is_end(host, id)) {
        return end_by_search(host, delta, id);
    }
    bool byte = cmc_vocab_kind(host, id) == CMC_KIND_BYTE;
    bool other_role = (cmc_vocab_roles(host, id) & (CMC_ROLE_BOS | CMC_ROLE_PAD | CMC_ROLE_UNK)) != 0;
    if (!h.n || (!byte && !is_text(host, id)) || other_role) {
        return NONE;
    }
    int32_t raw = h.n == 1 ? byte_token(delta, h.s[0]) : -1;
    if (byte && raw >= 0) {
        return (entry){raw, CMC_HOW_BYTE, 0};
    }
    entry best = NONE;
    for (int32_t j = 0; j < cmc_vocab_size(delta); j++) {
        text d = bytes_of(delta, j);
        if (!is_text(delta, j) || cmc_vocab_is_end(delta, j) || !d.n || !(same(h, d) || prefixes(h, d)) ||
            stand_in(delta, j) != j) {
            continue;
        }
        if (same(h, d)) {
            return (entry){j, byte ? CMC_HOW_BYTE : CMC_HOW_EXACT, 0};
        }
        int32_t distance = levenshtein(h, d, false);
        if (!byte && (!blank(d) || blank(h)) && (best.to < 0 || distance < best.distance)) {
            best = (entry){j, CMC_HOW_PREFIX, distance};
        }
    }
    return raw >= 0 ? (entry){raw, CMC_HOW_BYTE, 0} : best;
}

/* ----------------------------------------------------------------------------------------- random vocabularies */

static uint64_t rng_state;

static uint32_t rnd(void) {
    rng_state = rng_state * 6364136223846793005u + 1442695040888963407u;
    return (uint32_t)(rng_state >> 33);
}

/* Few letters, so that prefixes and repeats abound: spaces, a combining mark, whole and cut characters, brackets. */
static size_t random_bytes(char *out) {
    static const char *const unit[] = {"a", "a", "b", " ", " ", "\t", "\n", "\xCC\x81", "\xC3\xA9", "\xE4\xB8\xAD",
                                       "\xE4\xB8", "\xC2\xA0", "\xE3\x80\x80", "\xF0\x9F\x98\x80", "\xF0\x9F",
                                       "\x98", "\xFF", "<", ">", "\xE2\x96\x81", "]"};
    size_t n = 0;
    for (uint32_t left = rnd() % 5; left--;) {
        const char *u = unit[rnd() % (sizeof unit / sizeof *unit)];
        memcpy(out + n, u, strlen(u));
        n += strlen(u);
    }
    return n;
}

static cmc_vocab *random_vocab(size_t n) {
    static const cmc_token_kind kinds[] = {CMC_KIND_NORMAL, CMC_KIND_NORMAL, CMC_KIND_NORMAL, CMC_KIND_NORMAL,
                                           CMC_KIND_USER, CMC_KIND_BYTE, CMC_KIND_CONTROL, CMC_KIND_UNUSED};
    char (*bytes)[24] = cmc_calloc(n, sizeof *bytes);
    token_spec *spec = cmc_calloc(n, sizeof *spec);
    assert_true(bytes && spec);
    for (size_t i = 0; i < n; i++) {
        spec[i].kind = kinds[rnd() % 8];
        spec[i].len = random_bytes(bytes[i]);
        if (spec[i].kind == CMC_KIND_BYTE) {
            static const char raw[] = "ab]\n\xE4\xFF";
            bytes[i][0] = raw[rnd() % 6];
            spec[i].len = 1;
        } else if (spec[i].len == 0) {
            bytes[i][0] = 0;
        }
        spec[i].bytes = bytes[i];
        spec[i].roles = rnd() % 12 == 0 ? 1u << rnd() % 5 : 0;
        spec[i].end = rnd() % 40 == 0;
    }
    cmc_vocab *v = vocab_make(spec, n);
    assert_non_null(v);
    free(bytes);
    free(spec);
    return v;
}

static cmc_map *build(const cmc_vocab *host, const cmc_vocab *delta, cmc_map_rule rule) {
    cmc_map *m;
    cmc_error err;
    if (cmc_map_build(host, delta, rule, &m, &err) != CMC_OK) {
        fail_msg("%s", err.message);
    }
    return m;
}

static void check_entry(const cmc_map *m, int32_t id, entry want, const char *rule) {
    cmc_map_how how;
    int32_t distance, to = cmc_map_get(m, id, &how, &distance);
    if (to != want.to || how != want.how || distance != want.distance) {
        fail_msg("rule %s, host token %d: %d (how %d, distance %d), should be %d (how %d, distance %d)", rule, (int)id,
                 (int)to, (int)how, (int)distance, (int)want.to, (int)want.how, (int)want.distance);
    }
}

static void test_both_rules_equal_the_search(void **state) {
    (void)state;
    size_t found[2][CMC_HOW_OVERRIDE + 1] = {{0}};
    rng_state = 1;
    for (int round = 0; round < 400; round++) {
        size_t n_host = 1 + rnd() % (round % 4 ? 30 : 150), n_delta = 1 + rnd() % (round % 5 ? 30 : 150);
        cmc_vocab *host = random_vocab(n_host), *delta = random_vocab(n_delta);
        cmc_map *by_default = build(host, delta, CMC_RULE_DEFAULT);
        cmc_map *by_reference = build(host, delta, CMC_RULE_REFERENCE);
        bool equal = cmc_vocab_equal(host, delta);
        for (int32_t id = 0; id < (int32_t)n_host; id++) {
            check_entry(by_reference, id, reference_by_search(host, delta, id), "reference");
            if (!equal) {
                check_entry(by_default, id, default_by_search(host, delta, id), "default");
            }
            found[0][by_default->how[id]]++;
            found[1][by_reference->how[id]]++;
        }
        cmc_map_free(by_default);
        cmc_map_free(by_reference);
        cmc_vocab_free(host);
        cmc_vocab_free(delta);
    }
    for (int how = CMC_HOW_NONE; how <= CMC_HOW_PREFIX; how++) {      /* the search has met every kind of entry */
        assert_true(found[0][how] > 100 && found[1][how] > 100);
    }
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

static const map_case DEFAULT_CASES[] = {
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
    run_cases(DEFAULT_CASES, sizeof DEFAULT_CASES / sizeof *DEFAULT_CASES, CMC_RULE_DEFAULT);
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
    cmc_map *m = build(a, b, CMC_RULE_DEFAULT);
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
    m = build(a, shorter, CMC_RULE_DEFAULT);
    assert_false(m->identity || m->complete);
    cmc_map_free(m);
    cmc_vocab_free(a);
    cmc_vocab_free(b);
    cmc_vocab_free(shorter);
}

static void test_counts_and_bounds(void **state) {
    (void)state;
    rng_state = 5;
    cmc_vocab *host = random_vocab(120), *delta = random_vocab(80);
    cmc_map *m = build(host, delta, CMC_RULE_DEFAULT);
    cmc_map_counts c;
    cmc_map_counts_get(m, &c);
    assert_int_equal(c.n_host, 120);
    assert_int_equal(c.n_delta, 80);
    assert_int_equal(c.role + c.byte + c.exact + c.prefix + c.override_ + c.none, 120);
    assert_true(c.seconds >= 0 && c.override_ == 0);
    cmc_map_how how = CMC_HOW_EXACT;
    int32_t distance = 7;
    assert_int_equal(cmc_map_get(m, -1, &how, &distance), -1);
    assert_int_equal(how, CMC_HOW_NONE);
    assert_int_equal(distance, 0);
    assert_int_equal(cmc_map_get(m, 120, NULL, NULL), -1);
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
    cmc_map *m = build(flat, deep, CMC_RULE_DEFAULT);
    assert_int_equal(cmc_map_get(m, 0, NULL, NULL), N - 1);           /* "a" */
    assert_int_equal(cmc_map_get(m, N - 1, NULL, NULL), N - 1);
    cmc_map_free(m);
    m = build(deep, flat, CMC_RULE_DEFAULT);
    assert_int_equal(cmc_map_get(m, N - 1, NULL, NULL), 0);           /* "a" to "ab" */
    assert_int_equal(cmc_map_get(m, 0, NULL, NULL), -1);
    cmc_map_free(m);
    cmc_vocab_free(deep);
    cmc_vocab_free(flat);
    free(a);
    free(nest);
    free(many);
}

/* ------------------------------------------------------------------------------------------------ real tokenizers */

/* Mistral v0.1 to Llama 2 by the paper's rule: its public code's counts. */
static void test_counts_of_real_tokenizers(void **state) {
    (void)state;
    const char *dir = getenv("CMC_TEST_TOKENIZERS");
    if (!dir) {
        printf("SKIP test_counts_of_real_tokenizers: CMC_TEST_TOKENIZERS names no directory\n");
        return;
    }
    char path[2][4096];
    cmc_vocab *v[2];
    cmc_error err;
    snprintf(path[0], sizeof path[0], "%s/mistral-v0.1.model", dir);
    snprintf(path[1], sizeof path[1], "%s/llama2.model", dir);
    for (size_t i = 0; i < 2; i++) {
        if (cmc_vocab_open(path[i], &v[i], &err) != CMC_OK) {
            fail_msg("%s", err.message);
        }
    }
    cmc_map *m = build(v[0], v[1], CMC_RULE_REFERENCE);
    cmc_map_counts c;
    cmc_map_counts_get(m, &c);
    assert_int_equal(c.role + c.byte + c.exact, 24185);
    assert_int_equal(c.prefix, 6474);
    assert_int_equal(c.none, 1341);
    assert_int_equal(cmc_map_get(m, 28675, NULL, NULL), 25299);
    for (int32_t id = 0; id < 32000; id += 41) {
        check_entry(m, id, reference_by_search(v[0], v[1], id), "reference");
    }
    cmc_map_free(m);
    m = build(v[0], v[1], CMC_RULE_DEFAULT);
    for (int32_t id = 7; id < 32000; id += 401) {
        check_entry(m, id, default_by_search(v[0], v[1], id), "default");
    }
    cmc_map_free(m);
    cmc_vocab_free(v[0]);
    cmc_vocab_free(v[1]);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_both_rules_equal_the_search),
        cmocka_unit_test(test_default_rule_case_by_case),
        cmocka_unit_test(test_reference_rule_case_by_case),
        cmocka_unit_test(test_equal_vocabularies_map_by_identity),
        cmocka_unit_test(test_counts_and_bounds),
        cmocka_unit_test(test_deep_nests_and_repeats),
        cmocka_unit_test(test_counts_of_real_tokenizers),
    };
    return cmocka_run_group_tests_name("map", tests, NULL, NULL);
}
