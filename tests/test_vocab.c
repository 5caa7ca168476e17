/* Vocabularies: what is read from files, what is derived, and what is refused. */
#include "tests/vocab_help.h"

#include <unistd.h>

#define SP "\xe2\x96\x81"

static const mini_token SPM[] = {
    {"<unk>", 2, 0},     {"<s>", 3, 0},        {"</s>", 3, 0}, {"<0x0A>", 6, 0}, {"<0xFF>", 6, 0},
    {SP "the", 1, -1},   {"the", 1, -2},       {SP, 1, -3},    {"  ", 4, 0},     {"<gone>", 5, 0},
    {"a" SP "b", 1, -4}, {"<|im_end|>", 4, 0}, {NULL, 0, 0},
};
static const mini_token BPE[] = {
    {"<|endoftext|>", 3, 0}, {"a", 1, 0}, {"b", 1, 0}, {"\xc4\xa0", 1, 0}, {"\xc4\xa0" "a", 1, 0},
    {"\xc4\x8a", 1, 0}, {"\xc3\xa9", 1, 0}, {"\xe4\xb8\xad", 1, 0}, {"    ", 4, 0}, {"<unused7>", 5, 0}, {"a", 1, 0},
    {NULL, 0, 0},
};
static const char *const BPE_MERGES[] = {"\xc4\xa0 a", NULL};

static const mini MINI_SPM = {.model = "llama", .tokens = SPM, .space_prefix = -1, .add_bos = -1};
static const mini MINI_BPE = {
    .model = "gpt2", .tokens = BPE, .merges = BPE_MERGES, .space_prefix = -1, .add_bos = -1, .no_scores = true};

static cmc_vocab *must_mini(const mini *m) {
    cmc_vocab *v;
    cmc_error err = {0};
    if (mini_open(m, &v, &err) != CMC_OK) {
        fail_msg("%s", err.message);
    }
    return v;
}

static void assert_token(const cmc_vocab *v, int32_t id, cmc_token_kind kind, const char *bytes, size_t n) {
    size_t len;
    const uint8_t *b = cmc_vocab_bytes(v, id, &len);
    assert_int_equal(cmc_vocab_kind(v, id), kind);
    assert_int_equal(len, n);
    assert_memory_equal(b, bytes, n);
}

static void test_spm_tokens(void **state) {
    (void)state;
    cmc_vocab *v = must_mini(&MINI_SPM);
    size_t len;
    assert_string_equal(cmc_vocab_kind_name(v), "spm");
    assert_int_equal(cmc_vocab_size(v), 12);
    assert_token(v, 0, CMC_KIND_CONTROL, "", 0);
    assert_token(v, 3, CMC_KIND_BYTE, "\n", 1);
    assert_token(v, 4, CMC_KIND_BYTE, "\xff", 1);
    assert_token(v, 5, CMC_KIND_NORMAL, " the", 4);
    assert_token(v, 8, CMC_KIND_USER, "  ", 2);
    assert_token(v, 9, CMC_KIND_UNUSED, "", 0);
    assert_token(v, 10, CMC_KIND_NORMAL, "a b", 3);
    assert_token(v, 11, CMC_KIND_CONTROL, "", 0); /* a marker that ends a turn, whatever the file calls it */
    assert_memory_equal(cmc_vocab_spelling(v, 5, &len), SP "the", 6);
    assert_int_equal(len, 6);
    assert_int_equal(v->byte_token['\n'], 3);
    assert_int_equal(v->byte_token[0xff], 4);
    assert_int_equal(v->byte_token['a'], -1);
    assert_true(v->add_space_prefix && cmc_vocab_adds_bos(v)); /* the defaults of such files */
    assert_int_equal(cmc_vocab_kind(v, 12), CMC_KIND_UNUSED);
    assert_int_equal(cmc_vocab_kind(v, -1), CMC_KIND_UNUSED);
    cmc_vocab_bytes(v, 12, &len);
    assert_int_equal(len, 0);
    cmc_vocab_free(v);
}

static void test_bpe_tokens(void **state) {
    (void)state;
    cmc_vocab *v = must_mini(&MINI_BPE);
    assert_string_equal(cmc_vocab_kind_name(v), "bpe");
    assert_string_equal(v->pre, "default");
    assert_token(v, 0, CMC_KIND_CONTROL, "", 0);
    assert_token(v, 4, CMC_KIND_NORMAL, " a", 2);
    assert_token(v, 5, CMC_KIND_NORMAL, "\n", 1);
    assert_token(v, 6, CMC_KIND_NORMAL, "\xe9", 1);
    assert_token(v, 7, CMC_KIND_NORMAL, "\xe4\xb8\xad", 3); /* not of the alphabet: stands for itself */
    assert_token(v, 8, CMC_KIND_USER, "    ", 4);
    assert_token(v, 9, CMC_KIND_UNUSED, "", 0);
    assert_int_equal(v->byte_token['a'], 1); /* the lowest of two */
    assert_int_equal(v->byte_token[0xe9], 6);
    assert_false(cmc_vocab_adds_bos(v));
    cmc_vocab_free(v);
}

static void test_roles_by_key(void **state) {
    (void)state;
    static const mini_key keys[] = {
        {"tokenizer.ggml.bos_token_id", 1}, {"tokenizer.ggml.eos_token_id", 2}, {"tokenizer.ggml.eot_token_id", 5},
        {"tokenizer.ggml.padding_token_id", 2}, {"tokenizer.ggml.unknown_token_id", 0},
        {"tokenizer.ggml.eom_token_id", 6}, {NULL, 0},
    };
    mini m = MINI_SPM;
    m.keys = keys;
    cmc_vocab *v = must_mini(&m);
    assert_int_equal(cmc_vocab_role_token(v, CMC_ROLE_BOS), 1);
    assert_int_equal(cmc_vocab_role_token(v, CMC_ROLE_EOS), 2);
    assert_int_equal(cmc_vocab_role_token(v, CMC_ROLE_EOT), 5);
    assert_int_equal(cmc_vocab_role_token(v, CMC_ROLE_PAD), 2);
    assert_int_equal(cmc_vocab_role_token(v, CMC_ROLE_UNK), 0);
    assert_int_equal(cmc_vocab_role_token(v, 64), -1);
    assert_int_equal(cmc_vocab_roles(v, 2), CMC_ROLE_EOS | CMC_ROLE_PAD);
    assert_int_equal(cmc_vocab_roles(v, 3), 0);
    static const int32_t ends[] = {2, 5, 6, 11};
    for (int32_t id = -1, k = 0; id <= cmc_vocab_size(v); id++) {
        bool end = k < 4 && ends[k] == id;
        assert_int_equal(cmc_vocab_is_end(v, id), end);
        k += end;
    }
    assert_int_equal(v->kind[5], CMC_KIND_NORMAL); /* a role changes no kind where the file gives types */
    cmc_vocab_free(v);
}

static void test_roles_by_name(void **state) {
    (void)state;
    static const struct {
        mini_token t[6];
        int32_t bos, eos, eot, pad, unk;
        unsigned ends;
    } cases[] = {
        {{{"<pad>", 3, 0}, {"<eos>", 3, 0}, {"<bos>", 3, 0}, {"<end_of_turn>", 3, 0}, {"</s>", 4, 0}, {NULL, 0, 0}},
         2, 1, 3, 0, -1, 1u << 1 | 1u << 3},
        {{{"<|begin_of_text|>", 3, 0}, {"<|end_of_text|>", 3, 0}, {"<|eot_id|>", 4, 0}, {"<|eom_id|>", 3, 0}},
         0, 1, 2, -1, -1, 1u << 1 | 1u << 2 | 1u << 3},
        /* Harmony: "<|end|>" ends a message, not the turn. */
        {{{"<|return|>", 3, 0}, {"<|call|>", 3, 0}, {"<|end|>", 3, 0}, {"<|start|>", 3, 0}, {"</s>", 1, 0}},
         -1, -1, -1, -1, -1, 1u << 0 | 1u << 1},
        {{{"a", 1, 0}, {"</s>", 1, 0}, {"<eos>", 4, 0}, {"<unk>", 2, 0}, {"<s>", 1, 0}, {NULL, 0, 0}},
         -1, -1, -1, -1, 3, 0},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        mini m = MINI_SPM;
        m.tokens = cases[i].t;
        cmc_vocab *v = must_mini(&m);
        assert_int_equal(v->bos, cases[i].bos);
        assert_int_equal(v->eos, cases[i].eos);
        assert_int_equal(v->eot, cases[i].eot);
        assert_int_equal(v->pad, cases[i].pad);
        assert_int_equal(v->unk, cases[i].unk);
        for (int32_t id = 0; id < cmc_vocab_size(v); id++) {
            assert_int_equal(cmc_vocab_is_end(v, id), cases[i].ends >> id & 1);
        }
        cmc_vocab_free(v);
    }
}

static void test_find_special(void **state) {
    (void)state;
    cmc_vocab *v = must_mini(&MINI_SPM);
    static const struct {
        const char *s;
        int32_t id;
    } cases[] = {
        {"<s>", 1},          {"</s>", 2}, {"<unk>", 0}, {"  ", 8},      {"<|im_end|>", 11}, {"<|im_end|", -1},
        {"<|im_end|> ", -1}, {"the", -1}, {"", -1},     {"<0x0A>", -1}, {"<gone>", -1},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        assert_int_equal(cmc_vocab_find_special(v, cases[i].s), cases[i].id);
    }
    cmc_vocab_free(v);
}

static void test_without_types(void **state) {
    (void)state;
    static const mini_key keys[] = {{"tokenizer.ggml.bos_token_id", 1}, {"tokenizer.ggml.eos_token_id", 2}, {NULL, 0}};
    mini m = MINI_SPM;
    m.no_types = true;
    m.keys = keys;
    cmc_vocab *v = must_mini(&m);
    assert_int_equal(v->kind[1], CMC_KIND_CONTROL);
    assert_int_equal(v->kind[3], CMC_KIND_BYTE);
    assert_int_equal(v->kind[5], CMC_KIND_NORMAL);
    assert_int_equal(v->byte_token['\n'], 3);
    cmc_vocab_free(v);
}

static void test_equal(void **state) {
    (void)state;
    cmc_vocab *a = must_mini(&MINI_SPM), *b = must_mini(&MINI_SPM), *c = must_mini(&MINI_BPE);
    assert_true(cmc_vocab_equal(a, a) && cmc_vocab_equal(a, b));
    assert_false(cmc_vocab_equal(a, c));
    mini_token tokens[13];
    memcpy(tokens, SPM, sizeof SPM);
    mini m = MINI_SPM;
    m.tokens = tokens;
    for (int i = 0; i < 3; i++) { /* one kind, one spelling with the same bytes, one token less */
        memcpy(tokens, SPM, sizeof SPM);
        if (i == 0) {
            tokens[6].type = 4;
        } else if (i == 1) {
            tokens[5].s = " the";
        } else {
            tokens[11].s = NULL;
        }
        cmc_vocab *d = must_mini(&m);
        assert_false(cmc_vocab_equal(a, d) || cmc_vocab_equal(d, a));
        cmc_vocab_free(d);
    }
    cmc_vocab_free(a);
    cmc_vocab_free(b);
    cmc_vocab_free(c);
}

/* Each refusal is of its kind and says what is wrong. */
static void test_refused(void **state) {
    (void)state;
    static const mini_token bad_type[] = {{"a", 7, 0}, {NULL, 0, 0}}, bad_byte[] = {{"<0xFG>", 6, 0}, {NULL, 0, 0}},
                            none[] = {{NULL, 0, 0}};
    static const mini_token nan_score[] = {{"a", 1, __builtin_nanf("")}, {NULL, 0, 0}};
    static const mini_key charsmap[] = {{"tokenizer.ggml.precompiled_charsmap", 1}, {NULL, 0}};
    static const mini_key far[] = {{"tokenizer.ggml.eos_token_id", 12}, {NULL, 0}};
    static const char *const unknown[] = {"a zz", NULL}, *const whole[] = {"ab", NULL}, *const no_sum[] = {"b b", NULL};
    const struct {
        mini m;
        cmc_status status;
        const char *says;
    } cases[] = {
        {{.tokens = SPM}, CMC_E_FORMAT, "tokenizer.ggml.model"},
        {{.model = "bert", .tokens = SPM}, CMC_E_UNSUPPORTED, "\"bert\" (WordPiece)"},
        {{.model = "t5", .tokens = SPM, .no_scores = true}, CMC_E_FORMAT, "scores"},
        {{.model = "t5", .tokens = SPM, .keys = charsmap}, CMC_E_UNSUPPORTED, "\"t5\" (Unigram) with precompiled"},
        {{.model = "rwkv", .tokens = SPM}, CMC_E_UNSUPPORTED, "\"rwkv\";"},
        {{.model = "llama", .tokens = SPM, .no_scores = true}, CMC_E_FORMAT, "scores"},
        {{.model = "llama", .tokens = SPM, .n_types = 3}, CMC_E_FORMAT, "token_type has 3 entries for 12 tokens"},
        {{.model = "llama", .tokens = none}, CMC_E_FORMAT, "0 tokens"},
        {{.model = "llama", .tokens = bad_type}, CMC_E_FORMAT, "token 0 has type 7"},
        {{.model = "llama", .tokens = bad_byte}, CMC_E_FORMAT, "<0xFG>"},
        {{.model = "llama", .tokens = nan_score}, CMC_E_FORMAT, "score of token 0"},
        {{.model = "llama", .tokens = SPM, .keys = far}, CMC_E_FORMAT, "eos_token_id"},
        {{.model = "gpt2", .tokens = BPE}, CMC_E_FORMAT, "merges"},
        {{.model = "gpt2", .tokens = BPE, .merges = unknown}, CMC_E_FORMAT, "merge 0, \"a zz\""},
        {{.model = "gpt2", .tokens = BPE, .merges = whole}, CMC_E_FORMAT, "merge 0, \"ab\""},
        {{.model = "gpt2", .tokens = BPE, .merges = no_sum}, CMC_E_FORMAT, "merge 0, \"b b\""},
        {{.model = "gpt2", .tokens = BPE, .merges = BPE_MERGES, .pre = "whitespace"},
         CMC_E_UNSUPPORTED,
         "\"whitespace\""},
        {{.model = "gpt2", .tokens = BPE, .merges = BPE_MERGES, .pre = "a pre-tokenizer with a name beyond measure"},
         CMC_E_UNSUPPORTED,
         "pre-tokenizer"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        mini m = cases[i].m;
        cmc_error err = {0};
        cmc_vocab *v = (void *)&err;
        m.space_prefix = m.add_bos = -1;
        cmc_status st = mini_open(&m, &v, &err);
        if (st != cases[i].status || strstr(err.message, cases[i].says) == NULL ||
            strstr(err.message, "mini.gguf") == NULL) {
            fail_msg("case %zu: status %d, \"%s\"; expected %d, \"...%s...\"", i, st, err.message, cases[i].status,
                     cases[i].says);
        }
        assert_null(v);
        assert_null(strchr(err.message, '\n'));
    }
}

/* ------------------------------------------------------------------------------------------- .model files */
static void test_spm_model(void **state) {
    (void)state;
    tiny_spec spec = {.arch = "llama", .vocab = "spm", .vocab_only = true};
    char *dir = tiny_dir_new();
    cmc_error err = {0};
    assert_int_equal(tiny_write_spm_model(&spec, tiny_path(dir, "t.model"), &err), CMC_OK);
    cmc_vocab *a = vocab_must_open(tiny_path(dir, "t.model")), *b = vocab_tiny(&spec);
    assert_true(cmc_vocab_equal(a, b));
    assert_int_equal(a->bos, b->bos);
    assert_int_equal(a->eos, b->eos);
    assert_int_equal(a->unk, b->unk);
    assert_int_equal(a->pad, -1);
    assert_memory_equal(a->score, b->score, (size_t)a->n * sizeof *a->score);
    assert_memory_equal(a->is_end, b->is_end, (size_t)a->n);
    assert_int_equal(a->add_space_prefix, b->add_space_prefix);
    assert_true(cmc_vocab_adds_bos(a));
    cmc_vocab_free(a);
    cmc_vocab_free(b);
    tiny_dir_free(dir);
}

static cmc_status from_wire(const char *wire, size_t n, cmc_vocab **v, cmc_error *err) {
    return vocab_from_spm_model((const uint8_t *)wire, n, "x.model", v, err);
}

/* Fields by hand: a piece is 0a LEN 0a LEN spelling 15 float 18 type; 12: trainer, 1a: normalizer. */
#define PIECE_A "\x0a\x0a\x0a\x01" "a" "\x15\0\0\x80\xbf\x18\x01"
#define TRAINER_BPE "\x12\x02\x18\x02"
#define PLAIN "\x1a\x02\x20\0"       /* remove_extra_whitespaces = false */

static void test_spm_model_refused(void **state) {
    (void)state;
#define W(s) s, sizeof s - 1
    static const struct {
        const char *wire;
        size_t n;
        cmc_status status;
        const char *says;
    } cases[] = {
        {W(PIECE_A TRAINER_BPE PLAIN), CMC_OK, ""},
        {W(PIECE_A TRAINER_BPE PLAIN "\x22\x01\x00"), CMC_OK, ""},                       /* self_test_data: not ours */
        {W(""), CMC_E_FORMAT, "no pieces"},
        {W("not a model at all"), CMC_E_FORMAT, "no GGUF file, and no SentencePiece model"},
        {W(TRAINER_BPE PLAIN), CMC_E_FORMAT, "no pieces"},
        {W(PIECE_A PLAIN), CMC_OK, ""},                                                  /* Unigram by default */
        {W(PIECE_A "\x12\x02\x18\x04" PLAIN), CMC_E_UNSUPPORTED, "CHAR"},
        {W(PIECE_A "\x12\x02\x18\x03" PLAIN), CMC_E_UNSUPPORTED, "WORD"},
        {W(PIECE_A "\x12\x02\x18\x63" PLAIN), CMC_E_UNSUPPORTED, "type ?"},
        {W(PIECE_A TRAINER_BPE), CMC_E_UNSUPPORTED, "remove_extra_whitespaces"},
        {W(PIECE_A TRAINER_BPE "\x1a\x05\x20\0\x12\x01x"), CMC_E_UNSUPPORTED, "precompiled_charsmap"},
        {W(PIECE_A TRAINER_BPE "\x1a\x04\x20\0\x28\0"), CMC_E_UNSUPPORTED, "escape_whitespaces"},
        {W(PIECE_A "\x12\x05\x18\x02\xc0\x01\x01" PLAIN), CMC_E_UNSUPPORTED, "treat_whitespace_as_suffix"},
        {W("\x0a\x05\x0a\x01" "a" "\x18\x07" TRAINER_BPE PLAIN), CMC_E_FORMAT, "piece 0 has type 7"},
        {W("\x0a\x08\x0a\x01" "a" "\x15\0\0\xc0\x7f" TRAINER_BPE PLAIN), CMC_E_FORMAT, "score"},
        {W("\x0a\x05\x0a\x01" "a" "\x18\x06" TRAINER_BPE PLAIN), CMC_E_FORMAT, "byte token"},
        {W("\x0a\x63\x0a\x01" "a"), CMC_E_FORMAT, "longer than what holds it at byte 2"},
        {W("\x0a\x03\x0a\x02" "a" TRAINER_BPE PLAIN), CMC_E_FORMAT, "longer than what holds it"},
        {W("\x0b"), CMC_E_FORMAT, "a kind that protobuf does not have"},
        {W("\x02\x01"), CMC_E_FORMAT, "field number"},
        {W("\x0a\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01"), CMC_E_FORMAT, "more than 64 bits"},
        {W("\x0a\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01"), CMC_E_FORMAT, "longer than what holds it"},
        {W("\x0a\xff"), CMC_E_FORMAT, "cut off"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        cmc_vocab *v;
        cmc_error err = {0};
        cmc_status st = from_wire(cases[i].wire, cases[i].n, &v, &err);
        if (st != cases[i].status || strstr(err.message, cases[i].says) == NULL) {
            fail_msg("case %zu: status %d, \"%s\"; expected %d, \"...%s...\"", i, st, err.message, cases[i].status,
                     cases[i].says);
        }
        assert_int_equal(v != NULL, st == CMC_OK);
        cmc_vocab_free(v);
    }
}

/* Cut anywhere or with any bit turned over: a clean answer, and tokenising with what was taken works. */
static void test_spm_model_damaged(void **state) {
    (void)state;
    tiny_spec spec = {.arch = "llama", .vocab = "spm", .n_learnt = 4, .vocab_only = true};
    char *dir = tiny_dir_new();
    cmc_file f;
    assert_int_equal(tiny_write_spm_model(&spec, tiny_path(dir, "t.model"), NULL), CMC_OK);
    assert_int_equal(cmc_file_map(tiny_path(dir, "t.model"), &f, NULL), CMC_OK);
    uint8_t *copy = cmc_alloc(f.size, 1);
    cmc_ids ids = {0};
    rng r = {3};
    for (int i = 0; i < 400; i++) {
        size_t n = i < 200 ? rng_below(&r, (uint32_t)f.size) : f.size,
               at = rng_below(&r, (uint32_t)(f.size < 64 || i % 2 ? f.size : 64));
        memcpy(copy, f.data, f.size);
        if (i >= 200) {
            at = i % 2 ? at : f.size - 1 - at; /* the specs are at the end */
            copy[at] ^= (uint8_t)(1u << rng_below(&r, 8));
        }
        cmc_vocab *v;
        cmc_error err = {0};
        if (vocab_from_spm_model(copy, n, "x.model", &v, &err) == CMC_OK) {
            cmc_tokenize(v, "a tiny \xff model", 14, CMC_TOK_SPECIAL, &ids, &err);
            ids.n = 0;
        } else {
            assert_true(err.message[0] != '\0' && err.status != CMC_OK);
        }
        cmc_vocab_free(v);
    }
    free(copy);
    cmc_ids_free(&ids);
    cmc_file_unmap(&f);
    tiny_dir_free(dir);
}

static void test_copy_keys(void **state) {
    (void)state;
    tiny_spec spec = {.arch = "gemma3", .chat_template = "{{ messages }}", .vocab_only = true};
    char *dir = tiny_dir_new();
    gguf *g;
    assert_int_equal(tiny_write(&spec, tiny_path(dir, "a.gguf"), NULL), CMC_OK);
    assert_int_equal(gguf_open(tiny_path(dir, "a.gguf"), &g, NULL), CMC_OK);
    gguf_writer *w = gguf_writer_new();
    assert_true(gguf_put_str(w, "general.architecture", "llama", 5));
    assert_true(vocab_copy_keys(g, w));
    assert_int_equal(gguf_writer_save(w, tiny_path(dir, "b.gguf"), NULL), CMC_OK);
    gguf_writer_free(w);
    gguf_free(g);
    cmc_vocab *a = vocab_must_open(tiny_path(dir, "a.gguf")), *b = vocab_must_open(tiny_path(dir, "b.gguf"));
    assert_true(cmc_vocab_equal(a, b));
    assert_string_equal(cmc_vocab_chat_template(b), "{{ messages }}");
    assert_int_equal(a->bos, b->bos);
    cmc_vocab_free(a);
    cmc_vocab_free(b);
    tiny_dir_free(dir);
}

static void test_open_fails(void **state) {
    (void)state;
    cmc_vocab *v = (void *)state;
    cmc_error err = {0};
    assert_int_equal(cmc_vocab_open("/nonexistent/v.gguf", &v, &err), CMC_E_IO);
    assert_null(v);
    assert_non_null(strstr(err.message, "/nonexistent/v.gguf"));
    assert_int_equal(cmc_vocab_open("/nonexistent/v.gguf", &v, NULL), CMC_E_IO);
    cmc_vocab_free(NULL);
}

static void test_smollm2(void **state) {
    (void)state;
    cmc_vocab *v = vocab_real("CMC_TEST_SMOLLM2", "vocab of SmolLM2");
    if (v == NULL) {
        return;
    }
    assert_int_equal(cmc_vocab_size(v), 49152);
    assert_int_equal(cmc_vocab_roles(v, 2), CMC_ROLE_EOS | CMC_ROLE_EOT | CMC_ROLE_PAD);
    assert_true(cmc_vocab_is_end(v, 0) && cmc_vocab_is_end(v, 2) && !cmc_vocab_is_end(v, 1));
    assert_false(cmc_vocab_adds_bos(v));
    assert_non_null(strstr(cmc_vocab_chat_template(v), "<|im_start|>"));
    static const char lacking[] =
        "\x04\x06\x13\x14\x16\x1d\xc0\xc1\xf1\xf2\xf5\xf6\xf7\xf8\xf9\xfa\xfb\xfc\xfd\xfe\xff";
    for (int b = 0; b < 256; b++) {
        assert_int_equal(v->byte_token[b] >= 0, memchr(lacking, b, sizeof lacking - 1) == NULL);
    }
    cmc_vocab_free(v);
}

static void test_gemma(void **state) {
    (void)state;
    cmc_vocab *v = vocab_real("CMC_TEST_GEMMA", "vocab of Gemma");
    if (v == NULL) {
        return;
    }
    assert_int_equal(cmc_vocab_size(v), 262144);
    assert_int_equal(cmc_vocab_find_special(v, "<end_of_turn>"), 106);
    assert_true(cmc_vocab_is_end(v, 106) && cmc_vocab_is_end(v, 1) && !cmc_vocab_is_end(v, 212));
    assert_int_equal(cmc_vocab_role_token(v, CMC_ROLE_EOT), 106);
    assert_int_equal(cmc_vocab_kind(v, 212), CMC_KIND_USER); /* "</s>", the tag */
    assert_true(cmc_vocab_adds_bos(v) && !v->add_space_prefix);
    cmc_vocab_free(v);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_spm_tokens),
        cmocka_unit_test(test_bpe_tokens),
        cmocka_unit_test(test_roles_by_key),
        cmocka_unit_test(test_roles_by_name),
        cmocka_unit_test(test_find_special),
        cmocka_unit_test(test_without_types),
        cmocka_unit_test(test_equal),
        cmocka_unit_test(test_refused),
        cmocka_unit_test(test_spm_model),
        cmocka_unit_test(test_spm_model_refused),
        cmocka_unit_test(test_spm_model_damaged),
        cmocka_unit_test(test_copy_keys),
        cmocka_unit_test(test_open_fails),
        cmocka_unit_test(test_smollm2),
        cmocka_unit_test(test_gemma),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
