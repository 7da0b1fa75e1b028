#!/usr/bin/env bash
# Pictures of a report as a browser shows it: on a wide screen, on a phone, and in print.
# Usage: [HEIGHT=2400] scripts/report-screenshot.sh DIR/report.html [OUT_DIR]
# Needs Debian's package chromium.
set -euo pipefail

page=$(realpath "${1:?usage: $0 DIR/report.html [OUT_DIR]}")
out=${2:-$(dirname "$page")}
mkdir -p "$out"

if ! command -v chromium >/dev/null; then
  echo "chromium is not installed; apt-get install chromium" >&2
  exit 1
fi

profile=$(mktemp -d)
trap 'rm -rf "$profile"' EXIT

browse() {
  # Root may not use the sandbox; containers have a small /dev/shm.
  chromium --headless --no-sandbox --disable-gpu --disable-dev-shm-usage --hide-scrollbars \
    --user-data-dir="$profile" "$@" 2>"$profile/log" || { cat "$profile/log" >&2; exit 1; }
}

# A window cannot be as narrow as a phone, but a frame can.
echo "<body style='margin:0'><iframe src='file://$page' style='border:0;width:390px;height:100vh'>" >"$profile/phone.html"

browse --window-size=1280,"${HEIGHT:-2400}" --screenshot="$out/report-wide.png" "file://$page"
browse --window-size=500,"${HEIGHT:-2400}" --screenshot="$out/report-phone.png" "file://$profile/phone.html"
browse --no-pdf-header-footer --print-to-pdf="$out/report-print.pdf" "file://$page"
ls -l "$out"/report-{wide,phone}.png "$out/report-print.pdf"
