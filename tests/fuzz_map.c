/* Fuzz target: map files from any bytes. The first two bytes choose the vocabularies' sizes. */
#include <stdlib.h>
#include <string.h>

#include "tokenmap/map.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    if (size < 2) {
        return 0;
    }
    int32_t n_host = data[0] % 8, n_delta = data[1] % 8;
    cmc_map *m;
    cmc_error err = {0};
    cmc_status status = map_import_memory(data + 2, size - 2, "fuzz", n_host, n_delta, &m, &err);
    if ((status == CMC_OK) != (m != NULL) || (status != CMC_OK && (!err.message[0] || strchr(err.message, '\n')))) {
        abort();
    }
    for (int32_t i = 0; m && i < n_host; i++) {
        int32_t to = cmc_map_get(m, i, NULL, NULL);
        if (to < -1 || to >= n_delta) {
            abort();
        }
    }
    cmc_map_free(m);
    return 0;
}
