/* A model's matrices laid out anew for few columns: decoding several sequences side by side would otherwise turn the same rows at every
 * step, and where rows are short, adding up each by itself takes longer than its products. */
#ifndef CMC_RUNTIME_PACK_H
#define CMC_RUNTIME_PACK_H
#include "cmc.h"

#include <stdint.h>

/* Made when sequences are first decoded side by side, where there is memory to spare; of a narrow model when it is opened. */
typedef struct pack {
    uint8_t *strips;
    uint64_t bytes;
    bool tried;
} pack;

/* Whether m's rows are short and all of it small: then one column takes the strips too, and they are made at once, so that a result does
 * not depend on what came before. */
bool pack_is_narrow(const cmc_model *m);
/* Gives m's weights their strips, once: where the machine has kernels for them, and they take no more than a quarter of the memory that can
 * be had. Otherwise, or when memory is out, all stays as it is. A product of several columns has the same bits either way; one column of a
 * narrow model is summed in another order. */
void pack_model(cmc_model *m);
void pack_free(pack *p);
#endif
