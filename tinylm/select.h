/* Which tensors of a model a run trains: some of its layers, and in them some kinds of matrices. What is not trained has no
 * gradient, no moments and no decay, and is the same afterwards. */
#ifndef CMC_TINYLM_SELECT_H
#define CMC_TINYLM_SELECT_H
#include "tinylm/params.h"

/* The kinds that can be named. The first seven are a layer's matrices, with their biases; norms are a layer's; embeddings and
 * output (its norm, and the matrix where that is not the embedding) stand outside of the layers. */
enum {
    SELECT_Q, SELECT_K, SELECT_V, SELECT_O, SELECT_GATE, SELECT_UP, SELECT_DOWN, SELECT_NORMS, SELECT_EMBEDDINGS,
    SELECT_OUTPUT, SELECT_MODULES, SELECT_MATRICES = SELECT_DOWN + 1
};

typedef struct selection {
    uint32_t modules;        /* bit SELECT_... */
    uint8_t *layers;         /* [n_layer] 1: its modules are trained */
    int32_t n_layer;
} selection;

/* Sets a bit for each name of a list "q,up,norms" that is among the first `n` kinds; another name is no `what`. */
cmc_status select_names(const char *list, size_t n, const char *what, uint32_t *bits, cmc_error *err);
/* layers: "A-B%" (those whose end lies above A % and not above B % of the depth: layers [A n / 100, B n / 100), rounded down),
 * or indices and ranges from 0 on, "0,2,4-6"; NULL: all. modules: a list of names; NULL: all of a layer's, and what stands
 * outside of the layers too where `layers` is NULL. `tied`: the output matrix is the embedding, and is trained where either
 * is named. */
cmc_status select_parse(const char *layers, const char *modules, int32_t n_layer, bool tied, selection *out, cmc_error *err);
void select_free(selection *s);
/* A line for a checkpoint's settings, empty where nothing was chosen; the caller's to free, NULL where memory is out. */
char *select_setting(const char *layers, const char *modules);
/* Whether the tensor of that name, as GGUF files have it, is among them. */
bool select_has(const selection *s, const char *name);

/* The parts of a model in the order of its forward pass: 0 the embedding, 1 + 2 i layer i's attention, 2 + 2 i its
 * feed-forward part, 1 + 2 n_layer what follows. The lowest with a tensor that is trained: nothing need be propagated back
 * below it. `p` must have one. */
size_t select_lowest(const params *p, int32_t n_layer);
/* Marks a delta's tensors; their places stay, so that what is frozen lies among what is trained. */
void select_apply(const selection *s, params *p);
#endif
