#!/usr/bin/env bash
# Regenerates results/gallery: the quickstart's figures, and those of the papers through scripts/reproduce.sh.
#
# usage: scripts/make_gallery.sh TEGUM
set -euo pipefail
cd "$(dirname "$0")/.."
tegum=$1
out=$(mktemp -d)
trap 'rm -rf "$out"' EXIT
mkdir -p results/gallery
"$tegum" --quiet run experiments/quickstart.yaml --out "$out"
cp "$out/recovery.png" results/gallery/quickstart_mcc.png
cp "$out/represented.png" results/gallery/quickstart_represented.png
scripts/reproduce.sh quick --tegum "$tegum" --gallery
