"""What a board holds besides its pins: the accelerator, block memories in the place of DRAM, and the serial line."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from amaranth import Module, Signal
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out

from ...dataflow.program.isa import BEAT_BYTES
from ...dataflow.program.spaces import Target
from ...workloads.errors import InputError, require_int
from ..host.bridge import Bridge
from ..host.uart import LEAST_DIVISOR
from ..top.axi_memory import AxiMemory
from ..top.axi_share import AxiShare
from ..top.sequencer import INSTRUCTION_BYTES
from ..top.top import Top

__all__ = ["Core", "CoreShape"]

_OFF = 0.02
"""How far a line may be off its rate: ten bits then end a fifth of a bit early or late; the other end has its share."""


@dataclass(frozen=True, slots=True, kw_only=True)
class CoreShape:
    """``memory`` bytes for tensors, room for so many ``instructions``, and a line of ``baud`` at a clock of ``hz``."""

    memory: int
    instructions: int
    hz: int
    baud: int = 1_000_000

    def __post_init__(self) -> None:
        for name in ("memory", "instructions", "hz", "baud"):
            require_int(name, getattr(self, name), 1, 1 << 31)
        for name in ("memory", "instructions"):
            if (size := getattr(self, name)) & (size - 1) or size < 256:
                raise InputError(f"{name} of a board is a power of two from 256 on, not {size}")
        if self.hz < LEAST_DIVISOR * self.baud:
            raise InputError(
                f"a line of {self.baud:,} baud asks for a clock of {LEAST_DIVISOR * self.baud:,} Hz or more, not "
                f"{self.hz:,}; take at most {self.hz // LEAST_DIVISOR:,} baud"
            )

        if abs(self.hz / self.divisor - self.baud) > _OFF * self.baud:
            raise InputError(
                f"{self.hz:,} Hz by {self.divisor} is {round(self.hz / self.divisor):,} baud, more than 2 % off "
                f"{self.baud:,}; take {round(self.hz / self.divisor):,} or another part of the clock"
            )

    @property
    def divisor(self) -> int:
        """Cycles a bit."""
        return round(self.hz / self.baud)


class Core(wiring.Component):
    """The machine of ``target`` and its memories behind a serial line; ``error`` stands until the next start."""

    def __init__(self, target: Target, shape: CoreShape, *, blackbox: bool = False) -> None:
        self.target, self.shape = target, shape
        self.top = Top(target, BEAT_BYTES, blackbox=blackbox)
        self.parts = self.top.parts
        super().__init__({"rx": In(1, init=1), "tx": Out(1, init=1), "busy": Out(1), "error": Out(1), "talks": Out(1)})

    def elaborate(self, platform: Any) -> Module:
        m = Module()
        shape, top = self.shape, self.top
        data = AxiMemory(BEAT_BYTES, shape.memory // BEAT_BYTES)
        code = AxiMemory(INSTRUCTION_BYTES, shape.instructions)
        sizes = shape.memory, shape.instructions * INSTRUCTION_BYTES
        bridge = Bridge(BEAT_BYTES, shape.divisor, sizes=sizes, hz=shape.hz)
        m.submodules.top, m.submodules.data, m.submodules.code = top, data, code
        m.submodules.bridge = bridge
        m.submodules.share = share = AxiShare(BEAT_BYTES)
        m.submodules.share_code = share_code = AxiShare(INSTRUCTION_BYTES)
        wiring.connect(m, bridge.registers, top.control)
        wiring.connect(m, top.data, share.first)
        wiring.connect(m, bridge.memory, share.second)
        wiring.connect(m, share.memory, data.bus)
        for name in ("ar", "r"):
            ask, answer = (top.instructions, share_code.first) if name == "ar" else (share_code.first, top.instructions)
            self._stream(m, getattr(ask, name), getattr(answer, name))
        wiring.connect(m, bridge.program, share_code.second)
        wiring.connect(m, share_code.memory, code.bus)
        failed = Signal()
        m.d.sync += failed.eq(top.sequencer.error != 0)
        m.d.comb += [
            bridge.rx.eq(self.rx),
            self.tx.eq(bridge.tx),
            self.busy.eq(top.sequencer.busy),
            self.error.eq(failed),
            self.talks.eq(bridge.busy),
        ]
        return m

    def _stream(self, m: Module, source: Any, sink: Any) -> None:
        m.d.comb += [sink.valid.eq(source.valid), sink.payload.eq(source.payload), source.ready.eq(sink.ready)]
