#!/usr/bin/env python3
"""Compare autoencoders and scores with SAELens itself.

usage: scripts/check_saelens_sae.py [--tegum target/release/tegum] [--only KIND,..]

Run by hand with a Python that has sae_lens 6.54 (its torch and numpy come along). For every kind of autoencoder a tiny one is
trained by tegum, exported with `tegum export --to saelens`, and loaded with SAE.load_from_disk; both encode and decode the same
hidden states. Then one dictionary with its activations is scored by both: `tegum score` and the calculators of
sae_lens.synthetic.evals. A table is printed; exit 1 if a line of it says FAIL.
"""

import argparse
import json
import pathlib
import subprocess
import sys
import tempfile

import numpy as np
import torch
from safetensors.numpy import load_file
from sae_lens import SAE
from sae_lens.synthetic.evals import eval_sae_on_synthetic_data

torch.set_num_threads(1)

N_FEATURES, D, N_LATENTS = 24, 12, 30
TOLERANCE = 1e-5

# What stands under `sae:`, and settings of training, for each kind.
KINDS = {
    "relu": "relu: {n_latents: 30, l1: 0.05}",
    "relu_norm_penalty": "relu: {n_latents: 30, l1: 0.05, decoder: norm_penalty}",
    "topk": "topk: {n_latents: 30, k: 3}",
    "batch_topk": "batch_topk: {n_latents: 30, k: 2.5}",
    "jumprelu": "jumprelu: {n_latents: 30, target_l0: 3}",
    "gated": "gated: {n_latents: 30, l1: 0.05}",
    "matryoshka_batch_topk": "matryoshka: {n_latents: 30, prefixes: [10, 30], batch_topk: {k: 3}}",
    "matryoshka_topk": "matryoshka: {n_latents: 30, prefixes: [10, 30], topk: {k: 3}}",
    "matryoshka_relu": "matryoshka: {n_latents: 30, prefixes: [10, 30], relu: {l1: 0.05}}",
    "matching_pursuit": "matching_pursuit: {n_latents: 30, k: 3}",
}

SPEC = """
name: {name}
data: {{n_features: 24, firing_probability: 0.08, dictionary: {{d_hidden: 12, vectors: random, bias_norm: 0.5}}}}
sae: [{{{kind}}}]
sae_train: {{steps: 400, batch_size: 256, lr: 3e-3, normalise: {normalise}}}
evaluate: {{samples: 1000}}
save: {{weights: all}}
"""


def world(samples, seed=0):
    """True directions, activations and hidden states."""
    draw = np.random.default_rng(seed)
    truth = draw.normal(size=(N_FEATURES, D))
    truth /= np.linalg.norm(truth, axis=1, keepdims=True)
    x = (draw.random((samples, N_FEATURES)) < 0.08) * draw.random((samples, N_FEATURES))
    bias = 0.1 * draw.normal(size=D)
    return truth.astype(np.float32), x.astype(np.float32), (x @ truth + bias).astype(np.float32)


class Run:
    """The binary in a folder of its own."""

    def __init__(self, binary, folder):
        self.binary, self.folder = binary, folder

    def __call__(self, *arguments):
        command = [self.binary, "--quiet", *arguments]
        done = subprocess.run(command, cwd=self.folder, capture_output=True, text=True)
        if done.returncode != 0:
            raise RuntimeError(f"{' '.join(command)}\n{done.stdout}{done.stderr}")
        return done.stdout


class Table:
    """Lines of what was compared."""

    def __init__(self):
        self.failed = 0

    def line(self, what, *columns, ok):
        self.failed += not ok
        print(f"{what:<34}", *(f"{c:>22}" for c in columns), "PASS" if ok else "FAIL", flush=True)


def export(run, name, kind, normalise):
    """Trains and exports one autoencoder; its folder."""
    (run.folder / f"{name}.yaml").write_text(SPEC.format(name=name, kind=kind, normalise=normalise))
    run("run", f"{name}.yaml")
    cell = run("table", f"results/{name}", "--select", "cell", "--format", "csv").split()[1]
    run("export", f"results/{name}", "--cell", cell, "--to", "saelens", "-o", name, "--encode", "h.npy")
    return run.folder / name


def sample_scale(h, normalise):
    """What a latent of the normalised sample is times in units of h, [samples, 1]."""
    if normalise == "constant_norm":
        return np.linalg.norm(h, axis=1, keepdims=True) / np.sqrt(h.shape[1])
    if normalise == "layer_norm":
        return h.std(axis=1, keepdims=True, ddof=1)
    return 1.0


def compare_codes(run, table, only):
    """Latents and reconstructions of every kind."""
    h = torch.tensor(np.load(run.folder / "h.npy"))
    loaded = {}
    for label, kind in KINDS.items():
        if only and label not in only:
            continue
        for normalise in ["none", "mean_norm", "constant_norm", "layer_norm"]:
            name = f"{label}-{normalise.replace('_', '-')}".replace("_", "-")
            try:
                folder = export(run, name, kind, normalise)
            except RuntimeError as error:
                if "not built yet" in str(error):
                    print(f"{name:<34} this tegum does not have it yet")
                    continue
                raise
            sae = SAE.load_from_disk(str(folder))
            codes = load_file(folder / "codes.safetensors")
            with torch.no_grad():
                z = sae.encode(h)
                rebuilt = sae.decode(z).numpy()
            z = z.to_dense().numpy() if z.is_sparse else z.numpy()
            if sae.cfg.architecture() == "topk":
                # There latents are times the norms of their rows.
                z = z / np.linalg.norm(sae.W_dec.detach().numpy(), axis=1)
            # There tied rows do not know of the scale of the inputs in training.
            z = z * (sae.cfg.metadata["latent_scale"] or 1.0)
            # There latents are those of the normalised sample, here they are in units of h.
            z = z * sample_scale(h.numpy(), normalise)
            off = np.abs(z - codes["latents"]).max()
            off_rebuilt = np.abs(rebuilt - codes["reconstruction"]).max()
            active = int((codes["latents"] != 0).sum())
            firing = int(((z != 0) != (codes["latents"] != 0)).sum())
            ok = off < TOLERANCE and off_rebuilt < TOLERANCE and active > 0
            table.line(f"{name} as {sae.cfg.architecture()}", f"latents {off:.1e}", f"h {off_rebuilt:.1e}",
                       f"firing {firing}/{active}", ok=ok)
            loaded[label] = (sae, codes)
    return loaded


class Samples:
    """Given activations in the place of a generator."""

    def __init__(self, x):
        self.x, self.at = torch.tensor(x), 0

    def sample(self, count):
        self.at += count
        return self.x[self.at - count:self.at]


class Dictionary:
    """Given hidden states in the place of a feature dictionary."""

    def __init__(self, truth, h):
        self.feature_vectors, self.h, self.at = torch.tensor(truth), torch.tensor(h), 0

    def __call__(self, acts):
        self.at += len(acts)
        return self.h[self.at - len(acts):self.at]


def compare_scores(run, table, loaded):
    """The same arrays scored by both."""
    truth, x, h = (np.load(run.folder / f"{name}.npy") for name in ["truth", "x", "h"])
    for label, (sae, _) in loaded.items():
        theirs = eval_sae_on_synthetic_data(sae, Dictionary(truth, h), Samples(x), num_samples=len(x), batch_size=1000)
        with torch.no_grad():
            z = sae.encode(torch.tensor(h))
            arrays = {"latents": z.to_dense() if z.is_sparse else z, "reconstruction": sae.decode(z), "dictionary": sae.W_dec}
        for name, array in arrays.items():
            np.save(run.folder / f"{name}.npy", np.ascontiguousarray(array.detach().numpy()))
        files = [f(n) for n in ["truth", "dictionary", "latents", "reconstruction"] for f in (lambda n: f"--{n}", lambda n: f"{n}.npy")]
        ours = json.loads(run("score", *files, "--features", "x.npy", "--hidden", "h.npy"))["scores"]
        pairs = {
            "mcc": theirs.mcc, "uniqueness": theirs.uniqueness, "precision": theirs.classification.precision,
            "recall": theirs.classification.recall, "f1": theirs.classification.f1_score,
            "explained_variance": theirs.explained_variance, "shrinkage": theirs.shrinkage, "l0": theirs.sae_l0,
            "true_l0": theirs.true_l0, "dead": theirs.dead_latents,
        }
        for name, value in pairs.items():
            off = abs(ours[name] - value)
            table.line(f"{label}: {name}", f"{ours[name]:.8f}", f"{value:.8f}", f"{off:.1e}", ok=off < TOLERANCE)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tegum", default="target/release/tegum")
    parser.add_argument("--only", default="", help="kinds, separated by commas")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        run = Run(str(pathlib.Path(arguments.tegum).resolve()), pathlib.Path(folder))
        for name, array in zip(["truth", "x", "h"], world(4000)):
            np.save(run.folder / f"{name}.npy", array)
        table = Table()
        loaded = compare_codes(run, table, [k for k in arguments.only.split(",") if k])
        compare_scores(run, table, loaded)
    print("all agree" if table.failed == 0 else f"{table.failed} lines fail")
    sys.exit(table.failed > 0)


if __name__ == "__main__":
    main()
