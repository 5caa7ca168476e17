/* The losses against PyTorch's autograd: values and gradients that bench/objectives_torch.py wrote. */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

#include "base/mem.h"
#include "tests/tiny.h"
#include "tinylm/hostcache.h"
#include "tinylm/loss.h"
#include "tinylm/objective.h"

#include "tests/data/objectives.h"

enum { N_HOST = 545, WIDTH = 64, N_DELTA = 8, ROWS = 3 };

/* A net of which only the output layer is used: its embedding is the identity, so that hidden states are the delta's logits and
 * their gradient is the logits'. The host's output matrix shows its state as the first logits. */
typedef struct scene {
    char *dir;
    cmc_runtime *rt;
    cmc_model *host;
    cmc_map *map;
    params p;
    net n;
    loss l;
    uint8_t *packed;
    const uint8_t *rows[ROWS];
} scene;

static void scene_host(scene *s) {
    float state[WIDTH];
    size_t bytes = hostcache_row_bytes(WIDTH);
    memset(s->l.head, 0, (size_t)N_HOST * WIDTH * sizeof(float));
    for (size_t i = 0; i < WIDTH; i++)
        s->l.head[i * WIDTH + i] = 1.0f;
    s->packed = cmc_alloc(ROWS, bytes);
    assert_non_null(s->packed);
    for (int r = 0; r < ROWS; r++) {
        for (int i = 0; i < WIDTH; i++)
            state[i] = (float)((i * 37 + r * 11) % 129 - 64) / 64.0f * 3.0f;
        hostcache_pack(state, s->packed + (size_t)r * bytes, WIDTH);
        s->rows[r] = s->packed + (size_t)r * bytes;
    }
}

static void scene_open(scene *s, int threads) {
    cmc_error err = {0};
    cmc_runtime_opts ro = {.threads = threads, .exact = true};
    tiny_spec spec = {.arch = "llama", .type = CMC_F32, .n_embd = WIDTH, .seed = 3};
    memset(s, 0, sizeof *s);
    s->dir = tiny_dir_new();
    const char *path = tiny_path(s->dir, "host.gguf");
    assert_int_equal(tiny_write(&spec, path, &err), CMC_OK);
    assert_int_equal(cmc_runtime_open(&ro, &s->rt, &err), CMC_OK);
    assert_int_equal(cmc_model_open(s->rt, path, &s->host, &err), CMC_OK);
    assert_int_equal(cmc_model_n_vocab(s->host), N_HOST);
    assert_int_equal(map_new(N_HOST, N_DELTA, &s->map, &err), CMC_OK);
    for (int32_t i = 0; i < N_HOST; i++)
        map_set(s->map, i, (i * 7 + 3) % 10 < N_DELTA ? (i * 7 + 3) % 10 : -1, CMC_HOW_EXACT, 0);
    map_finish(s->map);
    params_shape shape = {.n_vocab = N_DELTA, .n_embd = N_DELTA, .n_layer = 1, .n_head = 2, .n_head_kv = 2, .head_dim = 4,
                          .n_ff = 8, .rms_eps = 1e-5f, .rope_base = 10000.0f};
    assert_int_equal(params_init(&s->p, &shape, &err), CMC_OK);
    assert_int_equal(net_new(s->rt, &s->p, ROWS, ROWS, &s->n, &err), CMC_OK);
    assert_int_equal(loss_new(s->host, s->map, N_DELTA, true, LOSS_BLOCK_BYTES, &s->l, &err), CMC_OK);
    for (size_t j = 0; j < N_DELTA; j++)
        for (size_t c = 0; c < N_DELTA; c++)
            s->n.w[s->p.embd + j * N_DELTA + c] = j == c ? 1.0f : 0.0f;
    for (int r = 0; r < ROWS; r++)
        for (int j = 0; j < N_DELTA; j++)
            s->n.hidden[r * N_DELTA + j] = (float)((j * 5 + r * 3) % 17 - 8) / 4.0f;
    scene_host(s);
}

static void scene_close(scene *s) {
    free(s->packed);
    loss_free(&s->l);
    net_free(&s->n);
    params_free(&s->p);
    cmc_map_free(s->map);
    cmc_model_free(s->host);
    cmc_runtime_free(s->rt);
    tiny_dir_free(s->dir);
}

static void check_part(scene *s, size_t k) {
    static const size_t start[] = {0, ROWS}, rows[] = {0, 1, 2};
    static const int32_t ids[ROWS];
    float dhidden[ROWS * N_DELTA];
    double sum = 0.0;
    cmc_error err = {0};
    const char *part = torch_parts[k].part;
    net_batch b = {.ids = ids, .start = start, .rows = rows, .targets = torch_targets, .host = s->rows, .n_tokens = ROWS,
                   .n_seqs = 1, .n_targets = ROWS};
    loss_parts parts = {.nll = strcmp(part, "nll") == 0, .kl_host = strcmp(part, "kl_host") == 0,
                        .kl_steered = strcmp(part, "kl_steered") == 0};
    assert_int_equal(loss_train(&s->l, &s->n, &b, &parts, 0.8f, 1.0f, dhidden, &sum, &err), CMC_OK);
    if (!(fabs(sum - torch_parts[k].loss) < 2e-5))
        fail_msg("%s: %.9g, PyTorch has %.9g", part, sum, torch_parts[k].loss);
    for (int r = 0; r < ROWS; r++) {
        for (int j = 0; j < N_DELTA; j++) {
            double got = (double)dhidden[r * N_DELTA + j], want = torch_parts[k].gradient[r][j];
            if (!(fabs(got - want) < 2e-6))
                fail_msg("%s: gradient of row %d, token %d is %.9g, PyTorch has %.9g", part, r, j, got, want);
        }
    }
}

static void test_parts(void **state) {
    (void)state;
    for (int threads = 1; threads <= 2; threads++) {
        scene s;
        scene_open(&s, threads);
        for (size_t k = 0; k < sizeof torch_parts / sizeof *torch_parts; k++)
            check_part(&s, k);
        scene_close(&s);
    }
}

static void test_records(void **state) {
    (void)state;
    for (size_t i = 0; i < sizeof torch_records / sizeof *torch_records; i++) {
        objective o;
        cmc_error err = {0};
        double dr, drefusal;
        assert_int_equal(objective_parse(torch_records[i].name, NULL, &o, &err), CMC_OK);
        o.beta = torch_records[i].beta;
        o.gamma = torch_records[i].gamma;
        double got = objective_record(&o, &torch_records[i].r, &torch_records[i].refusal, &dr, &drefusal);
        assert_true(fabs(got - torch_records[i].loss) <= 1e-12 * (1.0 + fabs(got)));
        assert_true(fabs(dr - torch_records[i].dr) <= 1e-12 && fabs(drefusal - torch_records[i].drefusal) <= 1e-12);
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_parts), cmocka_unit_test(test_records)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
