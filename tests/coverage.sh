#!/bin/sh
# Line coverage of the library's rooms by the unit tests and the program's cases. Usage: tests/coverage.sh BUILD_DIR
# (configured with --enable-coverage). Prints a line for each room and the total; needs gcov and python3.
set -eu
src=$(cd "$(dirname "$0")/.." && pwd)
cd "$1"
find . -name '*.gcda' -delete
"$src/tests/run.sh" "$PWD" /nonexistent | tail -n 1
python3 - "$src" <<'PY'
import collections, gzip, json, os, subprocess, sys
src = os.path.realpath(sys.argv[1])
hit, seen = collections.defaultdict(set), collections.defaultdict(set)
for top, _, names in os.walk("."):
    for n in names:
        if not n.endswith(".gcda"):
            continue
        out = subprocess.run(["gcov", "--json-format", "--stdout", os.path.join(top, n)], capture_output=True).stdout
        for line in out.splitlines():
            for f in json.loads(line)["files"]:
                path = os.path.relpath(os.path.realpath(os.path.join(".", f["file"])), src)
                if path.split(os.sep)[0] in ("base", "tokenmap", "runtime", "tinylm"):
                    for l in f["lines"]:
                        seen[path].add(l["line_number"])
                        if l["count"]:
                            hit[path].add(l["line_number"])
rooms = collections.Counter()
total = collections.Counter()
for p in seen:
    rooms[p.split(os.sep)[0]] += len(hit[p])
    total[p.split(os.sep)[0]] += len(seen[p])
for p in sorted(seen, key=lambda p: len(hit[p]) / len(seen[p]))[:8]:
    print(f"  least covered: {p} {100 * len(hit[p]) / len(seen[p]):.0f} % of {len(seen[p])}")
for r in sorted(rooms):
    print(f"{r}: {100 * rooms[r] / total[r]:.1f} % of {total[r]} lines")
print(f"library: {100 * sum(rooms.values()) / sum(total.values()):.1f} % of {sum(total.values())} lines")
PY
