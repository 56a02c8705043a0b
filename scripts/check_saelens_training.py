#!/usr/bin/env python3
"""Trains the same BatchTopK autoencoders with tegum and with SAELens, and compares what they recover.

usage: scripts/check_saelens_training.py [--tegum PATH] [--python PATH] [--seeds 5] [--steps 2000]

Needs a Python with sae-lens 6.54 (--python, by default the one that runs this) and a built tegum. The world is that of
SynthSAEBench at 1024 features in 96 dimensions; both sides draw their own worlds, data and initial weights from the same
laws, train 256 latents with k = 15, and select over batches when they are scored, as SAELens's runner does. Their means over
seeds should differ by no more than two standard errors of that difference allow: a false alarm in about one of ten runs of
two scores.
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
seeds: {seeds}
data:
  n_features: 1024
  firing_probability: {{zipf: {{exponent: 0.5, max: 0.4, min: 5e-4}}}}
  magnitude: {{normal: {{mean: {{linear: {{max: 5, min: 4}}}}, std: {{folded_normal: {{mean: 0.5, std: 0.5}}}}}}}}
  correlation: {{low_rank: {{rank: 25, scale: 0.1}}}}
  hierarchy: {{roots: 32, branching: 4, depth: 2, exclusive: true, scale_children: true, rates: first_order}}
  dictionary: {{d_hidden: 96, vectors: random, bias_norm: 0.5}}
sae:
  - batch_topk: {{n_latents: 256, k: 15, inference: batch}}
sae_train: {{steps: {steps}, batch_size: 1024, lr: 1e-3, schedule: constant, decay: 0}}
score: [mcc, f1, explained_variance, l0, true_l0]
evaluate: {{samples: 50000}}
"""
SCORES = ["mcc", "f1", "explained_variance"]


def tegum_rows(args):
    with tempfile.TemporaryDirectory() as folder:
        spec = Path(folder) / "spec.yaml"
        spec.write_text(SPEC.format(seeds=args.seeds, steps=args.steps))
        subprocess.run([args.tegum, "--quiet", "run", str(spec), "--out", f"{folder}/run"], check=True, stdout=subprocess.DEVNULL)
        table = subprocess.run([args.tegum, "table", f"{folder}/run", "--format", "csv"], check=True, capture_output=True, text=True)
        return list(csv.DictReader(io.StringIO(table.stdout)))


def saelens_rows(args):
    rows = []
    for seed in range(args.seeds):
        options = f"--features 1024 --hidden 96 --latents 256 --k 15 --roots 32 --depth 2 --lr 1e-3 --scores 50000 --seed {seed}"
        command = [args.python, str(ROOT / "benches/peers/sae_saelens.py"), *options.split(), "--steps", str(args.steps)]
        out = subprocess.run(command, check=True, capture_output=True, text=True).stdout
        rows.append(json.loads(out.strip().splitlines()[-1]))
        print(f"  saelens seed {seed}: {rows[-1]}", file=sys.stderr, flush=True)
    return rows


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    target = Path(os.environ.get("CARGO_TARGET_DIR", ROOT / "target"))
    parser.add_argument("--tegum", default=str(target / "release/tegum"))
    parser.add_argument("--python", default=sys.executable)
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--steps", type=int, default=2000)
    args = parser.parse_args()
    sides = {"tegum": tegum_rows(args), "saelens": saelens_rows(args)}
    good = True
    print(f"{'score':20} {'tegum':>18} {'saelens':>18} {'difference':>12} {'allowed':>9}")
    for score in SCORES:
        values = {side: [float(row[score]) for row in rows] for side, rows in sides.items()}
        spread = {side: stdev(v) for side, v in values.items()}
        difference = mean(values["tegum"]) - mean(values["saelens"])
        allowed = 2 * ((spread["tegum"] ** 2 + spread["saelens"] ** 2) / args.seeds) ** 0.5
        verdict = "PASS" if abs(difference) <= allowed else "FAIL"
        good &= verdict == "PASS"
        shown = [f"{mean(values[side]):.4f} ± {spread[side]:.4f}" for side in sides]
        print(f"{score:20} {shown[0]:>18} {shown[1]:>18} {difference:>+12.4f} {allowed:>9.4f}  {verdict}")
    sys.exit(0 if good else 1)


if __name__ == "__main__":
    main()
