/* Messages, memory, UTF-8, hashes, and files that appear whole or not at all. */
#include "base/error.h"
#include "base/file.h"
#include "base/mem.h"
#include "base/utf8.h"
#include "tests/tiny.h"

#include <dirent.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <unistd.h>
#include <utf8proc.h>

#include <cmocka.h>

/* ----------------------------------------------------------------------------------------------- messages, memory */

static void test_error(void **state) {
    (void)state;
    cmc_error err = {0};
    assert_int_equal(cmc_fail(&err, CMC_E_FORMAT, "a\nb\x7f\x01 %d", 7), CMC_E_FORMAT);
    assert_int_equal(err.status, CMC_E_FORMAT);
    assert_string_equal(err.message, "a?b?? 7");
    assert_int_equal(cmc_fail(NULL, CMC_E_IO, "unheard"), CMC_E_IO);

    char longest[700]; /* a message that is cut is cut between characters */
    for (size_t i = 0; i + 3 < sizeof longest; i += 3) {
        memcpy(longest + i, "\342\202\254", 4);
    }
    for (int lead = 0; lead < 3; lead++) {
        cmc_fail(&err, CMC_E_IO, "%.*s%s", lead, "abc", longest);
        size_t n = strlen(err.message);
        assert_true(n > 500 && n < sizeof err.message);
        assert_true(cmc_utf8_valid((const uint8_t *)err.message, n));
    }
    assert_string_equal(cmc_version(), CMC_VERSION);
}

static void test_mem(void **state) {
    (void)state;
    assert_null(cmc_alloc(SIZE_MAX / 2, 3));
    assert_null(cmc_calloc(SIZE_MAX / 2, 3));
    assert_null(cmc_alloc(SIZE_MAX / 2 + 1, 1));
    assert_null(cmc_alloc_aligned(SIZE_MAX / 2, 1));
    assert_null(cmc_alloc_aligned(SIZE_MAX / 2, 4));
    assert_null(cmc_realloc(NULL, SIZE_MAX, SIZE_MAX));
    void *p = cmc_alloc(0, 8);
    assert_non_null(p);
    free(p);
    for (size_t n = 0; n < 300; n += 7) {
        uint8_t *a = cmc_alloc_aligned(n, 3);
        assert_non_null(a);
        assert_int_equal((uintptr_t)a % 64, 0);
        memset(a, 1, n * 3);
        free(a);
    }
    void *v = NULL;
    size_t cap = 0;
    assert_true(cmc_grow(&v, &cap, 1000, 4) && cap >= 1000);
    size_t before = cap;
    assert_false(cmc_grow(&v, &cap, SIZE_MAX / 2, 4)); /* and leaves what is there as it is */
    assert_int_equal(cap, before);
    free(v);
    assert_true(cmc_mem_available() > (1U << 20));
    assert_true(cmc_mem_peak() > (1U << 20));
    double t = cmc_now();
    assert_true(t > 0 && cmc_now() >= t);
}

static void test_ids(void **state) {
    (void)state;
    cmc_ids ids = {0};
    for (int32_t i = 0; i < 1000; i++) {
        assert_int_equal(cmc_ids_push(&ids, i * 3), CMC_OK);
    }
    assert_int_equal(cmc_ids_append(&ids, (const int32_t[]){-1, -2}, 2), CMC_OK);
    assert_int_equal(cmc_ids_append(&ids, NULL, 0), CMC_OK);
    assert_int_equal(ids.n, 1002);
    assert_int_equal(ids.v[999], 2997);
    assert_int_equal(ids.v[1001], -2);
    assert_int_equal(cmc_ids_reserve(&ids, SIZE_MAX / 2), CMC_E_NOMEM);
    assert_int_equal(ids.n, 1002);
    cmc_ids_free(&ids);
    assert_null(ids.v);
    cmc_ids_free(&ids);
    cmc_ids_free(NULL);
}

/* ----------------------------------------------------------------------------------------------------------- UTF-8 */

/* Every valid character and every proper beginning of one, from the definition of the encoding alone. */
typedef struct utf8_truth { uint8_t *whole[3], *start[3]; } utf8_truth; /* bit sets over 1, 2 and 3 bytes */

static void set_bit(uint8_t *set, size_t i) { set[i >> 3] = (uint8_t)(set[i >> 3] | 1U << (i & 7)); }
static bool get_bit(const uint8_t *set, size_t i) { return set[i >> 3] >> (i & 7) & 1; }

static size_t pack(const uint8_t *s, size_t n) {
    size_t v = 0;
    for (size_t i = 0; i < n; i++) {
        v = v << 8 | s[i];
    }
    return v;
}

static size_t encode_by_definition(uint32_t cp, uint8_t *s) {
    static const uint32_t limits[] = {0x80, 0x800, 0x10000, 0x110000};
    static const uint8_t marks[] = {0x00, 0xc0, 0xe0, 0xf0};
    size_t n = 1;
    while (cp >= limits[n - 1]) {
        n++;
    }
    for (size_t i = n; i-- > 1; cp >>= 6) {
        s[i] = (uint8_t)(0x80 | (cp & 0x3f));
    }
    s[0] = (uint8_t)(marks[n - 1] | cp);
    return n;
}

static int setup_truth(void **state) {
    static utf8_truth t;
    for (size_t i = 0; i < 3; i++) {
        t.whole[i] = calloc(1, ((size_t)1 << 8 * (i + 1)) / 8);
        t.start[i] = calloc(1, ((size_t)1 << 8 * (i + 1)) / 8);
        if (t.whole[i] == NULL || t.start[i] == NULL) {
            return -1;
        }
    }
    for (uint32_t cp = 0; cp < 0x110000; cp++) {
        uint8_t s[4];
        if (cp >= 0xd800 && cp < 0xe000) {
            continue;
        }
        size_t n = encode_by_definition(cp, s);
        if (n < 4) {
            set_bit(t.whole[n - 1], pack(s, n));
        }
        for (size_t k = 1; k < n; k++) {
            set_bit(t.start[k - 1], pack(s, k));
        }
    }
    *state = &t;
    return 0;
}

static int teardown_truth(void **state) {
    utf8_truth *t = *state;
    for (size_t i = 0; i < 3; i++) {
        free(t->whole[i]);
        free(t->start[i]);
    }
    return 0;
}

/* What decoding s[0..n) must give, n <= 3. */
static int32_t decode_by_definition(const utf8_truth *t, const uint8_t *s, size_t n, size_t *len) {
    for (*len = 1; *len <= n; ++*len) {
        if (get_bit(t->whole[*len - 1], pack(s, *len))) {
            int32_t cp = *len == 1 ? s[0] : s[0] & (0x3f >> (*len - 1));
            for (size_t i = 1; i < *len; i++) {
                cp = cp << 6 | (s[i] & 0x3f);
            }
            return cp;
        }
    }
    bool unfinished = get_bit(t->start[n - 1], pack(s, n));
    *len = unfinished ? n : 1;
    return unfinished ? -2 : -1;
}

static void test_utf8_every_three_bytes(void **state) {
    const utf8_truth *t = *state;
    for (size_t n = 1; n <= 3; n++) {
        for (size_t v = 0; v < (size_t)1 << 8 * n; v++) {
            uint8_t s[3];
            for (size_t i = 0; i < n; i++) {
                s[i] = (uint8_t)(v >> 8 * (n - 1 - i));
            }
            size_t len = 99, want_len;
            int32_t want = decode_by_definition(t, s, n, &want_len), got = cmc_utf8_decode(s, n, &len);
            if (got != want || len != want_len) { /* an assertion for each of 16 million would be slow */
                fail_msg("%zu bytes %06zx: %d (%zu), should be %d (%zu)", n, v, got, len, want, want_len);
            }
        }
    }
}

static void test_utf8_characters(void **state) {
    (void)state;
    for (int32_t cp = -2; cp < 0x110010; cp++) {
        uint8_t s[4] = {0}, want[4];
        bool scalar = cp >= 0 && cp < 0x110000 && !(cp >= 0xd800 && cp < 0xe000);
        size_t n = cmc_utf8_encode(cp, s), len = 0;
        if (!scalar) {
            assert_int_equal(n, 0);
            continue;
        }
        size_t want_n = encode_by_definition((uint32_t)cp, want);
        if (n != want_n || memcmp(s, want, n) != 0 || cmc_utf8_decode(s, n, &len) != cp || len != n ||
            !cmc_utf8_valid(s, n) || cmc_utf8_count(s, n) != 1 || cmc_utf8_whole(s, n) != n ||
            (n > 1 && cmc_utf8_whole(s, n - 1) != 0)) {
            fail_msg("U+%04X is not what it should be", (unsigned)cp);
        }
    }
    static const uint8_t edges[] = {0x00, 0x7f, 0x80, 0x8f, 0x90, 0xbf, 0xc0, 0xff};
    size_t len, good = 0;
    for (size_t i = 0; i < 16 * 8 * 8 * 8; i++) { /* four bytes from 0xf0 on, at the edges of every range */
        uint8_t s[4] = {(uint8_t)(0xf0 + (i >> 9)), edges[i >> 6 & 7], edges[i >> 3 & 7], edges[i & 7]}, again[4];
        int32_t cp = cmc_utf8_decode(s, 4, &len);
        assert_int_equal(len, cp >= 0 ? 4 : 1);
        assert_true(cp < 0 || (encode_by_definition((uint32_t)cp, again) == 4 && memcmp(s, again, 4) == 0));
        good += cp >= 0;
    }
    assert_int_equal(good, (2 + 4 * 3 + 2) * 16); /* second byte: 2 edges after f0, 4 after f1 to f3, 2 after f4 */
}

/* Random texts of whole, cut and broken characters: counting and cutting agree with decoding one after the other. */
/* White_Space is the separators, and the controls that move on. */
static void test_utf8_spaces(void **state) {
    (void)state;
    for (int32_t cp = -2; cp <= 0x110000; cp++) {
        utf8proc_category_t c = utf8proc_category(cp);
        bool want = c == UTF8PROC_CATEGORY_ZS || c == UTF8PROC_CATEGORY_ZL || c == UTF8PROC_CATEGORY_ZP ||
                    (cp >= '\t' && cp <= '\r') || cp == 0x85;
        if (cmc_utf8_is_space(cp) != want) {
            fail_msg("U+%04X", (unsigned)cp);
        }
    }
}

static void test_utf8_texts(void **state) {
    (void)state;
    static const char *const parts[] = {"a",    "\303\251",     "\342\202\254", "\360\237\230\200",
                                        "\303", "\342\202",     "\360\237\230", "\200",
                                        "\377", "\355\240\200", "\300\200"};
    uint32_t seed = 1;
    for (int round = 0; round < 20000; round++) {
        uint8_t s[40];
        size_t n = 0;
        for (int i = 0; i < 8; i++) {
            seed = seed * 1664525 + 1013904223;
            const char *part = parts[(seed >> 16) % (sizeof parts / sizeof parts[0])];
            memcpy(s + n, part, strlen(part));
            n += strlen(part);
        }
        size_t count = 0, whole = n, len;
        bool valid = true;
        for (size_t i = 0; i < n; i += len) {
            int32_t cp = cmc_utf8_decode(s + i, n - i, &len);
            valid = valid && cp >= 0;
            whole = cp == -2 ? i : whole;
            count += cp == -2 ? n - i : 1;
        }
        assert_int_equal(cmc_utf8_valid(s, n), valid);
        assert_int_equal(cmc_utf8_whole(s, n), whole);
        assert_int_equal(cmc_utf8_count(s, n), count);
    }
    assert_int_equal(cmc_utf8_whole((const uint8_t *)"", 0), 0);
    assert_true(cmc_utf8_valid((const uint8_t *)"", 0));
}

/* ----------------------------------------------------------------------------------------------------------- hashes */

static void test_hash(void **state) {
    (void)state;
    char hex[40], streamed[40];
    cmc_hash_hex("", 0, hex);
    assert_string_equal(hex, "99aa06d3014798d86001c324468d497f"); /* XXH3's published value for no bytes */
    uint8_t data[5000];
    for (size_t i = 0; i < sizeof data; i++) {
        data[i] = (uint8_t)(i * i >> 3);
    }
    cmc_hash_hex(data, sizeof data, hex);
    for (size_t step = 1; step < sizeof data; step = step * 3 + 1) {
        cmc_hasher *h = cmc_hasher_new();
        assert_non_null(h);
        for (size_t i = 0; i < sizeof data; i += step) {
            cmc_hasher_add(h, data + i, sizeof data - i < step ? sizeof data - i : step);
        }
        cmc_hasher_finish(h, streamed);
        assert_string_equal(streamed, hex);
    }
    data[4321] ^= 1;
    cmc_hash_hex(data, sizeof data, streamed);
    assert_string_not_equal(streamed, hex);
}

/* ------------------------------------------------------------------------------------------------------------ files */

static int setup_dir(void **state) { return (*state = tiny_dir_new()) != NULL ? 0 : -1; }
static int teardown_dir(void **state) {
    tiny_dir_free(*state);
    return 0;
}

static size_t entries(const char *dir) {
    DIR *d = opendir(dir);
    assert_non_null(d);
    size_t n = 0;
    while (readdir(d) != NULL) {
        n++;
    }
    closedir(d);
    return n - 2;
}

static void assert_holds(const char *path, const void *data, size_t n) {
    cmc_file f;
    cmc_error err = {0};
    if (cmc_file_map(path, &f, &err) != CMC_OK) {
        fail_msg("%s", err.message);
    }
    assert_int_equal(f.size, n);
    assert_true(n == 0 || memcmp(f.data, data, n) == 0);
    assert_string_equal(f.path, path);
    cmc_file_unmap(&f);
    assert_null(f.data);
}

static void test_writer_whole(void **state) {
    const char *path = tiny_path(*state, "out");
    cmc_error err = {0};
    enum { N = 300000 };
    uint8_t *data = malloc(N);
    assert_non_null(data);
    for (size_t i = 0; i < N; i++) {
        data[i] = (uint8_t)(i % 251);
    }
    const size_t steps[] = {1, 999, 65536, 70000, N};
    for (size_t s = 0; s < sizeof steps / sizeof steps[0]; s++) {
        cmc_writer *w;
        assert_int_equal(cmc_writer_open(path, &w, &err), CMC_OK);
        for (size_t i = 0; i < N; i += steps[s]) {
            assert_int_equal(cmc_writer_offset(w), i);
            assert_int_equal(cmc_writer_put(w, data + i, N - i < steps[s] ? N - i : steps[s], &err), CMC_OK);
        }
        assert_int_equal(entries(*state), s == 0 ? 1 : 2); /* the new one beside what was there */
        assert_int_equal(cmc_writer_commit(w, &err), CMC_OK);
        assert_int_equal(entries(*state), 1);
        assert_holds(path, data, N);
    }
    free(data);
}

static void test_writer_abort(void **state) {
    const char *path = tiny_path(*state, "out"), *link = tiny_path(*state, "link");
    cmc_error err = {0};
    cmc_writer *a, *b;
    assert_int_equal(cmc_writer_open(path, &a, &err), CMC_OK);
    assert_int_equal(cmc_writer_open(path, &b, &err), CMC_OK); /* two at once do not meet in one file */
    assert_int_equal(cmc_writer_put(a, "one", 3, &err), CMC_OK);
    assert_int_equal(cmc_writer_put(b, "two", 3, &err), CMC_OK);
    cmc_writer_abort(b);
    assert_int_equal(cmc_writer_commit(a, &err), CMC_OK);
    assert_holds(path, "one", 3);
    assert_int_equal(entries(*state), 1);

    assert_int_equal(chmod(path, 0640), 0);
    assert_int_equal(symlink("out", link), 0);
    assert_int_equal(cmc_writer_open(link, &a, &err), CMC_OK);
    assert_int_equal(cmc_writer_put(a, "three", 5, &err), CMC_OK);
    assert_int_equal(cmc_writer_commit(a, &err), CMC_OK);
    struct stat st;
    assert_int_equal(lstat(link, &st), 0);
    assert_true(S_ISLNK(st.st_mode)); /* followed, not replaced */
    assert_holds(path, "three", 5);
    assert_int_equal(stat(path, &st), 0);
    assert_int_equal(st.st_mode & 0777, 0640);
    cmc_writer_abort(NULL);
}

/* A disk that fills up: the limit on a file's size makes write fail part-way. The old file stays, no other is left. */
static void test_writer_full(void **state) {
    const char *path = tiny_path(*state, "out");
    cmc_error err = {0};
    cmc_writer *w;
    assert_int_equal(cmc_writer_open(path, &w, &err), CMC_OK);
    assert_int_equal(cmc_writer_put(w, "old", 3, &err), CMC_OK);
    assert_int_equal(cmc_writer_commit(w, &err), CMC_OK);

    struct rlimit old, small;
    assert_int_equal(getrlimit(RLIMIT_FSIZE, &old), 0);
    small = old;
    small.rlim_cur = 100000;
    void (*handler)(int) = signal(SIGXFSZ, SIG_IGN);
    static const uint8_t block[40000];
    for (int late = 0; late < 2; late++) {
        assert_int_equal(cmc_writer_open(path, &w, &err), CMC_OK);
        assert_int_equal(setrlimit(RLIMIT_FSIZE, &small), 0);
        cmc_status status = CMC_OK, commit;
        int n = late ? 3 : 10; /* 3: the last block is still in the buffer, so that commit is what fails */
        for (int i = 0; i < n && status == CMC_OK; i++) {
            status = cmc_writer_put(w, block, sizeof block, &err);
        }
        commit = cmc_writer_commit(w, &err);
        setrlimit(RLIMIT_FSIZE, &old);
        assert_int_equal(status, late ? CMC_OK : CMC_E_IO);
        assert_int_equal(commit, CMC_E_IO);
        assert_non_null(strstr(err.message, late ? "File too large" : "an earlier write to it failed"));
        assert_int_equal(entries(*state), 1);
        assert_holds(path, "old", 3);
    }
    signal(SIGXFSZ, handler);
}

static void test_refused_paths(void **state) {
    const char *dir = *state, *missing = tiny_path(dir, "no/such/file"), *fifo = tiny_path(dir, "fifo");
    assert_int_equal(mkfifo(fifo, 0600), 0);
    const struct { const char *path, *read, *write; } cases[] = {
        {missing, "No such file or directory", "No such file or directory"},
        {dir, "is a directory", "is a directory"},
        {fifo, "not a regular file", "not a regular file"},
        {"", "cannot be opened", "cannot be written"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        cmc_error err = {0};
        cmc_file f;
        cmc_writer *w = (cmc_writer *)&f;
        assert_int_equal(cmc_file_map(cases[i].path, &f, &err), CMC_E_IO);
        assert_null(f.data);
        assert_non_null(strstr(err.message, cases[i].read));
        assert_int_equal(strncmp(err.message, cases[i].path, strlen(cases[i].path)), 0);
        assert_int_equal(cmc_writer_open(cases[i].path, &w, &err), CMC_E_IO);
        assert_null(w);
        assert_non_null(strstr(err.message, cases[i].write));
    }
    assert_int_equal(entries(dir), 1);
    if (geteuid() == 0) {
        puts("SKIP read-only directory: root may write anywhere");
        return;
    }
    cmc_error err = {0};
    cmc_writer *w;
    assert_int_equal(chmod(dir, 0500), 0);
    assert_int_equal(cmc_writer_open(tiny_path(dir, "out"), &w, &err), CMC_E_IO);
    assert_non_null(strstr(err.message, "Permission denied"));
    assert_int_equal(chmod(dir, 0700), 0);
}

static void test_empty_file(void **state) {
    const char *path = tiny_path(*state, "empty");
    cmc_error err = {0};
    cmc_writer *w;
    assert_int_equal(cmc_writer_open(path, &w, &err), CMC_OK);
    assert_int_equal(cmc_writer_commit(w, &err), CMC_OK);
    assert_holds(path, "", 0);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_error),
        cmocka_unit_test(test_mem),
        cmocka_unit_test(test_ids),
        cmocka_unit_test_setup_teardown(test_utf8_every_three_bytes, setup_truth, teardown_truth),
        cmocka_unit_test(test_utf8_characters),
        cmocka_unit_test(test_utf8_spaces),
        cmocka_unit_test(test_utf8_texts),
        cmocka_unit_test(test_hash),
        cmocka_unit_test_setup_teardown(test_writer_whole, setup_dir, teardown_dir),
        cmocka_unit_test_setup_teardown(test_writer_abort, setup_dir, teardown_dir),
        cmocka_unit_test_setup_teardown(test_writer_full, setup_dir, teardown_dir),
        cmocka_unit_test_setup_teardown(test_refused_paths, setup_dir, teardown_dir),
        cmocka_unit_test_setup_teardown(test_empty_file, setup_dir, teardown_dir),
    };
    return cmocka_run_group_tests_name("base", tests, NULL, NULL);
}
