"""USPE: one multiplier, one adder, and the registers around them (docs/design/machine.md, OS and WS)."""

from __future__ import annotations

from typing import Any

from amaranth import Cat, Const, Module, Mux, Signal
from amaranth.lib import data
from amaranth.utils import ceil_log2

from ...dataflow.accelerator import AcceleratorSpec
from .enabled import enabled
from .fp.add import Fp32Add
from .fp.units import OPERAND_UNITS
from .frame import frame_of
from .grid_pe import GridPe, PeFormat

__all__ = ["MultiplierUspe", "Uspe", "UspeFormat"]


class UspeFormat(PeFormat):
    """Layouts of what moves from USPE to USPE, sized for a machine."""

    def __init__(self, spec: AcceleratorSpec) -> None:
        word, operand = OPERAND_UNITS[spec.pe.format].word, spec.pe.operand
        # which of the two encodings the dense words have, and the pairs
        run = {"west_gradient": 1, "north_gradient": 1} if operand.gradient is not None else {}
        index = max(1, ceil_log2(spec.pe.max_group))
        super().__init__(frame_of(spec), word, data.StructLayout({"value": word, "index": index, "valid": 1}), run=run)


class Uspe(GridPe):
    """One PE.

    Operands issued in cycle ``t`` meet their sum in ``t + Lm`` and make a new one in ``t + Lm + La``, when it can be
    added to again, drained, and read at ``sum_south``. ``control_east``, ``words_east`` and, in OS, ``pair_south``
    repeat their inputs a cycle later; ``chain_south`` shows in a cycle what ``chain`` was in the one before, or a word
    of this PE's own. The part that is loaded and the part in use lie in two banks of one memory; ``control`` names
    them. An issue meets word ``offset + index`` of its part.

    WS: ``shift`` moves the shadow pairs one register on; ``tap`` is the number of pairs held, less one. The pairs in
    use change, and are first used, in the cycle in which ``control.issue.takeover`` is set. OS: ``shift`` 1, ``tap`` 0.
    In a cycle without ``en`` everything holds.
    """

    def __init__(self, spec: AcceleratorSpec) -> None:
        self.spec = spec
        self.units = OPERAND_UNITS[spec.pe.format]
        super().__init__(UspeFormat(spec))

    @staticmethod
    def ports(spec: AcceleratorSpec) -> dict[str, Any]:
        """Members of the signature, for whoever instantiates the emitted module."""
        return UspeFormat(spec).ports

    def _product(self, m: Module, pair: Any) -> Any:
        """The pair and its partner in the part in use; a bubble meets +0.0, so that its -0.0 is its product."""
        f, issue = self.format, self.control.issue
        position = Signal(f.position)
        m.d.comb += position.eq(issue.offset + pair.index)
        partner = self._word(m, position)
        m.submodules.multiply = multiply = enabled(self.units.multiply(self.spec.pe.multiply_latency))
        # whatever its fraction, a number of exponent 0 makes a zero of -0.0
        fraction = self.spec.pe.operand.fraction
        met = Cat(partner[:fraction], Mux(pair.valid, partner[fraction:], 0))
        m.d.comb += [multiply.en.eq(self.en), multiply.a.eq(met), multiply.b.eq(pair.value)]
        return multiply.product

    def _adder(self, latency: int) -> Any:
        return self.units.add(latency)

    def _accumulate(self, m: Module, product: Any) -> Any:
        """A product meets its sum, which may be leaving the adder in this very cycle; the adder's output."""
        add, finish = self.control.add, self.control.finish
        m.submodules.adder = adder = enabled(self._adder(self.spec.pe.add_latency))
        total = self._context_memory(m, "sums", finish.valid, adder.sum, add.context)
        start = Mux(self.weight_stationary, self.sum_north, Const(self.units.zero, 32))
        m.d.comb += [
            adder.en.eq(self.en),
            adder.a.eq(Mux(add.first, start, total)),
            adder.b.eq(product),
            self.sum_south.eq(adder.sum),
        ]
        return adder.sum


class MultiplierUspe(Uspe):
    """A USPE of FP16, in bits and cycles the same, whose adder shifts by two more multipliers: fewer LUTs."""

    def _adder(self, latency: int) -> Fp32Add:
        return Fp32Add(latency, multipliers=True)
