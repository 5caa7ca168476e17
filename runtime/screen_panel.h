/* Panels: 16 rows of a matrix in 4 bits, laid out so that a vector instruction takes 4 columns of all 16. Read once for up to
 * SCREEN_COLS columns; half the work for a weight of the block formats' dots, which would be slower than memory here.
 *
 * For each group of 32 columns: float16 scale[16], then uint8 q[4][16][4]. Row r, column 4 k + b (of the group's first 16) is
 * the low nibble of q[k][r][b], column 16 + 4 k + b the high one; a weight is scale * (nibble - 8): Q4_0's values and bytes. */
#ifndef CMC_RUNTIME_SCREEN_PANEL_H
#define CMC_RUNTIME_SCREEN_PANEL_H
#include "runtime/quant_impl.h"

enum { PANEL_ROWS = 16, PANEL_GROUP_BYTES = PANEL_ROWS * 18, PANEL_COLS = 8 };

static inline size_t panel_bytes(size_t n_in) {
    return n_in / QUANT_GROUP * PANEL_GROUP_BYTES;
}

typedef struct panel_kernels {
    /* Writes row r of a panel, from floats: rounded as Q4_0 is. */
    void (*encode)(const float *x, size_t n, size_t r, uint8_t *panel);
    /* out[c * ld + r] for a panel's rows r and the quantised columns acts + c * act_stride, c < cols <= PANEL_COLS. Each
     * result depends on its row and column alone. */
    void (*dot)(const uint8_t *panel, size_t n, const uint8_t *acts, size_t act_stride, size_t cols, float *out, size_t ld);
} panel_kernels;

extern const panel_kernels panel_kernels_plain;
/* NULL where the machine (or the build) does not have it. */
const panel_kernels *panel_kernels_vnni(void);
#endif
