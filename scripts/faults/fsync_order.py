#!/usr/bin/env python3
"""Check in a trace of all file calls that a run puts bytes and names on disk in an order that a power cut cannot spoil.

usage: scripts/faults/fsync_order.py TEGUM [--threads 1]

A SIGKILL cannot see a missing fsync, since what was written stays in memory; this can. The rules, for everything in the run directory:

    bytes    a file gets a name by link or rename only after an fsync that came after the last of its writes
    aside    only temporary files are opened for writing, and none of them after it has got its name
    names    when a run reports a chunk as published, the directory of each of its files was fsynced after the file got its
             name, and so was every directory above after the one below was made
    order    side tables and weights of a chunk are on disk, names included, before its rows get their name
"""

import argparse
import os
import pathlib
import re
import subprocess
import sys

from common import QUIET, command, scratch

CALLS = "openat,write,fsync,fdatasync,link,linkat,rename,renameat,renameat2,mkdir,mkdirat,unlink,unlinkat"
LINE = re.compile(r"^(\d+) +(?:<\.\.\. (\w+) resumed>)?(.*)$")
CALL = re.compile(r"^(\w+)\((.*)\) += (-?\d+|\?)")
QUOTED = re.compile(r'"((?:[^"\\]|\\.)*)"')
OPENED = re.compile(r"^(\d+)<([^>]*)>")
CHUNK = re.compile(r"/c(\d{8})-[^/]*$")
PUBLISHED = re.compile(r'"event":"published".*?"chunk":(\d+)')


def calls(trace):
    """Each call that succeeded, as (name, arguments), in the order of their ends."""
    begun = {}
    with open(trace, errors="replace") as lines:
        for line in lines:
            thread, resumed, rest = LINE.match(line).groups()
            if rest.endswith("<unfinished ...>"):
                begun[thread] = rest.removesuffix("<unfinished ...>")
                continue
            call = CALL.match(begun.pop(thread, "") + rest.rstrip() if resumed else rest.strip())
            if call and call[3] not in ("-1", "?"):
                yield call[1], call[2]


class Checker:
    def __init__(self, out):
        self.out = out
        # Files with bytes that are not on disk; those whose bytes are; names that are not.
        self.dirty, self.synced, self.loose = set(), set(), {}
        self.named, self.published, self.wrong = [], 0, []
        self.line = ""

    def is_ours(self, path):
        return path == self.out or path.startswith(self.out + "/")

    def say(self, rule, what):
        self.wrong.append(f"{rule}: {what.replace(self.out, 'RUN')}")

    def call(self, name, rest):
        paths, opened = QUOTED.findall(rest), OPENED.match(rest)
        if name == "openat" and paths and self.is_ours(paths[0]):
            self.open(paths[0], rest)
        elif name == "write" and opened and self.is_ours(opened[2]):
            self.dirty.add(opened[2])
            self.synced.discard(opened[2])
        elif name == "write" and opened and opened[1] == "2":
            self.hear(paths[0] if paths else "")
        elif name in ("fsync", "fdatasync") and opened:
            self.sync(opened[2])
        elif name.startswith("mkdir") and paths and self.is_ours(paths[0]):
            self.loose[paths[0]] = os.path.dirname(paths[0])
        elif name.startswith(("link", "rename")) and len(paths) == 2 and self.is_ours(paths[1]):
            self.name(*paths)
        elif name.startswith("unlink") and paths:
            self.dirty.discard(paths[0])
            self.synced.discard(paths[0])

    def open(self, path, rest):
        if re.search(r"O_WRONLY|O_RDWR|O_TRUNC", rest) and not os.path.basename(path).startswith((".tmp-", ".writer-")):
            self.say("aside", f"{path} is written where it stands")

    def sync(self, path):
        self.dirty.discard(path)
        self.synced.add(path)
        self.loose = {name: folder for name, folder in self.loose.items() if folder != path}

    def name(self, source, target):
        self.named.append(target)
        if source in self.dirty or source not in self.synced:
            self.say("bytes", f"{target} gets its name before its bytes are on disk")
        # Who wrote which part is advice, of which nothing depends.
        if not os.path.basename(target).startswith(".writer-"):
            self.loose[target] = os.path.dirname(target)
        chunk = CHUNK.search(target)
        if chunk and os.path.dirname(os.path.dirname(target)).endswith("/parts"):
            for other in self.not_on_disk(int(chunk[1])):
                if other != target:
                    self.say("order", f"{target} gets its name while that of {other} is not on disk")

    def not_on_disk(self, chunk):
        """Names on the way to the files of a chunk that a power cut could take."""
        files = [path for path in self.named if (found := CHUNK.search(path)) and int(found[1]) == chunk]
        on_the_way = {str(above) for path in files for above in [path, *pathlib.PurePath(path).parents]}
        return sorted(on_the_way & self.loose.keys())

    def hear(self, text):
        """What the run writes to stderr, in pieces or by the line."""
        *lines, self.line = (self.line + text.replace('\\"', '"')).split("\\n")
        for chunk in (chunk for line in lines for chunk in PUBLISHED.findall(line)):
            self.report(int(chunk))

    def report(self, chunk):
        self.published += 1
        for path in self.not_on_disk(chunk):
            self.say("names", f"chunk {chunk} is reported while the name of {path} is not on disk")


def checked(tegum, folder, threads=1, env=None):
    """Traces a new run and checks its calls."""
    out, trace = os.path.join(folder, "out"), os.path.join(folder, "trace")
    run = command(tegum, out, "--no-supervisor", "--json-progress", threads=threads)
    strace = ["strace", "-f", "-qq", "-y", "-s", "4096", "-o", trace, "-e", "signal=none", "-e", f"trace={CALLS}"]
    subprocess.run(strace + run, check=True, env=env, **QUIET)
    checker = Checker(out)
    for name, rest in calls(trace):
        checker.call(name, rest)
    return checker


def main():
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("tegum")
    options.add_argument("--threads", type=int, default=1)
    options = options.parse_args()
    with scratch() as folder:
        checker = checked(options.tegum, folder, options.threads)
    for line in checker.wrong[:20]:
        print(line)
    print(f"{len(checker.named)} files got their names, {checker.published} chunks reported, {len(checker.wrong)} violations")
    sys.exit(1 if checker.wrong or not checker.published or not checker.named else 0)


if __name__ == "__main__":
    main()
