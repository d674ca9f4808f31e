"""What drives the STCE: a run in co-simulation, its buffers answered, and what left it in place."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from ...dataflow.accelerator import AcceleratorSpec
from ...dataflow.stce.mapping import ArrayMapping
from ...workloads.gemm import Gemm
from ..blocks.array import Stce
from ..blocks.banks import BUBBLE, NAN, Banks, Bits32, Index, banks, run_registers
from ..blocks.frame import frame_of
from ..flow.cosim import Cosim
from .grid import GridDriver, Machine, answer

__all__ = ["RtlRun", "StceDriver"]


@dataclass(frozen=True, slots=True, eq=False)
class RtlRun:
    """``result`` bits of FP32 and ``left`` int64, both [m, n], and the length of the run."""

    result: Bits32
    left: npt.NDArray[np.int64]
    cycles: int


class StceDriver(GridDriver):
    """Runs products on the array of ``spec`` in ``machine``, by default a co-simulation, built once for all of them."""

    def __init__(self, spec: AcceleratorSpec, machine: Machine | None = None) -> None:
        self.spec = spec
        if machine is None:
            array = Stce(spec, blackbox=True)
            machine = Cosim(array, parts=array.parts)
        super().__init__(frame_of(spec), machine)
        self._ones = np.uint32((1 << spec.pe.operand.bits) - 1)

    def run(
        self,
        mapping: ArrayMapping,
        gemm: Gemm,
        a: npt.NDArray[Any],
        values: npt.NDArray[Any],
        indices: Index,
        *,
        cycles: int,
        ready: npt.NDArray[np.bool_] | None = None,
        hold: npt.NDArray[np.bool_] | None = None,
        gradients: tuple[bool, bool] = (False, False),
    ) -> RtlRun:
        """C = A B with ``a`` [m, k], and B as the pairs ``values``, ``indices`` [slots, n] of ``mapping.pattern``.

        Operands are words in the format of the machine, of any dtype as wide; ``gradients``: which of the two have the
        encoding of gradients, where the format has one. Bits of the result are those of FP32, or INT32.

        ``cycles`` bounds the length of the run. ``ready`` [cycles, cols] says when a receiver takes what leaves a
        column, from cycle 0 on; by default, and after its last cycle, always. ``hold`` [cycles] says when the array
        must stand still in the next one, likewise; by default never.
        """
        registers = run_registers(self.spec, mapping, gemm, gradients)
        west, north = (x.view(f"u{self.spec.pe.operand.bytes}").astype(np.uint16) for x in (a, values))
        filled = banks(self.spec, mapping, gemm, west, north, indices)
        seen = self._seen(
            mapping, gemm, registers, lambda seen: self._operands(seen, filled), cycles=cycles, ready=ready, hold=hold
        )
        result = np.zeros((gemm.m, gemm.n), np.uint32)
        left, length = self._collect(mapping, gemm, seen, {"south__{}__word": result})
        return RtlRun(result, left, length)

    def _operands(self, seen: dict[str, Any], filled: Banks) -> dict[str, Any]:
        """The answers of the operand buffers, ``read_latency`` array cycles after the asks."""
        fed = {}
        for r, bank in enumerate(filled.west):
            for x in range(self.frame.lanes):
                fed[f"west__{r}__{x}"] = self._word(seen, f"west_ask__{r}", bank, x, NAN) & self._ones
        for c in range(self.frame.cols):
            value = self._word(seen, f"north_ask__{c}", filled.values[c], 0, NAN)
            index = self._word(seen, f"north_ask__{c}", filled.indices[c], 0, BUBBLE)
            bubble = index == BUBBLE
            fed[f"north__{c}__valid"] = (~bubble).astype(np.uint32)
            fed[f"north__{c}__value"] = np.where(bubble, NAN, value) & self._ones
            fed[f"north__{c}__index"] = np.where(bubble, 1, index)
        return fed

    def _word(self, seen: dict[str, Any], ask: str, bank: npt.NDArray[Any], lane: int, nothing: int) -> Bits32:
        return answer(seen, ask, bank, lane, nothing, self.frame.read_latency).astype(np.uint32)
