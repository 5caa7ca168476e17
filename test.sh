#!/bin/sh
# Runs all tests: the units and the program's cases, again under ASan and UBSan, the fuzz targets over their fixed corpus, and the real
# models where they can be had. The last line counts. Gemma's tests run where its file is already there or CMC_ACCEPT_GEMMA=1
# says that its terms are agreed to.
set -eu
cd "$(dirname "$0")"
scripts/deps.sh build test fetch
export TARGETS="all check-programs"
scripts/build.sh
scripts/build.sh build/sanitize --enable-sanitize --disable-shared CFLAGS='-O1 -g' CXXFLAGS='-O1 -g'
exec tests/run.sh
