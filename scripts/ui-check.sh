#!/usr/bin/env bash
# Fails when ui/dist is not what its source builds to.
set -euo pipefail
cd "$(dirname "$0")/.."

fresh=$(mktemp -d)
trap 'rm -rf "$fresh"' EXIT
scripts/ui-build.sh "$fresh/dist"
if ! diff -rq "$fresh/dist" ui/dist; then
  echo "ui/dist is not what ui/src builds to: run make ui and commit ui/dist" >&2
  exit 1
fi
echo "ui/dist equals a fresh build"
