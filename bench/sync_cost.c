/* What following a host's text costs: one table row for each kind of text and vocabulary.
 *
 * usage: sync_cost BYTES HOST DELTA...   (GGUF files; BYTES of each kind of text arrive as HOST's tokens)
 *
 * merged, scanned: bytes merged, and looked through for special tokens and pre-tokens, a step. median and worst: us a
 * step of retok_append and retok_ids, each step's the least of PASSES passes. evaluated: delta tokens a step that
 * differ from those of the step before. anew us, tokens: tokenising and evaluating the whole text at every step instead
 * (the time from ANEW_SAMPLES steps). */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/mem.h"
#include "base/utf8.h"
#include "tokenmap/retok.h"

enum { ANEW_SAMPLES = 50, PASSES = 3 };

static uint64_t rng_state;

static uint32_t below(uint32_t n) {
    rng_state = rng_state * 6364136223846793005u + 1442695040888963407u;
    return (uint32_t)((rng_state >> 33) * n >> 31);
}

static void *need(void *p) {
    if (!p) {
        fputs("sync_cost: out of memory\n", stderr);
        exit(1);
    }
    return p;
}

static void ok(cmc_status status, const cmc_error *err) {
    if (status != CMC_OK) {
        fprintf(stderr, "sync_cost: %s\n", err->message);
        exit(1);
    }
}

/* ------------------------------------------------------------------------------------------------------- texts */

typedef struct out { char *s; size_t n; } out;   /* room for BYTES and a bit */

static void put(out *o, const char *s) {
    memcpy(o->s + o->n, s, strlen(s));
    o->n += strlen(s);
}

static void put_word(out *o, const char *const *words, uint32_t n, const char *after) {
    put(o, words[below(n)]);
    put(o, after);
}

static void put_english(out *o) {
    static const char *const words[] = {
        "the", "small", "boat", "followed", "larger", "ships", "when", "they", "turned,", "it", "waited", "information",
        "don't", "in", "1984", "capital", "of", "question", "\"I", "have", "crossed", "alone,\"", "sea.", "Nothing",
    };
    put_word(o, words, sizeof words / sizeof *words, " ");
}

static void put_code(out *o) {
    static const char *const lines[] = {
        "for (int i = 0; i < n; i++) {\n", "    return CMC_OK;\n", "        x[i] += 0x1f * y[j];\n", "}\n", "\n",
        "#include <stdio.h>\n", "\tif (p == NULL) goto fail;\n",
    };
    put_word(o, lines, sizeof lines / sizeof *lines, "");
}

static void put_chinese(out *o) {       /* without punctuation: a word with SentencePiece and most pre-tokenizers */
    static const char *const words[] = {
        "\xe5\xb0\x8f", "\xe7\xab\x99", "\xe5\x9c\xa8", "\xe5\xa4\xa7", "\xe7\x9a\x84", "\xe4\xb8\x80", "\xe4\xba\xba",
        "\xe6\xb5\xb7", "\xe6\xa8\xa1\xe5\x9e\x8b", "\xe6\x97\x81\xe8\xbe\xb9", "\xe6\xb2\xa1\xe6\x9c\x89",
        "\xe6\x94\xb9\xe5\x8f\x98", "\xe6\x88\x91\xe4\xbb\xac", "\xe4\xb8\xad\xe5\x9b\xbd", "\xe6\x97\xb6\xe5\x80\x99",
        "\xe5\xad\xa6\xe7\x94\x9f",
    };
    put_word(o, words, sizeof words / sizeof *words, "");
}

static void put_url(out *o) {
    static const char *const parts[] = {"/item", "?id=", "&q=", "%20",   "-", "_", "a1",
                                        "path",  "x",    "9f3", ".html", "=", "Zk"};
    put_word(o, parts, sizeof parts / sizeof *parts, "");
}

static void put_base64(out *o) {
    static const char alphabet[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    o->s[o->n++] = alphabet[below(64)];
}

static void put_letters(out *o) {       /* letters alone: nothing that any pre-tokenizer could cut at */
    o->s[o->n++] = (char)('a' + below(26));
}

static void put_one_letter(out *o) {
    o->s[o->n++] = 'a';
}

static void put_digits(out *o) {
    o->s[o->n++] = (char)('0' + below(10));
}

static void put_spaces(out *o) {
    o->s[o->n++] = ' ';
}

static void put_emoji(out *o) {
    static const char *const people[] = {"\xf0\x9f\x91\xa8\xe2\x80\x8d", "\xf0\x9f\x91\xa9\xe2\x80\x8d",
                                         "\xf0\x9f\x98\x80",
                                         "\xf0\x9f\x91\x8d\xf0\x9f\x8f\xbd", "e\xcc\x81"};
    put_word(o, people, sizeof people / sizeof *people, "");
}

static const struct kind {
    const char *name;
    void (*put)(out *o);
} KINDS[] = {
    {"english", put_english}, {"code", put_code},       {"chinese", put_chinese},       {"url", put_url},
    {"base64", put_base64},   {"letters", put_letters}, {"one letter", put_one_letter}, {"digits", put_digits},
    {"spaces", put_spaces},   {"emoji", put_emoji},
};

/* ------------------------------------------------------------------------------------------------- measurement */

typedef struct figures {
    size_t steps, evaluated, tokens;
    double merged, scanned, median, worst, anew;
} figures;

static int by_value(const void *a, const void *b) {
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

static double time_anew(const cmc_vocab *v, const retok *r) {
    cmc_error err = {0};
    cmc_ids ids = {0};
    size_t n;
    const uint8_t *s = retok_text(r, &n);
    double start = cmc_now();
    ok(cmc_tokenize(v, (const char *)s, cmc_utf8_whole(s, n), CMC_TOK_CONTINUE, &ids, &err), &err);
    double seconds = cmc_now() - start;
    cmc_ids_free(&ids);
    return seconds;
}

/* One pass; seconds[i] becomes the least that step i took. */
static figures follow_text(const cmc_vocab *host, const cmc_vocab *delta, const cmc_ids *said, double *seconds) {
    cmc_error err = {0};
    figures f = {.steps = said->n};
    size_t every = said->n / ANEW_SAMPLES + 1, samples = 0;
    retok *r;
    ok(retok_new(delta, &r, &err), &err);
    for (size_t i = 0; i < said->n; i++) {
        const int32_t *ids;
        size_t n, len, kept;
        const uint8_t *b = cmc_vocab_bytes(host, said->v[i], &len);
        double start = cmc_now();
        ok(retok_append(r, b, len, &err), &err);
        ok(retok_ids(r, &ids, &n, &kept, &err), &err);
        double took = cmc_now() - start;
        seconds[i] = seconds[i] == 0 || took < seconds[i] ? took : seconds[i];
        f.evaluated += n - kept;
        f.tokens += n;
        if (i % every == 0) {
            f.anew += time_anew(delta, r);
            samples++;
        }
    }
    f.merged = (double)retok_merged(r) / (double)said->n;
    f.scanned = (double)retok_scanned(r) / (double)said->n;
    f.anew /= (double)samples;
    retok_free(r);
    return f;
}

static figures follow_passes(const cmc_vocab *host, const cmc_vocab *delta, const cmc_ids *said) {
    double *seconds = need(cmc_calloc(said->n, sizeof *seconds));
    figures f = {0};
    for (int pass = 0; pass < PASSES; pass++) {
        f = follow_text(host, delta, said, seconds);
    }
    qsort(seconds, said->n, sizeof *seconds, by_value);
    f.median = seconds[said->n / 2];
    f.worst = seconds[said->n - 1];
    free(seconds);
    return f;
}

static void measure(size_t bytes, const cmc_vocab *host, const cmc_vocab *delta, const char *name) {
    out o = {.s = need(cmc_alloc(bytes + 64, 1))};
    for (size_t k = 0; k < sizeof KINDS / sizeof *KINDS; k++) {
        cmc_error err = {0};
        cmc_ids said = {0};
        rng_state = 1;
        for (o.n = 0; o.n < bytes;) {
            KINDS[k].put(&o);
        }
        ok(cmc_tokenize(host, o.s, o.n, CMC_TOK_CONTINUE, &said, &err), &err);
        figures f = follow_passes(host, delta, &said);
        double steps = (double)f.steps;
        printf("%-12s %-20s %6zu %8.1f %9.1f %8.1f %8.1f %9.2f %9.1f %9.1f\n", KINDS[k].name, name, f.steps, f.merged,
               f.scanned, f.median * 1e6, f.worst * 1e6, (double)f.evaluated / steps, f.anew * 1e6,
               (double)f.tokens / steps);
        fflush(stdout);
        cmc_ids_free(&said);
    }
    free(o.s);
}

static cmc_vocab *open_vocab(const char *path) {
    cmc_error err = {0};
    cmc_vocab *v;
    ok(cmc_vocab_open(path, &v, &err), &err);
    return v;
}

int main(int argc, char **argv) {
    size_t bytes = argc > 3 ? strtoul(argv[1], NULL, 10) : 0;
    if (bytes == 0) {
        fputs("usage: sync_cost BYTES HOST DELTA...\n", stderr);
        return 2;
    }
    cmc_vocab *host = open_vocab(argv[2]);
    printf("%-12s %-20s %6s %8s %9s %8s %8s %9s %9s %9s\n", "text", "delta", "steps", "merged", "scanned", "median",
           "worst", "evaluated", "anew us", "tokens");
    for (int i = 3; i < argc; i++) {
        cmc_vocab *delta = open_vocab(argv[i]);
        const char *slash = strrchr(argv[i], '/');
        measure(bytes, host, delta, slash != NULL ? slash + 1 : argv[i]);
        cmc_vocab_free(delta);
    }
    cmc_vocab_free(host);
    return 0;
}
