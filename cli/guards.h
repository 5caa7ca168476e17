/* The guards, as options and in results. */
#ifndef CMC_CLI_GUARDS_H
#define CMC_CLI_GUARDS_H
#include "cli/cli.h"
#include "cli/json.h"

extern const arg_opt guard_opts[];   /* of a cmc_guards */
/* Whether any is set. */
bool guards_any(const cmc_guards *g);
/* Reports settings that do not fit together; gives an exit status. n_deltas: how many there are to guard. */
int guards_check(const cmc_guards *g, size_t n_deltas);
/* "guards": {those that are set} into o; nothing where none is. */
void guards_json(jbuild *o, const cmc_guards *g);
#endif
