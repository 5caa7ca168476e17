/* The map of a response's first token, and its first bytes, where host and delta differ in the lead. */
#include "runtime/lead.h"

#include <stdlib.h>
#include <string.h>

#include "base/mem.h"
#include "base/utf8.h"
#include "tokenmap/idmap.h"

/* Text tokens by their bytes; a normal token comes before a user-defined one. */
static bool index_text(const cmc_vocab *v, idmap *ix) {
    if (!idmap_init(ix, (size_t)v->n, v->bytes, v->byte_off)) return false;
    static const uint8_t ORDER[] = {CMC_KIND_NORMAL, CMC_KIND_USER};
    for (int k = 0; k < 2; k++) {
        for (int32_t i = 0; i < v->n; i++) {
            if (v->kind[i] == ORDER[k] && v->byte_off[i] < v->byte_off[i + 1]) idmap_add(ix, i);
        }
    }
    return true;
}

/* The longest token that is or begins s[0..n), no shorter one cutting a character; -1 where there is none. */
static int32_t longest_prefix(const idmap *ix, const uint8_t *s, size_t n) {
    for (size_t k = n; k > 0; k--) {
        int32_t id = idmap_find(ix, s, k);
        if (id >= 0 && (k == n || cmc_utf8_whole(s, k) == k)) return id;
    }
    return -1;
}

/* The delta token that is to be looked at in the place of `id`, whose bytes are the host's. */
static int32_t first_token(const cmc_vocab *v, const idmap *ix, int32_t id, const char *host_lead,
                           const char *delta_lead, uint8_t *buf) {
    size_t n, lead = strlen(delta_lead), drop = strlen(host_lead);
    const uint8_t *s = cmc_vocab_bytes(v, id, &n);
    if (n == 0) return id;                                            /* a control token ends the response as ever */
    if (drop > 0) {
        if (n <= drop || memcmp(s, host_lead, drop) != 0)
            return id; /* the host leaves its lead out, or says it alone */
        s += drop;
        n -= drop;
    }
    memcpy(buf, delta_lead, lead);
    memcpy(buf + lead, s, n);
    int32_t to = longest_prefix(ix, buf, lead + n);
    return to >= 0 ? to : id;
}

static size_t longest_token(const cmc_vocab *v) {
    size_t top = 0;
    for (int32_t i = 0; i < v->n; i++) {
        size_t n = v->byte_off[i + 1] - v->byte_off[i];
        if (n > top) top = n;
    }
    return top;
}

cmc_status lead_map_new(const cmc_map *m, const cmc_vocab *delta, const char *host_lead, const char *delta_lead,
                        cmc_map **out, cmc_error *err) {
    *out = NULL;
    if (strcmp(host_lead, delta_lead) == 0) return CMC_OK;
    idmap ix = {0};
    cmc_map *map = NULL;
    uint8_t *buf = cmc_alloc(longest_token(delta) + strlen(delta_lead), 1);
    cmc_status s =
        buf && index_text(delta, &ix) ? CMC_OK : cmc_fail_nomem(err, "the map of first tokens", (size_t)delta->n);
    if (s == CMC_OK) s = map_new(m->n_host, m->n_delta, &map, err);
    for (int32_t i = 0; s == CMC_OK && i < m->n_host; i++) {
        int32_t to = m->to[i];
        if (to >= 0 && to < delta->n) to = first_token(delta, &ix, to, host_lead, delta_lead, buf);
        map_set(map, i, to, (cmc_map_how)m->how[i], m->distance[i]);
    }
    if (s == CMC_OK) map_finish(map);
    idmap_free(&ix);
    free(buf);
    *out = map;
    return s;
}

cmc_status lead_push(retok *rt, const char *host_lead, const char *delta_lead, bool *begun, const uint8_t *s, size_t n,
                     cmc_error *err) {
    if (n == 0) return CMC_OK;
    if (!*begun && strcmp(host_lead, delta_lead) != 0) {
        if (host_lead[0] != '\0' && s[0] == (uint8_t)host_lead[0]) s++, n--;
        CMC_TRY(retok_append(rt, (const uint8_t *)delta_lead, strlen(delta_lead), err));
    }
    *begun = true;
    return n > 0 ? retok_append(rt, s, n, err) : CMC_OK;
}
