/* Prompts: messages rendered under each template, as ids. */
#include "runtime/prompt.h"

#include <stdlib.h>
#include <string.h>

#include "base/mem.h"
#include "runtime/template.h"

/* -------------------------------------------------------------------------------------- pieces of a prompt */

static void put_text(prompt_builder *b, const char *s, size_t n) {
    if (b->status != CMC_OK || n == 0) return;
    if (!cmc_grow((void **)&b->run, &b->run_cap, b->run_n + n, 1)) {
        b->status = cmc_fail_nomem(b->err, "a prompt", b->run_n + n);
        return;
    }
    memcpy(b->run + b->run_n, s, n);
    b->run_n += n;
    b->begun = true;
}

static void put(prompt_builder *b, const char *s) {
    put_text(b, s, strlen(s));
}

/* A message's text without the white space around it, where the family's own template trims. */
static void put_trimmed(prompt_builder *b, const cmc_message *m) {
    const char *s = m->text, *white = " \t\r\n\f\v";
    size_t n = m->len;
    while (n > 0 && memchr(white, s[0], 6)) s++, n--;
    while (n > 0 && memchr(white, s[n - 1], 6)) n--;
    put_text(b, s, n);
}

static void put_message(prompt_builder *b, const cmc_message *m) {
    put_text(b, m->text, m->len);
}

/* Tokenises the run that has gathered. Like llama.cpp, and as cmc_tokenize does in a text with special tokens, a run
 * after a control token begins as a text does: with the dummy space, where the vocabulary has one. */
static void flush(prompt_builder *b) {
    if (b->status != CMC_OK || b->run_n == 0) return;
    unsigned flags = (b->continues ? CMC_TOK_CONTINUE : 0u) | (b->special ? CMC_TOK_SPECIAL : 0u);
    b->status = cmc_tokenize(b->v, b->run, b->run_n, flags, b->ids, b->err);
    b->run_n = 0;
    b->continues = true;
}

static void put_id(prompt_builder *b, int32_t id) {
    flush(b);
    if (b->status != CMC_OK) return;
    if (cmc_ids_push(b->ids, id) != CMC_OK) b->status = cmc_fail_nomem(b->err, "a prompt", b->ids->n);
    b->continues = false;
    b->begun = true;
}

/* A control token of the template: the token where the vocabulary has it, else its spelling as text. */
static void put_control(prompt_builder *b, const char *spelling) {
    int32_t id = cmc_vocab_find_special(b->v, spelling);
    if (id >= 0) {
        put_id(b, id);
    } else {
        put(b, spelling);
    }
}

/* What ends a turn that is not a response. */
static void put_end(prompt_builder *b) {
    int32_t eos = cmc_vocab_role_token(b->v, CMC_ROLE_EOS);
    if (template_ends_with_eos(b->t) && eos >= 0) {
        put_id(b, eos);
    } else {
        put_control(b, template_end(b->t));
    }
}

/* BOS counts as nothing that stands before: no separator is due after it. */
static void put_bos(prompt_builder *b) {
    int32_t bos = cmc_vocab_role_token(b->v, CMC_ROLE_BOS);
    if (bos < 0 || !cmc_vocab_adds_bos(b->v)) return;
    bool begun = b->begun;
    put_id(b, bos);
    b->begun = begun;
}

/* ----------------------------------------------------------------------------------------------- templates */

/* The families that know no system turn: its text goes into the user's turn that follows. */
static bool folds_system(const prompt_builder *b) {
    return b->t == CMC_TMPL_GEMMA || b->t == CMC_TMPL_LLAMA2
        || (b->t == CMC_TMPL_MISTRAL && cmc_vocab_find_special(b->v, "[SYSTEM_PROMPT]") < 0);
}

/* The content of a user's turn under a family that folds: the system messages right before it, then its own text. */
static void put_folded(prompt_builder *b, const cmc_message *messages, size_t i) {
    size_t first = i;
    while (folds_system(b) && first > 0 && messages[first - 1].role == CMC_SYSTEM) first--;
    for (size_t k = first; k < i; k++) {
        if (b->t == CMC_TMPL_LLAMA2) put(b, "<<SYS>>\n");
        if (b->t == CMC_TMPL_MISTRAL) put_message(b, &messages[k]);
        else put_trimmed(b, &messages[k]);
        put(b, b->t == CMC_TMPL_LLAMA2 ? "\n<</SYS>>\n\n" : "\n\n");
    }
    if (b->t == CMC_TMPL_MISTRAL) put_message(b, &messages[i]);
    else put_trimmed(b, &messages[i]);
}

static const char *role_name(cmc_role role) {
    return role == CMC_SYSTEM ? "system" : role == CMC_USER ? "user" : "assistant";
}

/* `[INST] q [/INST]`. Llama-2 begins every exchange with BOS. Mistral: v1 has the brackets as text, later ones as
 * control tokens, with a space after them in SentencePiece vocabularies and none in Tekken's. */
static void turn_inst(prompt_builder *b, const cmc_message *messages, size_t i) {
    if (b->t == CMC_TMPL_LLAMA2 || !template_mistral_has_control(b->v)) {
        bool exchange = i > 0 && messages[i - 1].role == CMC_ASSISTANT;
        if (b->t == CMC_TMPL_LLAMA2 && exchange) put_bos(b);
        if (b->continues) put(b, " ");
        put_control(b, "[INST]");
        put(b, " ");
        put_folded(b, messages, i);
        put(b, " ");
        put_control(b, "[/INST]");
        return;
    }
    const char *space = template_lead(b->t, b->v);
    bool system = messages[i].role == CMC_SYSTEM && !folds_system(b); /* v7 has a system turn */
    put_control(b, system ? "[SYSTEM_PROMPT]" : "[INST]");
    put(b, space);
    if (system) put_message(b, &messages[i]);
    else put_folded(b, messages, i);
    put_control(b, system ? "[/SYSTEM_PROMPT]" : "[/INST]");
}

/* plain: `Question: {q}\nAnswer:`, each part on a line of its own; a system message comes before the question, with an
 * empty line after it. */
static void turn_plain(prompt_builder *b, const cmc_message *m) {
    if (b->begun) put(b, "\n");
    if (m->role == CMC_USER) put(b, "Question: ");
    put_message(b, m);
    if (m->role == CMC_SYSTEM) put(b, "\n");
}

/* alpaca: the preamble of the Stanford data, which a system message replaces. */
static void turn_alpaca(prompt_builder *b, const cmc_message *m) {
    if (m->role == CMC_USER) {
        if (!b->begun) {
            put(b, "Below is an instruction that describes a task. "
                   "Write a response that appropriately completes the request.");
        }
        put(b, "\n\n### Instruction:\n");
    } else if (b->begun) {
        put(b, "\n\n");
    }
    put_message(b, m);
}

void prompt_turn(prompt_builder *b, const cmc_message *messages, size_t n, size_t i) {
    const cmc_message *m = &messages[i];
    if (m->role == CMC_SYSTEM && folds_system(b) && i + 1 < n && messages[i + 1].role != CMC_ASSISTANT) return;
    switch (b->t) {
    case CMC_TMPL_CHATML:
        put_control(b, "<|im_start|>");
        put(b, role_name(m->role));
        put(b, "\n");
        put_message(b, m);
        put_end(b);
        put(b, "\n");
        break;
    case CMC_TMPL_LLAMA3:
        put_control(b, "<|start_header_id|>");
        put(b, role_name(m->role));
        put_control(b, "<|end_header_id|>");
        put(b, "\n\n");
        put_trimmed(b, m);
        put_end(b);
        break;
    case CMC_TMPL_GEMMA:
        put_control(b, "<start_of_turn>");
        put(b, "user\n");
        put_folded(b, messages, i);
        put_end(b);
        put(b, "\n");
        break;
    case CMC_TMPL_ZEPHYR:
        put_control(b, m->role == CMC_SYSTEM ? "<|system|>" : "<|user|>");
        put(b, "\n");
        put_message(b, m);
        put_end(b);
        put(b, "\n");
        break;
    case CMC_TMPL_LLAMA2:
    case CMC_TMPL_MISTRAL: turn_inst(b, messages, i); break;
    case CMC_TMPL_ALPACA: turn_alpaca(b, m); break;
    case CMC_TMPL_VICUNA:
        if (m->role == CMC_USER) put(b, "USER: ");
        put_message(b, m);
        put(b, " ");
        break;
    case CMC_TMPL_RAW: put_message(b, m); break;
    default: turn_plain(b, m); break;
    }
}

void prompt_answer(prompt_builder *b) {
    switch (b->t) {
    case CMC_TMPL_CHATML:
        put_control(b, "<|im_start|>");
        put(b, "assistant\n");
        break;
    case CMC_TMPL_LLAMA3:
        put_control(b, "<|start_header_id|>");
        put(b, "assistant");
        put_control(b, "<|end_header_id|>");
        put(b, "\n\n");
        break;
    case CMC_TMPL_GEMMA:
        put_control(b, "<start_of_turn>");
        put(b, "model\n");
        break;
    case CMC_TMPL_ZEPHYR:
        put_control(b, "<|assistant|>");
        put(b, "\n");
        break;
    case CMC_TMPL_ALPACA:
        if (b->begun) put(b, "\n\n");
        put(b, "### Response:\n");
        break;
    case CMC_TMPL_VICUNA: put(b, "ASSISTANT:"); break;
    case CMC_TMPL_LLAMA2:
    case CMC_TMPL_MISTRAL:
    case CMC_TMPL_RAW: break;
    default:
        if (b->begun) put(b, "\n");
        put(b, "Answer:");
        break;
    }
    flush(b);
}

void prompt_response(prompt_builder *b, const char *text, size_t n) {
    prompt_response_cut(b, text, n, n);
}

size_t prompt_response_cut(prompt_builder *b, const char *text, size_t n, size_t cut) {
    put(b, template_lead(b->t, b->v));
    put_text(b, text, cut);
    b->continues = true; /* on its own: no BOS, no dummy space, whatever came before */
    flush(b);
    size_t at = b->ids->n;
    put_text(b, text + cut, n - cut);
    flush(b);
    int32_t end = prompt_end_token(b->v, b->t);
    if (end >= 0) put_id(b, end);
    /* What stands between an answer and the next turn waits in the run; after the last answer it is dropped. */
    if (end < 0 && !template_ends_with_eos(b->t)) put(b, template_end(b->t));
    if (b->t == CMC_TMPL_CHATML || b->t == CMC_TMPL_GEMMA || b->t == CMC_TMPL_ZEPHYR) put(b, "\n");
    if (b->t == CMC_TMPL_VICUNA && end < 0) put(b, " ");
    return at;
}

void prompt_begin(prompt_builder *b, const cmc_vocab *v, cmc_template t, bool special, cmc_ids *ids, cmc_error *err) {
    *b = (prompt_builder){.v = v, .t = cmc_template_resolve(t, v), .special = special, .ids = ids, .err = err};
    put_bos(b);
}

cmc_status prompt_end(prompt_builder *b) {
    free(b->run);
    b->run = NULL;
    return b->status;
}

cmc_status prompt_open(const cmc_vocab *v, cmc_template t, const cmc_message *messages, size_t n, bool special,
                       cmc_ids *out, const char **lead, cmc_error *err) {
    prompt_builder b;
    prompt_begin(&b, v, t, special, out, err);
    for (size_t i = 0; i < n; i++) {
        if (messages[i].role == CMC_ASSISTANT) {
            prompt_answer(&b);
            prompt_response(&b, messages[i].text, messages[i].len);
        } else {
            prompt_turn(&b, messages, n, i);
        }
    }
    prompt_answer(&b);
    if (lead) *lead = template_lead(b.t, v);
    return prompt_end(&b);
}
