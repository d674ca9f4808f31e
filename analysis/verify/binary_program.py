"""A folded binary network as a program of the whole machine: on the model of the chip, and in its RTL."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from ...dataflow.accelerator import AcceleratorSpec
from ...dataflow.program.checker import check
from ...dataflow.program.isa import BEAT_BYTES, LATENCY
from ...dataflow.program.spaces import Target
from ...simulator.machine.binary_host import BinaryHost, compile_folded
from ...simulator.machine.chip import Chip
from ...simulator.machine.program_time import program_time
from ...workloads.integer_network import Forward, IntegerNetwork
from ...workloads.update_rule import SGD

__all__ = ["MOST_IN_PROGRAM", "ProgramCycles", "WholeMachine"]

MOST_IN_PROGRAM = 32
"""Images that a program is compiled for at most; weights are loaded once for all of them."""
_MODEL, _RTL = "program, model", "program, RTL"
Pixels = npt.NDArray[np.uint8]


@dataclass(frozen=True, slots=True, kw_only=True)
class ProgramCycles:
    """A program for so many ``images``: its ``instructions``, and ``cycles`` from start to done, as predicted."""

    images: int
    instructions: int
    cycles: int


class WholeMachine:
    """The machine ``spec``, for which ``network`` is compiled for ``images`` of the shape ``image`` at a time; with
    ``rtl`` its RTL beside the model."""

    def __init__(
        self, spec: AcceleratorSpec, network: IntegerNetwork, images: int, image: tuple[int, ...], *, rtl: bool
    ) -> None:
        target = Target(spec=spec, rule=SGD)
        self.compiled = compiled = compile_folded(network, target, images, image)
        self.program = compiled.program
        check(self.program, target, len(compiled.memory))
        self.said = program_time(self.program, target, BEAT_BYTES, LATENCY)
        self.cycles = ProgramCycles(images=images, instructions=len(self.program.instructions), cycles=self.said.cycles)
        self.chip = Chip(target, np.zeros(len(compiled.memory), np.uint8))
        self.host = BinaryHost(compiled, network, self.chip.memory)
        self.host.begin()
        self.rtl = None
        if rtl:
            from ...hdl.drivers.accelerator import Accelerator

            self.rtl = Accelerator(target, len(compiled.memory), self.cycles.instructions)
            self.rtl.write(0, compiled.memory)

    def run(self, pixels: Pixels) -> dict[str, tuple[Forward, int | None]]:
        """Images uint8 [images, channels, height, width], as many as there are: what the model of the chip makes of
        them; and the RTL, and in how many runs of the program a command took other cycles than predicted."""
        size, network = self.compiled.images, self.host.network
        parts: dict[str, list[Forward]] = {}
        wrong = 0
        for start in range(0, len(pixels), size):
            own = pixels[start : start + size]
            self.host.put(own)
            before = self.chip.memory.copy()
            self.chip.run(self.program.instructions)
            parts.setdefault(_MODEL, []).append(self.host.forward(len(own)))
            if self.rtl is not None:
                made, differs = self._in_rtl(before, network, len(own))
                parts.setdefault(_RTL, []).append(made)
                wrong += differs
        return {what: (_joined(network, found), wrong if what == _RTL else None) for what, found in parts.items()}

    def _in_rtl(self, before: Pixels, network: IntegerNetwork, count: int) -> tuple[Forward, bool]:
        """The same memory as before the run on the model; whether any command took other cycles."""
        from .rtl_difference import late_command

        rtl = self.rtl
        assert rtl is not None
        first = self.compiled.inputs[0]
        region = slice(first.address, first.address + self.compiled.images * first.strides[0])
        rtl.write(region.start, before[region])
        ran = rtl.run(self.program)
        host = BinaryHost(self.compiled, network, rtl.read(0, len(before)))
        return host.forward(count), late_command(self.said, ran) is not None


def _joined(network: IntegerNetwork, parts: list[Forward]) -> Forward:
    inputs = [np.concatenate(each) for each in zip(*(part.inputs for part in parts), strict=True)]
    return network.forward(inputs, np.concatenate([part.sums for part in parts]))
