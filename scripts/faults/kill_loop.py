#!/usr/bin/env python3
"""Kill runs with SIGKILL again and again, several at once on one directory, and compare what they end in with an undisturbed run.

usage: scripts/faults/kill_loop.py TEGUM [--kills 1000] [--processes 3] [--seed 1]

A run is two processes, a supervisor and its worker. Each round starts several runs and strikes one to four times, at random moments:
one run or all of them lose the supervisor, the worker, or both. What must be so:

- a run ends with 0. It may end with 137 if its workers were killed three times (they died before they had computed anything), and with
  4 in the same case (they died three times computing one and the same cell, which is then left out);
- a run whose supervisor was killed leaves no worker behind;
- `verify` finds nothing damaged;
- a run that ended with 0 has left the rows of the undisturbed one: none lost, none twice. The directory is then emptied, so that
  kills hit runs with work left.
"""

import argparse
import collections
import contextlib
import ctypes
import os
import random
import signal
import subprocess
import sys
import time

from common import QUIET, command, damage, logical_hash, remove, scratch

CHILD_SUBREAPER = 36
# Deaths of workers in one run before it may give up on a cell, or on all.
ENOUGH = 3
PATIENCE = 60


class Run:
    """A supervisor and its worker, in a process group of their own."""

    def __init__(self, tegum, out):
        self.process = subprocess.Popen(command(tegum, out), start_new_session=True, **QUIET)
        self.worker_kills, self.killed = 0, False

    def worker(self):
        """The process that the supervisor has started; none at its very start and its very end."""
        pid = self.process.pid
        with contextlib.suppress(OSError, IndexError), open(f"/proc/{pid}/task/{pid}/children") as children:
            return int(children.read().split()[0])
        return None

    def strike(self, whom):
        """Kills; how many processes."""
        kills = 0
        if self.process.poll() is not None:
            return kills
        worker = None if whom == "supervisor" else self.worker()
        if worker:
            with contextlib.suppress(ProcessLookupError):
                os.kill(worker, signal.SIGKILL)
                self.worker_kills += 1
                kills += 1
        if whom != "worker":
            self.process.kill()
            self.killed = True
            kills += 1
        return kills

    def end(self):
        """Waits for both; what is wrong with the way they ended, if anything."""
        try:
            code = self.process.wait(PATIENCE)
        except subprocess.TimeoutExpired:
            os.killpg(self.process.pid, signal.SIGKILL)
            return f"a run did not end within {PATIENCE} s"
        # An orphan comes to this process, the nearest reaper of children.
        until = time.time() + PATIENCE
        while True:
            try:
                if os.waitpid(-self.process.pid, os.WNOHANG)[0] == 0:
                    time.sleep(0.001)
            except ChildProcessError:
                break
            if time.time() > until:
                return f"a worker outlived its supervisor by {PATIENCE} s"
        gave_up = code in (4, 128 + signal.SIGKILL) and self.worker_kills >= ENOUGH
        right = code == 0 or gave_up or (self.killed and code == -signal.SIGKILL)
        return None if right else f"exit {code} after {self.worker_kills} kills of workers"


def disturb(runs, span):
    """Strikes while the runs go on; how many processes were killed, by whom it hit."""
    kills = collections.Counter()
    for _ in range(random.choice([1, 1, 2, 4])):
        time.sleep(random.random() * span)
        for run in runs if random.random() < 0.4 else [random.choice(runs)]:
            whom = random.choice(["supervisor", "worker", "worker", "both"])
            kills[whom] += run.strike(whom)
    return kills


class Loop:
    def __init__(self, options, folder):
        self.tegum, self.processes = options.tegum, options.processes
        self.out = os.path.join(folder, "killed")
        self.bad, self.codes, self.kills, self.finished = [], collections.Counter(), collections.Counter(), 0
        begun = time.time()
        runs = [Run(self.tegum, self.out) for _ in range(self.processes)]
        self.bad += filter(None, [run.end() for run in runs])
        self.span = time.time() - begun
        self.expected = logical_hash(self.tegum, self.out)
        alone = os.path.join(folder, "alone")
        subprocess.run(command(self.tegum, alone), check=True, **QUIET)
        self.compare(logical_hash(self.tegum, alone), "of one process")
        remove(self.out)

    def compare(self, found, where):
        if found != self.expected or " rows, hash" not in found:
            self.bad.append(f"rows {where}: {found}, expected {self.expected}")

    def look(self):
        self.bad += filter(None, [damage(self.tegum, self.out)])

    def round(self):
        runs = [Run(self.tegum, self.out) for _ in range(self.processes)]
        self.kills += disturb(runs, self.span)
        self.bad += filter(None, [run.end() for run in runs])
        codes = [run.process.returncode for run in runs]
        self.codes.update(codes)
        self.look()
        if 0 in codes:
            self.finished += 1
            self.compare(logical_hash(self.tegum, self.out), "of a sweep that came to its end")
            remove(self.out)

    def last(self):
        subprocess.run(command(self.tegum, self.out), check=True, **QUIET)
        self.compare(logical_hash(self.tegum, self.out), "at the end")
        self.look()


def main():
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("tegum")
    options.add_argument("--kills", type=int, default=1000)
    options.add_argument("--processes", type=int, default=3)
    options.add_argument("--seed", type=int, default=1)
    options = options.parse_args()
    random.seed(options.seed)
    ctypes.CDLL(None).prctl(CHILD_SUBREAPER, 1, 0, 0, 0)
    begun = time.time()
    with scratch() as folder:
        loop = Loop(options, folder)
        told = 0
        while loop.kills.total() < options.kills:
            loop.round()
            if loop.kills.total() >= told + 100:
                told = loop.kills.total()
                print(f"{told} kills, {loop.finished} sweeps, {len(loop.bad)} wrong, {time.time() - begun:.0f} s", flush=True)
        loop.last()
    for line in loop.bad[:20]:
        print(line)
    hit = ", ".join(f"{count} by way of {whom}" for whom, count in sorted(loop.kills.items()))
    codes = ", ".join(f"{code}: {count}" for code, count in sorted(loop.codes.items()))
    print(f"{loop.kills.total()} kills ({hit}); runs by exit code: {codes}")
    print(f"{loop.finished} sweeps came to their end, {len(loop.bad)} wrong, {time.time() - begun:.0f} s")
    sys.exit(1 if loop.bad else 0)


if __name__ == "__main__":
    main()
