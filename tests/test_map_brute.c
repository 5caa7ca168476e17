/* Both rules of the map, entry by entry, against a search through every pair of tokens with true edit distances,
 * written from the rules' definitions and sharing nothing with the code under test: on thousands of small vocabularies
 * with every odd kind of token, on tiny models' own, and on samples of a quarter of a million tokens. */
#include "tests/vocab_help.h"
#include "tests/vocab_make.h"
#include "tokenmap/map.h"

/* ------------------------------------------------------------------------------------------------ edit distance */

typedef struct piece { const uint8_t *s; size_t n; } piece;

static piece bytes_of(const cmc_vocab *v, int32_t id) {
    piece b;
    b.s = cmc_vocab_bytes(v, id, &b.n);
    return b;
}

static piece spelling_of(const cmc_vocab *v, int32_t id) {
    piece b;
    b.s = (const uint8_t *)cmc_vocab_spelling(v, id, &b.n);
    return b;
}

/* What a distance counts: bytes, or characters, where a byte that is part of none is a unit of its own. */
static size_t units(piece t, bool characters, int32_t *out) {
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

enum { LONGEST = 512 };

static int32_t levenshtein(piece a, piece b, bool characters) {
    static int32_t x[LONGEST], y[LONGEST], row[LONGEST + 1];
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

static bool same(piece a, piece b) {
    return a.n == b.n && memcmp(a.s, b.s, a.n) == 0;
}

/* One begins with the other, and what is left over does not begin inside a character. */
static bool one_begins_the_other(piece a, piece b) {
    piece brief = a.n < b.n ? a : b, full = a.n < b.n ? b : a;
    return brief.n < full.n && memcmp(brief.s, full.s, brief.n) == 0 &&
           !(full.s[brief.n] >= 0x80 && full.s[brief.n] <= 0xBF);
}

/* ---------------------------------------------------------------------------------------------------- reference */

typedef struct entry { int32_t to; cmc_map_how how; int32_t distance; } entry;

static const entry NONE = {-1, CMC_HOW_NONE, 0};

static bool bare_marks(piece t, size_t *count) {
    *count = 0;
    for (; t.n >= 3 && memcmp(t.s, "\xE2\x96\x81", 3) == 0; t.s += 3, t.n -= 3) {
        ++*count;
    }
    return t.n == 0;
}

static entry reference_by_search(const cmc_vocab *host, const cmc_vocab *delta, int32_t id) {
    piece h = spelling_of(host, id);
    size_t marks;
    bool host_marks = bare_marks(h, &marks);
    if (id < 3 || (h.n > 2 && h.s[0] == '<' && h.s[h.n - 1] == '>')) {
        cmc_map_how how = cmc_vocab_kind(host, id) == CMC_KIND_BYTE ? CMC_HOW_BYTE : CMC_HOW_ROLE;
        return id < cmc_vocab_size(delta) ? (entry){id, how, 0} : NONE;
    }
    for (int32_t j = 0; j < cmc_vocab_size(delta); j++) {
        if (same(h, spelling_of(delta, j))) {
            return (entry){j, CMC_HOW_EXACT, 0};
        }
    }
    entry best = NONE;
    for (int32_t j = 0; j < cmc_vocab_size(delta); j++) {
        piece d = spelling_of(delta, j);
        if ((bare_marks(d, &marks) && marks == 1 && !host_marks) || !one_begins_the_other(h, d)) {
            continue;
        }
        int32_t distance = levenshtein(h, d, true);
        if (best.to < 0 || distance < best.distance) {
            best = (entry){j, CMC_HOW_PREFIX, distance};
        }
    }
    return best;
}

/* ------------------------------------------------------------------------------------------------------ default */

/* The characters that have Unicode's property White_Space, all of them. */
static const char *const WHITE[] = {
    "\t", "\n", "\v", "\f", "\r", " ", "\xC2\x85", "\xC2\xA0", "\xE1\x9A\x80", "\xE2\x80\x80", "\xE2\x80\x81",
    "\xE2\x80\x82", "\xE2\x80\x83", "\xE2\x80\x84", "\xE2\x80\x85", "\xE2\x80\x86", "\xE2\x80\x87", "\xE2\x80\x88",
    "\xE2\x80\x89", "\xE2\x80\x8A", "\xE2\x80\xA8", "\xE2\x80\xA9", "\xE2\x80\xAF", "\xE2\x81\x9F", "\xE3\x80\x80"};
enum { N_WHITE = sizeof WHITE / sizeof *WHITE };

static bool blank(piece t) {
    while (t.n) {
        size_t len = 0;
        for (size_t i = 0; i < N_WHITE && !len; i++) {
            size_t n = strlen(WHITE[i]);
            len = t.n >= n && memcmp(t.s, WHITE[i], n) == 0 ? n : 0;
        }
        if (!len) {
            return false;
        }
        t.s += len;
        t.n -= len;
    }
    return true;
}

/* Normal before user-defined before byte; -1: stands for no text. An end token stands for the end alone. */
static int standing(const cmc_vocab *v, int32_t id) {
    if (cmc_vocab_is_end(v, id) || !bytes_of(v, id).n) {
        return -1;
    }
    switch (cmc_vocab_kind(v, id)) {
    case CMC_KIND_NORMAL: return 0;
    case CMC_KIND_USER: return 1;
    case CMC_KIND_BYTE: return 2;
    default: return -1;
    }
}

/* The delta token with these bytes that comes before all others with them, among standings lo..hi; -1: none. */
static int32_t with_bytes(const cmc_vocab *v, piece b, int lo, int hi) {
    for (int rank = lo; rank <= hi; rank++) {
        for (int32_t j = 0; j < cmc_vocab_size(v); j++) {
            if (standing(v, j) == rank && same(bytes_of(v, j), b)) {
                return j;
            }
        }
    }
    return -1;
}

static entry end_by_search(const cmc_vocab *host, const cmc_vocab *delta, int32_t id) {
    bool eos = (cmc_vocab_roles(host, id) & CMC_ROLE_EOS) != 0;
    const int32_t tries[] = {cmc_vocab_role_token(delta, eos ? CMC_ROLE_EOS : CMC_ROLE_EOT),
                             cmc_vocab_role_token(delta, eos ? CMC_ROLE_EOT : CMC_ROLE_EOS)};
    for (int k = 0; k < 2; k++) {
        if (tries[k] >= 0) {
            return (entry){tries[k], CMC_HOW_ROLE, 0};
        }
    }
    for (int32_t j = 0; j < cmc_vocab_size(delta); j++) {
        if (cmc_vocab_is_end(delta, j)) {
            return (entry){j, CMC_HOW_ROLE, 0};
        }
    }
    return NONE;
}

static entry nearest_by_search(const cmc_vocab *delta, piece h) {
    entry best = NONE;
    for (int32_t j = 0; j < cmc_vocab_size(delta); j++) {
        piece d = bytes_of(delta, j);
        int rank = standing(delta, j);
        if (rank < 0 || rank > 1 || !one_begins_the_other(h, d) || (blank(d) && !blank(h)) ||
            with_bytes(delta, d, 0, 1) != j) {
            continue;
        }
        int32_t distance = levenshtein(h, d, false);
        if (best.to < 0 || distance < best.distance) {
            best = (entry){j, CMC_HOW_PREFIX, distance};
        }
    }
    return best;
}

static entry prefix_by_search(const cmc_vocab *host, const cmc_vocab *delta, int32_t id) {
    piece h = bytes_of(host, id);
    if (cmc_vocab_is_end(host, id)) {
        return end_by_search(host, delta, id);
    }
    if (standing(host, id) < 0 || (cmc_vocab_roles(host, id) & (CMC_ROLE_BOS | CMC_ROLE_PAD | CMC_ROLE_UNK))) {
        return NONE;
    }
    if (cmc_vocab_kind(host, id) == CMC_KIND_BYTE) {
        int32_t byte = with_bytes(delta, h, 2, 2), to = byte >= 0 ? byte : with_bytes(delta, h, 0, 1);
        return to >= 0 ? (entry){to, CMC_HOW_BYTE, 0} : NONE;
    }
    int32_t to = with_bytes(delta, h, 0, 2);
    if (to >= 0) {
        return (entry){to, standing(delta, to) == 2 ? CMC_HOW_BYTE : CMC_HOW_EXACT, 0};
    }
    return nearest_by_search(delta, h);
}

/* ------------------------------------------------------------------------------------------------------- checks */

typedef entry search_fn(const cmc_vocab *host, const cmc_vocab *delta, int32_t id);
static const struct { const char *name; cmc_map_rule rule; search_fn *search; } RULES[] = {
    {"prefix", CMC_RULE_PREFIX, prefix_by_search}, {"reference", CMC_RULE_REFERENCE, reference_by_search}};

static void print_token(const char *what, const cmc_vocab *v, int32_t id) {
    piece b = id < 0 ? (piece){(const uint8_t *)"", 0} : bytes_of(v, id);
    print_bytes(what, (const char *)b.s, b.n);
}

static void check_entry(const cmc_map *m, const cmc_vocab *host, const cmc_vocab *delta, int32_t id, entry want,
                        const char *rule) {
    cmc_map_how how;
    int32_t distance, to = cmc_map_get(m, id, &how, &distance);
    if (to != want.to || how != want.how || distance != want.distance) {
        print_token("host token", host, id);
        print_token("maps to", delta, to);
        print_token("should map to", delta, want.to);
        fail_msg("rule %s, host token %d: %d (how %d, distance %d), should be %d (how %d, distance %d)", rule, (int)id,
                 (int)to, (int)how, (int)distance, (int)want.to, (int)want.how, (int)want.distance);
    }
}

static cmc_map *build(const cmc_vocab *host, const cmc_vocab *delta, cmc_map_rule rule) {
    cmc_map *m;
    cmc_error err = {0};
    if (cmc_map_build(host, delta, rule, &m, &err) != CMC_OK) {
        fail_msg("%s", err.message);
    }
    return m;
}

typedef size_t tally[2][CMC_HOW_OVERRIDE + 1];

/* Every `step`th host token by both rules, from `first` on. */
static void check_pair(const cmc_vocab *host, const cmc_vocab *delta, int32_t first, int32_t step, tally found) {
    bool equal = cmc_vocab_equal(host, delta);
    for (size_t k = 0; k < 2; k++) {
        cmc_map *m = build(host, delta, RULES[k].rule);
        for (int32_t id = first; id < cmc_vocab_size(host); id += step) {
            if (equal && k == 0) {
                assert_int_equal(cmc_map_get(m, id, NULL, NULL), id);
            } else {
                check_entry(m, host, delta, id, RULES[k].search(host, delta, id), RULES[k].name);
            }
            found[k][m->how[id]]++;
        }
        cmc_map_free(m);
    }
}

/* ----------------------------------------------------------------------------------------- random vocabularies */

/* Few letters, so that prefixes and repeats abound: white space of every width and what only looks like it, combining
 * marks, whole and cut characters, bytes of none, brackets, spelled spaces, NUL. */
static size_t random_bytes(rng *r, char *out) {
    static const char *const common[] = {"a", "a", "b", " ", " ", "\xE2\x96\x81", "<", ">", "]", "\xCC\x81"};
    static const char *const rare[] = {
        "\xC3\xA9", "\xC3", "\xE4\xB8\xAD", "\xE4\xB8", "\xE4", "\xAD", "\xF0\x9F\x98\x80", "\xF0\x9F\x98", "\x98",
        "\xFF", "\xC0\xAF", "\xED\xA0\x80", "\xE0\xA4\x95", "\xE0\xA4\xBF", "\xC4\xA0", "\xE1\xA0\x8E",
        "\xE2\x80\x8B", "\xEF\xBB\xBF", "\x1C", "<0x0A>", "<pad>"};
    size_t n = 0;
    for (uint32_t left = rng_below(r, 6); left--;) {
        uint32_t kind = rng_below(r, 20);
        const char *u = kind < 13   ? common[rng_below(r, sizeof common / sizeof *common)]
                        : kind < 18 ? rare[rng_below(r, sizeof rare / sizeof *rare)]
                                    : WHITE[rng_below(r, N_WHITE)];
        size_t len = kind == 13 ? 1 : strlen(u);
        memcpy(out + n, kind == 13 ? "\0" : u, len);
        n += len;
    }
    return n;
}

static token_spec random_token(rng *r, char *bytes) {
    static const cmc_token_kind kinds[] = {CMC_KIND_NORMAL, CMC_KIND_NORMAL, CMC_KIND_NORMAL, CMC_KIND_NORMAL,
                                           CMC_KIND_USER, CMC_KIND_BYTE, CMC_KIND_CONTROL, CMC_KIND_UNUSED};
    token_spec t = {.kind = kinds[rng_below(r, 8)], .len = random_bytes(r, bytes)};
    if (t.kind == CMC_KIND_BYTE) {
        static const char raw[] = "ab]\n \xE4\xFF";
        bytes[0] = raw[rng_below(r, sizeof raw)];      /* the NUL too */
        t.len = 1;
    } else if (t.len == 0) {
        bytes[0] = '\0';
    }
    t.bytes = bytes;
    t.roles = rng_below(r, 12) == 0 ? 1u << rng_below(r, 5) | (rng_below(r, 4) == 0 ? 1u << rng_below(r, 5) : 0) : 0;
    t.end = rng_below(r, 40) == 0;
    return t;
}

/* n tokens, the last `padded` of them unused ids as model files are filled up with. */
static cmc_vocab *random_vocab(rng *r, size_t n, size_t padded) {
    char (*bytes)[48] = cmc_calloc(n, sizeof *bytes);
    token_spec *spec = cmc_calloc(n, sizeof *spec);
    assert_true(bytes && spec);
    for (size_t i = 0; i < n; i++) {
        if (i + padded < n) {
            spec[i] = random_token(r, bytes[i]);
        } else {
            snprintf(bytes[i], sizeof *bytes, "[PAD%zu]", i);
            spec[i] = (token_spec){.bytes = bytes[i], .kind = CMC_KIND_UNUSED};
        }
    }
    cmc_vocab *v = vocab_make(spec, n);
    assert_non_null(v);
    free(bytes);
    free(spec);
    return v;
}

static size_t random_size(rng *r) {
    uint32_t kind = rng_below(r, 10);
    return kind == 0 ? 1 : 1 + rng_below(r, kind == 1 ? 150 : 30);
}

static void test_small_vocabularies(void **state) {
    (void)state;
    tally found = {{0}};
    rng r = {1};
    for (int round = 0; round < 3000; round++) {
        size_t n_host = random_size(&r), n_delta = random_size(&r);
        cmc_vocab *host = random_vocab(&r, n_host, rng_below(&r, 4) == 0 ? n_host / 3 : 0);
        cmc_vocab *delta = random_vocab(&r, n_delta, rng_below(&r, 4) == 0 ? n_delta / 3 : 0);
        check_pair(host, delta, 0, 1, found);
        cmc_vocab_free(host);
        cmc_vocab_free(delta);
    }
    for (int how = CMC_HOW_NONE; how <= CMC_HOW_PREFIX; how++) {      /* the search has met every kind of entry */
        assert_true(found[0][how] > 300 && found[1][how] > 300);
    }
}

/* The same tokens on both sides, but for one kind, one byte or one place: nearly equal vocabularies are not equal. */
static void test_nearly_equal_vocabularies(void **state) {
    (void)state;
    tally found = {{0}};
    rng r = {2};
    for (int round = 0; round < 300; round++) {
        enum { N = 24 };
        char bytes[N][48] = {{0}};
        token_spec spec[N];
        for (size_t i = 0; i < N; i++) {
            spec[i] = random_token(&r, bytes[i]);
        }
        cmc_vocab *host = vocab_make(spec, N);
        size_t a = rng_below(&r, N), b = rng_below(&r, N);
        token_spec swap = spec[a];
        switch (round % 3) {
        case 0: spec[a].kind = spec[a].kind == CMC_KIND_BYTE ? CMC_KIND_BYTE : CMC_KIND_USER; break;
        case 1: spec[a] = spec[b], spec[b] = swap; break;
        default: break;
        }
        cmc_vocab *delta = vocab_make(spec, N);
        assert_true(host && delta);
        check_pair(host, delta, 0, 1, found);
        cmc_vocab_free(host);
        cmc_vocab_free(delta);
    }
}

/* Vocabularies as files hold them: byte-level BPE and SentencePiece, each to each. */
static void test_tiny_models_vocabularies(void **state) {
    (void)state;
    tally found = {{0}};
    const tiny_spec specs[] = {{.vocab = "bpe", .vocab_only = true},
                               {.vocab = "bpe", .n_learnt = 90, .control_first = true},
                               {.vocab = "spm", .vocab_only = true}, {.vocab = "spm", .n_learnt = 70}};
    enum { N = sizeof specs / sizeof *specs };
    cmc_vocab *v[N];
    for (size_t i = 0; i < N; i++) {
        v[i] = vocab_tiny(&specs[i]);
    }
    for (size_t i = 0; i < N; i++) {
        for (size_t j = 0; j < N; j++) {
            check_pair(v[i], v[j], 0, 1, found);
        }
    }
    for (size_t i = 0; i < N; i++) {
        cmc_vocab_free(v[i]);
    }
}

/* ----------------------------------------------------------------------------------------------- large ones */

/* Words of a small syllabary, half of them after a space: a quarter of a million of them share prefixes as real tokens
 * do, and repeat. */
static cmc_vocab *large_vocab(rng *r, size_t n) {
    static const char *const syllable[] = {"a", "in", "ter", "ion", "er", "st", "re", "on", "th", "e", "ing", "lo",
                                           "que", "\xC3\xA9", "\xD0\xB0", "\xE4\xB8\xAD", "1", "_", "(", "s"};
    enum { WIDTH = 32 };
    char *words = cmc_calloc(n, WIDTH);
    token_spec *spec = cmc_calloc(n, sizeof *spec);
    assert_true(words && spec);
    for (size_t i = 0; i < n; i++) {
        char *w = words + i * WIDTH;
        size_t len = 0;
        w[len] = ' ';
        len += rng_below(r, 2);
        for (uint32_t left = 1 + rng_below(r, 6); left--;) {
            const char *s = syllable[rng_below(r, sizeof syllable / sizeof *syllable)];
            memcpy(w + len, s, strlen(s));
            len += strlen(s);
        }
        spec[i] = (token_spec){.bytes = w, .len = len, .kind = rng_below(r, 50) ? CMC_KIND_NORMAL : CMC_KIND_USER};
    }
    cmc_vocab *v = vocab_make(spec, n);
    assert_non_null(v);
    free(words);
    free(spec);
    return v;
}

static void test_a_quarter_of_a_million(void **state) {
    (void)state;
    tally found = {{0}};
    rng r = {3};
    cmc_vocab *host = large_vocab(&r, 262144), *delta = large_vocab(&r, 49152);
    check_pair(host, delta, 5, 2621, found);
    check_pair(delta, host, 7, 4096, found);
    assert_true(found[0][CMC_HOW_EXACT] > 10 && found[0][CMC_HOW_PREFIX] > 10);
    cmc_vocab_free(host);
    cmc_vocab_free(delta);
}

static void test_real_models(void **state) {
    (void)state;
    tally found = {{0}};
    cmc_vocab *host = vocab_real("CMC_TEST_GEMMA", "test_real_models");
    cmc_vocab *delta = host ? vocab_real("CMC_TEST_SMOLLM2", "test_real_models") : NULL;
    if (host && delta) {
        check_pair(host, delta, 11, 2003, found);
        check_pair(delta, host, 3, 2003, found);
    }
    cmc_vocab_free(host);
    cmc_vocab_free(delta);
}

/* Mistral v0.1 to Llama 2: by the paper's rule, its public code's counts. */
static void test_real_tokenizers(void **state) {
    (void)state;
    const char *dir = getenv("CMC_TEST_TOKENIZERS");
    if (!dir) {
        printf("SKIP test_real_tokenizers: CMC_TEST_TOKENIZERS names no directory\n");
        return;
    }
    tally found = {{0}};
    char path[2][4096];
    snprintf(path[0], sizeof path[0], "%s/mistral-v0.1.model", dir);
    snprintf(path[1], sizeof path[1], "%s/llama2.model", dir);
    cmc_vocab *host = vocab_must_open(path[0]), *delta = vocab_must_open(path[1]);
    cmc_map *m = build(host, delta, CMC_RULE_REFERENCE);
    cmc_map_counts c;
    cmc_map_counts_get(m, &c);
    assert_int_equal(c.role + c.byte + c.exact, 24185);
    assert_int_equal(c.prefix, 6474);
    assert_int_equal(c.none, 1341);
    assert_int_equal(cmc_map_get(m, 28675, NULL, NULL), 25299);
    cmc_map_free(m);
    check_pair(host, delta, 0, 97, found);
    check_pair(delta, host, 1, 97, found);
    cmc_vocab_free(host);
    cmc_vocab_free(delta);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_small_vocabularies),
        cmocka_unit_test(test_nearly_equal_vocabularies),
        cmocka_unit_test(test_tiny_models_vocabularies),
        cmocka_unit_test(test_a_quarter_of_a_million),
        cmocka_unit_test(test_real_models),
        cmocka_unit_test(test_real_tokenizers),
    };
    return cmocka_run_group_tests_name("map, by search", tests, NULL, NULL);
}
