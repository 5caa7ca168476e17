/* What begins and ends a text: the post-processor, and the tokenizer_config.json that lies beside a tokenizer.json. */
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "base/error.h"
#include "base/file.h"
#include "base/mem.h"
#include "tokenmap/hf.h"

static int32_t roles_find(const cmc_vocab *v, const char *s, size_t n) {
    for (int32_t i = 0; i < v->n; i++) {
        if (v->kind[i] != CMC_KIND_UNUSED && v->spell_off[i + 1] - v->spell_off[i] == n &&
            memcmp(v->spell + v->spell_off[i], s, n) == 0) {
            return i;
        }
    }
    return -1;
}

/* A token that is put before every text is BOS; only one is read. */
static cmc_status roles_bos(const hf_src *src, const char *part, json_int_t id, cmc_vocab *v) {
    if (id < 0 || id >= v->n || v->kind[id] == CMC_KIND_UNUSED) {
        return cmc_fail(src->err, CMC_E_FORMAT, "%s: %s: id %lld is no token", src->path, part, (long long)id);
    }
    if (v->add_bos) {
        return hf_unknown(src, part, "more than one token before a text");
    }
    v->bos = (int32_t)id;
    v->kind[id] = CMC_KIND_CONTROL;
    v->add_bos = true;
    return CMC_OK;
}

/* "single": [{"SpecialToken": {"id": "<s>"}}, {"Sequence": ..}, ..]; what stands after the text is not put there. */
static cmc_status roles_template(const hf_src *src, const json_t *o, cmc_vocab *v) {
    static const char part[] = "post_processor TemplateProcessing";
    const json_t *single;
    CMC_TRY(hf_get_list(src, o, part, "single", &single));
    for (size_t i = 0; i < json_array_size(single); i++) {
        const json_t *piece = json_array_get(single, i), *token = json_object_get(piece, "SpecialToken");
        hf_str name;
        if (json_object_get(piece, "Sequence") != NULL) {
            return CMC_OK;
        }
        if (!json_is_object(token)) {
            return hf_bad(src, part, "single", "a list of SpecialToken and Sequence");
        }
        CMC_TRY(hf_get_str(src, token, part, "id", &name));
        const json_t *ids = json_object_get(json_object_get(json_object_get(o, "special_tokens"), name.s), "ids");
        for (size_t k = 0; k < json_array_size(ids); k++) {
            const json_t *id = json_array_get(ids, k);
            CMC_TRY(roles_bos(src, part, json_is_integer(id) ? json_integer_value(id) : -1, v));
        }
        if (json_array_size(ids) == 0) {
            return hf_bad(src, part, "special_tokens", "an object that has the ids of every SpecialToken");
        }
    }
    return CMC_OK;
}

static cmc_status roles_processor(const hf_src *src, const json_t *o, int depth, cmc_vocab *v) {
    hf_str type;
    CMC_TRY(hf_get_type(src, o, "post_processor", &type));
    if (hf_is(type, "ByteLevel")) {
        return CMC_OK; /* it moves offsets */
    }
    if (hf_is(type, "TemplateProcessing")) {
        return roles_template(src, o, v);
    }
    if (hf_is(type, "RobertaProcessing") || hf_is(type, "BertProcessing")) { /* "cls": ["<s>", 0] */
        const json_t *id = json_array_get(json_object_get(o, "cls"), 1);
        return roles_bos(src, "post_processor", json_is_integer(id) ? json_integer_value(id) : -1, v);
    }
    if (!hf_is(type, "Sequence")) {
        return hf_unknown(src, "post_processor", type.s);
    }
    const json_t *list;
    CMC_TRY(hf_get_list(src, o, "post_processor Sequence", "processors", &list));
    if (depth > HF_MAX_DEPTH) {
        return hf_unknown(src, "post_processor", "a Sequence of so many parts");
    }
    for (size_t i = 0; i < json_array_size(list); i++) {
        CMC_TRY(roles_processor(src, json_array_get(list, i), depth + 1, v));
    }
    return CMC_OK;
}

cmc_status hf_roles_read(const hf_src *src, const json_t *root, cmc_vocab *v) {
    const json_t *o = json_object_get(root, "post_processor");
    return o == NULL || json_is_null(o) ? CMC_OK : roles_processor(src, o, 0, v);
}

/* ------------------------------------------------------------------------------------------- tokenizer_config.json */
/* "bos_token": "<s>", or {"content": "<s>", ..}; null and unknown names give no role. */
static void roles_named(const json_t *config, const char *key, cmc_vocab *v, int32_t *role) {
    const json_t *t = json_object_get(config, key);
    t = json_is_object(t) ? json_object_get(t, "content") : t;
    int32_t id = json_is_string(t) ? roles_find(v, json_string_value(t), json_string_length(t)) : -1;
    if (id >= 0) {
        *role = id;
        v->kind[id] = CMC_KIND_CONTROL;
    }
}

/* A string, or [{"name": "default", "template": ".."}, ..]. */
static cmc_status roles_chat_template(const json_t *config, cmc_vocab *v, cmc_error *err) {
    const json_t *t = json_object_get(config, "chat_template");
    for (size_t i = 0; json_is_array(t) && i < json_array_size(t); i++) {
        const char *name = json_string_value(json_object_get(json_array_get(t, i), "name"));
        if (name != NULL && strcmp(name, "default") == 0) {
            t = json_object_get(json_array_get(t, i), "template");
        }
    }
    if (json_is_string(t)) {
        v->chat_template = cmc_strndup(json_string_value(t), json_string_length(t));
        return v->chat_template == NULL ? cmc_fail_nomem(err, "the chat template", json_string_length(t)) : CMC_OK;
    }
    return CMC_OK;
}

static cmc_status roles_config_file(const char *path, cmc_vocab *v, cmc_error *err) {
    cmc_file f;
    json_error_t bad;
    CMC_TRY(cmc_file_map(path, &f, err));
    json_t *config = json_loadb((const char *)f.data, f.size, JSON_ALLOW_NUL, &bad);
    cmc_file_unmap(&f);
    if (!json_is_object(config)) {
        json_decref(config);
        return cmc_fail(err, CMC_E_FORMAT, "%s: no JSON object that can be read: %s in line %d", path,
                        config == NULL ? bad.text : "another value", config == NULL ? bad.line : 1);
    }
    roles_named(config, "bos_token", v, &v->bos);
    roles_named(config, "eos_token", v, &v->eos);
    roles_named(config, "pad_token", v, &v->pad);
    cmc_status st = roles_chat_template(config, v, err);
    json_decref(config);
    return st;
}

cmc_status hf_roles_config(const char *path, cmc_vocab *v, cmc_error *err) {
    static const char name[] = "tokenizer_config.json";
    const char *slash = strrchr(path, '/');
    size_t dir = slash == NULL ? 0 : (size_t)(slash + 1 - path);
    char *beside = cmc_alloc(dir + sizeof name, 1);
    struct stat st;
    if (beside == NULL) {
        return cmc_fail_nomem(err, "a path", dir + sizeof name);
    }
    memcpy(beside, path, dir);
    memcpy(beside + dir, name, sizeof name);
    bool there = strcmp(path, beside) != 0 && stat(beside, &st) == 0;
    cmc_status status = there ? roles_config_file(beside, v, err) : CMC_OK;
    free(beside);
    return status;
}
