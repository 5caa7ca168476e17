/* A sorted list of strings that answers "equal to this one, else nearest by prefix" in O(log n). */
#include "tokenmap/prefix_index.h"

#include <stdlib.h>
#include <string.h>

#include "base/mem.h"

/* Where s would stand in the sorted list, everything that s is a prefix of follows at once, as one run, and every
 * prefix of s is the string just before it or one of that string's ancestors. So the longest prefix is a short climb,
 * and the nearest extension a range minimum over the run, which the tree answers. */
struct prefix_index {
    prefix_item *items;          /* sorted by bytes, all different */
    size_t n;
    int32_t *parent;             /* the longest other item that is a prefix of this one, -1: none */
    uint32_t *bucket;            /* [65537]: first item whose first two bytes are at least the index */
    uint64_t *tree;              /* [2n] bottom-up minima; leaf n+i is item i's measure and id */
};

enum { BUCKETS = 65536 };

static uint64_t leading_key(const uint8_t *s, size_t len) {
    uint64_t key = 0;
    for (size_t i = 0; i < 8; i++) {
        key = key << 8 | (i < len ? s[i] : 0u);
    }
    return key;
}

/* Order by bytes; a prefix comes before what it is a prefix of. */
static int compare_bytes(const prefix_item *a, uint64_t key, const uint8_t *s, size_t len) {
    if (a->key != key) {
        return a->key < key ? -1 : 1;
    }
    size_t common = a->len < len ? a->len : len;
    int c = common ? memcmp(a->s, s, common) : 0;
    return c ? c : (a->len > len) - (a->len < len);
}

static int compare_items(const void *pa, const void *pb) {
    const prefix_item *a = pa, *b = pb;
    int c = compare_bytes(a, b->key, b->s, b->len);
    if (c) {
        return c;
    }
    if (a->rank != b->rank) {
        return a->rank < b->rank ? -1 : 1;
    }
    return (a->id > b->id) - (a->id < b->id);
}

static bool is_prefix(const prefix_item *p, const uint8_t *s, size_t len) {
    return p->len <= len && (p->len == 0 || memcmp(p->s, s, p->len) == 0);
}

static bool is_continuation(uint8_t byte) {
    return (byte & 0xC0u) == 0x80u;
}

static uint64_t tree_leaf(const prefix_item *it) {
    return (uint64_t)it->measure << 32 | (uint32_t)it->id;
}

/* Least (measure, id) among items [lo, hi); UINT64_MAX where that is empty. */
static uint64_t tree_min(const prefix_index *ix, size_t lo, size_t hi) {
    uint64_t best = UINT64_MAX;
    for (lo += ix->n, hi += ix->n; lo < hi; lo >>= 1, hi >>= 1) {
        if (lo & 1) {
            best = ix->tree[lo] < best ? ix->tree[lo] : best;
            lo++;
        }
        if (hi & 1) {
            hi--;
            best = ix->tree[hi] < best ? ix->tree[hi] : best;
        }
    }
    return best;
}

static size_t drop_repeats(prefix_item *items, size_t n) {
    size_t kept = 0;
    for (size_t i = 0; i < n; i++) {
        if (kept && compare_bytes(&items[kept - 1], items[i].key, items[i].s, items[i].len) == 0) {
            continue;
        }
        items[kept++] = items[i];
    }
    return kept;
}

static void link_parents(prefix_index *ix) {
    for (size_t i = 0; i < ix->n; i++) {
        int32_t p = (int32_t)i - 1;
        while (p >= 0 && !is_prefix(&ix->items[p], ix->items[i].s, ix->items[i].len)) {
            p = ix->parent[p];
        }
        ix->parent[i] = p;
    }
}

static void fill_tables(prefix_index *ix) {
    for (size_t i = 0; i < ix->n; i++) {
        ix->tree[ix->n + i] = tree_leaf(&ix->items[i]);
    }
    for (size_t i = ix->n; i-- > 1;) {
        uint64_t a = ix->tree[2 * i], b = ix->tree[2 * i + 1];
        ix->tree[i] = a < b ? a : b;
    }
    size_t i = 0;
    for (size_t two = 0; two <= BUCKETS; two++) {
        while (i < ix->n && ix->items[i].key >> 48 < two) {
            i++;
        }
        ix->bucket[two] = (uint32_t)i;
    }
}

cmc_status prefix_index_new(prefix_item *items, size_t n, prefix_index **out, cmc_error *err) {
    *out = NULL;
    prefix_index *ix = cmc_calloc(1, sizeof *ix);
    if (!ix) {
        free(items);
        return cmc_fail_nomem(err, "an index of tokens", sizeof *ix);
    }
    ix->items = items;
    for (size_t i = 0; i < n; i++) {
        items[i].key = leading_key(items[i].s, items[i].len);
    }
    if (n > 1) {
        qsort(items, n, sizeof *items, compare_items);
    }
    ix->n = drop_repeats(items, n);
    ix->parent = cmc_alloc(ix->n, sizeof *ix->parent);
    ix->bucket = cmc_alloc(BUCKETS + 1, sizeof *ix->bucket);
    ix->tree = cmc_alloc(2 * ix->n, sizeof *ix->tree);
    if (!ix->parent || !ix->bucket || !ix->tree) {
        prefix_index_free(ix);
        return cmc_fail_nomem(err, "an index of tokens", 2 * n * sizeof(uint64_t));
    }
    link_parents(ix);
    fill_tables(ix);
    *out = ix;
    return CMC_OK;
}

void prefix_index_free(prefix_index *ix) {
    if (!ix) {
        return;
    }
    free(ix->items);
    free(ix->parent);
    free(ix->bucket);
    free(ix->tree);
    free(ix);
}

/* First item that does not come before s. */
static size_t lower_bound(const prefix_index *ix, uint64_t key, const uint8_t *s, size_t len) {
    size_t lo = ix->bucket[key >> 48], hi = ix->bucket[(key >> 48) + 1];
    while (lo < hi) {
        size_t mid = lo + (hi - lo) / 2;
        if (compare_bytes(&ix->items[mid], key, s, len) < 0) {
            lo = mid + 1;
        } else {
            hi = mid;
        }
    }
    return lo;
}

/* End of the run of items from `at` on that begin with s. Runs are mostly short: steps double, then halve. */
static size_t run_end(const prefix_index *ix, size_t at, const uint8_t *s, size_t len) {
    size_t lo = at, step = 1;
    while (lo < ix->n && ix->items[lo].len >= len && memcmp(ix->items[lo].s, s, len) == 0) {
        at = lo + 1;
        lo += step;
        step *= 2;
    }
    size_t hi = lo < ix->n ? lo : ix->n;
    while (at < hi) {
        size_t mid = at + (hi - at) / 2;
        if (ix->items[mid].len >= len && memcmp(ix->items[mid].s, s, len) == 0) {
            at = mid + 1;
        } else {
            hi = mid;
        }
    }
    return at;
}

/* First item of [lo, hi), all of which are longer than `depth`, whose byte there is at least `byte`. */
static size_t split_run(const prefix_index *ix, size_t lo, size_t hi, size_t depth, unsigned byte) {
    while (lo < hi) {
        size_t mid = lo + (hi - lo) / 2;
        if (ix->items[mid].s[depth] < byte) {
            lo = mid + 1;
        } else {
            hi = mid;
        }
    }
    return lo;
}

/* Nearest string longer than s that begins with s, as (measure, id); UINT64_MAX: none. */
static uint64_t nearest_extension(const prefix_index *ix, size_t at, const uint8_t *s, size_t len) {
    size_t end = len ? run_end(ix, at, s, len) : ix->n;
    if (end == at) {
        return UINT64_MAX;
    }
    size_t cut_lo = split_run(ix, at, end, len, 0x80), cut_hi = split_run(ix, cut_lo, end, len, 0xC0);
    uint64_t a = tree_min(ix, at, cut_lo), b = tree_min(ix, cut_hi, end);
    return a < b ? a : b;
}

/* Longest string that is a shorter prefix of s, or NULL. */
static const prefix_item *longest_prefix(const prefix_index *ix, size_t at, const uint8_t *s, size_t len,
                                         bool admit_barred) {
    for (int32_t p = (int32_t)at - 1; p >= 0; p = ix->parent[p]) {
        const prefix_item *it = &ix->items[p];
        if (is_prefix(it, s, len) && !is_continuation(s[it->len]) && (admit_barred || !it->barred)) {
            return it;
        }
    }
    return NULL;
}

prefix_match prefix_index_find(const prefix_index *ix, const uint8_t *s, size_t len, uint32_t measure,
                               bool admit_barred) {
    prefix_match m = {.id = -1};
    uint64_t key = leading_key(s, len);
    size_t at = lower_bound(ix, key, s, len);
    if (at < ix->n && compare_bytes(&ix->items[at], key, s, len) == 0) {
        m.id = ix->items[at].id;
        m.exact = true;
        return m;
    }
    const prefix_item *shorter = longest_prefix(ix, at, s, len, admit_barred);
    if (shorter) {
        m.id = shorter->id;
        m.distance = (int32_t)(measure - shorter->measure);
    }
    uint64_t longer = nearest_extension(ix, at, s, len);
    if (longer != UINT64_MAX) {
        int32_t id = (int32_t)(uint32_t)longer, distance = (int32_t)((uint32_t)(longer >> 32) - measure);
        if (m.id < 0 || distance < m.distance || (distance == m.distance && id < m.id)) {
            m.id = id;
            m.distance = distance;
        }
    }
    return m;
}
