/* The best candidates of a row of logits, without sorting it: quickselect by weight. */
#include "runtime/sampler_cut.h"

#include <math.h>

#if defined(__x86_64__) && defined(__GNUC__)
#define CUT_AVX2 1
#include <immintrin.h>
#endif

enum { SMALL = 24, TOP_K_SPARE = 1024 };

size_t cut_next_above_plain(const float *logits, size_t at, size_t n, float least) {
    while (at < n && !(logits[at] > least)) {
        at++;
    }
    return at;
}

#ifdef CUT_AVX2
/* 32 logits at a time while none of them is above. */
__attribute__((target("avx2"))) static size_t next_above_avx2(const float *logits, size_t at, size_t n, float least) {
    const __m256 bar = _mm256_set1_ps(least);
    for (; at + 32 <= n; at += 32) {
        __m256 above[4];
        for (size_t k = 0; k < 4; k++) {
            above[k] = _mm256_cmp_ps(_mm256_loadu_ps(logits + at + 8 * k), bar, _CMP_GT_OQ);
        }
        if (_mm256_movemask_ps(_mm256_or_ps(_mm256_or_ps(above[0], above[1]), _mm256_or_ps(above[2], above[3])))) {
            break;
        }
    }
    return cut_next_above_plain(logits, at, n, least);
}
#endif

size_t cut_next_above(const float *logits, size_t at, size_t n, float least) {
#ifdef CUT_AVX2
    if (__builtin_cpu_supports("avx2")) {
        return next_above_avx2(logits, at, n, least);
    }
#endif
    return cut_next_above_plain(logits, at, n, least);
}

static bool better(const candidate *a, const candidate *b) {
    return a->logit > b->logit || (a->logit == b->logit && a->id < b->id);
}

static void swap(candidate *a, candidate *b) {
    candidate t = *a;
    *a = *b;
    *b = t;
}

static void sort_small(candidate *c, size_t n) {
    for (size_t i = 1; i < n; i++) {
        for (size_t j = i; j && better(&c[j], &c[j - 1]); j--) {
            swap(&c[j], &c[j - 1]);
        }
    }
}

/* Puts what is better than c[pivot] before it, what is worse after it; gives its new place and the weight before it. */
static size_t partition(candidate *c, size_t n, size_t pivot, double *weight) {
    swap(&c[pivot], &c[n - 1]);
    size_t at = 0;
    double sum = 0;
    for (size_t i = 0; i + 1 < n; i++) {
        if (better(&c[i], &c[n - 1])) {
            sum += c[i].weight;
            swap(&c[i], &c[at++]);
        }
    }
    swap(&c[at], &c[n - 1]);
    *weight = sum;
    return at;
}

size_t cut_mass(candidate *c, size_t n, double need) {
    size_t lo = 0, hi = n;       /* c[0..lo) belong to the answer and weigh `sum`, too little; c[hi..n) do not */
    double sum = 0;
    uint64_t random = 0;         /* pivots by a fixed sequence: no input is built to be slow by chance */
    while (hi - lo > SMALL) {
        random = random * 6364136223846793005u + 1442695040888963407u;
        double before;
        size_t at = lo + partition(c + lo, hi - lo, (size_t)(random >> 33) % (hi - lo), &before);
        if (at > lo && sum + before >= need) {
            hi = at;
        } else if (sum + before + c[at].weight >= need) {
            return at + 1;
        } else {
            sum += before + c[at].weight;
            lo = at + 1;
        }
    }
    sort_small(c + lo, hi - lo);
    while (lo < hi) {
        sum += c[lo++].weight;
        if (sum >= need) {
            break;
        }
    }
    return lo;
}

size_t cut_top_k_room(size_t n, size_t k) {
    size_t room = k < n ? 2 * k + TOP_K_SPARE : n;
    return room < n ? room : n;
}

/* A candidate enters where it beats the worst of the k best at the last cut; the room beyond k makes cuts rare. */
size_t cut_top_k(const float *logits, size_t n, size_t k, candidate *c) {
    size_t m = 0, room = cut_top_k_room(n, k);
    float least = -INFINITY;
    for (size_t i = 0; (i = cut_next_above(logits, i, n, least)) < n; i++) {   /* an equal logit with a higher id is no better */
        if (m == room) {
            m = cut_mass(c, m, (double)k);
            least = INFINITY;
            for (size_t j = 0; j < m; j++) {
                least = c[j].logit < least ? c[j].logit : least;
            }
            if (!(logits[i] > least)) {
                continue;
            }
        }
        c[m++] = (candidate){.weight = 1, .logit = logits[i], .id = (int32_t)i};
    }
    return m > k ? cut_mass(c, m, (double)k) : m;
}
