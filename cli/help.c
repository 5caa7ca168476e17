/* Help texts and the manual page, made from the option tables. */
#include "cli/args.h"
#include "cli/cli.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

enum { HELP_WIDTH = 96, HELP_INDENT = 28 };

/* The default of an option as text, from the defaults themselves; "" where there is none to show. */
static void help_default(const arg_opt *o, const void *defaults, char *out, size_t size) {
    out[0] = '\0';
    if (!o->show_default || !defaults)
        return;
    const void *at = (const char *)defaults + o->at;
    switch (o->kind) {
    case ARG_INT: snprintf(out, size, " (default %" PRId32 ")", *(const int32_t *)at); break;
    case ARG_INT64: snprintf(out, size, " (default %" PRId64 ")", *(const int64_t *)at); break;
    case ARG_U64: snprintf(out, size, " (default %" PRIu64 ")", *(const uint64_t *)at); break;
    case ARG_REAL: snprintf(out, size, " (default %g)", *(const double *)at); break;
    case ARG_STR:
        if (*(const char *const *)at)
            snprintf(out, size, " (default %s)", *(const char *const *)at);
        break;
    case ARG_FLAG:
    case ARG_LIST: break;
    }
}

/* Words of `s` from column `col` on, wrapped to HELP_WIDTH with `indent` spaces before further lines. */
static void help_wrap(FILE *to, const char *s, int col, int indent) {
    int at = col;
    bool first = true;
    while (*s) {
        int len = (int)strcspn(s, " ");
        if (!first && at + 1 + len > HELP_WIDTH) {
            fprintf(to, "\n%*s", indent, "");
            at = indent;
        } else if (!first) {
            fputc(' ', to);
            at++;
        }
        fprintf(to, "%.*s", len, s);
        first = false;
        at += len;
        s += len;
        s += strspn(s, " ");
    }
    fputc('\n', to);
}

static void help_option(FILE *to, const arg_opt *o, const void *defaults) {
    char left[80], text[600], def[64];
    int n;
    if (o->letter)
        n = snprintf(left, sizeof left, "  -%c, --%s", o->letter, o->name);
    else
        n = snprintf(left, sizeof left, "      --%s", o->name);
    if (o->value && n > 0 && n < (int)sizeof left)
        n += snprintf(left + n, sizeof left - (size_t)n, " %s", o->value);
    help_default(o, defaults, def, sizeof def);
    snprintf(text, sizeof text, "%s%s", o->help, def);
    if (n < HELP_INDENT - 1)
        fprintf(to, "%-*s", HELP_INDENT, left);
    else
        fprintf(to, "%s\n%*s", left, HELP_INDENT, "");
    help_wrap(to, text, HELP_INDENT, HELP_INDENT);
}

void arg_help(const arg_verb *verb, FILE *to) {
    void *opts = calloc(1, verb->size);
    if (opts && verb->defaults)
        verb->defaults(opts);
    fprintf(to, "Usage: cmc %s ", verb->name);
    help_wrap(to, verb->usage, 12 + (int)strlen(verb->name), 11);
    fputc('\n', to);
    help_wrap(to, verb->text, 0, 0);
    for (size_t g = 0; g < verb->n_groups; g++) {
        const arg_group *group = &verb->groups[g];
        fprintf(to, "\n%s:\n", group->title);
        for (const arg_opt *o = group->opts; o->name; o++)
            help_option(to, o, opts ? (const char *)opts + group->at : NULL);
    }
    fprintf(to, "\nExample:\n  %s\n", verb->example);
    free(opts);
}

/* Text for roff: backslashes, dashes and lines that begin with a control character. */
static void help_roff(FILE *to, const char *s) {
    if (*s == '.' || *s == '\'')
        fputs("\\&", to);
    for (; *s; s++) {
        if (*s == '\\')
            fputs("\\e", to);
        else if (*s == '-')
            fputs("\\-", to);
        else
            fputc(*s, to);
    }
}

void arg_man(const arg_verb *verb, FILE *to) {
    void *opts = calloc(1, verb->size);
    if (opts && verb->defaults)
        verb->defaults(opts);
    fprintf(to, ".SH \"cmc %s\"\n.nh\n.B cmc %s\n", verb->name, verb->name);
    help_roff(to, verb->usage);
    fputs("\n.hy\n.PP\n", to);
    help_roff(to, verb->text);
    fputc('\n', to);
    for (size_t g = 0; g < verb->n_groups; g++) {
        const arg_group *group = &verb->groups[g];
        fprintf(to, ".SS \"%s\"\n", group->title);
        for (const arg_opt *o = group->opts; o->name; o++) {
            char def[64];
            help_default(o, opts ? (const char *)opts + group->at : NULL, def, sizeof def);
            fputs(".TP\n.B ", to);
            if (o->letter)
                fprintf(to, "\\-%c, ", o->letter);
            fputs("\\-\\-", to);
            help_roff(to, o->name);
            if (o->value)
                fprintf(to, " \\fI%s\\fR", o->value);
            fputc('\n', to);
            help_roff(to, o->help);
            help_roff(to, def);
            fputc('\n', to);
        }
    }
    fputs(".SS Example\n.nf\n", to);
    help_roff(to, verb->example);
    fputs("\n.fi\n", to);
    free(opts);
}
