/* What computes a delta while it is trained, and what of it the steps change: the delta itself, whole or in part (net.h), or an adapter or
 * blocks on the delta that it goes on from (lm_net.h). */
#ifndef CMC_TINYLM_BODY_H
#define CMC_TINYLM_BODY_H
#include "tinylm/lm_net.h"
#include "tinylm/save.h"

typedef struct body {
    const params *p;             /* tensors and counts of what the steps change */
    float *w, *grad; size_t n;   /* [n] each */
    net net;                     /* the delta itself */
    cmc_model *start;            /* or what is added to, open as long as the run; NULL: nothing is added */
    expand_spec expand;
    alignment align;
    lm_layout layout;
    lm_net lm;
} body;

/* What is trained of a delta laid out by `p`, which must outlive the body: with an adapter or blocks, of o->init_path. */
cmc_status body_plan(cmc_runtime *rt, const cmc_train_opts *o, const params *p, body *out, cmc_error *err);
/* Bytes that body_new takes for batches of so many tokens and sequences of so many; of them, the weights and their gradient. */
size_t body_bytes(const body *b, int threads, size_t max_tokens, size_t max_seq);
size_t body_weight_bytes(const body *b);
/* The weights are the caller's to fill; where something is added, they are there. */
cmc_status body_new(cmc_runtime *rt, const cmc_train_opts *o, size_t max_tokens, size_t max_seq, body *b, cmc_error *err);
void body_free(body *b);

/* As net_forward and net_backward. `dropout` is the delta's own, and `drop_key` decides it. */
void body_forward(body *b, const net_batch *batch, double dropout, uint64_t drop_key);
void body_backward(body *b, const net_batch *batch, const float *dhidden);
/* The output side of the last forward pass. */
net_out body_output(const body *b);
/* Where something is added: the steps that follow go through so many tokens, over which what holds blocks to their layers is a mean. */
void body_align_over(body *b, const cmc_train_opts *o, size_t tokens);
/* That loss of the last forward pass; 0 without blocks. */
double body_align_loss(const body *b);

/* Parameters of the delta that comes out. */
size_t body_params(const body *b, const params *p);
/* What body_save takes. */
size_t body_save_bytes(const body *b, const params *p, uint32_t type);
/* The delta with w[n] for what was trained: an adapter becomes part of its matrices, blocks stand beside the start's own tensors. */
cmc_status body_save(const body *b, const char *path, const params *p, const float *w, uint32_t type, uint32_t n_ctx, const save_vocab *vocab,
                     const cmc_delta_info *info, cmc_error *err);
#endif
