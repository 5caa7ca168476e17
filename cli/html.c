/* HTML pages: escaping, the frame and its style, tables and plots. */
#include "cli/html.h"

#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <wchar.h>

/* ------------------------------------------------------------------------------------------------------- text */

static void html_bytes(html *h, const char *s, size_t n) {
    if (h->bad)
        return;
    if (h->cap - h->n <= n) {
        size_t cap = h->cap ? h->cap : 1 << 16;
        while (cap - h->n <= n && cap < SIZE_MAX / 2)
            cap *= 2;
        char *more = realloc(h->s, cap);
        if (!more) {
            h->bad = true;
            return;
        }
        h->s = more;
        h->cap = cap;
    }
    memcpy(h->s + h->n, s, n);
    h->n += n;
}

void html_raw(html *h, const char *markup) {
    html_bytes(h, markup, strlen(markup));
}

void html_printf(html *h, const char *markup, ...) {
    char *s = NULL;
    va_list args;
    va_start(args, markup);
    int n = vasprintf(&s, markup, args);
    va_end(args);
    if (n < 0) {
        h->bad = true;
        return;
    }
    html_bytes(h, s, (size_t)n);
    free(s);
}

static const char html_bad[] = "\xEF\xBF\xBD";   /* U+FFFD */

static void html_escape(html *h, const char *s, size_t n) {
    for (size_t i = 0; i < n; i++) {
        switch (s[i]) {
        case '&': html_raw(h, "&amp;"); break;
        case '<': html_raw(h, "&lt;"); break;
        case '>': html_raw(h, "&gt;"); break;
        case '"': html_raw(h, "&quot;"); break;
        case '\'': html_raw(h, "&#39;"); break;
        default:
            if ((unsigned char)s[i] < 0x20 || s[i] == 0x7F)
                html_raw(h, html_bad);
            else
                html_bytes(h, s + i, 1);
        }
    }
}

size_t html_next(const char *s, size_t n, wint_t *c) {
    mbstate_t state = {0};
    wchar_t wide;
    size_t len = mbrtowc(&wide, s, n, &state);
    bool good = len <= n && !(wide >= 0xD800 && wide < 0xE000) && wide <= 0x10FFFF;
    *c = len == 0 ? 0 : good ? (wint_t)wide : WEOF;
    return good && len ? len : 1;
}

void html_text(html *h, const char *s) {
    html_line(h, s, strlen(s));
}

void html_line(html *h, const char *s, size_t n) {
    size_t len;
    for (size_t i = 0; i < n; i += len) {
        wint_t c;
        len = html_next(s + i, n - i, &c);
        if (c == WEOF)
            html_raw(h, html_bad);
        else if (c == '\n' || c == '\t')
            html_raw(h, " ");
        else
            html_escape(h, s + i, len);
    }
}

/* Characters that show nothing of themselves, or turn what stands about them: spaces beyond ASCII's, controls, formats,
 * tags, private use. */
static bool html_unseen(wint_t c) {
    static const wint_t ranges[][2] = {
        {0x00, 0x20}, {0x7F, 0xA0}, {0xAD, 0xAD}, {0x34F, 0x34F}, {0x61C, 0x61C}, {0x115F, 0x1160}, {0x1680, 0x1680},
        {0x180B, 0x180F}, {0x2000, 0x200F}, {0x2028, 0x202F}, {0x205F, 0x206F}, {0x3000, 0x3000}, {0x3164, 0x3164},
        {0xE000, 0xF8FF}, {0xFE00, 0xFE0F}, {0xFEFF, 0xFEFF}, {0xFFF0, 0xFFFB}, {0xE0000, 0x10FFFF}};
    for (size_t i = 0; i < sizeof ranges / sizeof *ranges; i++) {
        if (c >= ranges[i][0] && c <= ranges[i][1])
            return true;
    }
    return false;
}

/* A sign for what shows nothing: in a box that says what it is, or as plain text. */
static void html_sign(html *h, bool boxed, const char *sign, const char *what) {
    if (boxed)
        html_printf(h, "<span class=\"sign\" title=\"%s\">%s</span>", what, sign);
    else
        html_raw(h, sign);
}

/* c: WEOF for the byte alone. */
static void html_unseen_char(html *h, bool boxed, wint_t c, uint8_t byte) {
    char code[24];
    switch (c) {
    case ' ': html_sign(h, boxed, "\xE2\x90\xA3", "space"); break;         /* U+2423 */
    case '\n': html_sign(h, boxed, "\\n", "line feed"); break;
    case '\r': html_sign(h, boxed, "\\r", "carriage return"); break;
    case '\t': html_sign(h, boxed, "\\t", "tab"); break;
    case WEOF:
        snprintf(code, sizeof code, boxed ? "%02X" : "&lt;%02X&gt;", byte);
        html_sign(h, boxed, code, "a byte that is no whole character");
        break;
    default:
        snprintf(code, sizeof code, boxed ? "U+%04X" : "&lt;U+%04X&gt;", (unsigned)c);
        html_sign(h, boxed, code, "a character that shows nothing of itself");
    }
}

static void html_signs(html *h, const char *s, size_t n, bool boxed) {
    size_t len;
    for (size_t i = 0; i < n; i += len) {
        wint_t c;
        len = html_next(s + i, n - i, &c);
        if (c == WEOF || html_unseen(c)) {
            html_unseen_char(h, boxed, c, (uint8_t)s[i]);
        } else {
            if (wcwidth((wchar_t)c) == 0 && i == 0)   /* a mark needs something to stand on */
                html_raw(h, "\xE2\x97\x8C");
            html_escape(h, s + i, len);
        }
    }
}

void html_token(html *h, const uint8_t *bytes, size_t n) {
    html_raw(h, "<code><bdi>");
    html_signs(h, (const char *)bytes, n, true);
    html_raw(h, n ? "</bdi></code>" : "</bdi></code><span class=\"sign\">no bytes</span>");
}

void html_token_text(html *h, const uint8_t *bytes, size_t n) {
    html_signs(h, (const char *)bytes, n, false);
}

bool html_shows(const char *s, size_t n) {
    wint_t c;
    for (size_t i = 0; i < n;) {
        i += html_next(s + i, n - i, &c);
        if (c != WEOF && !html_unseen(c))
            return true;
    }
    return false;
}

/* White space that parts words and lines, and what joins and varies emoji. */
static bool html_runs(wint_t c) {
    return c == ' ' || c == '\n' || c == '\t' || c == 0xA0 || c == 0x3000 || c == 0x200D || (c >= 0xFE00 && c <= 0xFE0F);
}

void html_running(html *h, const char *s, size_t n) {
    size_t len;
    for (size_t i = 0; i < n; i += len) {
        wint_t c;
        len = html_next(s + i, n - i, &c);
        if (c == WEOF || (html_unseen(c) && !html_runs(c)))
            html_unseen_char(h, true, c, (uint8_t)s[i]);
        else if (c == '\n' || c == '\t')
            html_bytes(h, s + i, 1);
        else
            html_escape(h, s + i, len);
    }
}

void html_count(html *h, int64_t n) {
    char digits[24];
    int len = snprintf(digits, sizeof digits, "%" PRId64, n);
    for (int i = 0; i < len; i++) {
        if (i && (len - i) % 3 == 0 && digits[i - 1] != '-')
            html_raw(h, ",");
        html_bytes(h, digits + i, 1);
    }
}

/* ------------------------------------------------------------------------------------------------------ frame */

/* Colours: six tones that the colour-blind can tell apart, on paper and on a dark screen. */
static const char html_style[] =
    ":root{color-scheme:light dark;--paper:#fff;--ink:#1b1f24;--soft:#5b6470;--line:#d5dae0;--band:#f3f5f7;"
    "--t1:#0b7a5c;--t2:#4aa3d8;--t3:#1f5fa8;--t4:#e09a1a;--t5:#b0569b;--t6:#9aa1aa;"
    "--good:#0b7a5c;--fair:#8a5a00;--poor:#b3261e}\n"
    "@media (prefers-color-scheme:dark){:root{--paper:#14171a;--ink:#e6e9ec;--soft:#a2abb5;--line:#363c43;"
    "--band:#1d2125;--t1:#3cc39a;--t2:#7cc4ee;--t3:#5b94e0;--t4:#f0b44c;--t5:#d88bc5;--t6:#707983;"
    "--good:#4fd1a9;--fair:#f0b44c;--poor:#ff8a80}}\n"
    "body{margin:0;background:var(--paper);color:var(--ink);font:16px/1.5 system-ui,sans-serif}\n"
    "main{max-width:64rem;margin:0 auto;padding:1.5rem 1rem 4rem}\n"
    "h1{font-size:1.5rem;line-height:1.25;margin:0 0 1rem;overflow-wrap:anywhere}\n"
    "h2{font-size:1.15rem;margin:2.5rem 0 .5rem}\n"
    "p{margin:.5rem 0;max-width:46rem}.soft{color:var(--soft)}\n"
    ".verdict{border-left:.4rem solid;padding:.5rem 1rem;background:var(--band);max-width:none}\n"
    ".verdict strong{font-size:1.15rem}\n"
    ".good{border-color:var(--good)}.good strong{color:var(--good)}.fair{border-color:var(--fair)}"
    ".fair strong{color:var(--fair)}.poor{border-color:var(--poor)}.poor strong{color:var(--poor)}\n"
    ".scroll{overflow-x:auto;margin:.75rem 0}.scroll:focus-visible{outline:2px solid var(--t2)}\n"
    "table{border-collapse:collapse;font-variant-numeric:tabular-nums}\n"
    "caption{text-align:left;color:var(--soft);padding:.25rem 0;white-space:nowrap}\n"
    "th,td{padding:.25rem .75rem .25rem 0;border-bottom:1px solid var(--line);text-align:left;vertical-align:top}\n"
    "th{font-weight:600}thead th,tbody th,.n{white-space:nowrap}.n{text-align:right}tbody th{font-weight:400}\n"
    "code{font:.92em/1.4 ui-monospace,monospace;background:var(--band);padding:.05em .3em;border-radius:3px;"
    "overflow-wrap:anywhere;white-space:pre-wrap}\n"
    ".sign{color:var(--soft);font-size:.85em;border:1px solid var(--line);border-radius:3px;padding:0 .15em;"
    "margin:0 .05em}\n"
    "svg{display:block;max-width:100%}svg text{fill:var(--ink);font:12px system-ui,sans-serif}"
    "svg .axis{stroke:var(--line)}.bar{width:100%;height:1.5rem;border-radius:3px}\n"
    "td .bar{width:12rem;height:1rem;margin-top:.25rem}\n"
    ".swatch{display:inline-block;width:.8em;height:.8em;border-radius:2px;margin-right:.4em}\n"
    ".b1{background:var(--t1)}.b2{background:var(--t2)}.b3{background:var(--t3)}.b4{background:var(--t4)}"
    ".b5{background:var(--t5)}.b6{background:var(--t6)}\n"
    ".f1{fill:var(--t1)}.f2{fill:var(--t2)}.f3{fill:var(--t3)}.f4{fill:var(--t4)}.f5{fill:var(--t5)}"
    ".f6{fill:var(--t6)}\n"
    "@media print{.swatch,.bar,svg{print-color-adjust:exact}}\n";

static void html_head(html *h, const char *title, const char *const *styles, int seconds) {
    html_raw(h, "<!DOCTYPE html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n"
                "<meta name=\"viewport\" content=\"width=device-width,initial-scale=1\">\n");
    if (seconds)
        html_printf(h, "<meta http-equiv=\"refresh\" content=\"%d\">\n", seconds);
    html_raw(h, "<title>");
    html_text(h, title);
    html_raw(h, "</title>\n<style>\n");
    html_raw(h, html_style);
    for (; styles && *styles; styles++)
        html_raw(h, *styles);
    html_raw(h, "</style>\n</head>\n<body>\n<main>\n<h1>");
    html_text(h, title);
    html_raw(h, "</h1>\n");
}

void html_begin(html *h, const char *title) {
    html_head(h, title, NULL, 0);
}

void html_begin_live(html *h, const char *title, int seconds) {
    html_head(h, title, NULL, seconds);
}

void html_begin_styled(html *h, const char *title, const char *const *styles) {
    html_head(h, title, styles, 0);
}

void html_end(html *h) {
    html_printf(h, "<p class=\"soft\">Written by cmc %s.</p>\n</main>\n</body>\n</html>\n", cmc_version());
}

int html_write(html *h, const char *path) {
    int rc = h->bad ? cli_no_memory() : cli_write_file(path, h->s, h->n);
    free(h->s);
    memset(h, 0, sizeof *h);
    return rc;
}

/* ------------------------------------------------------------------------------------------------------ plots */

void html_swatch(html *h, int tone) {
    html_printf(h, "<span class=\"swatch b%d\" aria-hidden=\"true\"></span>", tone);
}

static double html_sum(const html_part *part, size_t n) {
    double sum = 0;
    for (size_t i = 0; i < n; i++)
        sum += part[i].value;
    return sum;
}

void html_bar(html *h, const char *what, const html_part *part, size_t n) {
    double sum = html_sum(part, n), x = 0;
    if (!(sum > 0))
        return;
    html_raw(h, "<svg class=\"bar\" viewBox=\"0 0 1000 10\" preserveAspectRatio=\"none\" role=\"img\" aria-label=\"");
    html_text(h, what);
    html_raw(h, "\">");
    for (size_t i = 0; i < n; i++) {
        double width = 1000 * part[i].value / sum;
        if (!(width > 0))
            continue;
        html_printf(h, "<rect class=\"f%d\" x=\"%.3f\" width=\"%.3f\" height=\"10\"><title>", part[i].tone, x, width);
        html_text(h, part[i].label);
        html_printf(h, ": %.2f %%</title></rect>", 100 * part[i].value / sum);
        x += width;
    }
    html_raw(h, "</svg>\n");
}

void html_columns(html *h, const char *what, const html_part *part, size_t n, double total) {
    enum { STEP = 76, HEIGHT = 140, TOP = 20, FOOT = 24 };
    double most = 0;
    for (size_t i = 0; i < n; i++)
        most = part[i].value > most ? part[i].value : most;
    if (!(most > 0) || !(total > 0))
        return;
    html_printf(h, "<svg width=\"%zu\" viewBox=\"0 0 %zu %d\" role=\"img\" aria-label=\"", n * STEP, n * STEP,
                TOP + HEIGHT + FOOT);
    html_text(h, what);
    html_raw(h, "\">");
    for (size_t i = 0; i < n; i++) {
        double height = HEIGHT * part[i].value / most, middle = STEP * ((double)i + 0.5);
        html_printf(h, "<rect class=\"f%d\" x=\"%.1f\" y=\"%.2f\" width=\"%d\" height=\"%.2f\"/>", part[i].tone,
                    middle - STEP * 0.36, TOP + HEIGHT - height, (int)(STEP * 0.72), height);
        html_printf(h, "<text x=\"%.1f\" y=\"%.2f\" text-anchor=\"middle\">%.1f %%</text>", middle,
                    TOP + HEIGHT - height - 5, 100 * part[i].value / total);
        html_printf(h, "<text x=\"%.1f\" y=\"%d\" text-anchor=\"middle\">", middle, TOP + HEIGHT + 16);
        html_text(h, part[i].label);
        html_raw(h, "</text>");
    }
    html_printf(h, "<line class=\"axis\" x1=\"0\" x2=\"%zu\" y1=\"%d\" y2=\"%d\"/></svg>\n", n * STEP, TOP + HEIGHT,
                TOP + HEIGHT);
}

/* ----------------------------------------------------------------------------------------------------- tables */

void html_table_begin(html *h, const char *caption, const char *head) {
    html_raw(h, "<div class=\"scroll\" tabindex=\"0\" role=\"region\" aria-label=\"");
    html_text(h, caption);
    html_raw(h, "\"><table><caption>");
    html_text(h, caption);
    html_raw(h, "</caption>\n<thead><tr>");
    for (const char *c = head; *c;) {
        size_t n = strcspn(c, "|");
        bool number = *c == '#';
        html_raw(h, number ? "<th scope=\"col\" class=\"n\">" : "<th scope=\"col\">");
        html_escape(h, c + number, n - number);
        html_raw(h, "</th>");
        c += n + (c[n] == '|');
    }
    html_raw(h, "</tr></thead>\n<tbody>\n");
}

void html_table_end(html *h) {
    html_raw(h, "</tbody></table></div>\n");
}

void html_cell(html *h, int64_t n) {
    html_raw(h, "<td class=\"n\">");
    html_count(h, n);
    html_raw(h, "</td>");
}

void html_cell_share(html *h, double part, double total) {
    if (total > 0)
        html_printf(h, "<td class=\"n\">%.2f %%</td>", 100 * part / total);
    else
        html_raw(h, "<td class=\"n\">\xE2\x80\x93</td>");
}
