/* Vocabularies made in memory, token by token, for tests of the map: no file, no tokenizer behind them. */
#include "tests/vocab_make.h"

#include <stdio.h>
#include <string.h>

#include "base/mem.h"

static size_t token_len(const token_spec *t) {
    return t->len || !t->bytes ? t->len : strlen(t->bytes);
}

static bool allocate(cmc_vocab *v, size_t n, size_t total) {
    v->bytes = cmc_alloc(total + 1, 1);
    v->spell = cmc_alloc(3 * total + 6 * n + 1, 1);
    v->byte_off = cmc_calloc(n + 1, sizeof *v->byte_off);
    v->spell_off = cmc_calloc(n + 1, sizeof *v->spell_off);
    v->kind = cmc_calloc(n, 1);
    v->roles = cmc_calloc(n, 1);
    v->is_end = cmc_calloc(n, 1);
    return v->bytes && v->spell && v->byte_off && v->spell_off && v->kind && v->roles && v->is_end;
}

/* Spells a token as SentencePiece would; gives the length. */
static size_t spell(const token_spec *t, char *out) {
    size_t n = 0, len = token_len(t);
    if (t->kind == CMC_KIND_BYTE) {
        char text[8];
        snprintf(text, sizeof text, "<0x%02X>", (unsigned)(uint8_t)t->bytes[0]);
        memcpy(out, text, 6);
        return 6;
    }
    for (size_t i = 0; i < len; i++) {
        if (t->bytes[i] == ' ' && t->kind != CMC_KIND_CONTROL) {
            memcpy(out + n, "\xE2\x96\x81", 3);
            n += 3;
        } else {
            out[n++] = t->bytes[i];
        }
    }
    return n;
}

static void take_role(cmc_vocab *v, int32_t id, unsigned roles) {
    const struct { unsigned role; int32_t *first; } places[] = {
        {CMC_ROLE_BOS, &v->bos}, {CMC_ROLE_EOS, &v->eos}, {CMC_ROLE_EOT, &v->eot}, {CMC_ROLE_PAD, &v->pad},
        {CMC_ROLE_UNK, &v->unk},
    };
    for (size_t i = 0; i < sizeof places / sizeof *places; i++) {
        if ((roles & places[i].role) && *places[i].first < 0) {
            *places[i].first = id;
        }
    }
}

cmc_vocab *vocab_make(const token_spec *tokens, size_t n) {
    size_t total = 0;
    for (size_t i = 0; i < n; i++) {
        total += token_len(&tokens[i]) + 1;
    }
    cmc_vocab *v = cmc_calloc(1, sizeof *v);
    if (!v || !allocate(v, n, total)) {
        cmc_vocab_free(v);
        return NULL;
    }
    v->n = (int32_t)n;
    v->bos = v->eos = v->eot = v->pad = v->unk = -1;
    memset(v->byte_token, 0xFF, sizeof v->byte_token);
    for (size_t i = 0; i < n; i++) {
        const token_spec *t = &tokens[i];
        bool has_bytes = t->kind != CMC_KIND_CONTROL && t->kind != CMC_KIND_UNUSED;
        size_t len = !has_bytes ? 0 : t->kind == CMC_KIND_BYTE ? 1 : token_len(t);
        if (len) {
            memcpy(v->bytes + v->byte_off[i], t->bytes, len);
        }
        v->byte_off[i + 1] = v->byte_off[i] + (uint32_t)len;
        v->spell_off[i + 1] = v->spell_off[i] + (uint32_t)spell(t, v->spell + v->spell_off[i]);
        v->kind[i] = (uint8_t)t->kind;
        v->roles[i] = (uint8_t)t->roles;
        v->is_end[i] = t->end || (t->roles & (CMC_ROLE_EOS | CMC_ROLE_EOT));
        take_role(v, (int32_t)i, t->roles);
        if (t->kind == CMC_KIND_BYTE && v->byte_token[(uint8_t)t->bytes[0]] < 0) {
            v->byte_token[(uint8_t)t->bytes[0]] = (int32_t)i;
        }
    }
    return v;
}
