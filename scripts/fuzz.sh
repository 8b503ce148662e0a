#!/usr/bin/env bash
# Runs every fuzz target of the tree for a moment: fuzz.sh [DURATION].
set -euo pipefail
cd "$(dirname "$0")/.."

span=${1:-5s}
log=$(mktemp)
trap 'rm -f "$log"' EXIT

# On a busy machine the go command may call its own end of time a failure. It is
# believed when it has written the failing input, or when it says so twice.
fuzz() {
  local try
  for try in 1 2; do
    if go test "$1" -run '^$' -fuzz "^$2\$" -fuzztime "$span" </dev/null 2>&1 | tee "$log"; then return 0; fi
    grep -q 'context deadline exceeded' "$log" || return 1
    if grep -q 'Failing input written' "$log"; then return 1; fi
    echo "try $try ran out of time"
  done
  return 1
}

count=0
while IFS=: read -r file line; do
  target=$(sed -E 's/^func (Fuzz[A-Za-z0-9_]*)\(.*/\1/' <<<"$line")
  echo "== $(dirname "$file") $target"
  fuzz "./$(dirname "$file")" "$target"
  count=$((count + 1))
done < <(git ls-files --cached --others --exclude-standard '*_test.go' | xargs grep -E '^func Fuzz[A-Za-z0-9_]*\(' | sort)
echo "$count fuzz targets, each for $span"
