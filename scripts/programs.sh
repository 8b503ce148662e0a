#!/usr/bin/env bash
# Tells which of Debian's programs are missing and the one line that installs them. As root in CI it installs them.
set -euo pipefail

# command:package
wanted=(cc:gcc c++:g++ node:nodejs npm:npm chromium:chromium kcat:kcat mosquitto:mosquitto
  javac:default-jdk-headless mvn:maven ip:iproute2)
PATH="$PATH:/usr/sbin"

missing=()
for pair in "${wanted[@]}"; do
  command -v "${pair%%:*}" >/dev/null || missing+=("${pair##*:}")
done
# Debian ships Python without what makes an environment.
python3 -c 'import ensurepip, venv' 2>/dev/null || missing+=(python3-venv)
[ ${#missing[@]} -eq 0 ] && exit 0

if [ "${CI:-}" = true ] && [ "$(id -u)" = 0 ]; then
  echo "installing ${missing[*]}"
  apt-get update -qq </dev/null
  DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends "${missing[@]}" </dev/null
else
  echo "missing; what needs them will skip, or fail where it is required:"
  echo "  sudo apt-get install ${missing[*]}"
fi
