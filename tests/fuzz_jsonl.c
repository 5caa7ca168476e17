/* Fuzz target: records from any bytes. Built alone, it reads the files named on its command line. */
#include <stdio.h>
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

#ifndef CMC_LIBFUZZER
int main(int argc, char **argv) {
    for (int i = 1; i < argc; i++) {
        FILE *f = fopen(argv[i], "rb");
        if (!f) {
            perror(argv[i]);
            return 1;
        }
        static uint8_t buf[1 << 20];
        size_t n = fread(buf, 1, sizeof buf, f);
        fclose(f);
        LLVMFuzzerTestOneInput(buf, n);
    }
    return 0;
}
#endif
