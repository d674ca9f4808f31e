"""What drives the XNOR engine: a run in co-simulation, its buffers answered, and what left it in place."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, ClassVar, NamedTuple

import numpy as np
import numpy.typing as npt

from ...dataflow.accelerator import AcceleratorSpec
from ...dataflow.xnor.mapping import XnorMapping, require_xnor
from ...workloads.errors import InputError
from ...workloads.gemm import Gemm
from ..blocks.banks import Bits32
from ..blocks.frame import frame_of
from ..blocks.xnor import Xnor
from ..blocks.xnor_banks import Sides, XnorBanks, level_banks, slots_of, xnor_banks, xnor_registers
from ..flow.cosim import Cosim
from .grid import GridDriver, Machine, answer

__all__ = ["Product", "Thresholds", "XnorDriver", "XnorRtlRun"]

Thresholds = tuple[npt.NDArray[np.int32], npt.NDArray[np.bool_]]
"""What each column of C is compared with, int32 [n], and whether it is to be at most that, bool [n], or at least."""


@dataclass(frozen=True, slots=True, eq=False)
class XnorRtlRun:
    """One product: ``sums`` int32, as they leave the array; ``result`` int32, what the edge makes of them; ``passed``
    bool, whether they pass their thresholds; ``left`` int64, the cycle of each; all [m, n]. ``cycles``: of the run."""

    sums: npt.NDArray[np.int32]
    result: npt.NDArray[np.int32]
    passed: npt.NDArray[np.bool_]
    left: npt.NDArray[np.int64]
    cycles: int


class Product(NamedTuple):
    """What a run multiplies, and how: ``a`` [m, k] and ``b`` [k, n], integers of any dtype, as of `XnorDriver.run`."""

    mapping: XnorMapping
    gemm: Gemm
    levels: Sides
    a: npt.NDArray[Any]
    b: npt.NDArray[Any]
    skip: bool = False


class XnorDriver(GridDriver):
    """Runs products on the XNOR engine of ``spec`` in ``machine``, by default a co-simulation, built once for all."""

    engine: ClassVar[type[Xnor]] = Xnor

    def __init__(self, spec: AcceleratorSpec, machine: Machine | None = None) -> None:
        self.spec = spec
        self.own = require_xnor(spec)
        if machine is None:
            engine = self.engine(self.own, blackbox=True)
            machine = Cosim(engine, parts=engine.parts)
        super().__init__(frame_of(self.own), machine)

    def run(
        self,
        mapping: XnorMapping,
        gemm: Gemm,
        levels: Sides,
        a: npt.NDArray[Any],
        b: npt.NDArray[Any],
        *,
        cycles: int,
        thresholds: Thresholds | None = None,
        ready: npt.NDArray[np.bool_] | None = None,
        hold: npt.NDArray[np.bool_] | None = None,
        skip: bool = False,
    ) -> XnorRtlRun:
        """C = A B with ``a`` [m, k] and ``b`` [k, n], integers of any dtype that are values of their ``levels``.

        ``cycles`` bounds the length of the run. ``ready`` [cycles, cols] says when a receiver takes what leaves a
        column, from cycle 0 on; by default, and after its last cycle, always. ``hold`` [cycles] says when the array
        must stand still in the next one, likewise; by default never. ``thresholds`` are 0 by default.
        ``skip`` (OS): words that are zero in all rows or all columns of a tile are left out.
        """
        registers = xnor_registers(self.own, mapping, gemm, levels, skip=skip)
        level, flip = self._levels(thresholds, gemm.n, registers)
        result, passed = (np.zeros((gemm.m, gemm.n), np.uint32) for _ in range(2))
        product = Product(mapping, gemm, levels, a, b, skip)
        sums, left, length = self._product(
            product,
            lambda seen: self._answered(seen, level, flip),
            {"made__{}__value": result, "made__{}__passes": passed},
            cycles=cycles,
            ready=ready,
            hold=hold,
        )
        return XnorRtlRun(sums, result.view(np.int32), passed.astype(np.bool_), left, length)

    def _product(
        self,
        product: Product,
        edge: Callable[[dict[str, Any]], dict[str, Any]],
        made: dict[str, npt.NDArray[Any]],
        *,
        cycles: int,
        ready: npt.NDArray[np.bool_] | None,
        hold: npt.NDArray[np.bool_] | None,
    ) -> tuple[npt.NDArray[np.int32], npt.NDArray[np.int64], int]:
        """Sums int32 [m, n], the cycle in which each leaves, int64 [m, n], and the length of a run.

        ``edge`` answers what the southern edge asks for; ``made`` gets, as of `_collect`, what it makes of the sums.
        """
        mapping, gemm, levels, a, b, skip = product
        mapping.check(self.spec)
        slots = slots_of(self.own, mapping, gemm, levels, skip=skip)
        registers = xnor_registers(self.own, mapping, gemm, levels, skip=skip)
        filled = xnor_banks(self.own, mapping, gemm, levels, a, b, skip=skip)

        def operands(seen: dict[str, Any]) -> dict[str, Any]:
            return self._operands(seen, filled) | edge(seen)

        def told(fed: dict[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
            return self._told(fed, filled.tiles)

        seen = self._seen(
            mapping, slots, registers, operands, cycles=cycles, ready=ready, hold=hold, schedule=told if skip else None
        )
        sums = np.zeros((gemm.m, gemm.n), np.uint32)
        left, length = self._collect(mapping, slots, seen, {"south__{}__word": sums, **made})
        return sums.view(np.int32), left, length

    def _told(self, fed: dict[str, Any], tiles: Bits32) -> tuple[dict[str, Any], dict[str, Any]]:
        """Inputs and outputs of a run in which every tile has the slots that ``tiles`` says.

        When a tile is asked for depends on how many those before it have, and on nothing behind it. So one more a run
        is told its own, and all others have one.
        """
        told = np.ones_like(tiles)
        fed = fed | {"tiles": 1}
        seen = self._watch(fed)
        for tile in np.flatnonzero(tiles != 1):
            told[tile] = tiles[tile]
            fed = fed | {"tiles": answer(seen, "tiles_ask", told, 0, 1)}
            seen = self._watch(fed)
        return fed, seen

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

    def _levels(self, given: Thresholds | None, n: int, registers: dict[str, int]) -> tuple[Bits32, Bits32]:
        """Banks of thresholds and of flips, [cols, columns of C that each makes], to the end of the last tile."""
        at, flip = (np.zeros(n, np.int32), np.zeros(n, np.bool_)) if given is None else given
        for name, values in (("thresholds", at), ("flips", flip)):
            if values.shape != (n,):
                raise InputError(f"{name} must be one a column of C, {n} of them, not {list(values.shape)}")
        return level_banks(self.own, registers, at, flip)

    def _by_column(self, values: npt.NDArray[Any]) -> npt.NDArray[Any]:
        """What stands beside each column of C, any dtype [n], as [cols, columns of C that each makes], zero beyond."""
        n, cols = len(values), self.frame.cols
        rows = -(-n // cols) + self.frame.accumulators
        return np.pad(values, (0, rows * cols - n)).reshape(-1, cols).T

    def _answered(self, seen: dict[str, Any], level: Bits32, flip: Bits32) -> dict[str, Any]:
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
