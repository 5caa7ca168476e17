/* The rule `default` for host text that is no delta token: the first token of the delta's own tokenisation of it.
 *
 * That is the token which the delta, trained on its tokenizer's output, gives its logit to when this text is due. The nearest by
 * prefix (the paper's) is often another one: of a text's prefixes a tokenizer takes what its merges lead to, not the longest;
 * and of a longer delta token the text is but the beginning. A first token that is a byte, white space alone, or that ends
 * inside a character, begins far too many texts to say anything of this one: then there is none. */
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>

#include "base/error.h"
#include "base/mem.h"
#include "base/pool.h"
#include "tokenmap/map.h"

enum { MANY = 20000, CHUNK = 512 };   /* from MANY texts on every core helps */

typedef struct first_job {
    cmc_map *m;
    const cmc_vocab *host, *delta;
    const int32_t *todo; size_t n;
    atomic_size_t next;
    atomic_int status;
    cmc_error *err;       /* of the worker that failed first */
} first_job;

/* The delta token for host bytes s[0..len) whose tokenisation begins with `id`; -1: it says nothing. */
static int32_t first_fit(const cmc_vocab *delta, int32_t id, const uint8_t *s, size_t len) {
    const uint8_t *t = delta->bytes + delta->byte_off[id];
    size_t k = delta->byte_off[id + 1] - delta->byte_off[id];
    bool text = delta->kind[id] == CMC_KIND_NORMAL || delta->kind[id] == CMC_KIND_USER;
    bool begins = k > 0 && k <= len && memcmp(s, t, k) == 0;
    bool cut = k < len && (s[k] & 0xC0) == 0x80; /* what follows goes on with the same character */
    if (!text || !begins || cut || (map_blank(t, k) && !map_blank(s, len))) {
        return -1;
    }
    return id;
}

static cmc_status first_one(const first_job *j, int32_t id, cmc_ids *ids, cmc_error *err) {
    const uint8_t *s = j->host->bytes + j->host->byte_off[id];
    size_t len = j->host->byte_off[id + 1] - j->host->byte_off[id];
    ids->n = 0;
    cmc_status status = cmc_tokenize(j->delta, (const char *)s, len, CMC_TOK_CONTINUE, ids, err);
    if (status != CMC_OK && status != CMC_E_RANGE) { /* a text that its tokenizer gives up on is not mapped */
        return status;
    }
    int32_t to = status == CMC_OK && ids->n > 0 ? first_fit(j->delta, ids->v[0], s, len) : -1;
    size_t covered = to < 0 ? 0 : j->delta->byte_off[to + 1] - j->delta->byte_off[to];
    map_set(j->m, id, to, CMC_HOW_PREFIX, (int32_t)(len - covered));
    return CMC_OK;
}

static void first_worker(void *arg, int t, int nt) {
    first_job *j = arg;
    cmc_ids ids = {0};
    cmc_error err = {0};
    (void)t;
    (void)nt;
    for (size_t at; atomic_load(&j->status) == CMC_OK && (at = atomic_fetch_add(&j->next, CHUNK)) < j->n;) {
        for (size_t i = at; i < j->n && i < at + CHUNK; i++) {
            cmc_status status = first_one(j, j->todo[i], &ids, &err);
            int none = CMC_OK;
            if (status != CMC_OK) {
                if (atomic_compare_exchange_strong(&j->status, &none, (int)status) && j->err) {
                    *j->err = err;
                }
                break;
            }
        }
    }
    cmc_ids_free(&ids);
}

cmc_status map_fill_first(cmc_map *m, const cmc_vocab *host, const cmc_vocab *delta, const int32_t *todo, size_t n,
                          cmc_error *err) {
    first_job j = {.m = m, .host = host, .delta = delta, .todo = todo, .n = n, .err = err};
    cmc_pool *pool = NULL;
    if (n < MANY || cmc_pool_new(0, &pool, NULL) != CMC_OK) { /* without helpers it only takes longer */
        first_worker(&j, 0, 1);
    } else {
        cmc_pool_run(pool, first_worker, &j);
    }
    cmc_pool_free(pool);
    return (cmc_status)atomic_load(&j.status);
}
