#!/bin/sh
# Installs what is missing, builds cmc, fetches SmolLM2-135M-Instruct once, and lets it answer side by side without and with
# the delta that comes with this repository. Run it again: nothing is rebuilt and nothing is fetched.
# Usage: ./quickstart.sh [PROMPT]
set -eu
cd "$(dirname "$0")"
scripts/deps.sh build fetch
scripts/build.sh
model=$(scripts/fetch-model.sh smollm2)
exec ./cmc ab -m "$model" -d deltas/instruct.gguf --template plain -n 120 "${1:-Why is sleep important?}"
