#!/usr/bin/env bash
# Runs one suite of the Go tests: gotest.sh unit|e2e|interop|kafka|brokers|ui|race [go test flags].
set -euo pipefail
cd "$(dirname "$0")/.."

suite=${1:?usage: scripts/gotest.sh unit|e2e|interop|kafka|brokers|ui|race [flags]}
shift
module=$(go list -m)

case $suite in
  unit) packages=$(go list ./... | grep -v "^$module/test/") ;;
  e2e) packages=$(go list ./test/... | grep -v -e "^$module/test/interop" -e "^$module/test/ui" \
    -e "^$module/test/kafka" -e "^$module/test/brokers") ;;
  interop) packages=$(go list ./test/interop/...) ;;
  kafka) packages=$(go list ./test/kafka/...) ;;
  brokers) packages=$(go list ./test/brokers/...) ;;
  ui) packages=$(go list ./test/ui/...) ;;
  race)
    # DuckDB is C++, of which the detector sees nothing: what is mostly DuckDB is left out, and the server kept.
    packages=$(go list -test -f '{{.ImportPath}} {{join .Deps " "}}' ./... |
      awk '$1 ~ /\.test$/ && (!/duckdb-go/ || $1 ~ /\/server/) { sub(/\.test$/, "", $1); print $1 }' | grep -v "^$module/test/")
    set -- -race "$@"
    ;;
  *)
    echo "no suite $suite" >&2
    exit 2
    ;;
esac
if [ -z "$packages" ]; then
  echo "suite $suite: no packages" >&2
  exit 1
fi
# The suites that start processes and claim disks run one package at a time.
case $suite in e2e | interop | kafka | brokers | ui) set -- -p=1 -count=1 "$@" ;; esac
# shellcheck disable=SC2086 # one word per package
exec go test "$@" $packages
