# shellcheck shell=sh disable=SC2154
# Counting, for the scripts that run tests: sourced, not run. Wants $tmp, a folder of the caller's own.
passed=0 failed=0 skipped=0

# tally NAME STATUS LOG [noskips]: adds what a cmocka program reported.
tally() {
    p=$(sed -n 's/^\[  PASSED  \] \([0-9]*\) test(s)\..*/\1/p' "$3" | awk '{ s += $1 } END { print s + 0 }')
    f=$(sed -n 's/^\[  FAILED  \] \([0-9]*\) test(s).*/\1/p' "$3" | awk '{ s += $1 } END { print s + 0 }')
    k=$(grep -c '^SKIP ' "$3")
    if [ "$2" -ne 0 ] && [ "$f" -eq 0 ]; then f=1; fi
    if [ "$p" -eq 0 ] && [ "$f" -eq 0 ]; then f=1; echo "no test ran" >>"$3"; fi
    [ "$p" -ge "$k" ] && p=$((p - k)) || p=0
    if [ "$f" -ne 0 ]; then
        echo "FAIL $1 (exit $2)"
        grep -v '^\[ RUN\|^\[       OK' "$3" | tail -n 40 | sed 's/^/    /'
    else
        echo "ok   $1: $p passed${k:+, $k skipped}"
        grep '^SKIP ' "$3" | sed 's/^/    /'
    fi
    passed=$((passed + p)) failed=$((failed + f))
    [ "${4:-}" = noskips ] || skipped=$((skipped + k))
}

# part NAME COMMAND...: adds what a script counts in its own last line.
part() {
    name=$1
    shift
    "$@" >"$tmp/part.log" 2>&1
    status=$?
    last=$(tail -n 1 "$tmp/part.log")
    # shellcheck disable=SC2046  # three numbers
    set -- $(echo "$last" | sed -n 's/^\([0-9]*\) passed, \([0-9]*\) failed, \([0-9]*\) skipped$/\1 \2 \3/p')
    if [ $# -ne 3 ] || { [ $status -ne 0 ] && [ "$2" -eq 0 ]; }; then set -- 0 1 0; fi
    if [ "$2" -eq 0 ]; then
        echo "ok   $name: $1 passed"
        grep '^SKIP ' "$tmp/part.log" | sed 's/^/    /'
    else
        echo "FAIL $name"
        grep -v '^ok' "$tmp/part.log" | tail -n 60 | sed 's/^/    /'
    fi
    passed=$((passed + $1)) failed=$((failed + $2)) skipped=$((skipped + $3))
}
