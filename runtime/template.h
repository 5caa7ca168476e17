/* Prompt templates inside the library: what each is called, how it is recognised, where its responses begin and end. */
#ifndef CMC_RUNTIME_TEMPLATE_H
#define CMC_RUNTIME_TEMPLATE_H
#include "cmc.h"

/* The template that a model file's chat template text (Jinja) amounts to; CMC_TMPL_AUTO where it is none that cmc
 * knows. */
cmc_template template_recognise(const char *jinja);
/* The bytes between the opening of an answer and the answer proper: " " where the prompt ends without white space and
 * the answer's first token carries the space ("Answer:" + " Paris"), else "". */
const char *template_lead(cmc_template t, const cmc_vocab *v);
/* The spelling that ends a response, "" where the template has none of its own (then eot or eos ends it). */
const char *template_end(cmc_template t);
/* True where the spelling of `template_end` is only the family's name for its EOS token. */
bool template_ends_with_eos(cmc_template t);
/* Mistral's vocabularies from v3 on hold [INST] as a control token. */
bool template_mistral_has_control(const cmc_vocab *v);
#endif
