/* The progress line. */
#include "cli/progress.h"

#include <stdarg.h>
#include <unistd.h>

static const double progress_after = 2.0, progress_every = 0.2;   /* seconds */

void progress_start(progress *p) {
    *p = (progress){.on = isatty(STDERR_FILENO) == 1, .start = cli_now()};
}

void progress_show(progress *p, const char *fmt, ...) {
    char line[256];
    double now;
    if (!p->on || (now = cli_now()) - p->start < progress_after || now - p->last < progress_every)
        return;
    va_list ap;
    va_start(ap, fmt);
    vsnprintf(line, sizeof line, fmt, ap);
    va_end(ap);
    int columns = cli_columns(STDERR_FILENO, 80) - 1;
    fprintf(stderr, "\r%.*s\033[K", columns, line);
    fflush(stderr);
    p->last = now;
    p->shown = true;
}

void progress_clear(progress *p) {
    if (p->shown) {
        fputs("\r\033[K", stderr);
        fflush(stderr);
        p->shown = false;
    }
}

void progress_time(double seconds, char out[16]) {
    if (!(seconds >= 0 && seconds < 360000)) {
        snprintf(out, 16, "?");
        return;
    }
    int s = (int)seconds;
    if (s >= 3600)
        snprintf(out, 16, "%d:%02d:%02d", s / 3600, s / 60 % 60, s % 60);
    else
        snprintf(out, 16, "%d:%02d", s / 60, s % 60);
}
