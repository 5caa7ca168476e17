/* A delta in training: itself, or an adapter or blocks on the one it goes on from. */
#include "tinylm/body.h"

#include <stdlib.h>
#include <string.h>

#include "base/mem.h"
#include "tinylm/lm_added.h"
#include "tinylm/lm_save.h"

cmc_status body_plan(cmc_runtime *rt, const cmc_train_opts *o, const params *p, body *out, cmc_error *err) {
    out->p = p;
    out->n = p->n;
    if (!added_any(o))
        return CMC_OK;
    CMC_TRY(cmc_model_open(rt, o->init_path, &out->start, err));
    CMC_TRY(added_layout(o, out->start, &out->expand, &out->align, &out->layout, err));
    out->p = lm_trained(&out->layout);
    out->n = out->p->n_trained;
    return CMC_OK;
}

size_t body_bytes(const body *b, int threads, size_t max_tokens, size_t max_seq) {
    return b->start ? lm_bytes(&b->layout, threads, max_tokens, max_seq) + cmc_model_bytes(b->start)
                    : net_bytes(b->p, threads, max_tokens, max_seq);
}

size_t body_weight_bytes(const body *b) {
    return (b->start ? b->layout.base.n + b->layout.lora.n + b->n : 2 * b->n) * sizeof(float);
}

cmc_status body_new(cmc_runtime *rt, const cmc_train_opts *o, size_t max_tokens, size_t max_seq, body *b, cmc_error *err) {
    if (!b->start) {
        CMC_TRY(net_new(rt, b->p, max_tokens, max_seq, &b->net, err));
        b->w = b->net.w;
        b->grad = b->net.grad;
        return CMC_OK;
    }
    CMC_TRY(lm_new(rt, &b->layout, max_tokens, max_seq, &b->lm, err));
    b->w = b->lm.trained;
    b->grad = b->lm.grad;
    added_start(o, b->start, &b->align, &b->lm);
    return CMC_OK;
}

void body_free(body *b) {
    net_free(&b->net);
    lm_free(&b->lm);
    lm_layout_free(&b->layout);
    expand_spec_free(&b->expand);
    cmc_model_free(b->start);
    memset(b, 0, sizeof *b);
}

/* ---------------------------------------------------------------------------------------------------- passes */

void body_forward(body *b, const net_batch *batch, double dropout, uint64_t drop_key) {
    if (b->start) {
        lm_forward(&b->lm, batch);
        return;
    }
    b->net.dropout = (float)dropout;
    b->net.drop_key = drop_key;
    net_forward(&b->net, batch);
}

void body_backward(body *b, const net_batch *batch, const float *dhidden) {
    if (b->start)
        lm_backward(&b->lm, batch, dhidden);
    else
        net_backward(&b->net, batch, dhidden);
}

net_out body_output(const body *b) {
    size_t at = b->layout.embd;
    if (!b->start)
        return net_output(&b->net);
    return (net_out){b->lm.hidden, b->lm.w + at, lm_is_full(&b->lm) && lm_learns(&b->lm, at) ? b->lm.grad + at : NULL};
}

void body_align_over(body *b, const cmc_train_opts *o, size_t tokens) {
    b->lm.align_weight = added_align_weight(o, &b->layout, tokens);
}

double body_align_loss(const body *b) {
    return b->start ? lm_align_loss(&b->lm) : 0.0;
}

/* ---------------------------------------------------------------------------------------------------- the file */

static bool body_has_blocks(const body *b) {
    return b->layout.n_blocks > 0;
}

size_t body_params(const body *b, const params *p) {
    return body_has_blocks(b) ? b->layout.base.n : p->n;
}

size_t body_save_bytes(const body *b, const params *p, uint32_t type) {
    if (body_has_blocks(b))
        return lm_save_expanded_bytes(&b->layout, type);
    return save_delta_bytes(p, type) + (b->start ? p->n * sizeof(float) : 0);
}

/* The start's weights with the adapter in them, laid out by p: every matrix takes up scale B A, B standing behind A. */
static void body_merge(const body *b, const params *p, const float *lora, float *w) {
    const params *l = &b->layout.lora;
    load_weights(b->start, p, w);
    for (size_t i = 0; i + 1 < l->n_tensors; i += 2) {
        const params_tensor *a = &l->tensors[i], *bt = &l->tensors[i + 1];
        const params_tensor *to = lm_find(p, a->name, strlen(a->name) - strlen(".lora_a"));
        blas_gemm(b->lm.blas, false, true, to->n_out, to->n_in, a->n_out, b->layout.scale, lora + bt->off, bt->n_in, lora + a->off, a->n_in,
                  1.0f, w + to->off, to->n_in);
    }
}

cmc_status body_save(const body *b, const char *path, const params *p, const float *w, uint32_t type, uint32_t n_ctx, const save_vocab *vocab,
                     const cmc_delta_info *info, cmc_error *err) {
    if (!b->start)
        return save_delta(path, p, w, type, n_ctx, vocab, info, err);
    if (body_has_blocks(b))
        return lm_save_expanded(path, &b->layout, b->start, &b->expand, b->lm.w, w, type, info, err);
    float *merged = cmc_alloc(p->n, sizeof *merged);
    if (!merged)
        return cmc_fail_nomem(err, "the delta with its adapter", p->n * sizeof *merged);
    body_merge(b, p, w, merged);
    cmc_status st = save_delta(path, p, merged, type, n_ctx, vocab, info, err);
    free(merged);
    return st;
}
