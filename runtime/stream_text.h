/* The text of a response as it grows: whole characters, stop strings, the template's lead. */
#ifndef CMC_RUNTIME_STREAM_TEXT_H
#define CMC_RUNTIME_STREAM_TEXT_H
#include "base/error.h"

typedef struct stream_text {
    char *s; size_t n, cap;      /* everything emitted, NUL-terminated once there is anything */
    const char *lead;            /* left out where the text begins with it */
    size_t head;                 /* its length, once that is known */
    size_t scanned;              /* no stop string begins before this byte */
    char **stop; size_t *stop_n; size_t n_stop, stop_max;
    bool done;
    size_t end;                  /* where the text ends once it is done */
} stream_text;

cmc_status stream_text_init(stream_text *t, const char *lead, const char *const *stop, size_t n_stop, cmc_error *err);
void stream_text_free(stream_text *t);
/* Appends bytes; *stopped where a stop string is complete: the text then ends before it. */
cmc_status stream_text_push(stream_text *t, const uint8_t *s, size_t n, bool *stopped, cmc_error *err);
/* No more is coming: all of it counts. */
void stream_text_finish(stream_text *t);
/* What may be shown. */
const char *stream_text_get(const stream_text *t, size_t *n);
#endif
