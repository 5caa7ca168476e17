#!/bin/sh
# Builds for 64-bit ARM and runs the kernels' tests in an emulator, on a processor without the dot product extension and on one with
# it; `all` runs all units, which takes long. Says nothing about speed. Counts in its last line; where the packages cannot be had
# that is a SKIP.
# Usage: tests/neon.sh [all]
set -u
src=$(cd "$(dirname "$0")/.." && pwd)
dir=$src/build/arm64
root=$dir/root                        # what libcmc links with, unpacked; the system is left as it is
lib=$root/usr/lib/aarch64-linux-gnu
tmp=$(mktemp -d)
trap 'rm -rf "$tmp"' EXIT
. "$src/tests/tally.sh"

# Debian's libraries for that processor, into a folder of their own: foreign -dev packages would push out the machine's.
unpack() {
    [ ! -e "$root/done" ] || return 0
    rm -rf "$root"
    mkdir -p "$root" "$tmp/state/lists/partial" "$tmp/cache/archives/partial"
    : >"$tmp/state/status"
    # All on one line, in $tmp: apt takes relative names from where it runs.
    set -- -qq -o APT::Architecture=arm64 -o APT::Architectures=arm64 -o APT::Sandbox::User= -o Dir::State="$tmp/state" \
        -o Dir::State::status="$tmp/state/status" -o Dir::Cache="$tmp/cache"
    apt-get "$@" update || return 1
    (cd "$tmp" && apt-get "$@" download libcmocka-dev libcmocka0 libgfortran5 libjansson-dev libjansson4 libopenblas0-pthread \
        libpcre2-8-0 libpcre2-dev libsentencepiece-dev libsentencepiece0 libutf8proc-dev libutf8proc2 libxxhash-dev libxxhash0 \
        uthash-dev) || return 1
    for deb in "$tmp"/*.deb; do dpkg -x "$deb" "$root" || return 1; done
    touch "$root/done"
}

# units CPU NAME...: test programs, as many at once as there are cores.
units() {
    export QEMU_CPU="$1"
    shift
    printf '%s\n' "$@" | xargs -P "$(nproc)" -I NAME sh -c \
        "qemu-aarch64-static '$dir/tests/NAME' >'$tmp/NAME.log' 2>&1; echo \$? >'$tmp/NAME.status'"
    for name in "$@"; do tally "$name on $QEMU_CPU" "$(cat "$tmp/$name.status")" "$tmp/$name.log" noskips; done
}

# isa CPU NAME: the kernels that the program says it uses there.
isa() {
    if QEMU_CPU=$1 qemu-aarch64-static "$dir/cmc" bench -m "$tmp/tiny.gguf" -p 8 -n 2 -r 1 --json >"$tmp/log" 2>&1 &&
        grep -q "\"isa\": *\"$2\"" "$tmp/log"; then
        passed=$((passed + 1))
        echo "ok   $2 on $1"
    else
        failed=$((failed + 1))
        echo "FAIL $2 on $1"
        sed 's/^/    /' "$tmp/log"
    fi
}

if ! { "$src/scripts/deps.sh" build arm64 && unpack; } >"$tmp/log" 2>&1; then
    sed 's/^/    /' "$tmp/log"
    echo "SKIP ARM: its compiler, emulator or libraries cannot be had"
    echo "0 passed, 0 failed, 1 skipped"
    exit 0
fi
kernels="test_quant test_vec test_matmul test_shift test_guard test_sampler"
targets="cmc tests/mktiny"
for t in $kernels; do targets="$targets tests/$t"; done
[ "${1:-}" != all ] || targets="all check-programs"
export PKG_CONFIG_SYSROOT_DIR="$root" PKG_CONFIG_LIBDIR="$lib/pkgconfig"
if ! TARGETS="$targets" "$src/scripts/build.sh" "$dir" --host=aarch64-linux-gnu --disable-shared PKG_CONFIG=pkg-config \
    CPPFLAGS="-I$root/usr/include -I$root/usr/include/aarch64-linux-gnu" LDFLAGS="-L$lib" >"$tmp/log" 2>&1; then
    tail -n 40 "$tmp/log" | sed 's/^/    /'
    echo "FAIL the build for ARM"
    echo "0 passed, 1 failed, 0 skipped"
    exit 1
fi
export QEMU_LD_PREFIX=/usr/aarch64-linux-gnu QEMU_SET_ENV="LD_LIBRARY_PATH=$lib:$lib/openblas-pthread"
qemu-aarch64-static "$dir/tests/mktiny" "$tmp/tiny.gguf" >"$tmp/log" 2>&1 || cat "$tmp/log"
isa cortex-a53 neon
isa max neon-dotprod
if [ "${1:-}" = all ]; then
    kernels=$(cd "$dir/tests" && find . -maxdepth 1 -type f -perm -u+x -name 'test_*' | sed 's#^\./##' | sort)
fi
# shellcheck disable=SC2086  # a list of names
units max $kernels
units cortex-a53 test_quant           # what else the tests run is the same on both
echo "$passed passed, $failed failed, $skipped skipped"
[ "$failed" -eq 0 ]
