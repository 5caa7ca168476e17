/* tokenizer.json: ids as PyPI's tokenizers gives them, what the tokens are, and what is refused. */
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h>

#include "base/mem.h"
#include "tests/data/hf/cases.h"
#include "tokenmap/hf.h"
#include "tokenmap/retok.h"

static cmc_vocab *open_text(const char *json) {
    cmc_vocab *v;
    cmc_error err = {0};
    if (vocab_from_hf((const uint8_t *)json, strlen(json), "t.json", &v, &err) != CMC_OK) {
        fail_msg("%s", err.message);
    }
    return v;
}

static json_t *parse(const char *text) {
    json_t *o = json_loads(text, JSON_ALLOW_NUL | JSON_DECODE_ANY, NULL);
    assert_non_null(o);
    return o;
}

/* A case's file, with its model. */
static char *case_file(const struct hf_case *c) {
    json_t *o = parse(c->file);
    json_t *model = parse(HF_MODELS[json_integer_value(json_object_get(o, "model"))]);
    assert_int_equal(json_object_set_new(o, "model", model), 0);
    char *text = json_dumps(o, JSON_COMPACT);
    json_decref(o);
    assert_non_null(text);
    return text;
}

static cmc_vocab *open_case(const char *name) {
    for (size_t i = 0; i < sizeof HF_CASES / sizeof *HF_CASES; i++) {
        if (strcmp(HF_CASES[i].name, name) == 0) {
            char *text = case_file(&HF_CASES[i]);
            cmc_vocab *v = open_text(text);
            free(text);
            return v;
        }
    }
    fail_msg("no case %s", name);
    return NULL;
}

static void assert_ids(const char *what, const cmc_ids *got, const json_t *want) {
    bool same = got->n == json_array_size(want);
    for (size_t i = 0; same && i < got->n; i++) {
        same = got->v[i] == json_integer_value(json_array_get(want, i));
    }
    if (!same) {
        char *s = json_dumps(want, JSON_COMPACT);
        print_error("%s: wanted %s, got", what, s);
        for (size_t i = 0; i < got->n; i++) {
            print_error(" %d", got->v[i]);
        }
        free(s);
        fail_msg("the ids differ");
    }
}

static void test_cases(void **state) {
    (void)state;
    json_t *texts = parse(HF_TEXTS);
    for (size_t i = 0; i < sizeof HF_CASES / sizeof *HF_CASES; i++) {
        const struct hf_case *c = &HF_CASES[i];
        cmc_vocab *v = open_case(c->name);
        json_t *want = parse(c->ids);
        assert_int_equal(json_array_size(want), json_array_size(texts));
        for (size_t k = 0; k < json_array_size(texts); k++) {
            const json_t *t = json_array_get(texts, k);
            cmc_ids ids = {0};
            cmc_error err = {0};
            char what[80];
            snprintf(what, sizeof what, "%s, text %zu", c->name, k);
            if (cmc_tokenize(v, json_string_value(t), json_string_length(t), CMC_TOK_BOS | CMC_TOK_SPECIAL, &ids,
                             &err) != CMC_OK) {
                fail_msg("%s: %s", what, err.message);
            }
            assert_ids(what, &ids, json_array_get(want, k));
            cmc_ids_free(&ids);
        }
        json_decref(want);
        cmc_vocab_free(v);
    }
    json_decref(texts);
}

/* ------------------------------------------------------------------------------------------------- tokens */
#define ADDED(id, s, special, more)                                                                                    \
    "{\"id\":" #id ",\"content\":\"" s "\",\"special\":" special ",\"normalized\":false,\"single_word\":false," more "}"
#define NO_STRIP "\"lstrip\":false,\"rstrip\":false"
#define LLAMA_ADDED                                                                                                    \
    "[" ADDED(0, "<unk>", "true", NO_STRIP) "," ADDED(1, "<s>", "true", NO_STRIP) ","                                  \
    ADDED(2, "</s>", "true", NO_STRIP) "," ADDED(10, "<tool>", "false", NO_STRIP) ","                                  \
    ADDED(11, "<|im_end|>", "false", NO_STRIP) "]"
#define LLAMA_MODEL                                                                                                    \
    "{\"type\":\"BPE\",\"unk_token\":\"<unk>\",\"byte_fallback\":true,\"fuse_unk\":true,\"vocab\":{\"<unk>\":0,"      \
    "\"<s>\":1,\"</s>\":2,\"<0x0A>\":3,\"<0xFF>\":4,\"\\u2581\":5,\"a\":6,\"\\u2581a\":7,\"b\":8,\"<\":9},"           \
    "\"merges\":[\"\\u2581 a\"]}"
#define LLAMA_REST                                                                                                     \
    "\"normalizer\":{\"type\":\"Sequence\",\"normalizers\":[{\"type\":\"Prepend\",\"prepend\":\"\\u2581\"},"           \
    "{\"type\":\"Replace\",\"pattern\":{\"String\":\" \"},\"content\":\"\\u2581\"}]},\"pre_tokenizer\":null,"          \
    "\"decoder\":{\"type\":\"Sequence\",\"decoders\":[{\"type\":\"Replace\",\"pattern\":{\"String\":\"\\u2581\"},"     \
    "\"content\":\" \"},{\"type\":\"ByteFallback\"},{\"type\":\"Fuse\"}]},\"post_processor\":{"                        \
    "\"type\":\"TemplateProcessing\",\"single\":[{\"SpecialToken\":{\"id\":\"<s>\",\"type_id\":0}},"                   \
    "{\"Sequence\":{\"id\":\"A\",\"type_id\":0}}],\"special_tokens\":{\"<s>\":{\"id\":\"<s>\",\"ids\":[1]}}}"
#define LLAMA "{\"added_tokens\":" LLAMA_ADDED ",\"model\":" LLAMA_MODEL "," LLAMA_REST "}"

static void assert_token(const cmc_vocab *v, int32_t id, cmc_token_kind kind, const char *bytes, unsigned roles) {
    size_t len;
    const uint8_t *b = cmc_vocab_bytes(v, id, &len);
    assert_int_equal(cmc_vocab_kind(v, id), kind);
    assert_int_equal(len, strlen(bytes));
    assert_memory_equal(b, bytes, len);
    assert_int_equal(cmc_vocab_roles(v, id), roles);
}

static void test_tokens(void **state) {
    (void)state;
    cmc_vocab *v = open_text(LLAMA);
    assert_string_equal(cmc_vocab_kind_name(v), "bpe");
    assert_int_equal(cmc_vocab_size(v), 12);
    assert_token(v, 0, CMC_KIND_CONTROL, "", CMC_ROLE_UNK);
    assert_token(v, 1, CMC_KIND_CONTROL, "", CMC_ROLE_BOS);
    assert_token(v, 2, CMC_KIND_CONTROL, "", CMC_ROLE_EOS);
    assert_token(v, 3, CMC_KIND_BYTE, "\n", 0);
    assert_token(v, 4, CMC_KIND_BYTE, "\xff", 0);
    assert_token(v, 5, CMC_KIND_NORMAL, " ", 0);
    assert_token(v, 7, CMC_KIND_NORMAL, " a", 0);
    assert_token(v, 10, CMC_KIND_USER, "<tool>", 0);
    assert_token(v, 11, CMC_KIND_CONTROL, "", CMC_ROLE_EOT); /* ends a turn, whatever the file calls it */
    assert_true(cmc_vocab_adds_bos(v) && cmc_vocab_is_end(v, 11) && cmc_vocab_is_end(v, 2));
    assert_int_equal(cmc_vocab_find_special(v, "<tool>"), 10);
    cmc_vocab_free(v);
    v = open_case("pre ByteLevel space=False regex=True");
    assert_int_equal(v->byte_token[' '], idmap_find(&v->hf->ids, "\xc4\xa0", 2));
    assert_token(v, v->byte_token[0xff], CMC_KIND_NORMAL, "\xff", 0);
    cmc_vocab_free(v);
    v = open_case("model Unigram");
    assert_string_equal(cmc_vocab_kind_name(v), "unigram");
    cmc_vocab_free(v);
}

/* ids[] ends with -1. */
static void assert_tokenized(const cmc_vocab *v, const char *text, size_t n, unsigned flags, const int32_t *want) {
    cmc_ids ids = {0};
    cmc_error err = {0};
    size_t k = 0;
    assert_int_equal(cmc_tokenize(v, text, n, flags, &ids, &err), CMC_OK);
    for (; want[k] >= 0; k++) {
        assert_true(k < ids.n);
        assert_int_equal(ids.v[k], want[k]);
    }
    assert_int_equal(ids.n, k);
    cmc_ids_free(&ids);
}

static void test_flags(void **state) {
    (void)state;
    cmc_vocab *v = open_text(LLAMA);
    const struct { const char *text; size_t n; unsigned flags; int32_t want[10]; } cases[] = {
        {"a", 1, CMC_TOK_BOS, {1, 7, -1}},
        {"a", 1, CMC_TOK_BOS | CMC_TOK_CONTINUE, {6, -1}},
        {" a", 2, CMC_TOK_CONTINUE, {7, -1}},
        {"a<s>b", 5, CMC_TOK_SPECIAL, {7, 1, 5, 8, -1}},
        {"a<s>b", 5, CMC_TOK_SPECIAL | CMC_TOK_CONTINUE, {6, 1, 5, 8, -1}},
        {"b<s", 3, 0, {5, 8, 9, 0, -1}},
        {"<s>", 3, 0, {5, 9, 0, -1}},           /* s and > are no tokens */
        {"a<tool>", 7, 0, {7, 10, -1}},
        {"<|im_end|>", 10, 0, {5, 9, 0, -1}},
        {"a\xff" "a", 3, 0, {7, 4, 6, -1}},     /* a stray byte has its token, and what follows begins no text */
        {"\xff", 1, CMC_TOK_BOS, {1, 4, -1}},
        {"a\n", 2, 0, {7, 3, -1}},
        {"\x80", 1, 0, {0, -1}},                /* no token for it, nor for U+FFFD */
        {"", 0, CMC_TOK_BOS, {1, -1}},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        assert_tokenized(v, cases[i].text, cases[i].n, cases[i].flags, cases[i].want);
    }
    cmc_vocab_free(v);
}

/* The spelling of a control token never makes one where it is to be text, whatever the model does with it. */
static void test_control_is_text(void **state) {
    (void)state;
    static const char unigram[] =
        "{\"added_tokens\":[" ADDED(1, "<s>", "true", NO_STRIP) "],\"model\":{\"type\":\"Unigram\",\"unk_id\":0,"
        "\"vocab\":[[\"<unk>\",0],[\"<s>\",0],[\"<\",-3],[\"s\",-3],[\">\",-3]]}}";
    static const char whole[] =
        "{\"added_tokens\":[" ADDED(3, "<s>", "true", NO_STRIP) "],\"model\":{\"type\":\"BPE\",\"ignore_merges\":true,"
        "\"vocab\":{\"<\":0,\"s\":1,\">\":2,\"<s>\":3,\"<s\":4},\"merges\":[\"< s\",\"<s >\"]}}";
    cmc_vocab *v = open_text(unigram);
    assert_tokenized(v, "<s>", 3, CMC_TOK_SPECIAL, (const int32_t[]){1, -1});
    assert_tokenized(v, "<s>", 3, 0, (const int32_t[]){2, 3, 4, -1});
    cmc_vocab_free(v);
    v = open_text(whole);
    assert_tokenized(v, "<s>", 3, CMC_TOK_SPECIAL, (const int32_t[]){3, -1});
    assert_tokenized(v, "<s>", 3, 0, (const int32_t[]){4, 2, -1});
    cmc_vocab_free(v);
}

static void test_holes(void **state) {
    (void)state;
    cmc_vocab *v = open_text("{\"model\":{\"type\":\"BPE\",\"vocab\":{\"a\":0,\"b\":5},\"merges\":[]}}");
    assert_int_equal(cmc_vocab_size(v), 6);
    assert_token(v, 3, CMC_KIND_UNUSED, "", 0);
    assert_tokenized(v, "ab", 2, 0, (const int32_t[]){0, 5, -1});
    cmc_vocab_free(v);
}

/* A growing text has the ids of the whole text. */
static void test_growing(void **state) {
    (void)state;
    static const char text[] = "Don't  stop 1234567 \xe4\xb8\xad\xe6\x96\x87 <s> e\xcc\x81\n\n x";
    static const char *const names[] = {"shape Llama 3", "shape Llama 2", "shape Mistral v3", "model Unigram"};
    for (size_t i = 0; i < sizeof names / sizeof *names; i++) {
        cmc_vocab *v = open_case(names[i]);
        retok *r;
        const int32_t *got;
        size_t n_got, kept;
        cmc_ids ids = {0};
        assert_int_equal(retok_new(v, &r, NULL), CMC_OK);
        for (size_t k = 0; k < sizeof text - 1; k++) {
            assert_int_equal(retok_append(r, (const uint8_t *)text + k, 1, NULL), CMC_OK);
            assert_int_equal(retok_ids(r, &got, &n_got, &kept, NULL), CMC_OK);
        }
        assert_int_equal(cmc_tokenize(v, text, sizeof text - 1, CMC_TOK_CONTINUE, &ids, NULL), CMC_OK);
        assert_int_equal(ids.n, n_got);
        assert_memory_equal(ids.v, got, n_got * sizeof *got);
        cmc_ids_free(&ids);
        retok_free(r);
        cmc_vocab_free(v);
    }
}

/* ------------------------------------------------------------------------------------------------- files */
static void write_file(const char *dir, const char *name, const char *text) {
    char path[512];
    snprintf(path, sizeof path, "%s/%s", dir, name);
    FILE *f = fopen(path, "w");
    assert_non_null(f);
    fputs(text, f);
    assert_int_equal(fclose(f), 0);
}

static void test_config(void **state) {
    (void)state;
    const char *base = getenv("TMPDIR");
    char dir[256], path[300];
    cmc_vocab *v;
    cmc_error err = {0};
    snprintf(dir, sizeof dir, "%s/cmc-hf-XXXXXX", base != NULL ? base : "/tmp");
    assert_non_null(mkdtemp(dir));
    snprintf(path, sizeof path, "%s/tokenizer.json", dir);
    write_file(dir, "tokenizer.json", "\n " LLAMA);
    write_file(dir, "tokenizer_config.json",
               "{\"bos_token\":null,\"eos_token\":{\"content\":\"<tool>\"},\"pad_token\":\"<unk>\","
               "\"chat_template\":[{\"name\":\"x\",\"template\":\"no\"},{\"name\":\"default\",\"template\":\"yes\"}]}");
    assert_int_equal(cmc_vocab_open(path, &v, &err), CMC_OK);
    assert_int_equal(cmc_vocab_role_token(v, CMC_ROLE_EOS), 10);
    assert_int_equal(cmc_vocab_role_token(v, CMC_ROLE_PAD), 0);
    assert_int_equal(cmc_vocab_role_token(v, CMC_ROLE_BOS), 1);
    assert_int_equal(cmc_vocab_kind(v, 10), CMC_KIND_CONTROL);
    assert_string_equal(cmc_vocab_chat_template(v), "yes");
    cmc_vocab_free(v);
    write_file(dir, "tokenizer_config.json", "{");
    assert_int_equal(cmc_vocab_open(path, &v, &err), CMC_E_FORMAT);
    assert_non_null(strstr(err.message, "tokenizer_config.json"));
    unlink(path);
    snprintf(path, sizeof path, "%s/tokenizer_config.json", dir);
    unlink(path);
    rmdir(dir);
}

#define SMALL "\"model\":{\"type\":\"BPE\",\"vocab\":{\"a\":0,\"b\":1,\"ab\":2},\"merges\":[\"a b\"]}"
#define WITH(key, value) "{\"" key "\":" value "," SMALL "}"
#define RE(s) WITH("pre_tokenizer", "{\"type\":\"Split\",\"pattern\":{\"Regex\":\"" s "\"},\"behavior\":\"Isolated\"," \
                                    "\"invert\":false}")

static void test_refused(void **state) {
    (void)state;
    const struct { const char *file, *message; cmc_status status; } cases[] = {
        {"{", "no JSON that can be read", CMC_E_FORMAT},
        {"{}", "no object \"model\"", CMC_E_FORMAT},
        {"{\"model\":{\"type\":\"WordPiece\",\"vocab\":{}}}", "\"WordPiece\" is not understood", CMC_E_UNSUPPORTED},
        {"{\"model\":{\"vocab\":{}}}", "without \"type\"", CMC_E_UNSUPPORTED},
        {"{\"model\":{\"type\":\"BPE\",\"vocab\":{\"a\":-1},\"merges\":[]}}", "has id -1", CMC_E_FORMAT},
        {"{\"model\":{\"type\":\"BPE\",\"vocab\":{\"a\":99999999},\"merges\":[]}}", "has id 99999999", CMC_E_FORMAT},
        {"{\"model\":{\"type\":\"BPE\",\"vocab\":{\"a\":0,\"b\":0},\"merges\":[]}}", "the same id, 0", CMC_E_FORMAT},
        {"{\"model\":{\"type\":\"BPE\",\"vocab\":{\"a\":0.5},\"merges\":[]}}", "is not a number", CMC_E_FORMAT},
        {"{\"model\":{\"type\":\"BPE\",\"vocab\":{},\"merges\":[]}}", "without tokens", CMC_E_FORMAT},
        {"{\"model\":{\"type\":\"BPE\",\"vocab\":[],\"merges\":[]}}", "an object of ids", CMC_E_FORMAT},
        {"{\"model\":{\"type\":\"BPE\",\"vocab\":{\"a\":0},\"merges\":[\"a a\"]}}", "merge 0", CMC_E_FORMAT},
        {"{\"model\":{\"type\":\"BPE\",\"vocab\":{\"a\":0},\"merges\":[[\"a\"]]}}", "merge 0", CMC_E_FORMAT},
        {"{\"model\":{\"type\":\"BPE\",\"vocab\":{\"a\":0},\"merges\":[],\"dropout\":0.1}}", "dropout",
         CMC_E_UNSUPPORTED},
        {"{\"model\":{\"type\":\"Unigram\",\"vocab\":[[\"a\"]]}}", "token 0", CMC_E_FORMAT},
        {"{\"model\":{\"type\":\"Unigram\",\"vocab\":[[\"a\",null]]}}", "score of token 0", CMC_E_FORMAT},
        {"{\"model\":{\"type\":\"Unigram\",\"unk_id\":1,\"vocab\":[[\"a\",0]]}}", "unk_id", CMC_E_FORMAT},
        {WITH("version", "\"2.0\""), "version", CMC_E_UNSUPPORTED},
        {WITH("truncation", "{\"max_length\":5}"), "truncation", CMC_E_UNSUPPORTED},
        {WITH("normalizer", "{\"type\":\"BertNormalizer\"}"), "BertNormalizer is not understood", CMC_E_UNSUPPORTED},
        {WITH("normalizer", "[]"), "normalizer is not an object", CMC_E_FORMAT},
        {WITH("normalizer", "{\"type\":\"Precompiled\",\"precompiled_charsmap\":\"*\"}"), "base64", CMC_E_FORMAT},
        {WITH("normalizer", "{\"type\":\"Precompiled\",\"precompiled_charsmap\":\"AAAA\"}"), "a trie", CMC_E_FORMAT},
        {WITH("pre_tokenizer", "{\"type\":\"UnicodeScripts\"}"), "UnicodeScripts is not", CMC_E_UNSUPPORTED},
        {WITH("pre_tokenizer", "{\"type\":\"Digits\"}"), "individual_digits", CMC_E_FORMAT},
        {WITH("pre_tokenizer", "{\"type\":\"Metaspace\",\"replacement\":\"ab\"}"), "one character", CMC_E_FORMAT},
        {WITH("post_processor", "{\"type\":\"Other\"}"), "post_processor: Other", CMC_E_UNSUPPORTED},
        {WITH("decoder", "{\"type\":\"CTC\"}"), "decoder: CTC", CMC_E_UNSUPPORTED},
        {WITH("added_tokens", "[" ADDED(7, "<x>", "true", NO_STRIP) "]"), "has id 7 where its place gives it 3",
         CMC_E_FORMAT},
        {WITH("added_tokens", "[{\"id\":0,\"content\":\"a\"}]"), "single_word", CMC_E_FORMAT},
        {RE("(?<n>a)"), "\"(?<\" at byte 0", CMC_E_UNSUPPORTED},
        {RE("a(?i)b"), "in the midst", CMC_E_UNSUPPORTED},
        {RE("(?i:ss)"), "where case is ignored", CMC_E_UNSUPPORTED},
        {RE("[a[b]]"), "a class within the class", CMC_E_UNSUPPORTED},
        {RE("[a&&b]"), "a class within the class", CMC_E_UNSUPPORTED},
        {RE("\\\\p{Alpha}"), "\\p{Alpha}", CMC_E_UNSUPPORTED},
        {RE("a{2}+"), "repeat of a repeat", CMC_E_UNSUPPORTED},
        {RE("(a"), "without its )", CMC_E_UNSUPPORTED},
        {RE("a)"), "closes no group", CMC_E_UNSUPPORTED},
        {RE("[a"), "without its ]", CMC_E_UNSUPPORTED},
        {RE("*a"), "repeats nothing", CMC_E_UNSUPPORTED},
        {RE("(*UTF)a"), "(*", CMC_E_UNSUPPORTED},
        {RE("\\\\1"), "\\1", CMC_E_UNSUPPORTED},
        {RE("\\\\Ga"), "\\G", CMC_E_UNSUPPORTED},
        {RE("[\\\\W]"), "\\W", CMC_E_UNSUPPORTED},
        {RE("a\\\\"), "at byte 1", CMC_E_UNSUPPORTED},
        {RE("(?<=a+)b"), "cannot compile", CMC_E_UNSUPPORTED},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        cmc_vocab *v;
        cmc_error err = {0};
        cmc_status st = vocab_from_hf((const uint8_t *)cases[i].file, strlen(cases[i].file), "t.json", &v, &err);
        if (st != cases[i].status || strstr(err.message, cases[i].message) == NULL ||
            strncmp(err.message, "t.json: ", 8) != 0) {
            fail_msg("%s: %d, \"%s\"", cases[i].file, st, err.message);
        }
        assert_null(v);
    }
}

static void test_translate(void **state) {
    (void)state;
    const struct { const char *from, *to; } cases[] = {
        {"\\h+", "[0-9a-fA-F]+"},
        {"(?m:.)a{,3}?", "(?s:.)a{0,3}?"},
        {"^a$", "(?m:^)a(?m:$)"},
        {"\\p{Han}\\p{^L}\\P{N}", "\\p{sc:Han}\\P{L}\\P{N}"},
        {"[\\-a-z\\d\\]#]", "[\\-a-z\\p{Nd}\\]\\#]"},
        {"(a|(?:b))(?i:'S)", "(?:a|(?:b))(?i:\\'S)"},
        {"\\u4e00\\x41\\v\\/{", "\xe4\xb8\x80" "A\\x0b\\/\\{"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        char *out;
        assert_int_equal(regex_translate(cases[i].from, strlen(cases[i].from), "t", &out, NULL), CMC_OK);
        assert_string_equal(out, cases[i].to);
        free(out);
    }
}

/* A pattern that would take for ever ends in an error. */
static void test_catastrophe(void **state) {
    (void)state;
    static const char text[] = "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaab";
    cmc_vocab *v = open_text(RE("(?:a|a|aa)+[cd]"));
    cmc_ids ids = {0};
    cmc_error err = {0};
    assert_int_equal(cmc_tokenize(v, text, sizeof text - 1, 0, &ids, &err), CMC_E_RANGE);
    assert_non_null(strstr(err.message, "match limit"));
    assert_int_equal(ids.n, 0);
    cmc_ids_free(&ids);
    cmc_vocab_free(v);
}

/* A megabyte of spaces is no catastrophe. */
static void test_long(void **state) {
    (void)state;
    enum { N = 1 << 20 };
    cmc_vocab *v = open_case("shape Llama 3");
    cmc_ids ids = {0};
    cmc_error err = {0};
    char *text = cmc_alloc(N, 1);
    assert_non_null(text);
    memset(text, ' ', N);
    text[N - 1] = 'x';
    if (cmc_tokenize(v, text, N, 0, &ids, &err) != CMC_OK) {
        fail_msg("%s", err.message);
    }
    assert_true(ids.n > 1);
    cmc_ids_free(&ids);
    free(text);
    cmc_vocab_free(v);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_cases),     cmocka_unit_test(test_tokens),  cmocka_unit_test(test_flags),
        cmocka_unit_test(test_control_is_text), cmocka_unit_test(test_holes), cmocka_unit_test(test_growing),
        cmocka_unit_test(test_config),    cmocka_unit_test(test_refused), cmocka_unit_test(test_translate),
        cmocka_unit_test(test_catastrophe), cmocka_unit_test(test_long),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
