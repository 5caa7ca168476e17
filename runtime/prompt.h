/* Prompts inside the library. */
#ifndef CMC_RUNTIME_PROMPT_H
#define CMC_RUNTIME_PROMPT_H
#include "base/error.h"
#include "tokenmap/vocab.h"

/* The prompt of messages[0..n) with the opening of the assistant's answer, as ids; what a delta or a host is given
 * before the response's bytes. *lead: the bytes that the response starts with under this template (" " for plain). */
cmc_status prompt_open(const cmc_vocab *v, cmc_template t, const cmc_message *messages, size_t n, bool special,
                       cmc_ids *out, const char **lead, cmc_error *err);
/* The id that ends a response under a template: its own end token where the vocabulary has it, else eot, else eos,
 * else -1. */
int32_t prompt_end_token(const cmc_vocab *v, cmc_template t);

/* render.c: cmc_render, where one response is cut: the bytes from `off` on of messages[message], or of a bare text, are
 * tokenised on their own. *at: the place of their first id. */
typedef struct render_cut { size_t message, off; } render_cut;
cmc_status render_with_cut(const cmc_vocab *v, cmc_template t, const cmc_record *r, render_cut cut, cmc_rendered *out,
                           size_t *at, cmc_error *err);

/* cmc_records_read from memory: `name` stands for the file in messages. */
cmc_status records_read_memory(const char *data, size_t n, const char *name, bool need_response, cmc_records *out,
                               cmc_error *err);

/* The building of a prompt, message by message. Text between control tokens is gathered into one run and tokenised as a
 * whole, so that merges across the borders of its pieces are those of the plain text. */
typedef struct prompt_builder {
    const cmc_vocab *v;
    cmc_template t;          /* resolved */
    bool special;
    cmc_ids *ids;            /* where to; borrowed */
    char *run; size_t run_n, run_cap;   /* text not yet tokenised */
    bool continues;          /* the run follows text, not a control token: no dummy space before it */
    bool begun;              /* something stands before: separators are due */
    cmc_status status;       /* sticky */
    cmc_error *err;
} prompt_builder;

/* Starts a prompt that appends to `ids`: BOS where the model asks for it. */
void prompt_begin(prompt_builder *b, const cmc_vocab *v, cmc_template t, bool special, cmc_ids *ids, cmc_error *err);
/* messages[i], a system or user turn, in full. */
void prompt_turn(prompt_builder *b, const cmc_message *messages, size_t n, size_t i);
/* The opening of an answer, tokenised: b->ids is complete up to where a response goes. */
void prompt_answer(prompt_builder *b);
/* A response after its opening: the ids of lead + text on their own, then the end token. */
void prompt_response(prompt_builder *b, const char *text, size_t n);
/* Likewise, but the ids are those of lead + text[0..cut) and, on their own, those of text[cut..n). Gives the place of the
 * latter's first in b->ids. */
size_t prompt_response_cut(prompt_builder *b, const char *text, size_t n, size_t cut);
/* Frees the builder's own memory and gives its status. */
cmc_status prompt_end(prompt_builder *b);
#endif
