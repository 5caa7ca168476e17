/* Records of data: JSONL files and JSON lists, read with jansson. */
#include <jansson.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/file.h"
#include "base/mem.h"
#include "base/utf8.h"
#include "runtime/prompt.h"

/* Where the reader is, for messages: `FILE: line N: what, what would be right`. */
typedef struct record_place {
    const char *name;
    long line;
    bool need_response;
    cmc_error *err;
} record_place;

static cmc_status bad(const record_place *p, const char *fmt, ...) CMC_PRINTF(2, 3);
static cmc_status bad(const record_place *p, const char *fmt, ...) {
    char what[400];
    va_list ap;
    va_start(ap, fmt);
    vsnprintf(what, sizeof what, fmt, ap);
    va_end(ap);
    return cmc_fail(p->err, CMC_E_FORMAT, "%s: line %ld: %s", p->name, p->line, what);
}

static void record_free(cmc_record *r) {
    free(r->text);
    for (size_t i = 0; i < r->n_messages; i++) free(r->messages[i].text);
    free(r->messages);
    *r = (cmc_record){0};
}

void cmc_records_free(cmc_records *r) {
    if (!r) return;
    for (size_t i = 0; i < r->n; i++) record_free(&r->v[i]);
    free(r->v);
    *r = (cmc_records){0};
}

/* ------------------------------------------------------------------------------------------------ the forms */

static cmc_status add_message(const record_place *p, cmc_record *r, cmc_role role, const char *s, size_t n) {
    char *copy = cmc_strndup(s, n);
    cmc_message *v = copy ? cmc_realloc(r->messages, r->n_messages + 1, sizeof *v) : NULL;
    if (!v) {
        free(copy);
        return cmc_fail_nomem(p->err, "a record", n);
    }
    v[r->n_messages++] = (cmc_message){.role = role, .text = copy, .len = n};
    r->messages = v;
    return CMC_OK;
}

/* The string under a key; absent and null are NULL in *s. */
static cmc_status get_string(const record_place *p, const json_t *obj, const char *key, const char **s, size_t *n) {
    const json_t *v = json_object_get(obj, key);
    *s = NULL;
    *n = 0;
    if (!v || json_is_null(v)) return CMC_OK;
    if (!json_is_string(v)) return bad(p, "\"%s\" is not a string, expected text in quotes", key);
    *s = json_string_value(v);
    *n = json_string_length(v);
    return CMC_OK;
}

/* {question key, answer key}; `extra` goes after the question on a line of its own (alpaca's "input"). */
static cmc_status read_pair(const record_place *p, const json_t *obj, const char *q_key, const char *extra_key,
                            const char *a_key, cmc_record *r) {
    const char *q, *extra = NULL, *a;
    size_t q_n, extra_n = 0, a_n;
    CMC_TRY(get_string(p, obj, q_key, &q, &q_n));
    if (extra_key) CMC_TRY(get_string(p, obj, extra_key, &extra, &extra_n));
    CMC_TRY(get_string(p, obj, a_key, &a, &a_n));
    if (!q) return bad(p, "\"%s\" is null, expected text in quotes", q_key);
    if (p->need_response && a_n == 0) {
        return bad(p, "\"%s\" is %s, expected the response's text", a_key, a ? "empty" : "missing");
    }
    if (extra_n > 0) {
        char *joined = cmc_alloc(q_n + 1 + extra_n, 1);
        if (!joined) return cmc_fail_nomem(p->err, "a record", q_n + extra_n);
        memcpy(joined, q, q_n);
        joined[q_n] = '\n';
        memcpy(joined + q_n + 1, extra, extra_n);
        cmc_status s = add_message(p, r, CMC_USER, joined, q_n + 1 + extra_n);
        free(joined);
        CMC_TRY(s);
    } else {
        CMC_TRY(add_message(p, r, CMC_USER, q, q_n));
    }
    return a_n > 0 ? add_message(p, r, CMC_ASSISTANT, a, a_n) : CMC_OK;
}

static bool parse_role(const char *s, cmc_role *out) {
    static const char *const NAMES[] = {[CMC_SYSTEM] = "system", [CMC_USER] = "user", [CMC_ASSISTANT] = "assistant"};
    for (unsigned i = 0; s && i < 3; i++) {
        if (strcmp(s, NAMES[i]) == 0) {
            *out = (cmc_role)i;
            return true;
        }
    }
    return false;
}

static cmc_status read_message(const record_place *p, const json_t *m, size_t i, cmc_record *r) {
    const json_t *role_v = json_object_get(m, "role"), *content = json_object_get(m, "content");
    cmc_role role = CMC_USER;
    if (!json_is_object(m)) return bad(p, "messages[%zu] is not an object, expected {\"role\",\"content\"}", i);
    const char *name = json_string_value(role_v);
    if (!parse_role(name, &role)) {
        return bad(p, "messages[%zu] has the role \"%.32s\", expected \"system\", \"user\" or \"assistant\"", i,
                   name ? name : "");
    }
    if (!json_is_string(content)) return bad(p, "messages[%zu] has no \"content\" that is a string", i);
    size_t n = json_string_length(content);
    if (role == CMC_ASSISTANT && n == 0 && p->need_response) {
        return bad(p, "messages[%zu] is an empty response, expected its text", i);
    }
    return add_message(p, r, role, json_string_value(content), n);
}

static cmc_status read_messages(const record_place *p, const json_t *list, cmc_record *r) {
    if (!json_is_array(list) || json_array_size(list) == 0) {
        return bad(p, "\"messages\" is not a list of messages, expected [{\"role\",\"content\"}, ...]");
    }
    bool response = false;
    for (size_t i = 0; i < json_array_size(list); i++) {
        CMC_TRY(read_message(p, json_array_get(list, i), i, r));
        response = response || r->messages[i].role == CMC_ASSISTANT;
    }
    if (p->need_response && !response)
        return bad(p, "\"messages\" holds no response, expected a turn of the assistant");
    return CMC_OK;
}

static cmc_status read_text(const record_place *p, const json_t *obj, cmc_record *r) {
    const char *s;
    size_t n;
    CMC_TRY(get_string(p, obj, "text", &s, &n));
    if (!s || (n == 0 && p->need_response)) return bad(p, "\"text\" is %s, expected some text", s ? "empty" : "null");
    r->text = cmc_strndup(s, n);
    if (!r->text) return cmc_fail_nomem(p->err, "a record", n);
    r->text_len = n;
    return CMC_OK;
}

/* Forms are told apart by their first key; "text" last, as alpaca files carry one beside their instruction. */
static cmc_status read_object(const record_place *p, const json_t *obj, cmc_record *r) {
    if (!json_is_object(obj))
        return bad(p, "not an object, expected {\"prompt\", \"response\"} or another record form");
    const json_t *messages = json_object_get(obj, "messages");
    if (messages) return read_messages(p, messages, r);
    if (json_object_get(obj, "instruction")) return read_pair(p, obj, "instruction", "input", "output", r);
    if (json_object_get(obj, "question")) return read_pair(p, obj, "question", NULL, "answer", r);
    if (json_object_get(obj, "prompt")) return read_pair(p, obj, "prompt", NULL, "response", r);
    if (json_object_get(obj, "text")) return read_text(p, obj, r);
    return bad(p, "no known record form, expected \"instruction\", \"question\", \"prompt\", \"messages\" or \"text\"");
}

static cmc_status add_record(const record_place *p, const json_t *obj, cmc_records *out) {
    cmc_record r = {.line = p->line};
    cmc_status s = read_object(p, obj, &r);
    if (s == CMC_OK && !cmc_grow((void **)&out->v, &out->cap, out->n + 1, sizeof *out->v)) {
        s = cmc_fail_nomem(p->err, "the records", (out->n + 1) * sizeof *out->v);
    }
    if (s != CMC_OK) {
        record_free(&r);
        return s;
    }
    out->v[out->n++] = r;
    return CMC_OK;
}

/* ------------------------------------------------------------------------------------------ JSONL and lists */

static bool is_white(char c) {
    return c == ' ' || c == '\t' || c == '\r' || c == '\n';
}

static cmc_status read_lines(record_place *p, const char *s, size_t n, cmc_records *out) {
    for (const char *end = s + n; s < end; p->line++) {
        const char *nl = memchr(s, '\n', (size_t)(end - s)), *stop = nl ? nl : end;
        const char *first = s;
        while (first < stop && is_white(*first)) first++;
        if (first < stop) {
            json_error_t je;
            json_t *obj = json_loadb(first, (size_t)(stop - first), JSON_ALLOW_NUL, &je);
            if (!obj) return bad(p, "no valid JSON (%.160s), expected one object on each line", je.text);
            cmc_status status = add_record(p, obj, out);
            json_decref(obj);
            CMC_TRY(status);
        }
        s = nl ? nl + 1 : end;
    }
    return CMC_OK;
}

/* Steps over white space, counting lines. */
static const char *skip_white(record_place *p, const char *s, const char *end) {
    for (; s < end && is_white(*s); s++) p->line += *s == '\n';
    return s;
}

/* A list, element by element, so that each record knows its line and only one is held as JSON. s is after the '['. */
static cmc_status read_list(record_place *p, const char *s, const char *end, cmc_records *out) {
    s = skip_white(p, s, end);
    bool first = true;
    while (s < end && *s != ']') {
        if (!first) {
            if (*s != ',') return bad(p, "no comma between two records of the list");
            s = skip_white(p, s + 1, end);
        }
        first = false;
        json_error_t je;
        json_t *obj = json_loadb(s, (size_t)(end - s), JSON_ALLOW_NUL | JSON_DISABLE_EOF_CHECK, &je);
        if (!obj) {
            p->line += je.line > 0 ? je.line - 1 : 0;
            return bad(p, "no valid JSON (%.160s), expected a list of objects", je.text);
        }
        cmc_status status = add_record(p, obj, out);
        json_decref(obj);
        CMC_TRY(status);
        for (const char *stop = s + je.position; s < stop; s++) p->line += *s == '\n';
        s = skip_white(p, s, end);
    }
    if (s == end) return bad(p, "the list does not end, expected ]");
    s = skip_white(p, s + 1, end);
    return s == end ? CMC_OK : bad(p, "something follows the list, expected the end of the file");
}

/* The hash of several files is that of the earlier hash followed by the next file's bytes. */
static cmc_status add_hash(const record_place *p, cmc_records *out, const char *data, size_t n) {
    cmc_hasher *h = cmc_hasher_new();
    if (!h) return cmc_fail_nomem(p->err, "a hash", 1);
    cmc_hasher_add(h, out->hash, strlen(out->hash));
    cmc_hasher_add(h, data, n);
    cmc_hasher_finish(h, out->hash);
    return CMC_OK;
}

cmc_status records_read_memory(const char *data, size_t n, const char *name, bool need_response, cmc_records *out,
                               cmc_error *err) {
    record_place p = {.name = name, .line = 1, .need_response = need_response, .err = err};
    size_t had = out->n, white = cmc_utf8_mark(data, n);
    const char *s = data + white, *end = data + n, *first = skip_white(&p, s, end);
    cmc_status status;
    if (first < end && *first == '[') {
        status = read_list(&p, first + 1, end, out);
    } else {
        p.line = 1;
        status = read_lines(&p, s, (size_t)(end - s), out);
    }
    if (status == CMC_OK && out->n == had) {
        status = cmc_fail(err, CMC_E_FORMAT, "%s: holds no record, expected one JSON object on each line", name);
    }
    if (status == CMC_OK) status = add_hash(&p, out, data, n);
    while (status != CMC_OK && out->n > had) record_free(&out->v[--out->n]);
    return status;
}

cmc_status cmc_records_read(const char *path, bool need_response, cmc_records *out, cmc_error *err) {
    cmc_file f = {0};
    CMC_TRY(cmc_file_map(path, &f, err));
    cmc_status s = records_read_memory(f.size ? (const char *)f.data : "", f.size, path, need_response, out, err);
    cmc_file_unmap(&f);
    return s;
}
