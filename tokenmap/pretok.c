/* Pre-tokenizers of byte-level BPE: regular expressions that cut a text into the parts within which merges happen. */
#define PCRE2_CODE_UNIT_WIDTH 8
#include <pcre2.h>
#include <stdlib.h>
#include <string.h>

#include "base/mem.h"
#include "tokenmap/pretok_kinds.h"
#include "tokenmap/tok.h"

struct pretok {
    const pretok_kind *kind;
    pcre2_code *code[PRETOK_MAX_STAGES];
    size_t n_stages;
};

static cmc_status pretok_compile(pretok *p, const char *file, cmc_error *err) {
    for (; p->n_stages < PRETOK_MAX_STAGES && p->kind->stages[p->n_stages] != NULL; p->n_stages++) {
        int code;
        PCRE2_SIZE at;
        pcre2_code *re =
            pcre2_compile((PCRE2_SPTR)p->kind->stages[p->n_stages], PCRE2_ZERO_TERMINATED, PCRE2_UTF, &code, &at, NULL);
        if (re == NULL) {
            char msg[128];
            pcre2_get_error_message(code, (PCRE2_UCHAR *)msg, sizeof msg);
            return cmc_fail(err, CMC_E_UNSUPPORTED, "%s: this PCRE2 cannot compile pre-tokenizer \"%s\": %s", file,
                            p->kind->name, msg);
        }
        p->code[p->n_stages] = re;
        /* Where there is no JIT compiler, matching is only slower. */
        pcre2_jit_compile(re, PCRE2_JIT_COMPLETE | PCRE2_JIT_PARTIAL_HARD);
    }
    return CMC_OK;
}

cmc_status pretok_new(const char *name, const char *file, pretok **out, cmc_error *err) {
    *out = NULL;
    const pretok_kind *kind = pretok_kind_find(name);
    if (kind == NULL) {
        return cmc_fail(err, CMC_E_UNSUPPORTED,
                        "%s: pre-tokenizer \"%s\" is not known; those of GPT-2, Llama 3, Qwen, DeepSeek and others are",
                        file, name);
    }
    pretok *p = cmc_calloc(1, sizeof *p);
    if (p == NULL) {
        return cmc_fail_nomem(err, "a pre-tokenizer", sizeof *p);
    }
    p->kind = kind;
    cmc_status st = pretok_compile(p, file, err);
    if (st != CMC_OK) {
        pretok_free(p);
        return st;
    }
    *out = p;
    return CMC_OK;
}

void pretok_free(pretok *p) {
    if (p != NULL) {
        for (size_t i = 0; i < p->n_stages; i++) {
            pcre2_code_free(p->code[i]);
        }
        free(p);
    }
}

bool pretok_ignore_merges(const pretok *p) {
    return p->kind->ignore_merges;
}

bool pretok_adds_bos(const pretok *p) {
    return p->kind->adds_bos;
}

typedef struct splitter {
    const pretok *p;
    pcre2_match_data *match;
    pcre2_match_context *limits;
    pretok_emit emit;
    void *user;
    int failed;              /* PCRE2's error */
    bool stopped;            /* emit gave false */
} splitter;

/* The next match from s + pos on. PCRE2_PARTIAL_HARD, for a text that may go on, gives a partial match as soon as the
 * matcher would look past the end: a full match then holds whatever follows. */
static int splitter_match(splitter *sp, size_t stage, const uint8_t *s, size_t n, size_t pos, bool open) {
    uint32_t flags = PCRE2_NO_UTF_CHECK | (open ? PCRE2_PARTIAL_HARD : 0);
    int rc = pcre2_match(sp->p->code[stage], s, n, pos, flags, sp->match, sp->limits);
    if (rc == PCRE2_ERROR_JIT_STACKLIMIT) {
        rc = pcre2_match(sp->p->code[stage], s, n, pos, flags | PCRE2_NO_JIT, sp->match, sp->limits);
    }
    if (rc < 0 && rc != PCRE2_ERROR_NOMATCH && rc != PCRE2_ERROR_PARTIAL) {
        sp->failed = rc;
    }
    return rc;
}

/* Cuts s[0..n) from `stage` on; gives how many bytes from the front are certain (all of them unless open). */
static size_t splitter_run(splitter *sp, size_t stage, const uint8_t *s, size_t n, bool open) {
    if (n == 0) {
        return 0;
    }
    if (stage == sp->p->n_stages) {
        if (!open) {
            sp->stopped = sp->stopped || !sp->emit(sp->user, s, n);
        }
        return open ? 0 : n;
    }
    size_t pos = 0;
    while (!sp->failed && !sp->stopped) {
        int rc = pos < n ? splitter_match(sp, stage, s, n, pos, open) : PCRE2_ERROR_NOMATCH;
        const PCRE2_SIZE *found = pcre2_get_ovector_pointer(sp->match);
        if (rc == PCRE2_ERROR_NOMATCH) {
            return pos + splitter_run(sp, stage + 1, s + pos, n - pos, open);
        }
        PCRE2_SIZE begin = found[0], end = found[1]; /* a deeper stage writes over them */
        if (rc == PCRE2_ERROR_PARTIAL) {
            return pos + splitter_run(sp, stage + 1, s + pos, begin - pos, true);
        }
        if (sp->failed || end <= begin) {
            break; /* no expression here matches nothing */
        }
        splitter_run(sp, stage + 1, s + pos, begin - pos, false);
        splitter_run(sp, stage + 1, s + begin, end - begin, false);
        pos = end;
    }
    return pos;
}

cmc_status pretok_split(const pretok *p, const uint8_t *s, size_t n, bool open, pretok_emit emit, void *user,
                        size_t *done, cmc_error *err) {
    splitter sp = {.p = p,
                   .emit = emit,
                   .user = user,
                   .match = pcre2_match_data_create(1, NULL),
                   .limits = pcre2_match_context_create(NULL)};
    cmc_status st = CMC_OK;
    if (sp.match != NULL && sp.limits != NULL) {
        pcre2_set_match_limit(sp.limits, UINT32_MAX); /* a megabyte of spaces is slow, not wrong */
        *done = splitter_run(&sp, 0, s, n, open);
    }
    if (sp.match == NULL || sp.limits == NULL || sp.stopped) {
        st = cmc_fail_nomem(err, "pre-tokens of a text", n);
    } else if (sp.failed != 0) {
        char msg[128];
        pcre2_get_error_message(sp.failed, (PCRE2_UCHAR *)msg, sizeof msg);
        st = cmc_fail(err, CMC_E_RANGE, "a text of %zu bytes cannot be cut by pre-tokenizer \"%s\": %s", n,
                      p->kind->name, msg);
    }
    pcre2_match_context_free(sp.limits);
    pcre2_match_data_free(sp.match);
    return st;
}
