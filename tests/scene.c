/* The scene of the tests of the trainer's arithmetic. */
#include "tests/scene.h"

#include "tests/slope.h"
#include "tests/tiny.h"

void scene_open(scene *s, int threads, bool exact, int32_t n_embd) {
    cmc_error err = {0};
    cmc_runtime_opts ro = {.threads = threads, .exact = exact};
    tiny_spec spec = {.arch = "llama", .type = CMC_F32, .n_embd = n_embd, .seed = 3};
    memset(s, 0, sizeof *s);
    s->dir = tiny_dir_new();
    const char *path = tiny_path(s->dir, "host.gguf");
    assert_int_equal(tiny_write(&spec, path, &err), CMC_OK);
    assert_int_equal(cmc_runtime_open(&ro, &s->rt, &err), CMC_OK);
    if (cmc_model_open(s->rt, path, &s->host, &err) != CMC_OK)
        fail_msg("%s", err.message);
    s->packed = cmc_alloc(SCENE_ROWS, hostcache_row_bytes((size_t)cmc_model_n_embd(s->host)));
    assert_non_null(s->packed);
}

void scene_map(scene *s, int32_t n_delta, int32_t (*to)(int32_t i, void *user), void *user) {
    cmc_error err = {0};
    int32_t n_host = cmc_model_n_vocab(s->host);
    assert_int_equal(map_new(n_host, n_delta, &s->map, &err), CMC_OK);
    for (int32_t i = 0; i < n_host; i++)
        map_set(s->map, i, to(i, user), CMC_HOW_EXACT, 0);
    map_finish(s->map);
}

void scene_net(scene *s, params_shape shape, size_t tokens, bool mapped, bool decode_head) {
    cmc_error err = {0};
    shape.head_dim = 4;
    shape.rms_eps = 1e-5f;
    shape.rope_base = 10000.0f;
    assert_true(tokens <= SCENE_TOKENS && shape.n_embd <= SCENE_EMBD);
    assert_int_equal(params_init(&s->p, &shape, &err), CMC_OK);
    assert_int_equal(net_new(s->rt, &s->p, tokens, tokens, &s->n, &err), CMC_OK);
    const cmc_map *map = mapped ? s->map : NULL;
    assert_int_equal(loss_new(s->host, map, (size_t)shape.n_embd, decode_head, LOSS_BLOCK_BYTES, &s->l, &err), CMC_OK);
}

void scene_weights(scene *s) {
    uint64_t rng = 11;
    for (size_t i = 0; i < s->p.n; i++)
        s->n.w[i] = (float)(0.8 * (uniform(&rng) - 0.5));
    for (size_t i = 0; i < s->p.n_tensors; i++)
        for (size_t j = 0; !s->p.tensors[i].matrix && j < s->p.tensors[i].n_in; j++)
            s->n.w[s->p.tensors[i].off + j] += 1.0f;
}

void scene_state(scene *s, size_t row, const float *x) {
    size_t he = (size_t)cmc_model_n_embd(s->host);
    uint8_t *to = s->packed + row * hostcache_row_bytes(he);
    hostcache_pack(x, to, he);
    s->hrow[row] = to;
}

void scene_state_random(scene *s, size_t row, uint64_t *rng) {
    size_t he = (size_t)cmc_model_n_embd(s->host);
    float *x = cmc_alloc(he, sizeof *x);
    assert_non_null(x);
    for (size_t c = 0; c < he; c++)
        x[c] = (float)(2.0 * uniform(rng) - 1.0);
    scene_state(s, row, x);
    free(x);
}

void scene_batch(scene *s, size_t n_seqs, size_t n_targets) {
    assert_true(n_seqs <= SCENE_SEQS && n_targets <= SCENE_ROWS);
    s->b = (net_batch){.ids = s->ids, .start = s->start, .rows = s->rows, .targets = s->targets, .host = s->hrow,
                       .n_tokens = s->start[n_seqs], .n_seqs = n_seqs, .n_targets = n_targets};
}

void scene_random(scene *s, size_t n, uint64_t seed) {
    uint64_t rng = seed, n_delta = (uint64_t)s->p.s.n_vocab, n_host = (uint64_t)cmc_model_n_vocab(s->host);
    for (size_t i = 0; i < n; i++) {
        s->rows[i] = i;
        s->ids[i] = (int32_t)(params_random(&rng) % n_delta);
        s->targets[i] = (int32_t)(params_random(&rng) % n_host);
        scene_state_random(s, i, &rng);
    }
    s->start[1] = n;
    scene_batch(s, 1, n);
}

void scene_delta_logits(const scene *s, size_t i, float *d) {
    size_t e = (size_t)s->p.s.n_embd;
    for (size_t j = 0; j < (size_t)s->p.s.n_vocab; j++) {
        double x = 0.0;
        for (size_t c = 0; c < e; c++)
            x += (double)s->n.hidden[i * e + c] * (double)s->n.w[s->p.embd + j * e + c];
        d[j] = (float)x;
    }
}

void scene_close(scene *s) {
    free(s->packed);
    loss_free(&s->l);
    net_free(&s->n);
    params_free(&s->p);
    cmc_map_free(s->map);
    cmc_model_free(s->host);
    cmc_runtime_free(s->rt);
    tiny_dir_free(s->dir);
}

double scene_loss(scene *s, double alpha) {
    double nll = 0.0;
    cmc_error err = {0};
    net_forward(&s->n, &s->b);
    assert_int_equal(loss_score(&s->l, net_output(&s->n), &s->b, &alpha, 1, &nll, NULL, &err), CMC_OK);
    return nll / (double)s->b.n_targets;
}

double scene_grad(scene *s, float alpha) {
    static const loss_parts nll_alone = {.nll = 1.0f};
    float scale = 1.0f / (float)s->b.n_targets;
    double nll = 0.0;
    cmc_error err = {0};
    memset(s->n.grad, 0, s->p.n * sizeof(float));
    net_forward(&s->n, &s->b);
    assert_int_equal(loss_train(&s->l, net_output(&s->n), &s->b, &nll_alone, alpha, scale, s->dhidden, &nll, &err), CMC_OK);
    net_backward(&s->n, &s->b, s->dhidden);
    return nll / (double)s->b.n_targets;
}
