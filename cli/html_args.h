/* A run's options as a table of a page. */
#ifndef CMC_CLI_HTML_ARGS_H
#define CMC_CLI_HTML_ARGS_H
#include "cli/html.h"

/* A heading and every option of the groups with its value, but for texts and lists that were not given; `args` is the struct
 * that the groups are about. */
void html_args(html *h, const arg_group *groups, size_t n_groups, const void *args);
#endif
