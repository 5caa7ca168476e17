/* Where answers come from. */
#include "cli/answers.h"
#include "cli/jsonl.h"

const arg_opt answers_opts[] = {
    {.name = "answers", .file = ARG_READS, .kind = ARG_STR, .at = offsetof(answers_args, file), .value = "FILE",
     .help = "take the answers from here and generate none: JSON lines with \"text\", as cmc run --json writes them, or with "
             "\"response\", \"output\" or \"answer\", in the order of the records"},
    {.name = NULL},
};

int answers_check(const char *verb, const answers_args *from, const steer_args *models) {
    if (from->file && models->host)
        return cli_usage("--answers: the answers are in a file; -m is for generating them");
    if (!from->file && !models->host)
        return cli_usage("-m: a host is needed (or answers from a file, --answers FILE): cmc %s -m HOST -f DATA", verb);
    return CLI_OK;
}

/* ------------------------------------------------------------------------------------------------ from a file */

static int answers_one(const jsonl *j, size_t i, size_t index, answer *out) {
    static const char *const keys[] = {"text", "response", "output", "answer"};
    const json_t *o = j->v[i], *text = NULL, *n = json_object_get(o, "n"), *tokens = json_object_get(o, "tokens");
    for (size_t k = 0; k < sizeof keys / sizeof *keys && !text; k++)
        text = json_object_get(o, keys[k]);
    if (!json_is_string(text))
        return jsonl_failed(j, i, "holds no answer, expected \"text\", a string");
    if (json_is_integer(n) && json_integer_value(n) != (json_int_t)index + 1)
        return jsonl_failed(j, i, "is numbered %lld, expected %zu: the records' order", (long long)json_integer_value(n), index + 1);
    *out = (answer){json_string_value(text), json_string_length(text), json_string_value(json_object_get(o, "stop")),
                    json_is_integer(tokens) ? (int64_t)json_integer_value(tokens) : -1};
    return CLI_OK;
}

static int answers_from_file(const answers_job *job) {
    jsonl j;
    size_t n = 0;
    int rc = jsonl_read(job->from->file, &j);
    for (size_t i = 0; rc == CLI_OK && i < j.n; i++) {
        answer a;
        if (json_object_get(j.v[i], "total"))      /* the last line of a report */
            continue;
        if (job->p->n && n == job->p->n)
            rc = cli_failed("%s: holds more answers than %s has records, %zu", j.path, job->p->path, n);
        if (rc == CLI_OK)
            rc = answers_one(&j, i, n, &a);
        if (rc == CLI_OK)
            rc = job->on_answer(job->user, n++, &a);
    }
    if (rc == CLI_OK && n < job->p->n)
        rc = cli_failed("%s: holds %zu answers, and %s %zu records", j.path, n, job->p->path, job->p->n);
    jsonl_close(&j);
    return rc;
}

/* ------------------------------------------------------------------------------------------------- generated */

typedef struct answers_state {
    const answers_job *job;
    steer s;
    size_t done;
    progress bar;
} answers_state;

static int answers_on_step(void *user, size_t index, cmc_stream *const side[2]) {
    answers_state *st = user;
    (void)index;
    (void)side;
    progress_show(&st->bar, "generating: %zu of %zu answers", st->done, st->job->p->n);
    return CLI_OK;
}

static int answers_on_result(void *user, size_t index, const gen_side side[2]) {
    answers_state *st = user;
    const gen_side *g = &side[GEN_STEERED];
    answer a = {g->text, g->len, gen_stop_name(g->stop), (int64_t)g->n_ids};
    st->done = index + 1;
    progress_clear(&st->bar);
    steer_note(&st->s, g->note);
    return g->stop == CMC_STOP_NONE ? CLI_OK : st->job->on_answer(st->job->user, index, &a);
}

int answers_run(const answers_job *job) {
    if (job->from->file)
        return answers_from_file(job);
    answers_state st = {.job = job};
    int rc = steer_open(job->models, job->common, &st.s);
    if (rc)
        return rc;
    gen_job gen = {.s = &st.s, .args = job->gen, .p = job->p, .seed = job->common->seed, .user = &st,
                   .on_step = answers_on_step, .on_result = answers_on_result};
    progress_start(&st.bar);
    cli_catch_interrupt();
    rc = gen_run(&gen);
    progress_clear(&st.bar);
    steer_close(&st.s);
    return rc;
}
