/* PM-MinED as the paper's public code has it (arXiv 2410.17599): on spellings as stored, distances in characters. */
#include <string.h>

#include "base/mem.h"
#include "base/utf8.h"
#include "tokenmap/map.h"
#include "tokenmap/prefix_index.h"

static const char LOWER_BLOCK[] = "\xE2\x96\x81";   /* U+2581, SentencePiece's mark for a space */
enum { LOWER_BLOCK_LEN = 3, SPECIAL_IDS = 3 };

static const uint8_t *spelling(const cmc_vocab *v, int32_t id, size_t *len) {
    *len = v->spell_off[id + 1] - v->spell_off[id];
    return (const uint8_t *)v->spell + v->spell_off[id];
}

/* True also for the empty spelling. */
static bool all_lower_block(const uint8_t *s, size_t len) {
    for (size_t i = 0; i < len; i += LOWER_BLOCK_LEN) {
        if (len - i < LOWER_BLOCK_LEN || memcmp(s + i, LOWER_BLOCK, LOWER_BLOCK_LEN) != 0) {
            return false;
        }
    }
    return true;
}

static bool is_bracketed(const uint8_t *s, size_t len) {
    return len > 2 && s[0] == '<' && s[len - 1] == '>';
}

static cmc_status index_spellings(const cmc_vocab *v, prefix_index **out, cmc_error *err) {
    *out = NULL;
    prefix_item *items = cmc_alloc((size_t)v->n, sizeof *items);
    if (!items) {
        return cmc_fail_nomem(err, "an index of tokens", (size_t)v->n * sizeof *items);
    }
    for (int32_t id = 0; id < v->n; id++) {
        size_t len;
        const uint8_t *s = spelling(v, id, &len);
        items[id] = (prefix_item){.s = s, .len = (uint32_t)len, .measure = (uint32_t)cmc_utf8_count(s, len), .id = id,
                                  .barred = len == LOWER_BLOCK_LEN && all_lower_block(s, len)};
    }
    return prefix_index_new(items, (size_t)v->n, out, err);
}

cmc_status map_fill_reference(cmc_map *m, const cmc_vocab *host, const cmc_vocab *delta, cmc_error *err) {
    prefix_index *ix;
    CMC_TRY(index_spellings(delta, &ix, err));
    for (int32_t id = 0; id < host->n; id++) {
        size_t len;
        const uint8_t *s = spelling(host, id, &len);
        if (id < SPECIAL_IDS || is_bracketed(s, len)) {
            bool byte = id < delta->n && host->kind[id] == CMC_KIND_BYTE;
            map_set(m, id, id < delta->n ? id : -1, byte ? CMC_HOW_BYTE : CMC_HOW_ROLE, 0);
            continue;
        }
        prefix_match match = prefix_index_find(ix, s, len, (uint32_t)cmc_utf8_count(s, len), all_lower_block(s, len));
        map_set(m, id, match.id, match.exact ? CMC_HOW_EXACT : CMC_HOW_PREFIX, match.distance);
    }
    prefix_index_free(ix);
    return CMC_OK;
}
