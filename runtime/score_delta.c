/* A delta's rows for scoring. Its context at a host token's border is its prompt and the tokens of the response up to
 * there. Where these begin the tokens of the whole response, one forward pass over the whole gives the row; where the
 * border falls into a token, they end differently, and their tail is evaluated on a fork of that pass. */
#include "runtime/score_delta.h"

#include <stdlib.h>
#include <string.h>

#include "base/mem.h"
#include "runtime/session.h"

enum {
    SCORE_BLOCK = 512,               /* tokens of one evaluation */
    SCORE_FORKS = 16,                /* forks of one evaluation */
    SCORE_FORK_BYTES = 256 << 20     /* what their keys and values may take */
};

/* ----------------------------------------------------------------------------------------- rows of one sequence */

/* Evaluates up to position `to`; buf holds a row for each position from the first wanted one on. */
static cmc_status score_block(cmc_session *s, const int32_t *ids, size_t to, const score_want *want, size_t n,
                              float *buf, cmc_error *err) {
    cmc_model *m = cmc_session_model(s);
    size_t width = (size_t)cmc_model_n_embd(m), n_rows = n > 0 ? to - want[0].pos : 0;
    cmc_eval_item item = {.session = s, .want = n > 0 ? CMC_WANT_HIDDEN : CMC_WANT_NONE, .n_rows = n_rows, .out = buf};
    CMC_TRY(cmc_session_sync(s, ids, to, err));
    CMC_TRY(cmc_eval(m, &item, 1, err));
    for (size_t i = 0; i < n; i++) memcpy(want[i].out, buf + (want[i].pos - want[0].pos) * width, width * sizeof *buf);
    return CMC_OK;
}

cmc_status score_rows(cmc_session *s, const int32_t *ids, const score_want *want, size_t n, cmc_error *err) {
    if (n == 0) return CMC_OK;
    size_t width = (size_t)cmc_model_n_embd(cmc_session_model(s)), end = want[n - 1].pos + 1;
    CMC_TRY(cmc_session_sync(s, ids, want[0].pos + 1, err)); /* so that the first wanted position is pending */
    size_t at = cmc_session_length(s) - cmc_session_pending(s);
    size_t most = end - at < SCORE_BLOCK ? end - at : SCORE_BLOCK;
    float *buf = cmc_alloc(most * width, sizeof *buf);
    if (!buf) return cmc_fail_nomem(err, "hidden states", most * width * sizeof *buf);
    cmc_status status = CMC_OK;
    for (size_t done = 0; status == CMC_OK && at < end;) {
        size_t to = at + SCORE_BLOCK < end ? at + SCORE_BLOCK : end, here = done;
        while (here < n && want[here].pos < to) here++;
        status = score_block(s, ids, to, want + done, here - done, buf, err);
        done = here;
        at = to;
    }
    free(buf);
    return status;
}

/* ------------------------------------------------------------------------------------------------- one response */

/* A response of the record: host tokens first..first+n, before each of which the delta gives a row. */
typedef struct score_span {
    const cmc_steering *st;
    const steering_delta *d;
    follow_start start;
    const int32_t *before; size_t n_before;   /* a text record's tokens before the first that counts */
    const int32_t *ids; size_t n;             /* the host's */
    steering_row *kinds;
    float *hidden;
    char *note;                               /* [SCORE_NOTE] */
} score_span;

static cmc_status span_follow(const score_span *sp, follow *f, cmc_error *err) {
    CMC_TRY(follow_init(f, sp->st, sp->d, sp->start, err));
    cmc_status s = follow_push_text(f, sp->before, sp->n_before, err);
    if (s != CMC_OK) follow_free(f);
    return s;
}

/* The longest of the delta's contexts in this response that was not cut, and the kind of every row. */
static cmc_status whole_context(const score_span *sp, cmc_ids *whole, cmc_error *err) {
    follow f;
    CMC_TRY(span_follow(sp, &f, err));
    cmc_status s = CMC_OK;
    for (size_t i = 0; s == CMC_OK && i < sp->n; i++) {
        s = follow_context(&f, &sp->kinds[i], err);
        if (s == CMC_OK && sp->kinds[i] != STEERING_NO_ROW && !f.cut) {
            whole->n = 0;
            if (cmc_ids_append(whole, f.ctx.v, f.ctx.n) != CMC_OK) s = cmc_fail_nomem(err, "a context", f.ctx.n);
        }
        if (s == CMC_OK && i + 1 < sp->n) s = follow_push(&f, sp->ids[i], err);
    }
    if (f.cut && !sp->note[0]) follow_note(&f, sp->d->model, sp->note, SCORE_NOTE);
    follow_free(&f);
    return s;
}

/* Rows that the pass over the whole response cannot give: a batch of forks, and a session for those that were
 * cut. */
typedef struct score_tails {
    cmc_session *main, *cut;
    cmc_eval_item items[SCORE_FORKS];
    size_t n, max;
} score_tails;

static cmc_status tails_eval(score_tails *t, cmc_error *err) {
    cmc_status s = t->n > 0 ? cmc_eval(cmc_session_model(t->main), t->items, t->n, err) : CMC_OK;
    for (size_t i = 0; i < t->n; i++) cmc_session_free(t->items[i].session);
    t->n = 0;
    return s;
}

static cmc_status tails_add(score_tails *t, const cmc_ids *ctx, bool cut, float *out, cmc_error *err) {
    cmc_eval_item item = {.want = CMC_WANT_HIDDEN, .n_rows = 1, .out = out};
    if (cut) { /* cut contexts share much with one another, not with the main one: one session walks along them */
        cmc_model *m = cmc_session_model(t->main);
        if (!t->cut) CMC_TRY(cmc_session_new(m, 0, &t->cut, err));
        CMC_TRY(cmc_session_sync(t->cut, ctx->v, ctx->n, err));
        item.session = t->cut;
        return cmc_eval(m, &item, 1, err);
    }
    CMC_TRY(cmc_session_fork(t->main, &item.session, err));
    t->items[t->n++] = item;
    CMC_TRY(cmc_session_sync(item.session, ctx->v, ctx->n, err));
    return t->n == t->max ? tails_eval(t, err) : CMC_OK;
}

static bool begins(const cmc_ids *whole, const cmc_ids *ctx) {
    return ctx->n <= whole->n && memcmp(whole->v, ctx->v, ctx->n * sizeof *ctx->v) == 0;
}

/* Walks along the response once more: `want` takes the rows that the whole gives, or `tails` evaluates the others. */
static cmc_status walk(const score_span *sp, const cmc_ids *whole, score_want *want, size_t *n_want, score_tails *tails,
                       cmc_error *err) {
    follow f;
    size_t width = (size_t)cmc_model_n_embd(sp->d->model);
    CMC_TRY(span_follow(sp, &f, err));
    cmc_status s = CMC_OK;
    for (size_t i = 0; s == CMC_OK && i < sp->n; i++) {
        steering_row kind;
        s = follow_context(&f, &kind, err);
        if (s == CMC_OK && kind != STEERING_NO_ROW) {
            float *out = sp->hidden + i * width;
            bool whole_gives = !f.cut && begins(whole, &f.ctx);
            if (want && whole_gives) want[(*n_want)++] = (score_want){.pos = f.ctx.n - 1, .out = out};
            if (tails && !whole_gives) s = tails_add(tails, &f.ctx, f.cut, out, err);
        }
        if (s == CMC_OK && i + 1 < sp->n) s = follow_push(&f, sp->ids[i], err);
    }
    if (s == CMC_OK && tails) s = tails_eval(tails, err);
    follow_free(&f);
    return s;
}

static cmc_status score_span_rows(const score_span *sp, cmc_session *main, cmc_error *err) {
    cmc_ids whole = {0};
    size_t n_want = 0;
    score_want *want = cmc_alloc(sp->n, sizeof *want);
    cmc_status s = want ? whole_context(sp, &whole, err) : cmc_fail_nomem(err, "a record", sp->n * sizeof *want);
    if (s == CMC_OK) s = walk(sp, &whole, want, &n_want, NULL, err);
    if (s == CMC_OK) s = score_rows(main, whole.v, want, n_want, err);
    if (s == CMC_OK && n_want < sp->n) {
        size_t bytes = (size_t)kv_bytes(&main->kv.shape, whole.n + 1), max = SCORE_FORK_BYTES / (bytes + 1);
        score_tails tails = {.main = main, .max = max < 1 ? 1 : max > SCORE_FORKS ? SCORE_FORKS : max};
        s = walk(sp, &whole, NULL, NULL, &tails, err);
        for (size_t i = 0; i < tails.n; i++) cmc_session_free(tails.items[i].session); /* where it failed */
        cmc_session_free(tails.cut);
    }
    free(want);
    cmc_ids_free(&whole);
    return s;
}

/* ------------------------------------------------------------------------------------------------- the record */

/* Span j of the host's rendering as the delta gets it. */
static score_span span_of(const cmc_steering *st, const steering_delta *d, const cmc_record *r,
                          const cmc_rendered *host, const cmc_rendered *own, size_t j, steering_row *kinds,
                          float *hidden) {
    const cmc_span *h = &host->spans[j];
    size_t first = h->first > 0 ? h->first : 1;
    score_span sp =
        {.st = st, .d = d, .ids = host->ids.v + first, .n = h->first + h->n - first, .kinds = kinds, .hidden = hidden};
    sp.before = host->ids.v + (r->text ? 0 : h->first); /* a response at the very start has an unscored first token */
    sp.n_before = r->text ? first : first - h->first;
    sp.start.text = r->text != NULL;
    sp.start.prompt = own->ids.v;
    sp.start.n_prompt = own->ids.n;
    if (!r->text) sp.start.n_prompt = own->spans[j].first;
    return sp;
}

/* The delta's own rendering: of a text its BOS, where it has one. */
static cmc_status render_own(const cmc_steering *st, const steering_delta *d, const cmc_record *r, cmc_rendered *own,
                             cmc_error *err) {
    const cmc_vocab *v = cmc_model_vocab(d->model);
    if (!r->text) return cmc_render(v, d->t, r, st->opts.special, own, err);
    int32_t bos = cmc_vocab_role_token(v, CMC_ROLE_BOS);
    if (!cmc_vocab_adds_bos(v) || bos < 0) return CMC_OK;
    return cmc_ids_push(&own->ids, bos) == CMC_OK ? CMC_OK : cmc_fail_nomem(err, "a prompt", 1);
}

cmc_status score_delta(const cmc_steering *st, const steering_delta *d, const cmc_record *r, const cmc_rendered *host,
                       steering_row *kinds, float *hidden, char note[SCORE_NOTE], cmc_error *err) {
    cmc_rendered own = {0};
    cmc_session *main = NULL;
    size_t q = 0, width = (size_t)cmc_model_n_embd(d->model);
    cmc_status s = render_own(st, d, r, &own, err);
    if (s == CMC_OK) s = cmc_session_new(d->model, 0, &main, err);
    for (size_t j = 0; s == CMC_OK && j < host->n_spans; j++) {
        score_span sp = span_of(st, d, r, host, &own, j, kinds + q, hidden + q * width);
        sp.note = note;
        s = score_span_rows(&sp, main, err);
        q += sp.n;
    }
    cmc_session_free(main);
    cmc_rendered_free(&own);
    return s;
}
