/* The GGUF container: what is written is read back, and what is damaged is refused with the reason. */
#include "base/gguf.h"
#include "base/error.h"
#include "base/mem.h"
#include "tests/gguf_walk.h"
#include "tests/tiny.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

static int setup_dir(void **state) { return (*state = tiny_dir_new()) != NULL ? 0 : -1; }
static int teardown_dir(void **state) {
    tiny_dir_free(*state);
    return 0;
}

static gguf *open_ok(const char *path) {
    gguf *g;
    cmc_error err = {0};
    if (gguf_open(path, &g, &err) != CMC_OK) {
        fail_msg("%s", err.message);
    }
    return g;
}

/* ------------------------------------------------------------------------------------------------ a file by hand */

/* Bytes put one after the other, with no help from the writer under test. */
typedef struct bytes { uint8_t data[2048]; size_t n; } bytes;

static void put_n(bytes *b, uint64_t v, int n) {
    for (int i = 0; i < n; i++) {
        b->data[b->n++] = (uint8_t)(i < 8 ? v >> 8 * i : 0);
    }
}

static void put_s(bytes *b, const char *s) {
    put_n(b, strlen(s), 8);
    memcpy(b->data + b->n, s, strlen(s));
    b->n += strlen(s);
}

static void put_head(bytes *b, uint32_t version, uint64_t n_tensors, uint64_t n_kv) {
    memcpy(b->data, "GGUF", 4);
    b->n = 4;
    put_n(b, version, 4);
    put_n(b, n_tensors, 8);
    put_n(b, n_kv, 8);
}

static void put_u32_key(bytes *b, const char *key, uint32_t v) {
    put_s(b, key);
    put_n(b, GGUF_U32, 4);
    put_n(b, v, 4);
}

/* One- or two-dimensional. */
static void put_info(bytes *b, const char *name, uint64_t ne0, uint64_t ne1, uint32_t type, uint64_t offset) {
    put_s(b, name);
    put_n(b, ne1 > 1 ? 2 : 1, 4);
    put_n(b, ne0, 8);
    if (ne1 > 1) {
        put_n(b, ne1, 8);
    }
    put_n(b, type, 4);
    put_n(b, offset, 8);
}

static void put_pad(bytes *b, size_t align, size_t data) {
    b->n = (b->n + align - 1) / align * align + data;
}

/* --------------------------------------------------------------------------------------------------- damaged files */

static void d_empty(bytes *b) { b->n = 0; }
static void d_text(bytes *b) { put_n(b, 0x4c4d4747, 4); }
static void d_cut_version(bytes *b) { put_head(b, 3, 0, 0); b->n = 6; }
static void d_v1(bytes *b) { put_head(b, 1, 0, 0); }
static void d_v4(bytes *b) { put_head(b, 4, 0, 0); }
static void d_v0(bytes *b) { put_head(b, 0, 0, 0); }
static void d_big_endian(bytes *b) { put_head(b, 0x03000000, 0, 0); }
static void d_many_tensors(bytes *b) { put_head(b, 3, UINT64_MAX, 0); }
static void d_many_keys(bytes *b) { put_head(b, 3, 0, UINT64_MAX / 2); b->n += 100; }
static void d_long_key(bytes *b) { put_head(b, 3, 0, 1); put_n(b, UINT64_MAX - 4, 8); b->n += 20; }
static void d_empty_key(bytes *b) { put_head(b, 3, 0, 1); put_u32_key(b, "", 1); put_n(b, 0, 8); }
static void d_key_latin1(bytes *b) { put_head(b, 3, 0, 1); put_u32_key(b, "caf\351", 1); }
static void d_key_nul(bytes *b) { put_head(b, 3, 0, 1); put_u32_key(b, "a.b", 1); b->data[33] = 0; }
static void d_key_twice(bytes *b) { put_head(b, 3, 0, 2); put_u32_key(b, "a.b", 1); put_u32_key(b, "a.b", 2); }
static void d_value_type(bytes *b) { put_head(b, 3, 0, 1); put_s(b, "k"); put_n(b, 13, 4); put_n(b, 0, 8); }
static void d_value_cut(bytes *b) { put_head(b, 3, 0, 1); put_s(b, "key"); put_n(b, GGUF_U64, 4); put_n(b, 0, 7); }
static void d_bool(bytes *b) { put_head(b, 3, 0, 1); put_s(b, "k"); put_n(b, GGUF_BOOL, 4); put_n(b, 2, 1); }
static void d_string_long(bytes *b) {
    put_head(b, 3, 0, 1);
    put_s(b, "k");
    put_n(b, GGUF_STRING, 4);
    put_n(b, 5, 8);
    put_n(b, 0, 4);
}

static void put_array(bytes *b, uint32_t elem, uint64_t n) {
    put_head(b, 3, 0, 1);
    put_s(b, "list");
    put_n(b, GGUF_ARRAY, 4);
    put_n(b, elem, 4);
    put_n(b, n, 8);
}

static void d_nested(bytes *b) { put_array(b, GGUF_ARRAY, 1); put_n(b, GGUF_U8, 4); put_n(b, 0, 8); }
static void d_array_type(bytes *b) { put_array(b, 77, 1); }
static void d_array_long(bytes *b) { put_array(b, GGUF_U32, 5); b->n += 19; }
static void d_array_wraps(bytes *b) { put_array(b, GGUF_U64, UINT64_C(1) << 61); b->n += 16; }
static void d_array_bool(bytes *b) { put_array(b, GGUF_BOOL, 4); put_n(b, 0x01ff0001, 4); }
static void d_strings_many(bytes *b) { put_array(b, GGUF_STRING, 1000); b->n += 80; }
static void d_strings_long(bytes *b) { put_array(b, GGUF_STRING, 2); put_s(b, "abc"); put_n(b, 9, 8); b->n += 8; }
static void d_strings_cut(bytes *b) { put_array(b, GGUF_STRING, 2); put_s(b, "abc"); put_n(b, 9, 7); }

static void d_align_odd(bytes *b) { put_head(b, 3, 0, 1); put_u32_key(b, "general.alignment", 24); }
static void d_align_small(bytes *b) { put_head(b, 3, 0, 1); put_u32_key(b, "general.alignment", 4); }
static void d_align_zero(bytes *b) { put_head(b, 3, 0, 1); put_u32_key(b, "general.alignment", 0); }
static void d_align_text(bytes *b) {
    put_head(b, 3, 0, 1);
    put_s(b, "general.alignment");
    put_n(b, GGUF_STRING, 4);
    put_s(b, "32");
}

static void d_dims_none(bytes *b) { put_head(b, 3, 1, 0); put_s(b, "t"); put_n(b, 0, 4); put_n(b, 0, 20); }
static void d_dims_five(bytes *b) { put_head(b, 3, 1, 0); put_s(b, "t"); put_n(b, 5, 4); b->n += 60; }
static void d_size_zero(bytes *b) { put_head(b, 3, 1, 0); put_info(b, "t", 0, 1, CMC_F32, 0); put_pad(b, 32, 64); }
static void d_size_wraps(bytes *b) {
    put_head(b, 3, 1, 0);
    put_info(b, "t", UINT64_C(1) << 32, UINT64_C(1) << 32, CMC_F32, 0);
    put_pad(b, 32, 64);
}
static void d_bytes_wrap(bytes *b) {
    put_head(b, 3, 1, 0);
    put_info(b, "t", UINT64_C(1) << 31, UINT64_C(1) << 31, CMC_F32, 0);
    put_pad(b, 32, 64);
}
static void d_block(bytes *b) { put_head(b, 3, 1, 0); put_info(b, "t", 33, 2, CMC_Q8_0, 0); put_pad(b, 32, 200); }
static void d_offset_odd(bytes *b) { put_head(b, 3, 1, 0); put_info(b, "t", 8, 1, CMC_F32, 8); put_pad(b, 32, 64); }
static void d_offset_far(bytes *b) { put_head(b, 3, 1, 0); put_info(b, "t", 8, 1, CMC_F32, 64); put_pad(b, 32, 64); }
static void d_offset_wraps(bytes *b) {
    put_head(b, 3, 1, 0);
    put_info(b, "t", 8, 1, CMC_F32, UINT64_MAX - 31);
    put_pad(b, 32, 64);
}
static void d_data_short(bytes *b) { put_head(b, 3, 1, 0); put_info(b, "t", 8, 2, CMC_F32, 0); put_pad(b, 32, 63); }
static void d_data_none(bytes *b) { put_head(b, 3, 1, 0); put_info(b, "t", 8, 1, CMC_F32, 0); }
static void d_unknown_far(bytes *b) { put_head(b, 3, 1, 0); put_info(b, "t", 8, 1, 16, 128); put_pad(b, 32, 64); }
static void d_tensor_twice(bytes *b) {
    put_head(b, 3, 2, 0);
    put_info(b, "t", 8, 1, CMC_F32, 0);
    put_info(b, "t", 8, 1, CMC_F32, 32);
    put_pad(b, 32, 64);
}
static void d_tensor_cut(bytes *b) { put_head(b, 3, 1, 0); put_info(b, "long name", 8, 1, CMC_F32, 0); b->n -= 2; }

static const struct damage {
    const char *name;
    void (*make)(bytes *b);
    cmc_status status;
    const char *message;
} damages[] = {
    {"empty", d_empty, CMC_E_FORMAT, "is not a GGUF file"},
    {"text", d_text, CMC_E_FORMAT, "is not a GGUF file"},
    {"cut version", d_cut_version, CMC_E_FORMAT,
     "cut short: the version at byte 4 runs past the end of the file, at 6"},
    {"v1", d_v1, CMC_E_UNSUPPORTED, "version 1 (byte 4), versions 2 and 3 are read"},
    {"v4", d_v4, CMC_E_UNSUPPORTED, "version 4 (byte 4), versions 2 and 3 are read"},
    {"v0", d_v0, CMC_E_UNSUPPORTED, "version 0"},
    {"big-endian", d_big_endian, CMC_E_UNSUPPORTED, "big-endian"},
    {"many tensors", d_many_tensors, CMC_E_FORMAT,
     "claims 18446744073709551615 tensors (byte 8), 0 bytes cannot hold them"},
    {"many keys", d_many_keys, CMC_E_FORMAT, "claims 9223372036854775807 keys (byte 16), 100 bytes cannot hold them"},
    {"long key", d_long_key, CMC_E_FORMAT, "a key at byte 24 claims 18446744073709551611 bytes, 20 are left"},
    {"empty key", d_empty_key, CMC_E_FORMAT, "a key at byte 24 is 0 bytes long, 1 to 65535 would be right"},
    {"key in Latin-1", d_key_latin1, CMC_E_FORMAT, "a key at byte 24 is not UTF-8"},
    {"key with NUL", d_key_nul, CMC_E_FORMAT, "a key at byte 24 is not UTF-8"},
    {"key twice", d_key_twice, CMC_E_FORMAT, "key 'a.b' is there twice"},
    {"value type", d_value_type, CMC_E_FORMAT, "key 'k' is of type 13 (byte 33), 0 to 12 would be right"},
    {"value cut", d_value_cut, CMC_E_FORMAT, "key 'key' claims 1 values of type uint64 at byte 39, 7 bytes are left"},
    {"bool", d_bool, CMC_E_FORMAT, "key 'k' has a truth value of 2 at byte 37"},
    {"string long", d_string_long, CMC_E_FORMAT, "key 'k': string 0 at byte 37 runs past the end of the file, at 49"},
    {"nested", d_nested, CMC_E_UNSUPPORTED, "array of arrays"},
    {"array type", d_array_type, CMC_E_FORMAT, "key 'list' is of type 77"},
    {"array long", d_array_long, CMC_E_FORMAT, "claims 5 values of type uint32 at byte 52, 19 bytes are left"},
    {"array wraps", d_array_wraps, CMC_E_FORMAT, "claims 2305843009213693952 values of type uint64"},
    {"array of bools", d_array_bool, CMC_E_FORMAT, "truth value of 255 at byte 54"},
    {"many strings", d_strings_many, CMC_E_FORMAT, "claims 1000 values of type string"},
    {"string in array long", d_strings_long, CMC_E_FORMAT, "string 1 at byte 63 runs past the end"},
    {"string in array cut", d_strings_cut, CMC_E_FORMAT, "string 1 at byte 63 runs past the end of the file, at 70"},
    {"alignment 24", d_align_odd, CMC_E_FORMAT, "'general.alignment' is 24, a power of two would be right"},
    {"alignment 4", d_align_small, CMC_E_FORMAT, "'general.alignment' is 4, 8 to "},
    {"alignment 0", d_align_zero, CMC_E_FORMAT, "'general.alignment' is 0, 8 to "},
    {"alignment text", d_align_text, CMC_E_FORMAT, "'general.alignment' is of type string, an integer would be right"},
    {"no dimensions", d_dims_none, CMC_E_FORMAT, "tensor 't' at byte 24 has 0 dimensions, 1 to 4 would be right"},
    {"five dimensions", d_dims_five, CMC_E_FORMAT, "has 5 dimensions"},
    {"size zero", d_size_zero, CMC_E_FORMAT, "a size of 0 in dimension 0, which is nothing"},
    {"size wraps", d_size_wraps, CMC_E_FORMAT, "a size of 4294967296 in dimension 1, which is too much"},
    {"bytes wrap", d_bytes_wrap, CMC_E_FORMAT, "is too large: 4611686018427387904 elements"},
    {"part of a block", d_block, CMC_E_FORMAT, "rows of 33 elements, no multiple of Q8_0's block of 32"},
    {"offset odd", d_offset_odd, CMC_E_FORMAT, "is at offset 8, no multiple of the alignment, 32"},
    {"offset far", d_offset_far, CMC_E_FORMAT, "runs past the end of the file, at 128"},
    {"offset wraps", d_offset_wraps, CMC_E_FORMAT, "runs past the end of the file"},
    {"data short", d_data_short, CMC_E_FORMAT,
     "(64 bytes at offset 0 of the data, which begins at byte 96) runs past the end of the file, at 159"},
    {"no data", d_data_none, CMC_E_FORMAT, "runs past the end of the file"},
    {"unknown type far", d_unknown_far, CMC_E_FORMAT, "runs past the end of the file"},
    {"tensor twice", d_tensor_twice, CMC_E_FORMAT, "tensor 't' is there twice"},
    {"tensor cut", d_tensor_cut, CMC_E_FORMAT, "cut short: a tensor's offset at byte"},
};

/* In a block of exactly its size, so that a read past the end is caught. Gives the status; walks what opens. */
static cmc_status open_exact(const uint8_t *data, size_t n, cmc_error *err) {
    uint8_t *copy = cmc_alloc(n, 1);
    assert_non_null(copy);
    if (n > 0) {
        memcpy(copy, data, n);
    }
    gguf *g = NULL;
    cmc_status status = gguf_open_memory(copy, n, "file.gguf", &g, err);
    assert_true((status == CMC_OK) == (g != NULL));
    if (g != NULL) {
        gguf_walk(g);
    }
    gguf_free(g);
    free(copy);
    return status;
}

static void test_damage(void **state) {
    (void)state;
    for (size_t i = 0; i < sizeof damages / sizeof damages[0]; i++) {
        const struct damage *d = &damages[i];
        bytes b = {0};
        cmc_error err = {0};
        d->make(&b);
        cmc_status status = open_exact(b.data, b.n, &err);
        if (status != d->status || strncmp(err.message, "file.gguf: ", 11) != 0 ||
            strstr(err.message, d->message) == NULL) {
            fail_msg("%s: status %d, should be %d: %s", d->name, status, d->status, err.message);
        }
    }
}

/* Cases that look odd and are right. */
static void test_odd_but_right(void **state) {
    (void)state;
    bytes b = {0};
    cmc_error err = {0};
    put_head(&b, 2, 0, 0);
    assert_int_equal(open_exact(b.data, b.n, &err), CMC_OK);

    put_head(&b, 3, 2, 1);
    put_u32_key(&b, "general.alignment", 8);
    put_info(&b, "known", 2, 1, CMC_F32, 8);
    put_info(&b, "not known", 7, 1, 99, 0);
    put_pad(&b, 8, 16);
    gguf *g;
    assert_int_equal(gguf_open_memory(b.data, b.n, "x", &g, &err), CMC_OK);
    const gguf_tensor *known = gguf_find_tensor(g, "known"), *unknown = gguf_find_tensor(g, "not known");
    assert_non_null(known);
    assert_ptr_equal(known->data, b.data + b.n - 8);
    assert_int_equal(known->bytes, 8);
    assert_non_null(unknown);
    assert_null(unknown->data);
    assert_null(cmc_type_name(unknown->type));
    assert_int_equal(g->header_bytes, b.n - 16);
    gguf_free(g);
    gguf_free(NULL);
}

/* ------------------------------------------------------------------------------------------------------ round trip */

typedef struct scalar { gguf_vtype type; uint64_t bits; bool is_u64; uint64_t u64; double f64; } scalar;

static const scalar scalars[] = {
    {GGUF_U8, 0xfe, true, 0xfe, 254},
    {GGUF_I8, 0xfe, false, 0, -2},
    {GGUF_I8, 0x7f, true, 127, 127},
    {GGUF_U16, 0xfffe, true, 0xfffe, 65534},
    {GGUF_I16, 0xfffe, false, 0, -2},
    {GGUF_U32, 0xfffffffe, true, 0xfffffffe, 4294967294.0},
    {GGUF_I32, 0xfffffffe, false, 0, -2},
    {GGUF_I32, 5, true, 5, 5},
    {GGUF_F32, 0x40490fdb, false, 0, (double)3.14159274F},
    {GGUF_U64, UINT64_MAX, true, UINT64_MAX, 18446744073709551616.0},
    {GGUF_I64, UINT64_MAX, false, 0, -1},
    {GGUF_I64, UINT64_C(1) << 63, false, 0, -9223372036854775808.0},
    {GGUF_F64, 0x400921fb54442d18, false, 0, 3.141592653589793},
};
enum { N_SCALARS = sizeof scalars / sizeof scalars[0] };

static gguf_writer *full_writer(const float *f32, const uint8_t *q8) {
    static const int16_t shorts[] = {-3, 0, 32767};
    static const gguf_str strings[] = {{"one", 3}, {"", 0}, {"tw\0o", 4}};
    gguf_writer *w = gguf_writer_new();
    assert_non_null(w);
    for (size_t i = 0; i < N_SCALARS; i++) {
        char key[16];
        uint8_t data[8];
        snprintf(key, sizeof key, "scalar.%zu", i);
        for (int j = 0; j < 8; j++) {
            data[j] = (uint8_t)(scalars[i].bits >> 8 * j);
        }
        gguf_kv kv = {
            .key = {key, strlen(key)}, .type = scalars[i].type, .elem = scalars[i].type, .n = 1, .data = data};
        assert_true(gguf_put_kv(w, &kv));
    }
    assert_true(gguf_put_u32(w, "u32", 7) && gguf_put_u64(w, "u64", UINT64_C(1) << 40) &&
                gguf_put_f32(w, "f32", -0.5F));
    assert_true(gguf_put_f64(w, "f64", 1e300) && gguf_put_f64(w, "nan", NAN) && gguf_put_bool(w, "yes", true));
    assert_true(gguf_put_bool(w, "no", false) && gguf_put_str(w, "text", "a\0b", 3) && gguf_put_str(w, "empty", "", 0));
    assert_true(gguf_put_array(w, "shorts", GGUF_I16, shorts, 3) && gguf_put_array(w, "none", GGUF_F32, NULL, 0));
    assert_true(gguf_put_str_array(w, "strings", strings, 3) && gguf_put_str_array(w, "no strings", NULL, 0));
    assert_true(gguf_put_tensor(w, "vector", CMC_F32, (const uint64_t[]){5}, 1, f32));
    assert_true(gguf_put_tensor(w, "blocks", CMC_Q8_0, (const uint64_t[]){64, 3}, 2, q8));
    assert_true(gguf_put_tensor(w, "four", CMC_F16, (const uint64_t[]){1, 2, 1, 3}, 4, q8));
    return w;
}

static void check_scalars(const gguf *g) {
    for (size_t i = 0; i < N_SCALARS; i++) {
        char key[16];
        uint64_t u = 1;
        double f;
        bool b;
        gguf_str s;
        cmc_error err = {0};
        snprintf(key, sizeof key, "scalar.%zu", i);
        assert_int_equal(gguf_get_u64(g, key, &u), scalars[i].is_u64);
        assert_true(!scalars[i].is_u64 || u == scalars[i].u64);
        assert_true(gguf_get_f64(g, key, &f) && f == scalars[i].f64);
        assert_false(gguf_get_bool(g, key, &b) || gguf_get_str(g, key, &s));
        assert_int_equal(gguf_need_u64(g, key, 0, UINT64_MAX, &u, &err), scalars[i].is_u64 ? CMC_OK : CMC_E_FORMAT);
    }
}

static void check_needs(const gguf *g) {
    const struct { const char *key; uint64_t lo, hi; const char *message; } cases[] = {
        {"absent", 0, 9, "has no key 'absent'"},
        {"u32", 8, 9, "key 'u32' is 7, 8 to 9 would be right"},
        {"u32", 1, 6, "key 'u32' is 7, 1 to 6 would be right"},
        {"scalar.1", 0, 9, "is -2, 0 to 9 would be right"},
        {"f32", 0, 9, "is of type float32, an integer would be right"},
        {"shorts", 0, 9, "is of type array, an integer would be right"},
    };
    uint64_t u = 42;
    double f = 42;
    cmc_error err = {0};
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        assert_int_equal(gguf_need_u64(g, cases[i].key, cases[i].lo, cases[i].hi, &u, &err), CMC_E_FORMAT);
        assert_int_equal(u, 42);
        assert_non_null(strstr(err.message, cases[i].message));
    }
    assert_int_equal(gguf_need_u64(g, "u32", 7, 7, &u, &err), CMC_OK);
    assert_int_equal(u, 7);
    assert_int_equal(gguf_need_f64(g, "absent", &f, &err), CMC_E_FORMAT);
    assert_int_equal(gguf_need_f64(g, "text", &f, &err), CMC_E_FORMAT);
    assert_int_equal(gguf_need_f64(g, "nan", &f, &err), CMC_E_FORMAT);
    assert_non_null(strstr(err.message, "key 'nan' is nan, a finite number would be right"));
    assert_int_equal(gguf_need_f64(g, "f64", &f, &err), CMC_OK);
    assert_true(f == 1e300);
}

static void check_full(const gguf *g, const float *f32, const uint8_t *q8) {
    bool b = false;
    gguf_str s = {0};
    check_scalars(g);
    check_needs(g);
    assert_true(gguf_get_bool(g, "yes", &b) && b);
    assert_true(gguf_get_bool(g, "no", &b) && !b);
    assert_true(gguf_get_str(g, "text", &s) && s.n == 3 && memcmp(s.s, "a\0b", 3) == 0);
    assert_true(gguf_get_str(g, "empty", &s) && s.n == 0);
    const gguf_kv *shorts = gguf_get_array(g, "shorts", GGUF_I16), *strings = gguf_get_array(g, "strings", GGUF_STRING);
    assert_true(shorts != NULL && shorts->n == 3 && gguf_array_i64(shorts, 0) == -3 &&
                gguf_array_f64(shorts, 2) == 32767.0);
    assert_null(gguf_get_array(g, "shorts", GGUF_U16));
    assert_null(gguf_get_array(g, "u32", GGUF_U32));
    const uint8_t *pos = NULL;
    assert_true(strings != NULL && strings->n == 3);
    assert_int_equal(gguf_array_next_str(strings, &pos).n, 3);
    assert_int_equal(gguf_array_next_str(strings, &pos).n, 0);
    s = gguf_array_next_str(strings, &pos);
    assert_true(s.n == 4 && memcmp(s.s, "tw\0o", 4) == 0);
    assert_true(gguf_get_array(g, "none", GGUF_F32)->n == 0 && gguf_get_array(g, "no strings", GGUF_STRING)->n == 0);
    const gguf_tensor *vector = gguf_find_tensor(g, "vector"), *blocks = gguf_find_tensor(g, "blocks"),
                      *four = gguf_find_tensor(g, "four");
    assert_true(vector != NULL && blocks != NULL && four != NULL && gguf_find_tensor(g, "vecto") == NULL);
    assert_true(vector->bytes == 20 && memcmp(vector->data, f32, 20) == 0 && vector->ne[1] == 1);
    assert_true(blocks->bytes == 3 * 2 * 34 && memcmp(blocks->data, q8, blocks->bytes) == 0);
    assert_true(four->n_dims == 4 && four->ne[3] == 3 && four->bytes == 12);
}

static void test_round_trip(void **state) {
    const char *first = tiny_path(*state, "a.gguf"), *second = tiny_path(*state, "b.gguf");
    float f32[5] = {1, -2, 3.5F, 1e-30F, 0};
    uint8_t q8[204];
    for (size_t i = 0; i < sizeof q8; i++) {
        q8[i] = (uint8_t)(i * 7);
    }
    cmc_error err = {0};
    gguf_writer *w = full_writer(f32, q8);
    assert_int_equal(gguf_writer_save(w, first, &err), CMC_OK);
    gguf_writer_free(w);
    gguf *g = open_ok(first);
    check_full(g, f32, q8);
    gguf_walk(g);

    w = gguf_writer_new(); /* copied key by key, the file is the same byte for byte */
    for (size_t i = 0; i < g->n_kv; i++) {
        assert_true(gguf_put_kv(w, &g->kv[i]));
    }
    for (size_t i = 0; i < g->n_tensors; i++) {
        const gguf_tensor *t = &g->tensors[i];
        char name[16] = {0};
        memcpy(name, t->name.s, t->name.n);
        assert_true(gguf_put_tensor(w, name, t->type, t->ne, t->n_dims, t->data));
    }
    assert_int_equal(gguf_writer_save(w, second, &err), CMC_OK);
    gguf_writer_free(w);
    gguf *copy = open_ok(second);
    assert_int_equal(copy->file.size, g->file.size);
    assert_memory_equal(copy->file.data, g->file.data, g->file.size);
    gguf_free(copy);
    gguf_free(g);
}

static void test_writer_refuses(void **state) {
    const char *path = tiny_path(*state, "x.gguf");
    float data[64] = {0};
    for (int i = 0; i < 7; i++) {
        gguf_writer *w = gguf_writer_new();
        cmc_error err = {0};
        const char *message = NULL;
        switch (i) {
        case 0: gguf_put_u32(w, "k", 1); gguf_put_u32(w, "k", 1); message = "key 'k' was put twice"; break;
        case 1:
            gguf_put_tensor(w, "t", CMC_F32, (const uint64_t[]){4}, 1, data);
            gguf_put_tensor(w, "t", CMC_F32, (const uint64_t[]){4}, 1, data);
            message = "tensor 't' was put twice";
            break;
        case 2:
            assert_false(gguf_put_tensor(w, "t", 16, (const uint64_t[]){256}, 1, data));
            message = "tensor 't' has a type or shape";
            break;
        case 3:
            assert_false(gguf_put_tensor(w, "t", CMC_Q8_0, (const uint64_t[]){33}, 1, data));
            message = "type or shape";
            break;
        case 4: gguf_put_u32(w, "general.alignment", 12); message = "general.alignment is 12"; break;
        case 5: gguf_put_u32(w, "", 12); message = "without a name"; break;
        default:
            assert_false(gguf_put_array(w, "a", GGUF_STRING, data, 1));
            message = "array 'a' has a type or shape";
            break;
        }
        assert_int_equal(gguf_writer_save(w, path, &err), CMC_E_ARG);
        assert_non_null(strstr(err.message, message));
        cmc_file f;
        assert_int_equal(cmc_file_map(path, &f, &err), CMC_E_IO); /* nothing is left */
        gguf_writer_free(w);
    }
    gguf_writer_free(NULL);
}

static void test_writer_alignment(void **state) {
    const char *path = tiny_path(*state, "x.gguf");
    float data[3] = {1, 2, 3};
    cmc_error err = {0};
    for (uint32_t align = 8; align <= 4096; align *= 8) {
        gguf_writer *w = gguf_writer_new();
        gguf_put_u32(w, "general.alignment", align);
        gguf_put_tensor(w, "a", CMC_F32, (const uint64_t[]){3}, 1, data);
        gguf_put_tensor(w, "b", CMC_F32, (const uint64_t[]){3}, 1, data);
        assert_int_equal(gguf_writer_save(w, path, &err), CMC_OK);
        gguf_writer_free(w);
        gguf *g = open_ok(path);
        assert_int_equal(gguf_find_tensor(g, "b")->offset - gguf_find_tensor(g, "a")->offset, align < 12 ? 16 : align);
        assert_memory_equal(gguf_find_tensor(g, "b")->data, data, sizeof data);
        gguf_free(g);
    }
}

/* ------------------------------------------------------------------------------------------- every cut, every flip */

static gguf *small_file(const char *path) {
    float f32[5] = {1, 2, 3, 4, 5};
    uint8_t q8[204] = {0};
    cmc_error err = {0};
    gguf_writer *w = full_writer(f32, q8);
    assert_int_equal(gguf_writer_save(w, path, &err), CMC_OK);
    gguf_writer_free(w);
    return open_ok(path);
}

static void test_every_cut(void **state) {
    gguf *g = small_file(tiny_path(*state, "s.gguf"));
    const gguf_tensor *last = &g->tensors[g->n_tensors - 1];
    for (size_t n = 0; n <= g->file.size; n++) {
        cmc_error err = {0};
        cmc_status status = open_exact(g->file.data, n, &err);
        if (status != (n >= last->offset + last->bytes ? CMC_OK : CMC_E_FORMAT)) {
            fail_msg("cut to %zu of %zu bytes: status %d: %s", n, g->file.size, status, err.message);
        }
    }
    gguf_free(g);
}

static void test_every_flip(void **state) {
    gguf *g = small_file(tiny_path(*state, "s.gguf"));
    uint8_t *copy = malloc(g->file.size);
    assert_non_null(copy);
    size_t refused = 0;
    for (size_t bit = 0; bit < g->header_bytes * 8; bit++) {
        cmc_error err = {0};
        memcpy(copy, g->file.data, g->file.size);
        copy[bit / 8] = (uint8_t)(copy[bit / 8] ^ 1U << bit % 8);
        cmc_status status = open_exact(copy, g->file.size, &err);
        assert_true(status == CMC_OK || status == CMC_E_FORMAT || status == CMC_E_UNSUPPORTED);
        assert_true(status == CMC_OK || strncmp(err.message, "file.gguf: ", 11) == 0);
        refused += status != CMC_OK;
    }
    assert_true(refused > g->header_bytes); /* all that turn a count, a length, a type: more than one bit in eight */
    free(copy);
    gguf_free(g);
}

/* ------------------------------------------------------------------------------------------------------ tiny models */

static void test_types(void **state) {
    (void)state;
    const struct { uint32_t type; const char *name; size_t block, bytes;
    } cases[] = {
        {0, "F32", 1, 4},       {1, "F16", 1, 2},       {30, "BF16", 1, 2},       {2, "Q4_0", 32, 18},
        {3, "Q4_1", 32, 20},    {6, "Q5_0", 32, 22},    {7, "Q5_1", 32, 24},      {8, "Q8_0", 32, 34},
        {10, "Q2_K", 256, 84},  {11, "Q3_K", 256, 110}, {12, "Q4_K", 256, 144},   {13, "Q5_K", 256, 176},
        {14, "Q6_K", 256, 210}, {20, "IQ4_NL", 32, 18}, {23, "IQ4_XS", 256, 136}, {16, "IQ2_XXS", 0, 0},
        {39, "MXFP4", 0, 0},    {4, NULL, 0, 0},        {99, NULL, 0, 0},         {UINT32_MAX, NULL, 0, 0},
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        const char *name = cmc_type_name(cases[i].type);
        assert_true(cases[i].name == NULL ? name == NULL : name != NULL && strcmp(name, cases[i].name) == 0);
        assert_int_equal(cmc_type_supported(cases[i].type), cases[i].block != 0);
        assert_int_equal(cmc_type_block(cases[i].type), cases[i].block);
        assert_int_equal(cmc_type_block_bytes(cases[i].type), cases[i].bytes);
        assert_int_equal(cmc_type_row_bytes(cases[i].type, 512),
                         cases[i].block ? 512 / cases[i].block * cases[i].bytes : 0);
    }
}

static bool extra_key(void *user, gguf_writer *w) { return gguf_put_u32(w, "cmc.test", *(const uint32_t *)user); }

static void test_tiny(void **state) {
    uint32_t value = 11;
    const tiny_spec specs[] = {
        {.arch = "llama"},
        {.arch = "llama",
         .vocab = "spm",
         .type = CMC_Q8_0,
         .tied = true,
         .rope_freqs = true,
         .head_k = 32,
         .head_v = 8},
        {.arch = "qwen2", .type = CMC_F16, .chat_template = "{{ x }}", .n_learnt = 20},
        {.arch = "qwen3", .type = CMC_Q4_1, .seed = 5},
        {.arch = "gemma3", .swa_window = 16, .swa_period = 2, .type = CMC_Q5_0, .extra = extra_key, .user = &value},
    };
    const char *path = tiny_path(*state, "t.gguf"), *again = tiny_path(*state, "u.gguf");
    for (size_t i = 0; i < sizeof specs / sizeof specs[0]; i++) {
        cmc_error err = {0};
        if (tiny_write(&specs[i], path, &err) != CMC_OK || tiny_write(&specs[i], again, &err) != CMC_OK) {
            fail_msg("%s", err.message);
        }
        gguf *g = open_ok(path), *same = open_ok(again);
        assert_int_equal(g->file.size, same->file.size);
        assert_memory_equal(g->file.data, same->file.data, g->file.size);
        gguf_walk(g);
        gguf_str arch = {0};
        assert_true(gguf_get_str(g, "general.architecture", &arch) && strncmp(arch.s, specs[i].arch, arch.n) == 0);
        const gguf_tensor *embd = gguf_find_tensor(g, "token_embd.weight");
        assert_true(embd != NULL && embd->type == specs[i].type);
        assert_int_equal(embd->ne[1], gguf_get_array(g, "tokenizer.ggml.tokens", GGUF_STRING)->n);
        assert_int_equal(gguf_find_tensor(g, "output.weight") == NULL, specs[i].tied);
        assert_int_equal(gguf_find(g, "cmc.test") != NULL, specs[i].extra != NULL);
        gguf_free(g);
        gguf_free(same);
    }
}

static void test_tiny_split(void **state) {
    const tiny_spec spec = {.arch = "qwen2"};
    char first[1024];
    cmc_error err = {0};
    const char *prefix = tiny_path(*state, "s"), *whole = tiny_path(*state, "w.gguf"),
               *cut = tiny_path(*state, "cut.gguf");
    assert_int_equal(tiny_write_split(&spec, prefix, 3, first, sizeof first, &err), CMC_OK);
    assert_non_null(strstr(first, "/s-00001-of-00003.gguf"));
    assert_int_equal(tiny_write(&spec, whole, &err), CMC_OK);
    gguf *w = open_ok(whole);
    size_t tensors = 0;
    for (int i = 0; i < 3; i++) {
        char name[64];
        uint64_t no, count, total;
        snprintf(name, sizeof name, "s-%05d-of-00003.gguf", i + 1);
        gguf *g = open_ok(tiny_path(*state, name));
        assert_true(gguf_get_u64(g, "split.no", &no) && no == (uint64_t)i && gguf_get_u64(g, "split.count", &count) &&
                    count == 3);
        assert_true(gguf_get_u64(g, "split.tensors.count", &total) && total == w->n_tensors);
        assert_int_equal(gguf_find(g, "tokenizer.ggml.tokens") != NULL, i == 0);
        tensors += g->n_tensors;
        gguf_free(g);
    }
    assert_int_equal(tensors, w->n_tensors);
    size_t size = w->file.size;
    gguf_free(w);
    assert_int_equal(tiny_damage(whole, cut, (int64_t)size - 1000, -1, &err), CMC_OK);
    assert_int_equal(gguf_open(cut, &w, &err), CMC_E_FORMAT);
    assert_int_equal(tiny_damage(whole, cut, -1, 0, &err), CMC_OK);
    assert_int_equal(gguf_open(cut, &w, &err), CMC_E_FORMAT);
    assert_null(w);
}

/* 262,144 strings are walked in a few milliseconds. */
static void test_gemma(void **state) {
    (void)state;
    const char *path = getenv("CMC_TEST_GEMMA");
    if (path == NULL) {
        puts("SKIP gemma: CMC_TEST_GEMMA names no GGUF file");
        return;
    }
    gguf *g = open_ok(path);
    gguf_free(g);
    double start = cmc_now();
    g = open_ok(path);
    double seconds = cmc_now() - start;
    printf("opened in %.1f ms\n", 1e3 * seconds);
    assert_int_equal(gguf_get_array(g, "tokenizer.ggml.tokens", GGUF_STRING)->n, 262144);
    assert_non_null(gguf_find_tensor(g, "token_embd.weight"));
    assert_true(seconds < 1); /* no figure, a guard against copying or quadratic work */
    gguf_free(g);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_types),
        cmocka_unit_test(test_damage),
        cmocka_unit_test(test_odd_but_right),
        cmocka_unit_test_setup_teardown(test_round_trip, setup_dir, teardown_dir),
        cmocka_unit_test_setup_teardown(test_writer_refuses, setup_dir, teardown_dir),
        cmocka_unit_test_setup_teardown(test_writer_alignment, setup_dir, teardown_dir),
        cmocka_unit_test_setup_teardown(test_every_cut, setup_dir, teardown_dir),
        cmocka_unit_test_setup_teardown(test_every_flip, setup_dir, teardown_dir),
        cmocka_unit_test_setup_teardown(test_tiny, setup_dir, teardown_dir),
        cmocka_unit_test_setup_teardown(test_tiny_split, setup_dir, teardown_dir),
        cmocka_unit_test(test_gemma),
    };
    return cmocka_run_group_tests_name("gguf", tests, NULL, NULL);
}
