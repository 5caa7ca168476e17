#!/bin/sh
# The long runs: $CMC_SYNC_STEPS random steps (default 1,000,000) of the synchronisation property, over the real
# vocabularies too that test_sync.c names where their variables are set; then libFuzzer under ASan and UBSan on every
# reader of foreign bytes, $CMC_FUZZ_SECONDS each (default 300).
# Usage: tests/long.sh BUILD_DIR   (needs clang and libclang-rt-dev; findings are left in build/fuzz)
set -eu
src=$(cd "$(dirname "$0")/.." && pwd)
seconds=${CMC_FUZZ_SECONDS:-300}
dir=$src/build/fuzz
failed=0 passed=0

# A release build of its own kind: a sanitized one would take the night.
mkdir -p "$src/build"
TARGETS=check-programs "$src/scripts/build.sh" "$src/build/release"
: "${CMC_TEST_SMOLLM2:=$("$src/scripts/fetch-model.sh" smollm2 --accept 2>"$src/build/sync.log" || true)}"
export CMC_TEST_SMOLLM2
if CMC_SYNC_STEPS=${CMC_SYNC_STEPS:-1000000} "$src/build/release/tests/test_sync" >"$src/build/sync.log" 2>&1; then
    passed=$((passed + 1))
    grep ' > \|^SKIP\|texts compared' "$src/build/sync.log"
    echo "ok   test_sync"
else
    failed=$((failed + 1))
    echo "FAIL test_sync: see build/sync.log"
fi

san='-fsanitize=address,undefined -fno-sanitize-recover=undefined'
mkdir -p "$dir"
TARGETS=libcmc-core.la CC=clang CXX=clang++ "$src/scripts/build.sh" "$dir" --enable-sanitize --disable-shared \
    CFLAGS='-O1 -g -fsanitize=fuzzer-no-link' CXXFLAGS='-O1 -g -fsanitize=fuzzer-no-link'
# What some targets make their vocabularies with.
# shellcheck disable=SC2086
clang -std=c17 -D_GNU_SOURCE -O1 -g -I"$src/include" -I"$src" $san -c "$src/tests/vocab_make.c" -o "$dir/vocab_make.o"
for f in "$src"/tests/fuzz_*.c; do
    name=$(basename "$f" .c)
    [ "$name" != fuzz_main ] || continue
    # shellcheck disable=SC2086,SC2046  # flags
    clang -std=c17 -D_GNU_SOURCE -O1 -g -I"$src/include" -I"$src" $san -fsanitize=fuzzer-no-link -c "$f" -o "$dir/$name.o"
    # shellcheck disable=SC2086,SC2046
    clang++ $san -fsanitize=fuzzer "$dir/$name.o" "$dir/vocab_make.o" "$dir/.libs/libcmc-core.a" \
        $(pkg-config --libs sentencepiece libpcre2-8 jansson libxxhash libutf8proc) -ldl -lm -pthread -o "$dir/$name"
    mkdir -p "$dir/corpus-$name"
    if (cd "$dir" && "./$name" -max_total_time="$seconds" -timeout=25 -rss_limit_mb=3000 -max_len=65536 -print_final_stats=1 \
        "corpus-$name" "$src/tests/corpus/${name#fuzz_}" >"$name.log" 2>&1); then
        passed=$((passed + 1))
        echo "ok   $name: $(sed -n 's/^stat::number_of_executed_units: *//p' "$dir/$name.log") inputs in $seconds s"
    else
        failed=$((failed + 1))
        echo "FAIL $name: see build/fuzz/$name.log"
    fi
done
echo "$passed passed, $failed failed"
[ "$failed" -eq 0 ]
