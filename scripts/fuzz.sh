#!/usr/bin/env bash
# Runs every fuzz target of the tree for a moment: fuzz.sh [DURATION].
set -euo pipefail
cd "$(dirname "$0")/.."

span=${1:-5s}
count=0
while IFS=: read -r file line; do
  target=$(sed -E 's/^func (Fuzz[A-Za-z0-9_]*)\(.*/\1/' <<<"$line")
  echo "== $(dirname "$file") $target"
  go test "./$(dirname "$file")" -run '^$' -fuzz "^$target\$" -fuzztime "$span" </dev/null
  count=$((count + 1))
done < <(git ls-files --cached --others --exclude-standard '*_test.go' | xargs grep -E '^func Fuzz[A-Za-z0-9_]*\(' | sort)
echo "$count fuzz targets, each for $span"
