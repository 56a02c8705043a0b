#!/usr/bin/env python3
"""Races tegum against the usual Python programs on the same toy models, on this machine, in one run.

usage: scripts/compare_peers.py toy [--tegum PATH] [--python PATH] [--rounds 5] [--only NAME ...]

Needs a Python with numpy, torch, jax and optax (--python, by default the one that runs this) and a built tegum. In every
round each program runs once, in turn, so that a slow moment of the machine hits all of them. tegum's time is that of the whole
process, from the YAML file in benches/experiments to rows on disk, divided by models x steps; a peer's time is its
training loop alone, compiled and warm (benches/peers). The ratio is the least time of the best peer over tegum's least.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from statistics import median

ROOT = Path(__file__).resolve().parent.parent

# name: experiment, models, steps, wanted ratio to the best peer, options of the peers, steps that a peer is timed for
TOY = {
    "n=20 m=5 p=1": ("toy_n20_m5", 64, 2000, 16, "--n 20 --m 5 --instances 64 --density 1.0", 100),
    "n=20 m=5 p=.05": ("toy_n20_m5_p05", 64, 2000, 30, "--n 20 --m 5 --instances 64 --density 0.05", 100),
    "n=2 m=1 p=1": ("toy_n2_m1", 512, 2000, 80, "--n 2 --m 1 --instances 512 --density 1.0", 100),
    "n=400 m=30 p=1": ("toy_n400_m30", 8, 300, 3, "--n 400 --m 30 --instances 8 --density 1.0 --importance 1", 30),
    "n=400 m=30 p=.05": ("toy_n400_m30_p05", 8, 300, 6, "--n 400 --m 30 --instances 8 --density 0.05 --importance 1", 30),
}
PEERS = {"torch": ["toy_torch.py"], "torch.compile": ["toy_torch.py", "--compile"], "jax": ["toy_jax.py"]}
# The densest phase diagram in the literature: 50 x 50 cells, 10 seeds, 4000 steps of 128 samples.
GRID = ROOT / "experiments/paper/tms_phase_change_dense.yaml"
GRID_MODEL_STEPS = 50 * 50 * 10 * 4000
GRID_SECONDS = 15
GRID_PEER = "--n 2 --m 1 --instances 2500 --batch 128"


def tegum_seconds(tegum, experiment):
    """Wall time of a fresh run of the experiment."""
    with tempfile.TemporaryDirectory() as folder:
        command = [tegum, "--quiet", "run", str(experiment), "--out", f"{folder}/run"]
        start = time.perf_counter()
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
        return time.perf_counter() - start


def peer_us(python, peer, options, steps):
    """Microseconds per model-step that a peer prints."""
    program, *flags = PEERS[peer]
    command = [python, str(ROOT / "benches/peers" / program), *flags, *options.split(), "--steps", str(steps)]
    out = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    return json.loads(out.strip().splitlines()[-1])["us"]


def cpu():
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            return line.split(":", 1)[1].strip()
    return "unknown CPU"


def race(contestants, rounds):
    """Times of each contestant, taken in turn."""
    times = {name: [] for name in contestants}
    for _ in range(rounds):
        for name, run in contestants.items():
            times[name].append(run())
            print(f"  {name} {times[name][-1]:.3g}", file=sys.stderr, flush=True)
    return times


def shown(times):
    return f"{min(times):.3g} / {median(times):.3g}"


def toy_row(name, args):
    experiment, models, steps, wanted, options, peer_steps = TOY[name]
    contestants = {"tegum": lambda: tegum_seconds(args.tegum, ROOT / f"benches/experiments/{experiment}.yaml")
                   / (models * steps) * 1e6}
    for peer in PEERS:
        contestants[peer] = lambda peer=peer: peer_us(args.python, peer, options, peer_steps)
    times = race(contestants, args.rounds)
    best = min(PEERS, key=lambda peer: min(times[peer]))
    ratio = min(times[best]) / min(times["tegum"])
    verdict = "reached" if ratio >= wanted else "MISSED"
    cells = [name, *(shown(times[c]) for c in contestants), f"{best} x {ratio:.1f}", f"x {wanted}", verdict]
    return cells, ratio >= wanted


def grid_row(args):
    contestants = {"tegum": lambda: tegum_seconds(args.tegum, GRID)}
    for peer in PEERS:
        contestants[peer] = lambda peer=peer: peer_us(args.python, peer, GRID_PEER, 50) * GRID_MODEL_STEPS / 1e6
    times = race(contestants, args.rounds)
    best = min(PEERS, key=lambda peer: min(times[peer]))
    seconds = min(times["tegum"])
    verdict = "reached" if seconds <= GRID_SECONDS else "MISSED"
    ratio = f"{best} x {min(times[best]) / seconds:.0f}"
    cells = ["50 x 50 x 10 diagram (s)", *(shown(times[c]) for c in contestants), ratio, f"{GRID_SECONDS} s", verdict]
    return cells, seconds <= GRID_SECONDS


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=["toy"])
    target = Path(os.environ.get("CARGO_TARGET_DIR", ROOT / "target"))
    parser.add_argument("--tegum", default=str(target / "release/tegum"))
    parser.add_argument("--python", default=sys.executable)
    parser.add_argument("--rounds", type=int, default=5)
    names = [*TOY, "grid"]
    parser.add_argument("--only", nargs="+", choices=names, default=names)
    args = parser.parse_args()
    print(f"{cpu()}, {os.cpu_count()} threads; us per model-step, least / median of {args.rounds}\n")
    rows, reached = [["work", "tegum", *PEERS, "best peer", "wanted", ""]], True
    for name in args.only:
        print(name, file=sys.stderr)
        cells, good = grid_row(args) if name == "grid" else toy_row(name, args)
        rows.append(cells)
        reached &= good
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    for row in rows:
        print("  ".join(cell.ljust(width) for cell, width in zip(row, widths)).rstrip())
    sys.exit(0 if reached else 1)


if __name__ == "__main__":
    main()
