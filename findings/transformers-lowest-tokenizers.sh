#!/usr/bin/env bash
# The lower bound of tokenizers that transformers 5.0.0 states cannot be installed with it.
#
# Surprise: transformers 5.0.0 asks for tokenizers >= 0.22.0 and huggingface-hub >= 1.3.0, but
# tokenizers 0.22.0 asks for huggingface-hub < 1.0. A project that tests its stated lower bounds by
# pinning them finds "ResolutionImpossible" in a range that the package itself declares; the true
# lower bound is 0.22.1.
#
# Versions: transformers 5.0.0, tokenizers 0.22.0 and 0.22.1.
# Source: the packages' own metadata (Requires-Dist).
# Date: 2026-11-30. Output seen:
#   tokenizers 0.22.0: no resolution | tokenizers 0.22.1: resolved
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
answer() {
  local log="$folder/log"
  if "$folder/venv/bin/pip" install --quiet --disable-pip-version-check --dry-run transformers==5.0.0 "tokenizers==$1" >"$log" 2>&1; then
    echo "resolved"
  elif grep -q "ResolutionImpossible" "$log"; then
    echo "no resolution"
  else
    cat "$log" >&2
    echo "another failure"
  fi
}
line="tokenizers 0.22.0: $(answer 0.22.0) | tokenizers 0.22.1: $(answer 0.22.1)"
echo "$line"
test "$line" = "tokenizers 0.22.0: no resolution | tokenizers 0.22.1: resolved"
echo "unchanged"
