#!/bin/sh
# Installs the Debian packages that are missing, and nothing where none is. Usage: scripts/deps.sh [build] [test] [fetch] [arm64]
set -eu
need=
want() { for p in "$@"; do dpkg-query -W -f '${Status}' "$p" 2>/dev/null | grep -q '^install ok installed$' || need="$need $p"; done; }
tool() { command -v "$1" >/dev/null 2>&1 || want "$2"; }
for what in "$@"; do
    case $what in
    build)
        tool gcc gcc; tool g++ g++; tool make make; tool autoreconf autoconf; tool automake automake; tool libtoolize libtool
        tool pkg-config pkg-config
        want libc6-dev libsentencepiece-dev libopenblas0-pthread uthash-dev libpcre2-dev libjansson-dev libxxhash-dev \
            libutf8proc-dev ;;
    test) want libcmocka-dev ;;
    fetch)
        tool python3 python3
        { command -v python3 >/dev/null 2>&1 && python3 -m pip --version >/dev/null 2>&1; } || want python3-pip
        want ca-certificates ;;
    arm64) want gcc-aarch64-linux-gnu g++-aarch64-linux-gnu libc6-dev-arm64-cross qemu-user-static ;;
    *) echo "deps.sh: unknown set '$what'; there are build, test, fetch and arm64" >&2; exit 2 ;;
    esac
done
[ -n "$need" ] || exit 0
if [ "$(id -u)" -ne 0 ]; then
    echo "deps.sh: these packages are missing; install them as root: apt-get install$need" >&2
    exit 1
fi
echo "Installing from Debian:$need" >&2
export DEBIAN_FRONTEND=noninteractive
apt-get -qq update
# shellcheck disable=SC2086  # a list of names
apt-get -qq install -y --no-install-recommends $need >/dev/null
