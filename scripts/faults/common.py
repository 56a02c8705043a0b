"""What the fault scripts share: runs of one experiment, and the judgement of what they leave."""

import contextlib
import os
import pathlib
import re
import shutil
import subprocess
import tempfile

HERE = pathlib.Path(__file__).parent
TINY = HERE / "tiny.yaml"
SMALL = HERE / "small.yaml"
QUIET = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}


def scratch():
    """A temporary folder in memory where there is such a place: a SIGKILL does not tell it from a disk, and runs are faster."""
    memory = "/dev/shm"
    return tempfile.TemporaryDirectory(dir=memory if os.access(memory, os.W_OK) else None)


def command(tegum, out, *more, spec=TINY, threads=1):
    """One run of an experiment, every stem a chunk of its own."""
    plain = ["--chunk-seconds", "0", "--threads", threads, "--backend", "cpu", "--disk-wait", "0"]
    return [str(part) for part in [tegum, "run", spec, "--out", out, *plain, *more]]


def logical_hash(tegum, out):
    """The number of rows and their hash, or what is wrong."""
    found = subprocess.run([tegum, "collect", out], capture_output=True, text=True)
    told = re.search(r"(\d+ rows, hash [0-9a-f]+)", found.stdout)
    return told.group(1) if found.returncode == 0 and told else f"exit {found.returncode}: {found.stderr.strip()[-300:]}"


def damage(tegum, out):
    """What verify finds; none where all is sound, or where nothing was begun."""
    if not os.path.isdir(os.path.join(out, "parts")):
        return None
    found = subprocess.run([tegum, "verify", out], capture_output=True, text=True)
    return None if found.returncode == 0 else f"exit {found.returncode}: {(found.stdout + found.stderr).strip()[-300:]}"


def files_below(out):
    """Every plain file of a run directory, sorted."""
    return sorted(path for path in pathlib.Path(out).rglob("*") if path.is_file())


def remove(out):
    with contextlib.suppress(FileNotFoundError):
        shutil.rmtree(out)
