/* What the verbs share: exit statuses, messages, standard output, interrupts, and the options that every verb takes. */
#ifndef CMC_CLI_CLI_H
#define CMC_CLI_CLI_H
#include "cli/args.h"
#include "cmc.h"

enum { CLI_OK = 0, CLI_FAILED = 1, CLI_USAGE = 2, CLI_INTERRUPTED = 130 };

typedef struct common_args {
    bool json;
    int32_t threads;
    uint64_t seed;
} common_args;
extern const arg_opt common_opts[];
#define CLI_BATCHES "auto|float|int15|int8"
/* `batches`: one of these, or NULL for auto. */
cmc_runtime_opts cli_runtime_opts(const common_args *c, bool exact, const char *batches);

/* The verbs, in the order of the help text. */
extern const arg_verb verb_run, verb_ab, verb_score, verb_map, verb_tokenize, verb_inspect, verb_train, verb_importance, verb_merge,
    verb_train_search, verb_train_vocab, verb_bench, verb_eval_nll, verb_eval_rouge, verb_eval_tofu, verb_eval_text, verb_eval_compare;

/* One line "cmc: ..." on standard error. Control characters (from file names, say) are shown as '?'. */
#if defined(__GNUC__)
#define CLI_PRINTF(a, b) __attribute__((format(printf, a, b)))
#else
#define CLI_PRINTF(a, b)
#endif
int cli_usage(const char *fmt, ...) CLI_PRINTF(1, 2);      /* gives CLI_USAGE */
int cli_failed(const char *fmt, ...) CLI_PRINTF(1, 2);     /* gives CLI_FAILED */
int cli_no_memory(void);
/* Reports a library error, after "where: " where that is not NULL; gives the exit status. */
int cli_error(const char *where, const cmc_error *err);
void cli_note(const char *fmt, ...) CLI_PRINTF(1, 2);

/* Standard output: every write is checked, and reported once. They give CLI_OK or CLI_FAILED. */
int out_bytes(const char *s, size_t n);
int out_printf(const char *fmt, ...) CLI_PRINTF(1, 2);
int out_flush(void);

/* From here on the first Ctrl-C only sets a flag; the second ends the program. */
void cli_catch_interrupt(void);
bool cli_interrupted(void);

double cli_now(void);     /* monotonic seconds */
/* All of a file, or of standard input where path is "-". The caller frees *out, which is NUL-terminated. */
int cli_read_file(const char *path, char **out, size_t *len);
/* A file that appears whole or not at all: written beside, synced, renamed. */
int cli_write_file(const char *path, const char *data, size_t len);
/* Whether cli_write_file will be able to: for a long run to ask before its work. A failure is reported. */
int cli_check_write(const char *path);
bool cli_same_file(const char *a, const char *b);
/* A path's last part. */
const char *cli_file_name(const char *path);
/* Columns of the terminal (COLUMNS, or what `fd` says), `otherwise` where there is none. */
int cli_columns(int fd, int otherwise);
#endif
