/* A sorted list of strings that answers "equal to this one, else nearest by prefix" in O(log n). */
#ifndef CMC_TOKENMAP_PREFIX_INDEX_H
#define CMC_TOKENMAP_PREFIX_INDEX_H
#include "base/error.h"

/* One string. Of strings with equal bytes the one of least rank, then of least id, stands for all of them. */
typedef struct prefix_item {
    uint64_t key;        /* first eight bytes, big-endian, zero-padded: settles most comparisons; prefix_index_new's */
    const uint8_t *s;    /* borrowed; must outlive the index */
    uint32_t len;        /* in bytes */
    uint32_t measure;    /* length in the unit of the distance: bytes, or characters */
    int32_t id;
    uint8_t rank;
    bool barred;         /* as a shorter prefix it stands only for queries that admit barred strings */
} prefix_item;

typedef struct prefix_index prefix_index;

typedef struct prefix_match {
    int32_t id;          /* -1: none */
    int32_t distance;    /* difference of the measures */
    bool exact;
} prefix_match;

/* Takes over `items` (from cmc_alloc), also when it fails. */
cmc_status prefix_index_new(prefix_item *items, size_t n, prefix_index **out, cmc_error *err);
void prefix_index_free(prefix_index *ix);

/* The string equal to s, else among those that are a prefix of s or of which s is one, the one whose measure is
 * nearest, ties to the lowest id. A prefix never cuts a UTF-8 character: the byte after it is not a continuation
 * byte. */
prefix_match prefix_index_find(const prefix_index *ix, const uint8_t *s, size_t len, uint32_t measure,
                               bool admit_barred);
#endif
