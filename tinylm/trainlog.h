/* The JSONL log of a run: one object a line, appended; a resumed run drops the lines of steps that it will do again. */
#ifndef CMC_TINYLM_TRAINLOG_H
#define CMC_TINYLM_TRAINLOG_H
#include <stdio.h>

#include "base/error.h"

typedef struct trainlog { FILE *f; char *path; } trainlog;

/* `path` NULL: no log. resume_step >= 0: of the last run in the file, lines of later steps are dropped. Otherwise what
 * is there stays, and a new run begins below it. */
cmc_status trainlog_open(const char *path, int64_t resume_step, trainlog *out, cmc_error *err);
void trainlog_close(trainlog *l);
/* One line: {"event":event,"step":step,name:value,...}; a value that is not finite is null. */
typedef struct trainlog_field { const char *name; double value; } trainlog_field;
cmc_status trainlog_put(trainlog *l, const char *event, int64_t step, const trainlog_field *fields, size_t n,
                        cmc_error *err);
#endif
