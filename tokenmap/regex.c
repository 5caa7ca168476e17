/* Running translated regular expressions with PCRE2, within limits. */
#define PCRE2_CODE_UNIT_WIDTH 8
#include "tokenmap/regex.h"

#include <pcre2.h>
#include <stdlib.h>

#include "base/error.h"
#include "base/mem.h"

struct regex {
    pcre2_code *code;
};

struct regex_scratch {
    pcre2_match_data *match;
    pcre2_match_context *limits;
};

/* Steps that one match may take; a catastrophic pattern would take any number. */
enum { REGEX_STEPS = 10000000 };

static cmc_status regex_compile(const char *pattern, const char *path, pcre2_code **out, cmc_error *err) {
    pcre2_compile_context *ctx = pcre2_compile_context_create(NULL);
    if (ctx == NULL) {
        return cmc_fail_nomem(err, "a regular expression", 0);
    }
    int code;
    PCRE2_SIZE at;
    pcre2_set_newline(ctx, PCRE2_NEWLINE_LF);
    *out = pcre2_compile((PCRE2_SPTR)pattern, PCRE2_ZERO_TERMINATED, PCRE2_UTF | PCRE2_NEVER_BACKSLASH_C, &code, &at,
                         ctx);
    pcre2_compile_context_free(ctx);
    if (*out == NULL) {
        char msg[128];
        pcre2_get_error_message(code, (PCRE2_UCHAR *)msg, sizeof msg);
        return cmc_fail(err, CMC_E_UNSUPPORTED, "%s: this PCRE2 cannot compile \"%.200s\": %s at byte %zu", path,
                        pattern, msg, (size_t)at);
    }
    pcre2_jit_compile(*out, PCRE2_JIT_COMPLETE); /* where there is no JIT compiler, matching is only slower */
    return CMC_OK;
}

cmc_status regex_new(const char *pattern, size_t n, const char *path, regex **out, cmc_error *err) {
    char *translated;
    *out = NULL;
    CMC_TRY(regex_translate(pattern, n, path, &translated, err));
    regex *r = cmc_calloc(1, sizeof *r);
    cmc_status st = r == NULL ? cmc_fail_nomem(err, "a regular expression", sizeof *r)
                              : regex_compile(translated, path, &r->code, err);
    free(translated);
    if (st != CMC_OK) {
        regex_free(r);
        return st;
    }
    *out = r;
    return CMC_OK;
}

void regex_free(regex *r) {
    if (r != NULL) {
        pcre2_code_free(r->code);
        free(r);
    }
}

regex_scratch *regex_scratch_new(void) {
    regex_scratch *sc = cmc_calloc(1, sizeof *sc);
    if (sc == NULL) {
        return NULL;
    }
    sc->match = pcre2_match_data_create(1, NULL);
    sc->limits = pcre2_match_context_create(NULL);
    if (sc->match == NULL || sc->limits == NULL) {
        regex_scratch_free(sc);
        return NULL;
    }
    pcre2_set_match_limit(sc->limits, REGEX_STEPS);
    return sc;
}

void regex_scratch_free(regex_scratch *sc) {
    if (sc != NULL) {
        pcre2_match_data_free(sc->match);
        pcre2_match_context_free(sc->limits);
        free(sc);
    }
}

cmc_status regex_find(const regex *r, regex_scratch *sc, const uint8_t *s, size_t n, size_t from, bool *found,
                      size_t *begin, size_t *end, cmc_error *err) {
    int rc = pcre2_match(r->code, s, n, from, PCRE2_NO_UTF_CHECK, sc->match, sc->limits);
    if (rc == PCRE2_ERROR_JIT_STACKLIMIT) {
        rc = pcre2_match(r->code, s, n, from, PCRE2_NO_UTF_CHECK | PCRE2_NO_JIT, sc->match, sc->limits);
    }
    *found = rc >= 0;
    if (rc >= 0) {
        const PCRE2_SIZE *at = pcre2_get_ovector_pointer(sc->match);
        *begin = at[0];
        *end = at[1];
        return CMC_OK;
    }
    if (rc == PCRE2_ERROR_NOMATCH) {
        return CMC_OK;
    }
    char msg[128];
    pcre2_get_error_message(rc, (PCRE2_UCHAR *)msg, sizeof msg);
    return cmc_fail(err, rc == PCRE2_ERROR_NOMEMORY ? CMC_E_NOMEM : CMC_E_RANGE,
                    "a text of %zu bytes cannot be cut by the tokenizer's regular expression: %s", n, msg);
}
