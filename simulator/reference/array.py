"""The array register by register in plain Python, to be read beside docs/design/machine.md.

It shares nothing with the kernels, knows no closed form, and moves every word over every hop.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import assert_never

import numpy as np
import numpy.typing as npt

from ...dataflow.accelerator import AcceleratorSpec
from ...dataflow.stce.mapping import ArrayMapping, Dataflow
from ..array import canonical, check_operands, require_ready
from ..compact import Compact
from ..operand import Half
from .output_stationary import OutputStationary, SingleBuffered
from .registers import Machine, stce_grid
from .weight_stationary import WeightStationary

__all__ = ["ReferenceRun", "array_reference"]

Single = npt.NDArray[np.float32]


@dataclass(frozen=True, slots=True, eq=False)
class ReferenceRun:
    """``result`` float32 [m, n], ``left`` int64 [m, n] as of `ArrayRun`, and the length of the run."""

    result: Single
    left: npt.NDArray[np.int64]
    cycles: int


def array_reference(
    spec: AcceleratorSpec,
    mapping: ArrayMapping,
    a: Half,
    b: Half | Compact,
    *,
    run: int = 0,
    ready: npt.NDArray[np.bool_] | None = None,
) -> ReferenceRun:
    """C[m, n] = A[m, k] B[k, n] on every register; operands and ``ready`` as of `run_array`, of its dtypes."""
    machine = _machine(mapping.dataflow)(stce_grid(spec), mapping, a, check_operands(spec, mapping, a, b, run))
    require_ready(spec.array.cols, ready)
    with np.errstate(all="ignore"):
        while machine.awaited:
            if not machine.waiting:
                machine.step()
                machine.t += 1
            machine.take([True] * spec.array.cols if ready is None or machine.now >= len(ready) else ready[machine.now])
            machine.now += 1
    return ReferenceRun(canonical(machine.result), machine.left, machine.now)


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
