/* Prompts inside the library. */
#ifndef CMC_RUNTIME_PROMPT_H
#define CMC_RUNTIME_PROMPT_H
#include "base/error.h"
#include "tokenmap/vocab.h"

/* The prompt of messages[0..n) with the opening of the assistant's answer, as ids; what a delta or a host is given before
 * the response's bytes. *lead: the bytes that the response starts with under this template (" " for plain). */
cmc_status prompt_open(const cmc_vocab *v, cmc_template t, const cmc_message *messages, size_t n, bool special,
                       cmc_ids *out, const char **lead, cmc_error *err);
/* The id that ends a response under a template: its own end token where the vocabulary has it, else eot, else eos, else -1. */
int32_t prompt_end_token(const cmc_vocab *v, cmc_template t);
#endif
