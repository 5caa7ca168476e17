/* Counting n-grams by sorting them. */
#include "eval/ngrams.h"

#include <stdlib.h>
#include <string.h>

#define HASH_NONFATAL_OOM 1
#define uthash_nonfatal_oom(entry) ((entry)->failed = true)
#include <uthash.h>

typedef struct word_table_entry {
    UT_hash_handle hh;
    int32_t number;
    bool failed;               /* the table had no memory for it */
    char word[];
} word_table_entry;

cmc_status word_table_number(word_table *w, const char *s, size_t len, int32_t *out) {
    word_table_entry *e = NULL;
    HASH_FIND(hh, w->table, s, len, e);
    if (!e) {
        e = malloc(sizeof *e + len + 1);
        if (!e)
            return CMC_E_NOMEM;
        memcpy(e->word, s, len);
        e->number = (int32_t)w->n;
        e->failed = false;
        HASH_ADD_KEYPTR(hh, w->table, e->word, len, e);
        if (e->failed) {
            free(e);
            return CMC_E_NOMEM;
        }
        w->n++;
    }
    *out = e->number;
    return CMC_OK;
}

void word_table_free(word_table *w) {
    word_table_entry *e, *next;
    HASH_ITER(hh, w->table, e, next) {
        HASH_DEL(w->table, e);
        free(e);
    }
    w->n = 0;
}

cmc_status ngrams_add(ngrams *g, const cmc_ids *text, size_t n) {
    if (text->n < n)
        return CMC_OK;
    size_t more = text->n - n + 1;
    if (g->cap - g->n < more) {
        size_t cap = 2 * g->cap + more;
        ngram *v = realloc(g->v, cap * sizeof *v);
        if (!v)
            return CMC_E_NOMEM;
        g->v = v;
        g->cap = cap;
    }
    for (size_t i = 0; i < more; i++) {
        ngram *to = &g->v[g->n++];
        memset(to, 0, sizeof *to);
        memcpy(to->v, text->v + i, n * sizeof *to->v);
    }
    return CMC_OK;
}

void ngrams_free(ngrams *g) {
    free(g->v);
    *g = (ngrams){0};
}

static int ngrams_compare(const void *a, const void *b) {
    return memcmp(a, b, sizeof(ngram));
}

static void ngrams_sort(ngrams *g) {
    if (g->n)
        qsort(g->v, g->n, sizeof *g->v, ngrams_compare);
}

size_t ngrams_distinct(ngrams *g) {
    size_t distinct = g->n > 0;
    ngrams_sort(g);
    for (size_t i = 1; i < g->n; i++)
        distinct += ngrams_compare(&g->v[i], &g->v[i - 1]) != 0;
    return distinct;
}

size_t ngrams_common(ngrams *a, ngrams *b) {
    size_t common = 0, i = 0, k = 0;
    ngrams_sort(a);
    ngrams_sort(b);
    while (i < a->n && k < b->n) {
        int order = ngrams_compare(&a->v[i], &b->v[k]);
        common += order == 0;
        i += order <= 0;
        k += order >= 0;
    }
    return common;
}
