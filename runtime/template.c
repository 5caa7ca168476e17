/* Prompt templates: names, recognition from a file's own chat template, leads and end tokens. */
#include "runtime/template.h"

#include <string.h>

#include "base/error.h"
#include "runtime/prompt.h"

static const char *const TEMPLATE_NAMES[] = {
    [CMC_TMPL_AUTO] = "auto",     [CMC_TMPL_PLAIN] = "plain",     [CMC_TMPL_CHATML] = "chatml",
    [CMC_TMPL_LLAMA2] = "llama2", [CMC_TMPL_LLAMA3] = "llama3",   [CMC_TMPL_GEMMA] = "gemma",
    [CMC_TMPL_MISTRAL] = "mistral", [CMC_TMPL_ALPACA] = "alpaca", [CMC_TMPL_VICUNA] = "vicuna",
    [CMC_TMPL_ZEPHYR] = "zephyr", [CMC_TMPL_RAW] = "raw",
};
enum { TEMPLATE_COUNT = sizeof TEMPLATE_NAMES / sizeof TEMPLATE_NAMES[0] };

const char *cmc_template_name(cmc_template t) {
    return (unsigned)t < TEMPLATE_COUNT ? TEMPLATE_NAMES[t] : "unknown";
}

cmc_status cmc_template_parse(const char *name, cmc_template *out, cmc_error *err) {
    for (unsigned i = 0; i < TEMPLATE_COUNT; i++) {
        if (name && strcmp(name, TEMPLATE_NAMES[i]) == 0) {
            *out = (cmc_template)i;
            return CMC_OK;
        }
    }
    return cmc_fail(err, CMC_E_ARG,
                    "%.64s: no such template, expected auto, plain, chatml, llama2, llama3, gemma, mistral, "
                    "alpaca, vicuna, zephyr or raw",
                    name ? name : "(none)");
}

static bool has(const char *text, const char *what) {
    return strstr(text, what) != NULL;
}

/* A template text with [INST]. Llama-2 is known by its <<SYS>> block; the official Mistral v1 to v7 texts have none. */
static cmc_template recognise_inst(const char *j) {
    return has(j, "<<SYS>>") ? CMC_TMPL_LLAMA2 : CMC_TMPL_MISTRAL;
}

/* Tell-tale strings, in the order in which one family's text may hold another's (the same ones llama.cpp goes by). */
cmc_template template_recognise(const char *j) {
    if (!j || !*j) return CMC_TMPL_AUTO;
    if (has(j, "<|im_start|>")) {
        /* Phi-4 and SmolVLM use the token in forms of their own. */
        return has(j, "<|im_sep|>") || has(j, "<end_of_utterance>") ? CMC_TMPL_AUTO : CMC_TMPL_CHATML;
    }
    if (has(j, "[INST]")) return recognise_inst(j);
    if (has(j, "<|start_header_id|>") && has(j, "<|end_header_id|>")) return CMC_TMPL_LLAMA3;
    if (has(j, "<start_of_turn>")) return CMC_TMPL_GEMMA;
    if (has(j, "<|user|>") && (has(j, "eos_token") || has(j, "<|endoftext|>")) && !has(j, "<|end|>") &&
        !has(j, "[gMASK]") && !has(j, "</s>")) {
        return CMC_TMPL_ZEPHYR; /* not Phi-3 (<|end|>), ChatGLM ([gMASK]) or Falcon-3 (</s>) */
    }
    if (has(j, "USER: ") && has(j, "ASSISTANT:")) return CMC_TMPL_VICUNA;
    if (has(j, "### Instruction:") && has(j, "### Response:") && !has(j, "<|EOT|>")) return CMC_TMPL_ALPACA;
    return CMC_TMPL_AUTO;
}

cmc_template cmc_template_resolve(cmc_template t, const cmc_vocab *v) {
    if (t != CMC_TMPL_AUTO) return t;
    cmc_template own = template_recognise(v ? cmc_vocab_chat_template(v) : NULL);
    return own == CMC_TMPL_AUTO ? CMC_TMPL_PLAIN : own;
}

bool template_mistral_has_control(const cmc_vocab *v) {
    return cmc_vocab_find_special(v, "[INST]") >= 0 && cmc_vocab_find_special(v, "[/INST]") >= 0;
}

const char *template_lead(cmc_template t, const cmc_vocab *v) {
    switch (t) {
    case CMC_TMPL_PLAIN:
    case CMC_TMPL_LLAMA2:
    case CMC_TMPL_VICUNA:
        return " ";
    case CMC_TMPL_MISTRAL: /* v3-tekken (byte-level BPE) has no space after [/INST] */
        return template_mistral_has_control(v) && strcmp(cmc_vocab_kind_name(v), "bpe") == 0 ? "" : " ";
    default:
        return "";
    }
}

const char *template_end(cmc_template t) {
    switch (t) {
    case CMC_TMPL_CHATML: return "<|im_end|>";
    case CMC_TMPL_LLAMA3: return "<|eot_id|>";
    case CMC_TMPL_GEMMA: return "<end_of_turn>";
    case CMC_TMPL_LLAMA2:
    case CMC_TMPL_MISTRAL:
    case CMC_TMPL_ALPACA:
    case CMC_TMPL_VICUNA:
    case CMC_TMPL_ZEPHYR: return "</s>";
    default: return "";
    }
}

bool template_ends_with_eos(cmc_template t) {
    return strcmp(template_end(t), "</s>") == 0;
}

int32_t prompt_end_token(const cmc_vocab *v, cmc_template t) {
    t = cmc_template_resolve(t, v);
    const char *end = template_end(t);
    /* EOS where the template names no other: what ends a text for any model, a base model too, which may have a token for
     * the end of a turn and never have seen it. Other vocabularies do not spell it "</s>". */
    int32_t id = *end && !template_ends_with_eos(t) ? cmc_vocab_find_special(v, end) : cmc_vocab_role_token(v, CMC_ROLE_EOS);
    if (id < 0) id = cmc_vocab_role_token(v, CMC_ROLE_EOT);
    return id >= 0 ? id : cmc_vocab_role_token(v, CMC_ROLE_EOS);
}
