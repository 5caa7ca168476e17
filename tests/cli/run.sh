#!/bin/sh
# Runs the program's cases: cases/*.case, each block a command and what must come of it.
#
#   CMC=./cmc MKTINY=tests/mktiny JSONCHECK=tests/jsoncheck tests/cli/run.sh [NAME...]
#   tests/cli/run.sh ./cmc tests/mktiny tests/jsoncheck [NAME...]            NAME: one of cases/*.case, without .case
#
# A block begins with `: what it shows`, and holds:
#   $ COMMAND          run by the shell in a fresh directory of models (see models below); `cmc` is the program
#   exit N             its exit status (0 where not said)
#   out TEXT           a whole line of standard output; all of them, in order, where there is more than one
#   out~ REGEX         standard output has such a line            err~ REGEX   standard error has
#   out!~ REGEX        it has none                                err!~ REGEX
#   out-empty          nothing on standard output                 err-empty    nothing on standard error
#   err-line           standard error is one line, "cmc: ..."
#   json ARGS...       jsoncheck on standard output (tests/cli/jsoncheck.c)
#   file NAME          such a file is there       nofile GLOB     no such file is there
#   same A B           two files hold the same bytes              differ A B
# The last line printed is "N passed, N failed, N skipped".
set -u
here=$(cd "$(dirname "$0")" && pwd)
case ${1:-} in */*) CMC=$1 MKTINY=$2 JSONCHECK=$3; shift 3 ;; esac
absolute() { case $1 in /*) echo "$1" ;; *) echo "$PWD/$1" ;; esac; }
CMC=$(absolute "${CMC:-./cmc}") MKTINY=$(absolute "${MKTINY:-tests/mktiny}")
JSONCHECK=$(absolute "${JSONCHECK:-tests/jsoncheck}")
for program in "$CMC" "$MKTINY" "$JSONCHECK"; do
    [ -x "$program" ] || { echo "FAIL $program is not there"; echo "0 passed, 1 failed, 0 skipped"; exit 1; }
done
dir=$(mktemp -d) || exit 1
trap 'rm -rf "$dir"' EXIT
mkdir "$dir/w" && cd "$dir/w" || exit 1
unset COLUMNS OPENBLAS_CORETYPE
export LC_ALL=C
passed=0 failed=0 skipped=0

cmc() { "$CMC" "$@"; }

# What the cases work on.
models() {
    # host: a BPE vocabulary; delta: another, SentencePiece; twin: the host's vocabulary, other weights
    "$MKTINY" --ctx 512 --name "tiny host" --seed 1 host.gguf &&
    "$MKTINY" --vocab spm --learnt 120 --embd 32 --layers 1 --seed 2 delta.gguf &&
    "$MKTINY" --embd 32 --layers 1 --ctx 512 --seed 3 twin.gguf &&
    "$MKTINY" --ctx 60000 --embd 32 --layers 1 --seed 4 long.gguf &&
    "$MKTINY" --vocab spm --spm-model words.model &&
    "$MKTINY" --damage host.gguf --cut 3000 cut.gguf &&
    "$MKTINY" --damage host.gguf --cut $(($(wc -c <host.gguf) - 1000)) cut-tail.gguf &&
    "$MKTINY" --damage host.gguf --flip 3 flipped-magic.gguf &&
    "$MKTINY" --damage host.gguf --flip 70 flipped-count.gguf || return 1
    : >empty.gguf
    head -c 5000 /dev/zero >zeros.gguf
    echo 'not a model' >text.gguf
    mkdir directory
    printf 'Hello, world' >hello.txt
    cp "$here"/data/* . 2>/dev/null
    return 0
}

say_failed() {
    failed=$((failed + 1))
    echo "FAIL $1: $2"
    shift 2
    for f in "$@"; do
        [ -s "$f" ] && { echo "    $(basename "$f"):"; head -n 12 "$f" | cut -c1-300 | sed 's/^/      /'; }
    done
}

# One expectation of a block. Prints what is wrong.
expect() {
    word=$1 rest=$2
    case $word in
    out~) grep -Eq -- "$rest" out || echo "standard output has no line like $rest" ;;
    err~) grep -Eq -- "$rest" err || echo "standard error has no line like $rest" ;;
    out!~) ! grep -Eq -- "$rest" out || echo "standard output has a line like $rest" ;;
    err!~) ! grep -Eq -- "$rest" err || echo "standard error has a line like $rest" ;;
    out-empty) [ ! -s out ] || echo "standard output is not empty" ;;
    err-empty) [ ! -s err ] || echo "standard error is not empty" ;;
    err-line) [ "$(wc -l <err)" -eq 1 ] && grep -q '^cmc: ..' err || echo "standard error is not one line \"cmc: ...\"" ;;
    json) eval "\"\$JSONCHECK\" out $rest" 2>&1 ;;
    file) [ -f "$rest" ] || echo "there is no file $rest" ;;
    nofile) for f in $rest; do [ ! -e "$f" ] || echo "there is a file $f"; done ;;
    same) set -- $rest && cmp "$1" "$2" 2>&1 ;;
    differ) set -- $rest && ! cmp -s "$1" "$2" || echo "$rest hold the same" ;;
    *) echo "the case has an unknown word: $word" ;;
    esac
}

# finish: checks the block that has been gathered.
finish() {
    [ -n "$name" ] || return 0
    (eval "$command") >out 2>err </dev/null
    got=$?
    wrong=
    [ "$got" -eq "$status" ] || wrong="exit status $got, not $status"
    if [ -z "$wrong" ] && [ -s ../want ]; then cmp -s out ../want || wrong="standard output is not as it should be"; fi
    if [ -z "$wrong" ]; then
        while IFS= read -r expected; do
            word=${expected%% *} rest=${expected#"$word"}
            wrong=$(expect "$word" "${rest# }")
            [ -z "$wrong" ] || break
        done <../expected
    fi
    if [ -z "$wrong" ]; then
        passed=$((passed + 1))
        echo "ok   $file: $name"
    else
        say_failed "$file: $name" "$wrong" out err
        printf '    command: %s\n' "$command"
    fi
    name=
}

run_file() {
    file=$(basename "$1" .case) name='' command='' status=0
    while IFS= read -r line || [ -n "$line" ]; do
        case $line in
        ': '*) finish; name=${line#: } command='' status=0; : >../want; : >../expected ;;
        '$ '*) [ -z "$command" ] && command=${line#??} || command="$command
${line#??}" ;;
        'exit '*) status=${line#exit } ;;
        'out '*) printf '%s\n' "${line#out }" >>../want ;;
        '' | '#'*) ;;
        *) printf '%s\n' "$line" >>../expected ;;
        esac
    done <"$1"
    finish
}

if ! models >"$dir/log" 2>&1; then
    say_failed models "mktiny failed" "$dir/log"
else
    for case in "$here"/cases/*.case; do
        wanted=no
        [ $# -eq 0 ] && wanted=yes
        for n in "$@"; do [ "$n" = "$(basename "$case" .case)" ] && wanted=yes; done
        [ $wanted = yes ] && run_file "$case"
    done
fi
echo "$passed passed, $failed failed, $skipped skipped"
[ "$failed" -eq 0 ]
