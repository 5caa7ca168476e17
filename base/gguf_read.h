/* Little-endian values at any address, and the sizes of GGUF's value types. */
#ifndef CMC_BASE_GGUF_READ_H
#define CMC_BASE_GGUF_READ_H
#include "base/gguf.h"

static inline uint32_t read_u32(const uint8_t *p) {
    return (uint32_t)p[0] | (uint32_t)p[1] << 8 | (uint32_t)p[2] << 16 | (uint32_t)p[3] << 24;
}

static inline uint64_t read_u64(const uint8_t *p) { return read_u32(p) | (uint64_t)read_u32(p + 4) << 32; }

/* Bytes of one value; 0 for strings and arrays, which say their own length, and for types that do not exist. */
static inline size_t gguf_value_bytes(uint32_t type) {
    static const uint8_t bytes[] = {
        [GGUF_U8] = 1, [GGUF_I8] = 1, [GGUF_U16] = 2, [GGUF_I16] = 2, [GGUF_U32] = 4, [GGUF_I32] = 4,
        [GGUF_F32] = 4, [GGUF_BOOL] = 1, [GGUF_U64] = 8, [GGUF_I64] = 8, [GGUF_F64] = 8,
    };
    return type < sizeof bytes ? bytes[type] : 0;
}

/* "uint32", "string", ...; "unknown" for types that do not exist. */
const char *gguf_vtype_name(uint32_t type);

/* Names from files, for messages: at most 60 bytes of it in buf, which is returned. */
const char *gguf_show(gguf_str s, char buf[64]);
#endif
