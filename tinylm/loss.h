/* The output layer and the steered cross-entropy, a block of target rows against the whole vocabulary at a time.
 *
 * A logit of the steered model is host + alpha * delta. Host and delta have the same vocabulary, so the map is the
 * identity, every token is mapped and no constant has to be taken off: softmax does not see it. The gradient for the
 * delta's logits is then alpha * (softmax(steered) - onehot(target)). */
#ifndef CMC_TINYLM_LOSS_H
#define CMC_TINYLM_LOSS_H
#include "runtime/model.h"
#include "tinylm/net.h"

enum { LOSS_MAX_ALPHAS = 32 };

typedef struct loss {
    cmc_model *host;
    cmc_pool *pool;
    const blas *blas;
    int nt;
    size_t n_vocab, host_embd, embd;
    float *head;              /* the host's output matrix in float32, or NULL: cmc_model_logits decodes it each time */
    size_t rows;              /* target rows in a block */
    float *logits;            /* [rows][n_vocab]; scoring: first half of the rows host, second half delta */
    float *states;            /* [rows][host_embd] */
    float *dh_part;           /* [nt][rows][embd] */
    float *max;               /* [nt][rows * LOSS_MAX_ALPHAS] */
    double *sum;              /* likewise */
    float *at_target;         /* [rows][2] */
    float *arena;
} loss;

/* With `decode_head` the host's output matrix is kept as float32 (n_vocab * host_embd * 4 bytes): faster where there is
 * room for it. */
size_t loss_bytes(const cmc_model *host, size_t embd, int threads, bool decode_head);
cmc_status loss_new(cmc_model *host, size_t embd, bool decode_head, loss *out, cmc_error *err);
void loss_free(loss *l);

/* Adds the batch's summed NLL to *nll, its gradient times `scale` to the embedding's part of n->grad, and writes
 * dhidden[n_targets][embd]. n->hidden must hold the batch's forward pass. */
cmc_status loss_train(loss *l, net *n, const net_batch *b, float alpha, float scale, float *dhidden, double *nll,
                      cmc_error *err);
/* Adds the batch's summed NLL under each strength (0: the host alone) to nll[n_alphas], at most LOSS_MAX_ALPHAS. */
cmc_status loss_score(loss *l, const net *n, const net_batch *b, const double *alphas, size_t n_alphas, double *nll,
                      cmc_error *err);
#endif
