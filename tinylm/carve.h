/* Arrays of floats laid out one after the other in one allocation, each on a 64-byte boundary. */
#ifndef CMC_TINYLM_CARVE_H
#define CMC_TINYLM_CARVE_H
#include <stddef.h>

typedef struct carver {
    float *base;       /* NULL: nothing is there yet, it only counts */
    size_t used;       /* floats */
} carver;

static inline float *carve(carver *c, size_t rows, size_t cols) {
    size_t off = c->used;
    c->used += (rows * cols + 15) / 16 * 16;
    return c->base ? c->base + off : NULL;
}
#endif
