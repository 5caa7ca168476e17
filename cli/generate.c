/* The generating loop: a batch of prompts, refilled as texts finish, results in the order of the prompts. */
#include "cli/generate.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

const arg_opt gen_opts[] = {
    {.name = "file", .file = ARG_READS, .letter = 'f', .kind = ARG_STR, .at = offsetof(gen_args, file), .value = "FILE",
     .help = "the prompt, from a text file (- is standard input); or many prompts, from a .jsonl or .json file of "
             "records"},
    {.name = "max-tokens", .letter = 'n', .kind = ARG_INT, .at = offsetof(gen_args, max_tokens), .value = "N",
     .help = "at most so many new tokens; -1: as many as fit", .lo = -1, .hi = INT32_MAX, .show_default = true},
    {.name = "batch", .kind = ARG_INT, .at = offsetof(gen_args, batch), .value = "N",
     .help = "prompts worked on at once", .lo = 1, .hi = 256, .show_default = true},
    {.name = "ctx", .kind = ARG_INT, .at = offsetof(gen_args, ctx), .value = "N",
     .help = "context in tokens; 0: the host's own", .lo = 0, .hi = INT32_MAX, .show_default = true},
    {.name = "system", .kind = ARG_STR, .at = offsetof(gen_args, system), .value = "TEXT",
     .help = "a system turn before every prompt that has none"},
    {.name = "stop", .kind = ARG_LIST, .at = offsetof(gen_args, stop), .value = "TEXT",
     .help = "end the text before this string (may be repeated)"},
    {.name = "ignore-eos", .kind = ARG_FLAG, .at = offsetof(gen_args, ignore_eos), .help = "go on past end tokens"},
    {.name = "temperature", .kind = ARG_REAL, .at = offsetof(gen_args, sampling.temperature), .value = "X",
     .help = "0: always the likeliest token", .lo = 0, .hi = 100, .show_default = true},
    {.name = "top-k", .kind = ARG_INT, .at = offsetof(gen_args, sampling.top_k), .value = "N",
     .help = "draw from the N likeliest tokens; 0: off", .lo = 0, .hi = INT32_MAX, .show_default = true},
    {.name = "top-p", .kind = ARG_REAL, .at = offsetof(gen_args, sampling.top_p), .value = "X",
     .help = "draw from the likeliest tokens that make up this probability; 1: off", .lo = 0, .hi = 1,
     .show_default = true},
    {.name = "min-p", .kind = ARG_REAL, .at = offsetof(gen_args, sampling.min_p), .value = "X",
     .help = "leave out tokens less likely than X times the likeliest; 0: off", .lo = 0, .hi = 1, .show_default = true},
    {.name = "repeat-penalty", .kind = ARG_REAL, .at = offsetof(gen_args, sampling.repeat_penalty), .value = "X",
     .help = "above 1: tokens that came lately become less likely; 1: off", .lo = 0.01, .hi = 100,
     .show_default = true},
    {.name = "repeat-last-n", .kind = ARG_INT, .at = offsetof(gen_args, sampling.repeat_last_n), .value = "N",
     .help = "how many tokens back the penalty looks", .lo = 0, .hi = INT32_MAX, .show_default = true},
    {.name = NULL},
};

void gen_defaults(gen_args *a) {
    a->max_tokens = 256;
    a->batch = 8;
    a->sampling = cmc_sampling_defaults();
}

/* ----------------------------------------------------------------------------------------------------- results */

static void gen_side_free(gen_side *g) {
    free(g->text);
    free(g->ids);
    free(g->note);
    memset(g, 0, sizeof *g);
}

static void *gen_copy(const void *from, size_t n) {
    char *p = malloc(n + 1);
    if (!p)
        return NULL;
    if (n)
        memcpy(p, from, n);
    p[n] = '\0';
    return p;
}

static bool gen_side_take(gen_side *g, const cmc_stream *s) {
    const char *text = cmc_stream_text(s, &g->len), *note = cmc_stream_note(s);
    const int32_t *ids = cmc_stream_ids(s, &g->n_ids);
    g->text = gen_copy(text, g->len);
    g->ids = gen_copy(ids, g->n_ids * sizeof *ids);
    g->note = note ? gen_copy(note, strlen(note)) : NULL;
    g->prompt_tokens = cmc_stream_prompt_tokens(s);
    g->stop = cmc_stream_stopped(s);
    cmc_stream_timing_get(s, &g->timing);
    return g->text && g->ids && (g->note || !note);
}

const char *gen_stop_name(cmc_stop stop) {
    switch (stop) {
    case CMC_STOP_EOS: return "eos";
    case CMC_STOP_LENGTH: return "length";
    case CMC_STOP_STRING: return "stop";
    case CMC_STOP_NONE: break;
    }
    return "interrupted";
}

double gen_prefill_tps(const gen_side *g) {
    return g->timing.prefill_seconds > 0 ? (double)g->prompt_tokens / g->timing.prefill_seconds : NAN;
}

double gen_decode_tps(const gen_side *g) {
    return g->timing.decode_seconds > 0 ? (double)g->timing.decode_steps / g->timing.decode_seconds : NAN;
}

void gen_json(jbuild *o, const gen_side *g) {
    jset_text(o, "text", g->text, g->len);
    jset(o, "ids", jids(g->ids, g->n_ids));
    jset_string(o, "stop", gen_stop_name(g->stop));
    jset_int(o, "prompt_tokens", (int64_t)g->prompt_tokens);
    jset_int(o, "tokens", (int64_t)g->n_ids);
    jset_real(o, "prefill_tps", gen_prefill_tps(g));
    jset_real(o, "decode_tps", gen_decode_tps(g));
    if (g->note)
        jset_string(o, "note", g->note);
}

/* -------------------------------------------------------------------------------------------------- the batch */

typedef struct gen_slot { size_t index; cmc_stream *side[2]; } gen_slot;   /* side[GEN_STEERED] NULL: free */

typedef struct gen_state {
    const gen_job *job;
    gen_slot *slots; size_t n_slots;
    cmc_stream **live;               /* [2 * n_slots], for one step */
    gen_side (*done)[2];             /* [prompts]: finished, and not handed on yet where .text is set */
    size_t next, emitted;
} gen_state;

static int gen_error(const gen_job *job, size_t index, const cmc_error *err) {
    char where[600];
    if (!job->p->path)
        return cli_error(NULL, err);
    snprintf(where, sizeof where, "%s: record %zu (line %ld)", job->p->path, index + 1, job->p->records.v[index].line);
    return cli_error(where, err);
}

static int gen_open(const gen_job *job, size_t index, gen_slot *slot) {
    cmc_record prompt;
    cmc_error err = {0};
    cmc_stream_opts opts = {.n_ctx = job->args->ctx, .max_tokens = job->args->max_tokens,
                            .ignore_end = job->args->ignore_eos, .sampling = job->args->sampling,
                            .stop = job->args->stop.v, .n_stop = job->args->stop.n,
                            .compare = job->compare};
    opts.sampling.seed = job->seed + index;
    int rc = prompts_view(job->p, index, &prompt);
    if (rc)
        return rc;
    slot->index = index;
    cmc_status st = cmc_stream_new(job->s->st, &prompt, &opts, &slot->side[GEN_STEERED], &err);
    if (!prompt.text)
        free(prompt.messages);
    if (st == CMC_OK && job->both) {
        opts.unsteered = true;
        st = cmc_stream_fork(slot->side[GEN_STEERED], &opts, &slot->side[GEN_UNSTEERED], &err);
    }
    return st == CMC_OK ? CLI_OK : gen_error(job, index, &err);
}

static void gen_close(gen_slot *slot) {
    cmc_stream_free(slot->side[GEN_UNSTEERED]);
    cmc_stream_free(slot->side[GEN_STEERED]);
    memset(slot, 0, sizeof *slot);
}

static bool gen_finished(const gen_slot *slot) {
    for (int k = 0; k < 2; k++) {
        if (slot->side[k] && cmc_stream_stopped(slot->side[k]) == CMC_STOP_NONE)
            return false;
    }
    return true;
}

/* One token for every live text. *any: there was one. */
static int gen_step(gen_state *g, bool *any) {
    cmc_error err = {0};
    size_t n = 0, first = 0;
    for (size_t i = 0; i < g->n_slots; i++) {
        for (int k = 0; k < 2; k++) {
            cmc_stream *s = g->slots[i].side[k];
            if (!s || cmc_stream_stopped(s) != CMC_STOP_NONE)
                continue;
            first = n ? first : g->slots[i].index;
            g->live[n++] = s;
        }
    }
    *any = n > 0;
    if (n == 0)
        return CLI_OK;
    if (cmc_streams_step(g->live, n, &err) != CMC_OK)
        return n == 1 ? gen_error(g->job, first, &err) : cli_error(g->job->p->path, &err);
    for (size_t i = 0; g->job->on_step && i < g->n_slots; i++) {
        const gen_slot *slot = &g->slots[i];
        int rc = slot->side[GEN_STEERED] ? g->job->on_step(g->job->user, slot->index, slot->side) : CLI_OK;
        if (rc)
            return rc;
    }
    return CLI_OK;
}

/* Takes the results of what is finished (of everything, where `all`), and hands on what is next in order. */
static int gen_collect(gen_state *g, bool all) {
    for (size_t i = 0; i < g->n_slots; i++) {
        gen_slot *slot = &g->slots[i];
        if (!slot->side[GEN_STEERED] || !(all || gen_finished(slot)))
            continue;
        gen_side *done = g->done[slot->index];
        bool ok = gen_side_take(&done[GEN_STEERED], slot->side[GEN_STEERED]);
        if (ok && slot->side[GEN_UNSTEERED])
            ok = gen_side_take(&done[GEN_UNSTEERED], slot->side[GEN_UNSTEERED]);
        gen_close(slot);
        if (!ok)
            return cli_no_memory();
    }
    while (g->emitted < g->job->p->n && g->done[g->emitted][GEN_STEERED].text) {
        gen_side *done = g->done[g->emitted];
        int rc = g->job->on_result(g->job->user, g->emitted++, done);
        gen_side_free(&done[GEN_UNSTEERED]);
        gen_side_free(&done[GEN_STEERED]);
        if (rc)
            return rc;
    }
    return CLI_OK;
}

static int gen_loop(gen_state *g) {
    int rc = CLI_OK;
    bool any = true;
    while (rc == CLI_OK && g->emitted < g->job->p->n && !cli_interrupted()) {
        for (size_t i = 0; i < g->n_slots && rc == CLI_OK && g->next < g->job->p->n && !cli_interrupted(); i++) {
            if (!g->slots[i].side[GEN_STEERED])
                rc = gen_open(g->job, g->next++, &g->slots[i]);
        }
        if (rc == CLI_OK && !cli_interrupted())
            rc = gen_step(g, &any);
        if (rc == CLI_OK)
            rc = gen_collect(g, false);
    }
    if (rc == CLI_OK && g->emitted < g->job->p->n) {
        rc = gen_collect(g, true);
        return rc ? rc : CLI_INTERRUPTED;
    }
    return rc;
}

int gen_run(const gen_job *job) {
    gen_state g = {.job = job, .n_slots = (size_t)job->args->batch};
    if (g.n_slots > job->p->n)
        g.n_slots = job->p->n;
    g.slots = calloc(g.n_slots, sizeof *g.slots);
    g.live = calloc(2 * g.n_slots, sizeof *g.live);
    g.done = calloc(job->p->n, sizeof *g.done);
    int rc = g.slots && g.live && g.done ? gen_loop(&g) : cli_no_memory();
    for (size_t i = 0; g.slots && i < g.n_slots; i++)
        gen_close(&g.slots[i]);
    for (size_t i = 0; g.done && i < job->p->n; i++) {
        gen_side_free(&g.done[i][GEN_UNSTEERED]);
        gen_side_free(&g.done[i][GEN_STEERED]);
    }
    free(g.slots);
    free(g.live);
    free(g.done);
    return rc;
}
