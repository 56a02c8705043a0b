"""What the fault scripts share: runs of one experiment, and the judgement of what they leave."""

import os
import pathlib
import re
import subprocess

TINY = pathlib.Path(__file__).parent / "tiny.yaml"
QUIET = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}


def command(tegum, out, *more):
    """One run of the tiny experiment, every stem a chunk of its own."""
    return [tegum, "--quiet", "run", TINY, "--out", out, "--chunk-seconds", "0", "--threads", "1", "--backend", "cpu", "--disk-wait", "0", *more]


def logical_hash(tegum, out):
    """The hash of all rows, or what is wrong."""
    found = subprocess.run([tegum, "collect", out], capture_output=True, text=True)
    told = re.search(r"rows, hash ([0-9a-f]+)", found.stdout)
    return told.group(1) if found.returncode == 0 and told else f"exit {found.returncode}: {found.stderr.strip()[-300:]}"


def damage(tegum, out):
    """What verify finds; none where all is sound, or where nothing was begun."""
    if not os.path.isdir(os.path.join(out, "parts")):
        return None
    found = subprocess.run([tegum, "verify", out], capture_output=True, text=True)
    return None if found.returncode == 0 else f"exit {found.returncode}: {(found.stdout + found.stderr).strip()[-300:]}"
