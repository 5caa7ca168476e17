/* Tokenising: expected ids on small vocabularies, pre-tokens, the oracle's ids on real ones, and what must hold for any
 * text. */
#include "tests/vocab_help.h"

#include <jansson.h>
#include <pthread.h>

#include "tokenmap/retok.h"
#include "tokenmap/spm_shim.h"
#include "tokenmap/spm_wire.h"
#include "tokenmap/tok.h"

#define SP "\xe2\x96\x81"
#define MAX_IDS 16

typedef struct id_case { const char *text; unsigned flags; int32_t ids[MAX_IDS]; } id_case;   /* ids end with -1 */

static void check_cases(const cmc_vocab *v, const id_case *cases, size_t n_cases) {
    cmc_ids ids = {0};
    for (size_t i = 0; i < n_cases; i++) {
        size_t want = 0, n = strlen(cases[i].text);
        while (cases[i].ids[want] >= 0) {
            want++;
        }
        tokenize_must(v, cases[i].text, n, cases[i].flags, &ids);
        assert_ids(cases[i].text, n, ids.v, ids.n, cases[i].ids, want);
    }
    cmc_ids_free(&ids);
}
#define CHECK_CASES(v, cases) check_cases(v, cases, sizeof(cases) / sizeof *(cases))

/* ---------------------------------------------------------------------------------------------- SentencePiece */
static const mini_token SPM[] = {
    {"<unk>", 2, 0},         {"<s>", 3, 0},    {"</s>", 3, 0}, {SP, 1, -90},    {"a", 1, -91},  {"b", 1, -92},
    {"c", 1, -93},           {"ab", 1, -1},    {"bc", 1, -2},  {SP "a", 1, -3}, {SP SP, 1, -4}, {"abc", 1, -5},
    {"<x>", 4, 0},           {"<x><x>", 4, 0}, {"dup", 1, -9}, {"dup", 1, -8},  {"", 1, 0},     {"d", 5, -95},
    {"\xef\xbf\xbd", 1, -6}, {SP "ab", 1, -7}, {NULL, 0, 0},
};
enum { S = CMC_TOK_SPECIAL, C = CMC_TOK_CONTINUE, B = CMC_TOK_BOS };

static const id_case SPM_CASES[] = {
    {"", 0, {-1}},
    {"", B, {1, -1}},
    {"ab", C, {7, -1}},
    {"abc", C, {11, -1}},              /* ab is better than bc, and abc than the rest */
    {"bcab", C, {8, 7, -1}},
    {"aab", C, {4, 7, -1}},
    {"ab", 0, {19, -1}},               /* the space before the text */
    {" a", C, {9, -1}},
    {" a", 0, {3, 9, -1}},             /* two spaces would be a worse pair than space and a */
    {SP "a", C, {9, -1}},              /* U+2581 is a space to such models */
    {"a  b", C, {4, 10, 5, -1}},
    {"<s>", C, {0, 0, 0, -1}},         /* control tokens are text unless asked for; <, s and > are unknown */
    {"<s>", C | S, {1, -1}},
    {"<s>ab</s>ab", S, {1, 19, 2, 19, -1}},      /* llama.cpp puts the space after each special token */
    {"<s>ab</s>ab", S | C, {1, 19, 2, 19, -1}},
    {"ab<s>ab", S, {19, 1, 19, -1}},
    {"ab<s>ab", S | C, {7, 1, 19, -1}},
    {"ab<x>ab", 0, {19, 12, 19, -1}},
    {"ab<x>ab", C, {7, 12, 7, -1}},    /* a text that continues stays what it is */
    {"<x><x><x>", C, {13, 12, -1}},    /* the longest at the leftmost place */
    {"<x", C, {0, 0, -1}},
    {"ab", B, {1, 19, -1}},
    {"ab", B | C, {7, -1}},
    {"\x80" "ab", C, {18, 7, -1}},     /* no byte tokens: U+FFFD */
    {"a\xe2\x96", C, {4, 18, 18, -1}},
    {"\xc3\xa9", C, {0, -1}},
    {"d", C, {17, -1}},                /* an unused piece of one character has no smaller ones */
};

static void test_spm_ids(void **state) {
    (void)state;
    mini m = {.model = "llama", .tokens = SPM, .space_prefix = -1, .add_bos = -1};
    cmc_vocab *v;
    cmc_error err = {0};
    assert_int_equal(mini_open(&m, &v, &err), CMC_OK);
    CHECK_CASES(v, SPM_CASES);
    cmc_vocab_free(v);
    static const id_case bare[] = {{"ab", 0, {7, -1}}, {"ab", B, {7, -1}}, {"<s>ab", S, {1, 7, -1}}};
    m.space_prefix = m.add_bos = 0;
    assert_int_equal(mini_open(&m, &v, &err), CMC_OK);
    CHECK_CASES(v, bare);
    cmc_vocab_free(v);
}

/* Byte tokens: all of them, and only some (which libsentencepiece itself would refuse). */
static void test_spm_bytes(void **state) {
    (void)state;
    static mini_token some[300], all[300];
    static char names[256][8];
    size_t n = 0;
    some[n] = all[n] = (mini_token){"<unk>", 2, 0}, n++;
    for (int b = 0; b < 256; b++, n++) {
        snprintf(names[b], sizeof names[b], "<0x%02X>", b);
        all[n] = (mini_token){names[b], 6, 0};
        some[n] = b < 0xc3 ? (mini_token){names[b], 6, 0} : (mini_token){names[b], 1, 0};
    }
    some[n] = all[n] = (mini_token){"a", 1, -1}, n++;
    static const id_case all_cases[] = {
        {"a\n", C, {257, 11, -1}},
        {"\xc3\xa9", C, {0xc4, 0xaa, -1}},
        {"\xff" "a", C, {256, 257, -1}},
        {"a\xc3", C, {257, 0xc4, -1}},
        {"<0x0A>", C, {61, 49, 121, 49, 66, 63, -1}},
    };
    static const id_case some_cases[] = {
        {"a\n", C, {257, 11, -1}},
        {"\xc3\xa9", C, {0, -1}},
        {"\xc2\xa9\xc3\xa9\xc2\xa9", C, {0xc3, 0xaa, 0, 0xc3, 0xaa, -1}},
        {"\x80", C, {0x81, -1}},
        {"\xff", C, {0, -1}}, /* U+FFFD, which is unknown too */
    };
    mini m = {.model = "llama", .tokens = all, .space_prefix = -1, .add_bos = -1};
    cmc_vocab *v;
    assert_int_equal(mini_open(&m, &v, NULL), CMC_OK);
    CHECK_CASES(v, all_cases);
    cmc_ids ids = {0};
    tokenize_must(v, "\0a\0", 3, C, &ids);
    assert_ids("\0a\0", 3, ids.v, ids.n, (int32_t[]){1, 257, 1}, 3);
    cmc_ids_free(&ids);
    cmc_vocab_free(v);
    m.tokens = some;
    assert_int_equal(mini_open(&m, &v, NULL), CMC_OK);
    CHECK_CASES(v, some_cases);
    cmc_vocab_free(v);
}

/* Without an unknown token, what nothing stands for gives nothing. */
static void test_spm_no_unk(void **state) {
    (void)state;
    static const mini_token tokens[] = {{"a", 1, -1}, {"b", 1, -2}, {NULL, 0, 0}};
    static const id_case cases[] = {{"ab", C, {0, 1, -1}}, {"a?b", C, {0, 1, -1}}, {"?", C, {-1}}};
    const mini m = {.model = "llama", .tokens = tokens, .space_prefix = 0, .add_bos = -1};
    cmc_vocab *v;
    assert_int_equal(mini_open(&m, &v, NULL), CMC_OK);
    CHECK_CASES(v, cases);
    cmc_vocab_free(v);
}

static bool push_id(void *user, int id, size_t begin, size_t end) {
    (void)begin;
    (void)end;
    return cmc_ids_push(user, id) == CMC_OK;
}

/* Long texts go through in parts: as if they had not. */
static void check_parts(const cmc_vocab *v) {
    uint8_t *wire;
    size_t size;
    int32_t unk;
    bool fallback;
    char msg[200];
    rng r = {4};
    text t = {0};
    cmc_ids whole = {0}, parts = {0};
    assert_int_equal(spm_wire_write(v, &wire, &size, &unk, &fallback, NULL), CMC_OK);
    assert_true(fallback);
    spm_shim *shim = spm_shim_load(wire, size, msg, sizeof msg);
    assert_non_null(shim);
    free(wire);
    while (t.n < 60000) {
        text_add_thing(&t, &r, false);
        if (rng_below(&r, 200) == 0) {
            text_add_run(&t, &r, 3000);
        }
    }
    assert_true(spm_shim_encode(shim, t.s, t.n, false, push_id, &whole, msg, sizeof msg));
    assert_int_equal(spm_encode(v, t.s, t.n, &parts, NULL), CMC_OK);
    assert_ids("(long)", 6, parts.v, parts.n, whole.v, whole.n);
    spm_shim_free(shim);
    cmc_ids_free(&whole);
    cmc_ids_free(&parts);
    free(t.s);
}

static void test_spm_parts(void **state) {
    (void)state;
    cmc_vocab *v = vocab_tiny(&(tiny_spec){.arch = "gemma3", .vocab_only = true});
    check_parts(v);
    cmc_vocab_free(v);
    v = vocab_real("CMC_TEST_GEMMA", "long texts in parts");
    if (v != NULL) {
        check_parts(v);
        cmc_vocab_free(v);
    }
}

/* ------------------------------------------------------------------------------------------------ byte level */
static const mini_token BPE[] = {
    {"<|endoftext|>", 3, 0}, {"a", 1, 0}, {"b", 1, 0}, {"c", 1, 0}, {"ab", 1, 0}, {"bc", 1, 0}, {"abc", 1, 0},
    {"\xc4\xa0", 1, 0}, {"\xc4\xa0" "a", 1, 0}, {"\xc3\x83", 1, 0}, {"\xc2\xa9", 1, 0}, {"\xc3\x83\xc2\xa9", 1, 0},
    {"  ", 4, 0}, {"aa", 1, 0}, {"1", 1, 0}, {"aaaa", 1, 0}, {"cba", 1, 0}, {"<|", 4, 0}, {NULL, 0, 0},
};
static const char *const BPE_MERGES[] = {"b c", "a b", "ab c", "\xc4\xa0 a", "\xc3\x83 \xc2\xa9", "a a", "aa aa", NULL};

static void test_bpe_ids(void **state) {
    (void)state;
    static const id_case cases[] = {
        {"", 0, {-1}}, {"", B, {0, -1}}, {"a", B, {0, 1, -1}}, {"a", B | C, {1, -1}},
        {"abc", 0, {1, 5, -1}},           /* b c comes before a b */
        {"ab", 0, {4, -1}}, {"ababc", 0, {4, 1, 5, -1}}, {" a", 0, {8, -1}}, {"b a", 0, {2, 8, -1}},
        {"\xc3\xa9", 0, {11, -1}}, {"\xc3", 0, {9, -1}}, {"\xa9", 0, {10, -1}},
        {"\xc3\xa9\xc3", 0, {11, 9, -1}}, /* what belongs to no character is merged with nothing */
        {"\xa9\xc3", 0, {10, 9, -1}},
        {"aaa", 0, {13, 1, -1}},          /* the leftmost of equals */
        {"aaaa", 0, {15, -1}}, {"aaaaa", 0, {15, 1, -1}},
        {"b  a", 0, {2, 12, 1, -1}},      /* a user-defined token, before any pre-token */
        {"<|endoftext|>", 0, {17, -1}},   /* characters without tokens give nothing */
        {"<|endoftext|>a", S, {0, 1, -1}},
        {"zaz", 0, {1, -1}},
        {"1a", 0, {14, 1, -1}},
        {"cba", 0, {3, 2, 1, -1}},        /* a token that no merge gives */
    };
    mini m = {.model = "gpt2",
              .pre = "smollm",
              .tokens = BPE,
              .merges = BPE_MERGES,
              .space_prefix = -1,
              .add_bos = 1,
              .no_scores = true};
    static const mini_key keys[] = {{"tokenizer.ggml.bos_token_id", 0}, {NULL, 0}};
    m.keys = keys;
    cmc_vocab *v;
    cmc_error err = {0};
    if (mini_open(&m, &v, &err) != CMC_OK) {
        fail_msg("%s", err.message);
    }
    CHECK_CASES(v, cases);
    cmc_vocab_free(v);
    /* Llama 3 takes a part that is a token as a whole. */
    static const id_case whole[] = {
        {"cba", 0, {16, -1}}, {"abc", 0, {6, -1}}, {"abcb", 0, {1, 5, 2, -1}}, {"a", B, {0, 1, -1}}};
    m.pre = "llama-bpe";
    m.add_bos = -1;                       /* and asks for BOS */
    assert_int_equal(mini_open(&m, &v, &err), CMC_OK);
    CHECK_CASES(v, whole);
    cmc_vocab_free(v);
}

/* ----------------------------------------------------------------------------------- BPE over characters (Gemma 4) */
static const mini_token CHARS[] = {
    {"<bos>", 3, 0}, {SP, 1, 0}, {"a", 1, 0}, {"b", 1, 0}, {SP "a", 1, 0}, {"ab", 1, 0}, {SP SP, 1, 0}, {"\n", 1, 0},
    {"\n\n", 1, 0}, {"\xc3\xa9", 1, 0}, {"\xc3\xa9" "b", 1, 0}, {"<0xC3>", 6, 0}, {"<0xA8>", 6, 0}, {"<0x63>", 6, 0},
    {"<u>", 4, 0}, {"<turn|>", 4, 0}, {"<", 1, 0}, {"u", 1, 0}, {">", 1, 0}, {NULL, 0, 0},
};
static const char *const CHAR_MERGES[] = {"\n \n", "a b", SP " a", SP " " SP, "\xc3\xa9 b", NULL};

/* Given byte by byte, a text has the same ids as all at once. */
static void check_growing(const cmc_vocab *v, const char *s, size_t n) {
    retok *r;
    cmc_ids want = {0};
    assert_int_equal(retok_new(v, &r, NULL), CMC_OK);
    for (size_t i = 0; i < n; i++) {
        const int32_t *ids;
        size_t n_ids, kept;
        assert_int_equal(retok_append(r, (const uint8_t *)s + i, 1, NULL), CMC_OK);
        assert_int_equal(retok_ids(r, &ids, &n_ids, &kept, NULL), CMC_OK);
        tokenize_must(v, s, cmc_utf8_whole((const uint8_t *)s, i + 1), C, &want);
        assert_ids(s, i + 1, ids, n_ids, want.v, want.n);
    }
    retok_free(r);
    cmc_ids_free(&want);
}

static void test_bpe_chars(void **state) {
    (void)state;
    static const id_case cases[] = {
        {"", B, {0, -1}},
        {"ab", 0, {5, -1}},                /* no space before a text */
        {"a", 0, {2, -1}}, {" a", 0, {4, -1}},
        {" ab", 0, {1, 5, -1}},            /* a b comes before the space and a */
        {"   a", 0, {6, 4, -1}}, {SP "a", 0, {4, -1}},
        {"\xc3\xa9", 0, {9, -1}}, {"\xc3\xa9" "b", 0, {10, -1}},
        {"\xc3\xa8" "b", 0, {11, 12, 3, -1}},            /* a character that is no token: its bytes */
        {"\xc3", 0, {11, -1}}, {"\xc3" "a\xa8", 0, {11, 2, 12, -1}},
        {"c", 0, {13, -1}}, {"cc", 0, {13, 13, -1}},
        {"a\n\n\nb", 0, {2, 8, 7, 3, -1}},
        {"a<u>b", 0, {2, 14, 3, -1}},
        {"<turn|>", S, {15, -1}},
        {"<turn|>", 0, {16, 17, 18, -1}},  /* ends a turn, so it is a control token; t, r, n and | are not there */
    };
    mini m = {.model = "gemma4", .pre = "no such one", .tokens = CHARS, .merges = CHAR_MERGES, .space_prefix = -1};
    static const mini_key keys[] = {{"tokenizer.ggml.bos_token_id", 0}, {NULL, 0}};
    m.keys = keys;                         /* .add_bos = 0: which is not believed */
    cmc_vocab *v;
    cmc_error err = {0};
    if (mini_open(&m, &v, &err) != CMC_OK) {
        fail_msg("%s", err.message);
    }
    CHECK_CASES(v, cases);
    assert_true(cmc_vocab_is_end(v, 15));
    assert_int_equal(cmc_vocab_role_token(v, CMC_ROLE_EOT), 15);
    static const char *const pieces[] = {"a", "b", "ab", " ", "  ", " a", "\n", "\n\n", "\xc3\xa9", "\xc3\xa8",
                                         "<u>", "c"};
    rng r = {3};
    text t = {0};
    for (size_t i = 0; i < 200; i++) {
        t.n = 0;
        for (uint32_t k = rng_below(&r, 12) + 1; k > 0; k--) {
            const char *s = pieces[rng_below(&r, sizeof pieces / sizeof *pieces)];
            text_add(&t, s, strlen(s));
        }
        check_growing(v, t.s, t.n);
    }
    free(t.s);
    cmc_vocab_free(v);
}

/* Phi-3's special tokens take the white space after them along. */
static void test_strip(void **state) {
    (void)state;
    static const mini_token tokens[] = {
        {"<unk>", 2, 0}, {"<s>", 3, 0}, {"</s>", 4, 0}, {"<|end|>", 3, 0}, {"<|endoftext|>", 3, 0},
        {SP, 1, -9}, {"a", 1, -8}, {SP "a", 1, -1}, {NULL, 0, 0},
    };
    static const id_case phi[] = {
        {"<|end|>  a", S, {3, 7, -1}},
        {"<|end|>\t\n\xc2\xa0\xe3\x80\x80" "a", S, {3, 7, -1}}, {"<|end|>  ", S, {3, -1}},
        {"<|end|> <|end|>", S, {3, 3, -1}}, {"a <|end|>", S, {7, 5, 3, -1}},
        {"<s> a", S, {1, 5, 7, -1}}, {"<|endoftext|> a", S, {4, 5, 7, -1}},
        {"</s> a", 0, {2, 7, -1}}, {"</s> a", C, {2, 7, -1}}, {"</s>  a", C, {2, 5, 7, -1}},
        {"<|end|> a", S | C, {3, 7, -1}}, {"<|end|>\xff", S, {3, 5, 0, -1}},
    };
    static const id_case other[] = {{"<|end|> a", S, {3, 5, 7, -1}}, {"</s> a", 0, {2, 5, 7, -1}}};
    static const struct { const char *name; bool strips; } names[] = {
        {"Phi-3-mini", true}, {"my phi3 tune", true}, {"Phi", false}, {NULL, false}, {"phi-", false},
    };
    for (size_t i = 0; i < sizeof names / sizeof *names; i++) {
        mini m = {.model = "llama", .tokens = tokens, .name = names[i].name, .space_prefix = -1, .add_bos = -1};
        cmc_vocab *v;
        assert_int_equal(mini_open(&m, &v, NULL), CMC_OK);
        if (names[i].strips) {
            CHECK_CASES(v, phi);
        } else {
            CHECK_CASES(v, other);
        }
        cmc_vocab_free(v);
    }
}

static bool join_part(void *user, const uint8_t *s, size_t n) {
    text *t = user;
    text_add(t, (const char *)s, n);
    text_add(t, "|", 1);
    return true;
}

static void test_pretokens(void **state) {
    (void)state;
    static const struct {
        const char *pre, *text, *parts;
    } cases[] = {
        {"gpt-2", "Hello world's 123  x", "Hello| world|'s| 123| | x|"},
        {"gpt-2", "I'LL don't", "I|'|LL| don|'t|"}, {"gpt-2", "a\n\n b  \n", "a|\n\n| b|  \n|"},
        {"gpt-2", "x\ny", "x|\n|y|"}, {"gpt-2", "...!? (a)", "...!?| (|a|)|"}, {"gpt-2", "  ", "  |"},
        {"gpt-2", "caf\xc3\xa9 \xe4\xb8\xad\xe6\x96\x87\xef\xbc\x8c",
         "caf\xc3\xa9| \xe4\xb8\xad\xe6\x96\x87|\xef\xbc\x8c|"},
        {"gpt-2",
         "a\xc2\xa0\xc2\xa0"
         "b",
         "a|\xc2\xa0|\xc2\xa0|b|"},
        {"gpt-2",
         "a\xe1\xa0\x8e"
         "b",
         "a|\xe1\xa0\x8e|b|"},
        {"gpt-2", "e\xcc\x81 x", "e|\xcc\x81| x|"},
        {"smollm", "a 123 b1", "a| |1|2|3| b|1|"},
        {"smollm", "x  7", "x|  |7|"},
        {"smollm", "\xc2\xbd\xe2\x85\xa7", "\xc2\xbd|\xe2\x85\xa7|"},
        {"llama-bpe", "I'LL 12345", "I|'LL| |123|45|"},
        {"llama-bpe", "a\n\n b  \n", "a|\n\n| b|  \n|"},
        {"llama-bpe", "  x", " | x|"},
        {"llama-bpe", "\tx (y) :\n\n", "\tx| (|y|)| :\n\n|"},
        {"llama-bpe", "'abc' 's", "'abc|'| '|s|"}, {"llama3", "1234", "123|4|"}, {"llama-v3", "1234", "123|4|"},
        {"qwen2", "I'LL 12345", "I|'LL| |1|2|3|4|5|"}, {"qwen2", "a \n x", "a| \n| x|"},
        {"default", "a+b 1234!!", "a|+|b| |123|4|!!|"}, {"default", " $5", " |$|5|"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        pretok *p;
        text t = {0};
        size_t done, n = strlen(cases[i].text);
        assert_int_equal(pretok_new(cases[i].pre, "f", &p, NULL), CMC_OK);
        assert_int_equal(pretok_split(p, (const uint8_t *)cases[i].text, n, false, join_part, &t, &done, NULL), CMC_OK);
        assert_int_equal(done, n);
        if (strcmp(t.s, cases[i].parts) != 0) {
            print_bytes(cases[i].pre, cases[i].text, n);
            print_bytes("got ", t.s, t.n);
            print_bytes("want", cases[i].parts, strlen(cases[i].parts));
            fail();
        }
        pretok_free(p);
        free(t.s);
    }
}

/* ----------------------------------------------------------------------------------------------- properties */
/* What the ids of a text that continues another must stand for. SPM: U+2581 is a space. A byte that belongs to no
 * character: itself where it has a token. BPE: bytes without a token are left out. */
static void expected_bytes(const cmc_vocab *v, const text *t, text *out) {
    const uint8_t *s = (const uint8_t *)t->s;
    out->n = 0;
    for (size_t i = 0, len; i < t->n; i += len) {
        int32_t cp = cmc_utf8_decode(s + i, t->n - i, &len);
        len = cp < 0 ? 1 : len;
        if (cp == 0x2581 && v->model == VOCAB_SPM) {
            text_add(out, " ", 1);
        } else if (cp >= 0 && v->model == VOCAB_SPM) {
            text_add(out, t->s + i, len);
        } else if (cp < 0 && v->byte_token[s[i]] < 0) {
            text_add(out, "\xef\xbf\xbd", 3);
        } else {
            for (size_t k = i; k < i + len; k++) {
                text_add(out, t->s + k, v->byte_token[s[k]] >= 0);
            }
        }
    }
    text_add(out, "", 0);
}

static void check_round_trip(const cmc_vocab *v, int n_texts) {
    rng r = {11};
    text t = {0}, want = {0}, got = {0};
    cmc_ids ids = {0};
    for (int k = 0; k < n_texts; k++) {
        if (k % 4 == 3) { /* bytes, whatever they be */
            t.n = 0;
            for (uint32_t n = rng_below(&r, 40); n > 0; n--) {
                text_add(&t, &(char){(char)rng_next(&r)}, 1);
            }
            text_add(&t, "", 0);
        } else {
            text_random(&t, &r, k % 2 == 1);
        }
        tokenize_must(v, t.s, t.n, CMC_TOK_CONTINUE, &ids);
        text_of_ids(v, ids.v, ids.n, &got);
        expected_bytes(v, &t, &want);
        if (got.n != want.n || memcmp(got.s, want.s, got.n) != 0) {
            print_bytes("text", t.s, t.n);
            print_bytes("got ", got.s, got.n);
            print_bytes("want", want.s, want.n);
            fail_msg("round trip %d", k);
        }
        for (size_t i = 0; i < ids.n; i++) {
            assert_true(ids.v[i] >= 0 && ids.v[i] < cmc_vocab_size(v));
            assert_true(cmc_vocab_kind(v, ids.v[i]) != CMC_KIND_CONTROL);
        }
    }
    free(t.s);
    free(want.s);
    free(got.s);
    cmc_ids_free(&ids);
}

static void test_round_trip_tiny(void **state) {
    (void)state;
    static const tiny_spec specs[] = {
        {.arch = "llama", .vocab = "spm", .vocab_only = true},
        {.arch = "gemma3", .vocab_only = true},
        {.arch = "llama", .vocab_only = true},
        {.arch = "qwen2", .vocab_only = true},
        {.arch = "llama", .pre = "llama-bpe", .vocab_only = true},
        {.arch = "llama", .pre = "default", .vocab_only = true},
    };
    for (size_t i = 0; i < sizeof specs / sizeof *specs; i++) {
        cmc_vocab *v = vocab_tiny(&specs[i]);
        check_round_trip(v, 10000);
        cmc_vocab_free(v);
    }
}

/* The dummy space is the only difference between a text and one that continues. */
static void test_dummy_space(void **state) {
    (void)state;
    cmc_vocab *v = vocab_tiny(&(tiny_spec){.arch = "llama", .vocab = "spm", .vocab_only = true});
    rng r = {12};
    text t = {0}, spaced = {0};
    cmc_ids a = {0}, b = {0};
    for (int k = 0; k < 500; k++) {
        text_random(&t, &r, true);
        spaced.n = 0;
        text_add(&spaced, " ", t.n > 0);
        text_add(&spaced, t.s, t.n);
        tokenize_must(v, t.s, t.n, 0, &a);
        tokenize_must(v, spaced.s, spaced.n, CMC_TOK_CONTINUE, &b);
        assert_ids(t.s, t.n, a.v, a.n, b.v, b.n);
    }
    free(t.s);
    free(spaced.s);
    cmc_ids_free(&a);
    cmc_ids_free(&b);
    cmc_vocab_free(v);
}

/* Appends; leaves what is there; a call that fails changes nothing. */
static void test_appends(void **state) {
    (void)state;
    cmc_vocab *v = vocab_tiny(&(tiny_spec){.arch = "llama", .vocab_only = true});
    cmc_ids ids = {0}, alone = {0};
    assert_int_equal(cmc_ids_push(&ids, 4711), CMC_OK);
    assert_int_equal(cmc_tokenize(v, "some text", 9, 0, &ids, NULL), CMC_OK);
    tokenize_must(v, "some text", 9, 0, &alone);
    assert_int_equal(ids.v[0], 4711);
    assert_ids("some text", 9, ids.v + 1, ids.n - 1, alone.v, alone.n);
    size_t n = ids.n;
    cmc_error err = {0};
    assert_int_equal(cmc_tokenize(v, "x", (size_t)INT32_MAX, CMC_TOK_BOS, &ids, &err), CMC_E_ARG);
    assert_int_equal(ids.n, n);
    assert_non_null(strstr(err.message, "too long"));
    cmc_ids_free(&ids);
    cmc_ids_free(&alone);
    cmc_vocab_free(v);
}

/* Pathological texts: minutes if anything were quadratic. */
static void test_long_runs(void **state) {
    (void)state;
    enum { N = 200000 };
    static const char *const archs[] = {"llama", "gemma3", "qwen2"};
    char *s = cmc_alloc(N, 1);
    cmc_ids ids = {0};
    for (size_t i = 0; i < 3; i++) {
        cmc_vocab *v = vocab_tiny(&(tiny_spec){.arch = archs[i], .vocab_only = true});
        for (size_t k = 0; k < 6; k++) {
            memset(s, "a \n9=\x80"[k], N);
            tokenize_must(v, s, N, CMC_TOK_CONTINUE, &ids);
            assert_true(ids.n > 0);
        }
        cmc_vocab_free(v);
    }
    free(s);
    cmc_ids_free(&ids);
}

/* One vocabulary, several threads, the first call (which loads libsentencepiece) among them. */
typedef struct job { const cmc_vocab *v; cmc_ids ids; cmc_status st; } job;

static void *job_run(void *arg) {
    job *j = arg;
    const char *s = tiny_text();
    j->st = cmc_tokenize(j->v, s, strlen(s), 0, &j->ids, NULL);
    return NULL;
}

static void test_threads(void **state) {
    (void)state;
    static const char *const archs[] = {"gemma3", "llama"};
    for (size_t i = 0; i < 2; i++) {
        cmc_vocab *v = vocab_tiny(&(tiny_spec){.arch = archs[i], .vocab_only = true});
        pthread_t threads[8];
        job jobs[8] = {0};
        for (size_t k = 0; k < 8; k++) {
            jobs[k].v = v;
            assert_int_equal(pthread_create(&threads[k], NULL, job_run, &jobs[k]), 0);
        }
        for (size_t k = 0; k < 8; k++) {
            pthread_join(threads[k], NULL);
            assert_int_equal(jobs[k].st, CMC_OK);
            assert_ids("text", 4, jobs[k].ids.v, jobs[k].ids.n, jobs[0].ids.v, jobs[0].ids.n);
        }
        for (size_t k = 0; k < 8; k++) {
            cmc_ids_free(&jobs[k].ids);
        }
        cmc_vocab_free(v);
    }
}

/* The .model file and the GGUF of one vocabulary tokenise alike. */
static void test_model_and_gguf(void **state) {
    (void)state;
    tiny_spec spec = {.arch = "llama", .vocab = "spm", .vocab_only = true};
    char *dir = tiny_dir_new();
    assert_int_equal(tiny_write_spm_model(&spec, tiny_path(dir, "t.model"), NULL), CMC_OK);
    cmc_vocab *a = vocab_must_open(tiny_path(dir, "t.model")), *b = vocab_tiny(&spec);
    rng r = {13};
    text t = {0};
    cmc_ids x = {0}, y = {0};
    for (int k = 0; k < 300; k++) {
        text_random(&t, &r, true);
        unsigned flags = rng_below(&r, 8);
        tokenize_must(a, t.s, t.n, flags, &x);
        tokenize_must(b, t.s, t.n, flags, &y);
        assert_ids(t.s, t.n, x.v, x.n, y.v, y.n);
    }
    free(t.s);
    cmc_ids_free(&x);
    cmc_ids_free(&y);
    cmc_vocab_free(a);
    cmc_vocab_free(b);
    tiny_dir_free(dir);
}

/* ----------------------------------------------------------------------------------------------- real models */
static void check_oracle(const cmc_vocab *v, const char *file) {
    const char *dir = getenv("CMC_TEST_ORACLE");
    if (dir == NULL || *dir == '\0') {
        printf("SKIP oracle %s: CMC_TEST_ORACLE is not set\n", file);
        return;
    }
    char path[4096];
    snprintf(path, sizeof path, "%s/%s", dir, file);
    json_error_t je;
    json_t *root = json_load_file(path, 0, &je), *c;
    assert_non_null(root);
    size_t i;
    cmc_ids ids = {0}, want = {0};
    json_array_foreach(json_object_get(root, "cases"), i, c) {
        const char *s = json_string_value(json_object_get(c, "text"));
        json_t *list = json_object_get(c, "ids");
        assert_non_null(s);
        want.n = 0;
        for (size_t k = 0; k < json_array_size(list); k++) {
            assert_int_equal(cmc_ids_push(&want, (int32_t)json_integer_value(json_array_get(list, k))), CMC_OK);
        }
        tokenize_must(v, s, strlen(s), CMC_TOK_BOS, &ids);
        assert_ids(s, strlen(s), ids.v, ids.n, want.v, want.n);
    }
    assert_true(i > 0);
    json_decref(root);
    cmc_ids_free(&ids);
    cmc_ids_free(&want);
}

static void test_smollm2(void **state) {
    (void)state;
    cmc_vocab *v = vocab_real("CMC_TEST_SMOLLM2", "tokenising with SmolLM2");
    if (v == NULL) {
        return;
    }
    static const id_case cases[] = {
        {"<|im_start|>user\nHi<|im_end|>\n", S, {1, 4093, 198, 26843, 2, 198, -1}},
        {"\x04", 0, {-1}},                /* has no token; the "unknown" one is <|endoftext|> */
    };
    CHECK_CASES(v, cases);
    check_round_trip(v, 10000);
    check_oracle(v, "SmolLM2-135M-Instruct.Q4_1.json");
    cmc_vocab_free(v);
}

static void test_gemma(void **state) {
    (void)state;
    cmc_vocab *v = vocab_real("CMC_TEST_GEMMA", "tokenising with Gemma");
    if (v == NULL) {
        return;
    }
    static const id_case cases[] = {
        {"<start_of_turn>user\nHi<end_of_turn>\n", S | B, {2, 105, 2364, 107, 10979, 106, 107, -1}},
        {"\n\n\n", 0, {109, -1}},
        {"a  b", 0, {236746, 138, 236763, -1}},
        {"<s>x</s>", 0, {203, 236781, 212, -1}}, /* tags; llama.cpp takes the second for a control token, by its name */
    };
    CHECK_CASES(v, cases);
    check_round_trip(v, 10000);
    check_oracle(v, "gemma-3-270m-q4_k_m.json");
    cmc_vocab_free(v);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_spm_ids),
        cmocka_unit_test(test_spm_bytes),
        cmocka_unit_test(test_spm_no_unk),
        cmocka_unit_test(test_spm_parts),
        cmocka_unit_test(test_bpe_ids),
        cmocka_unit_test(test_bpe_chars),
        cmocka_unit_test(test_strip),
        cmocka_unit_test(test_pretokens),
        cmocka_unit_test(test_round_trip_tiny),
        cmocka_unit_test(test_dummy_space),
        cmocka_unit_test(test_appends),
        cmocka_unit_test(test_long_runs),
        cmocka_unit_test(test_threads),
        cmocka_unit_test(test_model_and_gguf),
        cmocka_unit_test(test_smollm2),
        cmocka_unit_test(test_gemma),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
