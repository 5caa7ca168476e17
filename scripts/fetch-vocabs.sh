#!/bin/sh
# Fetches the vocabularies that llama.cpp tests its tokenizers with, once, checks their hash and prints their directory
# on stdout. They come inside the source archive of the Python package llama-cpp-python (MIT licence); only they are kept.
# Usage: scripts/fetch-vocabs.sh
# Kept in $CMC_CACHE (default: ~/.cache/cmc). What was fetched whole is never fetched again.
set -eu
umask 022
cache=${CMC_CACHE:-${XDG_CACHE_HOME:-${HOME:-/root}/.cache}/cmc}
scripts=$(dirname "$0")
which=$("$scripts/fetch-archive.sh" --which)
version=${which% *} sha=${which#* }
dir=$cache/ggml-vocabs-$version

if [ ! -f "$dir/$sha" ]; then
    work=$cache/ggml-vocabs.fetch
    rm -rf "$work"
    trap 'rm -rf "$work"' EXIT
    trap 'exit 1' HUP INT TERM
    mkdir -p "$work/kept"
    echo "Fetching the vocabularies of llama-cpp-python $version (its archive is 77 MB). Licence: MIT." >&2
    archive=$("$scripts/fetch-archive.sh" "$work")
    tar -xzf "$archive" -C "$work/kept" --strip-components=4 --no-same-owner --wildcards \
        "$(basename "$archive" .tar.gz)/vendor/llama.cpp/models/ggml-vocab-*"
    : >"$work/kept/$sha"
    rm -rf "$dir"
    mv "$work/kept" "$dir"
fi
echo "$dir"
