#!/bin/sh
# Builds what bench/performance.py measures cmc beside: llama-bench and llama_logits (bench/llama_logits.c) on the llama.cpp
# inside the source archive of llama-cpp-python, with the instruction sets that this machine has named one by one, but for
# AMX. Prints the paths of both. What is built already is not built again.
# Usage: bench/peers.sh DIR [--configure]      DIR/llama.cpp: the source; DIR/build: its build (a quarter of an hour and more)
#        --configure: stops before anything is compiled
# Needs cmake, make, gcc and g++; on Debian: apt-get install cmake make gcc g++
set -eu
here=$(cd "$(dirname "$0")" && pwd)
die() { echo "peers.sh: $*" >&2; exit 1; }
case ${1:-} in '' | -*) echo "usage: bench/peers.sh DIR [--configure]" >&2; exit 2 ;; esac
case ${2:-} in '' | --configure) ;; *) echo "usage: bench/peers.sh DIR [--configure]" >&2; exit 2 ;; esac
mkdir -p "$1"
dir=$(cd "$1" && pwd)
for tool in cmake make gcc g++; do
    command -v "$tool" >/dev/null || die "$tool is missing; on Debian: apt-get install $tool"
done

has() { grep -m1 '^flags' /proc/cpuinfo | grep -qw "$1"; }
set_flag() { if has "$1"; then echo "-DGGML_$2=ON"; else echo "-DGGML_$2=OFF"; fi; }
flags() {
    set_flag avx AVX; set_flag avx2 AVX2; set_flag fma FMA; set_flag f16c F16C; set_flag bmi2 BMI2
    if has avx512f && has avx512cd && has avx512vl && has avx512dq && has avx512bw; then   # what AVX512 means there
        set_flag avx512f AVX512; set_flag avx512vbmi AVX512_VBMI; set_flag avx512_vnni AVX512_VNNI
        set_flag avx512_bf16 AVX512_BF16
    fi
}

unpack() {
    archive=$("$here/../scripts/fetch-archive.sh" "$dir")
    rm -rf "$dir/unpacked" "$dir/llama.cpp"
    mkdir "$dir/unpacked"
    tar -xzf "$archive" -C "$dir/unpacked" --strip-components=2 --no-same-owner \
        "$(basename "$archive" .tar.gz)/vendor/llama.cpp"
    mv "$dir/unpacked/llama.cpp" "$dir/llama.cpp"
    rm -rf "$dir/unpacked" "$archive"
}

configure() {
    # shellcheck disable=SC2046  # a list of flags
    cmake -S "$dir/llama.cpp" -B "$dir/build" -DCMAKE_BUILD_TYPE=Release -DBUILD_SHARED_LIBS=OFF -DGGML_NATIVE=OFF $(flags) \
        -DLLAMA_CURL=OFF -DLLAMA_BUILD_TESTS=OFF -DLLAMA_BUILD_EXAMPLES=OFF -DLLAMA_BUILD_SERVER=OFF \
        -DLLAMA_BUILD_TOOLS=ON >"$dir/configure.log" 2>&1 || { cat "$dir/configure.log" >&2; die "cmake failed"; }
}

link_logits() {
    gcc -std=gnu17 -O2 -I"$dir/llama.cpp/include" -I"$dir/llama.cpp/ggml/include" -c "$here/llama_logits.c" -o "$dir/llama_logits.o"
    g++ -o "$dir/llama_logits" "$dir/llama_logits.o" "$dir/build/src/libllama.a" "$dir/build/ggml/src/libggml.a" \
        "$dir/build/ggml/src/libggml-cpu.a" "$dir/build/ggml/src/libggml-base.a" -fopenmp -lpthread -ldl -lm
}

[ -f "$dir/llama.cpp/CMakeLists.txt" ] || unpack
configure
[ -z "${2:-}" ] || exit 0
cmake --build "$dir/build" --target llama-bench -j"$(nproc)" >"$dir/build.log" 2>&1 ||
    { tail -n 30 "$dir/build.log" >&2; die "the build failed: $dir/build.log"; }
link_logits
echo "$dir/build/bin/llama-bench"
echo "$dir/llama_logits"
