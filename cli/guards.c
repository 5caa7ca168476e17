/* The guards, as options and in results. */
#include "cli/guards.h"

#include <math.h>

const arg_opt guard_opts[] = {
    {.name = "plausible", .kind = ARG_REAL, .at = offsetof(cmc_guards, plausible), .value = "X",
     .help = "no token rises to which the host gives less than X times the probability of its likeliest; 0: off", .lo = 0, .hi = 1,
     .show_default = true},
    {.name = "shift-limit", .kind = ARG_REAL, .at = offsetof(cmc_guards, shift_limit), .value = "NATS",
     .help = "no token's log-probability rises or falls by more than this", .lo = 0, .hi = (double)INFINITY},
    {.name = "alpha-start", .kind = ARG_INT, .at = offsetof(cmc_guards, alpha_start), .value = "N",
     .help = "the response's first N tokens are not steered", .lo = 0, .hi = INT32_MAX, .show_default = true},
    {.name = "alpha-length", .kind = ARG_INT, .at = offsetof(cmc_guards, alpha_length), .value = "N",
     .help = "the N tokens after those are; -1: all", .lo = -1, .hi = INT32_MAX, .show_default = true},
    {.name = "alpha-decay", .kind = ARG_REAL, .at = offsetof(cmc_guards, alpha_decay), .value = "X",
     .help = "after --alpha-length tokens each strength is X times that of the token before; 0: no more steering", .lo = 0, .hi = 1,
     .show_default = true},
    {.name = "steer-from", .kind = ARG_STR, .at = offsetof(cmc_guards, from), .value = "TEXT",
     .help = "steer once this text stands in the response; --alpha-start and --alpha-length count from there"},
    {.name = "steer-until", .kind = ARG_STR, .at = offsetof(cmc_guards, until), .value = "TEXT",
     .help = "steer no more once this text stands in the response; with --steer-from: until that comes again"},
    {.name = NULL},
};

static bool has_schedule(const cmc_guards *g) {
    return g->alpha_start > 0 || g->alpha_length >= 0 || g->alpha_decay > 0;
}

bool guards_any(const cmc_guards *g) {
    return g->plausible > 0 || isfinite(g->shift_limit) || has_schedule(g) || g->from || g->until;
}

int guards_check(const cmc_guards *g, size_t n_deltas) {
    const char *marker = g->from && !*g->from ? "--steer-from" : g->until && !*g->until ? "--steer-until" : NULL;
    if (marker)
        return cli_usage("%s: the text is empty", marker);
    if (g->alpha_decay > 0 && g->alpha_length < 0)
        return cli_usage("--alpha-decay: comes after --alpha-length N, and there is none");
    if (guards_any(g) && n_deltas == 0)
        return cli_usage("-d: there is no delta for --plausible, --shift-limit, --alpha-... or --steer-... to guard");
    return CLI_OK;
}

void guards_json(jbuild *o, const cmc_guards *g) {
    jbuild set = jobject();
    if (g->plausible > 0)
        jset_real(&set, "plausible", g->plausible);
    if (isfinite(g->shift_limit))
        jset_real(&set, "shift_limit", g->shift_limit);
    if (has_schedule(g)) {
        jset_int(&set, "alpha_start", g->alpha_start);
        jset_int(&set, "alpha_length", g->alpha_length);
        jset_real(&set, "alpha_decay", g->alpha_decay);
    }
    if (g->from)
        jset_string(&set, "steer_from", g->from);
    if (g->until)
        jset_string(&set, "steer_until", g->until);
    if (guards_any(g))
        jset_built(o, "guards", set);
    else
        jdrop(set);
}
