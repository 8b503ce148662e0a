#!/usr/bin/env bash
# Builds the page into the given folder: types checked, bundle built, first load within its budget.
set -euo pipefail
cd "$(dirname "$0")/.."
out=$(realpath -m "${1:?usage: scripts/ui-build.sh FOLDER}")

scripts/npm.sh >/dev/null
cd ui
node node_modules/typescript/bin/tsc --noEmit -p .
node node_modules/vite/bin/vite.js build --logLevel warn --outDir "$out" --emptyOutDir
node dev/budget.mjs "$out"
