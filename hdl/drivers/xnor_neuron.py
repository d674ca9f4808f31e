"""What drives the XNOR engine with neurons: one time step of a layer in co-simulation, with its membranes."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from ...dataflow.stce.mapping import Dataflow
from ...dataflow.xnor.neuron import Neurons
from ...workloads.errors import InputError
from ..blocks.xnor_banks import slots_of
from ..blocks.xnor_neuron import SpikingXnor
from .grid import answer
from .xnor import Product, XnorDriver

__all__ = ["SpikingDriver", "SpikingRtlRun"]

_UNREAD = 0x5A5A5A5A
"""What a memory shows that nobody asked, or that holds no membrane yet."""


@dataclass(frozen=True, slots=True, eq=False)
class SpikingRtlRun:
    """One time step: ``sums`` int32 and ``left`` int64 as of `XnorRtlRun`, ``spikes`` bool, and ``membrane`` int32,
    what each neuron leaves; all [m, n]. ``cycles``: of the run."""

    sums: npt.NDArray[np.int32]
    spikes: npt.NDArray[np.bool_]
    membrane: npt.NDArray[np.int32]
    left: npt.NDArray[np.int64]
    cycles: int


class SpikingDriver(XnorDriver):
    """Runs products on a `SpikingXnor`."""

    engine = SpikingXnor

    def fire(
        self,
        product: Product,
        neurons: Neurons,
        membrane: npt.NDArray[np.int32] | None,
        *,
        cycles: int,
        ready: npt.NDArray[np.bool_] | None = None,
        hold: npt.NDArray[np.bool_] | None = None,
    ) -> SpikingRtlRun:
        """A product and the neurons behind it; ``membrane`` int32 [m, n], that of the step before, None for 0.

        ``cycles``, ``ready`` and ``hold`` as of `run`.
        """
        gemm = product.gemm
        neurons.require_channels(gemm.n)
        if membrane is not None and (membrane.shape != (gemm.m, gemm.n) or membrane.dtype != np.int32):
            raise InputError(f"membrane must be int32 {[gemm.m, gemm.n]}, not {membrane.dtype} {list(membrane.shape)}")
        threshold = self._by_column(neurons.threshold).view(np.uint32)
        flip = np.zeros(threshold.shape, np.uint32)
        memories = [self._memory(product, membrane, c) for c in range(self.frame.cols)]

        def edge(seen: dict[str, Any]) -> dict[str, Any]:
            fed = {
                f"membranes__{c}": answer(seen, f"membranes_ask__{c}", memory, 0, _UNREAD)
                for c, memory in enumerate(memories)
            }
            return fed | self._answered(seen, threshold, flip) | {"leak": neurons.leak, "fresh": int(membrane is None)}

        spikes, after = (np.zeros((gemm.m, gemm.n), np.uint32) for _ in range(2))
        made = {"neurons__{}__spikes": spikes, "neurons__{}__next": after}
        sums, left, length = self._product(product, edge, made, cycles=cycles, ready=ready, hold=hold)
        return SpikingRtlRun(sums, spikes.astype(np.bool_), after.view(np.int32), left, length)

    def _memory(self, product: Product, membrane: npt.NDArray[np.int32] | None, c: int) -> npt.NDArray[np.uint32]:
        """Membranes of column ``c`` in the order in which its final words leave."""
        mapping, gemm = product.mapping, product.gemm
        slots = slots_of(self.own, mapping, gemm, product.levels)
        rows, columns = self._places(mapping, slots, c)
        if mapping.dataflow is Dataflow.WS:
            # Every tile along k sends them all.
            words = mapping.interleave * -(-gemm.m // mapping.interleave) * -(-gemm.n // self.frame.cols)
            rows, columns = rows[:words], columns[:words]
        memory = np.full(len(rows), _UNREAD, np.uint32)
        if membrane is not None:
            inside = np.flatnonzero((rows < gemm.m) & (columns < gemm.n))
            memory[inside] = membrane.view(np.uint32)[rows[inside], columns[inside]]
        return memory
