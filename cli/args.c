/* The option parser: table-driven, with typed values, ranges and suggestions. */
#include "cli/args.h"
#include "cli/cli.h"

#include <errno.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

bool arg_grow(void **v, size_t *cap, size_t n, size_t size, size_t first) {
    if (n < *cap)
        return true;
    size_t more = *cap ? 2 * *cap : first;
    void *grown = more <= SIZE_MAX / size ? realloc(*v, more * size) : NULL;
    if (!grown)
        return false;
    *v = grown;
    *cap = more;
    return true;
}

bool arg_list_push(arg_list *l, const char *s) {
    if (!arg_grow((void **)&l->v, &l->cap, l->n, sizeof *l->v, 8))
        return false;
    l->v[l->n++] = s;
    return true;
}

bool arg_number(const char *s, double *out) {
    char *end;
    if (!*s || strspn(s, " \t\n\v\f\r"))
        return false;
    double x = strtod(s, &end);
    if (*end || !isfinite(x))
        return false;
    *out = x;
    return true;
}

/* ------------------------------------------------------------------------------------------------ suggestions */

/* Edit distance of two short words, with neighbouring letters swapped counting as one; anything long is "far". */
static size_t args_distance(const char *a, const char *b) {
    enum { MAX = 40 };
    size_t n = strlen(a), m = strlen(b), d[MAX + 1][MAX + 1];
    if (n > MAX || m > MAX)
        return MAX;
    for (size_t i = 0; i <= n; i++)
        d[i][0] = i;
    for (size_t j = 0; j <= m; j++)
        d[0][j] = j;
    for (size_t i = 1; i <= n; i++) {
        for (size_t j = 1; j <= m; j++) {
            size_t best = d[i - 1][j - 1] + (a[i - 1] != b[j - 1]);
            if (d[i - 1][j] + 1 < best)
                best = d[i - 1][j] + 1;
            if (d[i][j - 1] + 1 < best)
                best = d[i][j - 1] + 1;
            if (i > 1 && j > 1 && a[i - 1] == b[j - 2] && a[i - 2] == b[j - 1] && d[i - 2][j - 2] + 1 < best)
                best = d[i - 2][j - 2] + 1;
            d[i][j] = best;
        }
    }
    return d[n][m];
}

const char *arg_suggest(const char *word, const char *const *names, size_t n) {
    size_t len = strlen(word), near = len / 3 + 1;
    const char *found = NULL;
    if (len == 0)
        return NULL;
    for (size_t i = 0; len >= 2 && i < n && !found; i++) {    /* the beginning of a name comes first */
        if (strncmp(word, names[i], len) == 0)
            found = names[i];
    }
    if (found)
        return found;
    for (size_t i = 0; i < n; i++) {
        size_t d = args_distance(word, names[i]);
        if (d < len && d <= near && (!found || d < near)) {
            near = d;
            found = names[i];
        }
    }
    return found;
}

static int args_unknown(const arg_verb *verb, const char *name, size_t len) {
    char word[64];
    const char *names[128], *found;
    size_t n = 0;
    snprintf(word, sizeof word, "%.*s", (int)(len < 63 ? len : 63), name);
    for (size_t g = 0; g < verb->n_groups; g++) {
        for (const arg_opt *o = verb->groups[g].opts; o->name && n < 127; o++)
            names[n++] = o->name;
    }
    names[n++] = "help";
    found = arg_suggest(word, names, n);
    if (found)
        cli_usage("--%s: cmc %s has no such option; did you mean --%s?", word, verb->name, found);
    else
        cli_usage("--%s: cmc %s has no such option; see cmc %s --help", word, verb->name, verb->name);
    return -1;
}

/* ----------------------------------------------------------------------------------------------------- values */

static bool args_is_choice(const char *choices, const char *s) {
    size_t len = strlen(s);
    for (const char *c = choices; *c;) {
        size_t n = strcspn(c, "|");
        if (n == len && memcmp(c, s, n) == 0)
            return true;
        c += n + (c[n] == '|');
    }
    return false;
}

/* A whole decimal integer; false where it is none. *range: a number, but too large for any integer here. */
static bool args_integer(const char *s, long long *out, bool *range) {
    char *end;
    if (!(*s == '-' || *s == '+' || (*s >= '0' && *s <= '9')))
        return false;
    errno = 0;
    *out = strtoll(s, &end, 10);
    *range = errno == ERANGE;
    return end != s && *end == '\0';
}

static int args_bad_range(const char *shown, const char *s, double lo, double hi) {
    if (isinf(hi))
        cli_usage("%s: %s is out of range; it must be at least %.15g", shown, s, lo);
    else if (isinf(lo))
        cli_usage("%s: %s is out of range; it must be at most %.15g", shown, s, hi);
    else
        cli_usage("%s: %s is out of range: %.15g to %.15g", shown, s, lo, hi);
    return -1;
}

static int args_set_integer(const arg_opt *o, void *to, const char *shown, const char *s) {
    long long x;
    bool range;
    bool checked = o->lo < 0 || o->lo > 0 || o->hi < 0 || o->hi > 0;
    double lo = checked ? o->lo : o->kind == ARG_INT ? INT32_MIN : -9e18;
    double hi = checked ? o->hi : o->kind == ARG_INT ? INT32_MAX : 9e18;
    if (o->kind == ARG_INT && hi > INT32_MAX)
        hi = INT32_MAX;
    if (!args_integer(s, &x, &range)) {
        cli_usage("%s: \"%s\" is no whole number", shown, s);
        return -1;
    }
    if (range || (double)x < lo || (double)x > hi)
        return args_bad_range(shown, s, lo, hi);
    if (o->kind == ARG_INT)
        *(int32_t *)to = (int32_t)x;
    else
        *(int64_t *)to = x;
    return 0;
}

static int args_set_u64(void *to, const char *shown, const char *s) {
    char *end;
    errno = 0;
    unsigned long long x = strtoull(s, &end, 10);
    if (*s < '0' || *s > '9' || *end) {
        cli_usage("%s: \"%s\" is no whole number of at least 0", shown, s);
        return -1;
    }
    if (errno == ERANGE) {
        cli_usage("%s: %s is out of range: 0 to 18446744073709551615", shown, s);
        return -1;
    }
    *(uint64_t *)to = x;
    return 0;
}

static int args_set_real(const arg_opt *o, void *to, const char *shown, const char *s) {
    double x;
    bool checked = o->lo < 0 || o->lo > 0 || o->hi < 0 || o->hi > 0;
    if (!arg_number(s, &x)) {
        cli_usage("%s: \"%s\" is no number", shown, s);
        return -1;
    }
    if (checked && (x < o->lo || x > o->hi))
        return args_bad_range(shown, s, o->lo, o->hi);
    *(double *)to = x;
    return 0;
}

/* `shown`: the option as it was typed. */
static int args_set(const arg_opt *o, void *to, const char *shown, const char *s) {
    switch (o->kind) {
    case ARG_FLAG:
        *(bool *)to = true;
        return 0;
    case ARG_STR:
        if (o->choices && !args_is_choice(o->choices, s)) {
            cli_usage("%s: \"%s\" is not one of %s", shown, s, o->choices);
            return -1;
        }
        *(const char **)to = s;
        return 0;
    case ARG_LIST:
        if (!arg_list_push(to, s)) {
            cli_no_memory();
            return -1;
        }
        return 0;
    case ARG_INT:
    case ARG_INT64:
        return args_set_integer(o, to, shown, s);
    case ARG_U64:
        return args_set_u64(to, shown, s);
    case ARG_REAL:
        return args_set_real(o, to, shown, s);
    }
    return -1;
}

/* ---------------------------------------------------------------------------------------------------- parsing */

/* The option with this long name (len bytes) or, where name is NULL, this letter; *at: where its value goes. */
static const arg_opt *args_find(const arg_verb *verb, const char *name, size_t len, char letter, size_t *at) {
    for (size_t g = 0; g < verb->n_groups; g++) {
        const arg_group *group = &verb->groups[g];
        for (const arg_opt *o = group->opts; o->name; o++) {
            bool hit = name ? strlen(o->name) == len && memcmp(o->name, name, len) == 0 : o->letter == letter;
            if (hit) {
                *at = group->at + o->at;
                return o;
            }
        }
    }
    return NULL;
}

typedef struct args_in { int argc, i; char **argv; } args_in;

static int args_long(const arg_verb *verb, args_in *in, void *opts) {
    const char *name = in->argv[in->i] + 2, *value = NULL;
    size_t len = strcspn(name, "="), at = 0;
    char shown[80];
    const arg_opt *o = args_find(verb, name, len, 0, &at);
    if (len == 4 && memcmp(name, "help", 4) == 0 && !name[len])
        return 1;
    if (!o)
        return args_unknown(verb, name, len);
    snprintf(shown, sizeof shown, "--%s", o->name);
    if (o->kind == ARG_FLAG) {
        if (name[len]) {
            cli_usage("%s: takes no value", shown);
            return -1;
        }
    } else if (name[len]) {
        value = name + len + 1;
    } else if (in->i + 1 < in->argc) {
        value = in->argv[++in->i];
    } else {
        cli_usage("%s: needs a value: %s", shown, o->value);
        return -1;
    }
    return args_set(o, (char *)opts + at, shown, value);
}

/* One argument of short options: flags may be run together, and a value may follow its letter at once. */
static int args_short(const arg_verb *verb, args_in *in, void *opts) {
    const char *p = in->argv[in->i] + 1;
    for (; *p; p++) {
        size_t at = 0;
        char shown[3] = {'-', *p, 0};
        const char *value = NULL;
        const arg_opt *o = args_find(verb, NULL, 0, *p, &at);
        if (*p == 'h')
            return 1;
        if (!o) {
            cli_usage("-%c: cmc %s has no such option; see cmc %s --help", *p, verb->name, verb->name);
            return -1;
        }
        if (o->kind != ARG_FLAG) {
            value = p[1] ? p + 1 + (p[1] == '=') : in->i + 1 < in->argc ? in->argv[++in->i] : NULL;
            if (!value) {
                cli_usage("%s: needs a value: %s", shown, o->value);
                return -1;
            }
        }
        int rc = args_set(o, (char *)opts + at, shown, value);
        if (rc || o->kind != ARG_FLAG)
            return rc;
    }
    return 0;
}

int arg_parse(const arg_verb *verb, int argc, char **argv, void *opts, arg_list *operands) {
    args_in in = {argc, 0, argv};
    bool ended = false;
    for (; in.i < argc; in.i++) {
        const char *a = argv[in.i];
        int rc = 0;
        if (!ended && strcmp(a, "--") == 0)
            ended = true;
        else if (!ended && a[0] == '-' && a[1] == '-')
            rc = args_long(verb, &in, opts);
        else if (!ended && a[0] == '-' && a[1])
            rc = args_short(verb, &in, opts);
        else if (!arg_list_push(operands, a)) {
            cli_no_memory();
            rc = -1;
        }
        if (rc)
            return rc;
    }
    return 0;
}

void arg_release(const arg_verb *verb, void *opts, arg_list *operands) {
    for (size_t g = 0; g < verb->n_groups; g++) {
        for (const arg_opt *o = verb->groups[g].opts; o->name; o++) {
            if (o->kind == ARG_LIST)
                free(((arg_list *)(void *)((char *)opts + verb->groups[g].at + o->at))->v);
        }
    }
    free(operands->v);
}
