#!/usr/bin/env python3
"""Show that the fault scripts have teeth: a store that breaks a rule on purpose must be caught by the script that looks for it.

usage: scripts/faults/broken.py TEGUM

TEGUM is a build with the feature `faults`, whose store breaks the rule that TEGUM_BROKEN names:

    no-fsync, no-dir-fsync    fsync_order.py: bytes or names are not on disk in time
    write-in-place            crash_points.py: a kill in the middle leaves half a file under its final name
    no-hash                   flip.py: changed bytes are not found

Without TEGUM_BROKEN the same program must pass all three.
"""

import os
import pathlib
import subprocess
import sys

import flip
import fsync_order
from common import scratch

HERE = pathlib.Path(__file__).parent


def order(tegum, env):
    with scratch() as folder:
        checker = fsync_order.checked(tegum, folder, env=env)
    return len(checker.wrong), checker.wrong[:1]


def kills(tegum, env):
    """Writes only, and no more of them than it takes."""
    script = [sys.executable, HERE / "crash_points.py", tegum, "--kinds", "write", "--only", "kills"]
    found = subprocess.run(script, capture_output=True, text=True, env=env)
    if found.returncode not in (0, 1):
        sys.exit(f"crash_points.py: {found.stderr}")
    lines = found.stdout.splitlines()
    return found.returncode, lines[-2:]


def bytes_changed(tegum, env):
    with scratch() as folder:
        _, _, unseen = flip.flip(tegum, folder, 50, env)
    return len(unseen), unseen[:1]


CASES = [
    (None, order), (None, kills), (None, bytes_changed),
    ("no-fsync", order), ("no-dir-fsync", order), ("write-in-place", order), ("write-in-place", kills), ("no-hash", bytes_changed),
]  # fmt: skip


def main():
    if len(sys.argv) != 2 or sys.argv[1].startswith("-"):
        sys.exit(__doc__)
    wrong = 0
    for broken, look in CASES:
        env = {key: value for key, value in os.environ.items() if key != "TEGUM_BROKEN"}
        if broken:
            env["TEGUM_BROKEN"] = broken
        found, shown = look(sys.argv[1], env)
        right = bool(found) == bool(broken)
        wrong += not right
        told = f"{found} found, such as {shown}" if broken and found else f"{found} found"
        print(f"{'as it must be' if right else 'WRONG'}: {broken or 'sound'}, {look.__name__}: {told}", flush=True)
    sys.exit(1 if wrong else 0)


if __name__ == "__main__":
    main()
