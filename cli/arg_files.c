/* No run writes over what it reads, nor two things into one file: asked of the options' tables, before any work. */
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "cli/cli.h"

/* A run's options and operands. */
typedef struct files_seen {
    const arg_verb *verb;
    const char *const opts;      /* the verb's struct */
    const arg_list *operands;
} files_seen;

/* Value k of an option, NULL behind the last and where it was not given. */
static const char *files_value(const files_seen *f, const arg_group *g, const arg_opt *o, size_t k) {
    const void *at = f->opts + g->at + o->at;
    if (o->kind == ARG_LIST) {
        const arg_list *l = at;
        return k < l->n ? l->v[k] : NULL;
    }
    return o->kind == ARG_STR && k == 0 ? *(const char *const *)at : NULL;
}

/* Whether FILE, FILE=NUMBER or N=FILE names the file that is written. */
static bool files_names(const char *arg, const char *written) {
    const char *first = strchr(arg, '='), *last = strrchr(arg, '=');
    char *path = last ? strndup(arg, (size_t)(last - arg)) : NULL;
    bool same = cli_same_file(written, arg) || (first && cli_same_file(written, first + 1)) || (last && (!path || cli_same_file(written, path)));
    free(path);   /* without memory for it nothing is known to be another file */
    return same;
}

/* Whether the file that option `of` writes is also read, or written by another option. */
static bool files_taken(const files_seen *f, const arg_opt *of, const char *written) {
    bool taken = false;
    for (size_t i = 0; f->verb->operands_are_files && i < f->operands->n; i++)
        taken = taken || cli_same_file(written, f->operands->v[i]);
    for (size_t g = 0; g < f->verb->n_groups; g++)
        for (const arg_opt *o = f->verb->groups[g].opts; o->name; o++) {
            const char *v;
            for (size_t k = 0; o->file != ARG_NO_FILE && o != of && (v = files_value(f, &f->verb->groups[g], o, k)) != NULL; k++)
                taken = taken || (o->file == ARG_READS_WITH ? files_names(v, written) : cli_same_file(written, v));
        }
    return taken;
}

bool arg_check_files(const arg_verb *verb, const void *opts, const arg_list *operands) {
    const files_seen f = {verb, opts, operands};
    struct stat st;
    for (size_t g = 0; g < verb->n_groups; g++)
        for (const arg_opt *o = verb->groups[g].opts; o->name; o++) {
            const char *written = o->file == ARG_WRITES ? files_value(&f, &verb->groups[g], o, 0) : NULL;
            const char letter[] = {'-', o->letter, '\0'};
            bool device = written && stat(written, &st) == 0 && !S_ISREG(st.st_mode);
            if (!written || device || !files_taken(&f, o, written))
                continue;
            cli_usage("%s%s: \"%s\" is another of this run's files; name another to write", o->letter ? letter : "--",
                      o->letter ? "" : o->name, written);
            return false;
        }
    return true;
}
