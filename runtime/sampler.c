/* From logits to a token. The order is llama.cpp's: repetition penalty, top-k, top-p, min-p, temperature. So the
 * filters judge by the model's own probabilities, and a higher temperature spreads the choice among the tokens that
 * they keep but admits no others.
 *
 * The same token everywhere: the generator is written out here, the exponential and every sum in sampler_weigh.c, in IEEE
 * double arithmetic and in one order; nothing is left to a mathematical library. */
#include "runtime/sampler.h"

#include <float.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "base/mem.h"
#include "runtime/sampler_cut.h"
#include "runtime/sampler_weigh.h"

enum { WEIGH_SHARED = 8192 };   /* tokens from which the other threads help to weigh them */

struct sampler {
    cmc_sampling opts;
    size_t n_vocab;
    uint64_t random;
    uint8_t *seen;             /* [n_vocab] tokens penalised in this step, all 0 between steps; NULL: no penalty */
    double *weights, *sums;    /* [n_vocab] and its blocks' sums, or NULL where top-k comes first */
    candidate *candidates;     /* NULL where nothing filters */
};

cmc_sampling cmc_sampling_defaults(void) {
    return (cmc_sampling){.temperature = 0, .top_k = 0, .top_p = 1, .min_p = 0, .repeat_penalty = 1,
                          .repeat_last_n = 64, .seed = 0};
}

static cmc_status check_options(const cmc_sampling *o, int32_t n_vocab, cmc_error *err) {
    if (n_vocab < 1) {
        return cmc_fail(err, CMC_E_ARG, "sampling: a vocabulary of %d tokens, at least 1 is needed", n_vocab);
    }
    if (!(o->temperature >= 0 && o->temperature < INFINITY)) {
        return cmc_fail(err, CMC_E_ARG, "sampling: temperature is %g, should be 0 (greedy) or more", o->temperature);
    }
    if (o->top_k < 0) {
        return cmc_fail(err, CMC_E_ARG, "sampling: top_k is %d, should be 0 (off) or more", o->top_k);
    }
    if (!(o->top_p >= 0 && o->top_p <= 1)) {
        return cmc_fail(err, CMC_E_ARG, "sampling: top_p is %g, should be from 0 to 1 (off)", o->top_p);
    }
    if (!(o->min_p >= 0 && o->min_p <= 1)) {
        return cmc_fail(err, CMC_E_ARG, "sampling: min_p is %g, should be from 0 (off) to 1", o->min_p);
    }
    if (!(o->repeat_penalty > 0 && o->repeat_penalty < INFINITY)) {
        return cmc_fail(err, CMC_E_ARG, "sampling: repeat_penalty is %g, should be more than 0 (1: off)",
                        o->repeat_penalty);
    }
    return CMC_OK;
}

static bool has_top_k(const sampler *s) {
    return s->opts.top_k > 0 && (size_t)s->opts.top_k < s->n_vocab;
}

static bool allocate(sampler *s) {
    bool random = s->opts.temperature > 0, filters = has_top_k(s) || s->opts.top_p < 1 || s->opts.min_p > 0;
    if (s->opts.repeat_penalty != 1) {
        s->seen = cmc_calloc(s->n_vocab, 1);
        if (!s->seen) {
            return false;
        }
    }
    if (random && !has_top_k(s)) {
        s->weights = cmc_alloc(s->n_vocab, sizeof *s->weights);
        s->sums = cmc_alloc(s->n_vocab / WEIGH_BLOCK + 1, sizeof *s->sums);
        if (!s->weights || !s->sums) {
            return false;
        }
    }
    if (random && filters) {
        size_t room = has_top_k(s) ? cut_top_k_room(s->n_vocab, (size_t)s->opts.top_k) : s->n_vocab;
        s->candidates = cmc_alloc(room, sizeof *s->candidates);
        if (!s->candidates) {
            return false;
        }
    }
    return true;
}

cmc_status sampler_new(const cmc_sampling *opts, int32_t n_vocab, sampler **out, cmc_error *err) {
    *out = NULL;
    CMC_TRY(check_options(opts, n_vocab, err));
    sampler *s = cmc_calloc(1, sizeof *s);
    if (s) {
        s->opts = *opts;
        s->n_vocab = (size_t)n_vocab;
        s->random = opts->seed;
    }
    if (!s || !allocate(s)) {
        sampler_free(s);
        return cmc_fail_nomem(err, "a sampler", (size_t)n_vocab * sizeof(candidate));
    }
    *out = s;
    return CMC_OK;
}

void sampler_free(sampler *s) {
    if (!s) {
        return;
    }
    free(s->seen);
    free(s->weights);
    free(s->sums);
    free(s->candidates);
    free(s);
}

/* SplitMix64 (Steele, Lea, Flood 2014), as a number in [0, 1) of 53 bits. */
static double draw(sampler *s) {
    uint64_t z = s->random += 0x9E3779B97F4A7C15u;
    z = (z ^ (z >> 30)) * 0xBF58476D1CE4E5B9u;
    z = (z ^ (z >> 27)) * 0x94D049BB133111EBu;
    z ^= z >> 31;
    return (double)(z >> 11) * 0x1p-53;
}

/* As HF and llama.cpp have it: each token of the recent text once, towards less probable whatever its sign. */
static void penalise(sampler *s, float *logits, const int32_t *recent, size_t n) {
    if (!s->seen) {
        return;
    }
    size_t last = s->opts.repeat_last_n < 0 ? n : (size_t)s->opts.repeat_last_n;
    size_t from = last < n ? n - last : 0;
    double penalty = s->opts.repeat_penalty;
    for (size_t i = from; i < n; i++) {
        int32_t id = recent[i];
        if (id < 0 || (size_t)id >= s->n_vocab || s->seen[id]) {
            continue;
        }
        s->seen[id] = 1;
        double l = (double)logits[id];
        logits[id] = (float)(l > 0 ? l / penalty : l * penalty);
    }
    for (size_t i = from; i < n; i++) {
        if (recent[i] >= 0 && (size_t)recent[i] < s->n_vocab) {
            s->seen[recent[i]] = 0;
        }
    }
}

/* Greatest logit's lowest id; -1 where all are NaN or -inf. */
static int32_t best_token(const float *logits, size_t n) {
    int32_t best = -1;
    float top = -INFINITY;
    for (size_t i = 0; (i = cut_next_above(logits, i, n, top)) < n; i++) {
        top = logits[i];
        best = (int32_t)i;
    }
    return best;
}

/* What one pick goes by. */
typedef struct row {
    const float *logits;
    float top;
    cmc_pool *pool;            /* NULL: the caller's thread alone */
} row;

typedef struct weigh_job { sampler *s; const row *r; double inverse_temperature; } weigh_job;

static void weigh_share(void *arg, int t, int nt) {
    const weigh_job *j = arg;
    size_t lo, hi;
    cmc_pool_share(j->s->n_vocab, WEIGH_BLOCK, t, nt, &lo, &hi);
    weigh_row(j->r->logits + lo, hi - lo, j->r->top, j->inverse_temperature, j->s->weights + lo, j->s->sums + lo / WEIGH_BLOCK);
}

/* The blocks' sums are added in their order, whoever made them. */
static double weigh_all(sampler *s, const row *r, double inverse_temperature) {
    weigh_job job = {s, r, inverse_temperature};
    if (r->pool && s->n_vocab >= WEIGH_SHARED) {
        cmc_pool_run(r->pool, weigh_share, &job);
    } else {
        weigh_share(&job, 0, 1);
    }
    double total = 0;
    for (size_t i = 0; i * WEIGH_BLOCK < s->n_vocab; i++) {
        total += s->sums[i];
    }
    return total;
}

/* A logit under which no token weighs `least`: a little low, so that it spares exponentials but decides nothing. */
static float weight_floor(float top, double least) {
    if (top == INFINITY) {
        return FLT_MAX;
    }
    return least > 0 ? (float)((double)top + log(least) - 1e-3 * (1 + fabs((double)top))) : -INFINITY;
}

/* Candidates that top-p may keep, where nothing was filtered yet. Those that weigh less than (1 - p) / n_vocab of all
 * weigh less than 1 - p together, so the others hold enough. With top-p off, every token that weighs anything. */
static size_t collect(sampler *s, const row *r, double total) {
    double least = fmax(0.5 * (1 - s->opts.top_p) * total / (double)s->n_vocab, 0.5 * s->opts.min_p); /* half: room for rounding */
    float bar = weight_floor(r->top, least);
    size_t m = 0;
    for (size_t i = 0; (i = cut_next_above(r->logits, i, s->n_vocab, bar)) < s->n_vocab; i++) {
        if (s->weights[i] > 0 && s->weights[i] >= least) {
            s->candidates[m++] = (candidate){.weight = s->weights[i], .logit = r->logits[i], .id = (int32_t)i};
        }
    }
    return m;
}

/* The last candidate, in the order of greater logit, then lower id, that top-k and top-p keep. */
static candidate last_kept(sampler *s, const row *r) {
    candidate *c = s->candidates;
    size_t m;
    double total = 0;
    if (has_top_k(s)) {
        m = cut_top_k(r->logits, s->n_vocab, (size_t)s->opts.top_k, c);
        for (size_t i = 0; i < m; i++) {
            total += c[i].weight = weigh(c[i].logit, r->top, 1);
        }
    } else {
        total = weigh_all(s, r, 1);
        m = collect(s, r, total);
    }
    if (s->opts.top_p < 1) {
        m = cut_mass(c, m, s->opts.top_p * total);
    }
    candidate last = c[0];
    for (size_t i = 1; i < m; i++) {
        if (c[i].logit < last.logit || (c[i].logit == last.logit && c[i].id > last.id)) {
            last = c[i];
        }
    }
    return last;
}

/* Leaves the kept tokens as candidates, in the order of their ids, with their final weights; gives their number. */
static size_t filter(sampler *s, const row *r) {
    candidate last = {.logit = weight_floor(r->top, s->opts.min_p), .id = -1};
    if (has_top_k(s) || s->opts.top_p < 1) {
        last = last_kept(s, r);
    }
    const float bar = nextafterf(last.logit, -INFINITY);
    size_t kept = 0;
    for (size_t i = 0; (i = cut_next_above(r->logits, i, s->n_vocab, bar)) < s->n_vocab; i++) {
        float l = r->logits[i];
        if (l > last.logit || (l == last.logit && (int32_t)i <= last.id)) {
            if (s->opts.min_p > 0 && weigh(l, r->top, 1) < s->opts.min_p) {
                continue;
            }
            double weight = weigh(l, r->top, 1 / s->opts.temperature);
            s->candidates[kept++] = (candidate){.weight = weight, .logit = l, .id = (int32_t)i};
        }
    }
    return kept;
}

static int32_t pick_candidate(const candidate *c, size_t n, double at) {
    double total = 0, sum = 0;
    for (size_t i = 0; i < n; i++) {
        total += c[i].weight;
    }
    int32_t last = -1;
    for (size_t i = 0; i < n && !(last >= 0 && sum > at * total); i++) {
        sum += c[i].weight;
        last = c[i].weight > 0 ? c[i].id : last;
    }
    return last;
}

/* The token at share `at` of the weight: its block by the blocks' sums, then the token in it. Where rounding leaves
 * nothing at that place, the block's last token that weighs anything. */
static int32_t pick_any(sampler *s, const row *r, double at) {
    double need = at * weigh_all(s, r, 1 / s->opts.temperature), before = 0;
    size_t n_blocks = (s->n_vocab + WEIGH_BLOCK - 1) / WEIGH_BLOCK, block = 0;
    for (size_t i = 0; i < n_blocks; i++) {
        if (s->sums[i] > 0) {
            before += block < i ? s->sums[block] : 0;
            block = i;
            if (before + s->sums[i] > need) {
                break;
            }
        }
    }
    int32_t last = -1;
    size_t end = (block + 1) * WEIGH_BLOCK < s->n_vocab ? (block + 1) * WEIGH_BLOCK : s->n_vocab;
    for (size_t i = block * WEIGH_BLOCK; i < end && !(last >= 0 && before > need); i++) {
        before += s->weights[i];
        last = s->weights[i] > 0 ? (int32_t)i : last;
    }
    return last;
}

bool sampler_greedy(const sampler *s) {
    return s->opts.temperature == 0 && !s->seen;
}

int32_t sampler_pick(sampler *s, float *logits, const int32_t *recent, size_t n, cmc_pool *pool) {
    penalise(s, logits, recent, n);
    int32_t best = best_token(logits, s->n_vocab);
    if (best < 0 || s->opts.temperature == 0) {
        return best;
    }
    double at = draw(s);
    row r = {.logits = logits, .top = logits[best], .pool = pool};
    if (!s->candidates) {
        return pick_any(s, &r, at);
    }
    return pick_candidate(s->candidates, filter(s, &r), at);
}
