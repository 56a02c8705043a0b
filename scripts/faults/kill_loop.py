#!/usr/bin/env python3
"""Kill runs with SIGKILL again and again, several at once on one directory, and compare what they end in with an undisturbed run.

usage: scripts/faults/kill_loop.py TEGUM [--kills 1000] [--processes 3] [--seed 1]

One or all of the processes are killed after a random time. `verify` must find nothing damaged on the way; a sweep that comes to its
end must have the rows of the undisturbed one, and begins anew, so that every kill hits a run with work left.
"""

import argparse
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time

from common import QUIET, command, damage, logical_hash


def main():
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("tegum")
    options.add_argument("--kills", type=int, default=1000)
    options.add_argument("--processes", type=int, default=3)
    options.add_argument("--seed", type=int, default=1)
    options = options.parse_args()
    random.seed(options.seed)
    begun = time.time()
    with tempfile.TemporaryDirectory() as folder:
        whole, out = os.path.join(folder, "whole"), os.path.join(folder, "killed")
        alone = time.time()
        subprocess.run(command(options.tegum, whole), check=True, **QUIET)
        alone = time.time() - alone
        expected = logical_hash(options.tegum, whole)
        kills = finished = looked = 0
        bad = []
        while kills < options.kills:
            runs = [subprocess.Popen(command(options.tegum, out), **QUIET) for _ in range(options.processes)]
            time.sleep(random.random() * 1.5 * alone)
            for run in runs if random.random() < 0.5 else [random.choice(runs)]:
                if run.poll() is None:
                    run.send_signal(signal.SIGKILL)
                    kills += 1
            codes = [run.wait() for run in runs]
            bad += [f"exit {code}" for code in codes if code not in (0, -signal.SIGKILL)]
            if 0 in codes:
                finished += 1
                found = logical_hash(options.tegum, out)
                bad += [] if found == expected else [f"rows {found}, expected {expected}"]
                bad += filter(None, [damage(options.tegum, out)])
                shutil.rmtree(out)
            elif kills % 5 == 0:
                looked += 1
                bad += filter(None, [damage(options.tegum, out)])
        subprocess.run(command(options.tegum, out), check=True, **QUIET)
        found = logical_hash(options.tegum, out)
        bad += [] if found == expected else [f"rows {found} at the end, expected {expected}"]
    for line in bad[:20]:
        print(line)
    seconds = time.time() - begun
    print(f"{kills} kills, {finished} sweeps came to their end, {looked} looks on the way, {len(bad)} wrong, {seconds:.0f} s")
    sys.exit(1 if bad else 0)


if __name__ == "__main__":
    main()
