/* The merge of a layer's output with that of the block beside it (runtime/expand.h) as something to train, and the loss that
 * holds the two together; a token at a time. */
#ifndef CMC_TINYLM_LM_MERGE_H
#define CMC_TINYLM_LM_MERGE_H
#include "runtime/expand.h"

/* How far the block's output e is from the layer's, p (arXiv 2501.10979): the mean square of e - p; the same over that of p,
 * so that it means the same in a small model and a large one; or u = 1 - cos(p, e), smoothed: u^2 / 2, from 1 on u - 1/2. */
typedef enum align_kind { ALIGN_NONE = 0, ALIGN_MSE, ALIGN_RELATIVE, ALIGN_COSINE } align_kind;

typedef struct alignment {
    align_kind kind;
    bool by_share;       /* times the block's share of the token */
    bool through;        /* p learns from it too: it trains earlier blocks; otherwise it only teaches */
} alignment;

cmc_status align_parse(const char *name, align_kind *out, cmc_error *err);
/* Of one token, without the share. */
double align_distance(align_kind kind, const float *p, const float *e, size_t n);

/* From `dout`, the gradient of what was merged with the share a, those of p and e; `weight` is the alignment's in the loss.
 * Gives that of the number whose sigmoid the share is. What p and e have a part in the share by is in it too. */
float merge_back(const expand_gate *g, float a, const float *p, const float *e, const float *dout, const alignment *al, double weight,
                 float *dp, float *de, size_t n);
#endif
