/* Plain decoding of every block type: the definition that the vector code is tested against (layouts: ggml-common.h). */
#include "runtime/quant_impl.h"

const int8_t quant_iq4_values[16] = {-127, -104, -83, -65, -49, -35, -22, -10, 1, 13, 25, 38, 53, 69, 89, 113};

static float f16_at(const uint8_t *p) {
    return quant_f16_to_f32(quant_le16(p));
}

/* Bytes of 16 nibble pairs: the low ones are elements 0..15 of the group, the high ones 16..31. */
static void nibbles_16(const uint8_t *qs, int8_t *q) {
    for (int i = 0; i < 16; i++) {
        q[i] = (int8_t)(qs[i] & 15);
        q[i + 16] = (int8_t)(qs[i] >> 4);
    }
}

static void set_scale(quant_group *out, float a, float m) {
    out->a[0] = out->a[1] = a;
    out->m[0] = out->m[1] = m;
}

/* Q4_0: d, 16 nibble bytes. Q4_1: d, m, 16 nibble bytes. */
static void load_q4(const uint8_t *b, bool min, quant_group *out) {
    set_scale(out, f16_at(b), min ? f16_at(b + 2) : -0.0f);
    nibbles_16(b + (min ? 4 : 2), out->q);
    for (int i = 0; i < 32 && !min; i++)
        out->q[i] = (int8_t)(out->q[i] - 8);
}

/* Q5_0: d, 32 high bits, 16 nibble bytes. Q5_1: d, m, high bits, nibble bytes. */
static void load_q5(const uint8_t *b, bool min, quant_group *out) {
    set_scale(out, f16_at(b), min ? f16_at(b + 2) : -0.0f);
    uint32_t high = quant_le32(b + (min ? 4 : 2));
    nibbles_16(b + (min ? 8 : 6), out->q);
    for (int i = 0; i < 32; i++)
        out->q[i] = (int8_t)((out->q[i] | (int)((high >> i) & 1) << 4) - (min ? 0 : 16));
}

static void load_q8_0(const uint8_t *b, quant_group *out) {
    set_scale(out, f16_at(b), -0.0f);
    memcpy(out->q, b + 2, 32);
}

static void iq4_values(const uint8_t *qs, int8_t *q) {
    nibbles_16(qs, q);
    for (int i = 0; i < 32; i++)
        q[i] = quant_iq4_values[q[i]];
}

static void load_iq4_nl(const uint8_t *b, quant_group *out) {
    set_scale(out, f16_at(b), -0.0f);
    iq4_values(b + 2, out->q);
}

/* Q2_K: 16 bytes of scale (low) and minimum (high) nibbles, one for each 16 elements; 64 bytes of 2-bit values, where the
 * four groups of a half share 32 bytes; d, dmin. */
static void load_q2_k(const uint8_t *b, int g, quant_group *out) {
    const uint8_t *qs = b + 16 + 32 * (g / 4);
    float d = f16_at(b + 80), dmin = f16_at(b + 82);
    for (int h = 0; h < 2; h++) {
        uint8_t sc = b[2 * g + h];
        out->a[h] = d * (float)(sc & 15);
        out->m[h] = -(dmin * (float)(sc >> 4));
    }
    for (int i = 0; i < 32; i++)
        out->q[i] = (int8_t)((qs[i] >> 2 * (g % 4)) & 3);
}

/* Q3_K: 32 bytes of high bits (bit g is group g's, clear: minus 4); 64 bytes of 2-bit values as in Q2_K; 16 six-bit scales
 * in 12 bytes (low nibbles in 0..7, high pairs in 8..11), less 32; d. */
static void load_q3_k(const uint8_t *b, int g, quant_group *out) {
    const uint8_t *hmask = b, *qs = b + 32 + 32 * (g / 4), *packed = b + 96;
    float d = f16_at(b + 108);
    for (int h = 0; h < 2; h++) {
        int k = 2 * g + h;
        int low = (packed[k % 8] >> 4 * (k / 8)) & 15, high = (packed[8 + k % 4] >> 2 * (k / 4)) & 3;
        out->a[h] = d * (float)((low | high << 4) - 32);
        out->m[h] = -0.0f;
    }
    for (int i = 0; i < 32; i++)
        out->q[i] = (int8_t)(((qs[i] >> 2 * (g % 4)) & 3) - ((hmask[i] >> g) & 1 ? 0 : 4));
}

/* The 8 six-bit scales and minima that Q4_K and Q5_K pack into 12 bytes. */
static void scale_min_k(const uint8_t *p, int g, int *scale, int *min) {
    if (g < 4) {
        *scale = p[g] & 63;
        *min = p[g + 4] & 63;
    } else {
        *scale = (p[g + 4] & 15) | (p[g - 4] >> 6) << 4;
        *min = (p[g + 4] >> 4) | (p[g] >> 6) << 4;
    }
}

/* Q4_K: d, dmin, 12 bytes of scales, 128 nibble bytes: 32 bytes hold group 2j (low) and 2j + 1 (high).
 * Q5_K: the same with 32 bytes of high bits (bit g is group g's) before the nibbles. */
static void load_q45_k(const uint8_t *b, int g, bool five, quant_group *out) {
    const uint8_t *qh = b + 16, *qs = b + (five ? 48 : 16) + 32 * (g / 2);
    int scale, min;
    scale_min_k(b + 4, g, &scale, &min);
    set_scale(out, f16_at(b) * (float)scale, -(f16_at(b + 2) * (float)min));
    for (int i = 0; i < 32; i++) {
        int high = five ? (qh[i] >> g) & 1 : 0;
        out->q[i] = (int8_t)(((qs[i] >> 4 * (g % 2)) & 15) | high << 4);
    }
}

/* Q6_K: for each half of 128: 64 bytes of low nibbles; after both, 32 bytes of high pairs for each half; then 16 int8
 * scales, d. */
static void load_q6_k(const uint8_t *b, int g, quant_group *out) {
    int half = g / 4, j = g % 4;
    const uint8_t *ql = b + 64 * half + 32 * (j % 2), *qh = b + 128 + 32 * half;
    float d = f16_at(b + 208);
    for (int h = 0; h < 2; h++) {
        out->a[h] = d * (float)(int8_t)b[192 + 2 * g + h];
        out->m[h] = -0.0f;
    }
    for (int i = 0; i < 32; i++) {
        int low = (ql[i] >> 4 * (j / 2)) & 15, high = (qh[i] >> 2 * j) & 3;
        out->q[i] = (int8_t)((low | high << 4) - 32);
    }
}

/* IQ4_XS: d, 8 pairs of high scale bits, 8 nibbles of low ones (less 32), 16 nibble bytes a group. */
static void load_iq4_xs(const uint8_t *b, int g, quant_group *out) {
    int low = (b[4 + g / 2] >> 4 * (g % 2)) & 15, high = (quant_le16(b + 2) >> 2 * g) & 3;
    set_scale(out, f16_at(b) * (float)((low | high << 4) - 32), -0.0f);
    iq4_values(b + 8 + 16 * g, out->q);
}

void quant_group_load(uint32_t type, const uint8_t *row, size_t g, quant_group *out) {
    size_t super = g / QUANT_SUPER_GROUPS;
    int sub = (int)(g % QUANT_SUPER_GROUPS);
    switch (type) {
    case CMC_Q4_0: load_q4(row + 18 * g, false, out); break;
    case CMC_Q4_1: load_q4(row + 20 * g, true, out); break;
    case CMC_Q5_0: load_q5(row + 22 * g, false, out); break;
    case CMC_Q5_1: load_q5(row + 24 * g, true, out); break;
    case CMC_Q8_0: load_q8_0(row + 34 * g, out); break;
    case CMC_IQ4_NL: load_iq4_nl(row + 18 * g, out); break;
    case CMC_Q2_K: load_q2_k(row + 84 * super, sub, out); break;
    case CMC_Q3_K: load_q3_k(row + 110 * super, sub, out); break;
    case CMC_Q4_K: load_q45_k(row + 144 * super, sub, false, out); break;
    case CMC_Q5_K: load_q45_k(row + 176 * super, sub, true, out); break;
    case CMC_Q6_K: load_q6_k(row + 210 * super, sub, out); break;
    case CMC_IQ4_XS: load_iq4_xs(row + 136 * super, sub, out); break;
    default: memset(out, 0, sizeof *out); break;   /* gguf refuses other types */
    }
}

static void decode_f16(const uint8_t *row, float *out, size_t n) {
    for (size_t i = 0; i < n; i++)
        out[i] = f16_at(row + 2 * i);
}

static void decode_bf16(const uint8_t *row, float *out, size_t n) {
    for (size_t i = 0; i < n; i++) {
        uint32_t bits = (uint32_t)quant_le16(row + 2 * i) << 16;
        memcpy(&out[i], &bits, sizeof bits);
    }
}

void quant_decode_row_plain(uint32_t type, const void *row, float *out, size_t n) {
    switch (type) {
    case CMC_F32: memcpy(out, row, n * sizeof *out); return;
    case CMC_F16: decode_f16(row, out, n); return;
    case CMC_BF16: decode_bf16(row, out, n); return;
    default: break;
    }
    for (size_t g = 0; g < n / QUANT_GROUP; g++) {
        quant_group w;
        quant_group_load(type, row, g, &w);
        for (int i = 0; i < QUANT_GROUP; i++)
            out[g * QUANT_GROUP + (size_t)i] = w.a[i / 16] * (float)w.q[i] + w.m[i / 16];
    }
}
