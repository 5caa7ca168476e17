/* Whole files: reading, writing in one piece, and which of them are the same. */
#include "cli/cli.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

static int file_read_stream(FILE *f, const char *shown, char **out, size_t *len) {
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
        return file_read_stream(stdin, "standard input", out, len);
    FILE *f = fopen(path, "rb");
    if (!f)
        return cli_failed("%s: cannot be opened: %s", path, strerror(errno));
    int rc = file_read_stream(f, path, out, len);
    fclose(f);
    return rc;
}

static bool file_write_all(int fd, const char *data, size_t len) {
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
typedef struct file_out {
    char *path, *beside;   /* beside NULL: itself */
    int fd;                /* -1: it cannot be, errno says why */
} file_out;

static void file_out_free(file_out *f) {
    free(f->path);
    free(f->beside);
}

/* Whether there is memory; the rest is in out->fd. A link stays one, and what it names has the mode that it had. */
static bool file_out_open(const char *path, file_out *out) {
    struct stat st;
    bool exists = stat(path, &st) == 0;
    *out = (file_out){.path = exists ? realpath(path, NULL) : strdup(path), .fd = -1};
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
    file_out f;
    if (stat(path, &st) == 0 && !S_ISREG(st.st_mode) && !S_ISDIR(st.st_mode))
        return CLI_OK;   /* opening a pipe waits for its reader */
    if (!file_out_open(path, &f)) {
        file_out_free(&f);
        return cli_no_memory();
    }
    int rc = f.fd >= 0 ? CLI_OK : cli_failed("%s: cannot be written: %s", path, strerror(errno));
    if (f.fd >= 0)
        close(f.fd);
    if (f.fd >= 0 && f.beside)
        unlink(f.beside);
    file_out_free(&f);
    return rc;
}

/* The folder that a path is in. */
static bool file_folder(const char *path, struct stat *st) {
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
    return strcmp(cli_file_name(a), cli_file_name(b)) == 0 && file_folder(a, &x) && file_folder(b, &y) && x.st_dev == y.st_dev &&
           x.st_ino == y.st_ino;   /* neither is there yet, but both would be in one folder */
}

const char *cli_file_name(const char *path) {
    const char *slash = strrchr(path, '/');
    return slash && slash[1] ? slash + 1 : path;
}

int cli_write_file(const char *path, const char *data, size_t len) {
    file_out f;
    if (!file_out_open(path, &f)) {
        file_out_free(&f);
        return cli_no_memory();
    }
    bool ok = f.fd >= 0 && file_write_all(f.fd, data, len) && (!f.beside || fsync(f.fd) == 0);
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
    file_out_free(&f);
    return ok ? CLI_OK : cli_failed("%s: cannot be written: %s", path, strerror(why));
}
