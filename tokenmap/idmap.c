/* Byte strings -> token ids. */
#include "tokenmap/idmap.h"

#include <stdlib.h>
#include <string.h>
#include <xxhash.h>

#include "base/mem.h"

bool idmap_init(idmap *m, size_t n_max, const uint8_t *data, const uint32_t *off) {
    size_t slots = 16;
    while (slots < n_max * 2) { /* at most half full: short probes */
        slots *= 2;
    }
    m->slot = cmc_alloc(slots, sizeof *m->slot);
    if (m->slot == NULL) {
        return false;
    }
    memset(m->slot, 0xff, slots * sizeof *m->slot);
    m->mask = slots - 1;
    m->data = data;
    m->off = off;
    return true;
}

void idmap_free(idmap *m) {
    free(m->slot);
    m->slot = NULL;
}

/* The slot that holds the string, or the free one where it would go. */
static size_t idmap_slot(const idmap *m, const void *s, size_t len) {
    size_t i = (size_t)XXH3_64bits(s, len) & m->mask;
    for (;; i = (i + 1) & m->mask) {
        int32_t id = m->slot[i];
        if (id < 0) {
            return i;
        }
        size_t have = m->off[id + 1] - m->off[id];
        if (have == len && memcmp(m->data + m->off[id], s, len) == 0) {
            return i;
        }
    }
}

void idmap_add(idmap *m, int32_t id) {
    size_t i = idmap_slot(m, m->data + m->off[id], m->off[id + 1] - m->off[id]);
    if (m->slot[i] < 0) {
        m->slot[i] = id;
    }
}

int32_t idmap_find(const idmap *m, const void *s, size_t len) {
    return m->slot[idmap_slot(m, s, len)];
}
