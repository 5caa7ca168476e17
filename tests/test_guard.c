/* Guards: the bounds by hand, against a search written out in long double, and as properties; the gate of markers and schedule; streams
 * and scores that go by them. */
#include "tests/steered.h"

#include <math.h>

#include "base/mem.h"
#include "runtime/model.h"
#include "tokenmap/shift_bound.h"

typedef void bounded_fn(float *, int32_t, const shift_in *, size_t, bool, const shift_bounds *, float *);
static bounded_fn *const BOTH[] = {shift_apply_bounded_plain, shift_apply_bounded};

/* --------------------------------------------------------------------------------------------------- by hand */

/* Four tokens that map to themselves: what steering would make of p, and what it makes of it within the bounds. */
static void by_hand(const double p[4], const double steered[4], shift_bounds b, const double want[4]) {
    cmc_map *map;
    assert_int_equal(map_new(4, 4, &map, NULL), CMC_OK);
    for (int32_t i = 0; i < 4; i++) map_set(map, i, i, CMC_HOW_EXACT, 0);
    map_finish(map);
    for (size_t f = 0; f < 2; f++) {
        float h[4], d[4], work[8];
        for (int i = 0; i < 4; i++) {
            h[i] = (float)log(p[i]) + 3;
            d[i] = (float)log(steered[i] / p[i]) - 5; /* both up to a constant */
        }
        BOTH[f](h, 4, &(shift_in){map, 1, d}, 1, false, &b, work);
        for (int i = 0; i < 4; i++) {
            double got = exp((double)h[i] - 3);
            if (fabs(got - want[i]) > 1e-5) fail_msg("token %d: %.6f, should be %.6f", i, got, want[i]);
        }
    }
    cmc_map_free(map);
}

static void test_by_hand(void **state) {
    (void)state;
    const double p[4] = {0.5, 0.25, 0.125, 0.125}, q[4] = {0.02, 0.08, 0.45, 0.45}, even[4] = {0.25, 0.25, 0.25, 0.25};
    by_hand(p, q, (shift_bounds){0, log(2)}, even); /* the last two at most double, the first at least halves, the second gets the rest */
    by_hand(p, q, (shift_bounds){0, INFINITY}, q);
    by_hand(p, q, (shift_bounds){0, 0}, p);
    const double r[4] = {0.6, 0.3, 0.08, 0.02}, up[4] = {0.1, 0.2, 0.3, 0.4};
    by_hand(r, up, (shift_bounds){0.1, INFINITY}, (double[4]){0.98 / 6, 0.98 / 3, 0.49, 0.02}); /* below 0.06: the last */
    by_hand(r, up, (shift_bounds){0.2, INFINITY}, (double[4]){0.3, 0.6, 0.08, 0.02});           /* below 0.12: two */
    by_hand(r, up, (shift_bounds){1, INFINITY}, r);           /* only the first may rise, and it falls: nothing can move */
    by_hand(r, (double[4]){0.5, 0.3, 0.199, 0.001}, (shift_bounds){0.1, INFINITY}, (double[4]){0.5, 0.3, 0.199, 0.001}); /* it falls */
    by_hand(r, up, (shift_bounds){0.1, log(2)}, (double[4]){0.3, 0.52, 0.16, 0.02});  /* first halves, third doubles, second gets the rest */
}

/* ------------------------------------------------------------------------------------------------ random scenes */

enum { MAX_DELTAS = 3 };

typedef struct scene {
    int32_t n;
    size_t n_deltas;
    shift_in in[MAX_DELTAS];
    cmc_map *map[MAX_DELTAS];
    float *d[MAX_DELTAS], *h, *work;
    float top;               /* the greatest of h */
} scene;

static double between(uint64_t *random, double lo, double hi) {
    return lo + (hi - lo) * (double)(steered_random(random) >> 11) / 0x1p53;
}

static scene make_scene(int32_t n, size_t n_deltas, double mapped, double scale, bool banned, uint64_t *random) {
    scene s = {.n = n, .n_deltas = n_deltas, .top = -INFINITY};
    s.h = malloc((size_t)n * sizeof(float));
    s.work = malloc(2 * (size_t)n * sizeof(float));
    for (int32_t i = 0; i < n; i++) {
        s.h[i] = i > 0 && i == n / 2 && banned ? -INFINITY : (float)between(random, -9, 9);
        s.top = fmaxf(s.top, s.h[i]);
    }
    for (size_t k = 0; k < n_deltas; k++) {
        int32_t n_delta = 1 + (int32_t)(steered_random(random) % 300);
        assert_int_equal(map_new(n, n_delta, &s.map[k], NULL), CMC_OK);
        s.d[k] = malloc((size_t)n_delta * sizeof(float));
        for (int32_t j = 0; j < n_delta; j++) s.d[k][j] = (float)(scale * between(random, -6, 6));
        for (int32_t i = 0; i < n; i++) {
            if (between(random, 0, 1) < mapped)
                map_set(s.map[k], i, (int32_t)(steered_random(random) % (uint64_t)n_delta), CMC_HOW_EXACT, 0);
        }
        map_finish(s.map[k]);
        s.in[k] = (shift_in){s.map[k], (float)between(random, -2, 2), s.d[k]};
    }
    return s;
}

static void free_scene(scene *s) {
    for (size_t k = 0; k < s->n_deltas; k++) {
        cmc_map_free(s->map[k]);
        free(s->d[k]);
    }
    free(s->h);
    free(s->work);
}

static float *steer(scene *s, bounded_fn *apply, const shift_bounds *b, bool raw) {
    float *out = malloc((size_t)s->n * sizeof *out);
    memcpy(out, s->h, (size_t)s->n * sizeof *out);
    if (b) apply(out, s->n, s->in, s->n_deltas, raw, b, s->work);
    else shift_apply_plain(out, s->n, s->in, s->n_deltas, raw, s->work);
    return out;
}

static bool is_mapped(const scene *s, int32_t i) {
    for (size_t k = 0; k < s->n_deltas; k++) {
        if (s->map[k]->to[i] >= 0) return true;
    }
    return false;
}

/* The bound on a rise; *at_border: so near the threshold that rounding decides. */
static double rise_of(const scene *s, const shift_bounds *b, int32_t i, bool *at_border) {
    double above = (double)s->h[i] - (double)s->top - log(b->plausible);
    *at_border = fabs(above) < 1e-5;
    return above >= 0 ? b->limit : 0;
}

/* What the bounds leave of the unbounded shifts, by halving. */
static void reference(const scene *s, const float *unbounded, const shift_bounds *b, double *out) {
    long double low = -1e7L, high = 1e7L;
    for (int turn = 0; turn <= 400; turn++) {
        long double c = low + (high - low) / 2, over = 0;
        for (int32_t i = 0; i < s->n; i++) {
            bool border;
            long double v = (long double)unbounded[i] - (long double)s->h[i] - c, rise = rise_of(s, b, i, &border);
            out[i] = 0;
            if (!is_mapped(s, i) || s->h[i] == -INFINITY) continue;
            v = fminl(fmaxl(v, -(long double)b->limit), rise);
            out[i] = (double)v;
            over += expl((long double)s->h[i]) * expm1l(fminl(v, 1000));
        }
        if (over > 0) low = c;
        else high = c;
    }
}

static const shift_bounds BOUNDS[] = {{0.1, INFINITY}, {0, 0.5}, {0.05, 1.5}, {1e-4, 3}, {1, 2}, {0, 8}};
enum { N_BOUNDS = sizeof BOUNDS / sizeof *BOUNDS };

/* Both versions do what the page says. */
static void test_as_written(void **state) {
    (void)state;
    static const int32_t SIZES[] = {1, 3, 8, 17, 100, 513, 1100};
    uint64_t random = 1;
    for (size_t i = 0; i < sizeof SIZES / sizeof *SIZES; i++) {
        for (size_t k = 0; k < 3 * N_BOUNDS; k++) {
            const shift_bounds *b = &BOUNDS[k / 3];
            scene s = make_scene(SIZES[i], 1 + k % 3, k % 2 ? 0.6 : 1, 1, k % 4 == 3, &random);
            double *want = malloc((size_t)s.n * sizeof *want);
            float *unbounded = steer(&s, NULL, NULL, false);
            reference(&s, unbounded, b, want);
            for (size_t f = 0; f < 2; f++) {
                float *got = steer(&s, BOTH[f], b, false);
                for (int32_t t = 0; t < s.n; t++) {
                    bool border;
                    rise_of(&s, b, t, &border);
                    if (s.h[t] == -INFINITY) assert_true(got[t] == -INFINITY);
                    else if (!border && fabs((double)got[t] - (double)s.h[t] - want[t]) > 3e-5)
                        fail_msg("%d tokens, bounds %g and %g, token %d: %g, should be %g", (int)s.n, b->plausible, b->limit, (int)t,
                                 (double)got[t] - (double)s.h[t], want[t]);
                }
                free(got);
            }
            free(want);
            free(unbounded);
            free_scene(&s);
        }
    }
}

static double mass_of(const scene *s, const float *x) {
    double sum = 0;
    for (int32_t i = 0; i < s->n; i++) {
        if (is_mapped(s, i)) sum += exp((double)x[i]);
    }
    return sum;
}

/* What is promised, whatever the deltas: also where they shift by millions. */
static void test_promises(void **state) {
    (void)state;
    uint64_t random = 2;
    int held = 0, fell = 0;
    for (int turn = 0; turn < 72; turn++) {
        const shift_bounds *b = &BOUNDS[turn % N_BOUNDS];
        scene s = make_scene(700, 1 + (size_t)turn % 3, 0.7, turn % 4 == 0 ? 1e5 : turn % 4, false, &random);
        for (size_t f = 0; f < 2; f++) {
            float *x = steer(&s, BOTH[f], b, false);
            for (int32_t i = 0; i < s.n; i++) {
                bool border;
                double moved = (double)x[i] - (double)s.h[i], rise = rise_of(&s, b, i, &border);
                if (!is_mapped(&s, i)) assert_true(memcmp(&x[i], &s.h[i], sizeof x[i]) == 0);
                assert_true(fabs(moved) <= b->limit + 2e-6);
                assert_true(border || moved <= rise + 2e-6);
                held += rise <= 0 && !(moved < 0);
                fell += rise <= 0 && moved < -0.1;
            }
            if (turn % 4) assert_true(fabs(mass_of(&s, x) / mass_of(&s, s.h) - 1) < 1e-5);
            free(x);
        }
        free_scene(&s);
    }
    assert_true(held > 1000 && fell > 1000); /* tokens below the threshold, of both kinds */
}

static void assert_near(const float *a, const float *b, int32_t n, double tolerance) {
    for (int32_t i = 0; i < n; i++) {
        if (fabs((double)a[i] - (double)b[i]) > tolerance) fail_msg("token %d: %g and %g", (int)i, (double)a[i], (double)b[i]);
    }
}

/* A limit of 0 leaves every bit; bounds that are far away leave the shift; a delta's constant and the deltas' order mean nothing. */
static void test_identities(void **state) {
    (void)state;
    uint64_t random = 3;
    for (size_t f = 0; f < 2; f++) {
        for (size_t k = 0; k < N_BOUNDS; k++) {
            scene s = make_scene(900, 3, 0.6, 1, false, &random);
            float *free_ = steer(&s, NULL, NULL, false), *none = steer(&s, BOTH[f], &(shift_bounds){0, 0}, false),
                  *wide = steer(&s, BOTH[f], &(shift_bounds){1e-30, 1e3}, false), *before = steer(&s, BOTH[f], &BOUNDS[k], false);
            assert_memory_equal(none, s.h, (size_t)s.n * sizeof *none);
            assert_near(wide, free_, s.n, 2e-5);
            for (size_t i = 0; i < 3; i++) {
                for (int32_t j = 0; j < s.map[i]->n_delta; j++) s.d[i][j] += 16 * (float)(i + 1);
            }
            float *constant = steer(&s, BOTH[f], &BOUNDS[k], false);
            assert_near(constant, before, s.n, 5e-5);
            shift_in first = s.in[0];
            s.in[0] = s.in[2];
            s.in[2] = first;
            float *order = steer(&s, BOTH[f], &BOUNDS[k], false);
            assert_near(order, constant, s.n, 5e-5);
            free(free_); free(none); free(wide); free(before); free(constant); free(order);
            free_scene(&s);
        }
    }
}

/* Without centres the bounds are on what is added. */
static void test_raw(void **state) {
    (void)state;
    uint64_t random = 4;
    const shift_bounds b = {0.05, 1};
    scene s = make_scene(300, 2, 0.6, 1, false, &random);
    float *free_ = steer(&s, NULL, NULL, true);
    for (size_t f = 0; f < 2; f++) {
        float *x = steer(&s, BOTH[f], &b, true);
        for (int32_t i = 0; i < s.n; i++) {
            bool border;
            double want = (double)free_[i] - (double)s.h[i], rise = rise_of(&s, &b, i, &border);
            assert_true(border || fabs((double)x[i] - (double)s.h[i] - fmin(fmax(want, -b.limit), rise)) < 1e-5);
        }
        free(x);
    }
    free(free_);
    free_scene(&s);
}

/* ----------------------------------------------------------------------------------------------------- the gate */

enum { MAX_TOKENS = 16 };

typedef struct gate_case {
    cmc_guards set;
    const char *lead, *tokens[MAX_TOKENS];
    double scale[MAX_TOKENS];   /* before each of them */
} gate_case;

#define NOT_SET .shift_limit = INFINITY, .alpha_length = -1

static void test_gate(void **state) {
    (void)state;
    static const gate_case CASES[] = {
        {{NOT_SET}, "", {"a", "b", "c"}, {1, 1, 1}},
        {{.shift_limit = INFINITY, .alpha_start = 1, .alpha_length = 2}, "", {"a", "b", "", "c", "d"}, {0, 1, 1, 0, 0}},
        {{.shift_limit = INFINITY, .alpha_length = 0}, "", {"a", "b"}, {0, 0}},
        {{.shift_limit = INFINITY, .alpha_length = 1, .alpha_decay = 0.5}, "", {"a", "b", "c", "d"}, {1, 0.5, 0.25, 0.125}},
        {{.shift_limit = INFINITY, .alpha_start = 2, .alpha_length = 0, .alpha_decay = 0.5}, "", {"a", "b", "c", "d"}, {0, 0, 0.5, 0.25}},
        {{.shift_limit = INFINITY, .alpha_length = 1, .alpha_decay = 1}, "", {"a", "b", "c"}, {1, 1, 1}},
        {{NOT_SET, .from = ": "}, "", {"so", ":", " ", "yes", "no"}, {0, 0, 0, 1, 1}},
        {{NOT_SET, .from = ": "}, "", {"so: yes", "no"}, {0, 1}},
        {{NOT_SET, .until = "\n"}, "", {"a", "b\nc", "d", "\n", "e"}, {1, 1, 0, 0, 0}},
        {{NOT_SET, .from = "<", .until = ">"}, "", {"a", "<", "b", ">", "c", "<d", "e"}, {0, 0, 1, 1, 0, 0, 1}},
        {{NOT_SET, .from = "<", .until = ">"}, "", {"<a>", "b", "<c><", "d"}, {0, 0, 0, 1}},
        {{NOT_SET, .from = "```", .until = "```"}, "", {"``", "`", "x", "``", "``", "y"}, {0, 0, 1, 1, 1, 0}},
        {{NOT_SET, .from = "aab"}, "", {"a", "a", "ab", "c"}, {0, 0, 0, 1}},
        {{.shift_limit = INFINITY, .alpha_start = 1, .alpha_length = 1, .from = "<", .until = ">"}, "",
         {"a", "<", "b", "c", "d", ">", "<", "e", "f", "g"}, {0, 0, 0, 1, 0, 0, 0, 0, 1, 0}},
        {{NOT_SET, .from = " a"}, " ", {" a", "b", " ab", "c"}, {0, 0, 0, 1}},
        {{NOT_SET, .from = "a"}, " ", {" ", "a", "c"}, {0, 0, 1}},
        {{NOT_SET, .from = "a"}, " ", {"", "a", "c"}, {0, 0, 1}},
    };
    for (size_t i = 0; i < sizeof CASES / sizeof *CASES; i++) {
        cmc_error err = {0};
        guards g;
        OK(guards_init(&g, &CASES[i].set, &err));
        gate at = gate_start(&g, CASES[i].lead);
        for (size_t t = 0; CASES[i].tokens[t]; t++) {
            if (fabs(gate_scale(&at) - CASES[i].scale[t]) > 1e-12)
                fail_msg("case %zu, token %zu: %g, should be %g", i, t, gate_scale(&at), CASES[i].scale[t]);
            gate_push(&at, (const uint8_t *)CASES[i].tokens[t], strlen(CASES[i].tokens[t]));
        }
        guards_free(&g);
    }
}

/* Where a text of so many bytes opens the gate, by looking for whole markers. */
static bool open_after(const char *text, size_t n, const char *from, const char *until) {
    bool open = false;
    for (size_t at = 0;;) {
        const char *marker = open ? until : from, *hit = memmem(text + at, n - at, marker, strlen(marker));
        if (!hit) return open;
        open = !open;
        at = (size_t)(hit - text) + strlen(marker);
    }
}

/* However the text is cut into tokens, and however markers overlap themselves. */
static void test_markers_anywhere(void **state) {
    (void)state;
    uint64_t random = 5;
    size_t opened = 0;
    for (int turn = 0; turn < 3000; turn++) {
        cmc_error err = {0};
        char text[40], marker[2][6] = {"", ""};
        for (size_t i = 0; i < sizeof text; i++) text[i] = (char)('a' + steered_random(&random) % 2);
        for (size_t m = 0; m < 2; m++) {
            size_t n = 1 + steered_random(&random) % 5;
            for (size_t i = 0; i < n; i++) marker[m][i] = (char)('a' + steered_random(&random) % 2);
        }
        guards g;
        OK(guards_init(&g, &(cmc_guards){NOT_SET, .from = marker[0], .until = marker[1]}, &err));
        gate at = gate_start(&g, "");
        for (size_t i = 0; i < sizeof text;) {
            size_t n = steered_random(&random) % 4;
            if (n > sizeof text - i) n = sizeof text - i;
            gate_push(&at, (const uint8_t *)text + i, n);
            i += n;
            bool open = open_after(text, i, marker[0], marker[1]);
            assert_true((gate_scale(&at) > 0) == open);
            opened += open;
        }
        guards_free(&g);
    }
    assert_true(opened > 1000);
}

static void test_refusals(void **state) {
    (void)state;
    static const struct { cmc_guards set; const char *what; } BAD[] = {
        {{NOT_SET, .plausible = -0.1}, "plausible"},
        {{NOT_SET, .plausible = 1.5}, "plausible"},
        {{NOT_SET, .plausible = NAN}, "plausible"},
        {{.alpha_length = -1, .shift_limit = -1}, "shift_limit"},
        {{.alpha_length = -1, .shift_limit = NAN}, "shift_limit"},
        {{NOT_SET, .alpha_start = -1}, "alpha_start"},
        {{.shift_limit = INFINITY, .alpha_length = -2}, "alpha_length"},
        {{.shift_limit = INFINITY, .alpha_length = 3, .alpha_decay = 1.1}, "alpha_decay"},
        {{.shift_limit = INFINITY, .alpha_length = 3, .alpha_decay = -0.1}, "alpha_decay"},
        {{NOT_SET, .alpha_decay = 0.5}, "alpha_length"},
        {{NOT_SET, .from = ""}, "marker"},
        {{NOT_SET, .from = "a", .until = ""}, "marker"},
    };
    for (size_t i = 0; i < sizeof BAD / sizeof *BAD; i++) {
        cmc_error err = {0};
        guards g;
        assert_int_equal(guards_init(&g, &BAD[i].set, &err), CMC_E_ARG);
        assert_non_null(strstr(err.message, BAD[i].what));
        guards_free(&g);
    }
    cmc_error err = {0};
    cmc_guards off = cmc_guards_defaults();
    guards g;
    OK(guards_init(&g, &off, &err));
    assert_false(g.bounded);
    guards_free(&g);
}

/* ---------------------------------------------------------------------------------------------------- streams */

typedef struct fixture {
    char *dir;
    cmc_runtime *rt;
    cmc_model *host, *delta;
} fixture;

static int setup(void **state) {
    static fixture f;
    cmc_error err = {0};
    f.dir = tiny_dir_new();
    OK(cmc_runtime_open(&(cmc_runtime_opts){.threads = 2, .output = CMC_OUTPUT_SCREENED}, &f.rt, &err));
    f.host = steered_model(f.rt, f.dir, &(tiny_spec){.arch = "gemma3", .type = CMC_Q8_0, .tied = true, .seed = 1});
    f.delta = steered_model(f.rt, f.dir, &(tiny_spec){.arch = "llama", .n_learnt = 150, .seed = 3});
    *state = &f;
    return 0;
}

static int teardown(void **state) {
    fixture *f = *state;
    cmc_model_free(f->host);
    cmc_model_free(f->delta);
    cmc_runtime_free(f->rt);
    tiny_dir_free(f->dir);
    return 0;
}

enum { STEPS = 12 };

/* The rows that a stream chose its tokens by, and the tokens: always the same, so that streams can be compared. */
typedef struct tape { float *rows; size_t n, n_vocab; } tape;

static int32_t record(void *user, const float *logits, int32_t n) {
    tape *t = user;
    assert_true(t->n < STEPS);
    memcpy(t->rows + t->n * t->n_vocab, logits, t->n_vocab * sizeof *logits);
    return (int32_t)(40 + 11 * t->n++) % n;
}

static tape tape_of(const fixture *f, const cmc_guards *g, double alpha, bool unsteered) {
    cmc_error err = {0};
    cmc_steering *st;
    cmc_stream *s;
    cmc_message m[2];
    char question[] = "the cat";
    cmc_record r = steered_record(m, question, NULL);
    cmc_stream_opts o = {.unsteered = unsteered, .max_tokens = STEPS, .ignore_end = true, .sampling = cmc_sampling_defaults()};
    tape t = {.n_vocab = (size_t)cmc_model_n_vocab(f->host)};
    t.rows = calloc(STEPS * t.n_vocab, sizeof *t.rows);
    OK(cmc_steering_new(f->host, &(cmc_steering_opts){.guards = g}, &st, &err));
    OK(cmc_steering_add(st, f->delta, alpha, NULL, CMC_TMPL_AUTO, &err));
    OK(cmc_stream_new(st, &r, &o, &s, &err));
    stream_set_pick(s, record, &t);
    while (cmc_stream_stopped(s) == CMC_STOP_NONE) OK(cmc_streams_step(&s, 1, &err));
    assert_int_equal(t.n, STEPS);
    cmc_stream_free(s);
    cmc_steering_free(st);
    return t;
}

/* How many of the first rows two tapes have in common, bit for bit. */
static size_t same_rows(const tape *a, const tape *b) {
    size_t n = 0;
    while (n < STEPS && memcmp(a->rows + n * a->n_vocab, b->rows + n * a->n_vocab, a->n_vocab * sizeof *a->rows) == 0) n++;
    return n;
}

/* Guards that are off change no bit; nor does any on what is not steered; and a schedule begins and ends where it should. */
static void test_bits(void **state) {
    const fixture *f = *state;
    cmc_guards off = cmc_guards_defaults(), none = off, late = off, early = off, never = off;
    none.alpha_length = 0;
    late.alpha_start = 5;
    early.alpha_length = 3;
    never.from = "no such text";
    tape host = tape_of(f, NULL, 0, false), steered = tape_of(f, NULL, 1.5, false);
    assert_int_equal(same_rows(&host, &steered), 0);
    struct { const cmc_guards *g; double alpha; bool unsteered; const tape *as; size_t same; } cases[] = {
        {&off, 1.5, false, &steered, STEPS}, {&none, 1.5, false, &host, STEPS}, {&never, 1.5, false, &host, STEPS},
        {&late, 1.5, false, &host, 5},       {&early, 1.5, false, &steered, 3}, {&early, 1.5, true, &host, STEPS},
        {&(cmc_guards){.plausible = 0.1, .shift_limit = INFINITY, .alpha_length = -1}, 0, false, &host, STEPS},
        {&(cmc_guards){.plausible = 0.1, .shift_limit = INFINITY, .alpha_length = -1}, 1.5, true, &host, STEPS},
        {&(cmc_guards){.shift_limit = 0, .alpha_length = -1}, 1.5, false, &host, STEPS},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        tape t = tape_of(f, cases[i].g, cases[i].alpha, cases[i].unsteered);
        if (same_rows(&t, cases[i].as) != cases[i].same) fail_msg("case %zu: %zu rows are the same", i, same_rows(&t, cases[i].as));
        free(t.rows);
    }
    free(host.rows);
    free(steered.rows);
}

/* A host whose logits are estimated but for the greatest: which token is plausible goes by those of its output matrix all the same. */
static void test_screened(void **state) {
    const fixture *f = *state;
    cmc_error err = {0};
    const double plausible = 0.5; /* a tiny host's are nearly alike */
    size_t n = (size_t)cmc_model_n_vocab(f->host), held = 0, estimates = 0;
    tape t = tape_of(f, &(cmc_guards){.plausible = plausible, .shift_limit = INFINITY, .alpha_length = -1}, 3, false);
    tape screened = tape_of(f, NULL, 0, false);
    float *row = malloc(n * sizeof *row);
    cmc_message m[2];
    char question[] = "the cat";
    cmc_record r = steered_record(m, question, NULL);
    cmc_rendered prompt = {0};
    cmc_session *s;
    OK(cmc_render(cmc_model_vocab(f->host), cmc_template_resolve(CMC_TMPL_AUTO, cmc_model_vocab(f->host)), &r, false, &prompt, &err));
    OK(cmc_session_new(f->host, 0, &s, &err));
    OK(cmc_session_sync(s, prompt.ids.v, prompt.ids.n, &err));
    for (size_t step = 0; step < STEPS; step++) {
        OK(cmc_eval(f->host, &(cmc_eval_item){s, CMC_WANT_LOGITS, 1, row}, 1, &err));
        float top = -INFINITY;
        for (size_t i = 0; i < n; i++) top = fmaxf(top, row[i]);
        for (size_t i = 0; i < n; i++) {
            if ((double)row[i] >= (double)top + log(plausible) - 1e-6) continue;
            assert_true(t.rows[step * n + i] <= row[i]);
            held += !(t.rows[step * n + i] < row[i]);
        }
        estimates += memcmp(row, screened.rows + step * n, n * sizeof *row) != 0;
        OK(cmc_session_append(s, (int32_t)((40 + 11 * step) % n), &err));
    }
    assert_true(held > 0);
    if (strcmp(cmc_runtime_isa(f->rt), "avx512-vnni") == 0) assert_true(estimates > 0);
    cmc_session_free(s);
    cmc_rendered_free(&prompt);
    free(row);
    free(t.rows);
    free(screened.rows);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_by_hand),    cmocka_unit_test(test_as_written), cmocka_unit_test(test_promises),
        cmocka_unit_test(test_identities), cmocka_unit_test(test_raw),        cmocka_unit_test(test_gate),
        cmocka_unit_test(test_markers_anywhere), cmocka_unit_test(test_refusals), cmocka_unit_test(test_bits),
        cmocka_unit_test(test_screened),
    };
    return cmocka_run_group_tests_name("guard", tests, setup, teardown);
}
