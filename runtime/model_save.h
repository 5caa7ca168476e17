/* Writing a whole model: another one's keys and tokenizer, with weights of the caller's. */
#ifndef CMC_RUNTIME_MODEL_SAVE_H
#define CMC_RUNTIME_MODEL_SAVE_H
#include "runtime/model.h"

/* Fills out[n][t->ne[0]] with rows [row, row + n) of what tensor t of the model becomes. */
typedef void (*model_save_rows)(void *user, const gguf_tensor *t, size_t row, size_t n, float *out);

/* "f32", "f16" or "q8_0"; CMC_E_ARG for another. */
cmc_status model_save_type(const char *name, uint32_t *type, cmc_error *err);
/* Bytes that the matrices take while they are written. */
uint64_t model_save_bytes(const cmc_model *m, uint32_t type);
cmc_status model_save(const cmc_model *m, const char *path, uint32_t type, model_save_rows rows, void *user,
                      cmc_error *err);
#endif
