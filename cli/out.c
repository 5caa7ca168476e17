/* Messages, standard output, interrupts, the clock, and whole files. */
#include "cli/cli.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/stat.h>
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
    double n;
    if (s && arg_number(s, &n) && n >= 20 && n <= 1000)
        return (int)n;
    if (isatty(fd) && ioctl(fd, TIOCGWINSZ, &ws) == 0 && ws.ws_col >= 20)
        return ws.ws_col;
    return otherwise;
}

static int out_read_stream(FILE *f, const char *shown, char **out, size_t *len) {
    size_t cap = 1 << 16, n = 0;
    char *buf = malloc(cap + 1);
    while (buf) {
        size_t got = fread(buf + n, 1, cap - n, f);
        n += got;
        if (n < cap)
            break;
        char *more = cap < SIZE_MAX / 4 ? realloc(buf, 2 * cap + 1) : NULL;
        if (!more)
            free(buf);
        buf = more;
        cap *= 2;
    }
    if (!buf)
        return cli_no_memory();
    if (ferror(f)) {
        int rc = cli_failed("%s: cannot be read: %s", shown, strerror(errno));
        free(buf);
        return rc;
    }
    buf[n] = '\0';
    *out = buf;
    *len = n;
    return CLI_OK;
}

int cli_read_file(const char *path, char **out, size_t *len) {
    *out = NULL;
    *len = 0;
    if (strcmp(path, "-") == 0)
        return out_read_stream(stdin, "standard input", out, len);
    FILE *f = fopen(path, "rb");
    if (!f)
        return cli_failed("%s: cannot be opened: %s", path, strerror(errno));
    int rc = out_read_stream(f, path, out, len);
    fclose(f);
    return rc;
}

static bool out_write_all(int fd, const char *data, size_t len) {
    while (len > 0) {
        ssize_t n = write(fd, data, len);
        if (n < 0 && errno != EINTR)
            return false;
        data += n > 0 ? n : 0;
        len -= n > 0 ? (size_t)n : 0;
    }
    return true;
}

/* A file that is written: itself where it is no regular file (a pipe, a terminal), else a new one beside it, which takes its place. */
typedef struct out_file {
    char *path, *beside;   /* beside NULL: itself */
    int fd;                /* -1: it cannot be, errno says why */
} out_file;

static void out_file_free(out_file *f) {
    free(f->path);
    free(f->beside);
}

/* Whether there is memory; the rest is in out->fd. A link stays one, and what it names has the mode that it had. */
static bool out_file_open(const char *path, out_file *out) {
    struct stat st;
    bool exists = stat(path, &st) == 0;
    *out = (out_file){.path = exists ? realpath(path, NULL) : strdup(path), .fd = -1};
    if (!out->path)
        return false;
    if (!*path || path[strlen(path) - 1] == '/') {
        errno = *path ? EISDIR : ENOENT;
        return true;
    }
    if (exists && !S_ISREG(st.st_mode)) {
        out->fd = open(path, O_WRONLY | O_CLOEXEC);   /* of a folder the reason why not */
        return true;
    }
    if (exists && access(path, W_OK) != 0)   /* a new one would take its place all the same */
        return true;
    if (asprintf(&out->beside, "%s.tmp.%ld", out->path, (long)getpid()) < 0) {
        out->beside = NULL;
        return false;
    }
    out->fd = open(out->beside, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0666);
    if (out->fd >= 0 && exists && fchmod(out->fd, st.st_mode & 07777) != 0) {
        int why = errno;
        close(out->fd);
        unlink(out->beside);
        out->fd = -1;
        errno = why;
    }
    return true;
}

int cli_check_write(const char *path) {
    struct stat st;
    out_file f;
    if (stat(path, &st) == 0 && !S_ISREG(st.st_mode) && !S_ISDIR(st.st_mode))
        return CLI_OK;   /* opening a pipe waits for its reader */
    if (!out_file_open(path, &f)) {
        out_file_free(&f);
        return cli_no_memory();
    }
    int rc = f.fd >= 0 ? CLI_OK : cli_failed("%s: cannot be written: %s", path, strerror(errno));
    if (f.fd >= 0)
        close(f.fd);
    if (f.fd >= 0 && f.beside)
        unlink(f.beside);
    out_file_free(&f);
    return rc;
}

/* The folder that a path is in. */
static bool out_folder(const char *path, struct stat *st) {
    const size_t n = (size_t)(cli_file_name(path) - path);
    char *folder = n ? strndup(path, n) : strdup(".");
    bool ok = folder && stat(folder, st) == 0;
    free(folder);
    return ok;
}

bool cli_same_file(const char *a, const char *b) {
    struct stat x, y;
    if (strcmp(a, b) == 0)
        return true;
    if (stat(a, &x) == 0 && stat(b, &y) == 0)
        return x.st_dev == y.st_dev && x.st_ino == y.st_ino;
    return strcmp(cli_file_name(a), cli_file_name(b)) == 0 && out_folder(a, &x) && out_folder(b, &y) && x.st_dev == y.st_dev &&
           x.st_ino == y.st_ino;   /* neither is there yet, but both would be in one folder */
}

const char *cli_file_name(const char *path) {
    const char *slash = strrchr(path, '/');
    return slash && slash[1] ? slash + 1 : path;
}

int cli_write_file(const char *path, const char *data, size_t len) {
    out_file f;
    if (!out_file_open(path, &f)) {
        out_file_free(&f);
        return cli_no_memory();
    }
    bool ok = f.fd >= 0 && out_write_all(f.fd, data, len) && (!f.beside || fsync(f.fd) == 0);
    int why = errno;
    if (f.fd >= 0 && close(f.fd) != 0 && ok) {
        ok = false;
        why = errno;
    }
    if (ok && f.beside && rename(f.beside, f.path) != 0) {
        ok = false;
        why = errno;
    }
    if (!ok && f.fd >= 0 && f.beside)
        unlink(f.beside);
    out_file_free(&f);
    return ok ? CLI_OK : cli_failed("%s: cannot be written: %s", path, strerror(why));
}
