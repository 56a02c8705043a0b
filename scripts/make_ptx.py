#!/usr/bin/env python3
"""Compile the CUDA kernels without CUDA: make the PTX that the binary carries, or report what a chip would have to run.

usage: scripts/make_ptx.py [--check] [--report] [--nvrtc LIBRARY]

Without options every src/backend/cuda/kernels/*.cu is compiled to kernels/ptx/*.ptx.gz for compute capability 7.5, or for the one that
ARCHITECTURES names where its instructions are newer. That wants NVRTC 11.8.89, whose PTX drivers from 520 on accept:
`pip install nvidia-cuda-nvrtc-cu11==11.8.89`, found under this Python's site-packages, or named by --nvrtc. --check compares instead of writing and fails where a file is not what its source gives.

--report compiles for sm_80 and sm_90 with any NVRTC (`pip install nvidia-cuda-nvrtc==13.0.88`) and prints registers, static shared
memory and spills of every kernel; it fails on a spill or a stack.
"""

import argparse
import ctypes
import glob
import gzip
import os
import pathlib
import re
import sys

KERNELS = pathlib.Path(__file__).resolve().parent.parent / "src/backend/cuda/kernels"
WANTED = (11, 8)
ARCHITECTURES = {"sae_encode_tf32": "compute_80"}
OPTIONS = ["--std=c++17", "-fmad=false", f"-I{KERNELS}"]


class Nvrtc:
    """The compiler's library."""

    def __init__(self, path):
        self.library = ctypes.CDLL(path)
        major, minor = ctypes.c_int(), ctypes.c_int()
        self.library.nvrtcVersion(ctypes.byref(major), ctypes.byref(minor))
        self.version = (major.value, minor.value)

    def text(self, program, what):
        """One of the texts or images of a program, as bytes."""
        size = ctypes.c_size_t()
        getattr(self.library, f"nvrtcGet{what}Size")(program, ctypes.byref(size))
        buffer = ctypes.create_string_buffer(size.value)
        getattr(self.library, f"nvrtcGet{what}")(program, buffer)
        return buffer.raw.rstrip(b"\0")

    def compile(self, path, options):
        """The program and the compiler's log."""
        program = ctypes.c_void_p()
        self.library.nvrtcCreateProgram(ctypes.byref(program), path.read_bytes(), path.name.encode(), 0, None, None)
        arguments = [option.encode() for option in options]
        failed = self.library.nvrtcCompileProgram(program, len(arguments), (ctypes.c_char_p * len(arguments))(*arguments))
        log = self.text(program, "ProgramLog").decode()
        if failed:
            sys.exit(f"{path.name}:\n{log}")
        return program, log


def find(version):
    """The library of a version, or of any if none is named."""
    names = []
    for packages in sys.path:
        names += sorted(glob.glob(os.path.join(packages, "nvidia/*/lib/libnvrtc.so.*")), reverse=True)
    for name in names + ["libnvrtc.so.11.2", "libnvrtc.so.12", "libnvrtc.so.13", "libnvrtc.so"]:
        # It looks its builtins up by name alone: load them by path first.
        for builtins in glob.glob(os.path.join(os.path.dirname(name), "libnvrtc-builtins.so*")) if "/" in name else []:
            ctypes.CDLL(builtins, ctypes.RTLD_GLOBAL)
        try:
            found = Nvrtc(name)
        except OSError:
            continue
        if version is None or found.version == version:
            return found
    wanted = "nvidia-cuda-nvrtc-cu11==11.8.89" if version == WANTED else "nvidia-cuda-nvrtc==13.0.88"
    sys.exit(f"no fitting NVRTC was found: pip install {wanted}")


def sources():
    """Every file of kernels but the one that includes all of them and those of tests."""
    return [path for path in sorted(KERNELS.glob("*.cu")) if path.name != "all.cu" and not path.stem.endswith("probe")]


def ptx(nvrtc, path):
    """PTX without the lines that name the compiler's build."""
    architecture = ARCHITECTURES.get(path.stem, "compute_75")
    program, _ = nvrtc.compile(path, OPTIONS + [f"--gpu-architecture={architecture}"])
    lines = [line.rstrip() for line in nvrtc.text(program, "PTX").decode().splitlines()]
    return "\n".join(line for line in lines if line and not line.startswith("//")) + "\n"


def make(nvrtc, check):
    """Writes or compares; how many files differ."""
    if nvrtc.version != WANTED:
        sys.exit(f"this is NVRTC {nvrtc.version}, and only the PTX of {WANTED} is accepted by old drivers")
    different = 0
    (KERNELS / "ptx").mkdir(exist_ok=True)
    for path in sources():
        to, text = KERNELS / "ptx" / f"{path.stem}.ptx.gz", ptx(nvrtc, path).encode()
        same = to.exists() and gzip.decompress(to.read_bytes()) == text
        if not same and check:
            print(f"{to.name} is not what {path.name} gives: run scripts/make_ptx.py")
            different += 1
        elif not same:
            packed = gzip.compress(text, 9, mtime=0)
            to.write_bytes(packed)
            print(f"wrote {to.name}, {len(text)} bytes in {len(packed)}")
    return different


def report(nvrtc):
    """What each kernel takes; how many spill."""
    bad = 0
    print(f"NVRTC {nvrtc.version[0]}.{nvrtc.version[1]}")
    for arch in ["sm_80", "sm_90"]:
        print(f"{arch:<8}{'kernel':<32}{'registers':>10}{'shared':>8}{'spill':>7}{'stack':>7}")
        for path in sources():
            _, log = nvrtc.compile(path, OPTIONS + [f"--gpu-architecture={arch}", "--ptxas-options=-v"])
            pattern = (r"Compiling entry function '(\w+)'.*?(\d+) bytes stack frame, (\d+) bytes spill stores, "
                       r"(\d+) bytes spill loads.*?Used (\d+) registers(.*?)\n")
            for kernel, stack, stores, loads, registers, rest in re.findall(pattern, log + "\n", re.S):
                shared = re.search(r"(\d+) bytes smem", rest)
                spill = int(stores) + int(loads)
                bad += spill > 0 or int(stack) > 0
                print(f"        {kernel:<32}{registers:>10}{shared.group(1) if shared else 0:>8}{spill:>7}{stack:>7}")
    print(f"{bad} kernels spill or use a stack" if bad else "no spills, no stack")
    return bad


def main():
    """Reads the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--check", action="store_true")
    parser.add_argument("--report", action="store_true")
    parser.add_argument("--nvrtc")
    arguments = parser.parse_args()
    wanted = None if arguments.report else WANTED
    nvrtc = Nvrtc(arguments.nvrtc) if arguments.nvrtc else find(wanted)
    bad = report(nvrtc) if arguments.report else make(nvrtc, arguments.check)
    sys.exit(1 if bad else 0)


main()
