/* Rendering a record: its ids, which of them are responses, and the responses' bytes. */
#include <stdlib.h>
#include <string.h>

#include "base/mem.h"
#include "runtime/prompt.h"
#include "runtime/template.h"

void cmc_rendered_free(cmc_rendered *r) {
    if (!r) return;
    cmc_ids_free(&r->ids);
    free(r->spans);
    free(r->text);
    *r = (cmc_rendered){0};
}

static cmc_status add_text(cmc_rendered *out, size_t *cap, const void *s, size_t n, cmc_error *err) {
    if (!cmc_grow((void **)&out->text, cap, out->text_len + n + 1, 1)) return cmc_fail_nomem(err, "a response", n);
    if (n > 0) memcpy(out->text + out->text_len, s, n);
    out->text_len += n;
    out->text[out->text_len] = '\0';
    return CMC_OK;
}

/* The bytes of a response: the record's own, or, where control tokens were read from it, those of its tokens. */
static cmc_status add_response_text(cmc_rendered *out, size_t *cap, const prompt_builder *b, const cmc_message *m,
                                    cmc_span *span, cmc_error *err) {
    span->text_off = out->text_len;
    if (!b->special) {
        const char *lead = template_lead(b->t, b->v);
        CMC_TRY(add_text(out, cap, lead, strlen(lead), err));
        CMC_TRY(add_text(out, cap, m->text, m->len, err));
    } else {
        for (size_t i = span->first; i < span->first + span->n; i++) {
            size_t n;
            const uint8_t *s = cmc_vocab_bytes(b->v, out->ids.v[i], &n);
            CMC_TRY(add_text(out, cap, s, n, err));
        }
    }
    span->text_len = out->text_len - span->text_off;
    return CMC_OK;
}

/* No response is cut. */
static const render_cut whole = {.message = SIZE_MAX, .off = SIZE_MAX};

static cmc_status render_messages(prompt_builder *b, const cmc_record *r, render_cut cut, cmc_rendered *out, size_t *at,
                                  cmc_error *err) {
    size_t cap = 0, n = r->n_messages, responses = 0;
    for (size_t i = 0; i < n; i++) responses += r->messages[i].role == CMC_ASSISTANT;
    out->spans = cmc_calloc(responses, sizeof *out->spans);
    if (!out->spans) return cmc_fail_nomem(err, "a record", responses * sizeof *out->spans);
    for (size_t i = 0; i < n && b->status == CMC_OK; i++) {
        const cmc_message *m = &r->messages[i];
        if (m->role != CMC_ASSISTANT) {
            prompt_turn(b, r->messages, n, i);
            continue;
        }
        prompt_answer(b);
        cmc_span *span = &out->spans[out->n_spans++];
        span->first = b->ids->n;
        if (i == cut.message) {
            *at = prompt_response_cut(b, m->text, m->len, cut.off);
        } else {
            prompt_response(b, m->text, m->len);
        }
        span->n = b->ids->n - span->first;
        if (b->status == CMC_OK) CMC_TRY(add_response_text(out, &cap, b, m, span, err));
    }
    if (n == 0 || r->messages[n - 1].role != CMC_ASSISTANT) prompt_answer(b);
    return b->status;
}

/* A bare text: everything after the first token counts. */
static cmc_status render_text(const cmc_vocab *v, const cmc_record *r, bool special, render_cut cut, cmc_rendered *out,
                              size_t *at, cmc_error *err) {
    size_t cap = 0, first = cut.off < r->text_len ? cut.off : r->text_len;
    unsigned flags = CMC_TOK_BOS | (special ? CMC_TOK_SPECIAL : 0u);
    CMC_TRY(cmc_tokenize(v, r->text, first, flags, &out->ids, err));
    *at = out->ids.n;
    if (first < r->text_len)
        CMC_TRY(cmc_tokenize(v, r->text + first, r->text_len - first, CMC_TOK_CONTINUE, &out->ids, err));
    CMC_TRY(add_text(out, &cap, r->text, r->text_len, err));
    if (out->ids.n < 2) return CMC_OK;
    out->spans = cmc_calloc(1, sizeof *out->spans);
    if (!out->spans) return cmc_fail_nomem(err, "a record", sizeof *out->spans);
    out->spans[0] = (cmc_span){.first = 1, .n = out->ids.n - 1, .text_off = 0, .text_len = r->text_len};
    out->n_spans = 1;
    return CMC_OK;
}

static cmc_status render(const cmc_vocab *v, cmc_template t, const cmc_record *r, bool special, render_cut cut,
                         cmc_rendered *out, size_t *at, cmc_error *err) {
    *out = (cmc_rendered){0};
    *at = 0;
    cmc_status s;
    if (r->text) {
        s = render_text(v, r, special, cut, out, at, err);
    } else {
        prompt_builder b;
        prompt_begin(&b, v, t, special, &out->ids, err);
        s = render_messages(&b, r, cut, out, at, err);
        cmc_status built = prompt_end(&b);
        if (s == CMC_OK) s = built;
    }
    if (s != CMC_OK) cmc_rendered_free(out);
    return s;
}

cmc_status cmc_render(const cmc_vocab *v, cmc_template t, const cmc_record *r, bool special, cmc_rendered *out,
                      cmc_error *err) {
    size_t at;
    return render(v, t, r, special, whole, out, &at, err);
}

cmc_status render_with_cut(const cmc_vocab *v, cmc_template t, const cmc_record *r, render_cut cut, cmc_rendered *out,
                           size_t *at, cmc_error *err) {
    return render(v, t, r, false, cut, out, at, err);
}
