/* The pipeline, run: added tokens -> normaliser -> added tokens -> pre-tokenizer -> model. */
#include <stdlib.h>

#include "base/error.h"
#include "base/mem.h"
#include "base/utf8.h"
#include "tokenmap/hf.h"

/* Normalised text without added tokens. */
static cmc_status run_normalized(hf_run *run, const uint8_t *s, size_t n, size_t head) {
    const hf_pieces *pieces;
    hf_text t = {.s = (uint8_t *)(uintptr_t)s, .n = n, .head = head}; /* only read */
    CMC_TRY(hf_pretok_run(run->hf->pretok, run, &t, &pieces));
    for (size_t i = 0; i < pieces->n; i++) {
        const uint8_t *p = pieces->text.s + pieces->v[i].begin;
        size_t len = pieces->v[i].end - pieces->v[i].begin;
        CMC_TRY(run->hf->bpe != NULL ? hf_bpe_run(run->hf->bpe, run, p, len)
                                     : hf_unigram_run(run->hf->unigram, run, p, len));
    }
    return CMC_OK;
}

/* Text as it was given, without added tokens that are not normalised. */
static cmc_status run_raw(hf_run *run, const uint8_t *s, size_t n, size_t head) {
    hf_text t = {.head = head};
    if (!hf_put(&t, s, n)) {
        return cmc_fail_nomem(run->err, "a normalised text", n);
    }
    cmc_status st = hf_norm_run(run->hf->norm, run, &t);
    if (st == CMC_OK && t.n > 0) {
        st = hf_added_run(run->hf->added, run, true, t.s, t.n, t.head, run_normalized);
    }
    free(t.s);
    return st;
}

static void run_free(hf_run *run, hf_pieces pieces[2]) {
    regex_scratch_free(run->scratch);
    free(run->spans.v);
    free(run->swap.s);
    hf_symbols_free(run->symbols);
    for (size_t i = 0; i < 2; i++) {
        free(pieces[i].text.s);
        free(pieces[i].v);
    }
}

/* Valid UTF-8, all of it one text. */
static cmc_status run_text(hf_run *run, const uint8_t *s, size_t n) {
    size_t head = 0;
    if (n == 0) {
        return CMC_OK;
    }
    cmc_utf8_decode(s, n, &head);
    return hf_added_run(run->hf->added, run, false, s, n, head, run_raw);
}

/* A byte that belongs to no character: its own token, else U+FFFD. What follows it begins no text. */
static cmc_status run_stray(hf_run *run, uint8_t byte) {
    static const uint8_t replacement[] = "\xef\xbf\xbd";
    int32_t id = run->v->byte_token[byte];
    run->cont = true;
    if (id < 0) {
        return run_text(run, replacement, sizeof replacement - 1);
    }
    return cmc_ids_push(run->out, id) == CMC_OK ? CMC_OK : cmc_fail_nomem(run->err, "ids of a text", sizeof id);
}

static cmc_status run_any(hf_run *run, const uint8_t *s, size_t n) {
    size_t start = 0;
    for (size_t i = 0, len; i < n; i += len) {
        if (cmc_utf8_decode(s + i, n - i, &len) < 0) {
            len = 1;
            CMC_TRY(run_text(run, s + start, i - start));
            CMC_TRY(run_stray(run, s[i]));
            start = i + 1;
        }
    }
    return run_text(run, s + start, n - start);
}

cmc_status hf_tokenize(const cmc_vocab *v, const char *s, size_t n, tok_opts opts, cmc_ids *out, size_t *done,
                       cmc_error *err) {
    hf_pieces pieces[2] = {0};
    *done = opts.open ? 0 : n;
    if (opts.open) {
        return CMC_OK; /* no part of a text is known to stay as it is when more follows */
    }
    hf_run run = {.v = v, .hf = v->hf, .special = opts.special, .cont = opts.cont, .pieces = pieces, .out = out,
                  .err = err, .scratch = regex_scratch_new()};
    cmc_status st = run.scratch == NULL ? cmc_fail_nomem(err, "a tokenizer", 0) : run_any(&run, (const uint8_t *)s, n);
    run_free(&run, pieces);
    return st;
}

void hf_free(struct tok_hf *hf) {
    if (hf != NULL) {
        hf_norm_free(hf->norm);
        hf_pretok_free(hf->pretok);
        hf_added_free(hf->added);
        hf_bpe_free(hf->bpe);
        hf_unigram_free(hf->unigram);
        idmap_free(&hf->ids);
        free(hf);
    }
}
