#!/usr/bin/env bash
# Runs every experiment of experiments/check into a temporary folder and fails if an expectation does.
#
# usage: scripts/check_experiments.sh [TEGUM]     TEGUM: the binary; built if not given
set -euo pipefail
cd "$(dirname "$0")/.."
tegum=${1:-}
if [ -z "$tegum" ]; then
  cargo build --release --quiet
  tegum=${CARGO_TARGET_DIR:-target}/release/tegum
fi
out=$(mktemp -d)
trap 'rm -rf "$out"' EXIT
passed=0 failed=0
for experiment in experiments/check/*.yaml; do
  echo "== $experiment"
  if "$tegum" --quiet run "$experiment" --out "$out/$(basename "$experiment" .yaml)"; then
    passed=$((passed + 1))
  else
    failed=$((failed + 1))
  fi
done
echo "experiments: $passed passed, $failed failed"
[ "$failed" -eq 0 ]
