/* The text of a response as it grows. */
#include "runtime/stream_text.h"

#include <stdlib.h>
#include <string.h>

#include "base/mem.h"
#include "base/utf8.h"

cmc_status stream_text_init(stream_text *t, const char *lead, const char *const *stop, size_t n_stop, cmc_error *err) {
    *t = (stream_text){.lead = lead};
    t->stop = cmc_calloc(n_stop, sizeof *t->stop);
    t->stop_n = cmc_calloc(n_stop, sizeof *t->stop_n);
    bool ok = t->stop && t->stop_n;
    for (size_t i = 0; ok && i < n_stop; i++) {
        size_t n = strlen(stop[i]);
        if (n == 0) {
            stream_text_free(t);
            return cmc_fail(err, CMC_E_ARG, "stop string %zu is empty, expected some text", i + 1);
        }
        t->stop[i] = cmc_strndup(stop[i], n);
        t->stop_n[i] = n;
        ok = t->stop[i] != NULL;
        t->n_stop++;
        if (n > t->stop_max) t->stop_max = n;
    }
    if (ok) return CMC_OK;
    stream_text_free(t);
    return cmc_fail_nomem(err, "the stop strings", n_stop);
}

void stream_text_free(stream_text *t) {
    for (size_t i = 0; i < t->n_stop; i++) free(t->stop[i]);
    free(t->stop);
    free(t->stop_n);
    free(t->s);
    *t = (stream_text){0};
}

/* The first place from `from` on where a stop string stands in full, t->n where there is none. */
static size_t find_stop(const stream_text *t, size_t from) {
    size_t best = t->n;
    for (size_t i = 0; i < t->n_stop; i++) {
        const char *at = from < t->n ? memmem(t->s + from, t->n - from, t->stop[i], t->stop_n[i]) : NULL;
        if (at && (size_t)(at - t->s) < best) best = (size_t)(at - t->s);
    }
    return best;
}

cmc_status stream_text_push(stream_text *t, const uint8_t *s, size_t n, bool *stopped, cmc_error *err) {
    *stopped = false;
    if (n == 0 || t->done) return CMC_OK;
    if (!cmc_grow((void **)&t->s, &t->cap, t->n + n + 1, 1)) return cmc_fail_nomem(err, "a response", t->n + n);
    if (t->n == 0) { /* a lead is one byte long at most: the first bytes settle it */
        size_t lead = strlen(t->lead);
        t->head = lead <= n && memcmp(s, t->lead, lead) == 0 ? lead : 0;
        t->scanned = t->head;
    }
    memcpy(t->s + t->n, s, n);
    t->n += n;
    t->s[t->n] = '\0';
    size_t at = find_stop(t, t->scanned);
    if (at < t->n) {
        t->done = *stopped = true;
        t->end = at;
    } else if (t->stop_max > 0 && t->n + 1 > t->scanned + t->stop_max) {
        t->scanned = t->n + 1 - t->stop_max;
    }
    return CMC_OK;
}

void stream_text_finish(stream_text *t) {
    if (t->done) return;
    t->done = true;
    t->end = t->n;
}

/* How many of the last bytes, at most `max`, may yet turn out to begin a stop string. */
static size_t held_back(const stream_text *t, size_t max) {
    size_t most = t->stop_max > 0 && t->stop_max - 1 < max ? t->stop_max - 1 : t->stop_max > 0 ? max : 0;
    for (size_t k = most; k > 0; k--) {
        for (size_t i = 0; i < t->n_stop; i++) {
            if (k < t->stop_n[i] && memcmp(t->s + t->n - k, t->stop[i], k) == 0) return k;
        }
    }
    return 0;
}

const char *stream_text_get(const stream_text *t, size_t *n) {
    if (t->n == 0) {
        *n = 0;
        return "";
    }
    size_t size = t->n - t->head;
    if (t->done) {
        *n = t->end - t->head;
    } else {
        size_t safe = size - held_back(t, size);
        *n = cmc_utf8_whole((const uint8_t *)t->s + t->head, safe);
    }
    return t->s + t->head;
}
