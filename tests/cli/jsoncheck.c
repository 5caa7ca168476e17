/* jsoncheck: looks at one value in a file of JSON lines, for tests that work from a shell.
 *
 *   jsoncheck FILE lines N                    the file holds N lines, and each is JSON
 *   jsoncheck FILE LINE PATH OP [VALUE]       LINE from 1, or "last"
 *
 * PATH is .key, [index] and so on from the line's value; "|length" at its end gives the size of what stands there.
 * OP: == != < <= > >= with a number, a string, true, false or null; "is" with a type (null, object, array, string,
 * integer, real, number, boolean); "has" with keys parted by commas; "same" with a path on the same line; "~" with an
 * extended regular expression for a string. Exit status: 0 it holds, 1 it does not (and it says so), 2 usage. */
#include <jansson.h>
#include <math.h>
#include <regex.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static int check_usage(const char *what)
{
    fprintf(stderr, "jsoncheck: %s\n", what);
    return 2;
}

/* Line `want` of the file (0: the last) parsed, or NULL; *count: how many lines there are, -1 where one is no JSON. */
static json_t *check_line(FILE *f, long want, long *count)
{
    char *line = NULL;
    size_t cap = 0;
    ssize_t len;
    json_t *found = NULL;
    *count = 0;
    while ((len = getline(&line, &cap, f)) > 0) {
        json_error_t err;
        json_t *j = json_loadb(line, (size_t)len, JSON_DECODE_ANY | JSON_REJECT_DUPLICATES, &err);
        ++*count;
        if (!j) {
            fprintf(stderr, "jsoncheck: line %ld: %s\n", *count, err.text);
            *count = -1;
            break;
        }
        if (want == *count || want == 0) {
            json_decref(found);
            found = j;
        } else {
            json_decref(j);
        }
    }
    free(line);
    return found;
}

/* What stands at the path, a new reference; NULL where there is nothing. */
static json_t *check_path(json_t *root, const char *path)
{
    json_t *j = root;
    while (j && *path) {
        if (strcmp(path, "|length") == 0) {
            size_t n = json_is_array(j) ? json_array_size(j) : json_is_object(j) ? json_object_size(j) : 0;
            return json_integer((json_int_t)(json_is_string(j) ? json_string_length(j) : n));
        }
        if (*path == '.') {
            size_t len = strcspn(++path, ".[|");
            char key[128];
            snprintf(key, sizeof key, "%.*s", (int)len, path);
            j = len ? json_object_get(j, key) : j;
            path += len;
        } else if (*path == '[') {
            char *end;
            size_t at = strtoul(path + 1, &end, 10);
            j = json_array_get(j, at);
            path = *end == ']' ? end + 1 : end;
        } else {
            return NULL;
        }
    }
    return json_incref(j);
}

static bool check_type(const json_t *j, const char *type)
{
    return strcmp(type, "null") == 0      ? json_is_null(j)
           : strcmp(type, "object") == 0  ? json_is_object(j)
           : strcmp(type, "array") == 0   ? json_is_array(j)
           : strcmp(type, "string") == 0  ? json_is_string(j)
           : strcmp(type, "integer") == 0 ? json_is_integer(j)
           : strcmp(type, "real") == 0    ? json_is_real(j)
           : strcmp(type, "number") == 0  ? json_is_number(j)
           : strcmp(type, "boolean") == 0 ? json_is_boolean(j)
                                          : false;
}

static bool check_has(const json_t *j, const char *keys)
{
    for (const char *k = keys; *k;) {
        char key[128];
        size_t len = strcspn(k, ",");
        snprintf(key, sizeof key, "%.*s", (int)len, k);
        if (!json_object_get(j, key))
            return false;
        k += len + (k[len] == ',');
    }
    return json_is_object(j);
}

static bool check_match(const json_t *j, const char *pattern)
{
    regex_t re;
    if (!json_is_string(j) || regcomp(&re, pattern, REG_EXTENDED | REG_NOSUB) != 0)
        return false;
    bool hit = regexec(&re, json_string_value(j), 0, NULL, 0) == 0;
    regfree(&re);
    return hit;
}

/* Equality with a literal: a number, true, false, null, or else a string. */
static bool check_equal(const json_t *j, const char *value)
{
    char *end;
    double x = strtod(value, &end);
    if (json_is_number(j))
        return *value && !*end && !islessgreater(json_number_value(j), x);
    if (json_is_boolean(j))
        return strcmp(value, json_is_true(j) ? "true" : "false") == 0;
    if (json_is_null(j))
        return strcmp(value, "null") == 0;
    return json_is_string(j) && strcmp(json_string_value(j), value) == 0;
}

static bool check_order(const json_t *j, const char *op, const char *value)
{
    char *end;
    double x = json_number_value(j), y = strtod(value, &end);
    if (!json_is_number(j) || !*value || *end)
        return false;
    return strcmp(op, "<") == 0 ? x < y : strcmp(op, "<=") == 0 ? x <= y : strcmp(op, ">") == 0 ? x > y : x >= y;
}

static bool check_holds(json_t *root, const json_t *j, const char *op, const char *value)
{
    if (strcmp(op, "is") == 0)
        return check_type(j, value);
    if (strcmp(op, "has") == 0)
        return check_has(j, value);
    if (strcmp(op, "~") == 0)
        return check_match(j, value);
    if (strcmp(op, "==") == 0)
        return check_equal(j, value);
    if (strcmp(op, "!=") == 0)
        return !check_equal(j, value);
    if (strcmp(op, "same") == 0) {
        json_t *other = check_path(root, value);
        bool same = other && json_equal(j, other);
        json_decref(other);
        return same;
    }
    return check_order(j, op, value);
}

static int check_value(json_t *root, char **argv)
{
    static const char *const ops[] = {"is", "has", "~", "==", "!=", "same", "<", "<=", ">", ">="};
    bool known = false;
    for (size_t i = 0; i < sizeof ops / sizeof *ops; i++)
        known |= strcmp(argv[4], ops[i]) == 0;
    if (!known)
        return check_usage("no such OP");
    json_t *j = check_path(root, argv[3]);
    bool holds = j && check_holds(root, j, argv[4], argv[5]);
    if (!holds) {
        char *is = j ? json_dumps(j, JSON_ENCODE_ANY | JSON_COMPACT) : NULL;
        fprintf(stderr, "jsoncheck: not so: line %s %s %s %s; it is %.200s\n", argv[2], argv[3], argv[4], argv[5],
                is ? is : "not there");
        free(is);
    }
    json_decref(j);
    return holds ? 0 : 1;
}

int main(int argc, char **argv)
{
    bool lines = argc == 4 && strcmp(argv[2], "lines") == 0;
    if (!lines && argc != 6)
        return check_usage("FILE lines N, or FILE LINE PATH OP VALUE");
    FILE *f = fopen(argv[1], "r");
    if (!f)
        return check_usage("the file cannot be opened");
    long count, want = lines || strcmp(argv[2], "last") == 0 ? 0 : strtol(argv[2], NULL, 10);
    json_t *root = check_line(f, want, &count);
    int rc = 1;
    fclose(f);
    if (lines && count == strtol(argv[3], NULL, 10))
        rc = 0;
    else if (lines)
        fprintf(stderr, "jsoncheck: %ld lines, not %s\n", count, argv[3]);
    else if (root && count >= 0)
        rc = check_value(root, argv);
    else
        fprintf(stderr, "jsoncheck: no line %s of %ld\n", argv[2], count);
    json_decref(root);
    return rc;
}
