"""A PE of the gather engine: one multiplier, one adder, and the sums of its columns of the dense operand."""

from __future__ import annotations

from typing import Any

from amaranth import Const, Module, Mux, Signal
from amaranth.lib import data, wiring
from amaranth.lib.memory import Memory
from amaranth.lib.wiring import In, Out
from amaranth.utils import bits_for

from ...dataflow.accelerator import AcceleratorSpec
from ...dataflow.gather.dense import dense_ports, most_lines, port_words
from ...dataflow.gather.mapping import require_gather
from .fp.units import OPERAND_UNITS

__all__ = ["GatherFormat", "GatherPe"]


class GatherFormat:
    """Layouts of what moves in a gather engine, sized for a machine.

    An ``element`` is kept: its ``value``; the port and the address of the first word of its row of the dense operand;
    whether it is the ``last`` of its line; ``empty``: there is none, and the line has a slot for its zeros, or if it is
    not its last, the lane has one for no line; ``over``: no line is left. A lane has ``held`` lines at most.
    """

    def __init__(self, spec: AcceleratorSpec) -> None:
        own = require_gather(spec)
        self.spec, self.lanes, self.width, self.ports = spec, own.lanes, own.width, dense_ports(own)
        self.banked = own.banks > 0
        self.units = OPERAND_UNITS[spec.pe.format]
        self.raw = spec.pe.operand.bits
        self.context = bits_for(spec.pe.accumulators - 1)
        self.row_words = bits_for(spec.pe.accumulators)
        self.held = most_lines(spec)
        self.interleave = {"interleave": bits_for(self.held)} if self.held > 1 else {}
        self.port = bits_for(own.banks - 1) if own.banks > 1 else 0
        self.address = bits_for(port_words(spec) - 1)
        self.element = data.StructLayout(
            {"value": self.raw, "port": self.port, "address": self.address, "last": 1, "empty": 1, "over": 1}
        )
        self.control = data.StructLayout(
            {
                "add": data.StructLayout({"first": 1, "context": self.context}),
                "finish": data.StructLayout({"valid": 1, "context": self.context}),
            }
        )
        gradient = spec.pe.operand.gradient is not None
        self.encodings = {"dense_gradient": 1, "kept_gradient": 1} if gradient else {}


class GatherPe(wiring.Component):
    """``value`` meets ``dense`` in cycle ``t``; their product meets its sum, ``control.add``, in ``t + Lm``; ``sum`` is
    the new one in ``t + Lm + La``, ``control.finish``, when it can be added to again."""

    def __init__(self, spec: AcceleratorSpec) -> None:
        self.spec = spec
        self.format = GatherFormat(spec)
        super().__init__(self.ports(spec))

    @staticmethod
    def ports(spec: AcceleratorSpec) -> dict[str, Any]:
        """Members of the signature, for whoever instantiates the emitted module."""
        f = GatherFormat(spec)
        return {"value": In(f.units.word), "dense": In(f.units.word), "control": In(f.control), "sum": Out(32)}

    def elaborate(self, platform: Any) -> Module:
        m = Module()
        units, pe = self.format.units, self.spec.pe
        m.submodules.multiply = multiply = units.multiply(pe.multiply_latency)
        m.submodules.adder = adder = units.add(pe.add_latency)
        m.submodules.sums = sums = Memory(shape=32, depth=pe.accumulators, init=[])
        write, read = sums.write_port(), sums.read_port(domain="comb")
        add, finish = self.control.add, self.control.finish
        held = Signal(32, name="held")
        total = Signal(32, name="total")
        m.d.comb += [
            multiply.a.eq(self.dense),
            multiply.b.eq(self.value),
            write.en.eq(finish.valid),
            write.addr.eq(finish.context),
            write.data.eq(adder.sum),
            read.addr.eq(add.context),
            held.eq(read.data),
            # a sum may be wanted in the very cycle in which it leaves the adder
            total.eq(Mux(finish.valid & (finish.context == add.context), adder.sum, held)),
            adder.a.eq(Mux(add.first, Const(units.zero, 32), total)),
            adder.b.eq(multiply.product),
            self.sum.eq(adder.sum),
        ]
        return m
