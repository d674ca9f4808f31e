"""A grid of PEs, its edges and its controller, whatever its PEs do with a pair (docs/design/machine.md)."""

from __future__ import annotations

from typing import Any, ClassVar

from amaranth import ClockSignal, Const, Instance, Module, Mux, ResetSignal, Signal
from amaranth.lib import data, wiring
from amaranth.lib.wiring import In, Out

from .control import StceControl
from .control_format import ADDRESS_BITS, ControlFormat
from .frame import Gridded
from .skid import SouthSkid, south_signature

__all__ = ["Grid"]

ASK = wiring.Signature({"valid": Out(1), "address": Out(ADDRESS_BITS)})
"""A read of one bank of a buffer; the answer comes ``read_latency`` array cycles later."""


class Grid(wiring.Component):
    """PEs and rows, the parts of a grid, between its edges, with the ports and in the cycles that `Stce` tells."""

    spec: Any
    control: ClassVar[type[StceControl]] = StceControl
    row: ClassVar[str]
    """Of its ``kinds`` the edge of a row; the other one is the PE."""
    pe: ClassVar[str]
    kinds: ClassVar[dict[str, Any]]
    zero: int
    """What a sum begins with."""

    def __init__(self, spec: Gridded, word_bits: int, pair: wiring.Signature, *, blackbox: bool = False) -> None:
        self.blackbox = blackbox
        self.format = ControlFormat(spec)
        self.frame = self.format.frame
        rows, cols = self.frame.rows, self.frame.cols
        super().__init__(
            {
                "run": In(wiring.Signature({name: Out(field.shape) for name, field in self.format.run})),
                "start": In(1),
                "hold": In(1),
                "busy": Out(1),
                "advance": Out(1),
                "west_ask": Out(ASK).array(rows),
                "west": In(word_bits).array(rows, self.frame.lanes),
                "north_ask": Out(ASK).array(cols),
                "north": In(pair).array(cols),
                "sums_ask": Out(ASK).array(cols),
                "sums": In(32).array(cols),
                "south": Out(south_signature()).array(cols),
                **self.more_ports(),
            }
        )

    def more_ports(self) -> dict[str, Any]:
        """Members of the signature that only this kind of grid has."""
        return {}

    def _entering_word(self, m: Module, name: str, word: Any) -> Any:
        """A word from the west as the PEs take it."""
        raise NotImplementedError

    def _entering_pair(self, m: Module, c: int, shift: Any) -> Any:
        """The answer of column ``c``'s bank as the PEs take it, a bubble made so that it adds nothing; ``shift``:
        whether it was asked."""
        raise NotImplementedError

    def _behind(self, m: Module, run: Any, skid: SouthSkid) -> None:
        """What stands at the southern edge besides."""

    @property
    def parts(self) -> dict[str, Any]:
        """The modules that a black-boxed array is made of, by name."""
        return {name: part(self.spec) for name, part in self.kinds.items()}

    def elaborate(self, platform: Any) -> Module:
        m = Module()
        run = Signal(self.format.run)
        m.d.comb += [run[name].eq(getattr(self.run, name)) for name, _ in self.format.run]
        m.submodules.skid = skid = SouthSkid(self.frame.cols)
        m.submodules.control = control = self.control(self.spec)
        m.d.comb += [
            skid.hold.eq(self.hold),
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
        self._behind(m, run, skid)
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
        for r in range(self.frame.rows):
            row = {"en": self.advance, "run": run, "now": now, "due": due, "step": step, "drain": drain}
            made = self._place(m, f"row_{r}", self.row, row)
            controls.append(made["control"])
            m.d.comb += [self.west_ask[r].valid.eq(step.ask.valid), self.west_ask[r].address.eq(step.ask.address)]
            last, step, drain = step, made["step_south"], made["drain_south"]
        return controls, last

    def _ask_north(self, m: Module, run: Any, ask: Any) -> list[Any]:
        """The asks for pairs move one column a cycle; whether the pairs of each column move."""
        shifts = []
        for c, answered in enumerate(self._asked_in_turn(m, "pairs", self.north_ask, ask)):
            shift = Signal(name=f"shift_{c}")
            m.d.comb += shift.eq(answered | ~run.weight_stationary)
            shifts.append(shift)
        return shifts

    def _asked_in_turn(self, m: Module, what: str, ports: Any, ask: Any) -> list[Any]:
        """``ports``, one a column, ask what column 0 asks, each a cycle after its western neighbour; whether the ask of
        each is answered now."""
        asked = []
        for c, port in enumerate(ports):
            m.d.comb += [port.valid.eq(ask.valid), port.address.eq(ask.address)]
            after = Signal.like(ask, name=f"{what}_after_{c}")
            with m.If(self.advance):
                m.d.sync += after.eq(ask)
            asked.append(after.valid)
            ask = after
        for i in range(self.frame.read_latency - 1):
            later = Signal(name=f"{what}_later_{i}")
            with m.If(self.advance):
                m.d.sync += later.eq(asked[-1])
            asked.append(later)
        return asked[self.frame.read_latency - 1 :]

    def _sums(self, m: Module, issued: Any) -> list[Any]:
        """Partial sums are asked for so that they come with the products of their issue; what enters each column."""
        for i in range(self.frame.multiply_latency):
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
        for c, answered in enumerate(self._asked_in_turn(m, "sums", self.sums_ask, ask)):
            total = Signal(32, name=f"total_{c}")
            m.d.comb += total.eq(Mux(answered, self.sums[c], Const(self.zero, 32)))
            entering.append(total)
        return entering

    def _grid(self, m: Module, run: Any, controls: list[Any], shifts: list[Any], sums: list[Any], south: Any) -> None:
        f = self.format.pe
        chains: list[tuple[Any, Any]] = [(Const(0, 1), Const(0, 32))] * self.frame.cols
        pairs = [self._entering_pair(m, c, shifts[c]) for c in range(self.frame.cols)]
        for r, control in enumerate(controls):
            words: Any = Signal(f.words, name=f"words_{r}")
            m.d.comb += [
                words[x].eq(self._entering_word(m, f"west_{r}_{x}", word)) for x, word in enumerate(self.west[r])
            ]
            for c in range(self.frame.cols):
                if r == self.frame.rows - 1:
                    leaving = control.finish
                made = self._place(
                    m,
                    f"pe_{r}_{c}",
                    self.pe,
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
                if r == self.frame.rows - 1:
                    self._south(m, south[c], run.weight_stationary, leaving, sums[c], chains[c])

    def _south(self, m: Module, port: Any, stationary: Any, leaving: Any, total: Any, chain: tuple[Any, Any]) -> None:
        m.d.comb += [
            port.valid.eq(Mux(stationary, leaving.valid & leaving.last, chain[0])),
            port.word.eq(Mux(stationary, total, chain[1])),
        ]

    def _place(self, m: Module, name: str, part: str, inputs: dict[str, Any]) -> dict[str, Any]:
        """One PE or row edge with ``inputs`` wired; its outputs."""
        members = self.kinds[part].ports(self.spec)
        outputs = [port for port in members if port not in inputs]
        if not self.blackbox:
            m.submodules[name] = component = self.kinds[part](self.spec)
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
