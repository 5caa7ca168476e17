/* A model's matrices laid out anew for batches: decoding several sequences side by side would otherwise turn the same rows at every
 * step. */
#ifndef CMC_RUNTIME_PACK_H
#define CMC_RUNTIME_PACK_H
#include "cmc.h"

#include <stdint.h>

/* Made when sequences are first decoded side by side, where there is memory to spare; empty until then. */
typedef struct pack {
    uint8_t *strips;
    uint64_t bytes;
    bool tried;
} pack;

/* Gives m's weights their strips, once: where the machine has kernels for them, and they take no more than a quarter of the memory that can
 * be had. Otherwise, or when memory is out, all stays as it is: results are the same, bit for bit. */
void pack_model(cmc_model *m);
void pack_free(pack *p);
#endif
