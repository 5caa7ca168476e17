/* Reading TOFU's files, and reports of cmc eval tofu. */
#include "cli/eval_tofu.h"

#include <stdlib.h>
#include <string.h>

const char *tofu_set_name(tofu_set_kind k) {
    static const char *const names[TOFU_SETS] = {"forget", "retain", "real_authors", "world_facts"};
    return names[k];
}

static int tofu_text(const jsonl *j, size_t i, const char *key, const char **out) {
    const json_t *v = json_object_get(j->v[i], key);
    *out = json_string_value(v);
    return !v || json_is_string(v) ? CLI_OK : jsonl_failed(j, i, "\"%s\" is not a string", key);
}

/* option1, option2 and so on, of which one is the answer. */
static size_t tofu_options(const json_t *o, const char *answer, const char **out) {
    size_t n = 0;
    for (int k = 1;; k++) {
        char key[24];
        snprintf(key, sizeof key, "option%d", k);
        const char *s = json_string_value(json_object_get(o, key));
        if (!s)
            return n;
        if (strcmp(s, answer) == 0)
            continue;
        if (out)
            out[n] = s;
        n++;
    }
}

static int tofu_wrong(const jsonl *j, size_t i, tofu_record *r) {
    const json_t *o = j->v[i], *list = json_object_get(o, "perturbed_answer");
    size_t n = list ? json_array_size(list) : tofu_options(o, r->answer, NULL);
    if (list && n == 0)
        return jsonl_failed(j, i, "\"perturbed_answer\" is not a list of answers");
    r->wrong = calloc(n + 1, sizeof *r->wrong);
    if (!r->wrong)
        return cli_no_memory();
    r->n_wrong = list ? n : tofu_options(o, r->answer, r->wrong);
    for (size_t k = 0; list && k < n; k++) {
        r->wrong[k] = json_string_value(json_array_get(list, k));
        if (!r->wrong[k] || !*r->wrong[k])
            return jsonl_failed(j, i, "\"perturbed_answer\" holds something other than text");
    }
    return CLI_OK;
}

static int tofu_read_record(const tofu_set *s, size_t i, tofu_record *r) {
    const jsonl *j = &s->json;
    bool choice = s->kind == TOFU_REAL_AUTHORS || s->kind == TOFU_WORLD_FACTS;
    int rc = tofu_text(j, i, "question", &r->question);
    if (rc == CLI_OK)
        rc = tofu_text(j, i, "answer", &r->answer);
    if (rc == CLI_OK)
        rc = tofu_text(j, i, "paraphrased_answer", &r->paraphrase);
    if (rc)
        return rc;
    if (!r->question || !r->answer || !*r->answer)
        return jsonl_failed(j, i, "expected \"question\" and \"answer\"");
    rc = tofu_wrong(j, i, r);
    if (rc)
        return rc;
    if (choice && r->n_wrong == 0)
        return jsonl_failed(j, i, "holds no wrong answers, expected \"perturbed_answer\", a list, or \"option1\" and so on");
    if (!choice && r->n_wrong && !(r->paraphrase && *r->paraphrase))
        return jsonl_failed(j, i, "has a \"perturbed_answer\" and no \"paraphrased_answer\" beside it");
    if (choice)
        r->paraphrase = r->answer;
    if (r->n_wrong == 0)
        r->paraphrase = NULL;
    return CLI_OK;
}

int tofu_set_open(tofu_set_kind kind, const char *path, tofu_set *out) {
    static const arg_list none;
    *out = (tofu_set){.kind = kind};
    if (!prompts_is_records(path))
        return cli_usage("%s: the %s set is a file of records, .jsonl or .json", path, tofu_set_name(kind));
    int rc = prompts_open(path, NULL, &none, &out->p);
    if (rc == CLI_OK)
        rc = jsonl_read(path, &out->json);
    if (rc == CLI_OK) {
        out->v = calloc(out->json.n, sizeof *out->v);
        rc = out->v ? CLI_OK : cli_no_memory();
    }
    for (size_t i = 0; rc == CLI_OK && i < out->json.n; i++)
        rc = tofu_read_record(out, i, &out->v[i]);
    if (rc)
        tofu_set_close(out);
    return rc;
}

void tofu_set_close(tofu_set *s) {
    for (size_t i = 0; s->v && i < s->json.n; i++)
        free(s->v[i].wrong);
    free(s->v);
    jsonl_close(&s->json);
    prompts_close(&s->p);
    *s = (tofu_set){0};
}

int tofu_reference_read(const char *path, double **out, size_t *n) {
    jsonl j;
    *n = 0;
    *out = NULL;
    int rc = jsonl_read(path, &j);
    if (rc)
        return rc;
    *out = calloc(j.n, sizeof **out);
    for (size_t i = 0; *out && i < j.n; i++) {
        if (json_object_get(j.v[i], "alpha")) {
            rc = jsonl_failed(&j, i, "is of several strengths (--alphas), a reference has one");
            break;
        }
        const char *set = json_string_value(json_object_get(j.v[i], "set"));
        const json_t *ratio = json_object_get(j.v[i], "truth_ratio");
        if (set && strcmp(set, tofu_set_name(TOFU_FORGET)) == 0 && json_is_number(ratio))
            (*out)[(*n)++] = json_number_value(ratio);
    }
    jsonl_close(&j);
    if (!*out)
        return cli_no_memory();
    if (rc == CLI_OK && *n)
        return CLI_OK;
    free(*out);
    *out = NULL;
    return rc ? rc : cli_failed("%s: holds no truth ratio of a forget set, expected what cmc eval tofu --forget DATA -o FILE writes", path);
}
