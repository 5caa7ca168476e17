#!/bin/sh
# Fetches the source archive of the Python package llama-cpp-python (MIT licence; llama.cpp is inside, in vendor/), checks
# its hash and prints its path on stdout. It is not unpacked, and nothing in it is run.
# Usage: scripts/fetch-archive.sh DIR        DIR/llama_cpp_python-VERSION.tar.gz, and DIR/fetch.tmp meanwhile
#        scripts/fetch-archive.sh --which    only says its version and its SHA-256
set -eu
umask 022
package=llama-cpp-python version=0.3.36
archive=llama_cpp_python-$version
sha=832db0699007f1be95a7e41ef12e88926b02ba836461e36a36372db2760c1a2e
say() { echo "fetch-archive.sh: $*" >&2; }
die() { say "$@"; exit 1; }
[ $# -eq 1 ] || { echo "usage: scripts/fetch-archive.sh DIR | --which" >&2; exit 2; }
[ "$1" != --which ] || { echo "$version $sha"; exit 0; }
dir=$1 work=$1/fetch.tmp

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
        say "$package $version did not arrive whole (try $try of 3)"
        sleep "$try"
    done
    die "$package $version could not be fetched: is the package index reachable?"
}

sha_ok() { [ -f "$1" ] && [ "$(sha256sum "$1" | cut -d' ' -f1)" = "$sha" ]; }

if ! sha_ok "$dir/$archive.tar.gz"; then
    rm -rf "$work"
    trap 'rm -rf "$work"' EXIT
    trap 'exit 1' HUP INT TERM
    mkdir -p "$work"
    stub_backend
    fetch
    sha_ok "$work/dl/$archive.tar.gz" || die "$archive.tar.gz: wrong SHA-256 after the fetch; it was thrown away, try again"
    mv "$work/dl/$archive.tar.gz" "$dir/"
fi
echo "$dir/$archive.tar.gz"
