/* Steps of opening a model that file_info.c shares: split files, hyperparameters, the content hash. */
#ifndef CMC_RUNTIME_LOAD_H
#define CMC_RUNTIME_LOAD_H
#include "runtime/model.h"

/* Opens a GGUF file and, where it is one part of a split model, all the others, in order. Frees nothing of the caller's;
 * *parts is the caller's, to be freed with load_parts_free. */
cmc_status load_parts(const char *path, gguf ***parts, size_t *n_parts, cmc_error *err);
void load_parts_free(gguf **parts, size_t n_parts);

/* The architecture's name ("llama"), checked to be one that is served. */
cmc_status load_arch(const gguf *g, model_arch *out, cmc_error *err);
const char *load_arch_name(model_arch arch);
/* Everything of model_params but n_vocab, which the embeddings' shape gives. */
cmc_status load_params(const gguf *g, model_params *out, cmc_error *err);

/* 32 hex digits over each part's header and samples of its tensors. */
cmc_status load_hash(gguf *const *parts, size_t n_parts, char out[40], cmc_error *err);

/* A tensor by name in any part; *part where it was found. NULL if it is in none. */
const gguf_tensor *load_find(gguf *const *parts, size_t n_parts, const char *name, size_t *part);
/* A copy of a GGUF string as a C string; NUL bytes in it end it. NULL: no memory. */
char *load_strdup(gguf_str s);
#endif
