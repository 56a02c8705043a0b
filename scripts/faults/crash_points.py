#!/usr/bin/env python3
"""Kill a run at every one of its file calls, and make every one of them fail, with strace; the same command must then finish it.

usage: scripts/faults/crash_points.py TEGUM [--most 400] [--every 1] [--kinds openat,write,..]

SIGKILL at the entry of the n-th call of a kind, n = 1, 2, .., until a run survives or `--most`; then errors in the same way. After each:
nothing is damaged, the same command completes the run, and its rows are those of an undisturbed one. `--every 7` takes each seventh call.
"""

import argparse
import os
import shutil
import subprocess
import sys
import tempfile
import time

from common import QUIET, command, damage, logical_hash

KILLED = ["openat", "write", "fsync", "link", "linkat", "rename", "renameat2", "unlink", "mkdir", "getdents64", "close"]
ERRORS = [
    ("write", "ENOSPC"), ("write", "EIO"), ("write", "EDQUOT"), ("write", "EINTR"), ("fsync", "EIO"), ("fsync", "ENOSPC"),
    ("link", "ENOSPC"), ("link", "EIO"), ("link", "EPERM"), ("linkat", "ENOSPC"), ("linkat", "EIO"), ("linkat", "EPERM"),
    ("openat", "EMFILE"), ("openat", "ENOSPC"), ("openat", "EROFS"), ("mkdir", "ENOSPC"), ("unlink", "EIO"), ("rename", "EIO"),
]  # fmt: skip


class Judge:
    """Looks at what a disturbed run has left, and lets it go on."""

    def __init__(self, tegum, folder):
        self.tegum, self.out, self.bad = tegum, os.path.join(folder, "out"), []
        whole = os.path.join(folder, "whole")
        subprocess.run(command(tegum, whole), check=True, **QUIET)
        self.expected = logical_hash(tegum, whole)

    def look(self, label, signalled):
        """A run that ended by itself may have said what is wrong; one that was killed has left nothing damaged."""
        wrong = damage(self.tegum, self.out) if signalled else None
        if wrong:
            self.bad.append(f"{label}: {wrong}")
        again = subprocess.run(command(self.tegum, self.out), capture_output=True, text=True)
        if again.returncode:
            self.bad.append(f"{label}: the same command exits {again.returncode}: {again.stderr.strip()[-200:]}")
        found = logical_hash(self.tegum, self.out)
        if found != self.expected:
            self.bad.append(f"{label}: rows {found}")
        shutil.rmtree(self.out, ignore_errors=True)


def injected(judge, trace, kind, what, at):
    """Runs with a fault at the n-th call of a kind; the exit code, and whether that call came."""
    inject = f"inject={kind}:{what}:when={at}"
    strace = ["strace", "-qq", "-f", "-o", trace, "-e", f"trace={kind}", "-e", inject]
    code = subprocess.run(strace + [str(part) for part in command(judge.tegum, judge.out)], **QUIET).returncode
    with open(trace, errors="replace") as lines:
        text = lines.read()
    return code, "INJECTED" in text or "killed by SIGKILL" in text


def sweep(judge, trace, kind, what, options):
    """Faults at each call of a kind; how many came, and how many runs ended well all the same."""
    count = well = 0
    for at in range(1, options.most + 1, options.every):
        code, came = injected(judge, trace, kind, what, at)
        if not came:
            shutil.rmtree(judge.out, ignore_errors=True)
            break
        count += 1
        well += code == 0
        judge.look(f"{kind} {at} {what}", what.startswith("signal"))
    return count, well


def main():
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("tegum")
    options.add_argument("--most", type=int, default=400)
    options.add_argument("--every", type=int, default=1)
    options.add_argument("--kinds", default=",".join(KILLED))
    options = options.parse_args()
    kinds, begun = options.kinds.split(","), time.time()
    with tempfile.TemporaryDirectory() as folder:
        judge, trace = Judge(options.tegum, folder), os.path.join(folder, "trace")
        kills = faults = 0
        for kind in (kind for kind in KILLED if kind in kinds):
            count, _ = sweep(judge, trace, kind, "signal=KILL", options)
            kills += count
            print(f"killed at {count} calls of {kind}", flush=True)
        for kind, error in ((kind, error) for kind, error in ERRORS if kind in kinds):
            count, well = sweep(judge, trace, kind, f"error={error}", options)
            faults += count
            print(f"{error} at {count} calls of {kind}: {well} runs ended well all the same", flush=True)
    for line in judge.bad[:20]:
        print(line)
    print(f"{kills} kills, {faults} errors, {len(judge.bad)} wrong, {time.time() - begun:.0f} s")
    sys.exit(1 if judge.bad else 0)


if __name__ == "__main__":
    main()
