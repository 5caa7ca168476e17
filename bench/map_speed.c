/* What the map and the shift cost: prints one JSON object. Vocabularies are made here (words of a small syllabary, as
 * long as real tokens are); with two arguments, HOST and DELTA, those files' vocabularies are measured as well. */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/mem.h"
#include "tokenmap/map.h"

enum { LONGEST = 24, SHIFT_RUNS = 101 };

static uint64_t rng_state;

static uint32_t rnd(void) {
    rng_state = rng_state * 6364136223846793005u + 1442695040888963407u;
    return (uint32_t)(rng_state >> 33);
}

/* One to six syllables, half of the words after a space. */
static size_t make_word(uint8_t *out) {
    static const char *const syllable[] = {"a", "in", "ter", "ion", "er", "st", "re", "on", "th", "e", "ing", "lo",
                                           "que", "\xC3\xA9", "\xD0\xB0", "\xE4\xB8\xAD",
                                           "1", "_", "(", "s", "ma", "x", "U"};
    size_t n = 0;
    if (rnd() % 2) {
        out[n++] = ' ';
    }
    for (uint32_t left = 1 + rnd() % 6; left--;) {
        const char *s = syllable[rnd() % (sizeof syllable / sizeof *syllable)];
        memcpy(out + n, s, strlen(s));
        n += strlen(s);
    }
    return n;
}

static void *need(void *p) {
    if (!p) {
        fputs("map_speed: out of memory\n", stderr);
        exit(1);
    }
    return p;
}

static cmc_vocab *make_vocab(int32_t n, uint64_t seed) {
    size_t rows = (size_t)n;
    cmc_vocab *v = need(cmc_calloc(1, sizeof *v));
    v->n = n;
    v->bytes = need(cmc_alloc(rows, LONGEST));
    v->byte_off = need(cmc_calloc(rows + 1, sizeof *v->byte_off));
    v->kind = need(cmc_calloc(rows, 1));
    v->roles = need(cmc_calloc(rows, 1));
    v->is_end = need(cmc_calloc(rows, 1));
    v->bos = v->eos = v->eot = v->pad = v->unk = -1;
    rng_state = seed;
    for (size_t i = 0; i < rows; i++) {
        v->byte_off[i + 1] = v->byte_off[i] + (uint32_t)make_word(v->bytes + v->byte_off[i]);
    }
    v->spell = (char *)v->bytes;           /* the reference's rule looks at these alone */
    v->spell_off = v->byte_off;
    return v;
}

static void free_made(cmc_vocab *v) {
    free(v->bytes);
    free(v->byte_off);
    free(v->kind);
    free(v->roles);
    free(v->is_end);
    free(v);
}

static int by_value(const void *a, const void *b) {
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

/* Median seconds of adding one delta's shift (fast or plain) to a row of logits as a model gives them. */
static double time_shift(const cmc_map *m, bool plain) {
    size_t n_host = (size_t)m->n_host, n_delta = (size_t)m->n_delta;
    float *h = need(cmc_alloc(n_host, sizeof *h)), *d = need(cmc_alloc(n_delta, sizeof *d));
    float *work = need(cmc_alloc(2 * n_host, sizeof *work));
    double seconds[SHIFT_RUNS];
    rng_state = 7;
    for (size_t j = 0; j < n_delta; j++) {
        d[j] = (float)(rnd() % 1000) / 125.0f - 4.0f;
    }
    int runs = plain ? 5 : SHIFT_RUNS;
    for (int r = 0; r < runs; r++) {
        for (size_t i = 0; i < n_host; i++) {
            h[i] = (float)(rnd() % 4096) / 128.0f - 20.0f;
        }
        shift_in in = {m, 0.8f, d};
        double start = cmc_now();
        (plain ? shift_apply_plain : shift_apply)(h, m->n_host, &in, 1, false, work);
        seconds[r] = cmc_now() - start;
    }
    qsort(seconds, (size_t)runs, sizeof *seconds, by_value);
    free(h);
    free(d);
    free(work);
    return seconds[runs / 2];
}

static void measure(const cmc_vocab *host, const cmc_vocab *delta, cmc_map_rule rule, const char *separator) {
    cmc_error err;
    cmc_map *m, *reference;
    if (cmc_map_build(host, delta, rule, &m, &err) != CMC_OK ||
        cmc_map_build(host, delta, CMC_RULE_REFERENCE, &reference, &err) != CMC_OK) {
        fprintf(stderr, "map_speed: %s\n", err.message);
        exit(1);
    }
    cmc_map_counts counts, reference_counts;
    cmc_map_counts_get(m, &counts);
    cmc_map_counts_get(reference, &reference_counts);
    printf("%s\n{\"n_host\":%d,\"n_delta\":%d,\"role\":%d,\"byte\":%d,\"exact\":%d,\"prefix\":%d,\"none\":%d,"
           "\"build_seconds\":%.4f,\"reference_seconds\":%.4f,\"shift_seconds\":%.6f,\"shift_plain_seconds\":%.6f}",
           separator, counts.n_host, counts.n_delta, counts.role, counts.byte, counts.exact, counts.prefix, counts.none,
           counts.seconds, reference_counts.seconds, time_shift(m, false), time_shift(m, true));
    cmc_map_free(m);
    cmc_map_free(reference);
}

static cmc_vocab *open_vocab(const char *path) {
    cmc_error err;
    cmc_vocab *v;
    if (cmc_vocab_open(path, &v, &err) != CMC_OK) {
        fprintf(stderr, "map_speed: %s\n", err.message);
        exit(1);
    }
    return v;
}

int main(int argc, char **argv) {
    static const int32_t sizes[] = {32000, 65536, 131072, 262144};
    if (argc != 1 && argc != 3) {
        fputs("usage: map_speed [HOST DELTA]\n", stderr);
        return 2;
    }
    printf("{\"map_speed\":[");
    for (size_t i = 0; i < 4; i++) {
        cmc_vocab *host = make_vocab(sizes[i], 1), *delta = make_vocab(sizes[i], 2);
        measure(host, delta, CMC_RULE_PREFIX, i ? "," : ""); /* they have no tokenizer */
        free_made(host);
        free_made(delta);
    }
    if (argc == 3) {
        cmc_vocab *host = open_vocab(argv[1]), *delta = open_vocab(argv[2]);
        measure(host, delta, CMC_RULE_DEFAULT, ",");
        cmc_vocab_free(host);
        cmc_vocab_free(delta);
    }
    printf("]}\n");
    return 0;
}
