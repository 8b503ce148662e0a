#!/usr/bin/env bash
# Installs the page's Node packages below the cache, keyed by the lock file, and links ui/node_modules there.
# Prints the folder. Nothing is installed into the tree.
set -euo pipefail
cd "$(dirname "$0")/.."

if ! command -v npm >/dev/null; then
  echo "Node.js is missing: sudo apt-get install nodejs npm" >&2
  exit 1
fi
cache=${HEADRACE_CACHE:-$HOME/.cache/headrace}/npm
key=$(cat ui/package.json ui/package-lock.json | sha256sum | cut -c1-16)-node$(node -p 'process.versions.modules')
dir=$cache/$key

if [ ! -d "$dir/node_modules" ]; then
  mkdir -p "$cache"
  staging=$(mktemp -d "$cache/staging.XXXXXX")
  trap 'rm -rf "$staging"' EXIT
  cp ui/package.json ui/package-lock.json "$staging/"
  echo "installing the page's Node packages into $dir" >&2
  (cd "$staging" && npm ci --no-audit --no-fund --no-update-notifier --ignore-scripts --loglevel=error </dev/null >&2)
  # Renamed when complete, so that an interrupted install is never taken for a whole one.
  mv -T "$staging" "$dir" 2>/dev/null || [ -d "$dir/node_modules" ]
fi
if [ "$(readlink ui/node_modules || true)" != "$dir/node_modules" ]; then
  ln -sfnT "$dir/node_modules" ui/node_modules
fi
echo "$dir"
