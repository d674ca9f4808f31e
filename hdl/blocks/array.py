"""STCE: the grid of USPEs (docs/design/machine.md)."""

from __future__ import annotations

from typing import Any, ClassVar

from amaranth import Const, Module, Mux, Signal
from amaranth.lib import wiring
from amaranth.lib.wiring import Out

from ...dataflow.accelerator import AcceleratorSpec
from .fp.units import OPERAND_UNITS
from .grid import Grid
from .pe import MultiplierUspe, Uspe, UspeFormat
from .row import StceRow

__all__ = ["MultiplierStce", "Stce"]


class Stce(Grid):
    """The systolic array; sizes, latencies and registers are those of its spec, the mapping is in ``run``.

    `weft.hdl.drive` computes ``run`` and the layout of the banks. With ``blackbox`` the PEs and row edges are instances
    of the modules ``parts``, each emitted once; without, of the components themselves, for `amaranth.sim`.

    The array stands still in every cycle in which ``advance`` is 0; the others are *array cycles*, of which cycle 0 of
    a run is that of ``start`` + 2 + ``read_latency``. An ask counts in an array cycle, and every bank answers
    ``read_latency`` array cycles later, however late that comes; what it shows in between is not looked at. Whoever
    cannot answer in time sets ``hold``: after each cycle with it the array stands still for one.

    - ``west[r]``: the ``w2e_words`` words of row ``r`` from the address on; those beyond a part may be anything.
    - ``north[c]``: a pair of column ``c``. Where ``valid`` is 0 it is a bubble, whatever the other bits.
    - ``sums[c]`` (WS, from the second k-tile on): a partial sum of column ``c``, of those that left before, in the
      order in which they left. What leaves in the array cycle of an ask, taken then or while the array stood still for
      it, must be in its answer.
    - ``south[c]``: the results of column ``c``, from the cycle in which they leave until they are taken: tile by tile,
      in OS the southernmost used row first, contexts in order; in WS rows of the dense operand in order. Every column
      delivers all the words of its tiles, those of ragged edges too. While one waits, the array stands still.

    ``busy`` holds from the cycle after ``start`` until that of the last word in any column, and in every cycle in which
    the array stands still. A run may start in any other; ``run`` is constant until then.
    """

    row = "stce_row"
    pe = "pe"
    kinds = {"pe": Uspe, "stce_row": StceRow}

    def __init__(self, spec: AcceleratorSpec, *, blackbox: bool = False) -> None:
        self.spec = spec
        self.units = OPERAND_UNITS[spec.pe.format]
        self.zero = self.units.zero
        bits = spec.pe.operand.bits
        index = UspeFormat(spec).pair["index"].shape
        pair = wiring.Signature({"value": Out(bits), "index": Out(index), "valid": Out(1)})
        super().__init__(spec, bits, pair, blackbox=blackbox)

    def _entering_word(self, m: Module, name: str, word: Any) -> Any:
        return self.units.enter(m, name, word, self._gradient("west"))

    def _entering_pair(self, m: Module, c: int, shift: Any) -> Any:
        """A bubble is made so that it adds -0.0, or 0."""
        pair, north = Signal(self.format.pe.pair, name=f"pair_{c}"), self.north[c]
        value = Mux(north.valid, north.value, self.units.bubble)
        m.d.comb += [
            pair.valid.eq(north.valid),
            pair.index.eq(north.index),
            pair.value.eq(self.units.enter(m, f"north_{c}", value, self._gradient("north"))),
        ]
        return pair

    def _gradient(self, side: str) -> Any:
        """Whether the operands of a side are gradients; False of formats that encode both alike."""
        return getattr(self.run, f"{side}_gradient", Const(0, 1))


class MultiplierStce(Stce):
    """The array of PEs of FP16 that shift by multipliers; all else is that of `Stce`."""

    kinds: ClassVar[dict[str, Any]] = {"pe": MultiplierUspe, "stce_row": StceRow}
