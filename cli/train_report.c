/* cmc train: what it shows while it runs and at its end. */
#include "cli/json.h"
#include "cli/train.h"

#include <inttypes.h>
#include <math.h>
#include <string.h>

bool train_callback(void *user, const cmc_train_progress *p) {
    train_state *st = user;
    char left[16], held[64] = "";
    double held_out = isfinite(p->held_out) ? p->held_out : st->last.held_out;
    double host = isfinite(p->held_out_host) ? p->held_out_host : st->last.held_out_host;
    st->last = *p;
    st->last.held_out = held_out;
    st->last.held_out_host = host;
    st->page_failed = train_html_report(&st->page, p) != CLI_OK;
    if (st->page_failed)
        return false;
    if (strcmp(p->phase, "plan") == 0) {
        if (st->bar.on)
            fprintf(stderr, "memory: %" PRIu64 " MiB at most\n", p->memory_planned >> 20);
        return true;
    }
    progress_time(p->seconds_left, left);
    if (isfinite(held_out) && isfinite(host))
        snprintf(held, sizeof held, ", held-out %.4f (%s %.4f)", held_out, st->beside, host);
    if (strcmp(p->phase, "train") == 0) {
        progress_show(&st->bar, "step %" PRId64 "/%" PRId64 ", loss %.4f%s, %.0f tok/s, %" PRIu64 " MiB, %s left",
                      p->step, p->steps, p->loss, held, p->tokens_per_second, p->memory >> 20, left);
    } else {
        progress_show(&st->bar, "%s: %" PRId64 "/%" PRId64 ", %.0f tok/s, %" PRIu64 " MiB, %s left", p->phase, p->step,
                      p->steps, p->tokens_per_second, p->memory >> 20, left);
    }
    st->stopped = cli_interrupted();
    return !st->stopped;
}

void train_json_result(jbuild *o, const cmc_train_result *r) {
    jset_int(o, "steps", r->steps);
    jset_int(o, "params", (int64_t)r->params);
    jset_int(o, "trained", (int64_t)r->trained);
    jset_int(o, "tokens", (int64_t)r->tokens);
    jset_int(o, "records", (int64_t)r->records);
    jset_int(o, "records_held_out", (int64_t)r->records_held_out);
    jset_int(o, "records_left_out", (int64_t)r->records_left_out);
    jset_int(o, "targets", (int64_t)r->targets);
    jset_real(o, "seconds", r->seconds);
    jset_int(o, "memory_planned", (int64_t)r->memory_planned);
    jset_int(o, "memory_peak", (int64_t)r->memory_peak);
    jset(o, "resumed", json_boolean(r->resumed));
    jset(o, "finished", json_boolean(r->finished));
}

int train_json(const train_args *a, const cmc_train_result *r) {
    jbuild o = jobject();
    jset_string(&o, "out", a->t.out_path);
    train_json_result(&o, r);
    jset_int(&o, "targets_prefix", (int64_t)r->targets_prefix);
    jset_int(&o, "targets_left_out", (int64_t)r->targets_left_out);
    jset_real(&o, "held_out_host", r->held_out_host);
    jset_real(&o, "held_out_steered", r->held_out_steered);
    jset_real(&o, "alpha", r->alpha);
    jset_real(&o, "blas_gflop", r->blas_flop * 1e-9);
    jset_real(&o, "blas_seconds", r->blas_seconds);
    return jout(o);
}

int train_summary(const train_args *a, const cmc_train_result *r) {
    int rc = out_printf("%s: %" PRIu64 " parameters, %" PRId64 " steps, %" PRIu64 " tokens in %.1f s\n", a->t.out_path,
                        r->params, r->steps, r->tokens, r->seconds);
    if (rc == CLI_OK)
        rc = out_printf("records: %zu trained on, %zu held out, %zu left out as too long\n", r->records,
                        r->records_held_out, r->records_left_out);
    size_t all = r->targets + r->targets_left_out;
    if (rc == CLI_OK && r->targets_prefix + r->targets_left_out > 0)
        rc = out_printf("targets: %zu, %.1f %% of them by rows of their own; %.1f %% of the hosts' tokens left out, for they "
                        "begin inside one of the delta's\n", r->targets,
                        100.0 * (double)r->targets_prefix / (double)r->targets,
                        100.0 * (double)r->targets_left_out / (double)all);
    if (rc == CLI_OK && isfinite(r->held_out_steered)) {
        rc = out_printf("held out: %.4f nats a token, the host alone %.4f; best at alpha %.6g\n", r->held_out_steered,
                        r->held_out_host, r->alpha);
    }
    return rc;
}

int train_interrupted(const train_args *a, const train_state *st) {
    const char *ckpt = a->t.checkpoint_path;
    if (strcmp(st->last.phase, "host states") == 0) {    /* no step was made: there is no checkpoint of this run */
        cli_failed("stopped before the first step; what is evaluated of the host is kept; the same command goes on");
    } else {
        cli_failed("stopped at step %" PRId64 " of %" PRId64 "; the checkpoint is %s%s; the same command with --resume "
                   "goes on", st->last.step, st->last.steps, ckpt ? ckpt : a->t.out_path, ckpt ? "" : ".ckpt");
    }
    return CLI_INTERRUPTED;
}

void train_page_begin(train_state *st, const train_args *a) {
    train_html_begin(&st->page, a->html, &(train_html_run){&a->t, train_groups, N_TRAIN_GROUPS, a, st->beside});
}

int train_page_end(train_state *st, cmc_status status, const cmc_train_result *r, const cmc_error *err) {
    train_end end = status == CMC_OK && r->finished ? TRAIN_FINISHED : st->stopped ? TRAIN_STOPPED : TRAIN_FAILED;
    int rc = st->page_failed ? CLI_FAILED : train_html_end(&st->page, end, r, end == TRAIN_FAILED ? err->message : NULL);
    train_html_free(&st->page);
    return rc;
}
