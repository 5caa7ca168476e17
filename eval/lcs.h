/* The longest common subsequence of two lists of numbers. */
#ifndef CMC_EVAL_LCS_H
#define CMC_EVAL_LCS_H
#include "cmc.h"

/* row[k], k from 0 to m: the length of a longest common subsequence of a[0..n) and b[0..k); where `from_end`, of both lists
 * read from their ends. n m steps; `row` is the caller's, m + 1 long. */
void lcs_lengths(const int32_t *a, size_t n, const int32_t *b, size_t m, bool from_end, size_t *row);

/* in_a[n] and in_b[m]: true for the elements of one longest common subsequence, so that those marked are the same lists. In
 * memory that grows with n + m (D. Hirschberg, "A linear space algorithm for computing maximal common subsequences", 1975). */
cmc_status lcs_mark(const int32_t *a, size_t n, const int32_t *b, size_t m, bool *in_a, bool *in_b);
#endif
