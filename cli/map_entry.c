/* Entries of a map explained: what a host token maps to, how it was found and how far it reaches. */
#include "cli/map_entry.h"
#include "cli/text.h"

#include <inttypes.h>
#include <string.h>

const char *map_how_name(cmc_map_how how) {
    switch (how) {
    case CMC_HOW_ROLE: return "role";
    case CMC_HOW_BYTE: return "byte";
    case CMC_HOW_EXACT: return "exact";
    case CMC_HOW_PREFIX: return "prefix";
    case CMC_HOW_OVERRIDE: return "override";
    case CMC_HOW_NONE: break;
    }
    return "none";
}

/* ----------------------------------------------------------------------------------------------------- in words */

typedef struct entry_text { const uint8_t *s; size_t n; } entry_text;

static entry_text entry_bytes(const cmc_vocab *v, int32_t id) {
    entry_text t;
    t.s = cmc_vocab_bytes(v, id, &t.n);
    return t;
}

static entry_text entry_spelling(const cmc_vocab *v, int32_t id) {
    entry_text t;
    t.s = (const uint8_t *)cmc_vocab_spelling(v, id, &t.n);
    return t;
}

static bool entry_equal(entry_text a, entry_text b) {
    return a.n == b.n && memcmp(a.s, b.s, a.n) == 0;
}

static bool entry_begins(entry_text whole, entry_text part) {
    return part.n < whole.n && memcmp(whole.s, part.s, part.n) == 0;
}

bool map_same_text(const map_view *v, int32_t id, int32_t to) {
    if (to < 0)
        return false;
    if (cmc_vocab_is_end(v->host, id) || cmc_vocab_is_end(v->delta, to))
        return cmc_vocab_is_end(v->host, id) && cmc_vocab_is_end(v->delta, to);
    entry_text h = entry_bytes(v->host, id), d = entry_bytes(v->delta, to);
    return entry_equal(h, d) && (h.n > 0 || entry_equal(entry_spelling(v->host, id), entry_spelling(v->delta, to)));
}

static const char *entry_why_none(const map_view *v, int32_t id) {
    bool by_hand = v->override || !v->rule;
    if (cmc_vocab_is_end(v->host, id))
        return by_hand ? "ends a turn; nothing is mapped to it" : "ends a turn; no delta token does";
    switch (cmc_vocab_kind(v->host, id)) {
    case CMC_KIND_CONTROL: return "a control token, stands for no text";
    case CMC_KIND_UNUSED: return "an unused id";
    case CMC_KIND_BYTE: return by_hand ? "nothing is mapped to it" : "the delta has no token for this byte";
    default: break;
    }
    if (!entry_bytes(v->host, id).n)
        return "stands for no bytes";
    if (cmc_vocab_roles(v->host, id) & (CMC_ROLE_BOS | CMC_ROLE_PAD | CMC_ROLE_UNK))
        return "marks a beginning, padding or the unknown";
    return by_hand ? "nothing is mapped to it" : "no delta token is its beginning, or begins with it";
}

/* Prefixes are of bytes; by the rule reference they are of spellings, which may stand for other bytes. */
static void entry_prefix_words(const map_view *v, int32_t id, int32_t to, map_words *w) {
    entry_text h = entry_bytes(v->host, id), d = entry_bytes(v->delta, to);
    if (!entry_begins(h, d) && !entry_begins(d, h)) {
        h = entry_spelling(v->host, id);
        d = entry_spelling(v->delta, to);
    }
    bool cut = entry_begins(h, d);
    entry_text whole = cut ? h : d, part = cut ? d : h;
    size_t n = whole.n > part.n ? whole.n - part.n : 0;
    if (cut)
        snprintf(w->text, sizeof w->text, "its first %zu of %zu bytes; left over:", part.n, whole.n);
    else
        snprintf(w->text, sizeof w->text, "begins like it, with %zu byte%s more:", n, n == 1 ? "" : "s");
    w->rest = whole.s + whole.n - n;
    w->n_rest = n;
}

map_words map_entry_words(const map_view *v, int32_t id) {
    map_words w = {.text = ""};
    cmc_map_how how;
    int32_t to = cmc_map_get(v->map, id, &how, NULL);
    bool same = map_same_text(v, id, to), end = same && cmc_vocab_is_end(v->host, id);
    const char *hand = how == CMC_HOW_OVERRIDE ? "set by hand" : "", *text = "";
    switch (how) {
    case CMC_HOW_NONE: text = entry_why_none(v, id); break;
    case CMC_HOW_ROLE: text = end ? "both end a turn" : same ? "the same control token" : "the same id"; break;
    case CMC_HOW_BYTE: text = same ? "the same byte" : "the same id, of another byte"; break;
    case CMC_HOW_EXACT: text = same ? "the same bytes" : "the same spelling"; break;
    case CMC_HOW_OVERRIDE: text = end ? "; both end a turn" : same ? "; the same text" : ""; break;
    case CMC_HOW_PREFIX: entry_prefix_words(v, id, to, &w); return w;
    }
    snprintf(w.text, sizeof w.text, "%s%s", hand, text);
    return w;
}

/* --------------------------------------------------------------------------------------------------------- JSON */

static json_t *entry_piece(const cmc_vocab *v, int32_t id) {
    entry_text t = entry_spelling(v, id);
    return jpiece(t.s, t.n);
}

jbuild map_entry_json(const map_view *v, int32_t id) {
    jbuild o = jobject();
    cmc_map_how how;
    int32_t distance, to = cmc_map_get(v->map, id, &how, &distance);
    jset_int(&o, "id", id);
    jset(&o, "piece", entry_piece(v->host, id));
    jset(&o, "delta_id", to < 0 ? json_null() : json_integer(to));
    jset(&o, "delta_piece", to < 0 ? json_null() : entry_piece(v->delta, to));
    jset_string(&o, "how", map_how_name(how));
    jset(&o, "distance", to < 0 ? json_null() : json_integer(distance));
    return o;
}

jbuild map_explain_json(const map_view *v, const cmc_ids *ids) {
    jbuild a = jarray();
    for (size_t i = 0; i < ids->n; i++) {
        jbuild o = map_entry_json(v, ids->v[i]);
        map_words w = map_entry_words(v, ids->v[i]);
        jset_string(&o, "words", w.text);
        jset(&o, "rest", w.rest ? jpiece(w.rest, w.n_rest) : json_null());
        jadd_built(&a, o);
    }
    return a;
}

/* ------------------------------------------------------------------------------------------------------ a table */

/* A token's id and its text, or its spelling where it stands for no bytes, padded to `width` columns. */
static int entry_cell(const cmc_vocab *v, int32_t id, int width) {
    entry_text t = entry_bytes(v, id);
    int columns = 0;
    int rc = out_printf("%7" PRId32 " ", id);
    if (!t.n) {
        t = entry_spelling(v, id);
        columns = text_width((const char *)t.s, t.n);
        return rc ? rc : text_put((const char *)t.s, t.n, width > columns ? width : columns, false);
    }
    if (rc == CLI_OK)
        rc = text_quote((const char *)t.s, t.n, &columns);
    return rc ? rc : text_put("", 0, width > columns ? width - columns : 0, false);
}

static int entry_line(const map_view *v, int32_t id) {
    cmc_map_how how;
    int columns;
    int32_t to = cmc_map_get(v->map, id, &how, NULL);
    map_words w = map_entry_words(v, id);
    int rc = entry_cell(v->host, id, 18);
    if (rc == CLI_OK)
        rc = out_bytes("  ", 2);
    if (rc == CLI_OK)
        rc = to < 0 ? out_printf("%7s %-18s", "-", "") : entry_cell(v->delta, to, 18);
    if (rc == CLI_OK)
        rc = out_printf("  %-8s  %s", map_how_name(how), w.text);
    if (rc == CLI_OK && w.rest)
        rc = out_bytes(" ", 1);
    if (rc == CLI_OK && w.rest)
        rc = text_quote((const char *)w.rest, w.n_rest, &columns);
    return rc ? rc : out_bytes("\n", 1);
}

int map_explain(const map_view *v, const cmc_ids *ids) {
    int rc = out_printf("\n%7s %-18s  %7s %-18s  %-8s  %s\n", "host", "token", "delta", "token", "how", "how far");
    for (size_t i = 0; i < ids->n && rc == CLI_OK; i++)
        rc = entry_line(v, ids->v[i]);
    return rc;
}
