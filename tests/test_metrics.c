/* The metrics against rouge-score, scipy and numpy (bench/metrics_peers.py), and what must hold of any input. */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

#include "eval/ks.h"
#include "eval/likelihood.h"
#include "eval/paired.h"
#include "eval/rouge.h"
#include "eval/stem.h"
#include "eval/text_stats.h"
#include "eval/tofu.h"

#include "tests/data/metrics.h"

#define COUNT(list) (sizeof(list) / sizeof *(list))

/* To 1e-6 of the larger of 1 and what is wanted, and where `relative` of what is wanted: for tiny probabilities. */
static void near_to(double got, double want, bool relative, const char *what) {
    double unit = relative ? fabs(want) : fmax(1, fabs(want));
    if (!(isnan(want) ? isnan(got) : fabs(got - want) <= 1e-6 * unit))
        fail_msg("%s is %.17g, should be %.17g", what, got, want);
}

/* ------------------------------------------------------------------------------------------------------- ROUGE */

static void test_stems(void **state) {
    (void)state;
    for (size_t i = 0; i < COUNT(peer_stems); i++) {
        char word[128];
        strcpy(word, peer_stems[i].word);
        word[stem_porter(word, strlen(word))] = '\0';
        if (strcmp(word, peer_stems[i].stem) != 0)
            fail_msg("%s becomes %s, should become %s", peer_stems[i].word, word, peer_stems[i].stem);
    }
}

static rouge_score score_of(const char *reference, const char *answer, bool stem) {
    rouge_score s;
    assert_int_equal(rouge(reference, strlen(reference), answer, strlen(answer), stem, &s), CMC_OK);
    return s;
}

static void test_rouge_peers(void **state) {
    (void)state;
    for (size_t i = 0; i < COUNT(peer_rouge); i++) {
        rouge_score s = score_of(peer_rouge[i].reference, peer_rouge[i].answer, peer_rouge[i].stem);
        const rouge_part *parts[] = {&s.r1, &s.r2, &s.rl};
        for (size_t k = 0; k < 3; k++) {
            const double *want = peer_rouge[i].score + 3 * k;
            near_to(parts[k]->recall, want[0], false, peer_rouge[i].answer);
            near_to(parts[k]->precision, want[1], false, peer_rouge[i].answer);
            near_to(parts[k]->f, want[2], false, peer_rouge[i].answer);
        }
    }
}

/* Equal texts score 1; recall and precision change places with the texts; L finds no more words in common than 1 does. */
static void test_rouge_properties(void **state) {
    (void)state;
    for (size_t i = 0; i < COUNT(peer_rouge); i++) {
        const char *a = peer_rouge[i].reference, *b = peer_rouge[i].answer;
        rouge_score ab = score_of(a, b, peer_rouge[i].stem), ba = score_of(b, a, peer_rouge[i].stem);
        rouge_score aa = score_of(a, a, peer_rouge[i].stem);
        assert_true(ab.r1.recall == ba.r1.precision && ab.r2.recall == ba.r2.precision && ab.rl.recall == ba.rl.precision);
        assert_true(ab.r1.f == ba.r1.f && ab.rl.f == ba.rl.f);
        assert_true(ab.rl.recall <= ab.r1.recall);
        assert_true(aa.rl.f == aa.r1.f);
        assert_true(aa.r1.f == (strpbrk(a, "abcdefghijklmnopqrstuvwxyzP") ? 1.0 : 0.0));
    }
}

/* ---------------------------------------------------------------------------------------------------- statistics */

static double *formula(size_t n, size_t a, size_t b, size_t c, double d) {
    double *v = malloc(n * sizeof *v);
    assert_non_null(v);
    for (size_t i = 0; i < n; i++)
        v[i] = (double)((i * a + b) % c) / (double)c + d;
    return v;
}

static void test_ks(void **state) {
    (void)state;
    for (size_t i = 0; i < COUNT(peer_ks); i++) {
        size_t n = peer_ks[i].n, m = peer_ks[i].m;
        double *x = formula(n, peer_ks[i].a, peer_ks[i].b, peer_ks[i].c, 0);
        double *y = formula(m, peer_ks[i].a + 2, peer_ks[i].b + 1, peer_ks[i].c, peer_ks[i].d);
        ks_result xy, yx, xx;
        assert_int_equal(ks_two_sample(x, n, y, m, &xy), CMC_OK);
        assert_int_equal(ks_two_sample(y, m, x, n, &yx), CMC_OK);
        assert_int_equal(ks_two_sample(x, n, x, n, &xx), CMC_OK);
        near_to(xy.statistic, peer_ks[i].statistic, false, "the statistic");
        near_to(xy.p, peer_ks[i].p, true, "p");
        assert_true(xy.statistic == yx.statistic);
        near_to(yx.p, xy.p, true, "p the other way");
        assert_true(xx.statistic == 0 && xx.p == 1);
        free(x);
        free(y);
    }
    ks_result none;
    double one = 1;
    assert_int_equal(ks_two_sample(&one, 0, &one, 1, &none), CMC_E_ARG);
}

static void test_sign(void **state) {
    (void)state;
    for (size_t i = 0; i < COUNT(peer_sign); i++) {
        size_t w = peer_sign[i].wins, t = peer_sign[i].ties, l = peer_sign[i].losses;
        double *diff = calloc(w + t + l + 1, sizeof *diff);
        assert_non_null(diff);
        for (size_t k = 0; k < w + t + l; k++)
            diff[k] = k < w ? 0.5 : k < w + t ? 0 : -2;
        tally got = sign_test(diff, w + t + l);
        assert_true(got.wins == w && got.ties == t && got.losses == l);
        near_to(got.p, peer_sign[i].p, true, "the sign test");
        free(diff);
    }
}

static void test_bootstrap(void **state) {
    (void)state;
    for (size_t i = 0; i < COUNT(peer_bootstrap); i++) {
        size_t n = peer_bootstrap[i].n;
        bootstrap_opts o = {peer_bootstrap[i].draws, peer_bootstrap[i].level, peer_bootstrap[i].seed};
        double x[50], weight[50];
        interval got, again, other;
        for (size_t k = 0; k < n; k++) {
            x[k] = (double)((k * 29 + 7) % 83) / 83 - 0.4;
            weight[k] = (double)((k * 5) % 11 + 1);
        }
        const double *w = peer_bootstrap[i].weighted ? weight : NULL;
        assert_int_equal(bootstrap_ratio(x, w, n, &o, &got), CMC_OK);
        near_to(got.value, peer_bootstrap[i].value, false, "the value");
        near_to(got.lo, peer_bootstrap[i].lo, false, "the lower end");
        near_to(got.hi, peer_bootstrap[i].hi, false, "the upper end");
        assert_int_equal(bootstrap_ratio(x, w, n, &o, &again), CMC_OK);
        assert_true(got.lo == again.lo && got.hi == again.hi);
        o.seed++;
        assert_int_equal(bootstrap_ratio(x, w, n, &o, &other), CMC_OK);
        assert_true(n == 1 || got.lo != other.lo || got.hi != other.hi);
        assert_true(other.value == got.value);
    }
    bootstrap_opts o = {10, 0.95, 0};
    interval none;
    assert_int_equal(bootstrap_ratio(NULL, NULL, 0, &o, &none), CMC_E_ARG);
}

/* --------------------------------------------------------------------------------------------------- likelihood */

static void test_tofu(void **state) {
    (void)state;
    for (size_t i = 0; i < COUNT(peer_tofu); i++) {
        double nll = peer_tofu[i].nll, ratio = tofu_truth_ratio(nll, peer_tofu[i].wrong, peer_tofu[i].n);
        near_to(tofu_probability(nll), peer_tofu[i].probability, true, "the probability");
        near_to(tofu_choice(nll, peer_tofu[i].wrong, peer_tofu[i].n), peer_tofu[i].choice, true, "the choice");
        near_to(ratio, peer_tofu[i].ratio, true, "the truth ratio");
        near_to(tofu_truth_forget(ratio), peer_tofu[i].forget, true, "the forget set's");
        near_to(tofu_truth_kept(ratio), peer_tofu[i].kept, false, "the others'");
    }
    for (size_t i = 0; i < COUNT(peer_harmonic); i++)
        near_to(tofu_harmonic_mean(peer_harmonic[i].v, 9), peer_harmonic[i].mean, true, "the harmonic mean");
}

static void test_likelihood(void **state) {
    (void)state;
    for (size_t i = 0; i < COUNT(peer_memory); i++) {
        size_t n = peer_memory[i].n;
        float logprob[12], host[12] = {0};
        uint8_t top[12], end[12] = {0}, host_top[12] = {0};
        memcpy(logprob, peer_memory[i].logprob, sizeof logprob);
        memcpy(top, peer_memory[i].top, sizeof top);
        end[n - 1] = 1;
        cmc_score s = {.n = n, .logprob = logprob, .host_logprob = host, .end = end, .top = top, .host_top = host_top, .bytes = 3 * n};
        likelihood l = likelihood_of(&s, false), h = likelihood_of(&s, true);
        assert_true(l.tokens == n && l.bytes == 3 * n);
        near_to(l.nll, peer_memory[i].nll, true, "the NLL");
        near_to(l.exact_memorization, peer_memory[i].exact, false, "exact memorisation");
        near_to(l.extraction_strength, peer_memory[i].strength, false, "extraction strength");
        assert_true(h.nll == 0);
        assert_true(n == 1 ? isnan(h.exact_memorization) : h.exact_memorization == 0);
    }
}

/* -------------------------------------------------------------------------------------------------------- texts */

static void test_texts(void **state) {
    (void)state;
    text_stats *t;
    assert_int_equal(text_stats_new(&t), CMC_OK);
    assert_true(isnan(text_stats_distinct(t, 1)));
    for (size_t i = 0; i < COUNT(peer_texts); i++) {
        text_measure m;
        assert_int_equal(text_stats_add(t, peer_texts[i].text, strlen(peer_texts[i].text), &m), CMC_OK);
        assert_int_equal(m.words, peer_texts[i].words);
        assert_int_equal(m.chars, peer_texts[i].chars);
        near_to(m.repetition, peer_texts[i].repetition, false, peer_texts[i].text);
    }
    for (int n = 1; n <= 3; n++)
        near_to(text_stats_distinct(t, n), peer_distinct[n - 1], false, "distinct-n");
    text_stats_free(t);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_stems),
        cmocka_unit_test(test_rouge_peers),
        cmocka_unit_test(test_rouge_properties),
        cmocka_unit_test(test_ks),
        cmocka_unit_test(test_sign),
        cmocka_unit_test(test_bootstrap),
        cmocka_unit_test(test_tofu),
        cmocka_unit_test(test_likelihood),
        cmocka_unit_test(test_texts),
    };
    return cmocka_run_group_tests_name("metrics", tests, NULL, NULL);
}
