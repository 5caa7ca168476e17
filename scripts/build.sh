#!/bin/sh
# Builds outside the sources and rebuilds nothing that is up to date. Without DIR: in build/release, with ./cmc a link to the program.
# Usage: [TARGETS="all check-programs"] scripts/build.sh [DIR [configure options]]
set -eu
src=$(cd "$(dirname "$0")/.." && pwd)
dir=${1:-$src/build/release}
[ $# -eq 0 ] || shift
newer() { [ ! -e "$1" ] || [ "$2" -nt "$1" ]; }
# What was configured before cmocka was there has no tests to build.
without_tests() { [ "${TARGETS:-all}" != all ] && grep -qs '^S\["HAVE_CMOCKA_TRUE"\]="#"' "$1/config.status"; }
cd "$src"
if newer configure configure.ac || newer Makefile.in Makefile.am || [ ! -e build-aux/ltmain.sh ]; then
    mkdir -p m4
    autoreconf -i >m4/autoreconf.log 2>&1 || { cat m4/autoreconf.log >&2; exit 1; }
fi
mkdir -p "$dir"
if newer "$dir/config.status" configure || without_tests "$dir"; then
    (cd "$dir" && "$src/configure" -q "$@")
fi
make -q -C "$dir" ${TARGETS:-all} >/dev/null 2>&1 || echo "Building in $dir (a minute or two the first time)" >&2
for target in ${TARGETS:-all}; do # one after the other: make would build what they share twice at once
    make -s -C "$dir" -j"$(nproc)" "$target" >/dev/null
done
if [ "$dir" = "$src/build/release" ]; then
    ln -sf build/release/cmc cmc
fi
