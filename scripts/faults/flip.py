#!/usr/bin/env python3
"""Change every byte of a run directory, one at a time in each file, and see whether `tegum verify` finds all of them.

usage: scripts/faults/flip.py TEGUM [--every 1]

The n-th byte of every file is changed at once, n = 0, 1, ..; `verify` must list each of those files. One that it does not list is
tried again alone, since damage may hide other damage. Bytes of rows, side tables, weights, plans and what was collected count;
spec.yaml and provenance are for people.
"""

import argparse
import os
import re
import subprocess
import sys
import time

from common import HERE, QUIET, command, files_below, scratch

COUNTED = re.compile(r"(parts|features|trace|weights|collected)/|plan-|current-plan")


def listed(tegum, out, env):
    """What verify says, and whether it found something."""
    found = subprocess.run([tegum, "verify", out], capture_output=True, text=True, env=env)
    return found.stdout + found.stderr if found.returncode == 6 else ""


def changed(content, at):
    """With one bit of the byte turned: which one depends on the place."""
    return content[:at] + bytes([content[at] ^ 1 << at % 8]) + content[at + 1 :]


def missed(tegum, out, files, at, env):
    """Files that have a changed byte and are not listed."""
    hit = {path: content for path, content in files.items() if at < len(content)}
    for path, content in hit.items():
        path.write_bytes(changed(content, at))
    text = listed(tegum, out, env)
    suspects = [path for path in hit if path.name not in text]
    for path, content in hit.items():
        path.write_bytes(content)
    if len(hit) > 1:
        suspects = [path for path in suspects if missed(tegum, out, {path: hit[path]}, at, env)]
    return suspects


def flip(tegum, folder, every, env=None):
    """Changed bytes, and those that were not found as (file, position)."""
    out = os.path.join(folder, "run")
    subprocess.run(command(tegum, out, "--no-supervisor", spec=HERE / "one.yaml"), check=True, env=env, **QUIET)
    files = {path: path.read_bytes() for path in files_below(out) if COUNTED.match(os.path.relpath(path, out))}
    count, unseen = 0, []
    for at in range(0, max(map(len, files.values())), every):
        count += sum(at < len(content) for content in files.values())
        unseen += [(os.path.relpath(path, out), at) for path in missed(tegum, out, files, at, env)]
    return files, count, unseen


def main():
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("tegum")
    options.add_argument("--every", type=int, default=1)
    options = options.parse_args()
    begun = time.time()
    with scratch() as folder:
        files, count, unseen = flip(options.tegum, folder, options.every)
    for name, at in unseen[:20]:
        print(f"byte {at} of {name}: its change is not found")
    print(f"{len(files)} files, {count} changed bytes, {len(unseen)} not found, {time.time() - begun:.0f} s")
    sys.exit(1 if unseen or not count else 0)


if __name__ == "__main__":
    main()
