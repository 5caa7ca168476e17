/* Guards: settings, and the gate that a response's markers and its schedule open and close. */
#include "runtime/guard.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "base/mem.h"

cmc_guards cmc_guards_defaults(void) {
    return (cmc_guards){.plausible = 0, .shift_limit = INFINITY, .alpha_start = 0, .alpha_length = -1, .alpha_decay = 0};
}

/* ----------------------------------------------------------------------------------------------------- settings */

static cmc_status check_settings(const cmc_guards *g, cmc_error *err) {
    if (!(g->plausible >= 0 && g->plausible <= 1))
        return cmc_fail(err, CMC_E_ARG, "guards: plausible is %g, should be from 0 (off) to 1", g->plausible);
    if (!(g->shift_limit >= 0))
        return cmc_fail(err, CMC_E_ARG, "guards: shift_limit is %g, should be 0 nats or more", g->shift_limit);
    if (g->alpha_start < 0)
        return cmc_fail(err, CMC_E_ARG, "guards: alpha_start is %d, should be 0 or more", g->alpha_start);
    if (g->alpha_length < -1)
        return cmc_fail(err, CMC_E_ARG, "guards: alpha_length is %d, should be -1 (to the end) or more", g->alpha_length);
    if (!(g->alpha_decay >= 0 && g->alpha_decay <= 1))
        return cmc_fail(err, CMC_E_ARG, "guards: alpha_decay is %g, should be from 0 (at once) to 1", g->alpha_decay);
    if (g->alpha_decay > 0 && g->alpha_length < 0)
        return cmc_fail(err, CMC_E_ARG, "guards: alpha_decay has no alpha_length to come after");
    if ((g->from && !*g->from) || (g->until && !*g->until))
        return cmc_fail(err, CMC_E_ARG, "guards: a marker is empty, expected some text");
    return CMC_OK;
}

static bool copy_text(const char *text, const char **out) {
    *out = text ? cmc_strndup(text, strlen(text)) : NULL;
    return *out || !text;
}

cmc_status guards_init(guards *g, const cmc_guards *opts, cmc_error *err) {
    *g = (guards){.set = cmc_guards_defaults()};
    if (opts) {
        CMC_TRY(check_settings(opts, err));
        g->set = *opts;
        bool from = copy_text(opts->from, &g->set.from), until = copy_text(opts->until, &g->set.until);
        if (!from || !until) {
            guards_free(g);
            return cmc_fail_nomem(err, "a marker", 1);
        }
    }
    g->bounds = (shift_bounds){.plausible = g->set.plausible, .limit = g->set.shift_limit};
    g->bounded = g->bounds.plausible > 0 || g->bounds.limit < INFINITY;
    return CMC_OK;
}

void guards_free(guards *g) {
    free((void *)(uintptr_t)g->set.from);
    free((void *)(uintptr_t)g->set.until);
    *g = (guards){0};
}

/* --------------------------------------------------------------------------------------------------- the response */

gate gate_start(const guards *g, const char *lead) {
    return (gate){.set = &g->set, .lead = lead, .open = g->set.from == NULL};
}

/* How much of the marker stands at the end of the text once `byte` follows what was matched: the longest of its beginnings that
 * ends matched + byte. */
static size_t match_byte(const char *marker, size_t matched, char byte) {
    for (size_t n = matched + 1; n > 0; n--) {
        if (marker[n - 1] == byte && memcmp(marker, marker + matched + 1 - n, n - 1) == 0) return n;
    }
    return 0;
}

/* The marker that is looked for: NULL where none is to come. */
static const char *next_marker(const gate *g) {
    return g->open ? g->set->until : g->set->from;
}

static void gate_byte(gate *g, char byte) {
    const char *marker = next_marker(g);
    if (!marker) return;
    g->matched = match_byte(marker, g->matched, byte);
    if (marker[g->matched] != '\0') return;
    g->open = !g->open;
    g->matched = 0;
    g->token = 0;
}

void gate_push(gate *g, const uint8_t *s, size_t n) {
    if (g->open) g->token++;
    if (n > 0 && !g->begun) { /* a lead is one byte long at most: the first byte settles it */
        g->begun = true;
        if (*g->lead && s[0] == (uint8_t)*g->lead) s++, n--;
    }
    for (size_t i = 0; i < n; i++) gate_byte(g, (char)s[i]);
}

double gate_scale(const gate *g) {
    const cmc_guards *set = g->set;
    size_t start = (size_t)set->alpha_start;
    if (!g->open || g->token < start) return 0;
    size_t at = g->token - start;
    if (set->alpha_length < 0 || at < (size_t)set->alpha_length) return 1;
    return pow(set->alpha_decay, (double)(at - (size_t)set->alpha_length + 1));
}
