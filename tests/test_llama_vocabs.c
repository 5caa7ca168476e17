/* The vocabularies that llama.cpp tests its tokenizers with, each with texts and the ids that its model's own tokenizer
 * gives (ggml-vocab-NAME.gguf, .gguf.inp, .gguf.out). scripts/fetch-vocabs.sh fetches them; $CMC_TEST_LLAMA_VOCABS is
 * where they are. */
#include "tests/vocab_help.h"

static const char SEPARATOR[] = "\n__ggml_vocab_test__\n";

/* ----------------------------------------------------------------------------------------------------- files */
static const char *vocabs_dir(const char *test) {
    const char *dir = getenv("CMC_TEST_LLAMA_VOCABS");
    if (dir == NULL || *dir == '\0') {
        printf("SKIP vocabulary %s: CMC_TEST_LLAMA_VOCABS is not set\n", test);
        return NULL;
    }
    return dir;
}

static void vocab_path(const char *dir, const char *name, const char *suffix, char out[1024]) {
    int n = snprintf(out, 1024, "%s/ggml-vocab-%s.gguf%s", dir, name, suffix);
    assert_true(n > 0 && n < 1024);
}

static text read_text(const char *dir, const char *name, const char *suffix) {
    char path[1024], block[4096];
    text t = {0};
    vocab_path(dir, name, suffix, path);
    FILE *f = fopen(path, "rb");
    if (f == NULL) {
        fail_msg("%s: cannot be read", path);
    }
    for (size_t n; (n = fread(block, 1, sizeof block, f)) > 0;) {
        text_add(&t, block, n);
    }
    fclose(f);
    text_add(&t, "", 0);
    return t;
}

/* The text of an .inp file that *s stands at, and *s at the one after it; false after the last. */
static bool next_text(const char **s, const char **out, size_t *n) {
    const char *end = strstr(*s, SEPARATOR);
    *out = *s;
    *n = end != NULL ? (size_t)(end - *s) : strlen(*s);
    *s = end != NULL ? end + sizeof SEPARATOR - 1 : *s + *n;
    return end != NULL || *n > 0;
}

/* A line of an .out file: ids with spaces before them. */
static void next_ids(const char **s, cmc_ids *ids) {
    ids->n = 0;
    while (**s != '\n') {
        char *end;
        long id = strtol(*s, &end, 10);
        assert_true(end > *s);
        assert_int_equal(cmc_ids_push(ids, (int32_t)id), CMC_OK);
        *s = end + strspn(end, " ");
    }
    ++*s;
}

/* ---------------------------------------------------------------------------------------------------- checks */
/* The ids of each text, without BOS and without special tokens in it. */
static void check_ids(const cmc_vocab *v, const char *dir, const char *name, size_t n_texts) {
    text inp = read_text(dir, name, ".inp"), out = read_text(dir, name, ".out");
    const char *at = inp.s, *o = out.s, *s;
    cmc_ids want = {0}, got = {0};
    size_t k = 0;
    for (size_t n; next_text(&at, &s, &n); k++) {
        next_ids(&o, &want);
        tokenize_must(v, s, n, 0, &got);
        assert_ids(s, n, got.v, got.n, want.v, want.n);
    }
    assert_int_equal(k, n_texts);
    assert_int_equal(*o, '\0');
    cmc_ids_free(&want);
    cmc_ids_free(&got);
    free(inp.s);
    free(out.s);
}

/* As the continuation of a text, the ids stand for just its bytes. */
static void check_bytes(const cmc_vocab *v, const char *s, size_t n, cmc_ids *ids, text *back) {
    tokenize_must(v, s, n, CMC_TOK_CONTINUE, ids);
    text_of_ids(v, ids->v, ids->n, back);
    if (back->n != n || memcmp(back->s, s, n) != 0) {
        print_bytes("text", s, n);
        print_bytes("back", back->s, back->n);
        fail();
    }
}

static void check_round_trip(const cmc_vocab *v, const char *dir, const char *name) {
    text inp = read_text(dir, name, ".inp"), back = {0}, t = {0};
    const char *at = inp.s, *s;
    cmc_ids ids = {0};
    for (size_t n; next_text(&at, &s, &n);) {
        check_bytes(v, s, n, &ids, &back);
    }
    rng r = {11};
    for (size_t i = 0; i < 1000; i++) {
        text_random(&t, &r, false);
        for (char *c = t.s; (c = memchr(c, '\0', t.n - (size_t)(c - t.s))) != NULL;) {
            *c = '0'; /* not every vocabulary has a token for this byte */
        }
        if (strstr(t.s, "\xe2\x96\x81") == NULL) { /* it is how some spell a space */
            check_bytes(v, t.s, t.n, &ids, &back);
        }
    }
    cmc_ids_free(&ids);
    free(inp.s);
    free(back.s);
    free(t.s);
}

/* To itself by identity; to GPT-2 each token that is there too maps to its like. */
static void check_map(const cmc_vocab *v, const char *dir) {
    char path[1024];
    cmc_error err = {0};
    cmc_map *m;
    cmc_map_counts c;
    assert_int_equal(cmc_map_build(v, v, CMC_RULE_DEFAULT, &m, &err), CMC_OK);
    cmc_map_counts_get(m, &c);
    assert_true(c.identity);
    cmc_map_free(m);
    vocab_path(dir, "gpt-2", "", path);
    cmc_vocab *delta = vocab_must_open(path);
    assert_int_equal(cmc_map_build(v, delta, CMC_RULE_DEFAULT, &m, &err), CMC_OK);
    cmc_map_counts_get(m, &c);
    assert_true(c.identity || c.exact > 10000);
    for (int32_t id = 0; id < c.n_host; id++) {
        cmc_map_how how;
        size_t n, len;
        int32_t to = cmc_map_get(m, id, &how, NULL);
        if (how == CMC_HOW_EXACT || how == CMC_HOW_BYTE) {
            const uint8_t *a = cmc_vocab_bytes(v, id, &n), *b = cmc_vocab_bytes(delta, to, &len);
            assert_int_equal(n, len);
            assert_memory_equal(a, b, n);
        }
    }
    cmc_map_free(m);
    cmc_vocab_free(delta);
}

/* --------------------------------------------------------------------------------------------------- one each */
typedef struct vocab_case {
    const char *name, *kind;
    size_t n_texts;           /* 0: has none; those of GPT-2 are taken for the round trip */
    int32_t bos;              /* what a text begins with, -1: nothing */
    const char *refused;      /* what the message says, where it is not read */
} vocab_case;

static void check_vocab(void **state) {
    const vocab_case *c = *state;
    const char *dir = vocabs_dir(c->name);
    char path[1024];
    if (dir == NULL) {
        return;
    }
    vocab_path(dir, c->name, "", path);
    if (c->refused != NULL) {
        cmc_vocab *none;
        cmc_error err = {0};
        assert_int_equal(cmc_vocab_open(path, &none, &err), CMC_E_UNSUPPORTED);
        assert_null(none);
        assert_non_null(strstr(err.message, c->refused));
        return;
    }
    cmc_vocab *v = vocab_must_open(path);
    cmc_ids ids = {0};
    assert_string_equal(cmc_vocab_kind_name(v), c->kind);
    tokenize_must(v, "", 0, CMC_TOK_BOS, &ids);
    assert_ids("", 0, ids.v, ids.n, &c->bos, c->bos >= 0);
    if (c->n_texts > 0) {
        check_ids(v, dir, c->name, c->n_texts);
    }
    check_round_trip(v, dir, c->n_texts > 0 ? c->name : "gpt-2");
    check_map(v, dir);
    cmc_ids_free(&ids);
    cmc_vocab_free(v);
}

/* Special tokens: what the fixed texts do not have. */
typedef struct special_case { const char *text; unsigned flags; int32_t ids[12]; } special_case; /* ends with -1 */

static void check_specials(const char *name, const special_case *cases, size_t n) {
    const char *dir = vocabs_dir(name);
    char path[1024];
    if (dir == NULL) {
        return;
    }
    vocab_path(dir, name, "", path);
    cmc_vocab *v = vocab_must_open(path);
    cmc_ids ids = {0};
    for (size_t i = 0; i < n; i++) {
        size_t want = 0;
        while (cases[i].ids[want] >= 0) {
            want++;
        }
        tokenize_must(v, cases[i].text, strlen(cases[i].text), cases[i].flags, &ids);
        assert_ids(cases[i].text, strlen(cases[i].text), ids.v, ids.n, cases[i].ids, want);
    }
    cmc_ids_free(&ids);
    cmc_vocab_free(v);
}
#define CHECK_SPECIALS(name, cases) check_specials(name, cases, sizeof(cases) / sizeof *(cases))
enum { S = CMC_TOK_SPECIAL, CONT = CMC_TOK_CONTINUE };

static void test_phi3_specials(void **state) {
    (void)state;
    static const special_case cases[] = {
        /* Its tokens take the white space after them along, <s>, <unk> and <|endoftext|> do not. */
        {"<|user|>  Hi<|end|>\n <|assistant|>x", S, {32010, 6324, 32007, 32001, 921, -1}},
        {"<|end|>\xc2\xa0\xe3\x80\x80x", S, {32007, 921, -1}},
        {"<s>  a<|endoftext|> b", S, {1, 259, 263, 32000, 29871, 289, -1}},
        /* Deliberately not as llama.cpp, which takes </s> for a control token by its name: the file says user-defined,
         * as does the model's tokenizer.json ("special": false), so that a text spells it. */
        {"a</s>  b", 0, {263, 2, 289, -1}},
        {"a</s>  b", S, {263, 2, 289, -1}},
        /* Deliberately so: what continues a text stands for just its bytes, so nothing is taken along. */
        {"a</s>  b", CONT, {29874, 2, 29871, 289, -1}},
    };
    CHECK_SPECIALS("phi-3", cases);
}

static void test_gemma4_specials(void **state) {
    (void)state;
    static const special_case cases[] = {
        {"<|turn>user\nHi <turn|>\n", S, {105, 2364, 107, 10979, 236743, 106, 107, -1}},
        {"<|turn>", 0, {236820, 236909, 887, 236813, -1}},
        {"b<|tool_call>", 0, {236763, 48, -1}},
        /* Merging goes from characters; one that has no token is given as its bytes'. */
        {"\xf3\xa0\x80\x81", 0, {481, 398, 366, 367, -1}},
    };
    CHECK_SPECIALS("gemma-4", cases);
}

static void test_user_defined(void **state) {
    (void)state;
    static const special_case spaces[] = {{"a    b", 0, {66, 50274, 67, -1}}};
    static const special_case titles[] = {
        {">>TITLE<<x", 0, {500, 6539, 503, 99, -1}}, {">>TITLE<<x", S, {0, 99, -1}}};
    static const special_case eot[] = {{"a<|EOT|>b", 0, {64, 32021, 65, -1}}};
    CHECK_SPECIALS("mpt", spaces);
    CHECK_SPECIALS("falcon", titles);
    CHECK_SPECIALS("deepseek-coder", eot);
}

static vocab_case CASES[] = {
    {"aquila", "bpe", 0, -1, NULL},
    {"baichuan", "spm", 0, 1, NULL},
    {"bert-bge", NULL, 0, -1, "\"bert\" (WordPiece)"},
    {"command-r", "bpe", 46, 5, NULL},
    {"deepseek-coder", "bpe", 46, 32013, NULL},
    {"deepseek-llm", "bpe", 46, 100000, NULL},
    {"falcon", "bpe", 46, -1, NULL},
    {"gemma-4", "bpe", 46, 2, NULL},
    {"gpt-2", "bpe", 46, -1, NULL},
    {"gpt-neox", "bpe", 0, -1, NULL},
    {"llama-bpe", "bpe", 46, 128000, NULL},
    {"llama-spm", "spm", 46, 1, NULL},
    {"mpt", "bpe", 46, -1, NULL},
    {"nomic-bert-moe", NULL, 0, -1, "\"t5\" (Unigram) with precompiled_charsmap"},
    {"phi-3", "spm", 46, 1, NULL},
    {"qwen2", "bpe", 46, -1, NULL},
    {"qwen35", "bpe", 50, -1, NULL},
    {"refact", "bpe", 46, -1, NULL},
    {"starcoder", "bpe", 46, -1, NULL},
};

int main(void) {
    enum { N = sizeof CASES / sizeof *CASES };
    struct CMUnitTest tests[N + 3] = {
        [N] = cmocka_unit_test(test_phi3_specials),
        [N + 1] = cmocka_unit_test(test_gemma4_specials),
        [N + 2] = cmocka_unit_test(test_user_defined),
    };
    for (size_t i = 0; i < N; i++) {
        tests[i] = (struct CMUnitTest){.name = CASES[i].name, .test_func = check_vocab, .initial_state = &CASES[i]};
    }
    return cmocka_run_group_tests(tests, NULL, NULL);
}
