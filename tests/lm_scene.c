/* The scene of the tests of tuning a model's own weights. */
#include "tests/lm_scene.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

#include "base/mem.h"

void lm_scene_model(lm_scene *s, const tiny_spec *spec, int threads, bool exact) {
    cmc_error err = {0};
    cmc_runtime_opts ro = {.threads = threads, .exact = exact};
    memset(s, 0, sizeof *s);
    s->dir = tiny_dir_new();
    const char *path = tiny_path(s->dir, "model.gguf");
    assert_int_equal(tiny_write(spec, path, &err), CMC_OK);
    assert_int_equal(cmc_runtime_open(&ro, &s->rt, &err), CMC_OK);
    if (cmc_model_open(s->rt, path, &s->m, &err) != CMC_OK)
        fail_msg("%s", err.message);
}

static void lm_scene_batch(lm_scene *s, size_t n_tokens, size_t n_targets) {
    const size_t start[LM_SCENE_SEQS + 1] = {0, 5, 14, n_tokens};
    uint64_t rng = 7, n_vocab = (uint64_t)s->l.p.n_vocab;
    assert_true(n_tokens <= LM_SCENE_TOKENS && n_targets <= LM_SCENE_TARGETS);
    memcpy(s->start, start, sizeof start);
    for (size_t i = 0; i < n_tokens; i++)
        s->ids[i] = (int32_t)(params_random(&rng) % n_vocab);
    for (size_t i = 0; i < n_targets; i++) {
        s->rows[i] = i * (n_tokens - 1) / (n_targets - 1); /* ascending, every sequence has some, the last token too */
        s->targets[i] = (int32_t)(params_random(&rng) % n_vocab);
    }
    s->b = (net_batch){.ids = s->ids, .start = s->start, .rows = s->rows, .targets = s->targets, .n_tokens = n_tokens,
                       .n_seqs = LM_SCENE_SEQS, .n_targets = n_targets};
}

void lm_scene_net(lm_scene *s, const lm_trainable *what, size_t n_tokens, size_t n_targets) {
    cmc_error err = {0};
    if (lm_layout_init(s->m, what, &s->l, &err) != CMC_OK)
        fail_msg("%s", err.message);
    assert_int_equal(lm_new(s->rt, &s->l, n_tokens, n_tokens, &s->n, &err), CMC_OK);
    assert_int_equal(lm_loss_new(s->rt, &s->l.p, &s->loss, &err), CMC_OK);
    s->dhidden = cmc_alloc(n_targets * (size_t)s->l.p.n_embd, sizeof *s->dhidden);
    lm_load(&s->l, s->m, s->n.w);
    lm_scene_batch(s, n_tokens, n_targets);
}

void lm_scene_close(lm_scene *s) {
    free(s->dhidden);
    lm_loss_free(&s->loss);
    lm_free(&s->n);
    lm_layout_free(&s->l);
    cmc_model_free(s->m);
    cmc_runtime_free(s->rt);
    tiny_dir_free(s->dir);
}

double lm_scene_loss(void *scene) {
    lm_scene *s = scene;
    double nll = 0.0;
    lm_forward(&s->n, &s->b);
    lm_loss_score(&s->loss, &s->n, &s->b, &nll, NULL);
    return nll / (double)s->b.n_targets;
}

double lm_scene_grad(lm_scene *s) {
    double nll = 0.0;
    memset(s->n.grad, 0, lm_trained(&s->l)->n_trained * sizeof(float));
    lm_forward(&s->n, &s->b);
    lm_loss_train(&s->loss, &s->n, &s->b, NULL, 1.0f / (float)s->b.n_targets, s->dhidden, &nll);
    lm_backward(&s->n, &s->b, s->dhidden);
    return nll / (double)s->b.n_targets;
}
