/* What the tests of whole training runs share: a tiny host, data, options, and a callback that stops a run. */
#ifndef CMC_TESTS_TRAIN_RIG_H
#define CMC_TESTS_TRAIN_RIG_H
#include "base/file.h"
#include "tinylm/train.h"

enum { RIG_RECORDS = 48, RIG_STEPS = 24 };

/* Paths are the rig's; `cache` is its folder. */
typedef struct rig {
    char *dir, *host, *data, *out, *ckpt, *cache, *log;
    const char *paths[1], *hosts[1];
    cmc_runtime *rt;
} rig;

void rig_open(rig *r, int threads, bool exact);
void rig_close(rig *r);
/* r's folder with a name behind it; the caller's to free. */
char *rig_path(const rig *r, const char *name);
/* Writes n questions and answers about `what`, some of them conversations: to be forgotten or retained. */
void rig_records(const char *path, const char *what, int n);
cmc_train_opts rig_opts(const rig *r);
/* cmc_train, which must end with `want`; a finished run must leave no checkpoint. */
cmc_train_result rig_run(const rig *r, const cmc_train_opts *o, cmc_train_callback cb, void *user, cmc_status want);

/* Nats a token of a file's records beside the rig's host, under that delta's full strength; by the host alone in *alone, where given. */
double rig_score(const rig *r, const char *delta, const char *data, double *alone);

/* Of the rig's host by itself: some steps of all of it, stored in float32. */
cmc_tune_opts rig_tune_opts(const rig *r);
/* cmc_tune, likewise. */
cmc_train_result rig_tune(const rig *r, const cmc_tune_opts *o, cmc_train_callback cb, void *user, cmc_status want);
/* Stopped after one step, in between and after the last, and resumed: it ends with the bytes of a run that goes through. */
void rig_tune_resumes(const rig *r, cmc_tune_opts o);
/* Within a bound a little below what it takes without: the plan keeps to it, and the result is the same but for rounding. */
void rig_tune_bounded(const rig *r, cmc_tune_opts o);

/* Records of another kind than the rig's: counting. */
void rig_old_data(const char *path);
/* Replay of `olds`, a pull and a mask, all at once. */
void rig_keep_all(cmc_keep_opts *k, const char *const *olds, const char *importance);
enum { RIG_KEEP_OTHERS = 6 };
/* Changes one of them, so that a run's checkpoint must be refused: gives the word that the refusal has. The last is no replay. */
const char *rig_keep_other(cmc_keep_opts *k, int i);
/* Reads what is watched, two files, in the last run of a log: its scores at the start and at the end; gives how many there are. */
size_t rig_watched(const char *log, double first[2], double last[2]);
/* A float32 tensor of a file; the caller frees it. */
float *rig_tensor(const char *path, const char *name, size_t *rows, size_t *width);
/* How far a tensor is from one file to the other; each row's distance where `each` is given. */
double rig_moved(const char *from, const char *to, const char *name, double *each);

cmc_file rig_map(const char *path);
/* The bytes of a file, copied, so that it can be written anew. */
uint8_t *rig_bytes(const char *path, size_t *n);
void rig_assert_same(const char *path, const uint8_t *want, size_t n);

/* As a callback: at the first report of `phase` at or after `step`, stops the run, or kills the process (exit 42). */
typedef struct stopper {
    const char *phase;
    int64_t step;
    bool kill;
} stopper;
bool rig_stop(void *user, const cmc_train_progress *p);
#endif
