/* The output product for choosing a token. All logits are estimated from a compact copy of the output matrix, which is half
 * the reading or less; then the likeliest rows are computed from the matrix itself. */
#ifndef CMC_RUNTIME_SCREEN_H
#define CMC_RUNTIME_SCREEN_H
#include "runtime/matmul.h"

/* Made when a token is first chosen; empty until then. */
typedef struct screen {
    uint8_t *panels;             /* the copy, of 4.5 bits a weight (screen_panel.h) */
    struct screen_part *parts;   /* [threads][PANEL_COLS] */
    struct matmul_range *ranges; /* [threads] */
    struct screen_found *found;  /* candidates that each thread found, and how many */
    size_t *n_found;
    uint8_t *acts;               /* [PANEL_COLS][act_stride] quantised columns */
    size_t act_stride;
} screen;
void screen_free(screen *s);
/* Bytes of the copy, 0 until it is made. */
uint64_t screen_memory(const cmc_model *m);

/* As graph_logits, for rows of which a token is to be chosen. Of each row the greatest by their estimates are what graph_logits
 * gives for that row alone: 1,024 to 4,096 (of a small vocabulary 1 in 64 to 1 in 16), until the others have 1/256 of the probability; the
 * others are estimates. All are computed where the runtime says so, in exact mode, where the copy would not pay, and for several rows at
 * once where the matrix is packed (pack.h): that many are as much arithmetic one way as the other, and then there is nothing to look for. */
cmc_status screen_logits(cmc_model *m, const float *hidden, size_t n, float *logits, size_t ld, cmc_error *err);
#endif
