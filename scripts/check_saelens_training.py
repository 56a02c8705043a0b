#!/usr/bin/env python3
"""Trains the same BatchTopK autoencoders with tegum and with SAELens, and compares what they recover.

usage: scripts/check_saelens_training.py [--tegum PATH] [--python PATH] [--seeds 5] [--steps 2000]

Needs a Python with sae-lens 6.54 (--python, by default the one that runs this) and a built tegum. Each seed has a world of
its own, drawn by SAELens by the law of SynthSAEBench at 1024 features in 96 dimensions and written as a synthetic model, which
tegum reads: worlds differ by more than trainings do (their scores by some .01, the dead latents twofold). Both sides draw
data and initial weights themselves, train 256 latents with k = 15, and select over batches when they are scored, as SAELens's
runner does. The mean of the differences, world by world, has to lie within its own 95 % interval about 0: a false alarm in one
of twenty runs for each score, one of seven for three scores if they were independent (they are not).
"""

import argparse
import csv
import io
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from statistics import mean, stdev

ROOT = Path(__file__).resolve().parent.parent
SPEC = """
name: saelens-training
question: Do tegum and SAELens recover the same?
seeds: [{seed}]
data: {{synthetic_model: {world}}}
sae:
  - batch_topk: {{n_latents: 256, k: 15, inference: batch}}
sae_train: {{steps: {steps}, batch_size: 1024, lr: 1e-3, schedule: constant, decay: 0}}
score: [mcc, f1, explained_variance, l0, dead]
evaluate: {{samples: 50000}}
"""
SCORES = ["mcc", "f1", "explained_variance"]
# Two-sided 95 % points of Student's t, by pairs.
STUDENT = {2: 12.71, 3: 4.30, 4: 3.18, 5: 2.78, 6: 2.57, 7: 2.45, 8: 2.36, 9: 2.31, 10: 2.26}


def tegum_row(args, seed, folder):
    spec = Path(folder) / "spec.yaml"
    spec.write_text(SPEC.format(seed=seed, world=f"{folder}/world", steps=args.steps))
    subprocess.run([args.tegum, "--quiet", "run", str(spec), "--out", f"{folder}/run"], check=True, stdout=subprocess.DEVNULL)
    table = subprocess.run([args.tegum, "table", f"{folder}/run", "--format", "csv"], check=True, capture_output=True, text=True)
    return next(csv.DictReader(io.StringIO(table.stdout)))


def saelens_row(args, seed, folder):
    options = f"--features 1024 --hidden 96 --latents 256 --k 15 --roots 32 --depth 2 --lr 1e-3 --scores 50000 --seed {seed}"
    command = [args.python, str(ROOT / "benches/peers/sae_saelens.py"), *options.split(), "--steps", str(args.steps)]
    out = subprocess.run([*command, "--save-world", f"{folder}/world"], check=True, capture_output=True, text=True).stdout
    return json.loads(out.strip().splitlines()[-1])


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    target = Path(os.environ.get("CARGO_TARGET_DIR", ROOT / "target"))
    parser.add_argument("--tegum", default=str(target / "release/tegum"))
    parser.add_argument("--python", default=sys.executable)
    parser.add_argument("--seeds", type=int, default=5, choices=STUDENT)
    parser.add_argument("--steps", type=int, default=2000)
    args = parser.parse_args()
    rows = {"tegum": [], "saelens": []}
    for seed in range(args.seeds):
        with tempfile.TemporaryDirectory() as folder:
            rows["saelens"].append(saelens_row(args, seed, folder))
            rows["tegum"].append(tegum_row(args, seed, folder))
        shown = [f"{side} " + " ".join(f"{float(found[-1][score]):.4f}" for score in [*SCORES, "dead"]) for side, found in rows.items()]
        print(f"  world {seed}: " + "; ".join(shown), file=sys.stderr, flush=True)
    good = True
    print(f"{'score':20} {'tegum':>16} {'saelens':>16} {'difference':>12} {'allowed':>9}")
    for score in SCORES:
        values = {side: [float(row[score]) for row in found] for side, found in rows.items()}
        differences = [a - b for a, b in zip(values["tegum"], values["saelens"])]
        allowed = STUDENT[args.seeds] * stdev(differences) / args.seeds ** 0.5
        verdict = "PASS" if abs(mean(differences)) <= allowed else "FAIL"
        good &= verdict == "PASS"
        shown = [f"{mean(values[side]):.4f} ± {stdev(values[side]):.4f}" for side in rows]
        print(f"{score:20} {shown[0]:>16} {shown[1]:>16} {mean(differences):>+12.4f} {allowed:>9.4f}  {verdict}")
    sys.exit(0 if good else 1)


if __name__ == "__main__":
    main()
