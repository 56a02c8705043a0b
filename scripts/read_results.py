"""Reads a run as a Python user would: rows with polars, weights with safetensors.

usage: python scripts/read_results.py TEGUM     (the binary; needs polars, safetensors, numpy)
"""
import pathlib
import subprocess
import sys
import tempfile

import numpy as np
import polars as pl
from safetensors.numpy import load_file

EXPERIMENT = pathlib.Path(__file__).parent.parent / "experiments/check/phase_change_small.yaml"


def main(tegum: str) -> None:
    with tempfile.TemporaryDirectory() as folder:
        run = pathlib.Path(folder) / "run"
        subprocess.run([tegum, "--quiet", "run", EXPERIMENT, "--out", run], check=True, stdout=subprocess.DEVNULL)
        rows = pl.read_parquet(run / "collected/rows.parquet")
        assert rows.height == 36, rows.height
        assert rows.schema["toy.importance.last"] == pl.Float64
        best = rows.filter(pl.col("status") == "ok").sort("loss_weighted").row(0, named=True)
        features = pl.read_parquet(run / "features/**/*.parquet").filter(pl.col("cell") == best["cell"])
        weights = pathlib.Path(folder) / "weights.safetensors"
        subprocess.run([tegum, "export", run, "--cell", best["cell"], "-o", weights], check=True, stdout=subprocess.DEVNULL)
        w = load_file(weights)["toy.w"]
        assert w.shape == (2, 1) and w.dtype == np.float32
        norms = np.linalg.norm(w.astype(np.float64), axis=1)
        assert np.allclose(norms, features["norm"].to_numpy(), atol=1e-12), (norms, features["norm"])
        print(f"{rows.height} rows, {features.height} features of {best['cell']}, W {w.shape}: 1 passed, 0 failed")


main(sys.argv[1])
