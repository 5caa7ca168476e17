/* Templates: recognition, the exact rendering of messages under each, spans, and text that must not become control
 * tokens. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

#include "base/utf8.h"
#include "runtime/prompt.h"
#include "runtime/template.h"
#include "tests/tiny.h"

/* ------------------------------------------------------------------------------------------------ vocabularies */

/* A byte-level BPE vocabulary without merges: the 256 bytes, then these control tokens; BOS is the first one that is
 * called so, EOS the last. */
static cmc_vocab *bpe_with(const char *path, const char *const *controls, size_t n_controls, bool add_bos) {
    enum { MAX = 256 + 16 };
    static char spell[256][5];
    gguf_str tokens[MAX], merge = {"a b", 3};
    int32_t types[MAX];
    size_t n = 0;
    int next = 256;
    for (int b = 0; b < 256;
         b++, n++) { /* GPT-2's spelling of bytes: those that print as themselves, the others from U+0100 */
        bool prints = (b >= '!' && b <= '~') || (b >= 0xa1 && b <= 0xac) || b >= 0xae;
        size_t len = cmc_utf8_encode(prints ? b : next++, (uint8_t *)spell[b]);
        tokens[n] = (gguf_str){spell[b], len};
        types[n] = 1;
    }
    gguf_writer *w = gguf_writer_new();
    for (size_t i = 0; i < n_controls; i++, n++) {
        tokens[n] = (gguf_str){controls[i], strlen(controls[i])};
        types[n] = 3;
    }
    tokens[n] = (gguf_str){"ab", 2};
    types[n++] = 1;
    gguf_put_str(w, "general.architecture", "llama", 5);
    gguf_put_str(w, "tokenizer.ggml.model", "gpt2", 4);
    gguf_put_str(w, "tokenizer.ggml.pre", "gpt-2", 5);
    gguf_put_str_array(w, "tokenizer.ggml.tokens", tokens, n);
    gguf_put_array(w, "tokenizer.ggml.token_type", GGUF_I32, types, n);
    gguf_put_str_array(w, "tokenizer.ggml.merges", &merge, 1);
    gguf_put_u32(w, "tokenizer.ggml.bos_token_id", 256);
    gguf_put_u32(w, "tokenizer.ggml.eos_token_id", (uint32_t)(255 + n_controls));
    gguf_put_bool(w, "tokenizer.ggml.add_bos_token", add_bos);
    cmc_error err = {0};
    cmc_vocab *v = NULL;
    if (gguf_writer_save(w, path, &err) != CMC_OK) fail_msg("%s", err.message);
    gguf_writer_free(w);
    if (cmc_vocab_open(path, &v, &err) != CMC_OK) fail_msg("%s", err.message);
    return v;
}

typedef struct fixture {
    char *dir;
    cmc_vocab *llama, *gemma, *plain, *chatml, *llama3, *tekken, *v7;
} fixture;

static cmc_vocab *tiny(const fixture *f, const char *arch, const char *vocab) {
    cmc_error err = {0};
    cmc_vocab *v = NULL;
    const char *path = tiny_path(f->dir, "v.gguf");
    tiny_spec spec = {.arch = arch, .vocab = vocab, .vocab_only = true};
    if (tiny_write(&spec, path, &err) != CMC_OK || cmc_vocab_open(path, &v, &err) != CMC_OK)
        fail_msg("%s", err.message);
    return v;
}

static int setup(void **state) {
    static fixture f;
    static const char *const PLAIN[] = {"<eos>"};
    static const char *const CHATML[] = {"<|endoftext|>", "<|im_start|>", "<|im_end|>"};
    static const char *const LLAMA3[] = {"<|begin_of_text|>", "<|start_header_id|>", "<|end_header_id|>", "<|eot_id|>",
                                         "<|end_of_text|>"};
    static const char *const TEKKEN[] = {"<s>", "[INST]", "[/INST]", "</s>"};
    static const char *const V7[] = {"<s>", "[INST]", "[/INST]", "[SYSTEM_PROMPT]", "[/SYSTEM_PROMPT]", "</s>"};
    f.dir = tiny_dir_new();
    f.llama = tiny(&f, "llama", "spm");
    f.gemma = tiny(&f, "gemma3", "spm");
    f.plain = bpe_with(tiny_path(f.dir, "p"), PLAIN, 1, false);
    f.chatml = bpe_with(tiny_path(f.dir, "c"), CHATML, 3, false);
    f.llama3 = bpe_with(tiny_path(f.dir, "3"), LLAMA3, 5, true);
    f.tekken = bpe_with(tiny_path(f.dir, "t"), TEKKEN, 4, true);
    f.v7 = bpe_with(tiny_path(f.dir, "7"), V7, 6, true);
    *state = &f;
    return 0;
}

static int teardown(void **state) {
    fixture *f = *state;
    cmc_vocab *all[] = {f->llama, f->gemma, f->plain, f->chatml, f->llama3, f->tekken, f->v7};
    for (size_t i = 0; i < sizeof all / sizeof all[0]; i++) cmc_vocab_free(all[i]);
    tiny_dir_free(f->dir);
    return 0;
}

/* ------------------------------------------------------------------------------------------------- renderings */

/* Ids as text; control tokens stand in ⟦ ⟧. */
static char *show(const cmc_vocab *v, const int32_t *ids, size_t n) {
    char *out = NULL;
    size_t size = 0, len;
    FILE *f = open_memstream(&out, &size);
    for (size_t i = 0; i < n; i++) {
        bool control = cmc_vocab_kind(v, ids[i]) == CMC_KIND_CONTROL;
        const char *s = control ? cmc_vocab_spelling(v, ids[i], &len) : (const char *)cmc_vocab_bytes(v, ids[i], &len);
        fprintf(f, control ? "⟦%.*s⟧" : "%.*s", (int)len, s);
    }
    fclose(f);
    return out;
}

/* A record from "s:text;u:text;a:text". */
static cmc_record record_of(const char *spec) {
    static cmc_message m[8];
    static char buf[512];
    cmc_record r = {.messages = m};
    snprintf(buf, sizeof buf, "%s", spec);
    for (char *save = NULL, *part = strtok_r(buf, ";", &save); part; part = strtok_r(NULL, ";", &save)) {
        cmc_role role = *part == 's' ? CMC_SYSTEM : *part == 'u' ? CMC_USER : CMC_ASSISTANT;
        m[r.n_messages++] = (cmc_message){role, part + 2, strlen(part + 2)};
    }
    return r;
}

typedef struct render_case {
    cmc_template t;
    size_t vocab;          /* offset of the vocabulary in the fixture */
    const char *record, *want, *text;
} render_case;
#define V(name) offsetof(fixture, name)

static const render_case CASES[] = {
    {CMC_TMPL_PLAIN, V(plain), "u:Hi", "Question: Hi\nAnswer:", ""},
    {CMC_TMPL_PLAIN, V(plain), "u:Hi;a:Yo", "Question: Hi\nAnswer: Yo⟦<eos>⟧", " Yo"},
    {CMC_TMPL_PLAIN, V(plain), "s:Be.;u:Hi;a:Yo;u:So;a:No",
     "Be.\n\nQuestion: Hi\nAnswer: Yo⟦<eos>⟧\nQuestion: So\nAnswer: No⟦<eos>⟧", " Yo No"},
    {CMC_TMPL_AUTO, V(plain), "u:Hi", "Question: Hi\nAnswer:", ""},
    {CMC_TMPL_PLAIN, V(llama), "u:Hi;a:Yo", "⟦<s>⟧ Question: Hi\nAnswer: Yo⟦</s>⟧", " Yo"},
    {CMC_TMPL_RAW, V(plain), "s:Be ;u:Hi;a:Yo", "Be HiYo⟦<eos>⟧", "Yo"},
    {CMC_TMPL_CHATML, V(chatml), "s:Be;u: Hi ;a:Yo;u:So",
     "⟦<|im_start|>⟧system\nBe⟦<|im_end|>⟧\n⟦<|im_start|>⟧user\n Hi "
     "⟦<|im_end|>⟧\n⟦<|im_start|>⟧assistant\nYo⟦<|im_end|>⟧\n"
     "⟦<|im_start|>⟧user\nSo⟦<|im_end|>⟧\n⟦<|im_start|>⟧assistant\n",
     "Yo"},
    {CMC_TMPL_CHATML, V(plain), "u:Hi;a:Yo;u:So",
     "<|im_start|>user\nHi<|im_end|>\n<|im_start|>assistant\nYo⟦<eos>⟧\n<|im_start|>user\nSo<|im_end|>\n<|im_start|>"
     "assistant\n",
     "Yo"},
    {CMC_TMPL_LLAMA3, V(llama3), "s: Be;u:Hi ;a:Yo",
     "⟦<|begin_of_text|>⟧⟦<|start_header_id|>⟧system⟦<|end_header_id|>⟧\n\nBe⟦<|eot_id|>⟧⟦<|start_header_id|>⟧user"
     "⟦<|end_header_id|>⟧\n\nHi⟦<|eot_id|>⟧⟦<|start_header_id|>⟧assistant⟦<|end_header_id|>⟧\n\nYo⟦<|eot_id|>⟧",
     "Yo"},
    {CMC_TMPL_GEMMA, V(gemma), "s:Be;u: Hi;a:Yo;u:So",
     "⟦<bos>⟧⟦<start_of_turn>⟧user\nBe\n\nHi⟦<end_of_turn>⟧\n⟦<start_of_turn>⟧model\nYo⟦<end_of_turn>⟧\n"
     "⟦<start_of_turn>⟧user\nSo⟦<end_of_turn>⟧\n⟦<start_of_turn>⟧model\n",
     "Yo"},
    {CMC_TMPL_LLAMA2, V(llama), "s:Be;u:Hi;a:Yo;u:So",
     "⟦<s>⟧ [INST] <<SYS>>\nBe\n<</SYS>>\n\nHi [/INST] Yo⟦</s>⟧⟦<s>⟧ [INST] So [/INST]", " Yo"},
    {CMC_TMPL_MISTRAL, V(llama), "s:Be;u:Hi;a:Yo;u:So", "⟦<s>⟧ [INST] Be\n\nHi [/INST] Yo⟦</s>⟧ [INST] So [/INST]",
     " Yo"},
    {CMC_TMPL_MISTRAL, V(tekken), "s:Be;u:Hi;a:Yo;u:So", "⟦<s>⟧⟦[INST]⟧Be\n\nHi⟦[/INST]⟧Yo⟦</s>⟧⟦[INST]⟧So⟦[/INST]⟧",
     "Yo"},
    {CMC_TMPL_MISTRAL, V(v7), "s:Be;u:Hi;a:Yo", "⟦<s>⟧⟦[SYSTEM_PROMPT]⟧Be⟦[/SYSTEM_PROMPT]⟧⟦[INST]⟧Hi⟦[/INST]⟧Yo⟦</s>⟧",
     "Yo"},
    {CMC_TMPL_ALPACA, V(plain), "u:Hi;a:Yo;u:So",
     "Below is an instruction that describes a task. Write a response that appropriately completes the request.\n\n"
     "### Instruction:\nHi\n\n### Response:\nYo⟦<eos>⟧\n\n### Instruction:\nSo\n\n### Response:\n",
     "Yo"},
    {CMC_TMPL_ALPACA, V(plain), "s:Be;u:Hi", "Be\n\n### Instruction:\nHi\n\n### Response:\n", ""},
    {CMC_TMPL_VICUNA, V(plain), "s:Be;u:Hi;a:Yo;u:So", "Be USER: Hi ASSISTANT: Yo⟦<eos>⟧USER: So ASSISTANT:", " Yo"},
    {CMC_TMPL_ZEPHYR, V(tekken), "s:Be;u:Hi;a:Yo;u:So",
     "⟦<s>⟧<|system|>\nBe⟦</s>⟧\n<|user|>\nHi⟦</s>⟧\n<|assistant|>\nYo⟦</s>⟧\n<|user|>\nSo⟦</s>⟧\n<|assistant|>\n",
     "Yo"},
    /* what the user writes stays text */
    {CMC_TMPL_CHATML, V(chatml), "u:<|im_end|>",
     "⟦<|im_start|>⟧user\n<|im_end|>⟦<|im_end|>⟧\n⟦<|im_start|>⟧assistant\n", ""},
    /* a system message that no user's turn follows is a turn of its own */
    {CMC_TMPL_GEMMA, V(gemma), "s:Be", "⟦<bos>⟧⟦<start_of_turn>⟧user\nBe⟦<end_of_turn>⟧\n⟦<start_of_turn>⟧model\n", ""},
    {CMC_TMPL_PLAIN, V(plain), "a:Yo", "Answer: Yo⟦<eos>⟧", " Yo"},
};

static const cmc_vocab *vocab_of(const fixture *f, size_t offset) {
    return *(cmc_vocab *const *)(const void *)((const char *)f + offset);
}

/* The spans of a rendering: their ids are those of the response on its own and the end token; their texts are the
 * bytes. */
static void check_spans(const cmc_vocab *v, cmc_template t, const cmc_record *r, const cmc_rendered *out) {
    size_t k = 0;
    for (size_t i = 0; i < r->n_messages; i++) {
        if (r->messages[i].role != CMC_ASSISTANT) continue;
        const cmc_span *sp = &out->spans[k++];
        cmc_ids want = {0}, prompt = {0};
        assert_int_equal(cmc_tokenize(v, out->text + sp->text_off, sp->text_len, CMC_TOK_CONTINUE, &want, NULL),
                         CMC_OK);
        int32_t end = prompt_end_token(v, t);
        if (end >= 0) assert_int_equal(cmc_ids_push(&want, end), CMC_OK);
        assert_int_equal(sp->n, want.n);
        assert_memory_equal(out->ids.v + sp->first, want.v, want.n * sizeof *want.v);
        /* what comes before it is what the prompt alone is */
        assert_int_equal(prompt_open(v, t, r->messages, i, false, &prompt, NULL, NULL), CMC_OK);
        assert_int_equal(prompt.n, sp->first);
        assert_memory_equal(out->ids.v, prompt.v, prompt.n * sizeof *prompt.v);
        cmc_ids_free(&want);
        cmc_ids_free(&prompt);
    }
    assert_int_equal(out->n_spans, k);
}

static void test_renderings(void **state) {
    const fixture *f = *state;
    for (size_t i = 0; i < sizeof CASES / sizeof CASES[0]; i++) {
        const cmc_vocab *v = vocab_of(f, CASES[i].vocab);
        cmc_record r = record_of(CASES[i].record);
        cmc_rendered out;
        cmc_error err = {0};
        if (cmc_render(v, CASES[i].t, &r, false, &out, &err) != CMC_OK) fail_msg("%s", err.message);
        char *got = show(v, out.ids.v, out.ids.n);
        assert_string_equal(got, CASES[i].want);
        assert_string_equal(out.text ? out.text : "", CASES[i].text);
        check_spans(v, CASES[i].t, &r, &out);
        free(got);
        cmc_rendered_free(&out);
    }
}

/* Text between control tokens is one run: a prompt without responses has the ids of its text read with special tokens.
 */
static void test_prompt_is_its_text(void **state) {
    const fixture *f = *state;
    static const cmc_template ALL[] = {CMC_TMPL_PLAIN,  CMC_TMPL_CHATML,  CMC_TMPL_LLAMA2, CMC_TMPL_LLAMA3,
                                       CMC_TMPL_GEMMA,  CMC_TMPL_MISTRAL, CMC_TMPL_ALPACA, CMC_TMPL_VICUNA,
                                       CMC_TMPL_ZEPHYR, CMC_TMPL_RAW};
    const size_t vocabs[] = {V(llama), V(gemma), V(plain), V(chatml), V(llama3), V(tekken), V(v7)};
    for (size_t t = 0; t < sizeof ALL / sizeof ALL[0]; t++) {
        for (size_t k = 0; k < sizeof vocabs / sizeof vocabs[0]; k++) {
            const cmc_vocab *v = vocab_of(f, vocabs[k]);
            cmc_record r = record_of("s:  the \xc3\xa9tat;u:the cat and  the hat");
            cmc_ids ids = {0}, again = {0};
            assert_int_equal(prompt_open(v, ALL[t], r.messages, r.n_messages, false, &ids, NULL, NULL), CMC_OK);
            size_t from = cmc_vocab_adds_bos(v) ? 1 : 0;
            bool dummy = v->model == VOCAB_SPM && v->add_space_prefix, after_special = true;
            char *text = NULL;
            size_t size = 0, len;
            FILE *out = open_memstream(&text, &size);
            for (size_t i = from; i < ids.n; i++) {
                bool control = cmc_vocab_kind(v, ids.v[i]) == CMC_KIND_CONTROL;
                const char *s =
                    control ? cmc_vocab_spelling(v, ids.v[i], &len) : (const char *)cmc_vocab_bytes(v, ids.v[i], &len);
                size_t skip =
                    !control && dummy && after_special && len > 0; /* the dummy space is no byte of the text */
                fwrite(s + skip, 1, len - skip, out);
                after_special = control;
            }
            fclose(out);
            assert_int_equal(cmc_tokenize(v, text, size, CMC_TOK_BOS | CMC_TOK_SPECIAL, &again, NULL), CMC_OK);
            if (ids.n != again.n) fail_msg("%s in vocabulary %zu: %.*s", cmc_template_name(ALL[t]), k, (int)size, text);
            assert_memory_equal(ids.v, again.v, ids.n * sizeof *ids.v);
            free(text);
            cmc_ids_free(&ids);
            cmc_ids_free(&again);
        }
    }
}

static void test_special_and_text(void **state) {
    const fixture *f = *state;
    cmc_rendered out;
    cmc_record r = record_of("u:a<|im_end|>;a:b<|im_start|>");
    assert_int_equal(cmc_render(f->chatml, CMC_TMPL_PLAIN, &r, true, &out, NULL), CMC_OK);
    char *got = show(f->chatml, out.ids.v, out.ids.n);
    assert_string_equal(got, "Question: a⟦<|im_end|>⟧\nAnswer: b⟦<|im_start|>⟧⟦<|im_end|>⟧");
    assert_string_equal(out.text, " b"); /* a control token has no bytes */
    free(got);
    cmc_rendered_free(&out);
    char text[] = "ab\0c";
    cmc_record t = {.text = text, .text_len = 4};
    assert_int_equal(cmc_render(f->plain, CMC_TMPL_CHATML, &t, false, &out, NULL),
                     CMC_OK); /* no template for a bare text */
    assert_int_equal(out.n_spans, 1);
    assert_int_equal(out.spans[0].first, 1);
    assert_int_equal(out.spans[0].n, out.ids.n - 1);
    assert_int_equal(out.text_len, 4);
    cmc_rendered_free(&out);
    t.text_len = 0;
    assert_int_equal(cmc_render(f->plain, CMC_TMPL_PLAIN, &t, false, &out, NULL), CMC_OK);
    assert_int_equal(out.n_spans, 0);
    cmc_rendered_free(&out);
}

static const struct { const char *jinja; cmc_template want; } TELL_TALE[] = {
    {"{{'<|im_start|>' + message['role'] + '\n' + message['content'] + '<|im_end|>'}}", CMC_TMPL_CHATML},
    {"<|im_start|>user<|im_sep|>", CMC_TMPL_AUTO},
    {"{{ bos_token + '[INST] ' + '<<SYS>>\\n' + system_message }}", CMC_TMPL_LLAMA2},
    {"{{ '[INST] ' + message['content'] + ' [/INST]' }}", CMC_TMPL_MISTRAL},
    {"[AVAILABLE_TOOLS][INST]", CMC_TMPL_MISTRAL},
    {"'<|start_header_id|>' + message['role'] + '<|end_header_id|>\n\n'", CMC_TMPL_LLAMA3},
    {"'<start_of_turn>' + role", CMC_TMPL_GEMMA},
    {"'<|user|>\n' + message['content'] + eos_token", CMC_TMPL_ZEPHYR},
    {"'<|user|>\n' + message['content'] + '<|end|>' eos_token", CMC_TMPL_AUTO},
    {"'USER: ' + message['content'] + ' ASSISTANT: '", CMC_TMPL_VICUNA},
    {"'### Instruction:\n' + content + '### Response:'", CMC_TMPL_ALPACA},
    {"<|channel|>", CMC_TMPL_AUTO},
    {"", CMC_TMPL_AUTO},
};

static void test_recognition_and_names(void **state) {
    const fixture *f = *state;
    for (size_t i = 0; i < sizeof TELL_TALE / sizeof TELL_TALE[0]; i++) {
        assert_int_equal(template_recognise(TELL_TALE[i].jinja), TELL_TALE[i].want);
    }
    assert_int_equal(template_recognise(NULL), CMC_TMPL_AUTO);
    for (cmc_template t = CMC_TMPL_AUTO; t <= CMC_TMPL_RAW; t++) {
        cmc_template back;
        assert_int_equal(cmc_template_parse(cmc_template_name(t), &back, NULL), CMC_OK);
        assert_int_equal(back, t);
        if (t != CMC_TMPL_AUTO) assert_int_equal(cmc_template_resolve(t, f->chatml), t);
    }
    cmc_error err = {0};
    cmc_template t;
    assert_int_equal(cmc_template_parse("chatlm", &t, &err), CMC_E_ARG);
    assert_non_null(strstr(err.message, "chatlm"));
    assert_int_equal(cmc_template_resolve(CMC_TMPL_AUTO, f->plain), CMC_TMPL_PLAIN);
    cmc_vocab *v;
    const char *path = tiny_path(f->dir, "own.gguf");
    tiny_spec spec = {.arch = "llama", .vocab_only = true, .chat_template = "<|im_start|>user"};
    assert_int_equal(tiny_write(&spec, path, NULL), CMC_OK);
    assert_int_equal(cmc_vocab_open(path, &v, NULL), CMC_OK);
    assert_int_equal(cmc_template_resolve(CMC_TMPL_AUTO, v), CMC_TMPL_CHATML);
    assert_int_equal(cmc_template_resolve(CMC_TMPL_PLAIN, v), CMC_TMPL_PLAIN);
    cmc_vocab_free(v);
}

/* A response ends with the template's own end of turn, and with EOS where it names none, whatever else ends a turn. */
static void end_tokens(void **state) {
    const fixture *f = *state;
    const int32_t eos = cmc_vocab_role_token(f->llama3, CMC_ROLE_EOS), eot = cmc_vocab_role_token(f->llama3, CMC_ROLE_EOT);
    assert_true(eos >= 0 && eot >= 0 && eos != eot);
    assert_int_equal(prompt_end_token(f->llama3, CMC_TMPL_LLAMA3), eot);
    assert_int_equal(prompt_end_token(f->llama3, CMC_TMPL_PLAIN), eos);
    assert_int_equal(prompt_end_token(f->llama3, CMC_TMPL_ALPACA), eos);
    assert_int_equal(prompt_end_token(f->llama3, CMC_TMPL_GEMMA), eot); /* no <end_of_turn> here, but a token of its role */
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_renderings),
        cmocka_unit_test(test_prompt_is_its_text),
        cmocka_unit_test(test_special_and_text),
        cmocka_unit_test(test_recognition_and_names),
        cmocka_unit_test(end_tokens),
    };
    return cmocka_run_group_tests_name("template", tests, setup, teardown);
}
