#!/usr/bin/env bash
# The README's three ways in, from an empty folder, as a Markdown transcript with times.
# Usage: scripts/first-minutes.sh PROGRAMS > docs/first-minutes.md
#   PROGRAMS is a folder with headkv-eval, headkv-serve and examples/embed: target/release after
#   cargo build --release --locked --workspace --bins --example embed
set -euo pipefail

programs=$(cd "${1:?usage: $0 PROGRAMS, such as target/release}" && pwd)
work=$(mktemp -d)
server=
trap '[ -z "$server" ] || kill "$server" 2>/dev/null || true; rm -rf "$work"' EXIT
mkdir "$work/empty"
cd "$work/empty"
export HEADKV_HOME=$work/home PATH=$programs:$programs/examples:$PATH

# Runs a command line and shows it with what it printed: its last lines, and its time.
show() {
  local start end lines=$1
  shift
  echo '```console'
  echo "\$ $*"
  start=$(date +%s%N)
  if ! bash -c "$*" >"$work/said" 2>&1; then
    cat "$work/said" >&2
    echo "failed: $*" >&2
    exit 1
  fi
  end=$(date +%s%N)
  # Where it ran is nobody's business.
  sed "s|$work/empty/||g; s|$work|~|g" "$work/said" | tail -n "$lines" | cut -c1-160
  echo '```'
  awk -v ns=$((end - start)) 'BEGIN { printf "\n%.1f s.\n\n", ns / 1e9 }'
}

cat <<EOF
# First minutes

What the README's three ways in print, from an empty folder. Made by \`scripts/first-minutes.sh target/release\`, which the gate
runs, on $(nproc) cores ($(date +%F)). The build before it is not counted.

## Try it

EOF
show 40 headkv-eval methods
show 20 headkv-eval needle --method full,snapkv,headkv-plus --capacity 24 --draws 1
cat <<'EOF'
The first command unpacked the embedded model; the same one again finds it, and its own rows:

EOF
show 20 headkv-eval needle --method full,snapkv,headkv-plus --capacity 24 --draws 1
echo '## Embed it'
echo
if command -v embed >/dev/null; then
  show 20 embed
else
  echo "SKIPPED: examples/embed is not built" | tee /dev/stderr
  echo
fi
echo '## Serve it'
echo
headkv-serve --port 0 --access-log off 2>"$work/greeting" &
server=$!
for _ in $(seq 600); do
  url=$(sed -n 's/.*\(http:\/\/[0-9.:]*\),.*/\1/p' "$work/greeting")
  [ -n "$url" ] && break
  kill -0 "$server" || { cat "$work/greeting" >&2; exit 1; }
  sleep 0.1
done
echo '```console'
echo '$ headkv-serve --port 0 --access-log off &'
cat "$work/greeting"
echo '```'
echo
show 20 "curl -s $url/v1/completions -H 'content-type: application/json' -d '{\"prompt\": \"Once\", \"max_tokens\": 8, \"temperature\": 0}'"
show 3 "curl -s $url/metrics | grep headkv_kv_bytes_"
