/* From each host token to a delta token, on bytes and roles: the rules `prefix` (PM-MinED, arXiv 2410.17599, section 3.3) and
 * `default`, which differ in host text that is no delta token. docs/token-map.md has the measurements. */
#include "tokenmap/map.h"

#include <stdlib.h>
#include <string.h>

#include "base/error.h"
#include "base/mem.h"
#include "base/utf8.h"
#include "tokenmap/prefix_index.h"

/* ------------------------------------------------------------------------------------------------- the object */

cmc_status map_new(int32_t n_host, int32_t n_delta, cmc_map **out, cmc_error *err) {
    *out = NULL;
    size_t n = (size_t)n_host;
    cmc_map *m = cmc_calloc(1, sizeof *m);
    if (!m) {
        return cmc_fail_nomem(err, "a token map", sizeof *m);
    }
    m->n_host = n_host;
    m->n_delta = n_delta;
    m->to = cmc_alloc_aligned(n, sizeof *m->to);
    m->how = cmc_calloc(n, sizeof *m->how);
    m->distance = cmc_calloc(n, sizeof *m->distance);
    if (!m->to || !m->how || !m->distance) {
        cmc_map_free(m);
        return cmc_fail_nomem(err, "a token map", n * (sizeof *m->to + sizeof *m->how + sizeof *m->distance));
    }
    for (size_t i = 0; i < n; i++) {
        m->to[i] = -1;
    }
    *out = m;
    return CMC_OK;
}

void map_set(cmc_map *m, int32_t host_id, int32_t delta_id, cmc_map_how how, int32_t distance) {
    bool none = delta_id < 0;
    m->to[host_id] = none ? -1 : delta_id;
    m->how[host_id] = (uint8_t)(none ? CMC_HOW_NONE : how);
    m->distance[host_id] = none ? 0 : distance;
}

/* No error where there is no memory for it: it only saves time. */
static void map_shorten(cmc_map *m) {
    free(m->to_short);
    m->to_short = m->n_delta > INT16_MAX || m->identity ? NULL : cmc_alloc_aligned((size_t)m->n_host, sizeof *m->to_short);
    for (int32_t i = 0; m->to_short && i < m->n_host; i++) {
        m->to_short[i] = (int16_t)m->to[i];
    }
}

void map_finish(cmc_map *m) {
    m->identity = m->n_host == m->n_delta;
    m->complete = true;
    for (int32_t i = 0; i < m->n_host; i++) {
        m->identity = m->identity && m->to[i] == i;
        m->complete = m->complete && m->to[i] >= 0;
    }
    map_shorten(m);
}

void cmc_map_free(cmc_map *m) {
    if (!m) {
        return;
    }
    free(m->to);
    free(m->to_short);
    free(m->how);
    free(m->distance);
    free(m);
}

int32_t cmc_map_get(const cmc_map *m, int32_t host_id, cmc_map_how *how, int32_t *distance) {
    bool known = host_id >= 0 && host_id < m->n_host;
    if (how) {
        *how = known ? (cmc_map_how)m->how[host_id] : CMC_HOW_NONE;
    }
    if (distance) {
        *distance = known ? m->distance[host_id] : 0;
    }
    return known ? m->to[host_id] : -1;
}

void cmc_map_counts_get(const cmc_map *m, cmc_map_counts *out) {
    int32_t by_how[CMC_HOW_OVERRIDE + 1] = {0};
    for (int32_t i = 0; i < m->n_host; i++) {
        by_how[m->how[i]]++;
    }
    *out = (cmc_map_counts){
        .n_host = m->n_host,
        .n_delta = m->n_delta,
        .role = by_how[CMC_HOW_ROLE],
        .byte = by_how[CMC_HOW_BYTE],
        .exact = by_how[CMC_HOW_EXACT],
        .prefix = by_how[CMC_HOW_PREFIX],
        .override_ = by_how[CMC_HOW_OVERRIDE],
        .none = by_how[CMC_HOW_NONE],
        .identity = m->identity,
        .seconds = m->seconds,
    };
}

/* -------------------------------------------------------------------------------------------- on bytes and roles */

static const uint8_t *token_bytes(const cmc_vocab *v, int32_t id, size_t *len) {
    *len = v->byte_off[id + 1] - v->byte_off[id];
    return v->bytes + v->byte_off[id];
}

static bool is_text(const cmc_vocab *v, int32_t id) {
    return v->kind[id] == CMC_KIND_NORMAL || v->kind[id] == CMC_KIND_USER;
}

bool map_blank(const uint8_t *s, size_t len) {
    while (len) {
        size_t step;
        if (!cmc_utf8_is_space(cmc_utf8_decode(s, len, &step))) {
            return false;
        }
        s += step;
        len -= step;
    }
    return true;
}

/* What the rules look things up in. */
typedef struct delta_side {
    const cmc_vocab *v;
    prefix_index *text;          /* normal and user-defined tokens by their bytes; blank ones are barred */
    int32_t raw_byte[256];       /* lowest token of kind byte for each, or -1 */
    int32_t any_end;             /* lowest end token, or -1 */
} delta_side;

static cmc_status delta_side_init(delta_side *d, const cmc_vocab *v, cmc_error *err) {
    *d = (delta_side){.v = v, .any_end = -1};
    for (size_t b = 0; b < 256; b++) {
        d->raw_byte[b] = -1;
    }
    prefix_item *items = cmc_alloc((size_t)v->n, sizeof *items);
    if (!items) {
        return cmc_fail_nomem(err, "an index of tokens", (size_t)v->n * sizeof *items);
    }
    size_t n = 0;
    for (int32_t id = 0; id < v->n; id++) {
        size_t len;
        const uint8_t *s = token_bytes(v, id, &len);
        if (v->is_end[id]) {
            d->any_end = d->any_end < 0 ? id : d->any_end;
        } else if (v->kind[id] == CMC_KIND_BYTE && len == 1) {
            d->raw_byte[s[0]] = d->raw_byte[s[0]] < 0 ? id : d->raw_byte[s[0]];
        } else if (is_text(v, id) && len) {
            items[n++] = (prefix_item){.s = s, .len = (uint32_t)len, .measure = (uint32_t)len, .id = id,
                                       .rank = v->kind[id] == CMC_KIND_USER, .barred = map_blank(s, len)};
        }
    }
    return prefix_index_new(items, n, &d->text, err);
}

/* The delta's token of the same role, else its other end token. A host end token known by name alone ends a turn. */
static int32_t map_end(const delta_side *d, unsigned host_roles) {
    bool eos_first = (host_roles & CMC_ROLE_EOS) != 0;
    int32_t first = eos_first ? d->v->eos : d->v->eot, second = eos_first ? d->v->eot : d->v->eos;
    return first >= 0 ? first : second >= 0 ? second : d->any_end;
}

static void map_byte(cmc_map *m, int32_t id, const delta_side *d, uint8_t byte) {
    int32_t to = d->raw_byte[byte];
    if (to >= 0) {
        map_set(m, id, to, CMC_HOW_BYTE, 0);
        return;
    }
    prefix_match match = prefix_index_find(d->text, &byte, 1, 1, true);
    map_set(m, id, match.exact ? match.id : -1, CMC_HOW_BYTE, 0);
}

/* Text by its bytes. A byte token of the delta stands for text only where it is the whole of it and no text token is
 * ("\n" is nothing but a byte token in many SentencePiece vocabularies); it is never a prefix. False where the delta has
 * no token that is just this text. */
static bool map_text(cmc_map *m, int32_t id, const delta_side *d, const uint8_t *s, size_t len) {
    prefix_match match = prefix_index_find(d->text, s, len, (uint32_t)len, map_blank(s, len));
    if (!match.exact && len == 1 && d->raw_byte[s[0]] >= 0) {
        map_set(m, id, d->raw_byte[s[0]], CMC_HOW_BYTE, 0);
        return true;
    }
    map_set(m, id, match.id, match.exact ? CMC_HOW_EXACT : CMC_HOW_PREFIX, match.distance);
    return match.exact;
}

/* Maps every token by the rule `prefix`; by_prefix[0..*n) are those that were mapped so. (Where no delta token begins a text or is
 * begun by it, its tokenisation begins with none that would do either.) */
static cmc_status fill_prefix(cmc_map *m, const cmc_vocab *host, const cmc_vocab *delta, int32_t *by_prefix, size_t *n,
                              cmc_error *err) {
    const unsigned other_roles = CMC_ROLE_BOS | CMC_ROLE_PAD | CMC_ROLE_UNK;
    delta_side d;
    CMC_TRY(delta_side_init(&d, delta, err));
    for (int32_t id = 0; id < host->n; id++) {
        size_t len;
        const uint8_t *s = token_bytes(host, id, &len);
        if (host->is_end[id]) {
            map_set(m, id, map_end(&d, host->roles[id]), CMC_HOW_ROLE, 0);
        } else if (!len || (host->roles[id] & other_roles)) {
            continue;
        } else if (host->kind[id] == CMC_KIND_BYTE) {
            map_byte(m, id, &d, s[0]);
        } else if (is_text(host, id) && !map_text(m, id, &d, s, len) && m->to[id] >= 0) {
            by_prefix[(*n)++] = id;
        }
    }
    prefix_index_free(d.text);
    return CMC_OK;
}

static cmc_status fill_by_rule(cmc_map *m, const cmc_vocab *host, const cmc_vocab *delta, cmc_map_rule rule,
                               cmc_error *err) {
    size_t n = 0;
    int32_t *by_prefix = cmc_alloc((size_t)host->n, sizeof *by_prefix);
    if (!by_prefix) {
        return cmc_fail_nomem(err, "a token map", (size_t)host->n * sizeof *by_prefix);
    }
    cmc_status status = fill_prefix(m, host, delta, by_prefix, &n, err);
    if (status == CMC_OK && rule == CMC_RULE_DEFAULT) {
        status = map_fill_first(m, host, delta, by_prefix, n, err);
    }
    free(by_prefix);
    return status;
}

static void fill_identity(cmc_map *m, const cmc_vocab *v) {
    for (int32_t id = 0; id < v->n; id++) {
        bool role = v->is_end[id] || v->kind[id] == CMC_KIND_CONTROL;
        map_set(m, id, id, role ? CMC_HOW_ROLE : v->kind[id] == CMC_KIND_BYTE ? CMC_HOW_BYTE : CMC_HOW_EXACT, 0);
    }
}

cmc_status cmc_map_build(const cmc_vocab *host, const cmc_vocab *delta, cmc_map_rule rule, cmc_map **out,
                         cmc_error *err) {
    *out = NULL;
    double start = cmc_now();
    if (rule != CMC_RULE_DEFAULT && rule != CMC_RULE_REFERENCE && rule != CMC_RULE_PREFIX) {
        return cmc_fail(err, CMC_E_ARG, "map: rule %d is unknown; 0 (default), 1 (reference) and 2 (prefix) are known",
                        (int)rule);
    }
    cmc_map *m;
    CMC_TRY(map_new(host->n, delta->n, &m, err));
    cmc_status status = CMC_OK;
    if (rule == CMC_RULE_REFERENCE) {
        status = map_fill_reference(m, host, delta, err);
    } else if (cmc_vocab_equal(host, delta)) {
        fill_identity(m, host);
    } else {
        status = fill_by_rule(m, host, delta, rule, err);
    }
    if (status != CMC_OK) {
        cmc_map_free(m);
        return status;
    }
    map_finish(m);
    m->seconds = cmc_now() - start;
    *out = m;
    return CMC_OK;
}
