/* A progress line on standard error: only on a terminal, and only once a run has taken a while. */
#ifndef CMC_CLI_PROGRESS_H
#define CMC_CLI_PROGRESS_H
#include "cli/cli.h"

typedef struct progress {
    bool on;              /* standard error is a terminal */
    bool shown;           /* a line is standing there */
    double start, last;   /* seconds */
} progress;

void progress_start(progress *p);
/* Shows a line in place of the last one, a few times a second at most. */
void progress_show(progress *p, const char *fmt, ...) CLI_PRINTF(2, 3);
/* Takes the line away; to be called before anything else is written to the terminal. */
void progress_clear(progress *p);
/* "1:05" or "2:03:04" into out; "?" for what is not known. */
void progress_time(double seconds, char out[16]);
#endif
