/* Expanded blocks (Control LLM, arXiv 2501.10979): copies of some of a model's layers that are trained while the model
 * stays as it is. A block stands beside its layer, is fed what the layer is fed, and their outputs are merged (concat); or
 * it stands behind the layer (stack). Where each stands, and how the outputs are merged. */
#ifndef CMC_RUNTIME_EXPAND_H
#define CMC_RUNTIME_EXPAND_H
#include "base/gguf.h"

#include "base/error.h"

#define EXPAND_MOST_STRENGTH 100.0   /* of the blocks: what their share is multiplied by */

typedef enum expand_kind { EXPAND_CONCAT = 0, EXPAND_STACK, EXPAND_HYBRID /* stack, concat, stack, ... */ } expand_kind;

/* With p the layer's output, e the block's and a its share: p + a (e - p). The share of lerp and slerp is one number, that
 * of dlerp goes by p and e and that of dlerpin by the layer's input x, token by token. */
typedef enum expand_merge { EXPAND_LERP = 0, EXPAND_DLERP, EXPAND_DLERPIN, EXPAND_SLERP } expand_merge;

typedef struct expand_gate {
    expand_merge merge;
    float f;             /* a = sigmoid(f); of dlerp sigmoid(w . [p, e] + f), of dlerpin sigmoid(w . x + f) */
    float *w;            /* [expand_gate_width], or NULL */
} expand_gate;

/* Floats of a gate's w for a model of that width: 0 where it has none. */
size_t expand_gate_width(expand_merge m, size_t n_embd);
/* In double, in the order of the elements. */
double expand_dot(const float *a, const float *b, size_t n);
/* The block's share of a token; x, p, e: [n], those that the merge does not go by may be NULL. */
float expand_share(const expand_gate *g, const float *x, const float *p, const float *e, size_t n);
/* p[n] becomes the two merged. A share of 1 gives e's very bits. slerp goes along the arc between p and e, whose lengths
 * are what they are: (sin((1-a)t) p + sin(a t) e) / sin t, t the angle; where that is next to 0 or to pi, as lerp. */
void expand_mix(expand_merge m, float a, float *p, const float *e, size_t n);

/* The angle of p and e; false where slerp does as lerp. The trainer's gradient goes by the same. */
typedef struct expand_arc { double dot, pp, ee, t; } expand_arc;
bool expand_arc_of(const float *p, const float *e, size_t n, expand_arc *out);

/* ------------------------------------------------------------------------------------------------ which blocks */

typedef struct expand_spec {
    expand_merge merge;
    cmc_expand_point *v; size_t n;  /* by layer, ascending; n 0: the model is not expanded */
} expand_spec;
void expand_spec_free(expand_spec *s);

const char *expand_kind_name(expand_kind k);       /* "concat", ... */
const char *expand_merge_name(expand_merge m);     /* "lerp", ... */
cmc_status expand_kind_parse(const char *name, expand_kind *out, cmc_error *err);
cmc_status expand_merge_parse(const char *name, expand_merge *out, cmc_error *err);
/* For the public; false where there are no blocks. */
bool expand_describe(const expand_spec *s, cmc_expand_info *out);

/* A block at the last layer of each group of n_layer / blocks, which must come out even. */
cmc_status expand_plan(expand_kind kind, expand_merge merge, int32_t blocks, int32_t n_layer, expand_spec *out,
                       cmc_error *err);
/* expand_keys.c: from a file's cmc.expand.* keys, checked against its layers; and into a file. */
cmc_status expand_read(const gguf *g, int32_t n_layer, expand_spec *out, cmc_error *err);
bool expand_write(gguf_writer *w, const expand_spec *s);
/* "blk.N.REST": N and REST; -1 for the name of a tensor outside of the layers. */
int32_t expand_layer_of(gguf_str name, gguf_str *rest);
/* Whether REST is that of a block's tensor, "cmc_expand.REST"; *rest becomes what its layer's is called. */
bool expand_is_block(gguf_str *rest);
/* True for the names of keys and tensors that make a model an expanded one: without them the file is its base. */
bool expand_owns(gguf_str name);
#endif
