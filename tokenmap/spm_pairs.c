/* The set of neighbouring characters in a vocabulary's pieces. */
#include "tokenmap/spm_pairs.h"

#include <stdlib.h>

#include "base/mem.h"
#include "base/utf8.h"

/* Open addressing; 0 is a free slot, a pair is first << 32 | second, each with bit 31 set. */
struct spm_pairs {
    uint64_t *slot;
    size_t mask, n;
};

enum { SPACE_CHAR = 0x2581, NO_CHAR = 0x200000 /* + the byte */ };

static uint32_t pairs_char(const uint8_t *s, size_t n, size_t *len) {
    int32_t cp = cmc_utf8_decode(s, n, len);
    if (cp < 0) {
        *len = 1;
        cp = NO_CHAR + s[0];
    }
    return (uint32_t)(cp == ' ' ? SPACE_CHAR : cp) | 0x80000000u;
}

static size_t pairs_slot(const uint64_t *slot, size_t mask, uint64_t pair) {
    size_t i = (size_t)((pair * 0x9e3779b97f4a7c15u) >> 20) & mask;
    while (slot[i] != 0 && slot[i] != pair) {
        i = (i + 1) & mask;
    }
    return i;
}

static bool pairs_grow(spm_pairs *p) {
    size_t slots = p->slot == NULL ? 1024 : (p->mask + 1) * 2;
    uint64_t *grown = cmc_calloc(slots, sizeof *grown);
    if (grown == NULL) {
        return false;
    }
    for (size_t i = 0; p->slot != NULL && i <= p->mask; i++) {
        if (p->slot[i] != 0) {
            grown[pairs_slot(grown, slots - 1, p->slot[i])] = p->slot[i];
        }
    }
    free(p->slot);
    p->slot = grown;
    p->mask = slots - 1;
    return true;
}

static bool pairs_add(spm_pairs *p, const uint8_t *s, size_t n) {
    uint32_t prev = 0;
    for (size_t i = 0, len; i < n; i += len) {
        uint32_t c = pairs_char(s + i, n - i, &len);
        uint64_t pair = (uint64_t)prev << 32 | c;
        if (prev != 0) {
            size_t at = pairs_slot(p->slot, p->mask, pair);
            if (p->slot[at] == 0) {
                p->slot[at] = pair;
                if (++p->n * 2 > p->mask && !pairs_grow(p)) {
                    return false;
                }
            }
        }
        prev = c;
    }
    return true;
}

spm_pairs *spm_pairs_new(const cmc_vocab *v) {
    spm_pairs *p = cmc_calloc(1, sizeof *p);
    bool ok = p != NULL && pairs_grow(p);
    for (int32_t i = 0; ok && i < v->n; i++) {
        if (v->kind[i] == CMC_KIND_NORMAL || v->kind[i] == CMC_KIND_UNUSED || v->kind[i] == CMC_KIND_USER) {
            ok = pairs_add(p, (const uint8_t *)v->spell + v->spell_off[i], v->spell_off[i + 1] - v->spell_off[i]);
        }
    }
    if (!ok) {
        spm_pairs_free(p);
        return NULL;
    }
    return p;
}

void spm_pairs_free(spm_pairs *p) {
    if (p != NULL) {
        free(p->slot);
        free(p);
    }
}

/* Where the character before s[i] begins, i > 0: at most 4 bytes back, and it must end at i. */
static size_t pairs_before(const uint8_t *s, size_t i) {
    for (size_t back = 1; back <= 4 && back <= i; back++) {
        size_t len;
        if (cmc_utf8_decode(s + i - back, back, &len) >= 0 && len == back) {
            return i - back;
        }
    }
    return i - 1;
}

static bool pairs_has(const spm_pairs *p, uint32_t first, uint32_t second) {
    return p->slot[pairs_slot(p->slot, p->mask, (uint64_t)first << 32 | second)] != 0;
}

size_t spm_pairs_first_cut(const spm_pairs *p, const uint8_t *s, size_t n) {
    size_t len, at = 0;
    for (uint32_t prev = 0; at < n; at += len) {
        uint32_t c = pairs_char(s + at, n - at, &len);
        if (at > 0 && !pairs_has(p, prev, c)) {
            return at;
        }
        prev = c;
    }
    return n;
}

size_t spm_pairs_last_cut(const spm_pairs *p, const uint8_t *s, size_t n, size_t from) {
    if (n == 0) {
        return 0;
    }
    size_t len, at = pairs_before(s, n);
    uint32_t next = pairs_char(s + at, n - at, &len);
    while (at > 0 && at >= from) {
        size_t before = pairs_before(s, at);
        uint32_t c = pairs_char(s + before, at - before, &len);
        if (!pairs_has(p, c, next)) {
            return at;
        }
        at = before;
        next = c;
    }
    return 0;
}
