#!/bin/sh
# Builds in a folder (default: this source tree) and rebuilds nothing that is up to date.
# Usage: [TARGETS="all check-programs"] scripts/build.sh [DIR [configure options]]
set -eu
src=$(cd "$(dirname "$0")/.." && pwd)
dir=${1:-$src}
[ $# -eq 0 ] || shift
newer() { [ ! -e "$1" ] || [ "$2" -nt "$1" ]; }
cd "$src"
if newer configure configure.ac || newer Makefile.in Makefile.am || [ ! -e build-aux/ltmain.sh ]; then
    mkdir -p m4
    autoreconf -i >/dev/null
fi
mkdir -p "$dir"
cd "$dir"
if newer config.status "$src/configure"; then
    "$src/configure" -q "$@"
fi
# shellcheck disable=SC2086  # a list of targets
exec make -s -j"$(nproc)" ${TARGETS:-all}
