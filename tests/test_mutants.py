"""Mutation: one line of the source is changed at a time, and a check that is named beside the change must find it.

`mutants.toml` lists the changes. A killer is ``bench BLOCK [network|bf16] [adam]``, the emitted self-checking bench in
Verilator; ``verify [network|bf16|fp8|int8]``, `weft verify` with its defaults; or a test. Each mutant is made in a copy
of the package. What a killer says of the copy without a change is checked beside it: a killer that fails anyway finds
nothing.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import tomllib
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import pytest

from weft.dataflow.operand import OPERAND_FORMATS
from weft.workloads.update_rule import SGD, UPDATE_RULES

from .hdl.verilating import Verilator

ROOT = Path(__file__).parents[1]
LEFT_OUT = (".git", ".venv", "out", "docs", "benchmarks", "examples", ".*_cache")
LIMIT = 300
"""Seconds after which a mutant that never ends counts as found: a loop that does not end is a failure too."""


@dataclass(frozen=True, kw_only=True)
class Mutant:
    """``old`` in ``file`` becomes ``new``; one of ``killer`` and ``survives``, the reason why nothing can find it."""

    file: str
    old: str
    new: str
    killer: str
    survives: str = ""

    @property
    def name(self) -> str:
        return f"{self.file}: {self.old.strip()[:40]}"


MUTANTS = [Mutant(**entry) for entry in tomllib.loads(Path(__file__).with_suffix(".toml").read_text())["mutant"]]
AREAS = (
    "hdl/",
    "simulator/kernels/",
    "simulator/machine/",
    "dataflow/macro_tiles.py",
    "dataflow/stce/",
    "dataflow/engine_time.py",
    "dataflow/program/",
    "workloads/update_rule.py",
)


def source(mutant: Mutant) -> str:
    """The changed file; the line that is changed must be there, once."""
    text = (ROOT / mutant.file).read_text()
    assert text.count(mutant.old) == 1, f"{mutant.old!r} is {text.count(mutant.old)} times in {mutant.file}"
    assert mutant.new != mutant.old
    return text.replace(mutant.old, mutant.new)


def test_every_mutant_is_one_line_that_is_there():
    for mutant in MUTANTS:
        assert "\n" not in mutant.old + mutant.new
        compile(source(mutant), mutant.file, "exec")
        if "::" in mutant.killer:
            path, *names = mutant.killer.split("::")
            # The test of a class may be that of a suite beside it.
            home = [ROOT / path] if len(names) == 1 else sorted((ROOT / path).parent.glob("*.py"))
            text = "\n".join(file.read_text() for file in home)
            for name in names:
                assert re.search(rf"^ *(def|class) {name.partition('[')[0]}[(:]", text, re.MULTILINE), mutant.killer
        else:
            assert mutant.killer.split()[0] in ("bench", "verify"), mutant.killer


def test_the_list_is_long_enough_and_covers_every_area():
    assert len(MUTANTS) >= 60
    assert all(any(mutant.file.startswith(area) for mutant in MUTANTS) for area in AREAS)


@pytest.fixture(scope="session")
def verilator(tmp_path_factory):
    return cache(lambda: Verilator(tmp_path_factory.mktemp("verilated")))


@pytest.fixture(scope="session")
def kept(tmp_path_factory):
    """A cache of its own: what is made of a mutant must not be found by anybody else."""
    return tmp_path_factory.mktemp("cache")


class Copy:
    """The package in ``folder``, one file of it changed."""

    def __init__(self, folder: Path, kept: Path, file: str = "", text: str = "") -> None:
        self.folder, self.root = folder, folder / "weft"
        shutil.copytree(ROOT, self.root, ignore=shutil.ignore_patterns(*LEFT_OUT))
        if file:
            (self.root / file).write_text(text)
        self._environment = os.environ | {"PYTHONPATH": str(folder), "WEFT_CACHE": str(kept)}
        if not file.startswith("hdl/"):
            # kernels as plain Python: compiling them anew takes longer than the few products that find a mutant
            self._environment |= {"NUMBA_DISABLE_JIT": "1"}

    def run(self, *arguments: str, **more: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, *arguments]
        return subprocess.run(
            command, cwd=self.folder, env=self._environment | more, capture_output=True, text=True, timeout=LIMIT
        )

    def machine(self, words: list[str]) -> str:
        """The arch ``tiny``, or a file of it with another SORE or format."""
        text = (ROOT / "dataflow" / "presets" / "tiny.toml").read_text()
        if "network" in words:
            text = text.replace('kind = "serial"', 'kind = "network"')
        for form in OPERAND_FORMATS.keys() & set(words):
            text = text.replace("add_latency = 4", f'add_latency = 4\nformat = "{form}"')
        (self.folder / "machine.toml").write_text(text)
        return "machine.toml"

    def passes(self, killer: str, verilator) -> bool:
        """Whether ``killer`` finds nothing; anything but a verdict is an error."""
        kind, *words = killer.split()
        try:
            if kind == "bench":
                return self._bench(words, verilator)
            if kind == "verify":
                done = self.run("-m", "weft", "verify", "--arch", self.machine(words))
            else:
                # NumPy warns of Inf and NaN where compiled kernels do not
                options = ("-q", "-x", "-p", "no:cacheprovider", "-p", "no:xdist", "-W", "ignore::RuntimeWarning")
                done = self.run("-m", "pytest", *options, f"weft/{killer}", WEFT_HYPOTHESIS="mutants")
        except subprocess.TimeoutExpired:
            return False
        assert done.returncode in (0, 1), done.stdout + done.stderr
        return done.returncode == 0

    def _bench(self, words: list[str], verilator) -> bool:
        block, rule = words[0], next((word for word in words if word in UPDATE_RULES), SGD.name)
        made = self.run(
            "-m", "weft", "verilog", "--arch", self.machine(words), "--block", block, "--optimizer", rule, "-o", "v"
        )
        assert made.returncode == 0, made.stdout + made.stderr
        verilator().build(self.folder / "v", block)
        done = verilator().run(self.folder / "v")
        assert f"PASS {block}" in done.stdout or f"FAIL {block}" in done.stdout, done.stdout + done.stderr
        return done.returncode == 0


@pytest.mark.slow
@pytest.mark.parametrize("killer", sorted({mutant.killer for mutant in MUTANTS}))
def test_nothing_is_found_where_nothing_is_changed(tmp_path, kept, verilator, killer):
    assert Copy(tmp_path, kept).passes(killer, verilator)


@pytest.mark.slow
@pytest.mark.parametrize("mutant", MUTANTS, ids=lambda mutant: mutant.name)
def test_a_mutant_is_found(tmp_path, kept, verilator, mutant):
    copy = Copy(tmp_path, kept, mutant.file, source(mutant))
    assert copy.passes(mutant.killer, verilator) == bool(mutant.survives), mutant
