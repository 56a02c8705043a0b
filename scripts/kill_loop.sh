#!/usr/bin/env bash
# Kills a run with SIGKILL again and again, then lets it finish, and compares its rows with an undisturbed run.
#
# usage: scripts/kill_loop.sh TEGUM EXPERIMENT.yaml [KILLS]      (200 kills by default)
set -euo pipefail
tegum=$1 experiment=$2 kills=${3:-200}
out=$(mktemp -d)
trap 'rm -rf "$out"' EXIT
rows() { "$tegum" table "$1" --format csv | sha256sum | cut -d' ' -f1; }
"$tegum" --quiet run "$experiment" --out "$out/whole" > /dev/null
done_early=0
for i in $(seq "$kills"); do
  "$tegum" --quiet run "$experiment" --out "$out/killed" > /dev/null &
  pid=$!
  sleep "0.$(printf '%03d' $((RANDOM % 600)))"
  if ! kill -9 "$pid" 2> /dev/null; then
    # It finished between two kills: begin again, so that every kill hits a running process.
    done_early=$((done_early + 1))
    rm -rf "$out/killed"
  fi
  wait "$pid" 2> /dev/null || true
done
"$tegum" --quiet run "$experiment" --out "$out/killed" > /dev/null
a=$(rows "$out/whole") b=$(rows "$out/killed")
quarantined=0
[ -d "$out/killed/quarantine" ] && quarantined=$(find "$out/killed/quarantine" -type f | wc -l)
echo "$kills kills ($done_early runs had finished), $quarantined files set aside, rows $([ "$a" = "$b" ] && echo equal || echo DIFFER)"
[ "$a" = "$b" ]
