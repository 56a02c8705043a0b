#!/usr/bin/env python3
"""Races tegum against the usual Python programs on the same models, on this machine, in one run.

usage: scripts/compare_peers.py toy|sae [--tegum PATH] [--python PATH] [--rounds 5] [--only NAME ...]

Needs a Python (--python, by default the one that runs this) with numpy, torch, jax and optax for `toy`, and with sae-lens for
`sae`, and a built tegum. In every
round each program runs once, in turn, so that a slow moment of the machine hits all of them. tegum's time is that of the whole
process, from the YAML file in benches/experiments to rows on disk, divided by models x steps; a peer's time is its
training loop alone, compiled and warm (benches/peers). The ratio is the least time of the best peer over tegum's least.

Two rows of `sae` are not whole processes. At benchmark size a step is the difference of two runs of different length over the
difference of their steps, because a benchmark run has 200,000 steps and one dictionary. Data alone are timed by
`cargo bench --bench data`, in the library, on one core and on all.
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
# name: experiment, models, steps, wanted ratio, options of the peer, steps that the peer is timed for
SAE = {
    "40 features, d=20, 64 latents, TopK 2": (
        "sae_tiny", 32, 2000, 50, "--features 40 --hidden 20 --latents 64 --kind topk --k 2 --probability 0.05", 200),
    "512 features, d=256, 1024 latents, TopK 5": (
        "sae_512", 2, 500, 10, "--features 512 --hidden 256 --latents 1024 --kind topk --k 5 --probability 0.01", 60),
}
SAE_16K = "16k features, d=768, 4096 latents, BatchTopK 25"
SAE_16K_STEPS = (20, 220)
SAE_16K_PEER = "--features 16384 --hidden 768 --latents 4096 --k 25 --roots 128 --depth 3"
SAE_DATA = "1024 features in trees, d=96, data alone"
SAE_DATA_PEER = "--features 1024 --hidden 96 --latents 256 --k 15 --roots 32 --depth 2 --data-only"
# The densest phase diagram in the literature: 50 x 50 cells, 10 seeds, 4000 steps of 128 samples.
GRID = ROOT / "experiments/paper/tms_phase_change_dense.yaml"
GRID_MODEL_STEPS = 50 * 50 * 10 * 4000
GRID_SECONDS = 15
GRID_PEER = "--n 2 --m 1 --instances 2500 --batch 128"


def tegum_seconds(tegum, experiment, replace=None):
    """Wall time of a fresh run of the experiment, with some words of it replaced."""
    with tempfile.TemporaryDirectory() as folder:
        if replace:
            text = Path(experiment).read_text()
            assert replace[0] in text, replace
            experiment = Path(folder) / "experiment.yaml"
            experiment.write_text(text.replace(*replace))
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


def saelens(python, options, steps):
    """What SAELens prints: microseconds per step (`us`) and per batch of data (`data_us`)."""
    command = [python, str(ROOT / "benches/peers/sae_saelens.py"), *options.split(), "--steps", str(steps)]
    out = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    return json.loads(out.strip().splitlines()[-1])


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


def sae_row(name, args):
    if name == SAE_DATA:
        wanted = 40
        contestants = {"tegum": tegum_data_us, "saelens": lambda: saelens(args.python, SAE_DATA_PEER, 100)["data_us"]}
    elif name == SAE_16K:
        wanted = 25
        short, long = SAE_16K_STEPS

        def tegum():
            path = ROOT / "benches/experiments/sae_16k.yaml"
            seconds = [tegum_seconds(args.tegum, path, ("steps: 40", f"steps: {steps}")) for steps in (short, long)]
            return (seconds[1] - seconds[0]) / (long - short) * 1e6

        contestants = {"tegum": tegum, "saelens": lambda: saelens(args.python, SAE_16K_PEER, 10)["us"]}
    else:
        experiment, models, steps, wanted, options, peer_steps = SAE[name]
        path = ROOT / f"benches/experiments/{experiment}.yaml"
        contestants = {"tegum": lambda: tegum_seconds(args.tegum, path) / (models * steps) * 1e6,
                       "saelens": lambda: saelens(args.python, options, peer_steps)["us"]}
    times = race(contestants, args.rounds)
    ratio = min(times["saelens"]) / min(times["tegum"])
    cells = [name, *(shown(times[c]) for c in contestants), f"x {ratio:.1f}", f"x {wanted}",
             "reached" if ratio >= wanted else "MISSED"]
    return cells, ratio >= wanted


def tegum_data_us():
    """Microseconds of a batch of the hierarchy of 1024 features, x and h, as the benchmark prints it."""
    command = ["cargo", "bench", "--bench", "data", "--", "--tree-batch"]
    out = subprocess.run(command, check=True, capture_output=True, text=True, cwd=ROOT).stdout
    return json.loads(out.strip().splitlines()[-1])["us"]


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=["toy", "sae"])
    target = Path(os.environ.get("CARGO_TARGET_DIR", ROOT / "target"))
    parser.add_argument("--tegum", default=str(target / "release/tegum"))
    parser.add_argument("--python", default=sys.executable)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--only", nargs="+", help="rows by name, or by a part of it")
    args = parser.parse_args()
    names = [*TOY, "grid"] if args.what == "toy" else [*SAE, SAE_16K, SAE_DATA]
    chosen = [name for name in names if not args.only or any(part in name for part in args.only)]
    if not chosen:
        sys.exit(f"no row has one of these words; rows: {', '.join(names)}")
    peers, unit = ([*PEERS], "model-step") if args.what == "toy" else (["saelens"], "SAE-step or batch")
    print(f"{cpu()}, {os.cpu_count()} threads; us per {unit}, least / median of {args.rounds}\n")
    rows, reached = [["work", "tegum", *peers, "best peer" if args.what == "toy" else "ratio", "wanted", ""]], True
    for name in chosen:
        print(name, file=sys.stderr)
        row = sae_row if args.what == "sae" else grid_row if name == "grid" else toy_row
        cells, good = row(args) if row is grid_row else row(name, args)
        rows.append(cells)
        reached &= good
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    for row in rows:
        print("  ".join(cell.ljust(width) for cell, width in zip(row, widths)).rstrip())
    sys.exit(0 if reached else 1)


if __name__ == "__main__":
    main()
