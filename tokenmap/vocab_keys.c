/* Writing a SentencePiece vocabulary as the tokenizer.* keys of a GGUF file. */
#include <stdlib.h>
#include <string.h>

#include "base/mem.h"
#include "tokenmap/spm_wire.h"

#define KEY(name) "tokenizer.ggml." name

static bool keys_put_id(gguf_writer *to, const char *key, int32_t id) {
    return id < 0 || gguf_put_u32(to, key, (uint32_t)id);
}

static bool keys_put_arrays(const cmc_vocab *v, gguf_writer *to, gguf_str *tokens, int32_t *types) {
    static const int32_t type[] = {[CMC_KIND_NORMAL] = SPM_NORMAL, [CMC_KIND_CONTROL] = SPM_CONTROL,
                                   [CMC_KIND_BYTE] = SPM_BYTE,     [CMC_KIND_USER] = SPM_USER,
                                   [CMC_KIND_UNUSED] = SPM_UNUSED};
    for (int32_t i = 0; i < v->n; i++) {
        tokens[i] = (gguf_str){v->spell + v->spell_off[i], v->spell_off[i + 1] - v->spell_off[i]};
        types[i] = i == v->unk && v->kind[i] == CMC_KIND_CONTROL ? SPM_UNKNOWN : type[v->kind[i]];
    }
    uint64_t n = (uint64_t)v->n;
    return gguf_put_str_array(to, KEY("tokens"), tokens, n) && gguf_put_array(to, KEY("scores"), GGUF_F32, v->score, n) &&
           gguf_put_array(to, KEY("token_type"), GGUF_I32, types, n);
}

/* "t5" is what llama.cpp calls Unigram. It has no byte fallback there: characters without a piece are unknown to it. */
bool vocab_put_keys(const cmc_vocab *v, gguf_writer *to) {
    gguf_str *tokens = cmc_alloc((size_t)v->n, sizeof *tokens);
    int32_t *types = cmc_alloc((size_t)v->n, sizeof *types);
    bool ok = tokens != NULL && types != NULL && v->model == VOCAB_SPM;
    ok = ok && gguf_put_str(to, KEY("model"), v->unigram ? "t5" : "llama", v->unigram ? 2 : 5) &&
         gguf_put_str(to, KEY("pre"), "default", 7) && keys_put_arrays(v, to, tokens, types) &&
         keys_put_id(to, KEY("bos_token_id"), v->bos) && keys_put_id(to, KEY("eos_token_id"), v->eos) &&
         keys_put_id(to, KEY("eot_token_id"), v->eot) && keys_put_id(to, KEY("unknown_token_id"), v->unk) &&
         keys_put_id(to, KEY("padding_token_id"), v->pad) && gguf_put_bool(to, KEY("add_bos_token"), v->add_bos) &&
         gguf_put_bool(to, KEY("add_eos_token"), false) &&
         gguf_put_bool(to, KEY("add_space_prefix"), v->add_space_prefix) &&
         (!v->unigram || gguf_put_bool(to, KEY("remove_extra_whitespaces"), false)) &&
         (v->chat_template == NULL ||
          gguf_put_str(to, "tokenizer.chat_template", v->chat_template, strlen(v->chat_template)));
    free(tokens);
    free(types);
    return ok;
}
