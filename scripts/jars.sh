#!/usr/bin/env bash
# Resolves the Java programs of a test from Maven Central into the cache, keyed by their pom, and prints the folder of
# the jars: jars.sh kafka|brokers. Needs a JDK 17 and Maven. Nothing is installed into the tree.
set -euo pipefail
cd "$(dirname "$0")/.."

name=${1:?usage: scripts/jars.sh kafka|brokers}
pom=test/$name/pom.xml
for tool in javac mvn; do
  if ! command -v $tool >/dev/null; then
    echo "jars.sh: $tool is missing: sudo apt-get install default-jdk-headless maven" >&2
    exit 1
  fi
done
dir=${HEADRACE_CACHE:-$HOME/.cache/headrace}/jars/$name-$(sha256sum <"$pom" | cut -c1-16)

if [ ! -d "$dir" ]; then
  mkdir -p "$(dirname "$dir")"
  staging=$(mktemp -d "$(dirname "$dir")/staging.XXXXXX")
  trap 'rm -rf "$staging"' EXIT
  echo "resolving the jars of $pom into $dir" >&2
  mvn -q -B -f "$pom" org.apache.maven.plugins:maven-dependency-plugin:3.8.1:copy-dependencies \
    -DoutputDirectory="$staging" -DincludeScope=runtime </dev/null >&2
  chmod 755 "$staging"
  # Renamed when complete, so that an interrupted download is never taken for a whole one.
  mv -T "$staging" "$dir" 2>/dev/null || [ -d "$dir" ]
fi
echo "$dir"
