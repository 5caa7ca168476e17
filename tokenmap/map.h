/* The token map inside the library: entries, the shift (gather) and its transpose (scatter). */
#ifndef CMC_TOKENMAP_MAP_H
#define CMC_TOKENMAP_MAP_H
#include <math.h>

#include "tokenmap/vocab.h"

struct cmc_map {
    int32_t n_host, n_delta;
    int32_t *to;          /* [n_host] delta id, or -1 */
    int16_t *to_short;    /* the same in half the memory, which a step reads all of; NULL before map_finish and where ids do not fit */
    uint8_t *how;         /* [n_host] cmc_map_how */
    int32_t *distance;    /* [n_host] */
    bool identity;        /* to[i] == i throughout and n_host == n_delta (says nothing of the vocabularies) */
    bool complete;        /* every host token is mapped */
    double seconds;
};

/* A map with every entry none. */
cmc_status map_new(int32_t n_host, int32_t n_delta, cmc_map **out, cmc_error *err);
void map_set(cmc_map *m, int32_t host_id, int32_t delta_id, cmc_map_how how, int32_t distance);
/* Sets `identity` and `complete` once all entries stand. */
void map_finish(cmc_map *m);
/* map_reference.c: fills in the entries of the reference's rule. */
cmc_status map_fill_reference(cmc_map *m, const cmc_vocab *host, const cmc_vocab *delta, cmc_error *err);
/* map_first.c: maps the host tokens todo[0..n), which are text, by the first token of the delta's tokenizer. */
cmc_status map_fill_first(cmc_map *m, const cmc_vocab *host, const cmc_vocab *delta, const int32_t *todo, size_t n,
                          cmc_error *err);
/* White space alone, by Unicode's property; true for no bytes. */
bool map_blank(const uint8_t *s, size_t len);
/* map_file.c: cmc_map_import from bytes that stay the caller's; `name` is what messages call them. */
cmc_status map_import_memory(const uint8_t *data, size_t size, const char *name, int32_t host_size, int32_t delta_size,
                             cmc_map **out, cmc_error *err);
/* map_override.c: cmc_map_override from bytes that stay the caller's; `name` is what messages call them. */
cmc_status map_override_memory(cmc_map *m, const cmc_vocab *host, const cmc_vocab *delta, const uint8_t *data,
                               size_t size, const char *name, cmc_error *err);

/* Arithmetic of steering (docs/design.md), plainly written (shift.c) and fast (shift_fast.c) with the same results up to rounding.
 * Adds the deltas' mapped, centred shifts to logits[n_host] in place.
 *   in[n]: a delta each: its map, of n_host entries; alpha, never 0; its logits, as many as the map's n_delta
 *   raw: C_k = C = 0
 *   work: [2 * n_host] floats of scratch
 * Host logits may be of any finite size, and -inf (a banned token, which stays -inf and weighs nothing); delta logits
 * are finite. Where the host gives all of a delta's tokens no probability, that delta's C_k is 0. */
typedef struct shift_in { const cmc_map *map; float alpha; const float *logits; } shift_in;
void shift_apply_plain(float *logits, int32_t n_host, const shift_in *in, size_t n, bool raw, float *work);
void shift_apply(float *logits, int32_t n_host, const shift_in *in, size_t n, bool raw, float *work);
/* Bounds on what is added to a logit: at most `limit` nats up or down, and nothing upwards where the host gives the token less than
 * `plausible` times its greatest probability. 0 and INFINITY: none. */
typedef struct shift_bounds { double plausible, limit; } shift_bounds;
/* Within the bounds, with s the deltas' summed shifts: clamp(s_i - c, -limit, rise_i), rise_i being `limit`, or 0 where the token is
 * not plausible, and c such that the mass of M, the tokens that any delta maps, is kept. So what is added is the change in the token's
 * log-probability; and of all distributions whose changes keep to the bounds, this one is the nearest to what s alone
 * would have made: it has the least KL(it || that), as the conditions of Karush, Kuhn and Tucker say. raw: c = 0. */
void shift_apply_bounded_plain(float *logits, int32_t n_host, const shift_in *in, size_t n, bool raw, const shift_bounds *b, float *work);
void shift_apply_bounded(float *logits, int32_t n_host, const shift_in *in, size_t n, bool raw, const shift_bounds *b, float *work);
/* One delta's shift in parts of the host's vocabulary, for threads: each part is added once, in any order, and when all are the centre is
 * taken from each. The bits of shift_apply with n = 1; where shift_has_parts is false there is only that. */
enum { SHIFT_PARTS = 8 };
typedef struct shift_sums {
    float top_h;          /* greatest host logit h of a mapped token; -inf while all were banned or unmapped */
    double top_y;         /* greatest h - top_h + shift */
    double sum_h, sum_y;  /* of e^(h - top_h) and e^(h - top_h + shift - top_y) */
} shift_sums;
bool shift_has_parts(void);
void shift_part_add(float *logits, int32_t n_host, const shift_in *in, bool raw, int part, shift_sums *out);
double shift_parts_centre(const shift_sums sums[SHIFT_PARTS]);
void shift_part_centre(float *logits, int32_t n_host, const shift_in *in, double centre, int part);

/* What greedy decoding takes of one delta's steered logits, without writing them, and without looking at tokens that cannot be it. */
typedef struct shift_span {
    float least, most;    /* of alpha d over delta tokens; INFINITY and -INFINITY of none */
    bool odd;             /* one is NaN */
} shift_span;
typedef struct shift_best {
    int32_t id;           /* of the mapped tokens, whose greatest h + shift; the lowest such id; -1: none */
    float top, next;      /* that sum, and the greatest of the others' */
    float free;           /* greatest h of an unmapped token */
    float bar;            /* a token whose h is below this needs no look */
    bool odd;             /* a sum or a logit that is NaN */
} shift_best;
static const shift_span SHIFT_NO_SPAN = {.least = INFINITY, .most = -INFINITY};
static const shift_best SHIFT_NO_BEST = {.id = -1, .top = -INFINITY, .next = -INFINITY, .free = -INFINITY, .bar = -INFINITY};
/* Takes one part of the delta's vocabulary into `span`, and, once span knows all of them, one of the host's into `best`. */
void shift_part_span(const shift_in *in, int part, shift_span *span);
void shift_part_best(const float *logits, int32_t n_host, const shift_in *in, const shift_span *span, int part, shift_best *best);
void shift_part_best_plain(const float *logits, int32_t n_host, const shift_in *in, const shift_span *span, int part, shift_best *best);
shift_span shift_all_spans(const shift_span *v, size_t n);
/* With v[0..n) what was found in all parts together: the lowest id of the greatest logit that shift_apply leaves; -1 where it takes the
 * centre or its rounding to say. */
int32_t shift_best_id(const shift_best *v, size_t n, const shift_span *span, bool raw);

/* log sum_i e^logits[i]; -inf where all are, NaN where any is. Centred shifts keep the mapped tokens' mass, and so leave this as it was (to
 * rounding): one softmax of the host's row serves any number of strengths. Not so where raw. */
double shift_log_sum(const float *logits, int32_t n);
double shift_log_sum_plain(const float *logits, int32_t n);

/* Gradient of the steered cross-entropy for one target with one delta: ddelta[n_delta] += d -log softmax(steered)[target] / d delta
 * logits (arXiv 2410.17599, section 3), given the steered logits. The host's are not needed, and may be NULL: on the mapped tokens steered probability and host
 * probability have the same sum, so q_i / P_M is the softmax of the steered logits over the mapped tokens alone. */
void shift_transpose_plain(const cmc_map *m, float alpha, bool raw, const float *host_logits,
                           const float *steered_logits, int32_t target, float *ddelta);
void shift_transpose(const cmc_map *m, float alpha, bool raw, const float *host_logits, const float *steered_logits,
                     int32_t target, float *ddelta);
#endif
