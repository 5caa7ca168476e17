/* Map files: the reference's "one2one" form, a JSON list with a delta id (or -1) for each host token. */
#include <inttypes.h>
#include <jansson.h>
#include <stdlib.h>
#include <string.h>

#include "base/error.h"
#include "base/file.h"
#include "base/utf8.h"
#include "tokenmap/map.h"

/* A list of n ids as anyone would write it has fewer bytes than this an entry; more is refused before it is parsed. */
enum { MAX_BYTES_PER_ENTRY = 64, MAX_BYTES_BESIDE = 4096 };

static cmc_status fill_from_list(cmc_map *m, const json_t *list, const char *name, cmc_error *err) {
    for (int32_t i = 0; i < m->n_host; i++) {
        const json_t *v = json_array_get(list, (size_t)i);
        if (!json_is_integer(v)) {
            static const char *const type_names[] = {"an object", "a list", "a string", "an integer", "a fraction",
                                                     "true", "false", "null"};
            return cmc_fail(err, CMC_E_FORMAT, "%s: element %" PRId32 " is %s, should be a delta token id or -1", name,
                            i, type_names[json_typeof(v)]);
        }
        json_int_t id = json_integer_value(v);
        if (id < -1 || id >= m->n_delta) {
            return cmc_fail(err, CMC_E_FORMAT,
                            "%s: element %" PRId32 " is %" JSON_INTEGER_FORMAT ", should be -1 (none) or 0 to %" PRId32,
                            name, i, id, m->n_delta - 1);
        }
        map_set(m, i, (int32_t)id, CMC_HOW_OVERRIDE, 0);
    }
    map_finish(m);
    return CMC_OK;
}

static cmc_status map_from_json(const json_t *root, const char *name, int32_t host_size, int32_t delta_size,
                                cmc_map **out, cmc_error *err) {
    if (!json_is_array(root)) {
        return cmc_fail(err, CMC_E_FORMAT, "%s: holds a JSON object, should be a list of %" PRId32 " delta token ids",
                        name, host_size);
    }
    if (json_array_size(root) != (size_t)host_size) {
        return cmc_fail(err, CMC_E_FORMAT,
                        "%s: the list has %zu elements, should be %" PRId32 ", one for each host token", name,
                        json_array_size(root), host_size);
    }
    cmc_map *m;
    CMC_TRY(map_new(host_size, delta_size, &m, err));
    cmc_status status = fill_from_list(m, root, name, err);
    if (status != CMC_OK) {
        cmc_map_free(m);
        return status;
    }
    *out = m;
    return CMC_OK;
}

/* Jansson quotes the text near a fault, which may hold line breaks and control characters: a message is one line. */
static void one_line(char *s) {
    for (; *s; s++) {
        if ((unsigned char)*s < 0x20 || *s == 0x7F) {
            *s = ' ';
        }
    }
}

cmc_status map_import_memory(const uint8_t *data, size_t size, const char *name, int32_t host_size, int32_t delta_size,
                             cmc_map **out, cmc_error *err) {
    *out = NULL;
    if (host_size < 1 || delta_size < 1) {
        return cmc_fail(err, CMC_E_ARG, "%s: a map from %" PRId32 " to %" PRId32 " tokens, both should be positive",
                        name, host_size, delta_size);
    }
    size_t most = (size_t)host_size * MAX_BYTES_PER_ENTRY + MAX_BYTES_BESIDE;
    if (size > most) {
        return cmc_fail(err, CMC_E_FORMAT, "%s: has %zu bytes, a list of %" PRId32 " token ids should have at most %zu",
                        name, size, host_size, most);
    }
    json_error_t where;
    size_t mark = cmc_utf8_mark(data, size);
    json_t *root = json_loadb(size > mark ? (const char *)data + mark : "", size - mark, 0, &where);
    if (!root) {
        if (json_error_code(&where) == json_error_out_of_memory) {
            return cmc_fail_nomem(err, "a map file", size);
        }
        one_line(where.text);
        return cmc_fail(err, CMC_E_FORMAT, "%s: line %d, column %d: %s", name, where.line, where.column, where.text);
    }
    cmc_status status = map_from_json(root, name, host_size, delta_size, out, err);
    json_decref(root);
    return status;
}

cmc_status cmc_map_import(const char *path, int32_t host_size, int32_t delta_size, cmc_map **out, cmc_error *err) {
    *out = NULL;
    cmc_file f;
    CMC_TRY(cmc_file_map(path, &f, err));
    cmc_status status = map_import_memory(f.data, f.size, path, host_size, delta_size, out, err);
    cmc_file_unmap(&f);
    return status;
}

/* The text as Python's json.dump writes it, so that files compare byte for byte; NULL when memory is out. */
static char *map_to_text(const cmc_map *m) {
    json_t *list = json_array();
    if (!list) {
        return NULL;
    }
    for (int32_t i = 0; i < m->n_host; i++) {
        if (json_array_append_new(list, json_integer(m->to[i])) != 0) {
            json_decref(list);
            return NULL;
        }
    }
    char *text = json_dumps(list, 0);
    json_decref(list);
    return text;
}

cmc_status cmc_map_export(const cmc_map *m, const char *path, cmc_error *err) {
    char *text = map_to_text(m);
    if (!text) {
        return cmc_fail_nomem(err, "the text of a map file", (size_t)m->n_host * 8);
    }
    cmc_writer *w;
    cmc_status status = cmc_writer_open(path, &w, err);
    if (status == CMC_OK) {
        status = cmc_writer_put(w, text, strlen(text), err);
        if (status == CMC_OK) {
            status = cmc_writer_commit(w, err);
        } else {
            cmc_writer_abort(w);
        }
    }
    free(text);
    return status;
}
