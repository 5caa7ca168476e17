#!/bin/sh
# Installs into an empty prefix, checks what is there, and builds and runs the example against it with pkg-config alone.
# Usage: tests/install.sh BUILD_DIR HOST.gguf DELTA.gguf
set -eu
src=$(cd "$(dirname "$0")/.." && pwd)
tmp=$(mktemp -d)
trap 'rm -rf "$tmp"' EXIT
make -s -C "$1" install prefix="$tmp/p" >"$tmp/log" 2>&1 || { cat "$tmp/log"; exit 1; }
for f in bin/cmc include/cmc.h lib/libcmc.so lib/libcmc.a lib/pkgconfig/libcmc.pc share/man/man1/cmc.1; do
    [ -e "$tmp/p/$f" ] || { echo "install left out $f"; exit 1; }
done
export PKG_CONFIG_PATH="$tmp/p/lib/pkgconfig"
sed -i "s#^prefix=.*#prefix=$tmp/p#" "$PKG_CONFIG_PATH/libcmc.pc"
# shellcheck disable=SC2046  # flags
gcc -std=c17 -Wall -Wextra -Werror "$src/examples/steer.c" -o "$tmp/steer" $(pkg-config --cflags --libs libcmc)
LD_LIBRARY_PATH="$tmp/p/lib" "$tmp/steer" "$2" "$3" "Why is the sky blue?" >"$tmp/out"
[ -s "$tmp/out" ] || { echo "the example printed nothing"; exit 1; }
# Only cmc_ names are exported.
odd=$(nm -D --defined-only "$tmp/p/lib/libcmc.so" | awk '$2 ~ /[TDBR]/ && $3 !~ /^cmc_/ { print $3 }' | grep -v '^_' || true)
[ -z "$odd" ] || { echo "exported besides cmc_*: $odd"; exit 1; }
[ "$(wc -l <"$src/examples/steer.c")" -lt 60 ] || { echo "the example has grown to 60 lines or more"; exit 1; }
