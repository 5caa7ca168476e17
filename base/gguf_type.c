/* Tensor types: names, and the block layouts of those that cmc reads (ggml-common.h). */
#include "base/gguf.h"

typedef struct type_info { const char *name; uint16_t block, bytes; } type_info;

static const type_info types[] = {
    [CMC_F32] = {"F32", 1, 4},
    [CMC_F16] = {"F16", 1, 2},
    [CMC_Q4_0] = {"Q4_0", 32, 18},
    [CMC_Q4_1] = {"Q4_1", 32, 20},
    [CMC_Q5_0] = {"Q5_0", 32, 22},
    [CMC_Q5_1] = {"Q5_1", 32, 24},
    [CMC_Q8_0] = {"Q8_0", 32, 34},
    [9] = {"Q8_1", 0, 0},
    [CMC_Q2_K] = {"Q2_K", 256, 84},
    [CMC_Q3_K] = {"Q3_K", 256, 110},
    [CMC_Q4_K] = {"Q4_K", 256, 144},
    [CMC_Q5_K] = {"Q5_K", 256, 176},
    [CMC_Q6_K] = {"Q6_K", 256, 210},
    [15] = {"Q8_K", 0, 0},
    [16] = {"IQ2_XXS", 0, 0},
    [17] = {"IQ2_XS", 0, 0},
    [18] = {"IQ3_XXS", 0, 0},
    [19] = {"IQ1_S", 0, 0},
    [CMC_IQ4_NL] = {"IQ4_NL", 32, 18},
    [21] = {"IQ3_S", 0, 0},
    [22] = {"IQ2_S", 0, 0},
    [CMC_IQ4_XS] = {"IQ4_XS", 256, 136},
    [24] = {"I8", 0, 0},
    [25] = {"I16", 0, 0},
    [26] = {"I32", 0, 0},
    [27] = {"I64", 0, 0},
    [28] = {"F64", 0, 0},
    [29] = {"IQ1_M", 0, 0},
    [CMC_BF16] = {"BF16", 1, 2},
    [34] = {"TQ1_0", 0, 0},
    [35] = {"TQ2_0", 0, 0},
    [39] = {"MXFP4", 0, 0},
    [40] = {"NVFP4", 0, 0},
    [41] = {"Q1_0", 0, 0},
    [42] = {"Q2_0", 0, 0},
};

static type_info type_get(uint32_t type) {
    return type < sizeof types / sizeof types[0] ? types[type] : (type_info){0};
}

const char *cmc_type_name(uint32_t type) { return type_get(type).name; }

bool cmc_type_supported(uint32_t type) { return type_get(type).block != 0; }

size_t cmc_type_block(uint32_t type) { return type_get(type).block; }

size_t cmc_type_block_bytes(uint32_t type) { return type_get(type).bytes; }

size_t cmc_type_row_bytes(uint32_t type, size_t n) {
    type_info info = type_get(type);
    return info.block != 0 ? n / info.block * info.bytes : 0;
}
