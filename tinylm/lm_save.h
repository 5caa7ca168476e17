/* What tuning leaves behind: a whole model, or a LoRA adapter as llama.cpp reads it. */
#ifndef CMC_TINYLM_LM_SAVE_H
#define CMC_TINYLM_LM_SAVE_H
#include "tinylm/lm_layout.h"

/* The base's file with w[base.n_trained] in place of what was trained, matrices of that as `type`. The rest stays as it is
 * stored, byte for byte. */
cmc_status lm_save_model(const char *path, const lm_layout *l, const cmc_model *base, const float *w, uint32_t type,
                         cmc_error *err);
/* The base's file with expanded blocks: what is trained from trained[n_trained], the rest of the blocks from w[base.n], matrices of
 * both as `type`; the rest of the base as it is stored. Of a delta, `info` is what the file then says of itself; of another model NULL. */
cmc_status lm_save_expanded(const char *path, const lm_layout *l, const cmc_model *base, const expand_spec *spec, const float *w,
                            const float *trained, uint32_t type, const cmc_delta_info *info, cmc_error *err);
/* Bytes that their encoding takes meanwhile. */
size_t lm_save_expanded_bytes(const lm_layout *l, uint32_t type);
/* w[lora.n] as a GGUF adapter: F16 where `type` is, F32 otherwise (a row of B is shorter than any block). */
cmc_status lm_save_lora(const char *path, const lm_layout *l, const cmc_model *base, double alpha, const float *w,
                        uint32_t type, cmc_error *err);
#endif
