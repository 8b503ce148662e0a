#!/usr/bin/env bash
# Runs golangci-lint at the version of tools/go.mod. It is built once per version into the cache, which takes minutes.
# Arguments replace the default "run ./...".
set -euo pipefail
cd "$(dirname "$0")/.."

cache=${HEADRACE_CACHE:-$HOME/.cache/headrace}
tool=github.com/golangci/golangci-lint/v2
version=$(awk -v m="$tool" '$1 == m { print $2 }' tools/go.mod)
bin=$cache/bin/golangci-lint-$version-$(go env GOVERSION)
if [ ! -x "$bin" ]; then
  echo "building golangci-lint $version into $bin: some minutes, once"
  mkdir -p "$cache/bin"
  go build -modfile=tools/go.mod -o "$bin.tmp$$" $tool/cmd/golangci-lint
  mv "$bin.tmp$$" "$bin"
fi
export GOLANGCI_LINT_CACHE=${GOLANGCI_LINT_CACHE:-$cache/golangci-lint}
if [ $# -eq 0 ]; then
  set -- run ./...
fi
exec "$bin" "$@"
