/* Opening models: files, hyperparameters, weights, vocabulary; and what a model says of itself. */
#include "runtime/model.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "base/error.h"
#include "base/mem.h"
#include "runtime/graph.h"
#include "runtime/load.h"
#include "runtime/model_weights.h"
#include "runtime/rope.h"

/* general.name, else the file's name without its folder. */
static char *model_name_of(const gguf *g, const char *path) {
    gguf_str s;
    if (gguf_get_str(g, "general.name", &s) && s.n > 0)
        return load_strdup(s);
    const char *base = strrchr(path, '/');
    base = base ? base + 1 : path;
    return cmc_strndup(base, strlen(base));
}

static cmc_status model_open_rope(cmc_model *m, cmc_error *err) {
    const size_t half = (size_t)m->p.n_rot / 2;
    m->rope_inv = cmc_alloc_aligned(half, sizeof(float));
    m->rope_inv_local = m->p.arch == ARCH_GEMMA3 ? cmc_alloc_aligned(half, sizeof(float)) : m->rope_inv;
    if (!m->rope_inv || !m->rope_inv_local)
        return cmc_fail_nomem(err, "RoPE frequencies", half * sizeof(float));
    rope_frequencies(m->rope_inv, m->p.n_rot, m->p.rope_base, m->p.rope_scale, m->rope_factors);
    if (m->rope_inv_local != m->rope_inv) /* the linear factor is for the layers that see everything */
        rope_frequencies(m->rope_inv_local, m->p.n_rot, m->p.rope_base_local, 1.0f, NULL);
    m->rope_mscale = 1.0f;
    return CMC_OK;
}

static cmc_status model_open_vocab(cmc_model *m, cmc_error *err) {
    CMC_TRY(vocab_from_gguf(m->parts[0], &m->vocab, err));
    const int32_t n = cmc_vocab_size(m->vocab);
    if (n > m->p.n_vocab)
        return cmc_fail(err, CMC_E_FORMAT, "%s: the vocabulary has %d tokens, but token_embd.weight has only %d rows",
                        m->path, n, m->p.n_vocab);
    return CMC_OK;
}

static cmc_status model_open_into(cmc_model *m, const char *path, cmc_error *err) {
    m->path = cmc_strndup(path, strlen(path));
    if (!m->path)
        return cmc_fail_nomem(err, "a path", strlen(path));
    CMC_TRY(load_parts(path, &m->parts, &m->n_parts, err));
    m->name = model_name_of(m->parts[0], path);
    if (!m->name)
        return cmc_fail_nomem(err, "a name", 1);
    CMC_TRY(load_params(m->parts[0], &m->p, err));
    CMC_TRY(expand_read(m->parts[0], m->p.n_layer, &m->expand, err));
    CMC_TRY(model_weights_bind(m, err));
    CMC_TRY(model_open_rope(m, err));
    CMC_TRY(model_open_vocab(m, err));
    CMC_TRY(delta_info_read(m->parts[0], &m->delta, err));
    for (size_t i = 0; i < m->n_parts; i++)
        for (size_t k = 0; k < m->parts[i]->n_tensors; k++) {
            const gguf_tensor *t = &m->parts[i]->tensors[k];
            m->n_params += t->ne[0] * t->ne[1] * t->ne[2] * t->ne[3];
            m->n_bytes += t->bytes;
            m->extra_bytes += expand_owns(t->name) ? t->bytes : 0;
        }
    CMC_TRY(load_hash(m->parts, m->n_parts, m->hash, err));
    if (pack_is_narrow(m))
        pack_model(m);
    return graph_scratch_new(m, &m->scratch, err);
}

cmc_status cmc_model_open(cmc_runtime *rt, const char *path, cmc_model **out, cmc_error *err) {
    *out = NULL;
    cmc_model *m = cmc_calloc(1, sizeof *m);
    if (!m)
        return cmc_fail_nomem(err, "a model", sizeof *m);
    m->rt = rt;
    const cmc_status st = model_open_into(m, path, err);
    if (st != CMC_OK) {
        cmc_model_free(m);
        return st;
    }
    *out = m;
    return CMC_OK;
}

void cmc_model_free(cmc_model *m) {
    if (!m)
        return;
    graph_scratch_free(m->scratch);
    matmul_work_free(&m->work);
    screen_free(&m->screen);
    pack_free(&m->pack);
    if (m->rope_inv_local != m->rope_inv)
        free(m->rope_inv_local);
    free(m->rope_inv);
    model_weights_free(m);
    expand_spec_free(&m->expand);
    lora_set_free(&m->lora);
    delta_info_free(m->delta);
    cmc_vocab_free(m->vocab);
    load_parts_free(m->parts, m->n_parts);
    free(m->name);
    free(m->path);
    free(m);
}

cmc_runtime *cmc_model_runtime(const cmc_model *m) {
    return m->rt;
}

const char *cmc_model_path(const cmc_model *m) {
    return m->path;
}

const char *cmc_model_name(const cmc_model *m) {
    return m->name;
}

const cmc_vocab *cmc_model_vocab(const cmc_model *m) {
    return m->vocab;
}

const cmc_delta_info *cmc_model_delta_info(const cmc_model *m) {
    return m->delta;
}

int32_t cmc_model_n_vocab(const cmc_model *m) {
    return m->p.n_vocab;
}

int32_t cmc_model_n_embd(const cmc_model *m) {
    return m->p.n_embd;
}

int32_t cmc_model_n_layer(const cmc_model *m) {
    return m->p.n_layer;
}

int32_t cmc_model_n_ctx(const cmc_model *m) {
    return m->p.n_ctx_train;
}

uint64_t cmc_model_params(const cmc_model *m) {
    return m->n_params;
}

uint64_t cmc_model_bytes(const cmc_model *m) {
    return m->n_bytes;
}

uint64_t cmc_model_copies(const cmc_model *m) {
    return m->pack.bytes + screen_memory(m);
}

bool cmc_model_expand(const cmc_model *m, cmc_expand_info *out) {
    return expand_describe(&m->expand, out);
}

const char *cmc_model_hash(const cmc_model *m) {
    return m->hash;
}
