/* Fuzz target: records from any bytes. */
#include <stdlib.h>

#include "runtime/prompt.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    for (int need = 0; need < 2; need++) {
        cmc_records r = {0};
        cmc_error err = {0};
        cmc_status s = records_read_memory((const char *)data, size, "fuzz", need != 0, &r, &err);
        if ((s == CMC_OK) != (r.n > 0) || (s != CMC_OK && !err.message[0])) abort();
        cmc_records_free(&r);
    }
    return 0;
}
