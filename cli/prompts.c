/* Where prompts come from. */
#include "cli/prompts.h"

#include <stdlib.h>
#include <string.h>
#include <strings.h>

bool prompts_is_records(const char *path) {
    const char *dot = strrchr(path, '.');
    return dot && (strcasecmp(dot, ".jsonl") == 0 || strcasecmp(dot, ".json") == 0);
}

static int prompts_from_text_file(const char *file, prompts *p) {
    size_t len, mark;
    int rc = cli_read_file(file, &p->text, &len);
    if (rc)
        return rc;
    mark = len >= 3 && memcmp(p->text, "\xef\xbb\xbf", 3) == 0 ? 3 : 0;   /* a byte order mark, and the editor's last newline, are no */
    if (len > mark && p->text[len - 1] == '\n')                            /* part of the prompt */
        len--;
    if (len > mark && p->text[len - 1] == '\r')
        len--;
    memmove(p->text, p->text + mark, len - mark);
    len -= mark;
    if (len == 0)
        return cli_failed("%s: holds no prompt: it is empty", strcmp(file, "-") ? file : "standard input");
    p->single = (cmc_message){CMC_USER, p->text, len};
    p->n = 1;
    return CLI_OK;
}

static int prompts_from_records(const char *file, prompts *p) {
    cmc_error err = {0};
    if (cmc_records_read(file, false, &p->records, &err) != CMC_OK)
        return cli_error(NULL, &err);
    if (p->records.n == 0)
        return cli_failed("%s: holds no record", file);
    p->path = file;
    p->n = p->records.n;
    return CLI_OK;
}

int prompts_open(const char *file, const char *system, const arg_list *operands, prompts *out) {
    int rc = CLI_OK;
    memset(out, 0, sizeof *out);
    out->system = system;
    if (operands->n > 1)
        return cli_usage("\"%s\": a second prompt; put the prompt in quotes", operands->v[1]);
    if (file && operands->n)
        return cli_usage("-f: a prompt is given on the command line as well");
    if (!file && !operands->n)
        return cli_usage("a prompt is needed: PROMPT, or -f FILE (-f - reads standard input)");
    if (!file) {
        size_t len = strlen(operands->v[0]);
        out->text = malloc(len + 1);
        if (!out->text)
            return cli_no_memory();
        memcpy(out->text, operands->v[0], len + 1);
        out->single = (cmc_message){CMC_USER, out->text, len};
        out->n = 1;
    } else if (prompts_is_records(file)) {
        rc = prompts_from_records(file, out);
    } else {
        rc = prompts_from_text_file(file, out);
    }
    if (rc)
        prompts_close(out);
    return rc;
}

void prompts_close(prompts *p) {
    cmc_records_free(&p->records);
    free(p->text);
    memset(p, 0, sizeof *p);
}

/* Messages as a record of their own, after the system turn that --system asks for. */
static int prompts_messages(const prompts *p, const cmc_message *from, size_t n, cmc_record *view) {
    bool lead = p->system && from[0].role != CMC_SYSTEM;
    view->messages = calloc(n + 1, sizeof *view->messages);
    if (!view->messages)
        return cli_no_memory();
    if (lead) {      /* cmc_message's text is only read: it is not const because records own theirs */
        view->messages[0] = (cmc_message){CMC_SYSTEM, (char *)(uintptr_t)p->system, strlen(p->system)};
        view->n_messages = 1;
    }
    memcpy(view->messages + view->n_messages, from, n * sizeof *from);
    view->n_messages += n;
    return CLI_OK;
}

int prompts_view(const prompts *p, size_t i, cmc_record *view) {
    const cmc_message *from = &p->single;
    size_t n = 1;
    memset(view, 0, sizeof *view);
    view->line = 1;
    if (p->path) {
        const cmc_record *r = &p->records.v[i];
        if (r->text) {
            *view = *r;
            return CLI_OK;
        }
        view->line = r->line;
        from = r->messages;
        n = r->n_messages;
    }
    while (n > 0 && from[n - 1].role == CMC_ASSISTANT)
        n--;
    if (n == 0)
        return cli_failed("%s: line %ld: record %zu holds no turn of the user's", p->path, view->line, i + 1);
    return prompts_messages(p, from, n, view);
}

int prompts_reference(const prompts *p, size_t i, cmc_record *view) {
    const cmc_record *r = p->path ? &p->records.v[i] : NULL;
    memset(view, 0, sizeof *view);
    if (!r || r->n_messages == 0 || r->messages[r->n_messages - 1].role != CMC_ASSISTANT)
        return CLI_OK;
    view->line = r->line;
    return prompts_messages(p, r->messages, r->n_messages, view);
}

const char *prompts_heading(const prompts *p, size_t i, size_t *len) {
    if (!p->path) {
        *len = p->single.len;
        return p->single.text;
    }
    const cmc_record *r = &p->records.v[i];
    for (size_t k = r->n_messages; k-- > 0;) {
        if (r->messages[k].role == CMC_USER) {
            *len = r->messages[k].len;
            return r->messages[k].text;
        }
    }
    *len = r->text ? r->text_len : 0;
    return r->text ? r->text : "";
}
