/* The output layer and the steered cross-entropy, a block of target rows against the whole vocabulary at a time.
 *
 * Where host and delta have the same vocabulary, the map is the identity, every token is mapped and no constant has to be
 * taken off, for softmax does not see it: the steered logits are host + alpha * delta, and the gradient for the delta's is
 * alpha * (softmax(steered) - onehot(target)) (loss.c). Otherwise the delta's logits go through the map and are centred,
 * and the gradient comes back the same way (loss_map.c). */
#ifndef CMC_TINYLM_LOSS_H
#define CMC_TINYLM_LOSS_H
#include "runtime/model.h"
#include "tinylm/net.h"
#include "tinylm/perturb.h"
#include "tokenmap/map.h"

enum { LOSS_MAX_ALPHAS = 32 };
/* A block's logits take about this much where memory is no matter: the gemms are large, and yet [tokens x vocabulary]
 * never exists. */
#define LOSS_BLOCK_BYTES ((size_t)96 << 20)

/* Another model: mixed into the host, or its teacher (mixer.h). */
typedef struct loss_mixer {
    cmc_model *model;
    const cmc_map *map;       /* from the host's tokens to its own */
    float *logits, *states;   /* [rows][its tokens], [rows][its width] */
} loss_mixer;

typedef struct loss {
    cmc_model *host;
    const cmc_map *map;       /* host to delta; NULL: the vocabularies are the same */
    cmc_pool *pool;
    const blas *blas;
    int nt;
    size_t n_vocab, n_delta;  /* tokens of the host and of the delta */
    size_t host_embd, embd;
    float *head;              /* the host's output matrix in float32, or NULL: cmc_model_logits decodes it each time */
    size_t rows;              /* target rows in a block */
    float *logits;            /* [rows][n_vocab]; scoring: first half of the rows host, second half delta */
    float *delta;             /* [rows][n_delta]: the delta's logits, then their gradient; with a map only */
    float *steered;           /* [nt][3 n_vocab]: a row, and scratch of the shift; with a map only */
    float *states;            /* [rows][host_embd] */
    float *dh_part;           /* [nt][rows][embd] */
    float *max;               /* [nt][rows * LOSS_MAX_ALPHAS] */
    double *sum;              /* likewise */
    float *at_target;         /* [rows][2] */
    float *arena;
    loss_mixer mixer;         /* model NULL: none */
} loss;

/* Target rows in a block whose logits take about `block` bytes: at least 2, and no more than help. */
size_t loss_block_rows(const cmc_model *host, const cmc_map *map, size_t block);
/* The host's output matrix is multiplied in integers: decoding it would only be slower. */
bool loss_integer_head(const cmc_model *host);
/* What loss_new takes, and of it what is written to by batches of at most `targets` rows. `map` is borrowed. With
 * `decode_head` the host's output matrix is kept as float32 (n_vocab * host_embd * 4 bytes): faster where there is room. */
size_t loss_bytes(const cmc_model *host, const cmc_map *map, size_t embd, int threads, bool decode_head, size_t block,
                  size_t targets);
cmc_status loss_new(cmc_model *host, const cmc_map *map, size_t embd, bool decode_head, size_t block, loss *out,
                    cmc_error *err);
/* What loss_mix_with takes for blocks of at most `rows`. It needs a map, be it the identity; both are borrowed. */
size_t loss_mixer_bytes(const cmc_model *model, size_t rows);
cmc_status loss_mix_with(loss *l, cmc_model *model, const cmc_map *map, cmc_error *err);
void loss_free(loss *l);

/* The loss of a target as a sum of parts; KL parts need a map, be it the identity. */
typedef struct loss_parts {
    float nll;                /* times weight[i], where there are weights */
    const float *weight;      /* [n_targets], or NULL: all 1. With weights the sum is that of the other parts alone: whoever
                                 weighs targets has their NLL */
    float kl_host;            /* KL(host || steered) */
    float kl_steered;         /* KL(steered || host) */
    float kl_teacher;         /* KL(teacher || steered), the teacher being the mixer, with the host's very tokens */
    const perturb *perturb;   /* [n_targets] what is done to the host first, in the KL parts too; NULL: nothing */
    const float *log_unigram; /* [n_vocab]; NULL: no mixture with it */
    const uint8_t *const *mixed;   /* [n_targets] packed states of the mixer; NULL: none there; as a whole: there is no mixer in it */
} loss_parts;

/* Adds the batch's summed parts to *sum, the gradient times `scale` to d.grad where the embedding is trained, and writes
 * dhidden[n_targets][embd]. */
cmc_status loss_train(loss *l, net_out d, const net_batch *b, const loss_parts *parts, float alpha, float scale,
                      float *dhidden, double *sum, cmc_error *err);
/* Adds the batch's summed NLL under each strength (0: the host alone) to nll[n_alphas], at most LOSS_MAX_ALPHAS. With
 * `each`, [n_targets][n_alphas], every target's is left there as well. */
cmc_status loss_score(loss *l, net_out d, const net_batch *b, const double *alphas, size_t n_alphas, double *nll,
                      double *each, cmc_error *err);
#endif
