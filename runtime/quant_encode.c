/* Float conversions and the encoding of rows, for writing models; the rounding is ggml's reference quantisers'. */
#include "runtime/quant_impl.h"

#include <math.h>

static uint32_t bits_of(float f) {
    uint32_t u;
    memcpy(&u, &f, sizeof u);
    return u;
}

static float float_of(uint32_t u) {
    float f;
    memcpy(&f, &u, sizeof f);
    return f;
}

/* As vcvtph2ps: exact; a signalling NaN becomes quiet. */
float quant_f16_to_f32(uint16_t h) {
    uint32_t sign = (uint32_t)(h & 0x8000) << 16, exp = (h >> 10) & 31, mant = h & 0x3ff;
    if (exp == 31)
        return float_of(sign | 0x7f800000u | mant << 13 | (mant ? 0x400000u : 0));
    if (exp == 0)   /* zero and subnormals: mant * 2^-24 */
        return float_of(sign | bits_of((float)mant * 0x1p-24f));
    return float_of(sign | (exp + 112) << 23 | mant << 13);
}

/* As vcvtps2ph: to nearest, ties to even; NaN keeps the top of its payload and becomes quiet. */
uint16_t quant_f32_to_f16(float f) {
    uint32_t x = bits_of(f), sign = (x >> 16) & 0x8000, a = x & 0x7fffffff, r, rest, half;
    if (a > 0x7f800000)
        return (uint16_t)(sign | 0x7e00 | ((a >> 13) & 0x3ff));
    if (a >= 0x477ff000)                /* 65520 and more round to infinity */
        return (uint16_t)(sign | 0x7c00);
    if (a < 0x33000000)                 /* less than half the least subnormal, 2^-25 */
        return (uint16_t)sign;
    if (a < 0x38800000) {               /* subnormal: units of 2^-24 */
        uint32_t shift = 126 - (a >> 23), mant = (a & 0x7fffff) | 0x800000;
        r = mant >> shift;
        rest = mant & ((1u << shift) - 1);
        half = 1u << (shift - 1);
    } else {
        r = (a - 0x38000000) >> 13;
        rest = a & 0x1fff;
        half = 0x1000;
    }
    if (rest > half || (rest == half && (r & 1)))
        r++;                            /* a carry runs into the exponent, as it should */
    return (uint16_t)(sign | r);
}

static void put16(uint8_t *p, uint16_t v) {
    memcpy(p, &v, sizeof v);
}

static uint16_t bf16_of(float f) {
    uint32_t x = bits_of(f);
    if ((x & 0x7fffffff) > 0x7f800000)
        return (uint16_t)(x >> 16 | 64);
    return (uint16_t)((x + 0x7fff + ((x >> 16) & 1)) >> 16);
}

/* Towards zero into [0, hi]; NaN gives 0. */
static int to_level(float v, int hi) {
    if (!(v > 0))
        return 0;
    return v >= (float)hi ? hi : (int)v;
}

static void encode_q8_0(const float *x, uint8_t *b) {
    float max = 0;
    for (int i = 0; i < 32; i++)
        max = fmaxf(max, fabsf(x[i]));
    float d = max / 127, id = d > 0 ? 1 / d : 0;
    put16(b, quant_f32_to_f16(d));
    for (int i = 0; i < 32; i++) {
        float v = roundf(x[i] * id);
        b[2 + i] = (uint8_t)(int8_t)(v >= 127 ? 127 : v <= -127 ? -127 : v == v ? (int)v : 0);
    }
}

static void pack_nibbles(const int *q, uint8_t *qs) {
    for (int i = 0; i < 16; i++)
        qs[i] = (uint8_t)((q[i] & 15) | (q[i + 16] & 15) << 4);
}

static void pack_high_bits(const int *q, uint8_t *qh) {
    uint32_t high = 0;
    for (int i = 0; i < 32; i++)
        high |= (uint32_t)(q[i] >> 4 & 1) << i;
    memcpy(qh, &high, sizeof high);
}

/* Q4_0, Q5_0: the element of the largest magnitude becomes the lowest level, -levels / 2. */
static void encode_symmetric(const float *x, int levels, uint8_t *b) {
    float max = 0;
    for (int i = 0; i < 32; i++)
        if (fabsf(x[i]) > fabsf(max))
            max = x[i];
    float d = max / (float)(-levels / 2), id = d != 0 ? 1 / d : 0;
    int q[32];
    for (int i = 0; i < 32; i++)
        q[i] = to_level(x[i] * id + ((float)(levels / 2) + 0.5f), levels - 1);
    put16(b, quant_f32_to_f16(d));
    if (levels == 32)
        pack_high_bits(q, b + 2);
    pack_nibbles(q, b + (levels == 32 ? 6 : 2));
}

/* Q4_1, Q5_1: the least element becomes level 0, the greatest the last one. */
static void encode_affine(const float *x, int levels, uint8_t *b) {
    float lo = x[0], hi = x[0];
    for (int i = 1; i < 32; i++) {
        lo = fminf(lo, x[i]);
        hi = fmaxf(hi, x[i]);
    }
    float d = (hi - lo) / (float)(levels - 1), id = d != 0 ? 1 / d : 0;
    int q[32];
    for (int i = 0; i < 32; i++)
        q[i] = to_level((x[i] - lo) * id + 0.5f, levels - 1);
    put16(b, quant_f32_to_f16(d));
    put16(b + 2, quant_f32_to_f16(lo));
    if (levels == 32)
        pack_high_bits(q, b + 4);
    pack_nibbles(q, b + (levels == 32 ? 8 : 4));
}

static bool encode_floats(uint32_t type, const float *in, uint8_t *row, size_t n) {
    for (size_t i = 0; i < n; i++)
        put16(row + 2 * i, type == CMC_F16 ? quant_f32_to_f16(in[i]) : bf16_of(in[i]));
    return true;
}

bool quant_encode_row(uint32_t type, const float *in, void *row, size_t n) {
    uint8_t *b = row;
    if (type == CMC_F32) {
        memcpy(row, in, n * sizeof *in);
        return true;
    }
    if (type == CMC_F16 || type == CMC_BF16)
        return encode_floats(type, in, b, n);
    for (size_t i = 0; i + QUANT_GROUP <= n; i += QUANT_GROUP) {
        switch (type) {
        case CMC_Q8_0: encode_q8_0(in + i, b); b += 34; break;
        case CMC_Q4_0: encode_symmetric(in + i, 16, b); b += 18; break;
        case CMC_Q5_0: encode_symmetric(in + i, 32, b); b += 22; break;
        case CMC_Q4_1: encode_affine(in + i, 16, b); b += 20; break;
        case CMC_Q5_1: encode_affine(in + i, 32, b); b += 24; break;
        default: return false;
        }
    }
    return type == CMC_Q8_0 || type == CMC_Q4_0 || type == CMC_Q5_0 || type == CMC_Q4_1 || type == CMC_Q5_1;
}
