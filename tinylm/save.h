/* A trained delta as a GGUF file: a plain llama that any GGUF tool opens, with the cmc.* keys beside. */
#ifndef CMC_TINYLM_SAVE_H
#define CMC_TINYLM_SAVE_H
#include "runtime/model.h"
#include "tinylm/params.h"

/* "f32", "f16" or "q8_0"; CMC_E_ARG for another, or where the shape's rows are no multiple of the type's block. */
cmc_status save_type_parse(const char *name, const params_shape *s, uint32_t *type, cmc_error *err);
/* What save_delta takes beside the weights. */
size_t save_delta_bytes(const params *p, uint32_t type);
/* A vocabulary, and the file that its keys are copied from; where that is NULL they are written from the vocabulary
 * itself. */
typedef struct save_vocab { const cmc_vocab *v; const gguf *g; } save_vocab;
/* Puts general.name: the file's, without its ending. */
bool save_put_name(gguf_writer *g, const char *path);
/* Norms stay F32. */
cmc_status save_delta(const char *path, const params *p, const float *w, uint32_t type, uint32_t n_ctx,
                      const save_vocab *vocab, const cmc_delta_info *info, cmc_error *err);
/* Shape and weights of another delta of the same vocabulary. load_shape first; w is laid out by params_init. `cut`: of
 * its first so many layers, and its head, where it has one of its own, is left behind; 0: of all of it, with a tied
 * head. */
cmc_status load_shape(const cmc_model *m, const cmc_vocab *vocab, int32_t cut, params_shape *s, cmc_error *err);
void load_weights(const cmc_model *m, const params *p, float *w);
/* What the final norm's gain of a cut is to be scaled by so that its first logits are next to nothing. */
float load_quiet(const params *p, const float *w);
#endif
