/* The shift and its transpose against steering's formulas (docs/design.md) written out in long double, and its promises as properties. */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "base/mem.h"
#include "tokenmap/shift_impl.h"

enum { MAX_DELTAS = 3 };

typedef void (*apply_fn)(float *, int32_t, const shift_in *, size_t, bool, float *);

/* A host row and deltas for it. */
typedef struct scene {
    int32_t n_host;
    size_t n;
    cmc_map *map[MAX_DELTAS];
    float *d[MAX_DELTAS];
    shift_in in[MAX_DELTAS];
    float *h, *out, *work;
} scene;

static uint64_t rng_state;

static uint32_t rnd(void) {                /* PCG-like: good enough to make cases, the same on every machine */
    rng_state = rng_state * 6364136223846793005u + 1442695040888963407u;
    return (uint32_t)(rng_state >> 33);
}

static float rnd_float(float lo, float hi) {
    return lo + (hi - lo) * (float)(rnd() % 100003) / 100003.0f;
}

/* share: how many of 100 host tokens are mapped; 101: by identity. */
static cmc_map *make_map(int32_t n_host, int32_t n_delta, int share) {
    cmc_map *m;
    assert_int_equal(map_new(n_host, n_delta, &m, NULL), CMC_OK);
    for (int32_t i = 0; i < n_host; i++) {
        if (share == 101) {
            map_set(m, i, i, CMC_HOW_EXACT, 0);
        } else if ((int)(rnd() % 100) < share) {
            map_set(m, i, (int32_t)(rnd() % (uint32_t)n_delta), CMC_HOW_EXACT, 0);
        }
    }
    map_finish(m);
    return m;
}

static scene make_scene(int32_t n_host, size_t n, int share, float spread) {
    scene s = {.n_host = n_host, .n = n};
    s.h = cmc_alloc((size_t)n_host, sizeof(float));
    s.out = cmc_alloc((size_t)n_host, sizeof(float));
    s.work = cmc_alloc(2 * (size_t)n_host, sizeof(float));
    assert_true(s.h && s.out && s.work);
    for (int32_t i = 0; i < n_host; i++) {
        s.h[i] = rnd_float(-spread, spread);
    }
    for (size_t k = 0; k < n; k++) {
        int32_t n_delta = share == 101 ? n_host : (int32_t)(1 + rnd() % 60);
        s.map[k] = make_map(n_host, n_delta, share);
        s.d[k] = cmc_alloc((size_t)n_delta, sizeof(float));
        assert_non_null(s.d[k]);
        for (int32_t j = 0; j < n_delta; j++) {
            s.d[k][j] = rnd_float(-8, 8);
        }
        float alpha = rnd_float(0.1f, 2.0f);
        s.in[k] = (shift_in){s.map[k], rnd() % 4 ? alpha : -alpha, s.d[k]};
    }
    return s;
}

static void free_scene(scene *s) {
    for (size_t k = 0; k < s->n; k++) {
        cmc_map_free(s->map[k]);
        free(s->d[k]);
    }
    free(s->h);
    free(s->out);
    free(s->work);
}

static const float *run(scene *s, apply_fn apply, bool raw) {
    memcpy(s->out, s->h, (size_t)s->n_host * sizeof(float));
    apply(s->out, s->n_host, s->in, s->n, raw, s->work);
    return s->out;
}

/* ------------------------------------------------------------------------ steering's formulas (docs/design.md), as it stands on the page */

/* log( sum_M p_i e^{s_i} / sum_M p_i ); in_m says who is in M. p is taken up to a factor, which cancels: relative to
 * the greatest on M, since far from the greatest of all even a long double is 0. */
static long double page_centre(const float *h, const long double *s, const bool *in_m, int32_t n) {
    long double top = -INFINITY, up = 0, down = 0;
    for (int32_t i = 0; i < n; i++) {
        top = in_m[i] ? fmaxl(top, (long double)h[i]) : top;
    }
    for (int32_t i = 0; top > -INFINITY && i < n; i++) {
        if (in_m[i]) {
            long double p = expl((long double)h[i] - top);
            up += p * expl(s[i]);
            down += p;
        }
    }
    return down > 0 ? logl(up / down) : 0;
}

/* d[k][j] as double, so that finite differences can use it too. */
static void page_apply(const float *h, int32_t n, const cmc_map *const *map, const double *alpha, double *const *d,
                       size_t n_deltas, bool raw, long double *out) {
    size_t cells = (size_t)n;
    long double *s = cmc_calloc(cells, sizeof *s), *x = cmc_calloc(cells, sizeof *x);
    bool *in_m = cmc_calloc(cells, sizeof *in_m), *in_k = cmc_calloc(cells, sizeof *in_k);
    assert_true(s && x && in_m && in_k);
    for (size_t k = 0; k < n_deltas; k++) {
        for (int32_t i = 0; i < n; i++) {
            in_k[i] = map[k]->to[i] >= 0;
            in_m[i] = in_m[i] || in_k[i];
            x[i] = in_k[i] ? (long double)alpha[k] * (long double)d[k][map[k]->to[i]] : 0;
        }
        long double c = raw ? 0 : page_centre(h, x, in_k, n);
        for (int32_t i = 0; i < n; i++) {
            s[i] += in_k[i] ? x[i] - c : 0;
        }
    }
    long double c = raw ? 0 : page_centre(h, s, in_m, n);
    for (int32_t i = 0; i < n; i++) {
        out[i] = (long double)h[i] + (in_m[i] ? s[i] - c : 0);
    }
    free(s);
    free(x);
    free(in_m);
    free(in_k);
}

static void page_of_scene(const scene *s, bool raw, long double *out) {
    const cmc_map *maps[MAX_DELTAS];
    double alpha[MAX_DELTAS], *d[MAX_DELTAS];
    for (size_t k = 0; k < s->n; k++) {
        maps[k] = s->map[k];
        alpha[k] = (double)s->in[k].alpha;
        d[k] = cmc_alloc((size_t)s->map[k]->n_delta, sizeof(double));
        assert_non_null(d[k]);
        for (int32_t j = 0; j < s->map[k]->n_delta; j++) {
            d[k][j] = (double)s->d[k][j];
        }
    }
    page_apply(s->h, s->n_host, maps, alpha, d, s->n, raw, out);
    for (size_t k = 0; k < s->n; k++) {
        free(d[k]);
    }
}

static void assert_close(double got, double want, double tolerance, const char *what, int32_t i) {
    if (isinf(want) ? got != want : !(fabs(got - want) <= tolerance * fmax(1, fabs(want)))) {
        fail_msg("%s, token %d: %.9g, should be %.9g", what, (int)i, got, want);
    }
}

static const int32_t SIZES[] = {1, 2, 7, 8, 9, 15, 16, 63, 511, 512, 513, 1000, 1031, 4099};
static const int SHARES[] = {0, 3, 50, 97, 100, 101};

static void check_scene(scene *s, const char *what) {
    static const apply_fn both[] = {shift_apply_plain, shift_apply};
    long double *want = cmc_alloc((size_t)s->n_host, sizeof *want);
    assert_non_null(want);
    for (int raw = 0; raw < 2; raw++) {
        page_of_scene(s, raw, want);
        for (size_t f = 0; f < 2; f++) {
            const float *got = run(s, both[f], raw);
            for (int32_t i = 0; i < s->n_host; i++) {
                assert_close((double)got[i], (double)want[i], 1e-5, what, i);
            }
        }
    }
    free(want);
}

static void test_both_equal_the_page(void **state) {
    (void)state;
    rng_state = 1;
    for (size_t a = 0; a < sizeof SIZES / sizeof *SIZES; a++) {
        for (size_t b = 0; b < sizeof SHARES / sizeof *SHARES; b++) {
            for (size_t n = 1; n <= MAX_DELTAS; n++) {
                scene s = make_scene(SIZES[a], n, SHARES[b], n == 2 ? 40 : 12);
                check_scene(&s, "random scene");
                free_scene(&s);
            }
        }
    }
}

/* Logits that only a double could hold as exponents, in rising, falling and mixed order: the online sums rescale. */
static void test_huge_host_logits(void **state) {
    (void)state;
    rng_state = 2;
    static const float scale[] = {1e3f, 1e6f, 1e30f};
    for (size_t a = 0; a < 3; a++) {
        for (int order = 0; order < 3; order++) {
            scene s = make_scene(3001, 1 + (size_t)order, 60, 1);
            for (int32_t i = 0; i < s.n_host; i++) {
                float ramp = (float)(order == 0 ? i : order == 1 ? -i : (i * 7919) % 3001);
                s.h[i] = scale[a] * ramp / 3001;
            }
            check_scene(&s, "huge logits");
            free_scene(&s);
        }
    }
}

static void test_banned_tokens_stay_banned(void **state) {
    (void)state;
    rng_state = 3;
    static const int banned_of_100[] = {1, 50, 99};
    for (size_t a = 0; a < 3; a++) {
        for (size_t n = 1; n <= MAX_DELTAS; n++) {
            scene s = make_scene(2050, n, 70, 10);
            for (int32_t i = 0; i < s.n_host; i++) {
                if ((int)(rnd() % 100) < banned_of_100[a] || i < 1024) {   /* whole blocks too */
                    s.h[i] = -INFINITY;
                }
            }
            check_scene(&s, "banned tokens");
            const float *out = run(&s, shift_apply, false);
            for (int32_t i = 0; i < s.n_host; i++) {
                assert_int_equal(s.h[i] == -INFINITY, out[i] == -INFINITY);
            }
            free_scene(&s);
        }
    }
}

/* All mapped tokens banned: nothing to centre by, and nothing may become NaN. Then every token banned. */
static void test_no_mass_to_centre_by(void **state) {
    (void)state;
    rng_state = 4;
    for (int all = 0; all < 2; all++) {
        for (size_t n = 1; n <= 2; n++) {
            scene s = make_scene(700, n, 40, 10);
            for (int32_t i = 0; i < s.n_host; i++) {
                for (size_t k = 0; k < n; k++) {
                    if (all || s.map[k]->to[i] >= 0) {
                        s.h[i] = -INFINITY;
                    }
                }
            }
            for (int plain = 0; plain < 2; plain++) {
                const float *out = run(&s, plain ? shift_apply_plain : shift_apply, false);
                assert_memory_equal(out, s.h, (size_t)s.n_host * sizeof(float));
            }
            free_scene(&s);
        }
    }
}

/* --------------------------------------------------------------------------------------------------- promises */

static void softmax(const float *v, int32_t n, double *p) {
    double top = -INFINITY, sum = 0;
    for (int32_t i = 0; i < n; i++) {
        top = fmax(top, (double)v[i]);
    }
    for (int32_t i = 0; i < n; i++) {
        sum += p[i] = exp((double)v[i] - top);
    }
    for (int32_t i = 0; i < n; i++) {
        p[i] /= sum;
    }
}

/* log sum e^logits: the plain one against its definition, the fast one against it, and centred shifts leave it alone. */
static void test_log_sum(void **state) {
    (void)state;
    rng_state = 12;
    static const int32_t sizes[] = {1, 3, 8, 511, 512, 513, 4099};
    for (size_t a = 0; a < sizeof sizes / sizeof *sizes; a++) {
        for (size_t n = 1; n <= MAX_DELTAS; n++) {
            scene s = make_scene(sizes[a], n, 60, n == 2 ? 200 : 8);
            long double sum = 0;
            for (int32_t i = 0; i < s.n_host; i++) {
                sum += expl((long double)s.h[i]);
            }
            double want = (double)logl(sum);
            assert_close(shift_log_sum_plain(s.h, s.n_host), want, 1e-12 * (1 + fabs(want)), "log sum, plain", s.n_host);
            assert_close(shift_log_sum(s.h, s.n_host), want, 3e-6, "log sum, fast", s.n_host);
            const float *out = run(&s, shift_apply, false);
            assert_close(shift_log_sum(out, s.n_host), want, n == 2 ? 1e-4 : 5e-6, "log sum after shifts", s.n_host);
            free_scene(&s);
        }
    }
    float odd[20];
    for (int plain = 0; plain < 2; plain++) {
        double (*log_sum)(const float *, int32_t) = plain ? shift_log_sum_plain : shift_log_sum;
        for (int32_t i = 0; i < 20; i++) {
            odd[i] = -INFINITY;
        }
        assert_true(log_sum(odd, 20) == -INFINITY);
        odd[17] = NAN;
        assert_true(isnan(log_sum(odd, 20)));
        odd[4] = 1;
        assert_true(isnan(log_sum(odd, 20)));
        odd[17] = -INFINITY;
        assert_true(log_sum(odd, 20) == 1);
    }
}

static void test_unmapped_tokens_keep_their_probability(void **state) {
    (void)state;
    rng_state = 5;
    for (size_t n = 1; n <= MAX_DELTAS; n++) {
        scene s = make_scene(1500, n, 30, 6);
        double *before = cmc_alloc(1500, sizeof *before), *after = cmc_alloc(1500, sizeof *after);
        assert_true(before && after);
        const float *out = run(&s, shift_apply, false);
        softmax(s.h, s.n_host, before);
        softmax(out, s.n_host, after);
        size_t moved = 0;
        for (int32_t i = 0; i < s.n_host; i++) {
            bool mapped = false;
            for (size_t k = 0; k < n; k++) {
                mapped = mapped || s.map[k]->to[i] >= 0;
            }
            if (!mapped) {
                assert_memory_equal(&out[i], &s.h[i], sizeof(float));
                assert_close(after[i] / before[i], 1, 2e-6, "probability of an unmapped token", i);
            }
            moved += mapped && fabs(after[i] / before[i] - 1) > 1e-3;
        }
        assert_true(moved > 100);
        free(before);
        free(after);
        free_scene(&s);
    }
}

static void test_additive_constant_of_a_delta_is_nothing(void **state) {
    (void)state;
    rng_state = 6;
    for (size_t n = 1; n <= MAX_DELTAS; n++) {
        scene s = make_scene(1203, n, 60, 8);
        float *first = cmc_alloc(1203, sizeof *first);
        assert_non_null(first);
        memcpy(first, run(&s, shift_apply, false), 1203 * sizeof *first);
        for (size_t k = 0; k < n; k++) {
            for (int32_t j = 0; j < s.map[k]->n_delta; j++) {
                s.d[k][j] += 16.0f * (float)(k + 1);
            }
        }
        const float *second = run(&s, shift_apply, false);
        for (int32_t i = 0; i < s.n_host; i++) {
            assert_close((double)second[i], (double)first[i], 2e-5, "after adding a constant", i);
        }
        free(first);
        free_scene(&s);
    }
}

static void test_order_of_deltas_is_nothing(void **state) {
    (void)state;
    rng_state = 7;
    scene s = make_scene(1203, 3, 60, 8);
    float *first = cmc_alloc(1203, sizeof *first);
    assert_non_null(first);
    memcpy(first, run(&s, shift_apply, false), 1203 * sizeof *first);
    shift_in swapped = s.in[0];
    s.in[0] = s.in[2];
    s.in[2] = swapped;
    const float *second = run(&s, shift_apply, false);
    for (int32_t i = 0; i < s.n_host; i++) {
        assert_close((double)second[i], (double)first[i], 5e-6, "in another order", i);
    }
    free(first);
    free_scene(&s);
}

static void test_no_delta_changes_no_bit(void **state) {
    (void)state;
    rng_state = 8;
    scene s = make_scene(77, 0, 0, 8);
    assert_memory_equal(run(&s, shift_apply, false), s.h, 77 * sizeof(float));
    assert_memory_equal(run(&s, shift_apply_plain, false), s.h, 77 * sizeof(float));
    free_scene(&s);
}

/* -------------------------------------------------------------------------------------------------- transpose */

/* Steered cross-entropy of target under delta logits d. */
static double loss(const scene *s, double *d, bool raw, int32_t target, float *steered) {
    const cmc_map *map = s->map[0];
    double alpha = (double)s->in[0].alpha;
    long double *out = cmc_alloc((size_t)s->n_host, sizeof *out), top = -INFINITY, sum = 0;
    assert_non_null(out);
    page_apply(s->h, s->n_host, &map, &alpha, &d, 1, raw, out);
    for (int32_t i = 0; i < s->n_host; i++) {
        top = fmaxl(top, out[i]);
        steered[i] = (float)out[i];
    }
    for (int32_t i = 0; i < s->n_host; i++) {
        sum += expl(out[i] - top);
    }
    double nll = (double)(top + logl(sum) - out[target]);
    free(out);
    return nll;
}

static void check_gradient(scene *s, bool raw, int32_t target) {
    int32_t n_delta = s->map[0]->n_delta;
    double *d = cmc_alloc((size_t)n_delta, sizeof *d);
    float *plain = cmc_calloc((size_t)n_delta, sizeof *plain), *fast = cmc_calloc((size_t)n_delta, sizeof *fast);
    float *steered = cmc_alloc((size_t)s->n_host, sizeof *steered);
    assert_true(d && plain && fast && steered);
    for (int32_t j = 0; j < n_delta; j++) {
        d[j] = (double)s->d[0][j];
        plain[j] = fast[j] = 0.25f;                /* it adds */
    }
    loss(s, d, raw, target, steered);
    shift_transpose_plain(s->map[0], s->in[0].alpha, raw, s->h, steered, target, plain);
    shift_transpose(s->map[0], s->in[0].alpha, raw, NULL, steered, target, fast);
    for (int32_t j = 0; j < n_delta; j++) {
        const double step = 1e-4;
        double at = d[j];
        d[j] = at + step;
        double up = loss(s, d, raw, target, steered);
        d[j] = at - step;
        double slope = (up - loss(s, d, raw, target, steered)) / (2 * step);
        d[j] = at;
        assert_close((double)plain[j] - 0.25, slope, 2e-6, "gradient, plain", j);
        assert_close((double)fast[j] - 0.25, slope, 4e-6, "gradient, fast", j);
    }
    free(d);
    free(plain);
    free(fast);
    free(steered);
}

static int32_t first_token(const cmc_map *m, bool mapped) {
    for (int32_t i = 0; i < m->n_host; i++) {
        if ((m->to[i] >= 0) == mapped) {
            return i;
        }
    }
    return -1;
}

static void test_transpose_is_the_gradient(void **state) {
    (void)state;
    rng_state = 9;
    static const int32_t sizes[] = {1, 9, 64, 300};
    size_t checked = 0;
    for (size_t a = 0; a < 4; a++) {
        for (size_t b = 0; b < sizeof SHARES / sizeof *SHARES; b++) {
            scene s = make_scene(sizes[a], 1, SHARES[b], 4);
            for (int mapped = 0; mapped < 2; mapped++) {
                int32_t target = first_token(s.map[0], mapped);
                for (int raw = 0; target >= 0 && raw < 2; raw++) {
                    check_gradient(&s, raw, target);
                    checked++;
                }
            }
            free_scene(&s);
        }
    }
    assert_true(checked > 40);
}

/* Large vocabulary, banned tokens included: the two transposes agree. */
static void test_transposes_agree(void **state) {
    (void)state;
    rng_state = 10;
    for (size_t a = 0; a < sizeof SIZES / sizeof *SIZES; a++) {
        for (int raw = 0; raw < 2; raw++) {
            scene s = make_scene(SIZES[a], 1, 80, 15);
            for (int32_t i = 1; i < s.n_host; i += 3) {
                s.h[i] = -INFINITY;
            }
            float plain[60] = {0}, fast[60] = {0};
            int32_t target = s.n_host / 3 * 3 % s.n_host;
            shift_transpose_plain(s.map[0], 0.7f, raw, s.h, s.h, target, plain);
            shift_transpose(s.map[0], 0.7f, raw, s.h, s.h, target, fast);
            for (int32_t j = 0; j < s.map[0]->n_delta; j++) {
                assert_close((double)fast[j], (double)plain[j], 2e-6, "transposes", j);
            }
            free_scene(&s);
        }
    }
}

/* In parts, whatever their order, come the bits of the whole. */
static void parts_are_the_whole(void **state) {
    (void)state;
    if (!shift_has_parts()) {
        print_message("SKIP parts: this machine has none\n");
        return;
    }
    const int32_t sizes[] = {1, 7, 511, 512, 513, 4096, 5000, 49152};
    const int order[2][SHIFT_PARTS] = {{0, 1, 2, 3, 4, 5, 6, 7}, {5, 2, 7, 0, 1, 6, 4, 3}};
    for (size_t i = 0; i < 2 * sizeof sizes / sizeof *sizes; i++) {
        for (int raw = 0; raw < 2; raw++) {
            scene s = make_scene(sizes[i / 2], 1, i % 4 == 3 ? 101 : 80, 20);
            size_t bytes = (size_t)s.n_host * sizeof(float);
            if (i % 2)
                s.h[s.n_host / 2] = -INFINITY; /* a banned token */
            float *parts = cmc_alloc((size_t)s.n_host, sizeof(float));
            shift_sums sums[SHIFT_PARTS];
            assert_non_null(parts);
            memcpy(parts, s.h, bytes);
            memcpy(s.out, s.h, bytes);
            shift_apply(s.out, s.n_host, s.in, 1, raw, s.work);
            for (int k = 0; k < SHIFT_PARTS; k++)
                shift_part_add(parts, s.n_host, s.in, raw, order[i % 2][k], &sums[order[i % 2][k]]);
            for (int k = 0; k < SHIFT_PARTS; k++)
                shift_part_centre(parts, s.n_host, s.in, shift_parts_centre(sums), order[i % 2][k]);
            assert_memory_equal(parts, s.out, bytes);
            free(parts);
            free_scene(&s);
        }
    }
}

/* The lowest id of the greatest logit; -1 where all are NaN or banned. */
static int32_t greatest(const float *v, int32_t n) {
    int32_t best = -1;
    float top = -INFINITY;
    for (int32_t i = 0; i < n; i++) {
        if (v[i] > top) {
            top = v[i];
            best = i;
        }
    }
    return best;
}

typedef void (*best_fn)(const float *, int32_t, const shift_in *, const shift_span *, int, shift_best *);

/* What is found by so many threads, the parts in any order. */
static int32_t best_by(const scene *s, bool raw, best_fn part_best, int threads) {
    shift_span spans[SHIFT_PARTS], span;
    shift_best best[SHIFT_PARTS];
    for (int p = 0; p < SHIFT_PARTS; p++) {
        spans[p] = SHIFT_NO_SPAN;
        best[p] = SHIFT_NO_BEST;
        shift_part_span(s->in, p, &spans[p]);
    }
    span = shift_all_spans(spans, SHIFT_PARTS);
    for (int p = SHIFT_PARTS - 1; p >= 0; p--) {
        part_best(s->h, s->n_host, s->in, &span, p, &best[p * threads / SHIFT_PARTS]);
    }
    return shift_best_id(best, SHIFT_PARTS, &span, raw);
}

/* Where it decides, so does the shift, whichever adds it and whoever looks; gives how often it did, of 2. */
static int check_best(scene *s) {
    int decided = 0;
    for (int raw = 0; raw < 2; raw++) {
        const int32_t best = best_by(s, raw, shift_part_best, 1);
        if (best >= 0) {
            assert_int_equal(greatest(run(s, shift_apply, raw), s->n_host), best);
            assert_int_equal(greatest(run(s, shift_apply_plain, raw), s->n_host), best);
            decided++;
        }
        for (int threads = 1; threads <= SHIFT_PARTS; threads++) {
            assert_int_equal(best_by(s, raw, shift_part_best, threads), best);
            assert_int_equal(best_by(s, raw, shift_part_best_plain, threads), best);
        }
    }
    return decided;
}

static void test_best_is_the_shifts(void **state) {
    (void)state;
    rng_state = 15;
    int cases = 0, decided = 0;
    for (size_t a = 0; a < sizeof SIZES / sizeof *SIZES; a++) {
        for (size_t b = 0; b < sizeof SHARES / sizeof *SHARES; b++) {
            for (int spread = 4; spread < 64; spread *= 4) {
                scene s = make_scene(SIZES[a], 1, SHARES[b], (float)spread);
                const int n = check_best(&s);
                cases += SHARES[b] >= 97 ? 2 : 0;
                decided += SHARES[b] >= 97 ? n : 0;
                assert_true(SHARES[b] > 0 || n == 0);   /* nothing is mapped: not for it to say */
                free_scene(&s);
            }
        }
    }
    assert_true(decided > cases * 3 / 4);
}

/* A token that the host finds unlikely, alone in a block with such, which only its shift makes the greatest. */
static void test_best_is_found_anywhere(void **state) {
    (void)state;
    rng_state = 16;
    for (int32_t at = 0; at < 6000; at += 397) {
        scene s = make_scene(6000, 1, 100, 3);
        s.in[0].alpha = 1;
        for (int32_t i = 0; i < 6000; i++) {
            s.h[i] += i / SHIFT_BLOCK == at / SHIFT_BLOCK ? -30.0f : 0;
            if (s.map[0]->to[i] == 0) {
                map_set(s.map[0], i, s.map[0]->n_delta - 1, CMC_HOW_EXACT, 0);
            }
        }
        s.d[0][0] = 60;
        map_set(s.map[0], at, 0, CMC_HOW_EXACT, 0);
        map_finish(s.map[0]);
        if (s.map[0]->n_delta > 1) {
            assert_int_equal(check_best(&s), 2);
            assert_int_equal(best_by(&s, false, shift_part_best, 2), at);
        }
        free_scene(&s);
    }
}

/* Sums that are alike or nearly, an unmapped token beside them, and what is no number: it decides rightly or not at all. */
static void test_best_of_near_things(void **state) {
    (void)state;
    rng_state = 17;
    for (int k = 0; k < 400; k++) {
        scene s = make_scene(1500, 1, k % 2 ? 100 : 60, 10);
        const int32_t one = (int32_t)(rnd() % 1500), other = (int32_t)(rnd() % 1500);
        memcpy(s.out, s.h, 1500 * sizeof *s.h);
        s.h[one] = 40;
        const float *steered = run(&s, shift_apply, false);
        s.h[other] = 40 + (steered[one] - 40) - (steered[other] - s.h[other]);   /* as great once both are shifted */
        for (int ulps = 0; ulps < k % 4; ulps++) {
            s.h[other] = nextafterf(s.h[other], k % 8 < 4 ? INFINITY : -INFINITY);
        }
        check_best(&s);
        s.h[(one + 1) % 1500] = k % 3 ? INFINITY : NAN;
        assert_int_equal(best_by(&s, false, shift_part_best, 1), -1);
        s.h[(one + 1) % 1500] = -INFINITY;
        check_best(&s);
        s.d[0][rnd() % (uint32_t)s.map[0]->n_delta] = NAN;
        assert_int_equal(best_by(&s, true, shift_part_best, 1), -1);
        free_scene(&s);
    }
}

#ifdef SHIFT_X86
/* Machines with AVX-512 take no other way where there is a choice: here both run. */
static void additions_agree(void **state) {
    (void)state;
    if (!shift_have_avx512())
        skip();
    rng_state = 14;
    for (size_t a = 0; a < sizeof SIZES / sizeof *SIZES; a++) {
        for (size_t b = 0; b < sizeof SHARES / sizeof *SHARES; b++) {
            scene s = make_scene(SIZES[a], 1, SHARES[b], b % 2 ? 40 : 8);
            shift_sums one = SHIFT_NO_SUMS, other = SHIFT_NO_SUMS, none = SHIFT_NO_SUMS;
            const size_t bytes = (size_t)s.n_host * sizeof(float);
            float *x = s.work, *raw = s.work + s.n_host;
            assert_true(s.map[0]->identity || s.map[0]->to_short);
            if (a % 3 == 0) {
                free(s.map[0]->to_short); /* as where ids do not fit */
                s.map[0]->to_short = NULL;
            }
            if (a % 2)
                s.h[s.n_host - 1] = -INFINITY; /* a banned token */
            for (int32_t at = 0; at < s.n_host; at += SHIFT_BLOCK) {
                const int32_t n = s.n_host - at < SHIFT_BLOCK ? s.n_host - at : SHIFT_BLOCK;
                memcpy(raw, s.h, bytes);
                shift_add_avx512(raw, s.in, true, at, n, &none);
                memcpy(x + at, s.h + at, (size_t)n * sizeof *x);
                shift_add_lanes(x, s.in, false, at, n, &one);
                shift_add_avx512(s.h, s.in, false, at, n, &other);
                assert_memory_equal(x + at, s.h + at, (size_t)n * sizeof *x);
                assert_memory_equal(x + at, raw + at, (size_t)n * sizeof *x);
            }
            assert_true(one.top_h == other.top_h && one.top_y == other.top_y);
            assert_close(shift_sums_centre(&other), shift_sums_centre(&one), 2e-6, "centre", s.n_host);
            assert_true(none.top_h == -INFINITY && none.sum_h == 0);
            const shift_span span = {.least = -100, .most = 2}, plain = shift_span_plain(s.h, s.n_host - 1), fast = shift_span_lanes(s.h, s.n_host - 1);
            assert_true(plain.least == fast.least && plain.most == fast.most && !plain.odd && !fast.odd);
            shift_best narrow = SHIFT_NO_BEST, wide = SHIFT_NO_BEST;
            for (int32_t at = 0; at < s.n_host; at += SHIFT_BLOCK) {
                const int32_t n = s.n_host - at < SHIFT_BLOCK ? s.n_host - at : SHIFT_BLOCK;
                shift_look_lanes(s.h, s.in, &span, at, n, &narrow);
                shift_look_avx512(s.h, s.in, &span, at, n, &wide);
            }
            assert_int_equal(wide.id, narrow.id);
            assert_true(wide.top == narrow.top && wide.next == narrow.next && wide.free == narrow.free && wide.bar == narrow.bar);
            shift_centre_avx512(s.h, s.map[0], 0, s.n_host, 1.5);
            for (int32_t i = 0; i < s.n_host; i++)
                assert_true(s.h[i] == (s.map[0]->to[i] < 0 ? x[i] : x[i] - 1.5f));
            free_scene(&s);
        }
    }
}
#else
static void additions_agree(void **state) {
    (void)state;
    skip();
}
#endif

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_both_equal_the_page),
        cmocka_unit_test(test_huge_host_logits),
        cmocka_unit_test(test_banned_tokens_stay_banned),
        cmocka_unit_test(test_no_mass_to_centre_by),
        cmocka_unit_test(test_log_sum),
        cmocka_unit_test(test_unmapped_tokens_keep_their_probability),
        cmocka_unit_test(test_additive_constant_of_a_delta_is_nothing),
        cmocka_unit_test(test_order_of_deltas_is_nothing),
        cmocka_unit_test(test_no_delta_changes_no_bit),
        cmocka_unit_test(test_transpose_is_the_gradient),
        cmocka_unit_test(test_transposes_agree),
        cmocka_unit_test(parts_are_the_whole),
        cmocka_unit_test(test_best_is_the_shifts),
        cmocka_unit_test(test_best_is_found_anywhere),
        cmocka_unit_test(test_best_of_near_things),
        cmocka_unit_test(additions_agree),
    };
    return cmocka_run_group_tests_name("shift", tests, NULL, NULL);
}
