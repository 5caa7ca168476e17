/* The output product for choosing a token. All logits are estimated from a compact copy of the output matrix, which is half
 * the reading or less; then the likeliest rows are computed from the matrix itself. */
#ifndef CMC_RUNTIME_SCREEN_H
#define CMC_RUNTIME_SCREEN_H
#include "runtime/matmul.h"

/* Made when a token is first chosen; empty until then. */
typedef struct screen {
    weight copy;                 /* Q4_0 */
    uint8_t *data;               /* its rows */
    struct screen_part *parts;   /* [threads][SCREEN_COLS] */
    uint8_t *acts;               /* [SCREEN_COLS][act_stride] quantised columns */
    size_t act_stride;
} screen;
void screen_free(screen *s);

/* As graph_logits, for rows of which a token is to be chosen: of each row about 1 logit in 32, the greatest by their
 * estimates, is what graph_logits gives for that row alone; the others are estimates. All are computed where the
 * runtime says so, in exact mode, and where the copy would not pay. */
cmc_status screen_logits(cmc_model *m, const float *hidden, size_t n, float *logits, size_t ld, cmc_error *err);
/* What the next product of the output matrix will read. */
const weight *screen_reads(const cmc_model *m);
#endif
