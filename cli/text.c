/* Text for people, on top of the C library's UTF-8 (main sets the locale to C.UTF-8). */
#include "cli/text.h"
#include "cli/cli.h"

#include <stdlib.h>
#include <string.h>
#include <wchar.h>

static const char text_bad[] = "\xEF\xBF\xBD";   /* U+FFFD */

size_t text_next(const char *s, size_t n, int *width) {
    mbstate_t state = {0};
    wchar_t c;
    size_t len = mbrtowc(&c, s, n, &state);
    if (len == 0) {           /* NUL */
        *width = -1;
        return 1;
    }
    if (len == (size_t)-1 || len == (size_t)-2) {
        *width = -1;
        return 1;
    }
    *width = wcwidth(c);
    return len;
}

bool text_valid(const char *s, size_t n) {
    for (size_t i = 0; i < n;) {
        mbstate_t state = {0};
        wchar_t c;
        size_t len = mbrtowc(&c, s + i, n - i, &state);
        if (len == (size_t)-1 || len == (size_t)-2 || c > 0x10FFFF || (c >= 0xD800 && c < 0xE000))
            return false;
        i += len ? len : 1;
    }
    return true;
}

char *text_clean(const char *s, size_t n, size_t *len) {
    char *out = n < SIZE_MAX / 4 ? malloc(3 * n + 1) : NULL;
    size_t w = 0;
    if (!out)
        return NULL;
    for (size_t i = 0; i < n;) {
        int width;
        size_t k = text_next(s + i, n - i, &width);
        bool good = text_valid(s + i, k);
        memcpy(out + w, good ? s + i : text_bad, good ? k : 3);
        w += good ? k : 3;
        i += k;
    }
    out[w] = '\0';
    *len = w;
    return out;
}

int text_width(const char *s, size_t n) {
    int columns = 0;
    for (size_t i = 0; i < n;) {
        int width;
        i += text_next(s + i, n - i, &width);
        columns += width < 0 ? 1 : width;
    }
    return columns;
}

size_t text_wrap(const char *s, size_t n, int width, size_t *from) {
    size_t i = *from, last_space = 0;
    int columns = 0;
    bool space = false;
    while (i < n && s[i] != '\n') {
        int w;
        size_t len = text_next(s + i, n - i, &w);
        w = w < 0 ? 1 : w;
        if (s[i] == ' ') {        /* a line may end here, even where the space itself is beyond the edge */
            space = true;
            last_space = i;
        }
        if (columns + w > width && i > *from) {
            size_t end = space ? last_space : i;
            *from = space ? last_space + 1 : i;
            return end;
        }
        columns += w;
        i += len;
    }
    *from = i < n ? i + 1 : n;
    return i;
}

int text_put(const char *s, size_t n, int width, bool cut) {
    int columns = 0, rc = CLI_OK;
    for (size_t i = 0; i < n && rc == CLI_OK;) {
        int w;
        size_t len = text_next(s + i, n - i, &w);
        int shown = w < 0 ? 1 : w;
        if (cut && columns + shown > width)
            break;
        if (w >= 0)
            rc = out_bytes(s + i, len);
        else
            rc = s[i] == '\t' || s[i] == '\n' ? out_bytes(" ", 1) : out_bytes(text_bad, 3);
        columns += shown;
        i += len;
    }
    while (columns++ < width && rc == CLI_OK)
        rc = out_bytes(" ", 1);
    return rc;
}

int text_quote(const char *s, size_t n, int *columns) {
    int rc = out_bytes("\"", 1);
    *columns = 2;
    for (size_t i = 0; i < n && rc == CLI_OK;) {
        char code[8] = "";
        int w;
        size_t len = text_next(s + i, n - i, &w);
        if (s[i] == '"' || s[i] == '\\')
            snprintf(code, sizeof code, "\\%c", s[i]);
        else if (s[i] == '\n')
            strcpy(code, "\\n");
        else if (s[i] == '\t')
            strcpy(code, "\\t");
        else if (s[i] == '\r')
            strcpy(code, "\\r");
        else if (w < 0 && len == 1)
            snprintf(code, sizeof code, "\\x%02x", (unsigned)(unsigned char)s[i]);
        if (code[0])
            rc = out_bytes(code, strlen(code));
        else
            rc = w < 0 ? out_bytes(text_bad, 3) : out_bytes(s + i, len);
        *columns += code[0] ? (int)strlen(code) : w < 0 ? 1 : w;
        i += len;
    }
    return rc ? rc : out_bytes("\"", 1);
}
