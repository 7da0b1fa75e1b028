#!/usr/bin/env bash
# Says which hunks of runtime/patches fail on another mistralrs-core; changes nothing.
# Usage: scripts/upstream-dry-run.sh FOLDER      (the unpacked crate, which holds src/lib.rs)
# Exit code: 0 all apply, 1 some hunks fail, 2 wrong input.
set -euo pipefail
here=$(cd "$(dirname "$0")/.." && pwd)

crate=${1:?usage: $0 FOLDER, the unpacked crate mistralrs-core}
if [ ! -f "$crate/src/lib.rs" ]; then
  echo "$crate holds no src/lib.rs; name the unpacked crate mistralrs-core" >&2
  exit 2
fi
if ! command -v patch >/dev/null; then
  echo "patch is not installed; install it, the hunks are applied with it" >&2
  exit 2
fi
scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT
cp -R "$crate/src" "$scratch/src"
chmod -R u+w "$scratch/src"

failed=0 moved=0 patches=0
# Each on top of those before it, as the build applies them; a hunk that fails is left out, so that all are tried. Without
# fuzz: the build has none.
for file in "$here"/runtime/patches/*.patch; do
  name=$(basename "$file") target=
  patches=$((patches + 1))
  while IFS= read -r line; do
    case $line in
      'checking file '*) target=${line#checking file } ;;
      'Hunk '*' FAILED at '*)
        failed=$((failed + 1))
        echo "FAILED  $name: src/$target, ${line,}" ;;
      'Hunk '*' succeeded at '*offset*)
        moved=$((moved + 1))
        echo "moved   $name: src/$target, ${line,}" ;;
      "can't find file"*)
        failed=$((failed + 1))
        echo "FAILED  $name: upstream has no file of that name any more: $(grep -c '^--- a/' "$file") are patched" ;;
    esac
  done < <(patch --dry-run --batch --forward --fuzz=0 -p1 -d "$scratch/src" <"$file" 2>&1 || true)
  patch --batch --forward --fuzz=0 --silent -p1 -r - --no-backup-if-mismatch -d "$scratch/src" <"$file" >/dev/null 2>&1 || true
done

# The build drops this line, which include! refuses.
first=$(sed -n 's/^const REFUSED: &str = "\(.*\)\\n";$/\1/p' "$here/runtime/build/assemble.rs")
if [ "$(head -n 1 "$crate/src/lib.rs")" != "$first" ]; then
  failed=$((failed + 1))
  echo "FAILED  src/lib.rs does not begin with: $first (REFUSED in runtime/build/assemble.rs)"
fi
# Ours go beside upstream's files; one that exists already would be overwritten.
while IFS= read -r module; do
  if [ -e "$crate/src/$module" ]; then
    failed=$((failed + 1))
    echo "FAILED  src/$module is upstream's too; rename ours (MODULES in runtime/build/assemble.rs)"
  fi
done < <(sed -n '/^pub const MODULES/,/^];/s/^ *"\(.*\)",$/\1/p' "$here/runtime/build/assemble.rs")

echo "$patches patches: $failed failures, $moved hunks moved"
[ "$failed" -eq 0 ]
