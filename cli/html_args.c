/* Options and their values. */
#include "cli/html_args.h"

#include <inttypes.h>

static void args_list(html *h, const arg_list *l) {
    for (size_t i = 0; i < l->n; i++) {
        html_raw(h, i ? "<br>" : "");
        html_text(h, l->v[i]);
    }
}

/* Values are whole where they are whole: 0.001, not 1.0000000000000000e-03. */
static void args_option(html *h, const arg_opt *o, const char *at) {
    const char *s;
    switch (o->kind) {
    case ARG_FLAG: html_raw(h, *(const bool *)(const void *)at ? "yes" : "no"); break;
    case ARG_STR:
        s = *(const char *const *)(const void *)at;
        html_text(h, s ? s : "\xE2\x80\x93");
        break;
    case ARG_LIST: args_list(h, (const arg_list *)(const void *)at); break;
    case ARG_INT: html_printf(h, "%" PRId32, *(const int32_t *)(const void *)at); break;
    case ARG_INT64: html_printf(h, "%" PRId64, *(const int64_t *)(const void *)at); break;
    case ARG_U64: html_printf(h, "%" PRIu64, *(const uint64_t *)(const void *)at); break;
    case ARG_REAL: html_printf(h, "%.9g", *(const double *)(const void *)at); break;
    }
}

static bool args_is_given(const arg_opt *o, const char *at) {
    if (o->kind == ARG_LIST)
        return ((const arg_list *)(const void *)at)->n > 0;
    return o->kind == ARG_STR ? *(const char *const *)(const void *)at != NULL : true;
}

void html_args(html *h, const arg_group *groups, size_t n_groups, const void *args) {
    html_raw(h, "<h2>Settings</h2>\n");
    html_table_begin(h, "Every option of the run", "Option|Value");
    for (size_t g = 0; g < n_groups; g++) {
        for (const arg_opt *o = groups[g].opts; o->name; o++) {
            const char *at = (const char *)args + groups[g].at + o->at;
            if (!args_is_given(o, at))
                continue;
            html_printf(h, "<tr><th scope=\"row\">--%s</th><td>", o->name);
            args_option(h, o, at);
            html_raw(h, "</td></tr>\n");
        }
    }
    html_table_end(h);
}
