"""The array register by register in plain Python, to be read beside docs/design/machine.md.

It shares nothing with the kernels, knows no closed form, and moves every word over every hop.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, assert_never

import numpy as np
import numpy.typing as npt

from ...dataflow.accelerator import AcceleratorSpec
from ...dataflow.stce.mapping import ArrayMapping, Dataflow
from ..array import canonical, check_operands
from ..compact import Compact
from ..operand import Half
from ..stalls import Bools, require_stalls
from .output_stationary import OutputStationary, SingleBuffered
from .registers import Machine, stce_grid
from .weight_stationary import WeightStationary

__all__ = ["ReferenceRun", "array_reference", "drive"]


@dataclass(frozen=True, slots=True, eq=False)
class ReferenceRun:
    """``result`` float32 or int32 [m, n], ``left`` int64 [m, n] as of `ArrayRun`, and the length of the run."""

    result: npt.NDArray[Any]
    left: npt.NDArray[np.int64]
    cycles: int


def array_reference(
    spec: AcceleratorSpec,
    mapping: ArrayMapping,
    a: Half,
    b: Half | Compact,
    *,
    run: int = 0,
    ready: Bools | None = None,
    hold: Bools | None = None,
) -> ReferenceRun:
    """C[m, n] = A[m, k] B[k, n] on every register; operands, ``ready`` and ``hold`` of the dtypes of `run_array`."""
    machine = _machine(mapping.dataflow)(stce_grid(spec), mapping, a, check_operands(spec, mapping, a, b, run))
    require_stalls(spec.array.cols, ready, hold)
    with np.errstate(all="ignore"):
        drive(machine, spec.array.cols, ready, hold)
    return ReferenceRun(canonical(machine.result), machine.left, machine.now)


def drive(machine: Machine, cols: int, ready: Bools | None, hold: Bools | None) -> None:
    """Clock cycles until every word is taken; the array stands still while one waits and after each cycle of hold.

    ``ready`` bool [cycles, cols], ``hold`` bool [cycles].
    """
    held = False
    while machine.awaited:
        if not machine.waiting and not held:
            machine.step()
            machine.t += 1
        machine.take([True] * cols if ready is None or machine.now >= len(ready) else ready[machine.now])
        held = hold is not None and machine.now < len(hold) and bool(hold[machine.now])
        machine.now += 1


def _machine(dataflow: Dataflow) -> type[Machine]:
    match dataflow:
        case Dataflow.OS:
            return OutputStationary
        case Dataflow.WS:
            return WeightStationary
        case Dataflow.OS1:
            return SingleBuffered
        case _:
            assert_never(dataflow)
