/* Merging a growing word at the cost of its last tokens.
 *
 * Let E(x) be the tokens of a word x: its symbols (bytes, or characters with SentencePiece), of which again and again
 * the neighbours with the best merge are joined, the leftmost of equals, until none can be. How good a merge is depends
 * on the two symbols alone. No property of the list of merges is needed for what follows.
 *
 * 1. A part keeps its tokens. If E(x) = t1..tk, then E(ti..tj) = ti..tj for any i <= j. No join in x reaches over the
 *    part's borders, for no token does. The joins inside it came in their order each as the best of x, so each as the
 *    best of the part at that time (leftmost in x is leftmost in the part), and so they are the very ones that the part
 *    makes alone; when x was finished, none was left inside it.
 * 2. Neighbours decide. If each E(ti ti+1) = ti ti+1, then E(t1..tk) = t1..tk. Else some join reaches over a border,
 *    the first that does so over that of ti and ti+1 say. Before it no join reached over any, so all joins inside ti
 *    ti+1 until then, and this one, are the best there in turn: E(ti ti+1) would make them too, and a symbol that
 *    reaches over a border never goes away again.
 * 3. So a word can be tokenised from one of its last tokens on. Let E(x) = t1..tk and E(ti..tk y) = u1 u2..um. If
 *    u1 = ti, then E(xy) = t1..t(i-1) u1..um: of the neighbours, those up to t(i-1) ti are so by 1 in x, those from
 *    u1 u2 on by 1 in ti..tk y, and by 2 this is enough.
 *
 * Where u1 is not ti, the new bytes change tokens further back: i goes back twice as far each time, until the word's
 * beginning where there is nothing to show. By 1 the tokens of a word are those of its beginning too, where a
 * pre-tokenizer gives some of its characters back ("\s+(?!\S)"), and those of its end, where a cut has come to lie in
 * it.
 *
 * SentencePiece's unused pieces are taken apart again by what was last joined into them anywhere in the text, so
 * vocabularies with such pieces are not given to this file (spm_local). */
#include "tokenmap/words.h"

#include <stdlib.h>
#include <string.h>

#include "base/mem.h"

/* Its pieces go on to the next word's. Not merged: a token as a whole, which says nothing about its parts. */
typedef struct word { size_t begin, end, piece; bool merged; } word;

typedef struct word_list { word *v; size_t n, cap; tok_pieces pieces; } word_list;

struct words {
    word_list now, old;       /* this look's and the last one's */
    size_t at;                /* the next word of old */
    const uint8_t *text;
    tok_pieces tail;          /* scratch */
    bpe_scratch *bpe;
    uint64_t cost;
};

words *words_new(void) {
    words *w = cmc_calloc(1, sizeof *w);
    if (w != NULL && (w->bpe = bpe_scratch_new()) == NULL) {
        words_free(w);
        return NULL;
    }
    return w;
}

static void list_free(word_list *l) {
    free(l->v);
    free(l->pieces.v);
}

void words_free(words *w) {
    if (w != NULL) {
        list_free(&w->now);
        list_free(&w->old);
        free(w->tail.v);
        bpe_scratch_free(w->bpe);
        free(w);
    }
}

bool tok_pieces_add(tok_pieces *p, const tok_piece *v, size_t n) {
    void *grown = p->v;
    if (!cmc_grow(&grown, &p->cap, p->n + n, sizeof *p->v)) {
        return false;
    }
    p->v = grown;
    if (n > 0) {
        memcpy(p->v + p->n, v, n * sizeof *v);
    }
    p->n += n;
    return true;
}

static bool list_add(word_list *l, word w) {
    void *grown = l->v;
    if (!cmc_grow(&grown, &l->cap, l->n + 1, sizeof *l->v)) {
        return false;
    }
    l->v = grown;
    l->v[l->n++] = w;
    return true;
}

void words_begin(words *w, const uint8_t *text) {
    word_list old = w->old;
    w->old = w->now;
    w->now = old;
    w->now.n = w->now.pieces.n = 0;
    w->at = 0;
    w->text = text;
}

static size_t word_end_piece(const word_list *l, size_t i) {
    return i + 1 < l->n ? l->v[i + 1].piece : l->pieces.n;
}

/* Takes over the pieces of the last look that lie in text[begin..end), from begin on; gives how many bytes they are.
 * Pieces of no length belong to the one after them: the bytes of one character. */
static bool reuse(words *w, size_t begin, size_t end, size_t *covered) {
    const word_list *old = &w->old;
    *covered = 0;
    while (w->at < old->n && old->v[w->at].end <= begin) {
        w->at++;
    }
    if (w->at == old->n || old->v[w->at].begin > begin || !old->v[w->at].merged) {
        return true;
    }
    const word *o = &old->v[w->at];
    size_t i = o->piece, stop = word_end_piece(old, w->at), pos = o->begin;
    for (; i < stop && pos < begin; i++) {
        pos += old->pieces.v[i].len;
    }
    if (pos != begin) {
        return true;
    }
    size_t first = i, last = i;
    for (; i < stop && pos + old->pieces.v[i].len <= end; i++) {
        pos += old->pieces.v[i].len;
        if (old->pieces.v[i].len > 0) {
            last = i + 1;
            *covered = pos - begin;
        }
    }
    return tok_pieces_add(&w->now.pieces, old->pieces.v + first, last - first);
}

static cmc_status merge_anew(words *w, const cmc_vocab *v, const uint8_t *s, size_t n, cmc_error *err) {
    w->tail.n = 0;
    w->cost += n;
    if (v->model == VOCAB_SPM) {
        return spm_encode_pieces(v, (const char *)s, n, &w->tail, err);
    }
    return bpe_pieces(v, w->bpe, s, n, &w->tail) ? CMC_OK : cmc_fail_nomem(err, "a word's tokens", n);
}

/* The word s[0..n), whose first `covered` bytes have pieces, from `first` on, that were merged before. */
static cmc_status merge_tail(words *w, const cmc_vocab *v, const uint8_t *s, size_t n, size_t first, size_t covered,
                             cmc_error *err) {
    tok_pieces *p = &w->now.pieces;
    size_t i = p->n, pos = covered;
    for (size_t back = 2;; back *= 2) {
        for (size_t k = 0; k < back && i > first; k++) { /* one token back, its pieces of no length included */
            pos -= p->v[--i].len;
            while (i > first && p->v[i - 1].len == 0) {
                i--;
            }
        }
        CMC_TRY(merge_anew(w, v, s + pos, n - pos, err));
        if (i == first || (w->tail.v[0].id == p->v[i].id && w->tail.v[0].len == p->v[i].len)) {
            break;
        }
    }
    p->n = i;
    return tok_pieces_add(p, w->tail.v, w->tail.n) ? CMC_OK : cmc_fail_nomem(err, "a word's tokens", n);
}

cmc_status words_encode(words *w, const cmc_vocab *v, const uint8_t *s, size_t n, cmc_ids *out, cmc_error *err) {
    size_t begin = (size_t)(s - w->text), covered = 0, first = w->now.pieces.n;
    int32_t whole = v->model == VOCAB_SPM ? -1 : bpe_whole(v, s, n);
    bool ok = whole >= 0 ? tok_pieces_add(&w->now.pieces, &(tok_piece){whole, (uint32_t)n}, 1)
                         : reuse(w, begin, begin + n, &covered);
    ok = ok && list_add(&w->now, (word){begin, begin + n, first, whole < 0});
    cmc_status st = ok ? CMC_OK : cmc_fail_nomem(err, "a word's tokens", n);
    if (st == CMC_OK && whole < 0 && covered < n) {
        st = merge_tail(w, v, s, n, first, covered, err);
        w->now.v[w->now.n - 1].merged = st == CMC_OK; /* half a word is none */
    }
    for (size_t i = first; st == CMC_OK && i < w->now.pieces.n; i++) {
        int32_t id = w->now.pieces.v[i].id;
        st = id < 0 || cmc_ids_push(out, id) == CMC_OK ? CMC_OK : cmc_fail_nomem(err, "a word's tokens", n);
    }
    return st;
}

uint64_t words_cost(const words *w) {
    return w->cost;
}
