#!/usr/bin/env python3
"""Checks that SAELens loads the worlds that tegum writes, and tegum those that SAELens writes.

usage: scripts/check_saelens_world.py TEGUM     (the binary; needs a Python with sae_lens)

Both ways, on worlds of 1024 features with a low-rank copula, exclusive trees of depth 2 and scaled children: equal firing
probabilities, thresholds (1e-5), magnitudes (2e-6), parents and directions, and in samples of each side the same L0 and rates.
"""
import csv
import json
import subprocess
import sys
import tempfile
from pathlib import Path

import torch
from sae_lens.synthetic.firing_magnitudes import FoldedNormalMagnitudeConfig, LinearMagnitudeConfig
from sae_lens.synthetic.firing_probabilities import ZipfianFiringProbabilityConfig
from sae_lens.synthetic.hierarchy import HierarchyConfig
from sae_lens.synthetic.synthetic_model import (
    LowRankCorrelationConfig,
    OrthogonalizationConfig,
    SyntheticModel,
    SyntheticModelConfig,
)
from safetensors.torch import load_file

SAMPLES = 20_000

WORLD = """name: written
data:
  n_features: 1024
  firing_probability: {zipf: {exponent: 0.5, max: 0.4, min: 0.002}}
  magnitude: {normal: {mean: {from_to: {start: 5, end: 4}}, std: {torch_folded_normal: {mean: 0.5, std: 0.5, seed: 43}}}}
  correlation: {low_rank: {rank: 25, scale: 0.1}}
  hierarchy: {roots: 32, branching: 4, depth: 2, exclusive: true, scale_children: true, rates: first_order}
  dictionary: {d_hidden: 96, vectors: {orthogonalised: {steps: 20, lr: 3e-4}}, bias_norm: 0.5}
"""

REST = """baselines: [{oracle: {encoder: topk, k: 15}}]
score: [true_l0]
evaluate: {samples: 100000}
"""


def tegum(*arguments: str) -> str:
    return subprocess.run([sys.argv[1], "--quiet", *map(str, arguments)], check=True, capture_output=True, text=True).stdout


def features(experiment: Path) -> dict[str, list]:
    """Columns of `tegum world --features`."""
    table = experiment.with_suffix(".csv")
    tegum("world", experiment, "--features", table)
    rows = list(csv.DictReader(table.open()))
    numbers = {key: torch.tensor([float(row[key]) for row in rows], dtype=torch.float64) for key in ("own_probability", "rate", "mean", "std")}
    return {**numbers, "parent": [int(row["parent"]) if row["parent"] else None for row in rows]}


def parents(model: SyntheticModel, n: int) -> list:
    found = [None] * n

    def walk(node, above):
        if node.feature_index is not None:
            found[node.feature_index] = above
        for child in node.children:
            walk(child, node.feature_index if node.feature_index is not None else above)

    for root in model.hierarchy.roots:
        walk(root, None)
    return found


def near(what: str, a: torch.Tensor, b: torch.Tensor, bound: float) -> None:
    worst = (a.double() - b.double()).abs().max().item()
    print(f"  {what}: largest difference {worst:.2e} (at most {bound:g})")
    assert worst <= bound, what


def same_world(experiment: Path, model: SyntheticModel) -> None:
    """What tegum makes of an experiment and what SAELens made of the same folder."""
    mine, theirs = features(experiment), model.activation_generator
    near("firing probabilities", mine["own_probability"], theirs.firing_probabilities, 1e-7)
    thresholds = 2**0.5 * torch.erfinv(1 - 2 * mine["own_probability"])
    # In f32 a threshold loses digits where 1 - 2p is near 1.
    near("thresholds", thresholds, theirs.correlation_thresholds, 3e-5)
    near("means", mine["mean"], theirs.mean_firing_magnitudes, 2e-6)
    near("standard deviations", mine["std"], theirs.std_firing_magnitudes, 2e-6)
    assert mine["parent"] == parents(model, len(mine["parent"]))
    torch.manual_seed(1)
    fires = torch.cat([theirs.sample(1000) > 0 for _ in range(SAMPLES // 1000)])
    rate, l0 = fires.double().mean(0), fires.sum(1).double()
    z = (rate - mine["rate"]) / (mine["rate"] * (1 - mine["rate"]) / SAMPLES).sqrt()
    print(f"  rates: mean square of z over features {z.square().mean():.3f} (1 if equal), largest |z| {z.abs().max():.2f}")
    # Squares of 1024 standard normals: mean 1, standard deviation .044.
    assert z.square().mean() < 1.25 and z.abs().max() < 5.5
    tegum("run", experiment, "--out", experiment.parent / experiment.stem)
    ours = float(tegum("table", experiment.parent / experiment.stem, "--select", "true_l0", "--format", "csv").splitlines()[1])
    error = l0.std().item() * (1 / SAMPLES + 1 / 100_000) ** 0.5
    print(f"  L0: tegum {ours:.3f}, SAELens {l0.mean():.3f} ({(ours - l0.mean().item()) / error:+.2f} standard errors)")
    assert abs(ours - l0.mean().item()) < 5 * error


def main() -> None:
    torch.set_num_threads(2)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        print("written by tegum, loaded by SAELens")
        written = folder / "written.yaml"
        written.write_text(WORLD + REST)
        tegum("world", written, "-o", folder / "by_tegum")
        model = SyntheticModel.load_from_disk(folder / "by_tegum")
        same_world(written, model)
        print("written by SAELens, loaded by tegum")
        cfg = SyntheticModelConfig(
            num_features=1024,
            hidden_dim=96,
            firing_probability=ZipfianFiringProbabilityConfig(exponent=0.5, max_prob=0.4, min_prob=0.002),
            hierarchy=HierarchyConfig(32, 4, 2, 1.0, compensate_probabilities=True, scale_children_by_parent=True),
            orthogonalization=OrthogonalizationConfig(num_steps=20, lr=3e-4),
            correlation=LowRankCorrelationConfig(rank=25, correlation_scale=0.1),
            std_firing_magnitudes=FoldedNormalMagnitudeConfig(0.5, 0.5),
            mean_firing_magnitudes=LinearMagnitudeConfig(5.0, 4.0),
            bias=0.5,
            seed=42,
        )
        model = SyntheticModel(cfg)
        model.save(folder / "by_saelens")
        loaded = folder / "loaded.yaml"
        loaded.write_text("name: loaded\ndata: {synthetic_model: by_saelens}\n" + REST)
        same_world(loaded, model)
        tegum("world", loaded, "-o", folder / "again")
        a, b = (load_file(folder / side / "synthetic_model.safetensors") for side in ("by_saelens", "again"))
        assert a.keys() == b.keys() and all(torch.equal(a[key], b[key]) for key in a)
        print("  written again: every tensor has the same bits")
        again = json.loads((folder / "again" / "synthetic_model_config.json").read_text())
        print(f"  laws found again: {again['firing_probability']}")


if __name__ == "__main__":
    main()
