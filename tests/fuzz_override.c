/* Fuzz target: override files of any bytes, against two small vocabularies with every kind of token. What is refused
 * leaves the map as it was; what is accepted gives ids that exist. */
#include <stdlib.h>
#include <string.h>

#include "tests/vocab_make.h"
#include "tokenmap/map.h"

static cmc_vocab *make_host(void) {
    static const token_spec tokens[] = {
        {"<s>", CMC_KIND_CONTROL, CMC_ROLE_BOS, 0, false},   {"</s>", CMC_KIND_CONTROL, CMC_ROLE_EOS, 0, false},
        {" the", CMC_KIND_NORMAL, 0, 0, false},              {"]", CMC_KIND_BYTE, 0, 1, false},
        {"]", CMC_KIND_NORMAL, 0, 0, false},                 {"a", CMC_KIND_NORMAL, 0, 0, false},
        {"a", CMC_KIND_USER, 0, 0, false},                   {"\xE4\xB8", CMC_KIND_NORMAL, 0, 0, false},
        {"", CMC_KIND_NORMAL, 0, 0, false},                  {"\"\\\n", CMC_KIND_NORMAL, 0, 0, false},
    };
    return vocab_make(tokens, sizeof tokens / sizeof *tokens);
}

static cmc_vocab *make_delta(void) {
    static const token_spec tokens[] = {
        {"</s>", CMC_KIND_CONTROL, CMC_ROLE_EOS, 0, false}, {" th", CMC_KIND_NORMAL, 0, 0, false},
        {"]", CMC_KIND_NORMAL, 0, 0, false},                {"b", CMC_KIND_NORMAL, 0, 0, false},
        {"b", CMC_KIND_NORMAL, 0, 0, false},
    };
    return vocab_make(tokens, sizeof tokens / sizeof *tokens);
}

static void check(const cmc_map *m, const cmc_map *before, cmc_status status, const cmc_error *err) {
    if (status != CMC_OK && (!err->message[0] || strchr(err->message, '\n') != NULL)) {
        abort();
    }
    for (int32_t i = 0; i < m->n_host; i++) {
        cmc_map_how how;
        int32_t to = cmc_map_get(m, i, &how, NULL);
        if (to < -1 || to >= m->n_delta || (to < 0) != (how == CMC_HOW_NONE) ||
            (status != CMC_OK && (to != before->to[i] || how != (cmc_map_how)before->how[i])) ||
            (how != CMC_HOW_NONE && how != CMC_HOW_OVERRIDE && to != before->to[i])) {
            abort();
        }
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    cmc_vocab *host = make_host(), *delta = make_delta();
    cmc_map *m = NULL, *before = NULL;
    cmc_error err = {0};
    if (host && delta && cmc_map_build(host, delta, CMC_RULE_PREFIX, &m, NULL) == CMC_OK &&
        cmc_map_build(host, delta, CMC_RULE_PREFIX, &before, NULL) == CMC_OK) {
        cmc_status status = map_override_memory(m, host, delta, data, size, "fuzz", &err);
        check(m, before, status, &err);
    }
    cmc_map_free(m);
    cmc_map_free(before);
    cmc_vocab_free(host);
    cmc_vocab_free(delta);
    return 0;
}
