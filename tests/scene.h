/* What the tests of the trainer's arithmetic share: a tiny host, a delta's net, perhaps a map between them, a batch,
 * and the loss of it. */
#ifndef CMC_TESTS_SCENE_H
#define CMC_TESTS_SCENE_H
#include "tinylm/hostcache.h"
#include "tinylm/loss.h"

enum { SCENE_SEQS = 3, SCENE_TOKENS = 84, SCENE_ROWS = 40, SCENE_EMBD = 16 };   /* at most */

typedef struct scene {
    char *dir;
    cmc_runtime *rt;
    cmc_model *host;
    cmc_map *map;
    params p;
    net n;
    loss l;
    int32_t ids[SCENE_TOKENS], targets[SCENE_ROWS];
    size_t start[SCENE_SEQS + 1], rows[SCENE_ROWS];
    uint8_t *packed;
    const uint8_t *hrow[SCENE_ROWS];
    net_batch b;                 /* of the above */
    float dhidden[SCENE_ROWS * SCENE_EMBD];
} scene;

/* The host alone, n_embd wide; 0: as tiny models are. */
void scene_open(scene *s, int threads, bool exact, int32_t n_embd);
/* s->map from the host to n_delta tokens: to(i, user) for each. */
void scene_map(scene *s, int32_t n_delta, int32_t (*to)(int32_t i, void *user), void *user);
/* The net, for sequences and batches of `tokens`, and the loss, through s->map where `mapped`. Heads are 4 wide. The
 * weights are the caller's to fill. */
void scene_net(scene *s, params_shape shape, size_t tokens, bool mapped, bool decode_head);
/* Large weights, norms off 1: every term of the gradient matters. */
void scene_weights(scene *s);
/* The host's state of a row, as it is packed. */
void scene_state(scene *s, size_t row, const float *x);
void scene_state_random(scene *s, size_t row, uint64_t *rng);
/* One sequence of n tokens, each of them with a target and a state at random, and its batch. */
void scene_random(scene *s, size_t n, uint64_t seed);
/* The delta's logits of target i after net_forward, summed in double: d[n_vocab of the delta]. */
void scene_delta_logits(const scene *s, size_t i, float *d);
/* s->b, from what lies beside it; s->start is filled. */
void scene_batch(scene *s, size_t n_seqs, size_t n_targets);
void scene_close(scene *s);

/* Mean NLL over the batch's targets, without gradients. */
double scene_loss(scene *s, double alpha);
/* The same, with its gradient in s->n.grad. */
double scene_grad(scene *s, float alpha);
#endif
