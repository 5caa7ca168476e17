/* Binding a model's tensors. */
#ifndef CMC_RUNTIME_MODEL_WEIGHTS_H
#define CMC_RUNTIME_MODEL_WEIGHTS_H
#include "runtime/load.h"

/* Fills layers, extra, embd, head, out_norm, rope_factors and p.n_vocab from m->parts and m->expand. On failure what is there is left for
 * model_weights_free. */
cmc_status model_weights_bind(cmc_model *m, cmc_error *err);
void model_weights_free(cmc_model *m);
#endif
