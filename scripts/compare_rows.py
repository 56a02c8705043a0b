#!/usr/bin/env python3
"""Compares the rows of two runs of one experiment on different backends, score by score.

usage: scripts/compare_rows.py RUN_A RUN_B [--share 0.001] [--tegum PATH]

Rows are paired by seed, method and swept values. The two need not agree bit for bit: sums are taken in other orders, and training
carries a difference of rounding to where it may decide which feature a latent finds. What has to agree is the mean. A line gives the
mean of each score in both, the mean difference and what it may be: three standard errors of the paired differences, or --share of the
mean where the differences do not vary. Exit 1 if a line says FAIL or the rows are not the same cells.
"""

import argparse
import csv
import io
import math
import subprocess
import sys
from statistics import fmean, stdev

NOT_SCORES = {"cell", "plan_index", "status", "detail", "steps_done", "restart", "stem"}


def rows(tegum, run):
    """Rows by the cell they are of, and their columns."""
    text = subprocess.run([tegum, "table", run, "--format", "csv"], check=True, capture_output=True, text=True).stdout
    table = list(csv.DictReader(io.StringIO(text)))
    if not table:
        sys.exit(f"{run} has no rows")
    keys = [name for name in table[0] if name in ("seed", "method") or "." in name or name.startswith("label")]
    return {tuple(row[key] for key in keys): row for row in table}, [n for n in table[0] if n not in keys]


def number(text):
    """A score, or none."""
    try:
        return float(text)
    except ValueError:
        return None


def main():
    """Reads the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("runs", nargs=2)
    parser.add_argument("--share", type=float, default=1e-3)
    parser.add_argument("--tegum", default="target/release/tegum")
    arguments = parser.parse_args()
    (one, columns), (other, _) = (rows(arguments.tegum, run) for run in arguments.runs)
    if one.keys() != other.keys():
        sys.exit(f"{len(one.keys() ^ other.keys())} cells are in one run alone")
    failed = 0
    print(f"{'score':<28}{'mean A':>14}{'mean B':>14}{'difference':>14}{'allowed':>14}")
    for score in (column for column in columns if column not in NOT_SCORES):
        pairs = [(number(one[key][score]), number(other[key][score])) for key in one]
        pairs = [(a, b) for a, b in pairs if a is not None and b is not None]
        if not pairs:
            continue
        differences = [b - a for a, b in pairs]
        mean_a, mean_b = fmean(a for a, _ in pairs), fmean(b for _, b in pairs)
        error = stdev(differences) / math.sqrt(len(differences)) if len(differences) > 1 else 0.0
        allowed = max(3 * error, arguments.share * abs(mean_a), 1e-6)
        good = abs(mean_b - mean_a) <= allowed
        failed += not good
        verdict = "PASS" if good else "FAIL"
        print(f"{score:<28}{mean_a:>14.6g}{mean_b:>14.6g}{mean_b - mean_a:>14.3g}{allowed:>14.3g}  {verdict}")
    sys.exit(1 if failed else 0)


main()
