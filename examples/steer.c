/* Answers a question with a host model that a delta steers, and prints the answer as it grows.
 *   cc steer.c $(pkg-config --cflags --libs libcmc) -o steer && ./steer HOST.gguf DELTA.gguf "What is a hat?" */
#include <cmc.h>
#include <math.h>
#include <stdio.h>
#include <string.h>

/* Steps the stream until it stops; each time, prints what is new of its text. */
static cmc_status print_answer(cmc_stream *stream, cmc_error *err) {
    size_t shown = 0, n;
    while (cmc_stream_stopped(stream) == CMC_STOP_NONE) {
        cmc_status s = cmc_streams_step(&stream, 1, err);
        if (s != CMC_OK) return s;
        const char *text = cmc_stream_text(stream, &n);
        fwrite(text + shown, 1, n - shown, stdout);
        fflush(stdout);
        shown = n;
    }
    putchar('\n');
    if (cmc_stream_note(stream)) fprintf(stderr, "%s\n", cmc_stream_note(stream));
    return CMC_OK;
}

int main(int argc, char **argv) {
    if (argc != 4) {
        fprintf(stderr, "usage: steer HOST.gguf DELTA.gguf QUESTION\n");
        return 2;
    }
    cmc_error err = {0};
    cmc_runtime *runtime = NULL;
    cmc_model *host = NULL, *delta = NULL;
    cmc_steering *steering = NULL;
    cmc_stream *stream = NULL;
    cmc_message question = {.role = CMC_USER, .text = argv[3], .len = strlen(argv[3])};
    cmc_record prompt = {.messages = &question, .n_messages = 1};
    cmc_stream_opts opts = {.max_tokens = 256, .sampling = cmc_sampling_defaults()};

    cmc_status s = cmc_runtime_open(NULL, &runtime, &err);
    if (s == CMC_OK) s = cmc_model_open(runtime, argv[1], &host, &err);
    if (s == CMC_OK) s = cmc_model_open(runtime, argv[2], &delta, &err);
    if (s == CMC_OK) s = cmc_steering_new(host, NULL, &steering, &err);
    if (s == CMC_OK) s = cmc_steering_add(steering, delta, NAN, NULL, CMC_TMPL_AUTO, &err); /* NAN: the delta's own strength */
    if (s == CMC_OK) s = cmc_stream_new(steering, &prompt, &opts, &stream, &err);
    if (s == CMC_OK) s = print_answer(stream, &err);
    if (s != CMC_OK) fprintf(stderr, "steer: %s\n", err.message);

    cmc_stream_free(stream);
    cmc_steering_free(steering);
    cmc_model_free(delta);
    cmc_model_free(host);
    cmc_runtime_free(runtime);
    return s == CMC_OK ? 0 : 1;
}
