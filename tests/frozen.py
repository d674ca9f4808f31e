"""The figures that no rebuilding may move: `python -m weft.tests.frozen` writes them anew, `test_frozen.py` compares.

A change that is meant to move one names it, with its reason, in CHANGELOG.md, and writes the file again.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from weft.analysis.energy import energy
from weft.analysis.energy_table import load_table
from weft.dataflow.config_io import load_spec, preset_names, spec_hash
from weft.dataflow.objective import Objective
from weft.dataflow.schedule import Schedule, schedule
from weft.simulator.step import simulate
from weft.simulator.system import step_time
from weft.workloads.errors import InputError
from weft.workloads.gemm import Pass
from weft.workloads.levels import Levels
from weft.workloads.models import zoo
from weft.workloads.schemes.annotate import annotate
from weft.workloads.sparsity import NMPattern
from weft.workloads.step import MatrixOp, Op, Workload
from weft.workloads.trace import trace_step

FILE = Path(__file__).parent / "golden" / "frozen.json"
SIZES: dict[str, tuple[int, int | None]] = {
    "resnet9": (512, None),
    "vit_s": (512, None),
    "resnet18@64": (256, None),
    "gpt2": (4, 128),
    "lstm_lm": (20, None),
}
"""Batch and tokens of the five models whose step is frozen."""
MACHINES = tuple(name for name in preset_names() if load_spec(name).xnor is None)
"""On which they are."""
BINARY_MACHINES = tuple(name for name in preset_names() if name not in MACHINES)
"""On which a model with binary layers is."""
SCHEMES = ("dense", "bdwp", "bdwp-x")
OBJECTIVES = (Objective.THRIFT, Objective.CYCLES)
_PATTERN = NMPattern(keep=2, group=8)


def traced(model: str) -> Workload:
    batch, seq = SIZES[model]
    return trace_step(zoo.source(model), batch=batch, seq=seq)


def binary() -> Workload:
    """ResNet-9 at batch 64 with binary operands in its forward products, the first and the last one aside."""

    def made(op: Op) -> Op:
        if not isinstance(op, MatrixOp) or op.pass_ is not Pass.FF or op.gemm.run <= 3 or op.gemm.n <= 10:
            return op
        return replace(op, a=replace(op.a, levels=Levels.BINARY), b=replace(op.b, levels=Levels.BINARY))

    traced = trace_step(zoo.source("resnet9"), batch=64)
    return replace(traced, ops=tuple(map(made, traced.ops)))


def figures(workload: Workload, scheme: str, machine: str, objective: Objective) -> dict[str, Any]:
    """Cycles by cause, counts, zeptojoules and system cycles of a step; ops as a digest of all of theirs."""
    spec = load_spec(machine)
    step = annotate(workload, scheme, _PATTERN)
    try:
        planned = schedule(step, spec, objective)
    except InputError as error:
        return {"refused": str(error)}
    found = simulate(planned, witness=True)
    cycles, counts = asdict(found.cycles), asdict(found.counts)
    each = [(asdict(op.cycles), asdict(op.counts), op.bound_cycles, repr(op.mapping)) for op in found.ops]
    return {
        "spec_hash": spec_hash(spec),
        "cycles": {name: count for name, count in cycles.items() if count},
        "counts": {name: count for name, count in counts.items() if count},
        "zeptojoules": energy(found, load_table(spec.technology)).zeptojoules,
        "system_cycles": _overlapped(planned),
        "ops": hashlib.sha256(json.dumps(each).encode()).hexdigest()[:16],
    }


def _overlapped(planned: Schedule) -> int | str:
    try:
        return step_time(planned)
    except InputError as error:
        return str(error)


def all_figures() -> Iterator[tuple[str, dict[str, Any]]]:
    """Every combination by name."""
    for model in SIZES:
        workload = traced(model)
        for scheme in SCHEMES:
            for machine in MACHINES:
                for objective in OBJECTIVES:
                    yield f"{model} {scheme} {machine} {objective}", figures(workload, scheme, machine, objective)
    yield from binary_figures()


def binary_figures() -> Iterator[tuple[str, dict[str, Any]]]:
    """Those of machines with two engines."""
    workload = binary()
    for machine in BINARY_MACHINES:
        for objective in OBJECTIVES:
            yield f"binary dense {machine} {objective}", figures(workload, "dense", machine, objective)


def main() -> None:
    held = json.loads(FILE.read_text()) if FILE.exists() else {}
    made = dict(all_figures())
    for name in sorted(made.keys() | held.keys()):
        if made.get(name) != held.get(name):
            print(f"{name}: {held.get(name)} -> {made.get(name)}")  # noqa: T201
    FILE.write_text(json.dumps(made, indent=1) + "\n")


if __name__ == "__main__":
    main()
