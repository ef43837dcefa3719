#!/usr/bin/env bash
# The OpenMP runtime inside torch's CPU wheel says that its threads wait passively when they spin.
#
# Surprise: with OMP_WAIT_POLICY unset, OMP_DISPLAY_ENV reports "OMP_WAIT_POLICY = 'PASSIVE'", the same
# words as with OMP_WAIT_POLICY=PASSIVE. Only the verbose listing shows the difference: unset means
# 300,000 rounds of busy waiting at every barrier, PASSIVE set by hand means none. Somebody who reads
# the first and sees training crawl beside other processes looks in the wrong place.
#
# Versions: torch 2.13.0 (CPU wheel for Linux, Python 3.11), with the libgomp that it carries.
# Source: the wheel's torch/lib/libgomp; GCC manual, "GOMP_SPINCOUNT".
# Date: 2026-11-30. Output seen:
#   unset: 'PASSIVE' '300000' | PASSIVE: 'PASSIVE' '0' | ACTIVE: 'ACTIVE' '30000000000'
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check torch==2.13.0 2>/dev/null
said() {
  env -u GOMP_SPINCOUNT "$@" OMP_DISPLAY_ENV=verbose "$folder/venv/bin/python" -c "import torch" 2>&1 |
    sed -n "s/.*OMP_WAIT_POLICY = \('[A-Z]*'\).*/\1/p; s/.*GOMP_SPINCOUNT = \('[0-9]*'\).*/\1/p" | head -2 | paste -sd ' '
}
line="unset: $(said -u OMP_WAIT_POLICY) | PASSIVE: $(said OMP_WAIT_POLICY=PASSIVE) | ACTIVE: $(said OMP_WAIT_POLICY=ACTIVE)"
echo "$line"
test "$line" = "unset: 'PASSIVE' '300000' | PASSIVE: 'PASSIVE' '0' | ACTIVE: 'ACTIVE' '30000000000'"
echo "unchanged"
