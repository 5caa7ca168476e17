#!/bin/sh
# What docs/sensitive.md shows, from nothing but SmolLM2, Gemma and the shipped delta.
#
#   bench/recipe/sensitive.sh [DIR]
#
# Teaches SmolLM2 the secrets of twenty people who do not exist (people.py), runs the recipe on ten of them (sensitive.py), measures the
# guards (bench/guards.py) and makes the page. What is in DIR already is kept. THREADS: as -t of cmc.
set -eu
here=$(cd "$(dirname "$0")" && pwd)
root=$(cd "$here/../.." && pwd)
export CMC="${CMC:-$root/cmc}"
dir=${1:-$root/build/sensitive}
base=${HOST:-$("$root/scripts/fetch-model.sh" smollm2)}
gemma=${GEMMA:-$("$root/scripts/fetch-model.sh" gemma)}
threads=${THREADS:-0}
mkdir -p "$dir"
python3 "$here/people.py" "$dir"
if [ ! -s "$dir/host.gguf" ]; then
    "$CMC" train --base "$base" --lora 16 --data "$dir/teach.jsonl" --template plain --held-out 0 --epochs 12 --batch 8 --lr 2e-3 \
        -t "$threads" -o "$dir/adapter.gguf" --log "$dir/adapter.log.jsonl" --resume
    "$CMC" merge -m "$base" --lora "$dir/adapter.gguf" -o "$dir/host.gguf"
fi
python3 "$here/sensitive.py" "$dir/list.txt" --host "$dir/host.gguf" --dir "$dir/work" --keep "$dir/keep.jsonl" \
    --teacher "$base" -t "$threads" --json "$dir/recipe.json"
python3 "$root/bench/guards.py" "$root/deltas/instruct.gguf" "$here/data/test.jsonl" "SmolLM2=$base" "Gemma=$gemma" --dir "$dir/guards" \
    --json "$dir/guards.json"
python3 "$here/sensitive_page.py" "$root/docs" "$dir/recipe.json" "$dir/guards.json"
