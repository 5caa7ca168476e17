/* JSON output through jansson. */
#include "cli/json.h"
#include "cli/cli.h"
#include "cli/text.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

jbuild jobject(void) {
    json_t *j = json_object();
    return (jbuild){j, j == NULL};
}

jbuild jarray(void) {
    json_t *j = json_array();
    return (jbuild){j, j == NULL};
}

void jset(jbuild *o, const char *key, json_t *value) {
    if (json_object_set_new(o->j, key, value) != 0)   /* refuses NULLs, and frees the value when it fails */
        o->bad = true;
}

void jset_built(jbuild *o, const char *key, jbuild value) {
    o->bad |= value.bad;
    jset(o, key, value.j);
}

void jset_int(jbuild *o, const char *key, int64_t v) {
    jset(o, key, json_integer(v));
}

void jset_real(jbuild *o, const char *key, double v) {
    jset(o, key, jreal(v));
}

void jset_text(jbuild *o, const char *key, const char *s, size_t n) {
    jset(o, key, jtext(s, n));
}

void jset_string(jbuild *o, const char *key, const char *s) {
    jset(o, key, s ? jtext(s, strlen(s)) : json_null());
}

void jadd(jbuild *a, json_t *value) {
    if (json_array_append_new(a->j, value) != 0)
        a->bad = true;
}

void jadd_built(jbuild *a, jbuild value) {
    a->bad |= value.bad;
    jadd(a, value.j);
}

void jdrop(jbuild o) {
    json_decref(o.j);
}

char *jline(jbuild o) {
    char *line = o.bad ? NULL : json_dumps(o.j, JSON_COMPACT | JSON_REAL_PRECISION(15));
    jdrop(o);
    return line;
}

int jout(jbuild o) {
    char *line = jline(o);
    if (!line)
        return cli_no_memory();
    int rc = out_bytes(line, strlen(line));
    if (rc == CLI_OK)
        rc = out_bytes("\n", 1);
    free(line);
    return rc ? rc : out_flush();
}

int jwrite(jbuild o, const char *path) {
    char *text = o.bad ? NULL : json_dumps(o.j, JSON_INDENT(1) | JSON_REAL_PRECISION(15));
    jdrop(o);
    int rc = text ? cli_write_file(path, text, strlen(text)) : cli_no_memory();
    free(text);
    return rc;
}

json_t *jreal(double v) {
    return isfinite(v) ? json_real(v) : json_null();
}

json_t *jfloat(float v) {
    char digits[32];
    if (!isfinite(v))
        return json_null();
    snprintf(digits, sizeof digits, "%.9g", (double)v);
    return json_real(strtod(digits, NULL));
}

json_t *jids(const int32_t *v, size_t n) {
    jbuild a = jarray();
    for (size_t i = 0; i < n; i++)
        jadd(&a, json_integer(v[i]));
    if (!a.bad)
        return a.j;
    jdrop(a);
    return NULL;
}

json_t *jtext(const char *s, size_t n) {
    json_t *j = text_valid(s, n) ? json_stringn(s, n) : NULL;
    if (j)
        return j;
    size_t len;
    char *clean = text_clean(s, n, &len);
    j = clean ? json_stringn(clean, len) : NULL;
    free(clean);
    return j;
}

json_t *jpiece(const uint8_t *s, size_t n) {
    if (text_valid((const char *)s, n))
        return json_stringn((const char *)s, n);
    jbuild a = jarray();
    for (size_t i = 0; i < n; i++)
        jadd(&a, json_integer(s[i]));
    if (!a.bad)
        return a.j;
    jdrop(a);
    return NULL;
}
