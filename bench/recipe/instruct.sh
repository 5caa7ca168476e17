#!/bin/sh
# The recipe of deltas/instruct.gguf, from nothing but SmolLM2 and (for its strength alone) Gemma.
#
#   bench/recipe/instruct.sh text  [DIR]    SmolLM2 writes questions and answers; DIR/train.jsonl and DIR/test.jsonl
#   bench/recipe/instruct.sh train [DIR]    trains DIR/instruct.gguf on them, with 8,000 tokens of its own
#
# The text that the shipped delta was trained on is kept in bench/recipe/data. Same seeds, same program, same machine type:
# same text. The questions start from openings.txt, a list of openings of a user's turn; SmolLM2 goes on from each,
# sampled, and then answers what it wrote. Near duplicates and broken ones are removed (pairs.py).
set -eu
here=$(cd "$(dirname "$0")" && pwd)
root=$(cd "$here/../.." && pwd)
cmc=${CMC:-$root/cmc}
what=${1:-}
dir=${2:-$root/build/recipe}
n=${QUESTIONS:-4500}
test=${TEST_PAIRS:-300}
host=${HOST:-$("$root/scripts/fetch-model.sh" smollm2)}
mkdir -p "$dir"

# join PROMPTS RESULTS: each result (a line of `run --json`) with the prompt it belongs to.
join() {
    python3 - "$1" "$2" <<'PY'
import json, sys
prompts = [json.loads(l) for l in open(sys.argv[1], encoding="utf-8") if l.strip()]
for line in open(sys.argv[2], encoding="utf-8"):
    r = json.loads(line)
    p = prompts[r["n"] - 1]
    p["prompt"] = p.pop("text", None)
    print(json.dumps({**p, "text": r["text"], "stop": r["stop"]}, ensure_ascii=False))
PY
}

# sample NAME OPTIONS...: $dir/NAME.prompts.jsonl -> $dir/NAME.jsonl, kept once it is whole.
sample() {
    name=$1
    shift
    [ -s "$dir/$name.jsonl" ] && return 0
    "$cmc" run -m "$host" -f "$dir/$name.prompts.jsonl" --batch 48 --json "$@" >"$dir/$name.out"
    join "$dir/$name.prompts.jsonl" "$dir/$name.out" >"$dir/$name.part"
    mv "$dir/$name.part" "$dir/$name.jsonl"
    rm "$dir/$name.out"
}

case $what in
text)
    python3 "$here/pairs.py" questions "$here/openings.txt" "$n" >"$dir/questions.prompts.jsonl"
    sample questions --special --temperature 0.8 --top-p 0.95 --seed 1 -n 48 --stop "
"
    python3 "$here/pairs.py" answers "$dir/questions.jsonl" >"$dir/answers.prompts.jsonl"
    sample answers --template chatml --temperature 0.6 --top-p 0.9 --seed 2 -n 100 --stop "
"
    python3 "$here/pairs.py" pairs "$dir/answers.jsonl" "$dir/train.jsonl" "$dir/test.jsonl" "$test" ;;
train)
    data=$dir/train.jsonl
    [ -s "$data" ] || data=$here/data/train.jsonl
    gemma=${GEMMA:-$("$root/scripts/fetch-model.sh" gemma)}
    "$cmc" train-vocab --data "$data" -o "$dir/vocab.gguf"
    "$cmc" train -m "$host" --data "$data" --vocab "$dir/vocab.gguf" --embd 64 --layers 2 --alpha-host "$gemma" --template plain \
        --delta-template plain --max-steps 220 --eval-every 44 --seed "${SEED:-0}" -o "$dir/instruct.gguf" --log "$dir/instruct.log.jsonl" \
        --resume ;;
*)
    sed -n '2,10s/^# \{0,1\}//p' "$0" >&2
    exit 2 ;;
esac
