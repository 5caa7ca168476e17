/* Real models against an independent implementation: teacher-forced log-probabilities of several texts, one of them
 * long. Needs CMC_TEST_ORACLE (a folder of JSON files) and CMC_TEST_SMOLLM2 / CMC_TEST_GEMMA (the models). */
#include <jansson.h>
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "cmc.h"

#define BLOCK 32 /* rows of logits at a time */

typedef struct figures {
    double sum, largest;
    size_t n, hits, rows; /* hits: rows whose most likely token is the oracle's */
} figures;

static double log_prob(const float *logits, int32_t n, int32_t id, int32_t *best) {
    double sum = 0;
    *best = 0;
    for (int32_t i = 1; i < n; i++)
        if (logits[i] > logits[*best])
            *best = i;
    const double max = (double)logits[*best];
    for (int32_t i = 0; i < n; i++)
        sum += exp((double)logits[i] - max);
    return id < 0 ? 0 : (double)logits[id] - max - log(sum);
}

static void check(cmc_status st, const cmc_error *err) {
    if (st != CMC_OK)
        fail_msg("%s", err->message);
}

static void run_case(cmc_model *m, const json_t *c, figures *f) {
    cmc_error err = {0};
    const json_t *jids = json_object_get(c, "ids"), *jlp = json_object_get(c, "next_logprob"),
                 *jbest = json_object_get(c, "argmax");
    const size_t n = json_array_size(jids), e = (size_t)cmc_model_n_embd(m), v = (size_t)cmc_model_n_vocab(m);
    int32_t *ids = malloc(n * sizeof *ids);
    float *hidden = malloc(n * e * sizeof *hidden), *logits = malloc(BLOCK * v * sizeof *logits);
    assert_non_null(ids);
    assert_non_null(hidden);
    assert_non_null(logits);
    for (size_t i = 0; i < n; i++)
        ids[i] = (int32_t)json_integer_value(json_array_get(jids, i));
    cmc_session *s;
    check(cmc_session_new(m, (int32_t)n, &s, &err), &err);
    check(cmc_session_sync(s, ids, n, &err), &err);
    const cmc_eval_item item = {s, CMC_WANT_HIDDEN, n, hidden};
    check(cmc_eval(m, &item, 1, &err), &err);
    for (size_t b = 0; b < n; b += BLOCK) {
        const size_t rows = n - b < BLOCK ? n - b : BLOCK;
        check(cmc_model_logits(m, hidden + b * e, rows, logits, &err), &err);
        for (size_t i = 0; i < rows; i++) {
            int32_t best;
            const double lp = log_prob(logits + i * v, (int32_t)v, b + i + 1 < n ? ids[b + i + 1] : -1, &best);
            f->hits += best == json_integer_value(json_array_get(jbest, b + i));
            f->rows++;
            if (b + i + 1 == n)
                continue;
            const double d = fabs(lp - json_number_value(json_array_get(jlp, b + i)));
            f->sum += d;
            f->largest = d > f->largest ? d : f->largest;
            f->n++;
        }
    }
    cmc_session_free(s);
    free(ids);
    free(hidden);
    free(logits);
}

static void run_model(const char *variable, const char *oracle, bool exact, double mean_limit, double largest_limit) {
    const char *path = getenv(variable), *dir = getenv("CMC_TEST_ORACLE");
    if (!path || !dir) {
        printf("SKIP %s: %s is not set\n", oracle, path ? "CMC_TEST_ORACLE" : variable);
        return;
    }
    char file[4096];
    (void)snprintf(file, sizeof file, "%s/%s", dir, oracle);
    json_error_t jerr;
    json_t *root = json_load_file(file, 0, &jerr);
    if (!root)
        fail_msg("%s: %s", file, jerr.text);
    cmc_error err = {0};
    const cmc_runtime_opts opts = {.exact = exact};
    cmc_runtime *rt;
    cmc_model *m;
    check(cmc_runtime_open(&opts, &rt, &err), &err);
    check(cmc_model_open(rt, path, &m, &err), &err);
    figures f = {0};
    size_t i;
    json_t *c;
    size_t expected = 0;
    json_array_foreach(json_object_get(root, "cases"), i, c) {
        run_case(m, c, &f);
        expected += json_array_size(json_object_get(c, "next_logprob"));
    }
    printf(
        "%s, %s: %zu log-probabilities, mean difference %.3g, largest %.3g; %zu of %zu most likely tokens the same\n",
        oracle, exact ? "exact" : "fast", f.n, f.sum / (double)f.n, f.largest, f.hits, f.rows);
    assert_true(f.n > 0);
    assert_int_equal(f.n, expected); /* not one log-probability of the file is left out */
    assert_true(f.sum / (double)f.n <= mean_limit);
    assert_true(f.largest <= largest_limit);
    cmc_model_free(m);
    cmc_runtime_free(rt);
    json_decref(root);
}

static void smollm2_exact(void **state) {
    (void)state;
    run_model("CMC_TEST_SMOLLM2", "SmolLM2-135M-Instruct.Q4_1.json", true, 5e-4, 1e-2);
}

static void smollm2_fast(void **state) {
    (void)state;
    run_model("CMC_TEST_SMOLLM2", "SmolLM2-135M-Instruct.Q4_1.json", false, 0.045 * 1.1, INFINITY);
}

static void gemma_exact(void **state) {
    (void)state;
    run_model("CMC_TEST_GEMMA", "gemma-3-270m-q4_k_m.json", true, 5e-4, 1e-2);
}

static void gemma_fast(void **state) {
    (void)state;
    run_model("CMC_TEST_GEMMA", "gemma-3-270m-q4_k_m.json", false, 0.059 * 1.1, INFINITY);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(smollm2_fast),
        cmocka_unit_test(gemma_fast),
        cmocka_unit_test(smollm2_exact),
        cmocka_unit_test(gemma_exact),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
