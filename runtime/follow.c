/* A delta's context, kept up with the host's response. */
#include "runtime/follow.h"

#include <stdio.h>

#include "base/mem.h"
#include "runtime/lead.h"
#include "runtime/model.h"

cmc_status follow_init(follow *f, const cmc_steering *st, const steering_delta *d, follow_start start, cmc_error *err) {
    const cmc_vocab *host = cmc_model_vocab(st->host);
    *f = (follow){.host = host, .n_prompt = start.n_prompt, .n_ctx = (size_t)cmc_model_n_ctx(d->model)};
    f->host_lead = st->lead;
    f->delta_lead = d->lead;
    f->first_map = d->first_map != NULL;
    if (start.text) { /* the dummy space that SentencePiece puts before a text is no byte of it */
        f->host_lead = host->model == VOCAB_SPM && host->add_space_prefix ? " " : "";
        f->delta_lead = "";
        f->first_map = false;
    }
    if (start.n_prompt > f->n_ctx) {
        return cmc_fail(err, CMC_E_RANGE,
                        "%s: the prompt has %zu tokens in the delta's template, its context holds %zu",
                        cmc_model_path(d->model), start.n_prompt, f->n_ctx);
    }
    cmc_status s = CMC_OK;
    if (cmc_ids_append(&f->ctx, start.prompt, start.n_prompt) != CMC_OK) {
        s = cmc_fail_nomem(err, "a delta's context", start.n_prompt * sizeof(int32_t));
    }
    if (s == CMC_OK && !d->same_vocab) s = retok_new(cmc_model_vocab(d->model), &f->rt, err);
    if (s != CMC_OK) follow_free(f);
    return s;
}

void follow_free(follow *f) {
    retok_free(f->rt);
    cmc_ids_free(&f->own);
    cmc_ids_free(&f->ctx);
    *f = (follow){0};
}

cmc_status follow_push(follow *f, int32_t host_id, cmc_error *err) {
    size_t n;
    const uint8_t *s = cmc_vocab_bytes(f->host, host_id, &n);
    if (f->rt) return lead_push(f->rt, f->host_lead, f->delta_lead, &f->begun, s, n, err);
    if (cmc_ids_push(&f->own, host_id) != CMC_OK)
        return cmc_fail_nomem(err, "a delta's context", f->own.n * sizeof host_id);
    f->begun = true;
    return CMC_OK;
}

cmc_status follow_push_text(follow *f, const int32_t *ids, size_t n, cmc_error *err) {
    for (size_t i = 0; i < n; i++) {
        bool bos = i == 0 && (cmc_vocab_roles(f->host, ids[0]) & CMC_ROLE_BOS); /* the delta has its own, if any */
        if (!bos) CMC_TRY(follow_push(f, ids[i], err));
    }
    return CMC_OK;
}

/* Keeps prompt + response within the delta's context: when it overflows, the newest half of what fits is kept, which goes on until that
 * overflows. It goes by the response's length alone, not by the steps at which anybody asked. */
static void slide(follow *f, size_t n) {
    size_t room = f->n_ctx - f->n_prompt, leaves = room - room / 2 + 1;
    f->skip = n > room ? (n - room + leaves - 1) / leaves * leaves : 0;
    f->cut = f->cut || f->skip > 0;
}

cmc_status follow_context(follow *f, steering_row *kind, cmc_error *err) {
    const int32_t *ids = f->own.v;
    size_t n = f->own.n, kept;
    *kind = STEERING_NO_ROW;
    if (f->rt) {
        if (!retok_whole(f->rt)) return CMC_OK;
        CMC_TRY(retok_ids(f->rt, &ids, &n, &kept, err));
    }
    slide(f, n);
    f->ctx.n = f->n_prompt;
    if (n > f->skip && cmc_ids_append(&f->ctx, ids + f->skip, n - f->skip) != CMC_OK) {
        return cmc_fail_nomem(err, "a delta's context", n * sizeof *ids);
    }
    if (f->ctx.n > 0) *kind = f->first_map && !f->begun ? STEERING_FIRST_ROW : STEERING_ROW;
    return CMC_OK;
}

void follow_note(const follow *f, const cmc_model *model, char *out, size_t size) {
    snprintf(out, size, "%.200s: its context of %zu tokens is full; it goes on with its prompt and the newest half of the response",
             cmc_model_path(model), f->n_ctx);
}
