/* Writing a whole model: another one's keys and tokenizer, with weights of the caller's. */
#ifndef CMC_RUNTIME_MODEL_SAVE_H
#define CMC_RUNTIME_MODEL_SAVE_H
#include "runtime/model.h"

/* What the new file's weights are, tensor by tensor of the model's. */
typedef struct model_source {
    /* Fills out[n][t->ne[0]] with rows [row, row + n) of what tensor t becomes. */
    void (*rows)(void *user, const gguf_tensor *t, size_t row, size_t n, float *out);
    bool (*keeps)(void *user, const gguf_tensor *t);   /* it is copied as it is stored; NULL: none is */
    void *user;
    /* Its name in the new file, which then is no expanded model's; false: it is left out, or the name does not fit. NULL: all
     * keep theirs. */
    bool (*name)(void *user, const gguf_tensor *t, char *name, size_t size);
    int32_t more_layers;     /* than the model has */
} model_source;

/* "f32", "f16" or "q8_0"; CMC_E_ARG for another. */
cmc_status model_save_type(const char *name, uint32_t *type, cmc_error *err);
/* Bytes that the matrices take while they are written, at most. */
uint64_t model_save_bytes(const cmc_model *m, uint32_t type);
/* The widest row of its tensors. */
size_t model_save_widest(const cmc_model *m);
cmc_status model_save(const cmc_model *m, const char *path, uint32_t type, const model_source *from, cmc_error *err);
#endif
