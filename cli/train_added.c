/* cmc train --lora and --expand: what is trained in place of the weights of a model, or of a delta that goes on. */
#include "cli/train.h"

#include <stdlib.h>
#include <string.h>

/* The first option that is for --expand and was given, NULL where none was. */
static const char *added_expand_own(const cmc_expand_opts *x) {
    const cmc_expand_opts d = cmc_train_defaults().expand;
    const struct {
        const char *name;
        bool given;
    } own[] = {
        {"--blocks", x->blocks != d.blocks},
        {"--merge", strcmp(x->merge, d.merge) != 0},
        {"--merge-share", x->share != d.share},
        {"--learn-share", x->learn_share},
        {"--align", strcmp(x->align, d.align) != 0},
        {"--align-weight", x->align_weight != d.align_weight},
        {"--align-by-share", x->align_by_share},
        {"--align-through", x->align_through},
        {"--unfrozen", x->unfrozen},
    };
    for (size_t i = 0; i < sizeof own / sizeof *own; i++)
        if (own[i].given)
            return own[i].name;
    return NULL;
}

/* "RANK" or "RANK:ALPHA". */
static int added_lora(const char *s, cmc_train_opts *t) {
    char *end;
    if (!s)
        return CLI_OK;
    long rank = strtol(s, &end, 10);
    bool ok = end != s && rank >= 1 && rank <= 4096 && (*end == '\0' || *end == ':');
    if (ok && *end == ':')
        ok = arg_number(end + 1, &t->lora_alpha) && t->lora_alpha > 0 && t->lora_alpha <= 1e6;
    if (!ok)
        return cli_usage("--lora: \"%s\" is not RANK or RANK:ALPHA, a rank from 1 to 4096 and a number above 0", s);
    t->lora_rank = (int32_t)rank;
    return CLI_OK;
}

int train_take_added(train_args *a) {
    const cmc_expand_opts *x = &a->t.expand;
    const char *own = added_expand_own(x);
    if (!x->kind && own)
        return cli_usage("%s: is for an expanded model: --expand concat|stack|hybrid", own);
    if (x->kind && !x->blocks)
        return cli_usage("--blocks: an expanded model needs a number of blocks: --blocks E");
    if (x->kind && a->lora)
        return cli_usage("--lora: trains an adapter, and --expand trains blocks");
    if (a->t.lora_targets && !a->lora)
        return cli_usage("--lora-targets: is for an adapter: --lora RANK");
    if ((x->kind || a->lora) && !a->base && !a->t.init_path)
        return cli_usage("%s: adds to a model, --base MODEL, or to a delta, --init DELTA", x->kind ? "--expand" : "--lora");
    return added_lora(a->lora, &a->t);
}
