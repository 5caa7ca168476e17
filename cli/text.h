/* Text for people: UTF-8 checks, widths on a terminal, wrapping, quoting. */
#ifndef CMC_CLI_TEXT_H
#define CMC_CLI_TEXT_H
#include <stdbool.h>
#include <stddef.h>

/* The character at s[0..n), n > 0: its length, and its width in columns (-1: not printable, or no UTF-8). */
size_t text_next(const char *s, size_t n, int *width);
bool text_valid(const char *s, size_t n);
/* A copy in which what is not UTF-8 is U+FFFD. */
char *text_clean(const char *s, size_t n, size_t *len);
/* Columns that text_put needs for it. */
int text_width(const char *s, size_t n);

/* One line of wrapped text: bytes [*from, result) belong on a line of `width` columns; *from moves past them, and past
 * the space or newline that ended the line. */
size_t text_wrap(const char *s, size_t n, int width, size_t *from);
/* Writes s to standard output on one line, not printable characters as U+FFFD, tabs as a space, and pads it with spaces
 * to `width` columns; more than `width` is cut where `cut`. */
int text_put(const char *s, size_t n, int width, bool cut);
/* Writes "s" quoted: control characters as \n, \t or \x1b; bytes that are no UTF-8 as \x.. . *columns: its width. */
int text_quote(const char *s, size_t n, int *columns);
#endif
