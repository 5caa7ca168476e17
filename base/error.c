/* Status and messages, and the library's version. */
#include "base/error.h"
#include "base/utf8.h"

#include <stdarg.h>
#include <stdio.h>
#include <string.h>

const char *cmc_version(void) { return CMC_VERSION; }

/* Parts of a message come from files: keep it one line of whole characters whatever they hold. */
static void clean_message(char *s) {
    for (char *c = s; *c != '\0'; c++) {
        if ((unsigned char)*c < 0x20 || *c == 0x7f) {
            *c = '?';
        }
    }
    s[cmc_utf8_whole((const uint8_t *)s, strlen(s))] = '\0';
}

cmc_status cmc_fail(cmc_error *err, cmc_status status, const char *fmt, ...) {
    if (err == NULL) {
        return status;
    }
    char message[sizeof err->message]; /* apart: the old message may be an argument of the new one */
    va_list args;
    va_start(args, fmt);
    int n = vsnprintf(message, sizeof message, fmt, args);
    va_end(args);
    if (n < 0) {
        snprintf(message, sizeof message, "%s", fmt);
    }
    clean_message(message);
    err->status = status;
    memcpy(err->message, message, sizeof message);
    return status;
}

cmc_status cmc_fail_nomem(cmc_error *err, const char *what, size_t bytes) {
    return cmc_fail(err, CMC_E_NOMEM, "out of memory: %s wants %zu bytes", what, bytes);
}
