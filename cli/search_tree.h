/* The tree of a coarse search (CoFiTune, arXiv 2404.10306): which layers and modules were tried, what came of each, and which
 * way the search goes. Kept in a file, so that what was scored is never trained again. */
#ifndef CMC_CLI_SEARCH_TREE_H
#define CMC_CLI_SEARCH_TREE_H
#include <math.h>

#include "cli/json.h"

enum { SEARCH_NODES = 16 };   /* one root, seven windows, two kinds of modules, two modules at most */

typedef struct search_node {
    const char *layers, *modules;   /* layers NULL: all */
    int parent, level;              /* -1: the root */
    bool done, kept;                /* scored; on the way that the search went */
    uint64_t params;
    double spec, vers;              /* nats a token: what new records gain, and what old ones lose (below 0) */
    double seconds;
} search_node;

typedef struct search_tree {
    search_node node[SEARCH_NODES];
    int n, n_layer;                 /* of the model */
    double floor;                   /* the least spec of a node that may be kept, as a share of the root's */
    char *settings;                 /* of the runs: the file is only taken over where they agree */
    double base_new, base_old;      /* nats a token of the base; NaN: not known yet */
} search_tree;

/* A score as the file has it, so that a search that goes on from there says the same. */
static inline double search_round(double x) { return round(x * 1e9) / 1e9; }
static inline double search_uni(const search_node *n) { return n->spec + n->vers; }

/* Just the root: all layers, q, k, v, up and down. Takes the settings over. */
void search_begin(search_tree *t, int n_layer, double floor, char *settings);
void search_free(search_tree *t);
/* Appends the children of a node: windows of the depth, then attention or feed-forward part, then up or down alone. Gives how
 * many; 0: it has none. */
int search_expand(search_tree *t, int node);
/* Of a node's children, all scored, the best with enough spec, where it beats the node itself; -1: the search ends at the node. */
int search_next(const search_tree *t, int node);

/* Whole or not at all. */
int search_save(const search_tree *t, const char *path);
/* Scores that `path` has, NULL where there is no such file: as search_found gives them. Refuses a file of other settings. */
int search_load(search_tree *t, const char *path, json_t **found);
/* Takes over the score of a node where it is there. */
void search_found(search_tree *t, int node, const json_t *found);

/* The tree, and what to train with; as text or a line of JSON a node. */
int search_print(const search_tree *t, int best, bool json);
#endif
