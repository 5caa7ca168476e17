/* Byte-pair encoding, learnt: the merges of a byte-level vocabulary and the pieces of a SentencePiece one. */
#include "tests/tiny_vocab.h"
#include "base/mem.h"
#include "base/utf8.h"

#include <ctype.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { MAX_LEARNT = 1000, MAX_SYMBOLS = 2048, DEFAULT_LEARNT = 300, WORD_END = -1 };

static const char SPACE[] = "\342\226\201"; /* U+2581, what SentencePiece writes for a space */

/* The text as symbols, words ended by WORD_END (no merge crosses one), and the symbols' spellings. */
typedef struct learner {
    char *symbols[MAX_SYMBOLS]; int n_symbols;
    int *seq; size_t n, cap;
    uint16_t *counts;                     /* [MAX_SYMBOLS][MAX_SYMBOLS], zero between steps */
} learner;

static void learner_free(learner *l) {
    for (int i = 0; l != NULL && i < l->n_symbols; i++) {
        free(l->symbols[i]);
    }
    if (l != NULL) {
        free(l->seq);
        free(l->counts);
        free(l);
    }
}

/* The symbol of that spelling, made where there is none; -1 when memory (or the table) is out. */
static int learner_symbol(learner *l, const char *s, size_t n, bool *is_new) {
    for (int i = 0; i < l->n_symbols; i++) {
        if (strlen(l->symbols[i]) == n && memcmp(l->symbols[i], s, n) == 0) {
            *is_new = false;
            return i;
        }
    }
    *is_new = true;
    if (l->n_symbols == MAX_SYMBOLS || (l->symbols[l->n_symbols] = cmc_strndup(s, n)) == NULL) {
        return -1;
    }
    return l->n_symbols++;
}

static bool learner_append(learner *l, int symbol) {
    void *v = l->seq;
    if (!cmc_grow(&v, &l->cap, l->n + 1, sizeof *l->seq)) {
        return false;
    }
    l->seq = v;
    l->seq[l->n++] = symbol;
    return true;
}

/* The commonest pair that is there at least twice; among equals the first that got so common. */
static bool commonest_pair(learner *l, int *left, int *right) {
    unsigned best = 1;
    for (size_t i = 0; i + 1 < l->n; i++) {
        int a = l->seq[i], b = l->seq[i + 1];
        if (a == WORD_END || b == WORD_END) {
            continue;
        }
        unsigned count = ++l->counts[a * MAX_SYMBOLS + b];
        if (count > best) {
            best = count;
            *left = a;
            *right = b;
        }
    }
    for (size_t i = 0; i + 1 < l->n; i++) {
        if (l->seq[i] != WORD_END && l->seq[i + 1] != WORD_END) {
            l->counts[l->seq[i] * MAX_SYMBOLS + l->seq[i + 1]] = 0;
        }
    }
    return best > 1;
}

static void replace_pair(learner *l, int left, int right, int merged) {
    size_t to = 0;
    for (size_t i = 0; i < l->n; i++) {
        bool pair = i + 1 < l->n && l->seq[i] == left && l->seq[i + 1] == right;
        l->seq[to++] = pair ? merged : l->seq[i];
        i += pair;
    }
    l->n = to;
}

/* One merge: notes it in merges ("left right") where that is wanted. *done when nothing is left to merge. */
static bool learn_one(learner *l, char **merge, bool *is_new, bool *done) {
    int left = 0, right = 0;
    *done = !commonest_pair(l, &left, &right);
    if (*done) {
        return true;
    }
    const char *a = l->symbols[left], *b = l->symbols[right];
    size_t na = strlen(a), nb = strlen(b);
    char *both = cmc_alloc(na + nb + 2, 1);
    if (both == NULL) {
        return false;
    }
    memcpy(both, a, na);
    memcpy(both + na, b, nb + 1);
    int merged = learner_symbol(l, both, na + nb, is_new);
    snprintf(both, na + nb + 2, "%s %s", a, b);
    *merge = both;
    if (merged < 0) {
        return false; /* the caller frees *merge */
    }
    replace_pair(l, left, right, merged);
    return true;
}

/* ----------------------------------------------------------------------------------------------- the token table */

static bool add_token(tiny_vocab *v, const char *s, int32_t type, float score) {
    if (v->n % 256 == 0) { /* three arrays grow together */
        size_t cap = v->n + 256;
        void *tokens = cmc_realloc(v->tokens, cap, sizeof *v->tokens);
        v->tokens = tokens != NULL ? tokens : v->tokens;
        void *scores = cmc_realloc(v->scores, cap, sizeof *v->scores);
        v->scores = scores != NULL ? scores : v->scores;
        void *types = cmc_realloc(v->types, cap, sizeof *v->types);
        v->types = types != NULL ? types : v->types;
        if (tokens == NULL || scores == NULL || types == NULL) {
            return false;
        }
    }
    v->tokens[v->n] = cmc_strndup(s, strlen(s));
    v->scores[v->n] = score;
    v->types[v->n] = type;
    return v->tokens[v->n] != NULL && ++v->n > 0;
}

static int32_t find_token(const tiny_vocab *v, const char *s) {
    for (size_t i = 0; i < v->n; i++) {
        if (strcmp(v->tokens[i], s) == 0) {
            return (int32_t)i;
        }
    }
    return -1;
}

void tiny_vocab_free(tiny_vocab *v) {
    for (size_t i = 0; i < v->n; i++) {
        free(v->tokens[i]);
    }
    for (size_t i = 0; i < v->n_merges; i++) {
        free(v->merges[i]);
    }
    free(v->tokens);
    free(v->scores);
    free(v->types);
    free(v->merges);
    *v = (tiny_vocab){0};
}

/* --------------------------------------------------------------------------------------------------- byte level */

/* GPT-2's spelling of a byte: itself where it is printable in Latin-1, else the next of U+0100 and on. */
static bool byte_prints(int b) { return (b >= 33 && b <= 126) || (b >= 161 && b <= 172) || b >= 174; }

static void byte_spelling(int b, char out[5]) {
    int32_t cp = b;
    if (!byte_prints(b)) {
        cp = 256;
        for (int i = 0; i < b; i++) {
            cp += !byte_prints(i);
        }
    }
    out[cmc_utf8_encode(cp, (uint8_t *)out)] = '\0';
}

enum char_class { CLASS_SPACE, CLASS_LETTER, CLASS_DIGIT, CLASS_OTHER };

static enum char_class class_of(char c) {
    unsigned char u = (unsigned char)c;
    return isspace(u) ? CLASS_SPACE : isalpha(u) || u >= 0x80 ? CLASS_LETTER : isdigit(u) ? CLASS_DIGIT : CLASS_OTHER;
}

/* Length of the first word, roughly as the pre-tokenizers split: a run of one class, a space going with what it
 * precedes, digits one by one. A merge that a finer splitter never lets happen does no harm. */
static size_t word_length(const char *s) {
    size_t i = *s == ' ' && s[1] != '\0' && class_of(s[1]) != CLASS_SPACE;
    enum char_class class = class_of(s[i++]);
    while (class != CLASS_DIGIT && s[i] != '\0' && class_of(s[i]) == class) {
        i++;
    }
    bool gives_up_last = class == CLASS_SPACE && i > 1 && s[i] != '\0'; /* the space that goes with the next word */
    return gives_up_last ? i - 1 : i;
}

static bool split_bytes(learner *l) {
    bool is_new;
    for (const char *s = tiny_text(); *s != '\0';) {
        for (size_t n = word_length(s); n > 0; n--, s++) {
            char spelling[5];
            byte_spelling((uint8_t)*s, spelling);
            int symbol = learner_symbol(l, spelling, strlen(spelling), &is_new);
            if (symbol < 0 || !learner_append(l, symbol)) {
                return false;
            }
        }
        if (!learner_append(l, WORD_END)) {
            return false;
        }
    }
    return true;
}

static bool add_controls(tiny_vocab *v) {
    static const char *const names[] = {"<|endoftext|>", "<|im_start|>", "<|im_end|>"};
    for (size_t i = 0; i < sizeof names / sizeof names[0]; i++) {
        if (!add_token(v, names[i], TINY_CONTROL, 0)) {
            return false;
        }
    }
    return true;
}

static bool make_bpe(const tiny_spec *spec, learner *l, int n_learnt, tiny_vocab *v) {
    char spelling[5];
    bool is_new, done = false;
    if (spec->control_first && !add_controls(v)) {
        return false;
    }
    for (int pass = 0; pass < 2; pass++) { /* GPT-2's order: the bytes that print, then the others */
        for (int b = 0; b < 256; b++) {
            byte_spelling(b, spelling);
            bool now = byte_prints(b) == (pass == 0);
            if (now && (learner_symbol(l, spelling, strlen(spelling), &is_new) < 0 ||
                        !add_token(v, spelling, TINY_NORMAL, 0))) {
                return false;
            }
        }
    }
    v->merges = cmc_calloc((size_t)n_learnt, sizeof *v->merges);
    if (v->merges == NULL || !split_bytes(l)) {
        return false;
    }
    while ((int)v->n_merges < n_learnt) {
        bool ok = learn_one(l, &v->merges[v->n_merges], &is_new, &done);
        v->n_merges += v->merges[v->n_merges] != NULL;
        if (!ok || (!done && is_new && !add_token(v, l->symbols[l->n_symbols - 1], TINY_NORMAL, 0))) {
            return false;
        }
        if (done) {
            break;
        }
    }
    if (!spec->control_first && !add_controls(v)) {
        return false;
    }
    v->bos = v->pad = find_token(v, "<|endoftext|>");
    v->eos = find_token(v, "<|im_end|>");
    v->unk = -1;
    return true;
}

/* ------------------------------------------------------------------------------------------------- SentencePiece */

/* Characters, words beginning at each space, which is spelt U+2581; line ends are left to the byte tokens. */
static bool split_characters(learner *l) {
    const char *text = tiny_text();
    size_t n = strlen(text), len;
    bool is_new;
    for (size_t i = 0; i < n; i += len) {
        cmc_utf8_decode((const uint8_t *)text + i, n - i, &len);
        bool space = text[i] == ' ', gap = !space && isspace((unsigned char)text[i]);
        if ((space || gap) && !learner_append(l, WORD_END)) {
            return false;
        }
        if (gap) {
            continue;
        }
        int symbol = learner_symbol(l, space ? SPACE : text + i, space ? strlen(SPACE) : len, &is_new);
        if (symbol < 0 || !learner_append(l, symbol)) {
            return false;
        }
    }
    return true;
}

static bool add_spm_specials(const tiny_spec *spec, tiny_vocab *v) {
    static const char *const llama[] = {"<unk>", "<s>", "</s>", NULL};
    static const char *const gemma[] = {"<pad>", "<eos>", "<bos>", "<unk>", "<start_of_turn>", "<end_of_turn>", NULL};
    static const char *const gemma_text[] = {"\n", "\n\n", "  ", "    ", "</b>", NULL};
    bool is_gemma = strcmp(spec->arch, "gemma3") == 0;
    float score = is_gemma ? -1000.0F : 0.0F;
    for (const char *const *s = is_gemma ? gemma : llama; *s != NULL; s++) {
        if (!add_token(v, *s, !is_gemma && strcmp(*s, "<unk>") == 0 ? TINY_UNKNOWN : TINY_CONTROL, score)) {
            return false;
        }
    }
    for (const char *const *s = gemma_text; is_gemma && *s != NULL; s++) {
        if (!add_token(v, *s, TINY_USER, score)) {
            return false;
        }
    }
    v->bos = find_token(v, is_gemma ? "<bos>" : "<s>");
    v->eos = find_token(v, is_gemma ? "<eos>" : "</s>");
    v->pad = find_token(v, "<pad>");
    v->unk = find_token(v, "<unk>");
    for (int b = 0; b < 256; b++) {
        char name[8];
        snprintf(name, sizeof name, "<0x%02X>", b);
        if (!add_token(v, name, TINY_BYTE, 0)) {
            return false;
        }
    }
    return true;
}

/* Learnt pieces by rank, then the characters, as SentencePiece's BPE trainer lays them out: score is minus the rank. */
static bool make_spm(const tiny_spec *spec, learner *l, int n_learnt, tiny_vocab *v) {
    bool is_new, done = false;
    if (!add_spm_specials(spec, v) || !split_characters(l)) {
        return false;
    }
    for (char c = '!'; c <= '~'; c++) {
        if (learner_symbol(l, &c, 1, &is_new) < 0) {
            return false;
        }
    }
    int n_characters = l->n_symbols, rank = 0;
    for (int i = 0; i < n_learnt && !done; i++) {
        char *merge = NULL;
        bool ok = learn_one(l, &merge, &is_new, &done);
        free(merge);
        if (!ok) {
            return false;
        }
    }
    for (int i = 0; i < l->n_symbols; i++) {
        int symbol = i < l->n_symbols - n_characters ? n_characters + i : i - (l->n_symbols - n_characters);
        if (!add_token(v, l->symbols[symbol], TINY_NORMAL, (float)-rank++)) {
            return false;
        }
    }
    return true;
}

bool tiny_spec_is_spm(const tiny_spec *spec) {
    return spec->vocab != NULL ? strcmp(spec->vocab, "spm") == 0 : strcmp(spec->arch, "gemma3") == 0;
}

bool tiny_vocab_make(const tiny_spec *spec, tiny_vocab *out) {
    *out = (tiny_vocab){.bos = -1, .eos = -1, .unk = -1, .pad = -1};
    int n = spec->n_learnt == 0 ? DEFAULT_LEARNT : spec->n_learnt > MAX_LEARNT ? MAX_LEARNT : spec->n_learnt;
    learner *l = cmc_calloc(1, sizeof *l);
    if (l == NULL) {
        return false;
    }
    l->counts = cmc_calloc((size_t)MAX_SYMBOLS * MAX_SYMBOLS, sizeof *l->counts);
    bool ok = l->counts != NULL && (tiny_spec_is_spm(spec) ? make_spm(spec, l, n, out) : make_bpe(spec, l, n, out));
    learner_free(l);
    if (!ok) {
        tiny_vocab_free(out);
    }
    return ok;
}
