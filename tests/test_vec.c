/* The vector kernels against the plain ones, at every length around their steps. */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "runtime/vec.h"

#define MAX 80

static float random_float(uint64_t *s, float range) {
    *s = *s * 6364136223846793005ULL + 1442695040888963407ULL;
    return ((float)(*s >> 40) / 8388608.0f - 1.0f) * range;
}

static void fill(float *x, size_t n, float range, uint64_t *s) {
    for (size_t i = 0; i < n; i++)
        x[i] = random_float(s, range);
}

static void close_to(const float *a, const float *b, size_t n, float tolerance, const char *what) {
    for (size_t i = 0; i < n; i++)
        if (!(fabsf(a[i] - b[i]) <= tolerance * (1.0f + fabsf(b[i]))))
            fail_msg("%s: %g against %g at %zu of %zu", what, (double)a[i], (double)b[i], i, n);
}

static void elementwise(void **state) {
    (void)state;
    const vec_ops *v = vec_fast();
    if (v == &vec_plain) {
        printf("SKIP elementwise: no vector kernels for this machine\n");
        return;
    }
    uint64_t seed = 1;
    float x[MAX], y[MAX], w[MAX], a[MAX + 1], b[MAX + 1];
    for (size_t n = 1; n < MAX; n++) {
        fill(x, n, 6, &seed);
        fill(y, n, 3, &seed);
        fill(w, n, 2, &seed);
        const struct {
            const char *name;
            void (*fast)(float *, const float *, size_t), (*plain)(float *, const float *, size_t);
        } table[] = {{"add", v->add, vec_plain.add},
                     {"silu_mul", v->silu_mul, vec_plain.silu_mul},
                     {"gelu_mul", v->gelu_mul, vec_plain.gelu_mul}};
        for (size_t i = 0; i < sizeof table / sizeof *table; i++) {
            memcpy(a, x, n * sizeof *a);
            memcpy(b, x, n * sizeof *b);
            a[n] = b[n] = 77;
            table[i].fast(a, y, n);
            table[i].plain(b, y, n);
            close_to(a, b, n + 1, 1e-6f, table[i].name);
        }
        v->rms_norm(a, x, w, n, 1e-5f);
        vec_plain.rms_norm(b, x, w, n, 1e-5f);
        close_to(a, b, n, 1e-6f, "rms_norm");
        v->mul(a, x, w, n);
        for (size_t i = 0; i < n; i++)
            assert_true(a[i] == x[i] * w[i]);
        memcpy(a, x, n * sizeof *a);
        v->scale(a, 1.5f, n);
        for (size_t i = 0; i < n; i++)
            assert_true(a[i] == x[i] * 1.5f);
        assert_true(v->max(x, n) == vec_plain.max(x, n));
        memcpy(a, x, n * sizeof *a);
        memcpy(b, x, n * sizeof *b);
        const float shift = vec_plain.max(x, n), sa = v->exp_sum(a, n, shift), sb = vec_plain.exp_sum(b, n, shift);
        close_to(a, b, n, 1e-6f, "exp");
        close_to(&sa, &sb, 1, 1e-6f, "exp_sum");
    }
}

/* Which values are above a bound, and how many in each bin below a top: of ordinary ones, and of those that are neither. */
static void above_and_depths(void **state) {
    (void)state;
    const vec_ops *const all[] = {&vec_plain, vec_fast()};
    uint64_t seed = 3;
    float x[MAX];
    for (size_t n = 0; n < MAX; n++) {
        fill(x, n, 20, &seed);
        if (n > 60) {
            x[3] = NAN;
            x[11] = INFINITY;
            x[20] = -INFINITY;
            x[50] = 5;
        }
        for (size_t k = 0; k < 2; k++) {
            uint32_t at[MAX + 1], bins[VEC_BINS + 1] = {[7] = 3}, want[VEC_BINS + 1] = {[7] = 3};
            at[n] = 77;
            const size_t found = all[k]->above(at, x, n, 5, 1000);
            all[k]->depths(bins, x, n, 19.5f, 8);
            size_t seen = 0;
            for (size_t i = 0; i < n; i++) {
                if (x[i] > 5)
                    assert_true(seen < found && at[seen++] == 1000 + i);
                const double depth = (19.5 - (double)x[i]) * 8;
                want[depth < VEC_BINS ? depth > 0 ? (size_t)depth : 0 : VEC_BINS]++;
            }
            assert_int_equal(found, seen);
            assert_int_equal(at[n], 77);
            assert_memory_equal(bins, want, sizeof bins);
        }
    }
}

/* Extremes: gates far from 0 saturate rather than overflow. */
static void extremes(void **state) {
    (void)state;
    const vec_ops *const all[] = {&vec_plain, vec_fast()};
    for (size_t k = 0; k < 2; k++) {
        float x[8] = {-1e4f, -200, -90, 0, 90, 200, 1e4f, 1e-30f}, g[8], one[8];
        const float want[8] = {0, 0, 0, 0, 90, 200, 1e4f, 0};
        for (size_t i = 0; i < 8; i++)
            one[i] = 1;
        memcpy(g, x, sizeof g);
        all[k]->silu_mul(g, one, 8);
        close_to(g, want, 8, 1e-6f, "silu");
        memcpy(g, x, sizeof g);
        all[k]->gelu_mul(g, one, 8);
        close_to(g, want, 8, 1e-6f, "gelu");
        float e[8] = {-1e30f, -500, -100, -1, 0, -2, -3, -INFINITY};
        const float sum = all[k]->exp_sum(e, 8, 0);
        const float expect = expf(-1) + 1 + expf(-2) + expf(-3);
        close_to(&sum, &expect, 1, 1e-6f, "exp of very small numbers");
    }
}

static void panels(void **state) {
    (void)state;
    const vec_ops *v = vec_fast();
    if (v == &vec_plain) {
        printf("SKIP panels: no vector kernels for this machine\n");
        return;
    }
    uint64_t seed = 2;
    float a[VEC_TILE_ROWS * MAX], b[MAX * VEC_PANEL], c[VEC_TILE_ROWS * 20], d[VEC_TILE_ROWS * 20];
    for (size_t rows = 1; rows <= VEC_TILE_ROWS; rows++)
        for (size_t k = 0; k < MAX; k++)
            for (int add = 0; add < 2; add++) {
                fill(a, VEC_TILE_ROWS * MAX, 1, &seed);
                fill(b, MAX * VEC_PANEL, 1, &seed);
                fill(c, VEC_TILE_ROWS * 20, 1, &seed);
                memcpy(d, c, sizeof d);
                v->panel(c, 20, a, MAX, b, rows, k, add);
                vec_plain.panel(d, 20, a, MAX, b, rows, k, add);
                close_to(c, d, VEC_TILE_ROWS * 20, 1e-5f, "panel"); /* what lies beyond is untouched in both */
                uint16_t half[MAX * VEC_PANEL];
                v->to_half(half, b, MAX * VEC_PANEL);
                memcpy(c, d, sizeof d);
                v->panel_half(c, 20, a, MAX, half, rows, k, add);
                vec_plain.panel_half(d, 20, a, MAX, half, rows, k, add);
                close_to(c, d, VEC_TILE_ROWS * 20, 1e-5f, "panel of float16");
                int8_t bytes[MAX * VEC_PANEL];
                for (size_t i = 0; i < MAX * VEC_PANEL; i++)
                    bytes[i] = (int8_t)(127 * b[i]);
                for (int scaled = 0; scaled < 2; scaled++) {
                    memcpy(c, d, sizeof d);
                    v->panel_int8(c, 20, a, MAX, bytes, scaled ? b : NULL, rows, k, add);
                    vec_plain.panel_int8(d, 20, a, MAX, bytes, scaled ? b : NULL, rows, k, add);
                    close_to(c, d, VEC_TILE_ROWS * 20, 2e-4f, "panel of int8"); /* of sums that are 127 times as large */
                }
            }
}

/* To the nearest float16, the largest finite ones where there is none; NaN stays. */
static void halves(void **state) {
    (void)state;
    const vec_ops *const all[] = {&vec_plain, vec_fast()};
    const float x[11] = {0, -0.0f, 1, -1.0009765f, 65504, 65519, 70000, -1e30f, INFINITY, -INFINITY, NAN};
    const uint16_t want[10] = {0, 0x8000, 0x3c00, 0xbc01, 0x7bff, 0x7bff, 0x7bff, 0xfbff, 0x7bff, 0xfbff};
    for (size_t k = 0; k < 2; k++) {
        uint16_t y[22];
        float twice[22];
        memcpy(twice, x, sizeof x);
        memcpy(twice + 11, x, sizeof x);
        all[k]->to_half(y, twice, 22);
        for (size_t i = 0; i < 22; i++)
            assert_true(i % 11 < 10 ? y[i] == want[i % 11] : (y[i] & 0x7c00) == 0x7c00 && (y[i] & 0x3ff) != 0);
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(elementwise),
        cmocka_unit_test(above_and_depths),
        cmocka_unit_test(extremes),
        cmocka_unit_test(panels),
        cmocka_unit_test(halves),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
