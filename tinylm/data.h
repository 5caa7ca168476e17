/* Training data: records rendered for the host and the delta, targets aligned, a part held out. */
#ifndef CMC_TINYLM_DATA_H
#define CMC_TINYLM_DATA_H
#include "runtime/prompt.h"
#include "tinylm/objective.h"

enum { DATA_WATCHED = 8 };   /* files that are watched, at most */

typedef struct data_example {
    size_t record;            /* index into the records */
    data_role role;
    size_t twin;              /* a record to be forgotten: the example with a refusal to it; SIZE_MAX: none */
    long line;
    /* Inputs only: what comes after the last predicting row is dropped. */
    int32_t *host_ids, *delta_ids; size_t n_host, n_delta;
    size_t *seq, n_seqs;      /* the delta's sequences: delta_ids[seq[i] .. seq[i + 1]) */
    int32_t *targets;         /* [n_targets] */
    uint32_t *host_row, *delta_row;   /* [n_targets] position whose state predicts the target; delta_row ascending */
    size_t n_targets;
    size_t first_row;         /* targets of the examples before this one */
    size_t n_aligned, n_prefix, n_left_out;   /* as in the set */
    bool cut;
} data_example;

typedef struct data_set {
    cmc_records records;      /* those to learn or forget, those to retain or to replay, those to watch, refusals to the first; the
                                 last are made here */
    size_t first_retain, first_watch[DATA_WATCHED + 1], first_refusal;
    data_example *v; size_t n;
    size_t *train, n_train;   /* indices of examples that steps go through, in file order */
    size_t *held, n_held;
    size_t *retain, n_retain;
    size_t *watch, watch_at[DATA_WATCHED + 1];   /* of file k that is watched: watch[watch_at[k] .. watch_at[k + 1]) */
    size_t n_targets;         /* of all examples */
    size_t too_long, no_response;    /* records left out */
    size_t n_aligned, n_prefix, n_left_out;   /* targets by how the delta's row comes about; n_left_out are no targets */
    size_t max_delta, max_seq, max_targets;   /* of one example; max_seq of one sequence */
    char hash[40];            /* the records, without those that are watched */
    char all_hash[40];        /* with them */
    char rows_hash[40];       /* the host's rows that are targets, in order, and what the host reads where a response is cut */
    char host_template[32], delta_template[32];
} data_set;

typedef struct data_opts {
    const char *const *paths; size_t n_paths;
    const cmc_vocab *vocab, *delta_vocab;   /* the host's; the delta's where it has another one, else NULL */
    bool prefix_rows;        /* a sequence of its own for a target where the delta's tokens so far do not begin the whole's */
    cmc_template host_template, delta_template;   /* resolved */
    size_t max_len;
    double held_out;
    objective objective;
    const char *const *retain; size_t n_retain;   /* files */
    const char *const *replay; size_t n_replay;   /* with sft: files whose records are to retain as well */
    const char *const *watch; size_t n_watch;
    const char *refusals;    /* a file with one a line; NULL: data_refusal's own */
    uint64_t seed;           /* chooses refusals */
    const uint8_t *only;     /* [records]: which of them to take; NULL: all */
    double cuts;             /* with this chance, a response that is not held out is cut into two texts */
} data_opts;

cmc_status data_open(const data_opts *o, data_set *out, cmc_error *err);
void data_free(data_set *d);
/* Sets rows_hash again, where rows have changed. */
void data_hash_rows(data_set *d);
/* order[n] = list[n] in the order of an epoch, which depends on seed and epoch alone. */
void data_shuffle(const size_t *list, size_t n, uint64_t seed, uint64_t epoch, size_t *order);
/* data_cut.c: whether record `number` is to be cut, and where: at any border of two characters of its responses alike. It
 * depends on seed and number alone. */
bool data_cut_draw(const data_opts *o, const cmc_record *r, size_t number, render_cut *out);
/* data_roles.c: fills d->records by role. */
cmc_status data_read(data_set *d, const data_opts *o, cmc_error *err);
/* A number in [0, 1) from the words of a record's prompt: prompts that differ in case, punctuation, white space or
 * numbers alone get the same one, so that they fall on the same side. */
double data_split_point(const cmc_record *r);
#endif
