/* Messages, standard output, interrupts, and the clock. */
#include "cli/cli.h"

#include <errno.h>
#include <signal.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <time.h>
#include <unistd.h>

/* --------------------------------------------------------------------------------------------------- messages */

static void out_message(const char *before, const char *fmt, va_list ap) {
    char line[1024];
    vsnprintf(line, sizeof line, fmt, ap);
    for (char *p = line; *p; p++) {
        if ((unsigned char)*p < 0x20 || *p == 0x7f)
            *p = '?';
    }
    fprintf(stderr, "cmc: %s%s\n", before, line);
}

int cli_usage(const char *fmt, ...) {
    va_list ap;
    va_start(ap, fmt);
    out_message("", fmt, ap);
    va_end(ap);
    return CLI_USAGE;
}

int cli_failed(const char *fmt, ...) {
    va_list ap;
    va_start(ap, fmt);
    out_message("", fmt, ap);
    va_end(ap);
    return CLI_FAILED;
}

void cli_note(const char *fmt, ...) {
    va_list ap;
    va_start(ap, fmt);
    out_message("note: ", fmt, ap);
    va_end(ap);
}

int cli_no_memory(void) {
    return cli_failed("memory ran out");
}

int cli_error(const char *where, const cmc_error *err) {
    if (where)
        cli_failed("%s: %s", where, err->message);
    else
        cli_failed("%s", err->message);
    return err->status == CMC_E_ARG ? CLI_USAGE : CLI_FAILED;
}

/* --------------------------------------------------------------------------------------------- standard output */

static bool out_failed;   /* a write error was reported: stdio's error flag stays set, whoever wrote */

static int out_check(bool ok) {
    if (ok && !ferror(stdout))
        return CLI_OK;
    if (!out_failed)
        cli_failed("standard output: %s", errno ? strerror(errno) : "the write failed");
    out_failed = true;
    return CLI_FAILED;
}

int out_bytes(const char *s, size_t n) {
    errno = 0;
    return out_check(n == 0 || fwrite(s, 1, n, stdout) == n);
}

int out_printf(const char *fmt, ...) {
    va_list ap;
    va_start(ap, fmt);
    errno = 0;
    int n = vprintf(fmt, ap);
    va_end(ap);
    return out_check(n >= 0);
}

int out_flush(void) {
    errno = 0;
    return out_check(fflush(stdout) == 0);
}

/* -------------------------------------------------------------------------------------------------- interrupts */

static volatile sig_atomic_t out_interrupted;   /* a signal handler can reach nothing else */
static double out_interrupted_at;               /* only the handler uses it */

/* The first signal is a wish. A second one ends the program, but not where it comes at once: timeout(1) and other
 * wrappers send one to the process and one to its group. */
static void out_on_interrupt(int sig) {
    double now = cli_now();
    if (!out_interrupted) {
        out_interrupted_at = now;
        out_interrupted = 1;
    } else if (now - out_interrupted_at > 0.3) {
        signal(sig, SIG_DFL);
        raise(sig);
    }
}

void cli_catch_interrupt(void) {
    struct sigaction sa;
    memset(&sa, 0, sizeof sa);
    sa.sa_handler = out_on_interrupt;
    sa.sa_flags = SA_RESTART;
    sigemptyset(&sa.sa_mask);
    sigaddset(&sa.sa_mask, SIGINT);
    sigaddset(&sa.sa_mask, SIGTERM);
    static const int signals[] = {SIGINT, SIGTERM};
    for (size_t i = 0; i < sizeof signals / sizeof *signals; i++) {
        struct sigaction was;
        if (sigaction(signals[i], NULL, &was) == 0 && was.sa_handler != SIG_IGN)   /* nohup's wish stands */
            sigaction(signals[i], &sa, NULL);
    }
}

bool cli_interrupted(void) {
    return out_interrupted != 0;
}

/* ------------------------------------------------------------------------------------------------------ system */

double cli_now(void) {
    struct timespec ts;
    clock_gettime(CLOCK_MONOTONIC, &ts);
    return (double)ts.tv_sec + 1e-9 * (double)ts.tv_nsec;
}

int cli_columns(int fd, int otherwise) {
    const char *s = getenv("COLUMNS");
    struct winsize ws;
    char *end;
    long n = s ? strtol(s, &end, 10) : 0;
    if (n >= 20 && n <= 1000 && *end == '\0')
        return (int)n;
    if (isatty(fd) && ioctl(fd, TIOCGWINSZ, &ws) == 0 && ws.ws_col >= 20)
        return ws.ws_col;
    return otherwise;
}
