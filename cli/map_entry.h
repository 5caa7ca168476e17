/* One entry of a map, for people and as JSON. */
#ifndef CMC_CLI_MAP_ENTRY_H
#define CMC_CLI_MAP_ENTRY_H
#include "cli/cli.h"
#include "cli/json.h"

/* A map with its vocabularies and where they came from: what is shown of it. */
typedef struct map_view {
    const char *host_path, *delta_path;
    const char *rule;             /* "default" or "reference", or NULL: read from a list */
    const char *override;         /* the file of hand edits, or NULL */
    cmc_vocab *host, *delta;
    cmc_map *map;
    cmc_map_counts counts;
} map_view;

const char *map_how_name(cmc_map_how how);
/* Both stand for the same bytes, or both end a turn, or they are one control token: what the host means by its token
 * the delta means by its own. False where `to` is -1. */
bool map_same_text(const map_view *v, int32_t id, int32_t to);

/* How far an entry reaches, in words, and the bytes that the words speak of: "its first 4 of 6 bytes; left over", "ly".
 * `rest` is borrowed from a vocabulary. */
typedef struct map_words { char text[96]; const uint8_t *rest; size_t n_rest; } map_words;
map_words map_entry_words(const map_view *v, int32_t id);

jbuild map_entry_json(const map_view *v, int32_t id);
/* --explain: a line for each token, and the same as a JSON list. */
int map_explain(const map_view *v, const cmc_ids *ids);
jbuild map_explain_json(const map_view *v, const cmc_ids *ids);
#endif
