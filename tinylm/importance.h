/* How much the units of a model's layers matter to what it says, from gates of 1 on them (CoFiTune, arXiv 2404.10306, after
 * DAS, arXiv 2302.03241): attention heads, units of the feed-forward part (a row of up each), and the channels that down
 * writes (a row of down each). As a file: a GGUF with a vector a layer and kind. */
#ifndef CMC_TINYLM_IMPORTANCE_H
#define CMC_TINYLM_IMPORTANCE_H
#include "runtime/model.h"

enum { IMPORTANCE_HEADS, IMPORTANCE_UP, IMPORTANCE_DOWN, IMPORTANCE_KINDS };

/* Widths of the kinds, and where a layer's vectors lie among a model's: layer by layer, kind by kind. */
typedef struct importance_shape {
    size_t n_layer, width[IMPORTANCE_KINDS], per_layer;
} importance_shape;

static inline importance_shape importance_shape_of(const model_params *p) {
    importance_shape s = {.n_layer = (size_t)p->n_layer};
    s.width[IMPORTANCE_HEADS] = (size_t)p->n_head;
    s.width[IMPORTANCE_UP] = (size_t)p->n_ff;
    s.width[IMPORTANCE_DOWN] = (size_t)p->n_embd;
    s.per_layer = s.width[IMPORTANCE_HEADS] + s.width[IMPORTANCE_UP] + s.width[IMPORTANCE_DOWN];
    return s;
}
static inline size_t importance_at(const importance_shape *s, size_t layer, size_t kind) {
    size_t at = layer * s->per_layer;
    for (size_t k = 0; k < kind; k++)
        at += s->width[k];
    return at;
}

/* importance_file.c: v[n_layer * per_layer]. `how` says where it comes from, and is stored beside it. */
typedef struct importance_how {
    const char *model_hash, *data_hash;
    bool absolute;
    double dropout;
    uint64_t seed, sequences, tokens;
} importance_how;
cmc_status importance_save(const char *path, const importance_shape *s, const importance_how *how, const float *v,
                           cmc_error *err);
/* Refuses a file that is not for a model of this shape. hash: of its values. */
cmc_status importance_load(const char *path, const importance_shape *s, float *v, char hash[40], cmc_error *err);
#endif
