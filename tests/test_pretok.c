/* Pre-tokenizers: where each kind cuts, that other names mean the same, and that a text still growing is cut alike. */
#include "tests/vocab_help.h"
#include "tokenmap/tok.h"

/* The parts with '@' between them; the text is what is left without these. The cuts are those of Hugging Face's
 * tokenizers with the pre-tokenizers of the models' own tokenizer.json. */
static const struct pretok_case { const char *pre, *parts; } CASES[] = {
    {"gpt-2", "Don@'t@ HE@'@LL@ we@'@Ve@ x@'@\u017f"},
    {"gpt-2", "McDonald@ ABCdef@ don@'@T"},
    {"gpt-2", "12345678@ x@1234@ 3@.@14@ \u00bd1234"},
    {"gpt-2", "a@ @ b@  @ c@ \n\n @ d"},
    {"gpt-2", "end@.@\r\n\r@\n@next@ /@\n@//"},
    {"gpt-2", " (@x@)@ a@+@b@ `~$"},
    {"gpt-2", "\u6211\u60f3\u5728apple\u5de5\u4f5c@\uff0c@\u3053\u308c\u306f@\u3002"},
    {"gpt-2", "\u0939@\u093f@\u0928@\u094d@\u0926@\u0940@ e@\u0301@t"},
    {"gpt-2", "\ud55c\uad6d\uc5b4@ \u3105\u3106@ \u0e44\u0e17\u0e22@\u2026"},
    {"gpt-2", "$@a@.@b@|@c@ <@sentinel@:@1@>@IMGIMGABZ"},
    {"gpt-2", "x@     \t@ y@  "},
    {"gpt-2", "a@\u180e@b@\u00a0@\u00a0@c@\u3000@d"},
    {"smollm", "1@2@3@4@5@6@7@8@ x@1@2@3@4@ @3@.@1@4@ @\u00bd@1@2@3@4"},
    {"falcon", "Don@'@t@ HE@'@LL@ we@'@Ve@ x@'@\u017f"},
    {"falcon", "123@456@78@ x@123@4@ 3@.@14@ \u00bd@123@4"},
    {"falcon", "end@.@\r\n\r@\n@next@ @/@\n@//"},
    {"falcon", " @(@x@)@ a@+@b@ @`~$"},
    {"falcon", "$@a@.@b@|@c@ @<@sentinel@:@1@>@IMGIMGABZ"},
    {"default", "123@456@78@ x@123@4@ @3@.@14@ @\u00bd@123@4"},
    {"default", " @(@x@)@ a@+@b@ `@~$"},
    {"chameleon", "Don@'@t@ HE@'@LL@ we@'@Ve@ x@'@\u017f"},
    {"chameleon", "1@2@3@4@5@6@7@8@ x@1@2@3@4@ @3@.@1@4@ @\u00bd@1@2@3@4"},
    {"chameleon", "a@  @b@  @ c@ @\n@\n@  @d"},
    {"chameleon", "end@.@\r@\n@\r@\n@next@ @/@\n@/@/"},
    {"chameleon", " @(@x@)@ a@+@b@ @`@~@$"},
    {"chameleon", "$@a@.@b@|@c@ @<@sentinel@:@1@>@IMGIMGABZ"},
    {"chameleon", "x@    @ @\t@ y@  "},
    {"chameleon", "<@sentinel@:@1@2@>@a"},
    {"llama-bpe", "Don@'t@ HE@'LL@ we@'Ve@ x@'\u017f"},
    {"llama-bpe", "McDonald@ ABCdef@ don@'T"},
    {"llama-bpe", "123@456@78@ x@123@4@ @3@.@14@ @\u00bd12@34"},
    {"llama-bpe", "a@ @ b@  @ c@ \n\n@ @ d"},
    {"llama-bpe", "end@.\r\n\r\n@next@ /\n@//"},
    {"llama-bpe", " (@x@)@ a@+b@ `~$"},
    {"llama-bpe", "\u6211\u60f3\u5728apple\u5de5\u4f5c@\uff0c\u3053\u308c\u306f@\u3002"},
    {"llama-bpe", "\u0939@\u093f\u0928@\u094d\u0926@\u0940@ e@\u0301t"},
    {"llama-bpe", "\ud55c\uad6d\uc5b4@ \u3105\u3106@ \u0e44\u0e17\u0e22@\u2026"},
    {"llama-bpe", "$a@.b@|c@ <@sentinel@:@1@>IMGIMGABZ"},
    {"llama-bpe", "x@     \t@ y@  "},
    {"llama-bpe", "a@\u180eb@\u00a0@\u00a0c@\u3000d"},
    {"qwen2", "1@2@3@4@5@6@7@8@ x@1@2@3@4@ @3@.@1@4@ @\u00bd@1@2@3@4"},
    {"minicpm5", "\u00bd12@34"},
    {"ufakzeka", "Ankara@'da"},
    {"laguna", "a@ @ b@  @ c@ @\n\n@ @ d"},
    {"laguna", "end@.\r@\n@\r@\n@next@ /@\n@//"},
    {"qwen35", "\u0939\u093f\u0928\u094d\u0926\u0940@ e\u0301t"},
    {"seed-coder", "end@.@\r\n\r\n@next@ /@\n@//"},
    {"bailingmoe", "a@ \n\n@ b"},
    {"exaone-moe", "McDonald ABCdef don@'T"},
    {"exaone-moe", "end@.\r@\n\r\n@next@ /\n@//"},
    {"exaone-moe", "\u0939\u093f\u0928\u094d\u0926\u0940 e\u0301t"},
    {"exaone-moe", "\ud55c\uad6d\uc5b4 \u3105\u3106 \u0e44\u0e17\u0e22@\u2026"},
    {"exaone-moe", "a@ \n\n@ b"},
    {"exaone-moe", "x@.//"},
    {"jais-2", "x@    @ \t@ y@  "},
    {"gpt-4o", "Don't@ HE'LL@ we'Ve@ x'\u017f"},
    {"gpt-4o", "Mc@Donald@ ABCdef@ don'T"},
    {"gpt-4o", "123@456@78@ x@123@4@ @3@.@14@ @\u00bd12@34"},
    {"gpt-4o", "a@ @ b@  @ c@ \n\n@ @ d"},
    {"gpt-4o", "end@.\r\n\r\n@next@ /\n//"},
    {"gpt-4o", " (@x@)@ a@+b@ `~$"},
    {"gpt-4o", "\u6211\u60f3\u5728apple\u5de5\u4f5c@\uff0c\u3053\u308c\u306f@\u3002"},
    {"gpt-4o", "\u0939\u093f\u0928\u094d\u0926\u0940@ e\u0301t"},
    {"gpt-4o", "\ud55c\uad6d\uc5b4@ \u3105\u3106@ \u0e44\u0e17\u0e22@\u2026"},
    {"gpt-4o", "$a@.b@|c@ <@sentinel@:@1@>IMGIMGABZ"},
    {"gpt-4o", "x@     \t@ y@  "},
    {"gpt-4o", "a@\u180eb@\u00a0@\u00a0c@\u3000d"},
    {"tekken", "Don@'t@ HE@'LL@ we@'Ve@ x@'\u017f"},
    {"tekken", "Mc@Donald@ ABCdef@ don@'T"},
    {"tekken", "1@2@3@4@5@6@7@8@ x@1@2@3@4@ @3@.@1@4@ @\u00bd@1@2@3@4"},
    {"kimi-k2", "end@.\r\n\r\n@next@ /\n@//"},
    {"kimi-k2", "\u6211\u60f3\u5728@apple@\u5de5\u4f5c@\uff0c\u3053\u308c\u306f@\u3002"},
    {"tiny_aya", "12@345@678@ x@1@234@ @3@.@14@ @\u00bd@1@234"},
    {"tiny_aya", "123@4@abc@ @1@234@567"},
    {"youtu", "1@2@3@4@5@6@7@8@ x@1@2@3@4@ @3@.@1@4@ @\u00bd@1@2@3@4"},
    {"youtu", "\u6211\u60f3\u5728@apple@\u5de5\u4f5c@\uff0c@\u3053\u308c\u306f@\u3002"},
    {"youtu", "\ud55c\uad6d\uc5b4@ @\u3105\u3106@ \u0e44\u0e17\u0e22@\u2026"},
    {"deepseek-llm", "Don@'@t@ HE@'@LL@ we@'@Ve@ x@'@\u017f"},
    {"deepseek-llm", "McDonald@ ABCdef@ don@'@T"},
    {"deepseek-llm", "12345678@ x@1234@ @3@.@14@ @\u00bd1234"},
    {"deepseek-llm", "a@ @ b@  @ c@ @\n@\n@ @ d"},
    {"deepseek-llm", "end@.@\r@\n@\r@\n@next@ /@\n@//"},
    {"deepseek-llm", " (@x@)@ a@+@b@ `~$"},
    {"deepseek-llm", "\u6211\u60f3\u5728@apple@\u5de5\u4f5c@\uff0c@\u3053\u308c\u306f@\u3002"},
    {"deepseek-llm", "\u0939\u093f\u0928\u094d\u0926\u0940@ e@\u0301@t"},
    {"deepseek-llm", "\ud55c\uad6d\uc5b4@ @\u3105\u3106@ @\u0e44\u0e17\u0e22\u2026"},
    {"deepseek-llm", "$@a@.@b@|@c@ <@sentinel@:@1@>@IMGIMGABZ"},
    {"deepseek-llm", "x@     \t@ y@  "},
    {"deepseek-llm", "a@\u180e@b@\u00a0@\u00a0c@\u3000@d"},
    {"deepseek-llm", "a@  @\n"},
    {"deepseek-llm", "b@\u00b5@\u01bb@c"},
    {"deepseek-coder", "Don@'@t@ HE@'@LL@ we@'@Ve@ x@'@\u017f"},
    {"deepseek-coder", "McDonald@ ABCdef@ don@'@T"},
    {"deepseek-coder", "1@2@3@4@5@6@7@8@ x@1@2@3@4@ @3@.@1@4@ @\u00bd@1@2@3@4"},
    {"deepseek-coder", "a@ @ b@  @ c@ @\n@\n@ @ d"},
    {"deepseek-coder", "end@.@\r@\n@\r@\n@next@ /@\n@//"},
    {"deepseek-coder", " (@x@)@ a@+@b@ `~$"},
    {"deepseek-coder", "\u6211\u60f3\u5728@apple@\u5de5\u4f5c@\uff0c@\u3053\u308c\u306f@\u3002"},
    {"deepseek-coder", "\u0939@\u093f@\u0928@\u094d@\u0926@\u0940@ e@\u0301@t"},
    {"deepseek-coder", "\ud55c\uad6d\uc5b4@ @\u3105\u3106@ @\u0e44\u0e17\u0e22@\u2026"},
    {"deepseek-coder", "$@a@.@b@|@c@ <@sentinel@:@1@>@IMGIMGABZ"},
    {"deepseek-coder", "x@     \t@ y@  "},
    {"deepseek-coder", "a@\u180e@b@\u00a0@\u00a0c@\u3000@d"},
    {"deepseek-v3", "Don@'t@ HE@'LL@ we@'Ve@ x@'@\u017f"},
    {"deepseek-v3", "McDonald@ ABCdef@ don@'T"},
    {"deepseek-v3", "123@456@78@ x@123@4@ @3@.@14@ @\u00bd12@34"},
    {"deepseek-v3", "a@ @ b@  @ c@ \n\n@ @ d"},
    {"deepseek-v3", "end@.\r\n\r\n@next@ /\n@//"},
    {"deepseek-v3", " (@x@)@ a@+b@ `~$"},
    {"deepseek-v3", "\u6211\u60f3\u5728@apple@\u5de5\u4f5c@\uff0c@\u3053\u308c\u306f@\u3002"},
    {"deepseek-v3", "\u0939\u093f\u0928\u094d\u0926\u0940@ e\u0301t"},
    {"deepseek-v3", "\ud55c\uad6d\uc5b4@ \u3105\u3106@ \u0e44\u0e17\u0e22@\u2026"},
    {"deepseek-v3", "$a@.b@|c@ <@sentinel@:@1@>IMGIMGABZ"},
    {"deepseek-v3", "x@     \t@ y@  "},
    {"deepseek-v3", "a@\u180eb@\u00a0@\u00a0c@\u3000d"},
    {"spark2_5", "1@2@3@4@5@6@7@8@ x@1@2@3@4@ @3@.@1@4@ @\u00bd@1@2@3@4"},
    {"spark2_5", "a@ @ b@  @ c@ \n\n @ d"},
    {"spark2_5", "end@.@\r@\n@\r@\n@next@ /@\n@//"},
    {"afmoe", "12@345@678@ x@1@234@ @3@.@14@ @\u00bd1@234"},
    {"afmoe", "\ud55c\uad6d\uc5b4@ \u3105\u3106@ @\u0e44@\u0e17\u0e22@\u2026"},
    {"afmoe", "\uac00\uf900@x"},
    {"bloom", "Don't@ HE'LL@ we'Ve@ x'\u017f"},
    {"bloom", "McDonald@ ABCdef@ don'T"},
    {"bloom", "12345678@ x1234@ 3@.@14@ \u00bd1234"},
    {"bloom", "a@ @ b@  @ c@ \n\n @ d"},
    {"bloom", "end@.\r\n\r\n@next@ /@\n@//"},
    {"bloom", " (@x@)@ a+b@ `~$"},
    {"bloom", "\u6211\u60f3\u5728apple\u5de5\u4f5c@\uff0c@\u3053\u308c\u306f@\u3002"},
    {"bloom", "\u0939\u093f\u0928\u094d\u0926\u0940@ e\u0301t"},
    {"bloom", "\ud55c\uad6d\uc5b4@ \u3105\u3106@ \u0e44\u0e17\u0e22@\u2026"},
    {"bloom", "$a@.@b@|@c@ <sentinel:1>IMGIMGABZ"},
    {"bloom", "x@     \t@ y@  "},
    {"bloom", "a\u180eb@\u00a0\u00a0@c@\u3000@d"},
    {"viking", "1@2@3@4@5@6@7@8@ x@1@2@3@4@ @3@.@1@4@ @\u00bd@1@2@3@4"},
    {"viking", "$a@.@b@|@c@ <sentinel:@1@>IMGIMGABZ"},
    {"superbpe", "Don't HE'LL we'Ve x'\u017f"},
    {"superbpe", "12@345@678@ x@1@234@ @3@.@14@ @\u00bd1@234"},
    {"superbpe", "end.\r\n\r\nnext /\n//"},
    {"superbpe", "1@234@567@ @12@ @123@456"},
    {"superbpe", "\u00bd1@234\u00b2"},
    {"gemma4", "Don't HE'LL we'Ve x'\u017f"},
    {"gemma4", "12345678 x1234 3.14 \u00bd1234"},
    {"gemma4", "end.\r@\n@\r@\n@next /@\n@//"},
    {"gemma4", "a b@\n\n@ c"},
};
enum { N_CASES = sizeof CASES / sizeof *CASES };

/* Names of the same pre-tokenizer as one in the cases, and what else they imply. */
static const struct pretok_alias {
    const char *name, *same_as;
    bool ignore_merges, adds_bos;
} ALIASES[] = {
    {"gpt2", "gpt-2", false, false}, {"a.x-4.0", "gpt-2", false, false}, {"exaone4", "gpt-2", false, false},
    {"gigachat", "gpt-2", false, false}, {"granite-docling", "gpt-2", false, false}, {"jais", "gpt-2", false, false},
    {"jina-de", "gpt-2", false, false}, {"jina-es", "gpt-2", false, false}, {"jina-v1-en", "gpt-2", false, false},
    {"jina-v2-code", "gpt-2", false, false}, {"jina-v2-de", "gpt-2", false, false},
    {"jina-v2-es", "gpt-2", false, false}, {"mellum", "gpt-2", false, false}, {"modern-bert", "gpt-2", false, false},
    {"mpt", "gpt-2", false, false}, {"olmo", "gpt-2", false, false}, {"phi-2", "gpt-2", false, false},
    {"roberta-bpe", "gpt-2", false, false}, {"trillion", "gpt-2", false, false},
    {"codeshell", "smollm", false, false}, {"command-r", "smollm", false, false}, {"exaone", "smollm", false, false},
    {"mellum2", "smollm", false, false}, {"minerva-7b", "smollm", false, false}, {"refact", "smollm", false, false},
    {"starcoder", "smollm", false, false}, {"chameleon", "chameleon", false, true},
    {"llama3", "llama-bpe", true, true}, {"llama-v3", "llama-bpe", true, true}, {"falcon3", "llama-bpe", true, true},
    {"falcon-h1", "llama-bpe", true, true}, {"jina-v5-nano", "llama-bpe", true, true},
    {"lfm2", "llama-bpe", true, true}, {"midm-2.0", "llama-bpe", true, true}, {"pixtral", "llama-bpe", true, true},
    {"chatglm-bpe", "llama-bpe", false, false}, {"dbrx", "llama-bpe", false, false},
    {"glm4", "llama-bpe", true, false}, {"glm5", "llama-bpe", true, false}, {"smaug-bpe", "llama-bpe", false, false},
    {"deepseek-r1-qwen", "qwen2", false, false}, {"f2llmv2", "qwen2", false, false}, {"grok-2", "qwen2", false, false},
    {"hunyuan", "qwen2", false, false}, {"kormo", "qwen2", false, false}, {"megrez", "qwen2", false, false},
    {"solar-open", "qwen2", false, false}, {"stablelm2", "qwen2", false, false},
    {"bailingmoe2", "bailingmoe", false, false}, {"llada-moe", "bailingmoe", false, false},
    {"minicpm5", "minicpm5", true, false}, {"granite-embed-multi-97m", "gpt-4o", true, false},
    {"kanana2", "gpt-4o", false, false}, {"llama4", "gpt-4o", false, false}, {"minimax-m2", "gpt-4o", false, false},
    {"talkie", "gpt-4o", false, false}, {"tekken", "tekken", true, true}, {"youtu", "youtu", true, false},
    {"cohere2moe", "tiny_aya", false, false}, {"hunyuan-dense", "deepseek-v3", false, false},
    {"hy_v4", "deepseek-v3", false, false}, {"joyai-llm", "deepseek-v3", false, false},
    {"gpt3-finnish", "bloom", false, false}, {"poro-chat", "bloom", false, false},
    {"granite-embed-multi-311m", "gemma4", false, true}, {"sarvam-moe", "gemma4", false, false},
};
enum { N_ALIASES = sizeof ALIASES / sizeof *ALIASES };

static bool join_part(void *user, const uint8_t *s, size_t n) {
    text *t = user;
    assert_true(n > 0);
    if (t->n > 0) {
        text_add(t, "@", 1);
    }
    text_add(t, (const char *)s, n);
    return true;
}

static pretok *pretok_must(const char *name) {
    pretok *p;
    cmc_error err = {0};
    if (pretok_new(name, "f", &p, &err) != CMC_OK) {
        fail_msg("%s", err.message);
    }
    return p;
}

static size_t split(const pretok *p, const char *s, size_t n, bool open, text *out) {
    size_t done;
    out->n = 0;
    text_add(out, "", 0);
    assert_int_equal(pretok_split(p, (const uint8_t *)s, n, open, join_part, out, &done, NULL), CMC_OK);
    return done;
}

static void text_of_case(const struct pretok_case *c, text *out) {
    out->n = 0;
    text_add(out, "", 0);
    for (const char *s = c->parts; *s != '\0'; s++) {
        if (*s != '@') {
            text_add(out, s, 1);
        }
    }
}

static void check_case(const pretok *p, const struct pretok_case *c) {
    text whole = {0}, got = {0};
    text_of_case(c, &whole);
    assert_int_equal(split(p, whole.s, whole.n, false, &got), whole.n);
    if (strcmp(got.s, c->parts) != 0) {
        print_bytes(c->pre, whole.s, whole.n);
        print_bytes("got ", got.s, got.n);
        print_bytes("want", c->parts, strlen(c->parts));
        fail();
    }
    free(whole.s);
    free(got.s);
}

static void test_cuts(void **state) {
    (void)state;
    for (size_t i = 0; i < N_CASES; i++) {
        pretok *p = pretok_must(CASES[i].pre);
        check_case(p, &CASES[i]);
        pretok_free(p);
    }
}

static void test_aliases(void **state) {
    (void)state;
    for (size_t i = 0; i < N_ALIASES; i++) {
        pretok *p = pretok_must(ALIASES[i].name);
        size_t n = 0;
        for (size_t k = 0; k < N_CASES; k++) {
            if (strcmp(CASES[k].pre, ALIASES[i].same_as) == 0) {
                check_case(p, &CASES[k]);
                n++;
            }
        }
        assert_true(n > 0);
        if (pretok_ignore_merges(p) != ALIASES[i].ignore_merges || pretok_adds_bos(p) != ALIASES[i].adds_bos) {
            fail_msg("%s: whole parts first %d, BOS %d", ALIASES[i].name, pretok_ignore_merges(p), pretok_adds_bos(p));
        }
        pretok_free(p);
    }
}

/* Whatever is said to be certain of a text's beginning is how the whole text begins. */
static void check_open(const pretok *p, const char *name, const text *whole, text *all, text *part) {
    split(p, whole->s, whole->n, false, all);
    for (size_t n = 0; n <= whole->n; n++) {
        if (cmc_utf8_whole((const uint8_t *)whole->s, n) != n) {
            continue;
        }
        size_t done = split(p, whole->s, n, true, part);
        size_t cuts = 0;
        for (size_t i = 0; i < part->n; i++) {
            cuts += part->s[i] == '@';
        }
        bool ends = part->n == 0 || part->n == all->n || all->s[part->n] == '@';
        if (done > n || done + cuts != part->n || !ends || strncmp(part->s, all->s, part->n) != 0) {
            print_bytes(name, whole->s, n);
            print_bytes("certain", part->s, part->n);
            print_bytes("whole  ", all->s, all->n);
            fail();
        }
    }
}

static void test_open(void **state) {
    (void)state;
    text whole = {0}, all = {0}, part = {0};
    rng r = {7};
    for (size_t i = 0; i < N_CASES; i++) {
        pretok *p = pretok_must(CASES[i].pre);
        text_of_case(&CASES[i], &whole);
        check_open(p, CASES[i].pre, &whole, &all, &part);
        for (size_t k = 0; k < 20; k++) {
            text_random(&whole, &r, false);
            if (memchr(whole.s, '@', whole.n) == NULL) {
                check_open(p, CASES[i].pre, &whole, &all, &part);
            }
        }
        pretok_free(p);
    }
    free(whole.s);
    free(all.s);
    free(part.s);
}

static void test_unknown(void **state) {
    (void)state;
    static const char *const names[] = {"", "gpt-3", "GPT-2", "qwen2 ", "whitespace", "hybriddna"};
    for (size_t i = 0; i < sizeof names / sizeof *names; i++) {
        pretok *p;
        cmc_error err = {0};
        char quoted[64];
        snprintf(quoted, sizeof quoted, "FILE: pre-tokenizer \"%s\" is not known", names[i]);
        assert_int_equal(pretok_new(names[i], "FILE", &p, &err), CMC_E_UNSUPPORTED);
        assert_null(p);
        assert_non_null(strstr(err.message, quoted));
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_cuts),
        cmocka_unit_test(test_aliases),
        cmocka_unit_test(test_open),
        cmocka_unit_test(test_unknown),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
