/* Panels in plain C. */
#include "runtime/screen_panel.h"

static void encode(const float *x, size_t n, size_t r, uint8_t *panel) {
    for (size_t g = 0; g < n / QUANT_GROUP; g++, panel += PANEL_GROUP_BYTES) {
        uint8_t block[18];
        quant_encode_row(CMC_Q4_0, x + g * QUANT_GROUP, block, QUANT_GROUP);
        memcpy(panel + 2 * r, block, 2);
        for (size_t k = 0; k < 4; k++)
            memcpy(panel + 2 * PANEL_ROWS + 4 * (k * PANEL_ROWS + r), block + 2 + 4 * k, 4);
    }
}

/* The sum of one row of a group of the panel with activations q. */
static int group_sum(const uint8_t *group, size_t r, const int8_t *q) {
    int sum = 0;
    for (size_t i = 0; i < 16; i++) {
        const int byte = group[2 * PANEL_ROWS + 4 * (i / 4 * PANEL_ROWS + r) + i % 4];
        sum += ((byte & 15) - 8) * q[i] + ((byte >> 4) - 8) * q[16 + i];
    }
    return sum;
}

static void dot(const uint8_t *panel, size_t n, const uint8_t *acts, size_t act_stride, size_t cols, float *out, size_t ld) {
    for (size_t c = 0; c < cols; c++) {
        const quant_act y = quant_act_view(acts + c * act_stride, n);
        for (size_t r = 0; r < PANEL_ROWS; r++) {
            float sum = 0;
            for (size_t g = 0; g < n / QUANT_GROUP; g++) {
                const uint8_t *group = panel + g * PANEL_GROUP_BYTES;
                const float scale = quant_f16_to_f32(quant_le16(group + 2 * r)) * y.d[g];
                sum += scale * (float)group_sum(group, r, y.q + g * QUANT_GROUP);
            }
            out[c * ld + r] = sum;
        }
    }
}

const panel_kernels panel_kernels_plain = {.encode = encode, .dot = dot};
