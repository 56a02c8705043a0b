#!/usr/bin/env bash
# Reproduces the figures of the papers: runs the experiments of experiments/paper, draws them and checks what should come out.
#
# usage: scripts/reproduce.sh quick|full [--tegum PATH] [--gallery] [NAME...]
#
#   quick      the experiments of experiments/paper, minutes on two cores
#   full       the same and those of experiments/paper/full, at the papers' sizes
#   --tegum    the binary; built if not given
#   --gallery  also copies every PNG drawn to results/gallery
#   NAME       only these, by file name without .yaml
#
# What is there already is not trained again. Every expectation is printed with the measured value beside its bound, then one line
# for each experiment; the exit status is 0 if all hold.
set -euo pipefail
cd "$(dirname "$0")/.."

usage() {
  sed -n '2,/^set/{/^#/s/^# \{0,1\}//p}' "$0" >&2
  exit 2
}

tegum='' gallery=no names=()
[ $# -gt 0 ] || usage
preset=$1
shift
while [ $# -gt 0 ]; do
  case $1 in
    --tegum) tegum=${2:?--tegum needs a path}; shift 2 ;;
    --gallery) gallery=yes; shift ;;
    -*) usage ;;
    *) names+=("$1"); shift ;;
  esac
done
case $preset in
  quick) experiments=(experiments/paper/*.yaml) ;;
  full) experiments=(experiments/paper/*.yaml experiments/paper/full/*.yaml) ;;
  *) usage ;;
esac
if [ -z "$tegum" ]; then
  cargo build --release --quiet
  tegum=${CARGO_TARGET_DIR:-target}/release/tegum
fi
for name in "${names[@]}"; do
  found=no
  for experiment in "${experiments[@]}"; do
    [ "$(basename "$experiment" .yaml)" != "$name" ] || found=yes
  done
  [ $found = yes ] || { echo "no experiment is called $name" >&2; exit 2; }
done

wanted() {
  [ ${#names[@]} -eq 0 ] && return 0
  local name
  for name in "${names[@]}"; do
    [ "$name" = "$1" ] && return 0
  done
  return 1
}

table='' failed=0 begin=$SECONDS
for experiment in "${experiments[@]}"; do
  name=$(basename "$experiment" .yaml)
  wanted "$name" || continue
  echo "== $experiment"
  out=results/paper/$name start=$SECONDS status=0
  # Figures are drawn anew; those that an earlier version of the experiment had would stay.
  rm -f "$out"/*.png "$out"/*.svg "$out"/*.txt
  gates=$("$tegum" --quiet run "$experiment" -p --out "$out") || status=$?
  printf '%s\n' "$gates"
  verdict=PASS
  if [ $status -ne 0 ]; then
    verdict="FAIL (exit $status)" failed=$((failed + 1))
  fi
  summary=$(printf '%s\n' "$gates" | tail -n 1)
  table+=$(printf '%-32s %4d s  %-28s %s' "$name" $((SECONDS - start)) "$summary" "$verdict")$'\n'
  if [ $gallery = yes ] && [ $status -eq 0 ]; then
    mkdir -p results/gallery
    for figure in "$out"/*.png; do
      cp "$figure" "results/gallery/$name-$(basename "$figure")"
    done
  fi
done
printf '\n%s\nin %d s\n' "$table" $((SECONDS - begin))
[ $failed -eq 0 ]
