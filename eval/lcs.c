/* Longest common subsequences in linear space. */
#include "eval/lcs.h"

#include <stdlib.h>
#include <string.h>

/* The usual table, of which one row is kept. */
void lcs_lengths(const int32_t *a, size_t n, const int32_t *b, size_t m, bool from_end, size_t *row) {
    memset(row, 0, (m + 1) * sizeof *row);
    for (size_t i = 0; i < n; i++) {
        int32_t x = a[from_end ? n - 1 - i : i];
        size_t diagonal = 0;
        for (size_t k = 1; k <= m; k++) {
            size_t above = row[k];
            if (x == b[from_end ? m - k : k - 1])
                row[k] = diagonal + 1;
            else if (row[k - 1] > above)
                row[k] = row[k - 1];
            diagonal = above;
        }
    }
}

typedef struct lcs_part { const int32_t *a, *b; bool *in_a, *in_b; size_t n, m; } lcs_part;

/* One element against a list: the first that is equal. */
static void lcs_mark_one(const lcs_part *p) {
    for (size_t k = 0; k < p->m; k++) {
        if (p->a[0] == p->b[k]) {
            p->in_a[0] = p->in_b[k] = true;
            return;
        }
    }
}

/* Where b is parted best for a's two halves. `rows`: 2 (m + 1) numbers of scratch. */
static size_t lcs_split(const lcs_part *p, size_t half, size_t *rows) {
    size_t *head = rows, *tail = rows + p->m + 1, best = 0;
    lcs_lengths(p->a, half, p->b, p->m, false, head);
    lcs_lengths(p->a + half, p->n - half, p->b, p->m, true, tail);
    for (size_t k = 1; k <= p->m; k++) {
        if (head[k] + tail[p->m - k] > head[best] + tail[p->m - best])
            best = k;
    }
    return best;
}

/* As deep as the logarithm of n. */
static void lcs_mark_part(lcs_part p, size_t *rows) {
    if (p.n == 0 || p.m == 0)
        return;
    if (p.n == 1) {
        lcs_mark_one(&p);
        return;
    }
    size_t half = p.n / 2, at = lcs_split(&p, half, rows);
    lcs_mark_part((lcs_part){p.a, p.b, p.in_a, p.in_b, half, at}, rows);
    lcs_mark_part((lcs_part){p.a + half, p.b + at, p.in_a + half, p.in_b + at, p.n - half, p.m - at}, rows);
}

cmc_status lcs_mark(const int32_t *a, size_t n, const int32_t *b, size_t m, bool *in_a, bool *in_b) {
    size_t *rows = malloc(2 * (m + 1) * sizeof *rows);
    if (!rows)
        return CMC_E_NOMEM;
    memset(in_a, 0, n * sizeof *in_a);
    memset(in_b, 0, m * sizeof *in_b);
    lcs_mark_part((lcs_part){a, b, in_a, in_b, n, m}, rows);
    free(rows);
    return CMC_OK;
}
