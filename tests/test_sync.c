/* Synchronisation as a property: whatever a host emits, a delta's ids are those of tokenising the whole text, only the
 * changed tail is evaluated, and its logits are those of an evaluation from scratch.
 *
 * A walk emits host tokens: prose, any token at all, bytes of no character, control tokens, long unbroken runs, one
 * token over and over. After every step the delta's context is compared with its definition: the ids of a text of up to
 * WHOLE_CHECK bytes each time, of a longer one at random so that WHOLE_CHECK bytes are tokenised a step on average, and
 * always at its end. Deltas with a model are evaluated at each step on the kept cache, and now and then anew.
 *
 * CMC_SYNC_STEPS: how many steps in all. CMC_TEST_SMOLLM2, CMC_TEST_GEMMA: GGUF files, CMC_TEST_LLAMA_VOCABS: a
 * directory of ggml-vocab-*.gguf; each vocabulary is paired with the next, both ways. */
#include "tests/sanitized.h"
#include "tests/steered.h"
#include "tests/vocab_help.h"

#include <glob.h>
#include <math.h>

#include "runtime/follow.h"
#include "runtime/model.h"

enum { MAX_TONGUES = 32, WHOLE_CHECK = 1200, LOGITS_EVERY = 64, ENOUGH = 400, DEFAULT_STEPS = SANITIZED ? 20000 : 60000 };

/* A vocabulary, with what a walk looks up in it. */
typedef struct tongue {
    char name[40];
    cmc_vocab *own;
    const cmc_vocab *v;
    cmc_model *m;             /* NULL: a vocabulary alone */
    cmc_ids control, stray;   /* stray: tokens whose bytes are not whole characters */
} tongue;

typedef struct tally {
    uint64_t steps, waits, rows, evaluated, anew, merged, scanned, checks, logits, cuts;
    size_t back;              /* the most tokens of a text that one step took back */
    double apart;             /* the most that a logit differed, by the largest logit */
} tally;

static void tongue_lists(tongue *t) {
    for (int32_t id = 0; id < cmc_vocab_size(t->v); id++) {
        size_t n;
        const uint8_t *b = cmc_vocab_bytes(t->v, id, &n);
        if (t->v->kind[id] == CMC_KIND_CONTROL) {
            assert_int_equal(cmc_ids_push(&t->control, id), CMC_OK);
        } else if (!cmc_utf8_valid(b, n)) {
            assert_int_equal(cmc_ids_push(&t->stray, id), CMC_OK);
        }
    }
}

static void tongue_free(tongue *t) {
    cmc_ids_free(&t->control);
    cmc_ids_free(&t->stray);
    cmc_vocab_free(t->own);
    cmc_model_free(t->m);
}

/* ---------------------------------------------------------------------------------------------- what is emitted */

typedef struct walk {
    const tongue *host, *delta;
    bool same;                /* the delta takes the host's ids */
    rng r;
    cmc_ids queue; size_t at; /* host tokens to be emitted */
    follow f;
    size_t n_prompt, n_ctx, skip;
    const char *host_lead, *delta_lead;
    text emitted, said;       /* the host's bytes; the delta's text by the rule of leads */
    cmc_ids ids;              /* the host's */
    cmc_ids last, want;       /* the delta's context at the last row; scratch */
    size_t limit;             /* bytes of this text */
    cmc_session *kept, *anew;
    float *row[2];
    tally t;
} walk;

static void push_text(walk *w, const text *t) {
    tokenize_must(w->host->v, t->s != NULL ? t->s : "", t->n, CMC_TOK_CONTINUE, &w->want);
    assert_int_equal(cmc_ids_append(&w->queue, w->want.v, w->want.n), CMC_OK);
}

/* `n` bytes or so in which boundaries are rare. */
static void add_long_run(text *t, rng *r, size_t n) {
    static const char *const units[] = {
        " ", "\n", " \n", "\t ", "=", "-", "the", "'ll", "e\xcc\x81\xcc\x82", "0", "aA", "\xc2\xa0 ",
        "\xf0\x9f\x91\xa8\xe2\x80\x8d\xf0\x9f\x91\xa9", "\xf0\x9f\x91\x8d\xf0\x9f\x8f\xbd", "\xe2\x96\x81",
        "\xe5\xb0\x8f\xe6\xa8\xa1\xe5\x9e\x8b", "abcdefghijklmnop",
    };
    static const char *const alphabets[] = {
        "abcdefghijklmnopqrstuvwxyz", "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/", "0123456789",
        "abcdefghijklmnopqrstuvwxyz0123456789/-_.%?=&", "0123456789abcdef", "[](){}<>=+-*/", "ab",
    };
    const uint32_t n_units = sizeof units / sizeof *units, n_alphabets = sizeof alphabets / sizeof *alphabets;
    uint32_t k = rng_below(r, 40);
    if (k >= n_units && rng_below(r, 2) != 0) {
        text_add(t, "https://", 8);
    }
    char letter = (char)('a' + rng_below(r, 26));
    for (size_t stop = t->n + n; t->n < stop;) {
        if (k < n_units) {
            text_add(t, units[k], strlen(units[k]));
        } else if (k < 32) {
            const char *a = alphabets[k % n_alphabets];
            text_add(t, &a[rng_below(r, (uint32_t)strlen(a))], 1);
        } else if (k < 36) {
            text_add_char(t, 0x4e00 + (int32_t)rng_below(r, k < 34 ? 40 : 20000));
        } else if (k < 38) {
            text_add_run(t, r, 30);
        } else {
            text_add(t, &letter, 1);
        }
    }
}

static int32_t any_of(walk *w, const cmc_ids *from) {
    return from->n > 0 ? from->v[rng_below(&w->r, (uint32_t)from->n)]
                       : (int32_t)rng_below(&w->r, (uint32_t)cmc_vocab_size(w->host->v));
}

static void push_tokens(walk *w, const cmc_ids *from, uint32_t n, bool same) {
    int32_t id = any_of(w, from);
    for (; n > 0; n--) {
        assert_int_equal(cmc_ids_push(&w->queue, id), CMC_OK);
        id = same ? id : any_of(w, from);
    }
}

static void refill(walk *w) {
    static const cmc_ids any = {0};
    text t = {0};
    rng *r = &w->r;
    const char *prose = tiny_text();
    w->queue.n = w->at = 0;
    switch (rng_below(r, 11)) {
    case 0: case 1: case 2: {
        size_t all = strlen(prose), n = 20 + rng_below(r, 300), from = rng_below(r, (uint32_t)(all - n));
        text_add(&t, prose + from, n); /* perhaps cut inside a character */
        break;
    }
    case 3: push_tokens(w, &any, 1 + rng_below(r, 20), false); break;
    case 4: push_tokens(w, &w->host->stray, 1 + rng_below(r, 6), false); break;
    case 5: push_tokens(w, &w->host->control, 1 + rng_below(r, 2), false); break;
    case 6: push_tokens(w, &any, 2 + rng_below(r, 30), true); break;
    case 7: case 8: add_long_run(&t, r, 20 + rng_below(r, 400)); break;
    default:
        for (uint32_t n = 1 + rng_below(r, 6); n > 0; n--) text_add_thing(&t, r, rng_below(r, 4) == 0);
    }
    if (t.n > 0) push_text(w, &t);
    free(t.s);
}

static int32_t next_token(walk *w) {
    while (w->at == w->queue.n) refill(w);
    return w->queue.v[w->at++];
}

/* ------------------------------------------------------------------------------------------------- the definition */

/* The text that the delta reads, from all that the host said (lead.h). */
static void say(walk *w) {
    w->said.n = 0;
    text_add(&w->said, "", 0);
    if (w->emitted.n == 0) return;
    bool differ = strcmp(w->host_lead, w->delta_lead) != 0;
    size_t drop = differ && *w->host_lead && w->emitted.s[0] == ' ';
    if (differ) text_add(&w->said, w->delta_lead, strlen(w->delta_lead));
    text_add(&w->said, w->emitted.s + drop, w->emitted.n - drop);
}

static void check_ids(walk *w, size_t have) {
    const cmc_ids *want = &w->ids;
    if (!w->same) {
        tokenize_must(w->delta->v, w->said.s, w->said.n, CMC_TOK_CONTINUE, &w->want);
        want = &w->want;
    }
    w->skip = 0;
    for (size_t n = 1, room = w->n_ctx - w->n_prompt; n <= want->n; n++) { /* as if it had grown token by token */
        if (n - w->skip > room) w->skip = n - room / 2;
    }
    assert_ids(w->said.s, w->said.n, w->f.ctx.v + w->n_prompt, have, want->v + w->skip, want->n - w->skip);
    w->t.checks++;
}

static void check_logits(walk *w) {
    cmc_error err = {0};
    OK(cmc_session_sync(w->anew, NULL, 0, &err));
    OK(cmc_session_sync(w->anew, w->f.ctx.v, w->f.ctx.n, &err));
    assert_int_equal(cmc_session_pending(w->anew), w->f.ctx.n);
    cmc_eval_item item = {.session = w->anew, .want = CMC_WANT_LOGITS, .n_rows = 1, .out = w->row[1]};
    OK(cmc_eval(w->delta->m, &item, 1, &err));
    double top = 0, apart = 0;
    for (int32_t i = 0; i < cmc_model_n_vocab(w->delta->m); i++) {
        top = fmax(top, fabs((double)w->row[1][i]));
        apart = fmax(apart, fabs((double)w->row[0][i] - (double)w->row[1][i]));
    }
    w->t.apart = fmax(w->t.apart, apart / top);
    w->t.logits++;
}

/* The delta's row on the cache that was kept: `evaluated` tokens and no more. */
static void evaluate(walk *w, size_t evaluated) {
    cmc_error err = {0};
    if (w->kept == NULL) return;
    OK(cmc_session_sync(w->kept, w->f.ctx.v, w->f.ctx.n, &err));
    assert_int_equal(cmc_session_pending(w->kept), evaluated);
    cmc_eval_item item = {.session = w->kept, .want = CMC_WANT_LOGITS, .n_rows = 1, .out = w->row[0]};
    OK(cmc_eval(w->delta->m, &item, 1, &err));
    if (w->t.rows % LOGITS_EVERY == 0) check_logits(w);
}

static void check_step(walk *w, bool last) {
    cmc_error err = {0};
    steering_row kind;
    OK(follow_context(&w->f, &kind, &err));
    say(w);
    const cmc_ids *ctx = &w->f.ctx;
    assert_true(ctx->n <= w->n_ctx);
    bool whole = w->same || cmc_utf8_whole((uint8_t *)w->said.s, w->said.n) == w->said.n;
    assert_int_equal(kind != STEERING_NO_ROW, whole && ctx->n > 0);
    if (!whole) { /* it waits, and nothing has changed */
        assert_true(ctx->n == w->last.n && (ctx->n == 0 || memcmp(ctx->v, w->last.v, ctx->n * sizeof *ctx->v) == 0));
        w->t.waits++;
        return;
    }
    size_t common = 0;
    while (common < ctx->n && common < w->last.n && ctx->v[common] == w->last.v[common]) common++;
    bool cut = w->f.skip != w->skip; /* also back, where re-tokenising makes the text fewer tokens */
    if (last || cut || w->said.n <= WHOLE_CHECK ||
        rng_below(&w->r, (uint32_t)w->said.n) < WHOLE_CHECK) {
        check_ids(w, ctx->n - w->n_prompt);
    }
    if (cut) {
        w->t.cuts++;
    } else if (w->last.n > common && w->last.n - common > w->t.back) {
        w->t.back = w->last.n - common;
    }
    if (ctx->n == 0) return;
    size_t evaluated = common < ctx->n ? ctx->n - common : 1; /* a row needs its last token evaluated */
    w->t.evaluated += evaluated;
    w->t.anew += ctx->n;
    evaluate(w, evaluated);
    w->t.rows++;
    w->last.n = 0;
    assert_int_equal(cmc_ids_append(&w->last, ctx->v, ctx->n), CMC_OK);
}

/* ------------------------------------------------------------------------------------------------------ the walk */

static void text_begin(walk *w) {
    static const char *const leads[] = {"", " "};
    uint32_t k = rng_below(&w->r, 20), n = (uint32_t)w->n_prompt;
    w->limit = k < 13 ? 100 + rng_below(&w->r, 500)
                      : k < 19 ? 600 + rng_below(&w->r, 1900) : 2500 + rng_below(&w->r, 3500);
    w->host_lead = leads[rng_below(&w->r, 2)];
    w->delta_lead = leads[rng_below(&w->r, 2)];
    w->n_prompt = n = rng_below(&w->r, 8);
    w->skip = w->emitted.n = w->ids.n = w->last.n = 0;
    w->f = (follow){.host = w->host->v, .n_prompt = n, .n_ctx = w->n_ctx, .host_lead = w->host_lead,
                    .delta_lead = w->delta_lead};
    for (; n > 0; n--) {
        int32_t id = (int32_t)rng_below(&w->r, (uint32_t)cmc_vocab_size(w->delta->v));
        assert_int_equal(cmc_ids_push(&w->f.ctx, id), CMC_OK);
    }
    assert_int_equal(cmc_ids_append(&w->last, w->f.ctx.v, w->f.ctx.n), CMC_OK);
    if (w->kept != NULL) { /* what follows is the response's alone: the prompt is evaluated already */
        cmc_error err = {0};
        OK(cmc_session_sync(w->kept, w->last.v, w->last.n, &err));
        cmc_eval_item item = {.session = w->kept, .want = CMC_WANT_LOGITS, .n_rows = w->last.n > 0, .out = w->row[0]};
        OK(cmc_eval(w->delta->m, &item, 1, &err));
    }
    if (!w->same) assert_int_equal(retok_new(w->delta->v, &w->f.rt, NULL), CMC_OK);
}

static void text_end(walk *w) {
    if (w->f.rt != NULL) {
        w->t.merged += retok_merged(w->f.rt);
        w->t.scanned += retok_scanned(w->f.rt);
    }
    follow_free(&w->f);
}

static void one_text(walk *w, uint64_t steps) {
    cmc_error err = {0};
    text_begin(w);
    for (bool last = false; !last;) {
        int32_t id = next_token(w);
        size_t n;
        const uint8_t *b = cmc_vocab_bytes(w->host->v, id, &n);
        assert_int_equal(cmc_ids_push(&w->ids, id), CMC_OK);
        text_add(&w->emitted, (const char *)b, n);
        OK(follow_push(&w->f, id, &err));
        last = ++w->t.steps >= steps || w->emitted.n >= w->limit;
        check_step(w, last);
    }
    text_end(w);
}

static void sessions_open(walk *w) {
    cmc_error err = {0};
    if (w->delta->m == NULL) return;
    OK(cmc_session_new(w->delta->m, 0, &w->kept, &err));
    OK(cmc_session_new(w->delta->m, 0, &w->anew, &err));
    for (int i = 0; i < 2; i++) {
        w->row[i] = malloc((size_t)cmc_model_n_vocab(w->delta->m) * sizeof *w->row[i]);
        assert_non_null(w->row[i]);
    }
}

static void walk_free(walk *w) {
    cmc_session_free(w->kept);
    cmc_session_free(w->anew);
    free(w->row[0]);
    free(w->row[1]);
    free(w->emitted.s);
    free(w->said.s);
    cmc_ids *all[] = {&w->queue, &w->ids, &w->last, &w->want};
    for (size_t i = 0; i < 4; i++) cmc_ids_free(all[i]);
}

static tally walk_pair(const tongue *host, const tongue *delta, uint64_t steps, size_t n_ctx) {
    walk w = {.host = host, .delta = delta, .n_ctx = n_ctx};
    for (const char *c = host->name; *c; c++) w.r.s = w.r.s * 31 + (uint8_t)*c; /* each pair walks on its own */
    for (const char *c = delta->name; *c; c++) w.r.s = w.r.s * 37 + (uint8_t)*c;
    w.same = cmc_vocab_equal(host->v, delta->v);
    sessions_open(&w);
    while (w.t.steps < steps) one_text(&w, steps);
    walk_free(&w);
    return w.t;
}

static void print_head(void) {
    printf("%-31s %8s %9s %9s %8s %8s %6s %5s %5s %6s %s\n", "host > delta", "steps", "evaluated", "anew", "merged",
           "scanned", "waits", "back", "cuts", "logits", "apart");
}

static void print_tally(const char *host, const char *delta, const tally *t) {
    double rows = t->rows > 0 ? (double)t->rows : 1, steps = (double)t->steps;
    char name[84];
    snprintf(name, sizeof name, "%s > %s", host, delta);
    printf("%-31s %8llu %9.2f %9.1f %8.1f %8.1f %6llu %5zu %5llu %6llu %.1e\n", name, (unsigned long long)t->steps,
           (double)t->evaluated / rows, (double)t->anew / rows, (double)t->merged / steps, (double)t->scanned / steps,
           (unsigned long long)t->waits, t->back, (unsigned long long)t->cuts, (unsigned long long)t->logits, t->apart);
    fflush(stdout);
}

static void tally_add(tally *to, const tally *t) {
    uint64_t *a[] = {&to->steps,  &to->waits,   &to->rows,   &to->evaluated, &to->anew,
                     &to->merged, &to->scanned, &to->checks, &to->logits,    &to->cuts};
    const uint64_t b[] = {t->steps,  t->waits,   t->rows,   t->evaluated, t->anew,
                          t->merged, t->scanned, t->checks, t->logits,    t->cuts};
    for (size_t i = 0; i < sizeof b / sizeof *b; i++) *a[i] += b[i];
    to->back = t->back > to->back ? t->back : to->back;
    to->apart = fmax(to->apart, t->apart);
}

/* ------------------------------------------------------------------------------------------------------- the pairs */

typedef struct fixture {
    char *dir;
    cmc_runtime *rt;
    tongue real[MAX_TONGUES]; size_t n_real;
    tally sum;
} fixture;

/* Parts of all steps that the groups of pairs get. */
enum { PART_MODELS = 2, PART_PRETOKENIZERS = 1, PART_ODD = 1, PART_REAL = 4 };

static uint64_t steps_of(const fixture *f, uint64_t part, uint64_t n_pairs) {
    const char *s = getenv("CMC_SYNC_STEPS");
    uint64_t all = s != NULL && *s != '\0' ? strtoull(s, NULL, 10) : (uint64_t)DEFAULT_STEPS;
    uint64_t parts = PART_MODELS + PART_PRETOKENIZERS + PART_ODD + (f->n_real > 1 ? PART_REAL : 0);
    return all * part / parts / n_pairs + 1;
}

static tongue tongue_of_model(const fixture *f, const char *name, tiny_spec spec) {
    tongue t = {.m = steered_model(f->rt, f->dir, &spec)};
    snprintf(t.name, sizeof t.name, "%s", name);
    t.v = cmc_model_vocab(t.m);
    tongue_lists(&t);
    return t;
}

static tongue tongue_of_vocab(const char *name, cmc_vocab *v) {
    tongue t = {.own = v, .v = v};
    snprintf(t.name, sizeof t.name, "%.*s", (int)sizeof t.name - 1, name);
    tongue_lists(&t);
    return t;
}

static void real_add(fixture *f, const char *name, const char *path) {
    cmc_error err = {0};
    cmc_vocab *v;
    if (f->n_real == MAX_TONGUES) return;
    if (cmc_vocab_open(path, &v, &err) != CMC_OK) {
        printf("left out: %s\n", err.message);
        return;
    }
    f->real[f->n_real++] = tongue_of_vocab(name, v);
}

static void real_add_dir(fixture *f, const char *dir) {
    char pattern[512];
    glob_t g;
    snprintf(pattern, sizeof pattern, "%s/ggml-vocab-*.gguf", dir);
    if (glob(pattern, 0, NULL, &g) != 0) return;
    for (size_t i = 0; i < g.gl_pathc; i++) {
        char name[64];
        const char *base = strrchr(g.gl_pathv[i], '/') + strlen("/ggml-vocab-");
        snprintf(name, sizeof name, "%.*s", (int)(strlen(base) - strlen(".gguf")), base);
        real_add(f, name, g.gl_pathv[i]);
    }
    globfree(&g);
}

static int setup(void **state) {
    static fixture f;
    cmc_error err = {0};
    f.dir = tiny_dir_new();
    OK(cmc_runtime_open(&(cmc_runtime_opts){.threads = 1, .exact = true}, &f.rt, &err));
    const char *paths[] = {getenv("CMC_TEST_SMOLLM2"), getenv("CMC_TEST_GEMMA")};
    const char *dir = getenv("CMC_TEST_LLAMA_VOCABS");
    for (int i = 0; i < 2; i++) {
        if (paths[i] != NULL && *paths[i] != '\0') real_add(&f, i == 0 ? "smollm2" : "gemma", paths[i]);
    }
    if (dir != NULL && *dir != '\0') real_add_dir(&f, dir);
    *state = &f;
    return 0;
}

static int teardown(void **state) {
    fixture *f = *state;
    for (size_t i = 0; i < f->n_real; i++) tongue_free(&f->real[i]);
    cmc_runtime_free(f->rt);
    tiny_dir_free(f->dir);
    return 0;
}

static void run_pair(fixture *f, const tongue *host, const tongue *delta, uint64_t steps, size_t n_ctx) {
    tally t = walk_pair(host, delta, steps, n_ctx);
    print_tally(host->name, delta->name, &t);
    tally_add(&f->sum, &t);
}

/* Each with the next, both ways. */
static void run_ring(fixture *f, tongue *t, size_t n, uint64_t part, size_t n_ctx) {
    uint64_t steps = steps_of(f, part, 2 * n);
    for (size_t i = 0; i < n; i++) {
        run_pair(f, &t[i], &t[(i + 1) % n], steps, n_ctx);
        run_pair(f, &t[(i + 1) % n], &t[i], steps, n_ctx);
    }
}

/* Deltas with models, in exact mode: contexts that overflow, the kept cache, logits bit for bit those of a new session.
 */
static void test_models(void **state) {
    fixture *f = *state;
    tongue t[] = {
        tongue_of_model(f, "smollm", (tiny_spec){.arch = "llama", .add_bos = true, .seed = 1}),
        tongue_of_model(f, "spm", (tiny_spec){.arch = "llama", .vocab = "spm", .n_learnt = 150, .seed = 2}),
        tongue_of_model(f, "qwen2", (tiny_spec){.arch = "qwen2", .n_learnt = 120, .n_layer = 1, .seed = 3}),
        tongue_of_model(f, "gemma3", (tiny_spec){.arch = "gemma3", .n_layer = 1, .seed = 4, .swa_window = 16}),
        tongue_of_model(f, "llama3", (tiny_spec){.arch = "llama", .pre = "llama-bpe", .n_learnt = 200, .seed = 5}),
    };
    size_t n = sizeof t / sizeof *t;
    tally before = f->sum;
    print_head();
    run_ring(f, t, n, PART_MODELS, 256);
    run_pair(f, &t[0], &t[0], steps_of(f, PART_MODELS, 2 * n), 256); /* the same vocabulary: the host's ids */
    if (steps_of(f, PART_MODELS, 2 * n) >= ENOUGH) { /* it met all of them */
        assert_true(f->sum.waits > before.waits && f->sum.cuts > before.cuts && f->sum.logits > before.logits);
    }
    assert_true(f->sum.apart == 0);
    for (size_t i = 0; i < n; i++) tongue_free(&t[i]);
}

/* The fast path sums in an order that depends on the batch: its logits agree as far as its arithmetic goes. */
static void test_fast(void **state) {
    fixture *f = *state;
    cmc_error err = {0};
    fixture fast = {.dir = f->dir};
    OK(cmc_runtime_open(&(cmc_runtime_opts){.threads = 1}, &fast.rt, &err));
    tongue t[] = {
        tongue_of_model(&fast, "spm", (tiny_spec){.arch = "llama", .vocab = "spm", .seed = 2}),
        tongue_of_model(&fast, "smollm, fast", (tiny_spec){.arch = "llama", .seed = 1}),
        tongue_of_model(&fast, "smollm q8_0, fast", (tiny_spec){.arch = "llama", .type = CMC_Q8_0, .seed = 1}),
    };
    print_head();
    run_pair(&fast, &t[0], &t[1], 2000, 256);
    assert_true(fast.sum.logits > 0 && fast.sum.apart < 1e-5);
    run_pair(&fast, &t[0], &t[2], 2000, 256);
    assert_true(fast.sum.apart < 0.1);
    for (size_t i = 0; i < 3; i++) tongue_free(&t[i]);
    cmc_runtime_free(fast.rt);
}

/* One of each family of pre-tokenizers, under a SentencePiece host. */
static void test_pretokenizers(void **state) {
    fixture *f = *state;
    static const char *const pre[] = {
        "default", "gpt-2", "smollm", "falcon", "chameleon", "llama-bpe", "glm4", "qwen2", "minicpm5", "ufakzeka",
        "laguna", "qwen35", "seed-coder", "bailingmoe", "exaone-moe", "jais-2", "gpt-4o", "tekken", "kimi-k2", "youtu",
        "tiny_aya", "deepseek-llm", "deepseek-coder", "deepseek-v3", "spark2_5", "afmoe", "bloom", "viking", "superbpe",
    };
    size_t n = sizeof pre / sizeof *pre;
    tongue host = tongue_of_vocab("spm", vocab_tiny(&(tiny_spec){.arch = "llama", .vocab = "spm", .vocab_only = true}));
    tally before = f->sum;
    for (size_t i = 0; i < n; i++) {
        tiny_spec spec = {.arch = "llama", .pre = pre[i], .vocab_only = true};
        tongue delta = tongue_of_vocab(pre[i], vocab_tiny(&spec));
        run_pair(f, &host, &delta, steps_of(f, PART_PRETOKENIZERS, n), 1 << 20);
        tongue_free(&delta);
    }
    assert_true(f->sum.waits > before.waits || steps_of(f, PART_PRETOKENIZERS, 1) < ENOUGH);
    tongue_free(&host);
}

/* The last pair of letters binds best: each letter of the row abcd.. unbinds all before it. */
static void test_backwards(void **state) {
    fixture *f = *state;
    static const char row[] = "abcdefghijklmnop";
    char spelled[16][2] = {{0}}, pairs[15][3] = {{0}}, merge[15][4] = {{0}};
    mini_token letters[18] = {{"<|end|>", 3, 0}}, all[33] = {{"<|end|>", 3, 0}};
    const char *merges[16] = {0}, *none[] = {NULL};
    for (int i = 0; i < 16; i++) {
        spelled[i][0] = row[i];
        letters[1 + i] = all[1 + i] = (mini_token){spelled[i], 1, 0};
    }
    for (int i = 0; i < 15; i++) {
        snprintf(pairs[i], 3, "%.2s", row + i);
        snprintf(merge[14 - i], 4, "%c %c", row[i], row[i + 1]);
        all[17 + i] = (mini_token){pairs[i], 1, 0};
        merges[14 - i] = merge[14 - i];
    }
    mini m = {.model = "gpt2", .pre = "gpt-2", .tokens = letters, .merges = none, .space_prefix = -1, .add_bos = -1};
    cmc_error err = {0};
    cmc_vocab *v;
    OK(mini_open(&m, &v, &err));
    tongue host = tongue_of_vocab("letters", v);
    m.tokens = all;
    m.merges = merges;
    OK(mini_open(&m, &v, &err));
    tongue delta = tongue_of_vocab("pairs", v);
    walk w = {.host = &host, .delta = &delta, .n_ctx = 100};
    for (int32_t i = 1; i <= 16; i++) assert_int_equal(cmc_ids_push(&w.queue, i), CMC_OK);
    one_text(&w, 16);
    assert_int_equal(w.t.back, 8); /* a bc de fg hi jk lm no -> ab cd ef gh ij kl mn op */
    print_tally(host.name, delta.name, &w.t);
    tally_add(&f->sum, &w.t);
    walk_free(&w);
    tongue_free(&host);
    tongue_free(&delta);
}

/* Vocabularies that few would write: user-defined tokens that begin one another, no byte tokens, pieces over spaces,
 * unused pieces that can be merged in two ways. */
static void test_odd(void **state) {
    fixture *f = *state;
    static const mini_token overlaps[] = {
        {"<unk>", 2, 0}, {"<s>", 3, 0}, {"a", 1, -9}, {"t", 1, -9}, {"e", 1, -9}, {"h", 1, -9}, {"\xe2\x96\x81", 1, -9},
        {"e\xe2\x96\x81", 1, -1}, {"e\xe2\x96\x81" "t", 1, -2}, {"\xe2\x96\x81" "t", 1, -3}, {"th", 1, -4},
        {"he", 1, -5}, {"the", 4, 0}, {"at", 4, 0}, {"he sa", 4, 0}, {"  ", 4, 0}, {"==", 4, 0}, {"===", 4, 0},
        {"\xe5\xb0\x8f", 1, -9}, {"\xe5\xb0\x8f\xe6\xa8\xa1", 1, -6}, {"aa", 1, -4}, {"aaa", 1, -3}, {NULL, 0, 0},
    };
    static const mini_token unused[] = {
        {"<unk>", 2, 0}, {"a", 1, -9}, {"b", 1, -9}, {"ab", 1, -2}, {"ba", 1, -1}, {"aba", 5, -3}, {"bab", 5, -3},
        {"abab", 1, -4}, {"\xe2\x96\x81", 1, -9}, {NULL, 0, 0},
    };
    static const mini_token poor[] = { /* most bytes have no token and give nothing */
        {"<|end|>", 3, 0}, {"a", 1, 0}, {"b", 1, 0}, {"t", 1, 0}, {"h", 1, 0}, {"e", 1, 0}, {"\xc4\xa0", 1, 0},
        {"th", 1, 0}, {"the", 1, 0}, {"\xc4\xa0the", 1, 0}, {"ab", 1, 0}, {"bab", 1, 0}, {"aa", 1, 0}, {"aaaa", 1, 0},
        {"ea", 4, 0}, {"hea", 4, 0}, {NULL, 0, 0},
    };
    static const char *const merges[] = {"a a", "t h", "a b", "th e", "b ab", "\xc4\xa0 the", "aa aa", NULL};
    const mini minis[] = {{.model = "llama", .tokens = overlaps, .space_prefix = 1, .add_bos = -1},
                          {.model = "llama", .tokens = unused, .space_prefix = 0, .add_bos = -1},
                          {.model = "gpt2", .pre = "gpt-2", .tokens = poor, .merges = merges, .space_prefix = -1,
                           .add_bos = -1},
                          {.model = "gpt2", .pre = "llama-bpe", .tokens = poor, .merges = merges, .space_prefix = -1,
                           .add_bos = -1}};
    static const char *const names[] = {"overlaps", "unused", "poor", "poor, whole"};
    size_t n = sizeof minis / sizeof *minis;
    tongue host = tongue_of_vocab("smollm", vocab_tiny(&(tiny_spec){.arch = "llama", .vocab_only = true}));
    for (size_t i = 0; i < n; i++) {
        cmc_error err = {0};
        cmc_vocab *v;
        OK(mini_open(&minis[i], &v, &err));
        tongue odd = tongue_of_vocab(names[i], v);
        run_pair(f, &host, &odd, steps_of(f, PART_ODD, 2 * n), 1 << 20);
        run_pair(f, &odd, &odd, steps_of(f, PART_ODD, 4 * n), 64);       /* itself: the host's ids */
        tongue other = tongue_of_vocab("smollm", vocab_tiny(&(tiny_spec){.arch = "llama", .vocab_only = true}));
        run_pair(f, &odd, &other, steps_of(f, PART_ODD, 4 * n), 1 << 20);
        tongue_free(&other);
        tongue_free(&odd);
    }
    tongue_free(&host);
}

/* What the first tokens of a response become, by the leads of host and delta. "" is a control token. */
static void test_leads(void **state) {
    static const struct {
        const char *host, *delta, *tokens[4], *text;
        steering_row kinds[4];   /* before the first token, and after each */
    } cases[] = {
        {"", "", {"a"}, "a", {STEERING_ROW, STEERING_ROW}},
        {" ", " ", {" a"}, " a", {STEERING_ROW, STEERING_ROW}},
        {" ", "", {" a"}, "a", {STEERING_FIRST_ROW, STEERING_ROW}},
        {" ", "", {" ", "a"}, "a", {STEERING_FIRST_ROW, STEERING_ROW, STEERING_ROW}},
        {" ", "", {"a", " a"}, "a a", {STEERING_FIRST_ROW, STEERING_ROW, STEERING_ROW}},    /* it left its lead out */
        {" ", "", {" ", " a"}, " a", {STEERING_FIRST_ROW, STEERING_ROW, STEERING_ROW}},     /* one space is the lead */
        {"", " ", {"a", "a"}, " aa", {STEERING_FIRST_ROW, STEERING_ROW, STEERING_ROW}},
        {"", " ", {" a"}, "  a", {STEERING_FIRST_ROW, STEERING_ROW}},
        {"", " ", {"", "a"}, " a", {STEERING_FIRST_ROW, STEERING_FIRST_ROW, STEERING_ROW}}, /* no byte yet */
        {"", " ", {"\xc3", "\xa9", ""}, " \xc3\xa9", {STEERING_FIRST_ROW, STEERING_NO_ROW, STEERING_ROW, STEERING_ROW}},
        {" ", "", {"", " a", ""}, "a", {STEERING_FIRST_ROW, STEERING_FIRST_ROW, STEERING_ROW, STEERING_ROW}},
    };
    (void)state;
    static const mini_token tokens[] = {
        {"<|end|>", 3, 0}, {"a", 1, 0}, {"\xc4\xa0", 1, 0}, {"\xc4\xa0" "a", 1, 0}, {"\xc3\x83", 1, 0},
        {"\xc2\xa9", 1, 0}, {NULL, 0, 0},
    };
    static const char *const merges[] = {"\xc4\xa0 a", NULL}, *const bytes[] = {"", "a", " ", " a", "\xc3", "\xa9"};
    const mini m = {.model = "gpt2", .pre = "gpt-2", .tokens = tokens, .merges = merges,
                    .space_prefix = -1, .add_bos = -1};
    cmc_error err = {0};
    cmc_vocab *v;
    OK(mini_open(&m, &v, &err));
    for (size_t c = 0; c < sizeof cases / sizeof *cases; c++) {
        follow f = {.host = v, .n_prompt = 1, .n_ctx = 100, .host_lead = cases[c].host, .delta_lead = cases[c].delta};
        f.first_map = strcmp(f.host_lead, f.delta_lead) != 0;
        assert_int_equal(cmc_ids_push(&f.ctx, 1), CMC_OK);
        OK(retok_new(v, &f.rt, &err));
        for (size_t i = 0;; i++) {
            steering_row kind;
            OK(follow_context(&f, &kind, &err));
            assert_int_equal(kind, cases[c].kinds[i]);
            if (i == 4 || cases[c].tokens[i] == NULL) break;
            int32_t id = 0;
            while (strcmp(bytes[id], cases[c].tokens[i]) != 0) id++;
            OK(follow_push(&f, id, &err));
        }
        size_t n;
        const uint8_t *read = retok_text(f.rt, &n);
        assert_int_equal(n, strlen(cases[c].text));
        assert_memory_equal(read, cases[c].text, n);
        follow_free(&f);
    }
    cmc_vocab_free(v);
}

/* A prompt that leaves next to no room, or none: the context never holds more than it can. */
static void test_no_room(void **state) {
    fixture *f = *state;
    tongue a = tongue_of_vocab("smollm", vocab_tiny(&(tiny_spec){.arch = "llama", .vocab_only = true}));
    tongue b = tongue_of_vocab("spm", vocab_tiny(&(tiny_spec){.arch = "llama", .vocab = "spm", .vocab_only = true}));
    run_pair(f, &a, &b, 1000, 7); /* prompts have up to 7 tokens */
    run_pair(f, &b, &a, 1000, 7);
    run_pair(f, &a, &a, 1000, 7);
    tongue_free(&a);
    tongue_free(&b);
}

static void test_real(void **state) {
    fixture *f = *state;
    if (f->n_real < 2) {
        printf("SKIP sync: no two of CMC_TEST_SMOLLM2, CMC_TEST_GEMMA and CMC_TEST_LLAMA_VOCABS are there\n");
    } else {
        print_head();
        run_ring(f, f->real, f->n_real, PART_REAL, 1 << 20);
    }
    print_tally("all", "all", &f->sum);
    printf("%llu texts compared with their definition, %llu rows with an evaluation anew\n",
           (unsigned long long)f->sum.checks, (unsigned long long)f->sum.logits);
}

/* A real delta on its kept cache, exact and fast. */
static void test_real_model(void **state) {
    fixture *f = *state;
    const char *path = getenv("CMC_TEST_SMOLLM2");
    if (path == NULL || *path == '\0') {
        printf("SKIP sync of a real model: CMC_TEST_SMOLLM2 is not set\n");
        return;
    }
    for (int exact = 1; exact >= 0; exact--) {
        cmc_error err = {0};
        fixture own = {.dir = f->dir};
        OK(cmc_runtime_open(&(cmc_runtime_opts){.threads = 2, .exact = exact}, &own.rt, &err));
        tongue host = tongue_of_model(&own, "spm", (tiny_spec){.arch = "llama", .vocab = "spm", .seed = 2}),
            delta = {0};
        OK(cmc_model_open(own.rt, path, &delta.m, &err));
        delta.v = cmc_model_vocab(delta.m);
        snprintf(delta.name, sizeof delta.name, exact ? "smollm2, exact" : "smollm2, fast");
        run_pair(&own, &host, &delta, exact ? 70 : 140, 96);
        assert_true(own.sum.logits > 1 && (exact ? own.sum.apart == 0 : own.sum.apart < 0.1));
        tongue_free(&host);
        tongue_free(&delta);
        cmc_runtime_free(own.rt);
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_models), cmocka_unit_test(test_fast),       cmocka_unit_test(test_pretokenizers),
        cmocka_unit_test(test_backwards), cmocka_unit_test(test_odd),
        cmocka_unit_test(test_leads), cmocka_unit_test(test_no_room),   cmocka_unit_test(test_real_model),
        cmocka_unit_test(test_real),
    };
    return cmocka_run_group_tests_name("sync", tests, setup, teardown);
}
