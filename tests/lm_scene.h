/* What the tests of tuning a model's own weights share: a tiny model as something to train, a batch, and its loss. */
#ifndef CMC_TESTS_LM_SCENE_H
#define CMC_TESTS_LM_SCENE_H
#include "tests/tiny.h"
#include "tinylm/lm_loss.h"

enum { LM_SCENE_SEQS = 3, LM_SCENE_TOKENS = 5 + 9 + 80, LM_SCENE_TARGETS = 40 };   /* tokens and targets: at most */

typedef struct lm_scene {
    char *dir;
    cmc_runtime *rt;
    cmc_model *m;
    lm_layout l;
    lm_net n;
    lm_loss loss;
    int32_t ids[LM_SCENE_TOKENS], targets[LM_SCENE_TARGETS];
    size_t start[LM_SCENE_SEQS + 1], rows[LM_SCENE_TARGETS];
    net_batch b;                 /* of the above: sequences of 5, 9 and the other tokens; every one has some targets */
    float *dhidden;
} lm_scene;

/* The model alone. */
void lm_scene_model(lm_scene *s, const tiny_spec *spec, int threads, bool exact);
/* All the rest: what is trained of it, its weights as they are, and a batch of so many tokens and targets. */
void lm_scene_net(lm_scene *s, const lm_trainable *what, size_t n_tokens, size_t n_targets);
void lm_scene_close(lm_scene *s);

/* Mean NLL over the targets, without gradients; of an lm_scene. */
double lm_scene_loss(void *scene);
/* The same, with its gradient in n.grad. */
double lm_scene_grad(lm_scene *s);
#endif
