/* The GGUF container (v2 and v3, little-endian): every count, length, offset and type is checked before it is used. */
#ifndef CMC_BASE_GGUF_H
#define CMC_BASE_GGUF_H
#include "base/file.h"

typedef enum gguf_vtype {
    GGUF_U8 = 0, GGUF_I8, GGUF_U16, GGUF_I16, GGUF_U32, GGUF_I32, GGUF_F32, GGUF_BOOL, GGUF_STRING, GGUF_ARRAY,
    GGUF_U64, GGUF_I64, GGUF_F64
} gguf_vtype;

/* Tensor types by their number in the file. Only the ones that cmc reads are named. */
typedef enum cmc_type {
    CMC_F32 = 0, CMC_F16 = 1, CMC_Q4_0 = 2, CMC_Q4_1 = 3, CMC_Q5_0 = 6, CMC_Q5_1 = 7, CMC_Q8_0 = 8,
    CMC_Q2_K = 10, CMC_Q3_K = 11, CMC_Q4_K = 12, CMC_Q5_K = 13, CMC_Q6_K = 14,
    CMC_IQ4_NL = 20, CMC_IQ4_XS = 23, CMC_BF16 = 30
} cmc_type;
/* "Q4_1", ... also for types that cmc does not read ("IQ2_XXS", ...; "type 99" never: NULL where unknown). */
const char *cmc_type_name(uint32_t type);
bool cmc_type_supported(uint32_t type);
size_t cmc_type_block(uint32_t type);        /* elements in a block; 0 where not supported */
size_t cmc_type_block_bytes(uint32_t type);
size_t cmc_type_row_bytes(uint32_t type, size_t n);  /* n a multiple of the block */

typedef struct gguf_str { const char *s; size_t n; } gguf_str;   /* into the map; not NUL-terminated */

typedef struct gguf_kv {
    gguf_str key;
    gguf_vtype type;          /* GGUF_ARRAY: elem is the element type, n the count */
    gguf_vtype elem;
    uint64_t n;
    const uint8_t *data;      /* the value (or the first element); a string's starts with its u64 length */
} gguf_kv;

typedef struct gguf_tensor {
    gguf_str name;
    uint32_t type, n_dims;
    uint64_t ne[4];           /* ne[0] is the contiguous dimension; unused ones are 1 */
    uint64_t offset;          /* in the file */
    uint64_t bytes;
    const uint8_t *data;      /* NULL for a type that is not supported */
} gguf_tensor;

typedef struct gguf {
    cmc_file file;
    uint32_t version;
    gguf_kv *kv; size_t n_kv;
    gguf_tensor *tensors; size_t n_tensors;
    size_t header_bytes;      /* up to the first tensor's data */
    struct gguf_index *index; /* name -> kv, tensor */
} gguf;

/* Opens and checks a file's header; tensor data is bounds-checked, not touched. Refuses duplicate names, zero or
 * overflowing sizes, data past the end, bad alignment; says at what byte. */
cmc_status gguf_open(const char *path, gguf **out, cmc_error *err);
/* The same from memory that stays the caller's (tests, fuzzing). */
cmc_status gguf_open_memory(const uint8_t *data, size_t size, const char *name, gguf **out, cmc_error *err);
void gguf_free(gguf *g);

const gguf_kv *gguf_find(const gguf *g, const char *key);
const gguf_tensor *gguf_find_tensor(const gguf *g, const char *name);
/* Typed getters: false where the key is absent. Present with a type that does not convert exactly: CMC_E_FORMAT through
 * gguf_need_* or false through gguf_get_*. Integers of any width convert where the value fits. */
bool gguf_get_u64(const gguf *g, const char *key, uint64_t *out);
bool gguf_get_f64(const gguf *g, const char *key, double *out);       /* any number */
bool gguf_get_bool(const gguf *g, const char *key, bool *out);
bool gguf_get_str(const gguf *g, const char *key, gguf_str *out);     /* may hold NUL bytes */
cmc_status gguf_need_u64(const gguf *g, const char *key, uint64_t lo, uint64_t hi, uint64_t *out, cmc_error *err);
cmc_status gguf_need_f64(const gguf *g, const char *key, double *out, cmc_error *err);
/* Array elements. Strings must be walked: start with *pos = NULL. */
const gguf_kv *gguf_get_array(const gguf *g, const char *key, gguf_vtype elem);   /* NULL: absent or another type */
gguf_str gguf_array_next_str(const gguf_kv *kv, const uint8_t **pos);
double gguf_array_f64(const gguf_kv *kv, uint64_t i);                 /* any numeric element type */
int64_t gguf_array_i64(const gguf_kv *kv, uint64_t i);

/* Writing. Keys and tensors are added first, then gguf_writer_save lays them out and writes. Data pointers are borrowed
 * until then. */
typedef struct gguf_writer gguf_writer;
gguf_writer *gguf_writer_new(void);
void gguf_writer_free(gguf_writer *w);
/* Each returns false where memory is out or what is put cannot be in a file; what is wrong is kept, and saving says it. */
bool gguf_put_u32(gguf_writer *w, const char *key, uint32_t v);
bool gguf_put_u64(gguf_writer *w, const char *key, uint64_t v);
bool gguf_put_f32(gguf_writer *w, const char *key, float v);
bool gguf_put_f64(gguf_writer *w, const char *key, double v);
bool gguf_put_bool(gguf_writer *w, const char *key, bool v);
bool gguf_put_str(gguf_writer *w, const char *key, const char *s, size_t n);
bool gguf_put_array(gguf_writer *w, const char *key, gguf_vtype elem, const void *data, uint64_t n);   /* numeric */
bool gguf_put_str_array(gguf_writer *w, const char *key, const gguf_str *v, uint64_t n);
bool gguf_put_kv(gguf_writer *w, const gguf_kv *kv);                   /* copied from another file as it is */
bool gguf_put_tensor(gguf_writer *w, const char *name, uint32_t type, const uint64_t *ne, uint32_t n_dims,
                     const void *data);
cmc_status gguf_writer_save(gguf_writer *w, const char *path, cmc_error *err);
/* The same where all of it was put, `ok`; else nothing is written, and the error is the writer's or, where it has none (or w is NULL),
 * that there is no memory for `what`, of about so many bytes. */
cmc_status gguf_writer_end(gguf_writer *w, bool ok, const char *what, size_t bytes, const char *path, cmc_error *err);
#endif
