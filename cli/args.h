/* Command-line options as tables: one parser, one help text and one manual page for every verb. */
#ifndef CMC_CLI_ARGS_H
#define CMC_CLI_ARGS_H
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>

typedef enum arg_kind {
    ARG_FLAG,   /* bool */
    ARG_STR,    /* const char *, into argv */
    ARG_LIST,   /* arg_list: the option may be repeated */
    ARG_INT,    /* int32_t in [lo, hi] */
    ARG_INT64,  /* int64_t in [lo, hi] */
    ARG_U64,    /* uint64_t */
    ARG_REAL    /* double in [lo, hi] */
} arg_kind;

typedef struct arg_list { const char **v; size_t n, cap; } arg_list;

/* What an ARG_STR or ARG_LIST names. A run must not write what it reads, nor two things into one file. */
typedef enum arg_file {
    ARG_NO_FILE,
    ARG_READS,
    ARG_READS_WITH,   /* FILE=NUMBER or N=FILE, or FILE alone */
    ARG_WRITES
} arg_file;

typedef struct arg_opt {
    const char *name;     /* without the dashes; NULL ends a table */
    char letter;          /* the short form, 0: none */
    arg_kind kind;
    size_t at;            /* where the value goes: offset in the group's struct */
    const char *value;    /* what the value is called in the help text; NULL for a flag */
    const char *help;
    double lo, hi;        /* both 0: no range check */
    const char *choices;  /* ARG_STR: the words allowed, "a|b|c"; NULL: any */
    bool show_default;    /* the help text names the default, read from the defaults themselves */
    arg_file file;
} arg_opt;

typedef struct arg_group {
    const char *title;    /* heading in the help text */
    const arg_opt *opts;  /* up to one without a name */
    size_t at;            /* offset of the group's struct in the verb's */
} arg_group;

typedef struct arg_verb {
    const char *name;
    const char *usage;    /* what follows the name */
    const char *summary;  /* one line */
    const char *text;     /* a short paragraph */
    const char *example;
    const arg_group *groups;
    size_t n_groups;
    size_t size;          /* of the verb's options struct */
    void (*defaults)(void *opts);                               /* on a zeroed struct; may be NULL */
    int (*main)(void *opts, const arg_list *operands);          /* gives the exit status */
    bool operands_are_files;                                    /* which it reads */
} arg_verb;

/* Reads argv[0..argc) into opts. 0: go on; 1: help was asked for; -1: usage error, reported. */
int arg_parse(const arg_verb *verb, int argc, char **argv, void *opts, arg_list *operands);
/* Whether no file that is written is another of the run's: false, and it is reported. */
bool arg_check_files(const arg_verb *verb, const void *opts, const arg_list *operands);
/* Frees what arg_parse allocated in opts and operands. */
void arg_release(const arg_verb *verb, void *opts, arg_list *operands);
void arg_help(const arg_verb *verb, FILE *to);
/* The verb's section of the manual page, in man(7) macros. */
void arg_man(const arg_verb *verb, FILE *to);

/* Room for one more behind the n there are, the first time for `first`; false: no memory. */
bool arg_grow(void **v, size_t *cap, size_t n, size_t size, size_t first);
bool arg_list_push(arg_list *l, const char *s);
/* A whole string that is one finite number. */
bool arg_number(const char *s, double *out);
/* The nearest of n names where one is near enough to be what was meant, else NULL. */
const char *arg_suggest(const char *word, const char *const *names, size_t n);
#endif
