#!/usr/bin/env bash
# Regenerates results/gallery: runs the experiments and copies their figures.
#
# usage: scripts/make_gallery.sh TEGUM
set -euo pipefail
cd "$(dirname "$0")/.."
tegum=$1
out=$(mktemp -d)
trap 'rm -rf "$out"' EXIT
mkdir -p results/gallery
# experiment, figure, name in the gallery
while read -r experiment figure name; do
  run=$out/$(basename "$experiment" .yaml)
  "$tegum" --quiet run "$experiment" --out "$run"
  cp "$run/$figure.png" "results/gallery/$name.png"
done << 'FIGURES'
experiments/quickstart.yaml recovery quickstart_mcc
experiments/quickstart.yaml represented quickstart_represented
experiments/paper/pentagon.yaml vectors-data.firing_probability-importance pentagon
experiments/paper/tms_phase_change.yaml trained tms_phase_change
FIGURES
