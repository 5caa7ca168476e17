/* Unigram: the best path through the tokens that a piece can be cut to, by the sum of their scores. */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/error.h"
#include "base/mem.h"
#include "base/utf8.h"
#include "tokenmap/hf.h"

struct hf_unigram {
    const idmap *ids;
    special_table sorted;     /* tokens by spelling; their s points into the vocabulary */
    double *score;            /* by id */
    double unk_score;
    int32_t unk, n;           /* unk -1: none; n: tokens of the model */
    bool byte_fallback;
};

static const double UNK_PENALTY = 10.0;

/* ------------------------------------------------------------------------------------------------- reading */
/* A score as the package reads it: all its digits over a power of ten, which may be off in the last place. Where two
 * paths have the same scores in another order, that decides. The digits are those that programs write: the fewest that
 * tell the number. */
static double unigram_score(double x) {
    char s[40];
    uint64_t digits = 0;
    int precision = 14, drop = 0;
    do {
        snprintf(s, sizeof s, "%.*e", precision, fabs(x));
    } while (strtod(s, NULL) != fabs(x) && ++precision <= 16);
    const char *e = strchr(s, 'e');
    if (x == 0 || !isfinite(x) || e == NULL) {
        return x;
    }
    const char *last = e - 1;
    for (; *last == '0'; last--) {
        drop++;
    }
    for (const char *c = s; c <= last; c++) {
        digits = *c >= '0' && *c <= '9' ? digits * 10 + (uint64_t)(*c - '0') : digits;
    }
    long exponent = strtol(e + 1, NULL, 10) - precision + drop;
    double y = (double)digits;
    for (; exponent < -308 && y != 0; exponent += 308) {
        y /= 1e308;
    }
    char power[24];
    snprintf(power, sizeof power, "1e%ld", labs(exponent));
    y = exponent < 0 ? y / strtod(power, NULL) : y * strtod(power, NULL);
    return x < 0 ? -y : y;
}

static cmc_status unigram_scores(const hf_src *src, const json_t *list, hf_unigram *u) {
    double least = 0;
    for (int32_t i = 0; i < u->n; i++) {
        const json_t *score = json_array_get(json_array_get(list, (size_t)i), 1);
        if (!json_is_number(score)) {
            return cmc_fail(src->err, CMC_E_FORMAT, "%s: model Unigram: the score of token %d is not a number",
                            src->path, i);
        }
        u->score[i] = unigram_score(json_number_value(score));
        least = i == 0 || u->score[i] < least ? u->score[i] : least;
    }
    u->unk_score = least - UNK_PENALTY;
    return CMC_OK;
}

static cmc_status unigram_fill(const hf_src *src, const json_t *model, const cmc_vocab *v, hf_unigram *u) {
    const json_t *list, *unk = json_object_get(model, "unk_id");
    CMC_TRY(hf_get_list(src, model, "model Unigram", "vocab", &list));
    CMC_TRY(hf_opt_bool(src, model, "model Unigram", "byte_fallback", &u->byte_fallback));
    u->n = (int32_t)json_array_size(list);
    u->unk = -1;
    if (unk != NULL && !json_is_null(unk)) {
        json_int_t id = json_is_integer(unk) ? json_integer_value(unk) : -1;
        if (id < 0 || id >= u->n) {
            return hf_bad(src, "model Unigram", "unk_id", "the id of a token of the model");
        }
        u->unk = (int32_t)id;
    }
    u->score = cmc_alloc((size_t)u->n, sizeof *u->score);
    u->sorted.v = cmc_alloc((size_t)u->n, sizeof *u->sorted.v);
    if (u->score == NULL || u->sorted.v == NULL) {
        return cmc_fail_nomem(src->err, "tokens", (size_t)u->n * sizeof *u->sorted.v);
    }
    CMC_TRY(unigram_scores(src, list, u));
    for (int32_t i = 0; i < u->n; i++) {
        uint32_t len = v->spell_off[i + 1] - v->spell_off[i];
        if (len > 0) {
            u->sorted.v[u->sorted.n++] = (special){(const uint8_t *)v->spell + v->spell_off[i], len, i};
        }
    }
    specials_sort(&u->sorted);
    return CMC_OK;
}

cmc_status hf_unigram_new(const hf_src *src, const json_t *model, const cmc_vocab *v, const idmap *ids,
                          hf_unigram **out) {
    hf_unigram *u = cmc_calloc(1, sizeof *u);
    *out = NULL;
    if (u == NULL) {
        return cmc_fail_nomem(src->err, "a tokenizer", sizeof *u);
    }
    u->ids = ids;
    cmc_status st = unigram_fill(src, model, v, u);
    if (st != CMC_OK) {
        hf_unigram_free(u);
        return st;
    }
    *out = u;
    return CMC_OK;
}

void hf_unigram_free(hf_unigram *u) {
    if (u != NULL) {
        free(u->score);
        free(u->sorted.v);
        free(u);
    }
}

/* ------------------------------------------------------------------------------------------------- the best path */
typedef struct node { double score; size_t from; int32_t id; bool reached; } node;   /* a path's end, by byte */

static void unigram_reach(node *to, double score, size_t from, int32_t id) {
    if (!to->reached || score > to->score) {
        *to = (node){score, from, id, true};
    }
}

static bool unigram_allowed(const hf_unigram *u, const hf_run *run, int32_t id) {
    return id >= 0 && (run->special || id == u->unk || run->v->kind[id] != CMC_KIND_CONTROL);
}

/* Entries of [lo, hi), all alike in their first `depth` bytes and longer than that, whose next byte is not under b. */
static uint32_t unigram_lower(const special *v, uint32_t lo, uint32_t hi, size_t depth, unsigned b) {
    while (lo < hi) {
        uint32_t mid = lo + (hi - lo) / 2;
        if (v[mid].s[depth] < b) {
            lo = mid + 1;
        } else {
            hi = mid;
        }
    }
    return lo;
}

/* Every token that s[at..n) begins with; whether one of them is `len` bytes long. The last of equal ones counts. */
static bool unigram_tokens(const hf_unigram *u, const hf_run *run, const uint8_t *s, size_t n, size_t at, size_t len,
                           node *best) {
    const special *v = u->sorted.v;
    uint32_t lo = u->sorted.first[s[at]], hi = u->sorted.first[s[at] + 1];
    bool single = false;
    for (size_t depth = 1; lo < hi; depth++) {
        int32_t id = -1;
        for (; lo < hi && v[lo].n == depth; lo++) {
            id = v[lo].id;
        }
        if (unigram_allowed(u, run, id)) {
            unigram_reach(&best[at + depth], u->score[id] + best[at].score, at, id);
            single = single || depth == len;
        }
        if (at + depth == n) {
            break;
        }
        lo = unigram_lower(v, lo, hi, depth, s[at + depth]);
        hi = unigram_lower(v, lo, hi, depth, s[at + depth] + 1u);
    }
    return single;
}

static cmc_status unigram_missing(const hf_run *run) {
    return cmc_fail(run->err, CMC_E_RANGE,
                    "%s: model Unigram: the text has a character that is no token, and the model has no \"unk_id\"",
                    run->v->path);
}

static cmc_status unigram_paths(const hf_unigram *u, const hf_run *run, const uint8_t *s, size_t n, node *best) {
    for (size_t at = 0, len; at < n; at += len) {
        cmc_utf8_decode(s + at, n - at, &len);
        if (!unigram_tokens(u, run, s, n, at, len, best)) {
            double score = u->unk_score + best[at].score;
            if (u->unk < 0 && (!best[at + len].reached || score > best[at + len].score)) {
                return unigram_missing(run);
            }
            unigram_reach(&best[at + len], score, at, u->unk);
        }
    }
    return CMC_OK;
}

/* The ids of s[0..n), one node or several unknown ones that stand together. */
static cmc_status unigram_emit(const hf_unigram *u, hf_run *run, const uint8_t *s, size_t n) {
    static const char hex[] = "0123456789ABCDEF";
    int32_t id = idmap_find(u->ids, s, n);
    size_t before = run->out->n;
    bool ok = true;
    if (unigram_allowed(u, run, id)) {
        ok = cmc_ids_push(run->out, id) == CMC_OK;
        return ok ? CMC_OK : cmc_fail_nomem(run->err, "ids of a text", n);
    }
    for (size_t i = 0; u->byte_fallback && i < n && ok; i++) {
        const char name[6] = {'<', '0', 'x', hex[s[i] >> 4], hex[s[i] & 15], '>'};
        id = idmap_find(u->ids, name, sizeof name);
        if (id < 0) {
            break;
        }
        ok = cmc_ids_push(run->out, id) == CMC_OK;
    }
    if (ok && run->out->n - before != n) {
        run->out->n = before;
        if (u->unk < 0) {
            return unigram_missing(run);
        }
        ok = cmc_ids_push(run->out, u->unk) == CMC_OK;
    }
    return ok ? CMC_OK : cmc_fail_nomem(run->err, "ids of a text", n);
}

/* Turns the path's links around, so that best[at].from is where the node that begins at `at` ends. */
static void unigram_turn(node *best, size_t n) {
    size_t end = n, next = n;
    int32_t id = best[n].id;
    while (end > 0) {
        size_t from = best[end].from;
        int32_t before = best[from].id;
        best[end].from = next;
        next = end;
        best[from].id = id;
        id = before;
        end = from;
    }
    best[0].from = next;
}

cmc_status hf_unigram_run(const hf_unigram *u, hf_run *run, const uint8_t *s, size_t n) {
    node *best = cmc_calloc(n + 1, sizeof *best);
    if (best == NULL) {
        return cmc_fail_nomem(run->err, "the paths of a text", n * sizeof *best);
    }
    cmc_status st = unigram_paths(u, run, s, n, best);
    if (st == CMC_OK) {
        unigram_turn(best, n);
    }
    for (size_t at = 0, end; st == CMC_OK && at < n; at = end) {
        bool unk = u->unk >= 0 && best[at].id == u->unk;
        end = best[at].from;
        while (unk && end < n && best[end].id == u->unk) {
            end = best[end].from;
        }
        st = unigram_emit(u, run, s + at, end - at);
    }
    free(best);
    return st;
}
