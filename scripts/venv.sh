#!/bin/sh
# Makes the Python environment of the interoperability tests in the cache,
# outside the tree: ${HEADRACE_CACHE:-~/.cache/headrace}/venv. Does nothing when
# it is there with the same packages. Needs python3 with venv, and PyPI.
set -eu

packages='deltalake==1.6.6
pyarrow==26.0.1
duckdb==1.5.5
duckdb-extension-delta==1.5.5
paho-mqtt==2.2.0
numpy==2.4.6
scipy==1.17.1
protobuf==7.36.2'
# It asks for a paho-mqtt below 2 and works with this one.
alone='pysparkplug==0.6.1'

venv="${HEADRACE_CACHE:-$HOME/.cache/headrace}/venv"
stamp="$venv/headrace-packages"

# One at a time, where the system has flock(1).
mkdir -p "$(dirname "$venv")"
if command -v flock >/dev/null; then
	exec 9>"$venv.lock"
	flock 9
fi
if [ -x "$venv/bin/python" ] && [ -f "$stamp" ] && [ "$(cat "$stamp")" = "$packages $alone" ]; then
	exit 0
fi
if ! python3 -c 'import ensurepip, venv' 2>/dev/null; then
	echo "venv.sh: python3 with venv is missing; install it: apt-get install python3-venv" >&2
	exit 1
fi
rm -rf "$venv"
python3 -m venv "$venv"
echo "$packages" | xargs "$venv/bin/pip" install --quiet --disable-pip-version-check --only-binary :all:
"$venv/bin/pip" install --quiet --disable-pip-version-check --only-binary :all: --no-deps "$alone"
echo "$packages $alone" >"$stamp"
