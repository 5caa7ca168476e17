/* What `cmc inspect` shows: read from the headers of a file's parts, tensors untouched. */
#include <stdlib.h>
#include <string.h>

#include "base/error.h"
#include "base/mem.h"
#include "runtime/load.h"

struct cmc_file_info {
    gguf **parts; size_t n_parts;
    char *arch, *name;
    uint64_t n_params, n_bytes;
    cmc_type_count *types; size_t n_types, cap_types;
    cmc_delta_info *delta;
    cmc_vocab *vocab;
    expand_spec expand;
    int32_t context, layers, embd;
};

static cmc_status info_count(cmc_file_info *fi, const gguf_tensor *t, const char *path, cmc_error *err) {
    const char *type = cmc_type_name(t->type);
    const uint64_t params = t->ne[0] * t->ne[1] * t->ne[2] * t->ne[3];
    fi->n_params += params;
    fi->n_bytes += t->bytes;
    if (!type)
        return cmc_fail(err, CMC_E_UNSUPPORTED, "%s: tensor %.*s has type number %u, which cmc does not know", path,
                        t->name.n < 80 ? (int)t->name.n : 80, t->name.s, (unsigned)t->type);
    size_t i = 0;
    while (i < fi->n_types && strcmp(fi->types[i].type, type) != 0)
        i++;
    if (i == fi->n_types) {
        void *v = fi->types;
        if (!cmc_grow(&v, &fi->cap_types, i + 1, sizeof *fi->types))
            return cmc_fail_nomem(err, "the list of types", (i + 1) * sizeof *fi->types);
        fi->types = v;
        fi->types[fi->n_types++] = (cmc_type_count){.type = type};
    }
    fi->types[i].tensors++;
    fi->types[i].params += params;
    fi->types[i].bytes += t->bytes;
    return CMC_OK;
}

static char *info_text(const gguf *g, const char *key) {
    gguf_str s;
    return gguf_get_str(g, key, &s) ? load_strdup(s) : cmc_strndup("", 0);
}

/* ARCH.key as a count, 0 where it is absent or no count. */
static int32_t info_int(const cmc_file_info *fi, const char *key) {
    const size_t n = strlen(fi->arch) + strlen(key) + 2;
    char *full = cmc_alloc(n, 1);
    if (!full)
        return 0;
    memcpy(full, fi->arch, strlen(fi->arch));
    full[strlen(fi->arch)] = '.';
    memcpy(full + strlen(fi->arch) + 1, key, strlen(key) + 1);
    uint64_t v = 0;
    const bool have = gguf_get_u64(fi->parts[0], full, &v) && v <= INT32_MAX;
    free(full);
    return have ? (int32_t)v : 0;
}

static cmc_status info_read(cmc_file_info *fi, const char *path, cmc_error *err) {
    CMC_TRY(load_parts(path, &fi->parts, &fi->n_parts, err));
    const gguf *g = fi->parts[0];
    fi->arch = info_text(g, "general.architecture");
    fi->name = info_text(g, "general.name");
    if (!fi->arch || !fi->name)
        return cmc_fail_nomem(err, "a name", 1);
    for (size_t i = 0; i < fi->n_parts; i++)
        for (size_t k = 0; k < fi->parts[i]->n_tensors; k++)
            CMC_TRY(info_count(fi, &fi->parts[i]->tensors[k], fi->parts[i]->file.path, err));
    fi->context = info_int(fi, "context_length");
    fi->layers = info_int(fi, "block_count");
    fi->embd = info_int(fi, "embedding_length");
    CMC_TRY(expand_read(g, fi->layers, &fi->expand, err));
    CMC_TRY(delta_info_read(g, &fi->delta, err));
    return gguf_find(g, "tokenizer.ggml.tokens") ? vocab_from_gguf(g, &fi->vocab, err) : CMC_OK;
}

cmc_status cmc_file_info_open(const char *path, cmc_file_info **out, cmc_error *err) {
    *out = NULL;
    cmc_file_info *fi = cmc_calloc(1, sizeof *fi);
    if (!fi)
        return cmc_fail_nomem(err, "a file's description", sizeof *fi);
    const cmc_status st = info_read(fi, path, err);
    if (st != CMC_OK) {
        cmc_file_info_free(fi);
        return st;
    }
    *out = fi;
    return CMC_OK;
}

void cmc_file_info_free(cmc_file_info *fi) {
    if (!fi)
        return;
    load_parts_free(fi->parts, fi->n_parts);
    expand_spec_free(&fi->expand);
    delta_info_free(fi->delta);
    cmc_vocab_free(fi->vocab);
    free(fi->types);
    free(fi->arch);
    free(fi->name);
    free(fi);
}

const char *cmc_file_info_arch(const cmc_file_info *fi) {
    return fi->arch;
}

const char *cmc_file_info_name(const cmc_file_info *fi) {
    return fi->name;
}

uint64_t cmc_file_info_params(const cmc_file_info *fi) {
    return fi->n_params;
}

uint64_t cmc_file_info_bytes(const cmc_file_info *fi) {
    return fi->n_bytes;
}

const cmc_type_count *cmc_file_info_types(const cmc_file_info *fi, size_t *n) {
    *n = fi->n_types;
    return fi->types;
}

const cmc_delta_info *cmc_file_info_delta(const cmc_file_info *fi) {
    return fi->delta;
}

const cmc_vocab *cmc_file_info_vocab(const cmc_file_info *fi) {
    return fi->vocab;
}

bool cmc_file_info_expand(const cmc_file_info *fi, cmc_expand_info *out) {
    return expand_describe(&fi->expand, out);
}

int32_t cmc_file_info_context(const cmc_file_info *fi) {
    return fi->context;
}

int32_t cmc_file_info_layers(const cmc_file_info *fi) {
    return fi->layers;
}

int32_t cmc_file_info_embd(const cmc_file_info *fi) {
    return fi->embd;
}
