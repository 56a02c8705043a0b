#!/usr/bin/env bash
# The same rows on processors that are not here: a small experiment with every kind of model, autoencoder and stand-in, natively and
# under qemu-user on a processor without AVX and on one with AVX2; the hashes of the rows must be equal.
#
# usage: scripts/faults/qemu.sh TEGUM [EXPERIMENT]      (needs qemu-x86_64: apt-get install qemu-user)
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
tegum=$1 experiment=${2:-$here/cpus.yaml}
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
rows() { "$tegum" collect "$1" | sed 's/.*: //'; }
# A name that is none makes it say what the processor offers.
offered() { TEGUM_ISA=which "$@" run "$experiment" --out "$work/none" --no-supervisor 2>&1 | sed -n 's/.*this CPU offers //p' | head -1; }

"$tegum" --quiet run "$experiment" --out "$work/native"
expected=$(rows "$work/native")
echo "native: $expected; offers $(offered "$tegum")"
for cpu in Nehalem Haswell; do
  emulated=(qemu-x86_64 -cpu "$cpu" "$tegum")
  # The supervisor would start its worker natively.
  SECONDS=0
  "${emulated[@]}" --quiet run "$experiment" --out "$work/$cpu" --no-supervisor 2>&1 | sed "/TCG doesn't support/d"
  found=$(rows "$work/$cpu")
  echo "$cpu: $found; offers $(offered "${emulated[@]}"); $SECONDS s"
  [ "$found" = "$expected" ]
done
