/* The losses against PyTorch's autograd: values and gradients that bench/objectives_torch.py wrote. */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

#include "tests/scene.h"
#include "tinylm/objective.h"

#include "tests/data/objectives.h"

enum { N_HOST = 545, WIDTH = 64, N_DELTA = 8, ROWS = 3 };

static int32_t map_to(int32_t i, void *user) {
    (void)user;
    return (i * 7 + 3) % 10 < N_DELTA ? (i * 7 + 3) % 10 : -1;
}

/* The host's output matrix shows its state as the first logits. */
static void torch_host(scene *s) {
    float state[WIDTH];
    memset(s->l.head, 0, (size_t)N_HOST * WIDTH * sizeof(float));
    for (size_t i = 0; i < WIDTH; i++)
        s->l.head[i * WIDTH + i] = 1.0f;
    for (int r = 0; r < ROWS; r++) {
        for (int i = 0; i < WIDTH; i++)
            state[i] = (float)((i * 37 + r * 11) % 129 - 64) / 64.0f * 3.0f;
        scene_state(s, (size_t)r, state);
    }
}

/* A net of which only the output layer is used: its embedding is the identity, so that hidden states are the delta's
 * logits and their gradient is the logits'. */
static void torch_open(scene *s, int threads) {
    scene_open(s, threads, true, WIDTH);
    assert_int_equal(cmc_model_n_vocab(s->host), N_HOST);
    scene_map(s, N_DELTA, map_to, NULL);
    params_shape shape = {.n_vocab = N_DELTA, .n_embd = N_DELTA, .n_layer = 1, .n_head = 2, .n_head_kv = 2, .n_ff = 8};
    scene_net(s, shape, ROWS, true, true);
    for (size_t j = 0; j < N_DELTA; j++)
        for (size_t c = 0; c < N_DELTA; c++)
            s->n.w[s->p.embd + j * N_DELTA + c] = j == c ? 1.0f : 0.0f;
    for (int r = 0; r < ROWS; r++)
        for (int j = 0; j < N_DELTA; j++)
            s->n.hidden[r * N_DELTA + j] = (float)((j * 5 + r * 3) % 17 - 8) / 4.0f;
    torch_host(s);
    for (size_t r = 0; r < ROWS; r++) {
        s->rows[r] = r;
        s->targets[r] = torch_targets[r];
    }
    s->start[1] = ROWS;
    scene_batch(s, 1, ROWS);
}

static void check_part(scene *s, size_t k) {
    double sum = 0.0;
    cmc_error err = {0};
    const char *part = torch_parts[k].part;
    loss_parts parts = {.nll = strcmp(part, "nll") == 0, .kl_host = strcmp(part, "kl_host") == 0,
                        .kl_steered = strcmp(part, "kl_steered") == 0};
    assert_int_equal(loss_train(&s->l, net_output(&s->n), &s->b, &parts, 0.8f, 1.0f, s->dhidden, &sum, &err), CMC_OK);
    if (!(fabs(sum - torch_parts[k].loss) < 2e-5))
        fail_msg("%s: %.9g, PyTorch has %.9g", part, sum, torch_parts[k].loss);
    for (int r = 0; r < ROWS; r++) {
        for (int j = 0; j < N_DELTA; j++) {
            double got = (double)s->dhidden[r * N_DELTA + j], want = torch_parts[k].gradient[r][j];
            if (!(fabs(got - want) < 2e-6))
                fail_msg("%s: gradient of row %d, token %d is %.9g, PyTorch has %.9g", part, r, j, got, want);
        }
    }
}

static void test_parts(void **state) {
    (void)state;
    for (int threads = 1; threads <= 2; threads++) {
        scene s;
        torch_open(&s, threads);
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
