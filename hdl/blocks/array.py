"""STCE: the grid of PEs, its edges and its controller (docs/design/machine.md)."""

from __future__ import annotations

from typing import Any

from amaranth import ClockSignal, Const, Instance, Module, Mux, ResetSignal, Signal
from amaranth.lib import data, wiring
from amaranth.lib.wiring import In, Out

from ...dataflow.accelerator import AcceleratorSpec
from .control import StceControl
from .control_format import ADDRESS_BITS, ControlFormat
from .fp.units import OPERAND_UNITS
from .pe import MINUS_ZERO_16, MINUS_ZERO_32, Uspe
from .row import StceRow
from .skid import SouthSkid, south_signature

__all__ = ["Stce"]

ASK = wiring.Signature({"valid": Out(1), "address": Out(ADDRESS_BITS)})
"""A read of one bank of a buffer; the answer comes in the next cycle."""

_PARTS: dict[str, Any] = {"pe": Uspe, "stce_row": StceRow}


class Stce(wiring.Component):
    """The systolic array; sizes, latencies and registers are those of its spec, the mapping is in ``run``.

    `weft.hdl.drive` computes ``run`` and the layout of the banks. With ``blackbox`` the PEs and row edges are instances
    of the modules ``parts``, each emitted once; without, of the components themselves, for `amaranth.sim`.

    The array stands still in every cycle in which ``advance`` is 0; the others are *array cycles*, of which cycle 0 of
    a run is the third after that of ``start``. An ask counts in an array cycle, and every bank answers in the next one,
    however late that comes; what it shows in between is not looked at:

    - ``west[r]``: the ``w2e_words`` words of row ``r`` from the address on; those beyond a part may be anything.
    - ``north[c]``: a pair of column ``c``. Where ``valid`` is 0 it is a bubble, whatever the other bits.
    - ``sums[c]`` (WS, from the second k-tile on): a partial sum of column ``c``, of those that left before, in the
      order in which they left. What leaves before the cycle of an answer must be in it: a word of the array cycle of
      the ask, taken then or while the array stood still for it.
    - ``south[c]``: the results of column ``c``, from the cycle in which they leave until they are taken: tile by tile,
      in OS the southernmost used row first, contexts in order; in WS rows of the dense operand in order. Every column
      delivers all the words of its tiles, those of ragged edges too. While one waits, the array stands still.

    ``busy`` holds from the cycle after ``start`` until that of the last word in any column, and in every cycle in which
    the array stands still. A run may start in any other; ``run`` is constant until then.
    """

    def __init__(self, spec: AcceleratorSpec, *, blackbox: bool = False) -> None:
        self.spec = spec
        self.blackbox = blackbox
        self.format = ControlFormat(spec)
        rows, cols, f = spec.array.rows, spec.array.cols, self.format.pe
        pair = wiring.Signature({"value": Out(16), "index": Out(f.pair["index"].shape), "valid": Out(1)})
        super().__init__(
            {
                "run": In(wiring.Signature({name: Out(field.shape) for name, field in self.format.run})),
                "start": In(1),
                "busy": Out(1),
                "advance": Out(1),
                "west_ask": Out(ASK).array(rows),
                "west": In(16).array(rows, f.lanes),
                "north_ask": Out(ASK).array(cols),
                "north": In(pair).array(cols),
                "sums_ask": Out(ASK).array(cols),
                "sums": In(32).array(cols),
                "south": Out(south_signature()).array(cols),
            }
        )

    @property
    def parts(self) -> dict[str, Any]:
        """The modules that a black-boxed array is made of, by name."""
        return {name: part(self.spec) for name, part in _PARTS.items()}

    def elaborate(self, platform: Any) -> Module:
        m = Module()
        run = Signal(self.format.run)
        m.d.comb += [run[name].eq(getattr(self.run, name)) for name, _ in self.format.run]
        m.submodules.skid = skid = SouthSkid(self.spec.array.cols)
        m.submodules.control = control = StceControl(self.spec)
        m.d.comb += [
            self.advance.eq(skid.advance),
            control.en.eq(self.advance),
            control.run.eq(run),
            control.start.eq(self.start),
            self.busy.eq(control.busy | ~self.advance),
        ]
        controls, last_step = self._rows(m, run, control.step)
        m.d.comb += [control.taken.eq(last_step.token.takeover), control.returned.eq(last_step.token.returns)]
        shifts = self._ask_north(m, run, control.pairs)
        self._grid(m, run, controls, shifts, self._sums(m, control.sums), skid.leaving)
        for port, inside in zip(self.south, skid.south, strict=True):
            wiring.connect(m, inside, wiring.flipped(port))
        return m

    def _rows(self, m: Module, run: Any, step: Any) -> tuple[list[Any], Any]:
        """The row edges, north to south: the control word of each row, and the step of the last."""
        f = self.format
        now = Signal(f.delay_bits)
        age = Signal(f.delay_bits + 1)
        old = Signal()
        due = Signal()
        with m.If(self.advance):
            m.d.sync += now.eq(now + 1)
            with m.If(self.start):
                m.d.sync += age.eq(0)
            with m.Elif(~old):
                m.d.sync += age.eq(age + 1)
        m.d.comb += [old.eq(age >= run.row_delay), due.eq(~self.start & (old | (age + 1 >= run.row_delay)))]
        controls, drain = [], run.drain_words
        for r in range(self.spec.array.rows):
            row = {"en": self.advance, "run": run, "now": now, "due": due, "step": step, "drain": drain}
            made = self._place(m, f"row_{r}", "stce_row", row)
            controls.append(made["control"])
            m.d.comb += [self.west_ask[r].valid.eq(step.ask.valid), self.west_ask[r].address.eq(step.ask.address)]
            last, step, drain = step, made["step_south"], made["drain_south"]
        return controls, last

    def _ask_north(self, m: Module, run: Any, ask: Any) -> list[Any]:
        """The asks for pairs move one column a cycle; whether the pairs of each column move."""
        shifts = []
        for port in self.north_ask:
            m.d.comb += [port.valid.eq(ask.valid), port.address.eq(ask.address)]
            after = Signal.like(ask)
            shift = Signal()
            with m.If(self.advance):
                m.d.sync += after.eq(ask)
            m.d.comb += shift.eq(after.valid | ~run.weight_stationary)
            shifts.append(shift)
            ask = after
        return shifts

    def _sums(self, m: Module, issued: Any) -> list[Any]:
        """Partial sums are asked for so that they come with the products of their issue; what enters each column."""
        for i in range(self.spec.pe.multiply_latency):
            later = Signal(self.format.sums, name=f"sums_{i}")
            with m.If(self.advance):
                m.d.sync += later.eq(issued)
            issued = later
        address = Signal(ADDRESS_BITS)
        now = Signal(ADDRESS_BITS)
        m.d.comb += now.eq(Mux(issued.restart, 0, address))
        with m.If(self.advance):
            m.d.sync += address.eq(now + issued.valid)
        ask = Signal(data.StructLayout({"valid": 1, "address": ADDRESS_BITS}))
        m.d.comb += [ask.valid.eq(issued.valid & ~issued.fresh), ask.address.eq(now)]
        entering = []
        for port, answer in zip(self.sums_ask, self.sums, strict=True):
            m.d.comb += [port.valid.eq(ask.valid), port.address.eq(ask.address)]
            after = Signal.like(ask)
            total = Signal(32)
            with m.If(self.advance):
                m.d.sync += after.eq(ask)
            m.d.comb += total.eq(Mux(after.valid, answer, Const(MINUS_ZERO_32, 32)))
            entering.append(total)
            ask = after
        return entering

    def _grid(self, m: Module, run: Any, controls: list[Any], shifts: list[Any], sums: list[Any], south: Any) -> None:
        f, enter = self.format.pe, OPERAND_UNITS[self.spec.pe.format].enter
        chains: list[tuple[Any, Any]] = [(Const(0, 1), Const(0, 32))] * self.spec.array.cols
        pairs = [self._entering_pair(m, c) for c in range(self.spec.array.cols)]
        for r, control in enumerate(controls):
            words: Any = Signal(f.words, name=f"words_{r}")
            m.d.comb += [words[x].eq(enter(m, f"west_{r}_{x}", word)) for x, word in enumerate(self.west[r])]
            for c in range(self.spec.array.cols):
                if r == self.spec.array.rows - 1:
                    leaving = control.finish
                made = self._place(
                    m,
                    f"pe_{r}_{c}",
                    "pe",
                    {
                        "en": self.advance,
                        "weight_stationary": run.weight_stationary,
                        "tap": run.tap,
                        "shift": shifts[c],
                        "control": control,
                        "words": words,
                        "pair": pairs[c],
                        "sum_north": sums[c],
                        "chain_valid": chains[c][0],
                        "chain": chains[c][1],
                    },
                )
                control, words = made["control_east"], made["words_east"]
                pairs[c], sums[c] = made["pair_south"], made["sum_south"]
                chains[c] = made["chain_valid_south"], made["chain_south"]
                if r == self.spec.array.rows - 1:
                    self._south(m, south[c], run.weight_stationary, leaving, sums[c], chains[c])

    def _entering_pair(self, m: Module, c: int) -> Any:
        """The answer of column ``c``'s bank, a bubble made so that it adds -0.0."""
        pair, north = Signal(self.format.pe.pair, name=f"pair_{c}"), self.north[c]
        value = Mux(north.valid, north.value, MINUS_ZERO_16)
        m.d.comb += [
            pair.valid.eq(north.valid),
            pair.index.eq(north.index),
            pair.value.eq(OPERAND_UNITS[self.spec.pe.format].enter(m, f"north_{c}", value)),
        ]
        return pair

    def _south(self, m: Module, port: Any, stationary: Any, leaving: Any, total: Any, chain: tuple[Any, Any]) -> None:
        m.d.comb += [
            port.valid.eq(Mux(stationary, leaving.valid & leaving.last, chain[0])),
            port.word.eq(Mux(stationary, total, chain[1])),
        ]

    def _place(self, m: Module, name: str, part: str, inputs: dict[str, Any]) -> dict[str, Any]:
        """One PE or row edge with ``inputs`` wired; its outputs."""
        members = _PARTS[part].ports(self.spec)
        outputs = [port for port in members if port not in inputs]
        if not self.blackbox:
            m.submodules[name] = component = _PARTS[part](self.spec)
            m.d.comb += [getattr(component, port).eq(value) for port, value in inputs.items()]
            return {port: getattr(component, port) for port in outputs}
        made = {port: Signal(members[port].shape, name=f"{name}_{port}") for port in outputs}
        m.submodules[name] = Instance(
            part,
            i_clk=ClockSignal(),
            i_rst=ResetSignal(allow_reset_less=True),
            **{f"i_{port}": value for port, value in inputs.items()},
            **{f"o_{port}": signal for port, signal in made.items()},
        )
        return made
