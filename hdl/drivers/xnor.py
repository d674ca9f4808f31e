"""What drives the XNOR engine: a run in co-simulation, its buffers answered, and what left it in place."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from ...dataflow.xnor.spec import XnorSpec
from ...workloads.errors import InputError
from ..blocks.frame import frame_of
from ..blocks.xnor import Xnor
from ..blocks.xnor_banks import XnorBanks, XnorWork, xnor_banks, xnor_registers
from ..flow.cosim import Cosim
from .grid import GridDriver, Machine, answer

__all__ = ["Thresholds", "XnorDriver", "XnorRtlRun"]


@dataclass(frozen=True, slots=True, eq=False)
class Thresholds:
    """What each column of C is compared with: ``level`` int32 [n]; ``flip`` bool [n], at most instead of at least."""

    level: npt.NDArray[np.int32]
    flip: npt.NDArray[np.bool_]


@dataclass(frozen=True, slots=True, eq=False)
class XnorRtlRun:
    """One product: ``sums`` int32, as they leave the array; ``result`` int32, what the edge makes of them; ``passed``
    bool, whether they pass their thresholds; ``left`` int64, the cycle of each; all [m, n]. ``cycles``: of the run."""

    sums: npt.NDArray[np.int32]
    result: npt.NDArray[np.int32]
    passed: npt.NDArray[np.bool_]
    left: npt.NDArray[np.int64]
    cycles: int


class XnorDriver(GridDriver):
    """Runs products on the engine ``spec`` in ``machine``, by default a co-simulation, built once for all of them."""

    def __init__(self, spec: XnorSpec, machine: Machine | None = None) -> None:
        self.spec = spec
        if machine is None:
            engine = Xnor(spec, blackbox=True)
            machine = Cosim(engine, parts=engine.parts)
        super().__init__(frame_of(spec), machine)

    def run(
        self,
        work: XnorWork,
        a: npt.NDArray[Any],
        b: npt.NDArray[Any],
        *,
        cycles: int,
        thresholds: Thresholds | None = None,
        ready: npt.NDArray[np.bool_] | None = None,
    ) -> XnorRtlRun:
        """C = A B with ``a`` [m, k] and ``b`` [k, n], integers of any dtype that are values of their levels.

        ``cycles`` bounds the length of the run. ``ready`` [cycles, cols] says when a receiver takes what leaves a
        column, from cycle 0 on; by default, and after its last cycle, always. Thresholds are 0 by default.
        """
        gemm = work.gemm
        none = Thresholds(np.zeros(gemm.n, np.int32), np.zeros(gemm.n, np.bool_))
        levels = self._levels(none if thresholds is None else thresholds, gemm.n)
        registers = xnor_registers(self.spec, work)
        filled = xnor_banks(self.spec, work, a, b)
        seen = self._seen(
            work,
            work.slots(self.spec),
            registers,
            lambda seen: self._operands(seen, filled) | self._answered(seen, *levels),
            cycles=cycles,
            ready=ready,
        )
        sums, result, passed = (np.zeros((gemm.m, gemm.n), np.uint32) for _ in range(3))
        made = {"south__{}__word": sums, "made__{}__value": result, "made__{}__bit": passed}
        left, length = self._collect(work, work.slots(self.spec), seen, made)
        return XnorRtlRun(sums.view(np.int32), result.view(np.int32), passed.astype(np.bool_), left, length)

    def _operands(self, seen: dict[str, Any], filled: XnorBanks) -> dict[str, Any]:
        """The answers of the operand buffers, an array cycle after the asks; ones where nothing may look at them."""
        fed = {}
        for r, bank in enumerate(filled.west):
            fed[f"west__{r}__0"] = _port(answer(seen, f"west_ask__{r}", bank, 0, True))
        for c in range(self.frame.cols):
            for name, bank in (("sign", filled.sign[c]), ("mask", filled.mask[c])):
                fed[f"north__{c}__{name}"] = _port(answer(seen, f"north_ask__{c}", bank, 0, True))
            fed[f"north__{c}__valid"] = answer(seen, f"north_ask__{c}", filled.valid[c], 0, True).astype(np.uint32)
        return fed

    def _levels(self, given: Thresholds, n: int) -> tuple[npt.NDArray[np.uint32], npt.NDArray[np.uint32]]:
        """Banks of thresholds, [cols, columns of C each makes], and of their flips."""
        for name, values in (("level", given.level), ("flip", given.flip)):
            if values.shape != (n,):
                raise InputError(f"{name} must be one a column of C, {n} of them, not {list(values.shape)}")
        padding = (0, self.frame.accumulators * self.frame.cols * (n // self.frame.cols + 1) - n)
        level, flip = (
            np.pad(values, padding).reshape(-1, self.frame.cols).T
            for values in (given.level.astype(np.int32), given.flip)
        )
        return np.ascontiguousarray(level).view(np.uint32), flip.astype(np.uint32)

    def _answered(self, seen: dict[str, Any], level: Any, flip: Any) -> dict[str, Any]:
        fed = {}
        for c in range(self.frame.cols):
            fed[f"levels__{c}__level"] = answer(seen, f"levels_ask__{c}", level[c], 0, 0x7FFF0000)
            fed[f"levels__{c}__flip"] = answer(seen, f"levels_ask__{c}", flip[c], 0, 1)
        return fed


def _port(bits: npt.NDArray[np.bool_]) -> npt.NDArray[Any]:
    """Bits [cycles, width] as a port of that width takes them, the first one lowest."""
    width = bits.shape[1]
    packed = np.packbits(bits, axis=1, bitorder="little")
    size = 4 if width <= 32 else 8 if width <= 64 else 4 * -(-width // 32)
    whole = np.ascontiguousarray(np.pad(packed, ((0, 0), (0, size - packed.shape[1]))))
    return whole.view("<u8" if width > 32 and width <= 64 else "<u4").reshape(
        len(bits), *(() if width <= 64 else (-1,))
    )
