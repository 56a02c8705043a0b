#!/usr/bin/env python3
"""Kill a run at every one of its file calls, and make each of them fail, with strace; the same command must then finish it.

usage: scripts/faults/crash_points.py TEGUM [--every 1] [--alike 6] [--kinds openat,write,..] [--only kills|errors] [--begun half]

A first run under strace lists the calls that the one thread of `--no-supervisor --threads 1` makes inside the run directory. Then one
run for each: SIGKILL at the entry of that call, or an error instead of it. After each nothing is damaged, the same command completes the
run, and its rows are those of an undisturbed one.

Of calls that change nothing on disk (opening for reading, reading, listing, closing) those that are alike but for the number in their
path stand for each other: `--alike` of them are taken. `--every 7` takes each seventh of what is left. With `--begun half` each run goes on from a directory that lacks half of its parts and has a damaged one.
"""

import argparse
import collections
import os
import pathlib
import re
import shutil
import subprocess
import sys
import time

from common import QUIET, SMALL, command, damage, logical_hash, remove, scratch

CHANGES = ["write", "fsync", "link", "linkat", "rename", "renameat2", "unlink", "mkdir"]
LOOKS = ["openat", "read", "getdents64", "statx", "newfstatat", "close"]
ERRORS = {
    "write": ["ENOSPC", "EIO", "EDQUOT", "EINTR"],
    "fsync": ["EIO", "ENOSPC"],
    "link": ["ENOSPC", "EIO", "EPERM"],
    "linkat": ["ENOSPC", "EIO", "EPERM"],
    "openat": ["EMFILE", "ENOSPC", "EROFS"],
    "mkdir": ["ENOSPC"],
    "unlink": ["EIO"],
    "rename": ["EIO"],
    "read": ["EIO"],
}  # fmt: skip
LINE = re.compile(r"^(\w+)\((.*)")
# A panic, and what ends a program that is not killed by somebody.
CRASHES = {101, 134, 139}


def started(tegum, out):
    return command(tegum, out, "--no-supervisor", spec=SMALL)


def shape(kind, rest):
    """What calls that are alike have in common."""
    rest = re.sub(r"\.(tmp|writer)-[\w.-]+", r".\1", rest)
    rest = re.sub(r"/[0-9a-f]{2}(?=[/\"<>])", "/xx", rest)
    rest = re.sub(r"\b[0-9a-f]{16,}\b|c\d{8}", "h", rest)
    return kind + " " + re.sub(r"\d+", "n", rest)


class Points:
    """The file calls of one run, each by its kind and its number among those of the kind."""

    def __init__(self, judge, trace, options):
        kinds = [kind for kind in CHANGES + LOOKS if kind in options.kinds.split(",")]
        judge.begin()
        strace = ["strace", "-qq", "-y", "-s", "9", "-o", trace, "-e", "trace=" + ",".join(kinds)]
        subprocess.run(strace + started(judge.tegum, judge.out), check=True, **QUIET)
        numbers, groups = collections.Counter(), collections.defaultdict(list)
        for line in pathlib.Path(trace).read_text(errors="replace").splitlines():
            call = LINE.match(line)
            if not call:
                continue
            kind, rest = call.groups()
            numbers[kind] += 1
            if judge.out in rest:
                groups[shape(kind, rest)].append((kind, numbers[kind]))
        self.calls = sum(map(len, groups.values()))
        taken = [point for name, points in groups.items() for point in thinned(name, points, options.alike)]
        order = {kind: at for at, kind in enumerate(kinds)}
        self.taken = sorted(taken, key=lambda point: (order[point[0]], point[1]))[:: options.every]


def thinned(name, points, alike):
    kind = name.split()[0]
    stand_for_each_other = kind in LOOKS and "O_CREAT" not in name
    if not stand_for_each_other or len(points) <= alike:
        return points
    return [points[at * (len(points) - 1) // (alike - 1)] for at in range(alike)] if alike > 1 else points[:1]


class Judge:
    """Makes the directory that a run begins with, looks at what a disturbed run has left, and lets it go on."""

    def __init__(self, tegum, folder, half):
        self.tegum, self.out, self.bad = tegum, os.path.join(folder, "out"), []
        self.start, self.codes = None, collections.Counter()
        whole = os.path.join(folder, "whole")
        subprocess.run(started(tegum, whole), check=True, **QUIET)
        self.expected = logical_hash(tegum, whole)
        if half:
            parts = sorted(pathlib.Path(whole, "parts").rglob("*.parquet"))
            for part in parts[::2]:
                part.unlink()
            part = parts[1]
            part.write_bytes(part.read_bytes()[:-1])
            shutil.rmtree(os.path.join(whole, "collected"))
            self.start = whole

    def begin(self):
        remove(self.out)
        if self.start:
            shutil.copytree(self.start, self.out)

    def look(self, label, code):
        self.codes[code] += 1
        if code in CRASHES:
            self.bad.append(f"{label}: exit {code}")
        # What was damaged before may have been left where it was.
        wrong = None if self.start else damage(self.tegum, self.out)
        if wrong:
            self.bad.append(f"{label}: {wrong}")
        again = subprocess.run(started(self.tegum, self.out), capture_output=True, text=True)
        if again.returncode:
            self.bad.append(f"{label}: the same command exits {again.returncode}: {again.stderr.strip()[-200:]}")
        found = logical_hash(self.tegum, self.out)
        wrong = damage(self.tegum, self.out)
        if found != self.expected or wrong:
            self.bad.append(f"{label}: {found}, expected {self.expected}; {wrong}")


def struck(judge, trace, point, what):
    """A run with a fault at one call; whether the call came."""
    kind, number = point
    judge.begin()
    inject = f"inject={kind}:{what}:when={number}"
    strace = ["strace", "-qq", "-o", trace, "-e", f"trace={kind}", "-e", inject]
    code = subprocess.run(strace + started(judge.tegum, judge.out), **QUIET).returncode
    text = pathlib.Path(trace).read_text(errors="replace")
    if "INJECTED" not in text and "killed by SIGKILL" not in text:
        return False
    judge.look(f"{kind} {number} {what}", code)
    return True


def sweep(judge, trace, points, kind, what):
    """Faults at each chosen call of a kind; how many came."""
    before, begun = len(judge.bad), time.time()
    judge.codes.clear()
    chosen = [point for point in points.taken if point[0] == kind]
    count = sum(struck(judge, trace, point, what) for point in chosen)
    if chosen:
        codes = ", ".join(f"{code}: {n}" for code, n in sorted(judge.codes.items()))
        wrong = len(judge.bad) - before
        print(f"{what} at {count} calls of {kind}: exit codes {codes}; {wrong} wrong, {time.time() - begun:.0f} s", flush=True)
    return count


def main():
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("tegum")
    options.add_argument("--every", type=int, default=1)
    options.add_argument("--alike", type=int, default=6)
    options.add_argument("--kinds", default=",".join(CHANGES + LOOKS))
    options.add_argument("--only", choices=["kills", "errors"])
    options.add_argument("--begun", choices=["half"])
    options = options.parse_args()
    begun = time.time()
    with scratch() as folder:
        judge, trace = Judge(options.tegum, folder, options.begun), os.path.join(folder, "trace")
        points = Points(judge, trace, options)
        print(f"{points.calls} file calls in the run directory, {len(points.taken)} of them taken", flush=True)
        kills = faults = 0
        if options.only != "errors":
            kills = sum(sweep(judge, trace, points, kind, "signal=KILL") for kind in CHANGES + LOOKS)
        if options.only != "kills":
            for kind, errors in ERRORS.items():
                faults += sum(sweep(judge, trace, points, kind, f"error={error}") for error in errors)
    for line in judge.bad[:20]:
        print(line)
    print(f"{kills} kills, {faults} errors, {len(judge.bad)} wrong, {time.time() - begun:.0f} s")
    sys.exit(1 if judge.bad or kills + faults == 0 else 0)


if __name__ == "__main__":
    main()
