#!/usr/bin/env bash
# Checks the CUDA backend on a machine with a GPU: what it is, bits, whole experiments beside the CPU's, memory, speed.
#
# usage: scripts/gpu_check.sh [--tegum PATH] [--python PATH] [--out FOLDER] [--only STAGE] [EXPERIMENT ...]
#
#   --tegum    the binary; built if not given
#   --python   a Python with torch that sees the GPU, for the race; without it there is no race
#   --out      where logs and runs go (gpu-check)
#   --only     facts, repeat, parity, memory, sanitizer or speed
#   EXPERIMENT what is run twice and beside the CPU; the quickstart and experiments/check
#
# Prints one table that belongs in docs/gpu.md. The exit status is 0 if every check passes; speed is reported, not judged. The card's
# settings stay as they are.
set -euo pipefail
cd "$(dirname "$0")/.."

tegum='' python='' out=gpu-check only='' checks=()
while [ $# -gt 0 ]; do
  case $1 in
    --tegum) tegum=${2:?--tegum needs a path}; shift 2 ;;
    --python) python=${2:?--python needs a path}; shift 2 ;;
    --out) out=${2:?--out needs a folder}; shift 2 ;;
    --only) only=${2:?--only needs a stage}; shift 2 ;;
    *.yaml) checks+=("$1"); shift ;;
    *) sed -n '2,/^set/{/^#/s/^# \{0,1\}//p}' "$0" >&2; exit 2 ;;
  esac
done
if [ -z "$tegum" ]; then
  cargo build --release --quiet
  tegum=${CARGO_TARGET_DIR:-target}/release/tegum
fi
mkdir -p "$out"
failed=0
line() { printf '%-58s %s\n' "$1" "$2" | tee -a "$out/table.txt"; }
fail() { line "$1" "FAIL ($2)"; failed=$((failed + 1)); }
stage() { [ -z "$only" ] || [ "$only" = "$1" ]; }
: > "$out/table.txt"

# A run of an experiment on a backend, into a folder of its own; seconds of wall time on stdout.
run() {
  local backend=$1 file=$2 to=$3; shift 3
  local begin; begin=$(date +%s.%N)
  "$tegum" --quiet run "$file" --backend "$backend" --out "$to" "$@" > "$to.log" 2>&1 || return 1
  echo "$(date +%s.%N) $begin" | awk '{printf "%.2f", $1 - $2}'
}
rows() { "$tegum" table "$1" --format csv | sha256sum | cut -c1-16; }

if stage facts; then
  { nvidia-smi -q || true; "$tegum" devices; } > "$out/facts.txt" 2>&1
  line "GPU" "$("$tegum" devices | sed -n 's/^  0: //p')"
fi

[ ${#checks[@]} -gt 0 ] || checks=(experiments/quickstart.yaml experiments/check/*.yaml)

if stage repeat; then
  for file in "${checks[@]}"; do
    name=$(basename "$file" .yaml)
    if run cuda "$file" "$out/$name-1" > /dev/null && run cuda "$file" "$out/$name-2" > /dev/null \
      && [ "$(rows "$out/$name-1")" = "$(rows "$out/$name-2")" ]; then
      line "$name: twice the same bits" PASS
    else
      fail "$name: twice the same bits" "see $out/$name-1.log"
    fi
  done
  if "$tegum" devices | grep -q '^  0: .*tf32'; then
    file=${checks[0]} name=$(basename "${checks[0]}" .yaml)
    if run cuda "$file" "$out/$name-tf32-1" --arithmetic tf32 > /dev/null && run cuda "$file" "$out/$name-tf32-2" --arithmetic tf32 > /dev/null \
      && [ "$(rows "$out/$name-tf32-1")" = "$(rows "$out/$name-tf32-2")" ]; then
      line "$name in TF32: twice the same bits" PASS
    else
      fail "$name in TF32: twice the same bits" "see $out/$name-tf32-1.log"
    fi
  fi
  if "$tegum" devices | grep -q '^  1: '; then
    file=${checks[0]} name=$(basename "${checks[0]}" .yaml)
    run cuda "$file" "$out/$name-two" --devices 0,1 > /dev/null
    [ "$(rows "$out/$name-two")" = "$(rows "$out/$name-1")" ] && line "two GPUs: the same bits" PASS || fail "two GPUs: the same bits" "$name"
  fi
fi

if stage parity; then
  for file in "${checks[@]}"; do
    name=$(basename "$file" .yaml)
    run cpu "$file" "$out/$name-cpu" > /dev/null && run cuda "$file" "$out/$name-cuda" > /dev/null || true
    if python3 scripts/compare_rows.py "$out/$name-cpu" "$out/$name-cuda" --tegum "$tegum" > "$out/$name-parity.txt" 2>&1; then
      line "$name: scores as the CPU's" PASS
    else
      fail "$name: scores as the CPU's" "see $out/$name-parity.txt"
    fi
  done
  # Two factors of 11 bits: a product is off by 2^-10 of itself, and a score may be by a few of these where it varies little.
  if "$tegum" devices | grep -q '^  0: .*tf32'; then
    file=${checks[0]} name=$(basename "${checks[0]}" .yaml)
    run cuda "$file" "$out/$name-tf32" --arithmetic tf32 > /dev/null || true
    if python3 scripts/compare_rows.py "$out/$name-cuda" "$out/$name-tf32" --share 0.004 --tegum "$tegum" > "$out/$name-tf32.txt" 2>&1; then
      line "$name: scores in TF32 as in f32 (0.4 %)" PASS
    else
      fail "$name: scores in TF32 as in f32 (0.4 %)" "see $out/$name-tf32.txt"
    fi
  fi
fi

if stage memory; then
  file=${checks[0]} name=memory
  if run cuda "$file" "$out/$name-all" > /dev/null && TEGUM_GPU_MEMORY=64M run cuda "$file" "$out/$name-little" > /dev/null \
    && [ "$(rows "$out/$name-all")" = "$(rows "$out/$name-little")" ]; then
    line "64 MB of memory: the same bits" PASS
  else
    fail "64 MB of memory: the same bits" "see $out/$name-little.log"
  fi
fi

if stage sanitizer; then
  if command -v compute-sanitizer > /dev/null; then
    for tool in memcheck racecheck initcheck synccheck; do
      if compute-sanitizer --tool $tool --error-exitcode 9 "$tegum" --quiet run experiments/quickstart.yaml --backend cuda \
        --out "$out/sanitizer-$tool" > "$out/$tool.log" 2>&1; then
        line "compute-sanitizer $tool" PASS
      else
        fail "compute-sanitizer $tool" "see $out/$tool.log"
      fi
    done
  else
    line "compute-sanitizer" "not on this machine"
  fi
fi

# Microseconds a model-step from two runs that differ in their steps alone: starting and scoring fall out. What follows the six
# arguments goes to both.
model_step() {
  local file=$1 models=$2 few=$3 many=$4 seeds=$5 key=$6 name; name=$(basename "$file" .yaml); shift 6
  local seconds=()
  for steps in "$few" "$many"; do
    sed -e "s/^seeds: .*/seeds: $seeds/" -e "s/$key: {steps: [0-9]*/$key: {steps: $steps/" "$file" > "$out/$name-$steps.yaml"
    seconds+=("$(run cuda "$out/$name-$steps.yaml" "$out/$name-$steps" --fresh "$@")")
  done
  echo "${seconds[*]} $models $few $many" | awk '{printf "%.4f", ($2 - $1) / ($3 * ($5 - $4)) * 1e6}'
}

if stage speed; then
  torch=-
  if [ -n "$python" ]; then
    torch=$("$python" benches/peers/toy_torch.py --device cuda --n 20 --m 5 --instances 4096 --steps 50 | python3 -c 'import json, sys; print(json.load(sys.stdin)["us"])')
  fi
  us=$(model_step benches/experiments/toy_n20_m5.yaml 16384 500 4500 16384 train)
  line "n=20 m=5 p=1, 16384 models, us a model-step (torch)" "$us ($torch)"
  us=$(model_step benches/experiments/toy_n20_m5_p05.yaml 16384 500 4500 16384 train)
  line "n=20 m=5 p=.05, 16384 models, us a model-step" "$us"
  seconds=$(run cuda experiments/paper/tms_phase_change_dense.yaml "$out/dense" --fresh)
  line "dense phase diagram, 25000 models x 4000 steps, s" "$seconds"
  us=$(model_step benches/experiments/sae_16k.yaml 1 200 2200 1 sae_train)
  line "SynthSAEBench-16k, BatchTopK 25, us a step" "$us"
  if "$tegum" devices | grep -q '^  0: .*tf32'; then
    us=$(model_step benches/experiments/sae_16k.yaml 1 200 2200 1 sae_train --arithmetic tf32)
    line "SynthSAEBench-16k, BatchTopK 25, TF32, us a step" "$us"
  fi
fi

echo
cat "$out/table.txt"
exit $((failed > 0))
