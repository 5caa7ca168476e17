/* An adapter or blocks as options of a run, of a model that is tuned or of a delta that goes on: checks, the layout, the start, and what a
 * checkpoint says of them. */
#ifndef CMC_TINYLM_LM_ADDED_H
#define CMC_TINYLM_LM_ADDED_H
#include "tinylm/lm_net.h"

static const double ADDED_LORA_LR = 5e-4;   /* an adapter's rate where none is given */
/* Whether there is either; at most one is. */
static inline bool added_any(const cmc_train_opts *o) { return o->lora_rank != 0 || o->expand.kind; }
/* Fills in an adapter's alpha; refuses what keeps weights near a start that is not what is trained. */
cmc_status added_check(cmc_train_opts *o, cmc_error *err);
/* What is trained of `m`, itself where nothing is added: blocks with what holds them to their layers, and the layout. On failure the
 * caller frees what there is. */
cmc_status added_layout(const cmc_train_opts *o, const cmc_model *m, expand_spec *spec, alignment *align, lm_layout *l, cmc_error *err);
/* The weights that steps begin with: the model's, an adapter's or blocks' start. */
void added_start(const cmc_train_opts *o, const cmc_model *m, const alignment *align, lm_net *n);
/* The weight of a token's distance at a merge, in the loss of a step that goes through so many tokens. */
double added_align_weight(const cmc_train_opts *o, const lm_layout *l, size_t tokens);
/* With o->keep.wise_ft, the trained w[n_trained] on the line from its start: of an adapter, whose product of two factors goes along it, one
 * factor does. */
void added_on_line(const cmc_train_opts *o, const lm_layout *l, const float *start, float *w);
/* A checkpoint's line of blocks, "" without any. */
enum { ADDED_SETTING = 200 };
void added_expand_setting(const cmc_expand_opts *x, char out[ADDED_SETTING]);
#endif
