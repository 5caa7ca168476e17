/* Roles and the end set: by the file's keys, and by the names that the families' tokens are known to have. */
#include <string.h>

#include "tokenmap/tok.h"
#include "tokenmap/vocab_build.h"

/* Names that end a turn. A converter sometimes leaves such a token user-defined, which would let a text spell it; those
 * that no one writes in prose (`marker`) are control tokens then. Gemma's "</s>" is the tag of struck-out text and
 * stays what the file says: such names end a turn only as control tokens. In the order in which they are tried as eot.
 */
static const struct end_name { const char *name; bool marker; } END_NAMES[] = {
    {"<|eot_id|>", true}, {"<|im_end|>", true}, {"<end_of_turn>", true}, {"<|end|>", true}, {"<|eom_id|>", true},
    {"<turn|>", true}, {"<|end_of_text|>", true}, {"<|endoftext|>", true}, {"<|return|>", true}, {"<|call|>", true},
    {"<end_of_utterance>", true}, {"<\xef\xbd\x9c" "end\xe2\x96\x81of\xe2\x96\x81sentence\xef\xbd\x9c>", true},
    {"<EOT>", false}, {"[EOT]", false}, {"[EOS]", false}, {"</s>", false}, {"<eos>", false},
};
enum {
    N_END_NAMES = sizeof END_NAMES / sizeof *END_NAMES,
    N_EOT_NAMES = 8 /* of them: the end of a turn in a dialogue */
};

static bool roles_spelled(const cmc_vocab *v, int32_t id, const char *name) {
    size_t n = strlen(name);
    return v->spell_off[id + 1] - v->spell_off[id] == n && memcmp(v->spell + v->spell_off[id], name, n) == 0;
}

void vocab_roles_fix_kinds(cmc_vocab *v) {
    for (int32_t id = 0; id < v->n; id++) {
        if (v->kind[id] != CMC_KIND_USER) {
            continue;
        }
        for (size_t k = 0; k < N_END_NAMES; k++) {
            if (END_NAMES[k].marker && roles_spelled(v, id, END_NAMES[k].name)) {
                v->kind[id] = CMC_KIND_CONTROL;
            }
        }
    }
}

static int32_t roles_control(const cmc_vocab *v, const char *name) {
    int32_t id = cmc_vocab_find_special(v, name);
    return id >= 0 && v->kind[id] == CMC_KIND_CONTROL ? id : -1;
}

static void roles_by_name(const cmc_vocab *v, int32_t *role, const char *const *names) {
    for (; *role < 0 && *names != NULL; names++) {
        *role = roles_control(v, *names);
    }
}

void vocab_roles_assign(cmc_vocab *v, int32_t eom) {
    roles_by_name(v, &v->bos, (const char *const[]){"<s>", "<bos>", "<|begin_of_text|>", "<|startoftext|>", NULL});
    roles_by_name(v, &v->eos, (const char *const[]){"</s>", "<eos>", "<|end_of_text|>", "<|endoftext|>", NULL});
    roles_by_name(v, &v->pad, (const char *const[]){"<pad>", "<|pad|>", "<PAD>", "[PAD]", NULL});
    roles_by_name(v, &v->unk, (const char *const[]){"<unk>", "[UNK]", NULL});
    /* In the harmony format "<|end|>" ends a message, and the turn goes on. */
    bool harmony = roles_control(v, "<|return|>") >= 0 && roles_control(v, "<|call|>") >= 0;
    for (size_t k = 0; k < N_END_NAMES; k++) {
        int32_t id = harmony && strcmp(END_NAMES[k].name, "<|end|>") == 0 ? -1 : roles_control(v, END_NAMES[k].name);
        if (id >= 0) {
            v->is_end[id] = 1;
            v->eot = v->eot < 0 && k < N_EOT_NAMES ? id : v->eot;
        }
    }
    const struct {
        int32_t id;
        uint8_t role;
    } roles[] = {
        {v->bos, CMC_ROLE_BOS}, {v->eos, CMC_ROLE_EOS}, {v->eot, CMC_ROLE_EOT},
        {v->pad, CMC_ROLE_PAD}, {v->unk, CMC_ROLE_UNK},
    };
    for (size_t k = 0; k < sizeof roles / sizeof *roles; k++) {
        if (roles[k].id >= 0) {
            v->roles[roles[k].id] |= roles[k].role;
        }
    }
    const int32_t keyed[] = {v->eos, v->eot, eom};
    for (size_t k = 0; k < 3; k++) {
        if (keyed[k] >= 0) {
            v->is_end[keyed[k]] = 1;
        }
    }
}
