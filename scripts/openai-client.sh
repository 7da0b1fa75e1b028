#!/usr/bin/env bash
# Runs scripts/openai-client.py in a virtual environment against a server of its own.
# Usage: scripts/openai-client.sh PATH/TO/headkv-serve
set -euo pipefail
cd "$(dirname "$0")/.."

server=${1:?usage: $0 PATH/TO/headkv-serve}
work=$(mktemp -d)
pid=
trap '[ -z "$pid" ] || kill "$pid" 2>/dev/null || true; rm -rf "$work"' EXIT

if ! python3 -m venv "$work/venv" || ! "$work/venv/bin/pip" install -q --disable-pip-version-check "openai>=1.60,<3"; then
  echo "SKIPPED: the Python package openai cannot be installed here" >&2
  exit 0
fi
"$server" --port 0 --access-log off 2>"$work/said" &
pid=$!
for _ in $(seq 300); do
  url=$(sed -n 's/.*\(http:\/\/[0-9.:]*\),.*/\1/p' "$work/said")
  [ -n "$url" ] && break
  kill -0 "$pid" || { cat "$work/said" >&2; exit 1; }
  sleep 0.1
done
"$work/venv/bin/python" scripts/openai-client.py "$url/v1"
