/* HTML pages that stand on their own: a frame with its style (light and dark), escaped text, tokens made visible, and
 * plots as inline SVG. No scripts, nothing loaded. */
#ifndef CMC_CLI_HTML_H
#define CMC_CLI_HTML_H
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <wchar.h>

#include "cli/cli.h"

/* A page being built. Memory that runs out marks it bad; the functions below then do nothing more, and html_write
 * fails. */
typedef struct html { char *s; size_t n, cap; bool bad; } html;

void html_begin(html *h, const char *title);       /* up to and with the heading, in `main` */
void html_begin_live(html *h, const char *title, int seconds);   /* a page that a browser loads anew so often */
void html_begin_styled(html *h, const char *title, const char *const *styles);   /* with rules of its own, up to a NULL */
void html_end(html *h);
void html_raw(html *h, const char *markup);
void html_printf(html *h, const char *markup, ...) CLI_PRINTF(2, 3);   /* arguments are not escaped: numbers, classes */
void html_text(html *h, const char *s);            /* escaped, on one line: for attributes too */
void html_line(html *h, const char *s, size_t n);  /* the same */
/* Escaped text of several lines, for white-space: pre-wrap; bytes of no character, control characters and the like as signs. */
void html_running(html *h, const char *s, size_t n);
/* A token's bytes as <code>: white space and control characters shown by signs, bytes of no character in hex. */
void html_token(html *h, const uint8_t *s, size_t n);
void html_token_text(html *h, const uint8_t *s, size_t n);   /* the same without markup */
/* Whether any character of it can be seen. */
bool html_shows(const char *s, size_t n);
/* The character at s[0..n), n > 0: its length; *c: WEOF where the byte is part of none. */
size_t html_next(const char *s, size_t n, wint_t *c);
void html_count(html *h, int64_t n);               /* digits in threes */
/* Writes it, whole or not at all, and frees it; gives the exit status. */
int html_write(html *h, const char *path);

/* One part of a bar or one column of a plot. `tone` is a colour, 1 to HTML_TONES: the same thing has the same one all
 * over a page. */
enum { HTML_TONES = 6 };
typedef struct html_part { const char *label; double value; int tone; } html_part;

/* A bar of parts side by side that fills its box; `what` is what is read out for it. Nothing where all are 0. */
void html_bar(html *h, const char *what, const html_part *part, size_t n);
/* A small square of a tone, for legends. */
void html_swatch(html *h, int tone);
/* Columns over their labels, each with its value in per cent of `total`. */
void html_columns(html *h, const char *what, const html_part *part, size_t n, double total);

/* A table that can be scrolled from the keyboard: the caller adds rows and cells. `head` names the columns, parted by
 * '|'; one that begins with '#' holds numbers. */
void html_table_begin(html *h, const char *caption, const char *head);
void html_table_end(html *h);
void html_cell(html *h, int64_t n);                /* a number's cell */
void html_cell_share(html *h, double part, double total);   /* in per cent; a dash where there is no total */
#endif
