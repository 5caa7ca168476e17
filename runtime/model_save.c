/* A model as one GGUF file: keys as they are, matrices in the type asked for, the rest in float32. */
#include "runtime/model_save.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/error.h"
#include "base/mem.h"
#include "runtime/load.h"
#include "runtime/quant.h"

enum { SAVE_ROWS = 64 };   /* that are floats at a time */

cmc_status model_save_type(const char *name, uint32_t *type, cmc_error *err) {
    static const struct {
        const char *name;
        uint32_t type;
    } types[] = {{"f32", CMC_F32}, {"f16", CMC_F16}, {"q8_0", CMC_Q8_0}};
    for (size_t i = 0; i < sizeof types / sizeof *types; i++)
        if (strcmp(name, types[i].name) == 0) {
            *type = types[i].type;
            return CMC_OK;
        }
    return cmc_fail(err, CMC_E_ARG, "unknown type \"%s\" to save in: f32, f16 or q8_0", name);
}

static uint32_t save_tensor_type(const gguf_tensor *t, uint32_t type) {
    if (t->n_dims < 2)
        return CMC_F32;
    return t->ne[0] % cmc_type_block(type) == 0 ? type : CMC_F16;
}

static size_t save_tensor_bytes(const gguf_tensor *t, uint32_t type) {
    return (size_t)t->ne[1] * cmc_type_row_bytes(save_tensor_type(t, type), (size_t)t->ne[0]);
}

/* A tensor that the model's weights are bound to; others carry nothing (model_weights.c). */
static bool save_wanted(const gguf_tensor *t) {
    return t->data && t->n_dims <= 2;
}

uint64_t model_save_bytes(const cmc_model *m, uint32_t type) {
    uint64_t n = 0;
    for (size_t i = 0; i < m->n_parts; i++)
        for (size_t k = 0; k < m->parts[i]->n_tensors; k++)
            if (save_wanted(&m->parts[i]->tensors[k]))
                n += (save_tensor_bytes(&m->parts[i]->tensors[k], type) + 63) / 64 * 64;
    return n;
}

/* Keys that the new file says otherwise, or not at all. */
static bool save_own_key(gguf_str key) {
    static const char *const own[] = {"general.file_type", "general.quantization_version", "general.alignment"};
    if (key.n > 6 && memcmp(key.s, "split.", 6) == 0)
        return true;
    for (size_t i = 0; i < sizeof own / sizeof *own; i++)
        if (key.n == strlen(own[i]) && memcmp(key.s, own[i], key.n) == 0)
            return true;
    return false;
}

static bool save_put_keys(gguf_writer *w, const cmc_model *m, const model_source *source, uint32_t type) {
    const gguf *from = m->parts[0];
    bool ok = true;
    char layers[64];
    (void)snprintf(layers, sizeof layers, "%s.block_count", load_arch_name(m->p.arch));
    for (size_t i = 0; ok && i < from->n_kv; i++) {
        const gguf_kv *kv = &from->kv[i];
        if (save_own_key(kv->key) || (source->name && expand_owns(kv->key)))
            continue;
        if (source->more_layers && kv->key.n == strlen(layers) && memcmp(kv->key.s, layers, kv->key.n) == 0)
            ok = gguf_put_u32(w, layers, (uint32_t)(m->p.n_layer + source->more_layers));
        else
            ok = gguf_put_kv(w, kv);
    }
    return ok && gguf_put_u32(w, "general.file_type", type == CMC_F32 ? 0 : type == CMC_F16 ? 1 : 7) &&
           gguf_put_u32(w, "general.quantization_version", 2);
}

typedef struct save_job {
    const cmc_model *m;
    gguf_writer *w;
    uint32_t type;
    const model_source *from;
    uint8_t *next;        /* where the next tensor is encoded */
    float *block;         /* [SAVE_ROWS][widest row] */
} save_job;

static bool save_put_tensor(save_job *j, const gguf_tensor *t) {
    uint32_t type = save_tensor_type(t, j->type);
    size_t n = (size_t)t->ne[0], rows = (size_t)t->ne[1], bytes = cmc_type_row_bytes(type, n);
    char name[128];
    if (t->name.n >= sizeof name)
        return false;
    memcpy(name, t->name.s, t->name.n);
    name[t->name.n] = '\0';
    if (j->from->name && !j->from->name(j->from->user, t, name, sizeof name))
        return true;
    if (j->from->keeps && j->from->keeps(j->from->user, t))
        return gguf_put_tensor(j->w, name, t->type, t->ne, t->n_dims, t->data);
    for (size_t r = 0; r < rows; r += SAVE_ROWS) {
        size_t k = rows - r < SAVE_ROWS ? rows - r : SAVE_ROWS;
        j->from->rows(j->from->user, t, r, k, j->block);
        for (size_t i = 0; i < k; i++)
            if (!quant_encode_row(type, j->block + i * n, j->next + (r + i) * bytes, n))
                return false;
    }
    if (!gguf_put_tensor(j->w, name, type, t->ne, t->n_dims, j->next))
        return false;
    j->next += (save_tensor_bytes(t, j->type) + 63) / 64 * 64;
    return true;
}

size_t model_save_widest(const cmc_model *m) {
    size_t n = 1;
    for (size_t i = 0; i < m->n_parts; i++)
        for (size_t k = 0; k < m->parts[i]->n_tensors; k++)
            n = m->parts[i]->tensors[k].ne[0] > n ? (size_t)m->parts[i]->tensors[k].ne[0] : n;
    return n;
}

static cmc_status save_all(save_job *j, const char *path, cmc_error *err) {
    const cmc_model *m = j->m;
    bool ok = save_put_keys(j->w, m, j->from, j->type);
    for (size_t i = 0; ok && i < m->n_parts; i++)
        for (size_t k = 0; ok && k < m->parts[i]->n_tensors; k++)
            ok = !save_wanted(&m->parts[i]->tensors[k]) || save_put_tensor(j, &m->parts[i]->tensors[k]);
    return gguf_writer_end(j->w, ok, "the model's file", 1 << 20, path, err);
}

cmc_status model_save(const cmc_model *m, const char *path, uint32_t type, const model_source *from, cmc_error *err) {
    uint64_t bytes = model_save_bytes(m, type), room = cmc_mem_available();
    if (room != 0 && bytes > room)
        return cmc_fail(err, CMC_E_NOMEM, "%s: writing it takes %" PRIu64 " MiB and %" PRIu64 " MiB are free", path,
                        bytes >> 20, room >> 20);
    uint8_t *buf = cmc_alloc_aligned((size_t)bytes, 1);
    save_job j = {.m = m, .w = gguf_writer_new(), .type = type, .from = from, .next = buf};
    j.block = cmc_alloc(SAVE_ROWS * model_save_widest(m), sizeof *j.block);
    cmc_status st = j.w && buf && j.block ? save_all(&j, path, err)
                                         : cmc_fail_nomem(err, "the model's file", (size_t)bytes);
    gguf_writer_free(j.w);
    free(j.block);
    free(buf);
    return st;
}

/* The model's own rows with what adapters add. */
static void save_merged_rows(void *user, const gguf_tensor *t, size_t row, size_t n, float *out) {
    const lora_weight *l = lora_of(user, t->name);
    size_t bytes = cmc_type_row_bytes(t->type, (size_t)t->ne[0]);
    for (size_t i = 0; i < n; i++) {
        float *to = out + i * (size_t)t->ne[0];
        quant_decode_row(t->type, t->data + (row + i) * bytes, to, (size_t)t->ne[0]);
        if (l)
            lora_merge_row(l, row + i, to);
    }
}

cmc_status cmc_model_save(const cmc_model *m, const char *path, const char *save_type, cmc_error *err) {
    uint32_t type;
    CMC_TRY(model_save_type(save_type, &type, err));
    return model_save(m, path, type, &(model_source){.rows = save_merged_rows, .user = (void *)(uintptr_t)m}, err);
}
