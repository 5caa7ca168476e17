/* Text synchronisation: ids in two parts, those that nothing to come can change, and the rest, tokenised anew. */
#include "tokenmap/retok.h"

#include <stdlib.h>
#include <string.h>

#include "base/mem.h"
#include "base/utf8.h"
#include "tokenmap/tok.h"
#include "tokenmap/words.h"

struct retok {
    const cmc_vocab *v;
    uint8_t *text;
    size_t n, cap;
    size_t stable;            /* bytes that the first n_stable ids stand for, whatever follows */
    cmc_ids ids, tail;        /* the ids last given; scratch */
    size_t n_stable;
    size_t known;             /* bytes that ids stand for: nothing to do while the whole text is as long */
    words *words;             /* what lies behind the stable part; NULL where all is tokenised anew each time */
    uint64_t scanned;
};

/* BPE and (nearly all) SentencePiece vocabularies, whose tokens go by their neighbourhood; not Unigram, which has its cuts
 * alone. A tokenizer.json may normalise its text and choose pieces in ways that look at all of it. */
static bool retok_local(const cmc_vocab *v) {
    return v->model == VOCAB_BPE || (v->model == VOCAB_SPM && spm_local(v));
}

cmc_status retok_new(const cmc_vocab *v, retok **out, cmc_error *err) {
    *out = cmc_calloc(1, sizeof **out);
    if (*out == NULL) {
        return cmc_fail_nomem(err, "a text", sizeof **out);
    }
    (*out)->v = v;
    if (retok_local(v) && ((*out)->words = words_new()) == NULL) {
        retok_free(*out);
        *out = NULL;
        return cmc_fail_nomem(err, "a text", sizeof **out);
    }
    return CMC_OK;
}

void retok_free(retok *r) {
    if (r != NULL) {
        free(r->text);
        cmc_ids_free(&r->ids);
        cmc_ids_free(&r->tail);
        words_free(r->words);
        free(r);
    }
}

cmc_status retok_append(retok *r, const uint8_t *bytes, size_t n, cmc_error *err) {
    void *text = r->text;
    if (n > SIZE_MAX - r->n || !cmc_grow(&text, &r->cap, r->n + n, 1)) {
        return cmc_fail_nomem(err, "a text", n);
    }
    r->text = text;
    if (n > 0) {
        memcpy(r->text + r->n, bytes, n);
    }
    r->n += n;
    return CMC_OK;
}

bool retok_whole(const retok *r) {
    return cmc_utf8_whole(r->text, r->n) == r->n;
}

/* How many bytes of text[stable..whole) are certain to be tokenised alike whatever follows. SentencePiece: those before
 * the last cut; a place that was none before is none now. */
static cmc_status retok_certain(const retok *r, size_t whole, size_t *bytes, cmc_error *err) {
    size_t from = r->known > r->stable ? r->known - r->stable : 0;
    return spm_stable(r->v, r->text + r->stable, whole - r->stable, from, bytes, err);
}

/* Tokenises text[stable..whole) into tail: first what is certain, whose length in bytes and ids it gives, then the
 * rest. The merging is no more than `words` finds to be new. Special tokens and pre-tokens are looked for in the rest
 * each time: 10 to 20 ns a byte (bench/sync_cost.c), so a step costs some us in prose, and 0.2 ms behind 10,000 letters
 * without a space. */
static cmc_status retok_tail(retok *r, size_t whole, size_t *bytes, size_t *n_ids, cmc_error *err) {
    const char *s = (const char *)r->text + r->stable;
    size_t n = whole - r->stable, done;
    tok_opts opts = {.cont = true, .words = r->words};
    r->tail.n = 0;
    r->scanned += n;
    *bytes = 0;
    if (r->words != NULL) {
        words_begin(r->words, r->text);
    }
    if (r->v->model == VOCAB_SPM && spm_cuts(r->v)) {
        CMC_TRY(retok_certain(r, whole, bytes, err));
        CMC_TRY(tok_run(r->v, s, *bytes, opts, &r->tail, &done, err));
    } else if (r->words != NULL) {
        opts.open = true;
        CMC_TRY(tok_run(r->v, s, n, opts, &r->tail, bytes, err));
        opts.open = false;
    }
    *n_ids = r->tail.n;
    return tok_run(r->v, s + *bytes, n - *bytes, opts, &r->tail, &done, err);
}

cmc_status retok_ids(retok *r, const int32_t **ids, size_t *n, size_t *n_kept, cmc_error *err) {
    size_t whole = cmc_utf8_whole(r->text, r->n), kept = r->ids.n;
    if (whole != r->known) {
        size_t bytes, n_ids;
        CMC_TRY(retok_tail(r, whole, &bytes, &n_ids, err));
        if (cmc_ids_reserve(&r->ids, r->n_stable + r->tail.n) != CMC_OK) {
            return cmc_fail_nomem(err, "ids of a text", r->tail.n * sizeof *r->tail.v);
        }
        for (kept = r->n_stable; kept < r->ids.n && kept - r->n_stable < r->tail.n; kept++) {
            if (r->ids.v[kept] != r->tail.v[kept - r->n_stable]) {
                break;
            }
        }
        if (r->tail.n > 0) {
            memcpy(r->ids.v + r->n_stable, r->tail.v, r->tail.n * sizeof *r->tail.v);
        }
        r->ids.n = r->n_stable + r->tail.n;
        r->n_stable += n_ids;
        r->stable += bytes;
        r->known = whole;
    }
    *ids = r->ids.v;
    *n = r->ids.n;
    *n_kept = kept;
    return CMC_OK;
}

const uint8_t *retok_text(const retok *r, size_t *n) {
    *n = r->n;
    return r->text;
}

uint64_t retok_scanned(const retok *r) {
    return r->scanned;
}

uint64_t retok_merged(const retok *r) {
    return r->words != NULL ? words_cost(r->words) : r->scanned;
}
