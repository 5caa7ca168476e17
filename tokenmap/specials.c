/* Control and user-defined tokens: a sorted table that is narrowed character by character. */
#include <stdlib.h>
#include <string.h>

#include "base/mem.h"
#include "base/utf8.h"
#include "tokenmap/tok.h"

static int specials_compare(const void *a, const void *b) {
    const special *x = a, *y = b;
    int c = memcmp(x->s, y->s, x->n < y->n ? x->n : y->n);
    if (c != 0) {
        return c;
    }
    return x->n != y->n ? (x->n < y->n ? -1 : 1) : (x->id < y->id ? -1 : x->id > y->id);
}

/* A user-defined token is found by its bytes, a control token by its spelling. */
static special specials_entry(const cmc_vocab *v, int32_t id) {
    special e = {.id = id};
    if (v->kind[id] == CMC_KIND_USER) {
        e.s = v->bytes + v->byte_off[id];
        e.n = v->byte_off[id + 1] - v->byte_off[id];
    } else {
        e.s = (const uint8_t *)v->spell + v->spell_off[id];
        e.n = v->spell_off[id + 1] - v->spell_off[id];
    }
    return e;
}

void specials_sort(special_table *t) {
    qsort(t->v, t->n, sizeof *t->v, specials_compare);
    uint32_t i = 0;
    for (uint32_t b = 0; b < 257; b++) {
        while (i < t->n && t->v[i].s[0] < b) {
            i++;
        }
        t->first[b] = i;
    }
}

bool specials_strips(const cmc_vocab *v, int32_t id) {
    static const char *const KEEP[] = {"<unk>", "<s>", "<|endoftext|>"};
    const char *s = v->spell + v->spell_off[id];
    size_t n = v->spell_off[id + 1] - v->spell_off[id];
    bool strips = v->strip_after;
    for (size_t k = 0; strips && k < sizeof KEEP / sizeof *KEEP; k++) {
        strips = n != strlen(KEEP[k]) || memcmp(s, KEEP[k], n) != 0;
    }
    return strips;
}

static bool specials_fill(const cmc_vocab *v, bool control, special_table *t) {
    uint32_t n = 0;
    for (int32_t id = 0; id < v->n; id++) {
        n += v->kind[id] == CMC_KIND_USER || (control && v->kind[id] == CMC_KIND_CONTROL);
    }
    t->v = cmc_alloc(n, sizeof *t->v);
    if (t->v == NULL) {
        return false;
    }
    for (int32_t id = 0; id < v->n; id++) {
        if (v->kind[id] == CMC_KIND_USER || (control && v->kind[id] == CMC_KIND_CONTROL)) {
            special e = specials_entry(v, id);
            if (e.n > 0 && cmc_utf8_valid(e.s, e.n)) { /* else it could match inside a character */
                t->v[t->n++] = e;
            }
        }
    }
    specials_sort(t);
    return true;
}

cmc_status specials_build(cmc_vocab *v, cmc_error *err) {
    v->specials = cmc_calloc(1, sizeof *v->specials);
    if (v->specials == NULL || !specials_fill(v, false, &v->specials->user) ||
        !specials_fill(v, true, &v->specials->all)) {
        return cmc_fail_nomem(err, "the table of special tokens", (size_t)v->n * sizeof(special));
    }
    return CMC_OK;
}

void specials_free(struct vocab_specials *s) {
    if (s != NULL) {
        free(s->user.v);
        free(s->all.v);
        free(s);
    }
}

/* First entry of [lo, hi), all alike in their first `depth` bytes and longer than that, whose next byte is not under
 * `b`. */
static uint32_t specials_lower(const special *v, uint32_t lo, uint32_t hi, size_t depth, unsigned b) {
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

int32_t specials_match(const special_table *t, const uint8_t *text, size_t n, size_t *len, bool *at_end) {
    int32_t best = -1;
    *at_end = false;
    if (n == 0) {
        return -1;
    }
    uint32_t lo = t->first[text[0]], hi = t->first[text[0] + 1];
    for (size_t depth = 1; lo < hi; depth++) {
        if (t->v[lo].n == depth) { /* the shortest comes first, and of equal ones the lowest id */
            best = t->v[lo].id;
            *len = depth;
            while (lo < hi && t->v[lo].n == depth) {
                lo++;
            }
        }
        if (lo < hi && depth == n) {
            *at_end = true;
            break;
        }
        if (lo < hi) {
            unsigned b = text[depth];
            lo = specials_lower(t->v, lo, hi, depth, b);
            hi = specials_lower(t->v, lo, hi, depth, b + 1);
        }
    }
    return best;
}

int32_t specials_find(const special_table *t, const void *s, size_t n) {
    size_t len = 0;
    bool at_end;
    int32_t id = specials_match(t, s, n, &len, &at_end);
    return len == n ? id : -1;
}
