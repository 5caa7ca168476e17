/* Making streams: prompts rendered, sessions shared. */
#include <stdlib.h>
#include <string.h>

#include "base/mem.h"
#include "runtime/prompt.h"
#include "runtime/stream.h"

static void stream_delta_free(stream_delta *d) {
    if (d->live) follow_free(&d->f);
    cmc_ids_free(&d->prompt);
    cmc_session_free(d->session);
    free(d->row);
}

void cmc_stream_free(cmc_stream *s) {
    if (!s) return;
    for (size_t k = 0; k < s->n_deltas; k++) stream_delta_free(&s->deltas[k]);
    free(s->deltas);
    free(s->rows);
    free(s->kinds);
    free(s->alphas);
    steering_work_free(&s->work);
    cmc_session_free(s->host);
    cmc_ids_free(&s->seq);
    free(s->logits);
    free(s->host_row);
    free(s->steered_row);
    sampler_free(s->sampler);
    stream_text_free(&s->text);
    free(s);
}

/* Rows for cmc_stream_compare. */
static cmc_status alloc_rows(cmc_stream *s, size_t n_vocab, cmc_error *err) {
    s->compare = true;
    s->host_row = cmc_alloc_aligned(n_vocab, sizeof *s->host_row);
    s->steered_row = cmc_alloc_aligned(n_vocab, sizeof *s->steered_row);
    return s->host_row && s->steered_row ? CMC_OK : cmc_fail_nomem(err, "logits", 2 * n_vocab * sizeof *s->host_row);
}

/* Everything but the prompts and the host's session. A delta added to the steering later has no part in the stream. */
static cmc_status stream_alloc(const cmc_steering *st, const cmc_stream_opts *opts, bool is_text, cmc_stream **out,
                               cmc_error *err) {
    const cmc_stream_opts none = {.max_tokens = -1, .sampling = cmc_sampling_defaults()};
    if (!opts) opts = &none;
    size_t n_vocab = (size_t)cmc_model_n_vocab(st->host);
    cmc_stream *s = cmc_calloc(1, sizeof *s);
    if (!s) return cmc_fail_nomem(err, "a stream", sizeof *s);
    *out = s;
    s->st = st;
    s->unsteered = opts->unsteered;
    s->ignore_end = opts->ignore_end;
    s->is_text = is_text;
    s->max_tokens = opts->max_tokens;
    s->repeat_last_n = opts->sampling.repeat_last_n;
    s->stop = opts->max_tokens == 0 ? CMC_STOP_LENGTH : CMC_STOP_NONE;
    s->logits = cmc_alloc_aligned(n_vocab, sizeof *s->logits);
    s->deltas = cmc_calloc(st->n, sizeof *s->deltas);
    s->rows = cmc_calloc(st->n, sizeof *s->rows);
    s->kinds = cmc_calloc(st->n, sizeof *s->kinds);
    s->alphas = cmc_calloc(st->n, sizeof *s->alphas);
    if (!s->logits || !s->deltas || !s->rows || !s->kinds || !s->alphas) {
        return cmc_fail_nomem(err, "a stream", n_vocab * sizeof *s->logits);
    }
    s->n_deltas = st->n;
    s->gate = gate_start(&st->guards, is_text ? "" : st->lead);
    if (opts->compare) CMC_TRY(alloc_rows(s, n_vocab, err));
    CMC_TRY(steering_work_new(st, &s->work, err));
    CMC_TRY(sampler_new(&opts->sampling, (int32_t)n_vocab, &s->sampler, err));
    return stream_text_init(&s->text, is_text ? "" : st->lead, opts->stop, opts->n_stop, err);
}

/* The delta's prompt of a bare text is empty but for its own BOS: the text is its response so far (follow.h). */
static cmc_status text_prompt(const cmc_vocab *v, cmc_ids *out, cmc_error *err) {
    int32_t bos = cmc_vocab_role_token(v, CMC_ROLE_BOS);
    if (!cmc_vocab_adds_bos(v) || bos < 0) return CMC_OK;
    return cmc_ids_push(out, bos) == CMC_OK ? CMC_OK : cmc_fail_nomem(err, "a prompt", 1);
}

/* Renders the record for the host and every delta. An answer that the record ends with is what a stream would give: it
 * is no part of the prompt. */
static cmc_status render_prompts(cmc_stream *s, const cmc_record *r, cmc_error *err) {
    const cmc_steering *st = s->st;
    const cmc_vocab *hv = cmc_model_vocab(st->host);
    size_t n = r->n_messages;
    if (n > 0 && r->messages[n - 1].role == CMC_ASSISTANT) n--;
    if (r->text) {
        unsigned flags = CMC_TOK_BOS | (st->opts.special ? CMC_TOK_SPECIAL : 0u);
        CMC_TRY(cmc_tokenize(hv, r->text, r->text_len, flags, &s->seq, err));
    } else {
        CMC_TRY(prompt_open(hv, st->t, r->messages, n, st->opts.special, &s->seq, NULL, err));
    }
    s->n_prompt = s->seq.n;
    for (size_t k = 0; k < s->n_deltas; k++) {
        const cmc_vocab *dv = cmc_model_vocab(st->deltas[k].model);
        cmc_ids *ids = &s->deltas[k].prompt;
        if (r->text) CMC_TRY(text_prompt(dv, ids, err));
        else CMC_TRY(prompt_open(dv, st->deltas[k].t, r->messages, n, st->opts.special, ids, NULL, err));
    }
    return CMC_OK;
}

/* Gives the prompt to the host's session, which is new or holds what can be shared; not where its row is at
 * hand. */
static cmc_status start_host(cmc_stream *s, int32_t n_ctx, cmc_error *err) {
    const char *path = cmc_model_path(s->st->host);
    if (s->n_prompt == 0) {
        return cmc_fail(err, CMC_E_ARG,
                        "%s: the prompt is empty and the model asks for no BOS token, so there is nothing to "
                        "continue; expected some text",
                        path);
    }
    s->limit = (size_t)cmc_session_n_ctx(s->host);
    if (n_ctx > 0 && (size_t)n_ctx < s->limit) s->limit = (size_t)n_ctx;
    if (s->n_prompt > s->limit) {
        return cmc_fail(err, CMC_E_RANGE, "%s: the prompt has %zu tokens, the context holds %zu", path, s->n_prompt,
                        s->limit);
    }
    return s->have_row ? CMC_OK : cmc_session_sync(s->host, s->seq.v, s->seq.n, err);
}

static cmc_status finish_new(cmc_stream *s, cmc_status status, cmc_stream **out) {
    if (status == CMC_OK) {
        *out = s;
    } else {
        cmc_stream_free(s);
    }
    return status;
}

cmc_status cmc_stream_new(const cmc_steering *st, const cmc_record *prompt, const cmc_stream_opts *opts,
                          cmc_stream **out, cmc_error *err) {
    *out = NULL;
    cmc_stream *s = NULL;
    int32_t n_ctx = opts ? opts->n_ctx : 0;
    cmc_status status = stream_alloc(st, opts, prompt->text != NULL, &s, err);
    if (status == CMC_OK) status = render_prompts(s, prompt, err);
    if (status == CMC_OK) status = steering_session(st, n_ctx, &s->host, err);
    if (status == CMC_OK) status = start_host(s, n_ctx, err);
    return finish_new(s, status, out);
}

cmc_status cmc_stream_set_expand(cmc_stream *s, double strength, cmc_error *err) {
    CMC_TRY(cmc_session_set_expand(s->host, strength, err));
    s->have_row = s->have_row && cmc_session_pending(s->host) == 0;
    return CMC_OK;
}

/* A fork's n_ctx can only be less than that of the session it shares. */
static cmc_status check_fork_ctx(const cmc_stream *s, int32_t n_ctx, cmc_error *err) {
    if (n_ctx < 0) return cmc_fail(err, CMC_E_ARG, "a context of %d tokens was asked for; it must be at least 1, or 0 for the stream's own", n_ctx);
    if (n_ctx <= cmc_session_n_ctx(s->host)) return CMC_OK;
    return cmc_fail(err, CMC_E_RANGE,
                    "a context of %d tokens was asked for, but the stream it shares a prompt with has %d", n_ctx,
                    cmc_session_n_ctx(s->host));
}

/* Evaluates the host's prompt, where that was not done. */
static cmc_status eval_prompt(cmc_stream *s, cmc_error *err) {
    if (s->have_row || !stream_at_prompt(s)) return CMC_OK;
    double t0 = cmc_now();
    cmc_eval_item item = {.session = s->host, .want = CMC_WANT_LOGITS, .n_rows = 1, .out = s->logits};
    CMC_TRY(cmc_eval(s->st->host, &item, 1, err));
    s->have_row = true;
    s->timing.prefill_seconds += cmc_now() - t0;
    return CMC_OK;
}

/* What a fork shares: the prompts, the host's session, and the row after the prompt where that is at hand. */
static cmc_status copy_shared(cmc_stream *f, const cmc_stream *s, cmc_error *err) {
    size_t n_vocab = (size_t)cmc_model_n_vocab(s->st->host);
    bool ok = cmc_ids_append(&f->seq, s->seq.v, s->n_prompt) == CMC_OK;
    if (f->n_deltas > s->n_deltas) f->n_deltas = f->work.n = s->n_deltas;
    for (size_t k = 0; ok && k < f->n_deltas; k++) {
        ok = cmc_ids_append(&f->deltas[k].prompt, s->deltas[k].prompt.v, s->deltas[k].prompt.n) == CMC_OK;
    }
    if (!ok) return cmc_fail_nomem(err, "a stream", s->n_prompt * sizeof(int32_t));
    f->n_prompt = s->n_prompt;
    f->have_row = s->have_row && s->seq.n == s->n_prompt;
    if (f->have_row) memcpy(f->logits, s->logits, n_vocab * sizeof *f->logits);
    return cmc_session_fork(s->host, &f->host, err);
}

cmc_status cmc_stream_fork(cmc_stream *s, const cmc_stream_opts *opts, cmc_stream **out, cmc_error *err) {
    *out = NULL;
    int32_t n_ctx = opts ? opts->n_ctx : 0;
    CMC_TRY(check_fork_ctx(s, n_ctx, err));
    CMC_TRY(eval_prompt(s, err));
    cmc_stream *f = NULL;
    cmc_status status = stream_alloc(s->st, opts, s->is_text, &f, err);
    if (status == CMC_OK) status = copy_shared(f, s, err);
    if (status == CMC_OK) status = start_host(f, n_ctx, err);
    return finish_new(f, status, out);
}

cmc_status cmc_stream_next(const cmc_stream *s, const cmc_record *prompt, const cmc_stream_opts *opts, cmc_stream **out,
                           cmc_error *err) {
    *out = NULL;
    int32_t n_ctx = opts ? opts->n_ctx : 0;
    CMC_TRY(check_fork_ctx(s, n_ctx, err));
    cmc_stream *f = NULL;
    cmc_status status = stream_alloc(s->st, opts, prompt->text != NULL, &f, err);
    if (status == CMC_OK) status = render_prompts(f, prompt, err);
    if (status == CMC_OK) status = cmc_session_fork(s->host, &f->host, err);
    if (status == CMC_OK) status = cmc_session_set_expand(f->host, s->st->expand, err);
    if (status == CMC_OK) status = start_host(f, n_ctx, err);
    return finish_new(f, status, out);
}
