#!/usr/bin/env python3
"""Remove each barrier of the CUDA kernels in turn, and see the emulated tests fail without it. A long check, run by hand.

usage: scripts/mutate_barriers.py [--list | --sanitize] [--only FILE[:LINE]]... [--binary TESTS]

Every `__syncthreads();` and `__syncwarp();` of src/backend/cuda/kernels is a mutant; those that return a count or a vote are not.
The test program is built once, or named by --binary, and compiles a copy of the kernels (TEGUM_EMULATED_KERNELS) for each mutant:
those of its group alone, whose tests have to notice. A test that fails, a crash and a hang all count.

A barrier that the hardware needs and fibers do not is marked in its line, with the reason: `// fibers cannot miss this: ..`.
Those are tried as well, and one that is caught after all is wrong about itself. Fails if a barrier is neither caught nor marked.

--sanitize leaves the kernels as they are and runs all groups under address and undefined-behaviour checks: arrays read past their
end, 16-byte accesses that are not aligned. It wants the compiler's libasan.so.
"""

import argparse
import dataclasses
import json
import os
import pathlib
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time

ROOT = pathlib.Path(__file__).resolve().parent.parent
KERNELS = ROOT / "src/backend/cuda/kernels"
BARRIER = re.compile(r"\b__sync(?:threads|warp)\(\);")
MARK = re.compile(r"// fibers cannot miss this: (.*)")
# A mutant may take as often as long as its group does unharmed: the machine may be busy with other work.
PATIENCE = 5
# A fiber's stack is used again without being unwound, which checks of the stack would report.
SANITIZERS = "-O1 -g -fsanitize=address,undefined -fno-sanitize-recover=undefined --param asan-stack=0"


@dataclasses.dataclass
class Group:
    """Kernels, by how their files begin, and the tests that have to notice; `also`: what else those run."""

    files: tuple
    tests: tuple
    also: tuple = ()
    seconds: float = 0.0  # unharmed


GROUPS = [
    Group(("probe",), ("cuda::device",)),
    Group(("draw", "linked", "hidden", "variate"), ("cuda::draw", "cuda::hidden")),
    Group(("toy",), ("cuda::toy",)),
    Group(("sae",), ("cuda::sae",), also=("draw", "hidden")),
]


@dataclasses.dataclass
class Barrier:
    """A line of a file that holds one."""

    file: str
    line: int
    reason: str  # why it is marked; empty if it is not

    def __str__(self):
        return f"{self.file}:{self.line}"

    def groups(self):
        """Whose tests have to notice; what all kernels share is for all."""
        return [group for group in GROUPS if self.file.startswith(group.files)] or GROUPS


def barriers():
    """All of them, in the order of files and lines."""
    found = []
    for path in sorted(KERNELS.glob("*.cu*")):
        for number, text in enumerate(path.read_text().splitlines(), 1):
            code = text.split("//")[0]
            if BARRIER.search(code):
                assert len(BARRIER.findall(code)) == 1, f"{path.name}:{number}: one barrier a line"
                mark = MARK.search(text)
                found.append(Barrier(path.name, number, mark.group(1) if mark else ""))
    return found


def built():
    """The test program of the library."""
    command = ["cargo", "test", "--release", "--lib", "--no-run", "--message-format=json"]
    done = subprocess.run(command, cwd=ROOT, stdout=subprocess.PIPE, text=True, check=True)
    messages = [json.loads(line) for line in done.stdout.splitlines()]
    return next(m["executable"] for m in messages if m.get("executable") and m["profile"]["test"])


def copied(group, to):
    """A folder of kernels in which all.cu is the group's."""
    shutil.rmtree(to, ignore_errors=True)
    to.mkdir()
    for path in KERNELS.glob("*.*"):
        shutil.copy(path, to)
    lines = (KERNELS / "all.cu").read_text().splitlines()
    wanted = tuple(f'#include "{name}' for name in group.files + group.also)
    (to / "all.cu").write_text("".join(f"{line}\n" for line in lines if line.startswith(wanted)))


def tried(binary, group, kernels, scratch, limit, **more):
    """Runs the group's tests up to the first that fails: what happened, or None if all pass, and the output."""
    environment = os.environ | {"TEGUM_EMULATED_KERNELS": str(kernels), "TMPDIR": str(scratch)} | more
    log = scratch / "output"
    with log.open("w") as out:
        command = [binary, *group.tests]
        tests = subprocess.Popen(command, cwd=ROOT, env=environment, stdout=out, stderr=out, start_new_session=True)
        end, failed = time.monotonic() + limit, None
        while tests.poll() is None and not failed and time.monotonic() < end:
            time.sleep(0.1)
            failed = re.search(r"^test (\S+) \.\.\. FAILED", log.read_text(errors="replace"), re.M)
        hangs = tests.poll() is None and not failed
        if tests.poll() is None:
            os.killpg(tests.pid, signal.SIGKILL)
        code = tests.wait()
    text = log.read_text(errors="replace")
    failed = re.search(r"^test (\S+) \.\.\. FAILED", text, re.M)
    what = failed.group(1).split("::")[-1] if failed else "hangs" if hangs else None
    if not what and code:
        said = re.search(r"^emulated kernel: (.*)", text, re.M)
        what = f"stops: {said.group(1)}" if said else f"exit {code}"
    return what, text


def measured(binary, groups, scratch):
    """Sets how long the groups take; ends the program if they fail as they are, or pass without kernels."""
    folder = scratch / "kernels"
    for group in groups:
        copied(group, folder)
        start = time.monotonic()
        what, text = tried(binary, group, folder, scratch, 3600)
        if what:
            sys.exit(f"{text}\n{' '.join(group.tests)} fails with every barrier in its place: {what}")
        group.seconds = time.monotonic() - start
        print(f"unharmed {' '.join(group.tests)}: {group.seconds:.0f} s", flush=True)
        (folder / "all.cu").write_text('#error "no kernels"\n')
        if not tried(binary, group, folder, scratch, 3600)[0]:
            sys.exit(f"{' '.join(group.tests)} passes without kernels: is there a C++ compiler?")


def mutated(barrier, to):
    """Takes the barrier out of a copy."""
    path = to / barrier.file
    lines = path.read_text().splitlines()
    lines[barrier.line - 1] = BARRIER.sub(";", lines[barrier.line - 1])
    path.write_text("\n".join(lines) + "\n")


def check(binary, barrier, scratch):
    """What catches a barrier's absence, or None."""
    folder = scratch / "kernels"
    for group in barrier.groups():
        copied(group, folder)
        mutated(barrier, folder)
        what, text = tried(binary, group, folder, scratch, 30 + PATIENCE * group.seconds)
        if "error: " in text and "all.cu" in text:
            sys.exit(f"{text}\n{barrier}: what is left does not compile")
        if what:
            return what
    return None


def run(binary, chosen):
    """Tries them all and prints what came of it; how many are not as they should be."""
    start, survivors, boasts, exempt = time.monotonic(), [], [], []
    with tempfile.TemporaryDirectory(prefix="tegum-mutate") as name:
        scratch = pathlib.Path(name)
        measured(binary, [g for g in GROUPS if any(g in barrier.groups() for barrier in chosen)], scratch)
        for barrier in chosen:
            began = time.monotonic()
            what = check(binary, barrier, scratch)
            kind = "caught" if what else "marked" if barrier.reason else "SURVIVES"
            print(f"{kind:<9}{barrier!s:<24}{time.monotonic() - began:>5.0f} s  {what or barrier.reason}", flush=True)
            if barrier.reason:
                (boasts if what else exempt).append(barrier)
            elif not what:
                survivors.append(barrier)
    caught = len(chosen) - len(survivors) - len(exempt)
    minutes = (time.monotonic() - start) / 60
    print(f"{len(chosen)} barriers: {caught} caught, {len(exempt)} marked, {len(survivors)} survive; {minutes:.0f} minutes")
    for barrier in exempt:
        print(f"  marked: {barrier}: {barrier.reason}")
    for barrier in boasts:
        print(f"  marked, but caught: {barrier}: take the mark away")
    for barrier in survivors:
        print(f"  survives: {barrier}: not needed, not tested, or not marked")
    return len(survivors) + len(boasts)


def sanitize(binary):
    """Runs every group with the compiler's checks; how many fail."""
    compiler, failed = os.environ.get("CXX", "c++"), 0
    # The test program is not made with them, so their run-time library has to be there before it.
    library = subprocess.check_output([compiler, "-print-file-name=libasan.so"], text=True).strip()
    if not os.path.isabs(library):
        sys.exit(f"{compiler} has no libasan.so")
    more = {"TEGUM_EMULATED_FLAGS": SANITIZERS, "LD_PRELOAD": library, "ASAN_OPTIONS": "detect_leaks=0"}
    with tempfile.TemporaryDirectory(prefix="tegum-sanitize") as name:
        scratch = pathlib.Path(name)
        for group in GROUPS:
            copied(group, scratch / "kernels")
            began = time.monotonic()
            what, text = tried(binary, group, scratch / "kernels", scratch, 3600, **more)
            failed += what is not None
            print(text if what else "", end="")
            print(f"{' '.join(group.tests)}: {what or 'clean'}, {time.monotonic() - began:.0f} s", flush=True)
    return failed


def main():
    """Reads the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--list", action="store_true")
    parser.add_argument("--sanitize", action="store_true")
    parser.add_argument("--only", action="append", metavar="FILE[:LINE]")
    parser.add_argument("--binary")
    arguments = parser.parse_args()
    found = barriers()
    chosen = [b for b in found if not arguments.only or {b.file, str(b)} & set(arguments.only)]
    for name in arguments.only or []:
        if not any(name in (b.file, str(b)) for b in chosen):
            sys.exit(f"{name} is no file with a barrier and no barrier")
    if arguments.list:
        for barrier in chosen:
            print(f"{barrier!s:<24}{barrier.reason}".rstrip())
        return
    binary = arguments.binary or built()
    sys.exit(1 if (sanitize(binary) if arguments.sanitize else run(binary, chosen)) else 0)


main()
