/* Random masks from keys. */
#include "tinylm/drop.h"

static uint64_t drop_mix(uint64_t z) {
    z += 0x9E3779B97F4A7C15u;
    z = (z ^ (z >> 30)) * 0xBF58476D1CE4E5B9u;
    z = (z ^ (z >> 27)) * 0x94D049BB133111EBu;
    return z ^ (z >> 31);
}

uint64_t drop_key(uint64_t key, size_t branch, size_t row) {
    return drop_mix(key ^ drop_mix((uint64_t)branch << 32 | (uint64_t)row));
}

void drop_mask(uint64_t row_key, float p, float *mask, size_t from, size_t n) {
    uint32_t bound = (uint32_t)(p * 65536.0f);
    float kept = 1.0f / (1.0f - (float)bound / 65536.0f);
    uint64_t bits = 0;
    for (size_t c = 0; c < n; c++) {
        if (c == 0 || (from + c) % 4 == 0)
            bits = drop_mix(row_key + (from + c) / 4);
        mask[c] = (bits >> ((from + c) % 4 * 16) & 0xffffu) < bound ? 0.0f : kept;
    }
}
