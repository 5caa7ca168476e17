/* What a map is worth: its entries counted, over the host's vocabulary and over the tokens of a text. */
#ifndef CMC_CLI_MAP_STATS_H
#define CMC_CLI_MAP_STATS_H
#include "cli/map_entry.h"

enum {
    STATS_HOWS = CMC_HOW_OVERRIDE + 1, STATS_KINDS = CMC_KIND_UNUSED + 1,
    STATS_STEPS = 8,          /* of a distance, and of a fan-in: see map_distance_name, map_fan_name */
    STATS_WORST = 20          /* entries in a list of extremes */
};

/* Of how many entries, and how often their tokens stand in the text. */
typedef struct map_count { int64_t tokens, uses; } map_count;
/* What the delta makes of a group: the same text (see map_same_text), something near or set by hand, or nothing. */
typedef struct map_reach { map_count all, same, near, prefix, none; } map_reach;

typedef struct map_list { int32_t id[STATS_WORST]; size_t n; } map_list;

typedef struct map_stats {
    bool text;                             /* a text was given: uses count */
    int64_t *uses;                         /* [n_host], NULL without a text */
    int32_t *fan_in;                       /* [n_delta] host tokens that map to it */
    map_reach all;
    map_count how[STATS_HOWS];
    map_count kind[STATS_KINDS][STATS_HOWS];
    map_count distance[STATS_STEPS];       /* of the entries found by prefix */
    int64_t fan[STATS_STEPS];              /* delta tokens by fan-in */
    map_reach *script;                     /* [map_scripts_count()] */
    map_list loaded;                       /* delta tokens of the greatest fan-in */
    map_list far;                          /* host tokens of the greatest distance */
    map_list costly;                       /* host tokens by distance times uses */
    map_list missed;                       /* unmapped host tokens by uses */
} map_stats;

/* `ids`: the text's tokens, NULL without one. Gives the exit status; on failure it is reported and freed. */
int map_stats_make(const map_view *v, const cmc_ids *ids, map_stats *out);
void map_stats_free(map_stats *s);
/* The counts by how that `cmc map` shows of a text, without the rest. */
void map_text_counts(const cmc_map *m, const cmc_ids *ids, int64_t by_how[STATS_HOWS]);

const char *map_distance_name(size_t step);   /* "1", "2", "3", "4", "5-6", ... */
const char *map_fan_name(size_t step);        /* "0", "1", "2", "3-4", ... */
const char *map_kind_name(cmc_token_kind kind);
#endif
