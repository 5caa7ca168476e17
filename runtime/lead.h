/* Leads: what stands between a prompt and the response proper, where host and delta differ in it. */
#ifndef CMC_RUNTIME_LEAD_H
#define CMC_RUNTIME_LEAD_H
#include "base/error.h"
#include "tokenmap/map.h"
#include "tokenmap/retok.h"

/* A template's lead is "" or " " (template_lead). Where both sides have the same one, the delta reads the response's
 * bytes as the host wrote them. Where they differ (a host under chatml says "Paris", a delta under plain was taught
 * " Paris"), it reads the response proper behind its own lead: a space is put before the host's first byte, or taken
 * away where the host wrote one.
 *
 * Before the first byte the delta stands at the end of its prompt, where a lone space would be a context that no
 * training text has. So it does not read its lead then; instead the first token's map goes by the bytes with the lead in
 * place: the host's "Paris" takes the logit of the delta's " Paris". Where the delta has no such token, the longest token
 * that begins that text stands for it, which is what a tokenizer would give first.
 *
 * *out is that map, made from m; NULL where the leads are the same. */
cmc_status lead_map_new(const cmc_map *m, const cmc_vocab *delta, const char *host_lead, const char *delta_lead,
                        cmc_map **out, cmc_error *err);
/* Appends bytes of the host's response to what the delta reads. The first ones, while *begun is false, settle the lead:
 * the host's is taken away where it is there, the delta's put in its place. A host that leaves its lead out is read as
 * it is. */
cmc_status lead_push(retok *rt, const char *host_lead, const char *delta_lead, bool *begun, const uint8_t *s, size_t n,
                     cmc_error *err);
#endif
