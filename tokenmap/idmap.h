/* Byte strings -> token ids: an open-addressing table over strings that lie in one block. uthash would cost 56 bytes
 * and an allocation a token; loading a vocabulary of 50,000 is mostly this. */
#ifndef CMC_TOKENMAP_IDMAP_H
#define CMC_TOKENMAP_IDMAP_H
#include "cmc.h"

typedef struct idmap {
    int32_t *slot;            /* -1: free */
    size_t mask;              /* slots - 1, a power of two less one */
    const uint8_t *data;      /* string i: data[off[i] .. off[i+1]); borrowed */
    const uint32_t *off;
} idmap;

bool idmap_init(idmap *m, size_t n_max, const uint8_t *data, const uint32_t *off);
void idmap_free(idmap *m);
void idmap_add(idmap *m, int32_t id);                                /* the first of equal strings stays */
int32_t idmap_find(const idmap *m, const void *s, size_t len);      /* -1: not there */
#endif
