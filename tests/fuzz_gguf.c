/* Fuzz target: any bytes, opened as a GGUF file and read to the last one. */
#include "tests/gguf_walk.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    gguf *g = NULL;
    if (gguf_open_memory(data, size, "input", &g, NULL) == CMC_OK) {
        gguf_walk(g);
    }
    gguf_free(g);
    return 0;
}
