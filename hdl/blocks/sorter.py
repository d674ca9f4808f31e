"""SORE: the largest elements of every N:M group, in index order. Cycles are those of docs/design/machine.md.

Magnitude is the word without its sign, so a NaN is the largest; equal magnitudes keep the lower index.
"""

from __future__ import annotations

from typing import Any

from amaranth import C, Cat, EnableInserter, Module, Mux, Signal, Value
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out

from ...dataflow.accelerator import AcceleratorSpec
from ...dataflow.operand import FP16, OperandFormat
from ...workloads.sparsity import NMPattern
from .batcher import batcher_stages, sort_words
from .enabled import enable_port
from .place import place

__all__ = [
    "NetworkLane",
    "SerialLane",
    "Sore",
    "drive_sore",
    "index_bits",
    "network_latency",
    "pair_signature",
    "sore_client",
    "sore_signature",
]

_PART = "sore_lane"


def index_bits(pattern: NMPattern) -> int:
    """Width of the index of a pair; a port has at least one bit."""
    return max(1, pattern.index_bits)


def pair_signature(pattern: NMPattern, bits: int = FP16.bits) -> wiring.Signature:
    """A kept element: its bits and its index in the group, which mean nothing unless ``valid``."""
    return wiring.Signature({"value": Out(bits), "index": Out(index_bits(pattern)), "valid": Out(1)})


def _rank_bits(operand: OperandFormat) -> int:
    """Of a word as a lane ranks it."""
    return operand.bits + operand.integer


def _encoding(operand: OperandFormat) -> dict[str, Any]:
    """The port that says whether values are encoded as gradients, of formats that encode these otherwise."""
    return {} if operand.gradient is None else {"gradient": In(1)}


def sore_signature(spec: AcceleratorSpec, pattern: NMPattern, stalls: bool = False) -> wiring.Signature:
    """Members of `Sore`."""
    lanes, operand = spec.sore.lanes, spec.pe.operand
    words, pairs = (1, 1) if spec.sore.kind == "serial" else (pattern.group, pattern.keep)
    return wiring.Signature(
        {
            "step": In(1),
            "value": In(operand.bits).array(lanes, words),
            "valid": In(words).array(lanes),
            "leaving": Out(1),
            "pair": Out(pair_signature(pattern, operand.bits)).array(lanes, pairs),
            "nan": Out(1).array(lanes),
            **_encoding(operand),
            **enable_port(stalls),
            **({"pairs_leave": Out(1)} if stalls else {}),
        }
    )


def sore_client(spec: AcceleratorSpec, pattern: NMPattern) -> wiring.Signature:
    """Members of what drives a `Sore`: its own, the other way round.

    Not its signature flipped, through which Amaranth finds no array of interfaces.
    """
    members = sore_signature(spec, pattern).members
    return wiring.Signature({name: member.flip() for name, member in members.items()})


def drive_sore(client: Any, sore: Any) -> list[Any]:
    """Assignments that give a client's groups to ``sore``, an engine or a client further out, and its pairs back."""
    ours, theirs = client.signature.flatten(client), sore.signature.flatten(sore)
    return [
        its.eq(own) if member.flow == Out else own.eq(its)
        for (_, member, own), (_, _, its) in zip(ours, theirs, strict=True)
    ]


def network_latency(pattern: NMPattern) -> int:
    """Stages of both networks."""
    return len(batcher_stages(pattern.group)) + len(batcher_stages(pattern.keep))


class _Lane(wiring.Component):
    def __init__(self, pattern: NMPattern, operand: OperandFormat = FP16, stalls: bool = False) -> None:
        self.pattern, self.operand, self.stalls = pattern, operand, stalls
        super().__init__(self.ports(pattern, operand, stalls))

    def elaborate(self, platform: Any) -> Any:
        m = Module()
        self._sort(m)
        return EnableInserter(self.en)(m) if self.stalls else m


class SerialLane(_Lane):
    """Compare and replace: one value a cycle.

    An element of the group enters in each cycle with ``valid``, in index order; ``last`` closes the group with this
    cycle. The pairs leave one a cycle from the next cycle on, so groups close at least ``keep`` cycles apart. ``nan``
    tells from then on, until the next group closes, whether the group held a NaN.

    With ``stalls`` everything holds in a cycle without ``en``.
    """

    @staticmethod
    def ports(pattern: NMPattern, operand: OperandFormat = FP16, stalls: bool = False) -> dict[str, Any]:
        """Members of the signature."""
        return {
            "value": In(_rank_bits(operand)),
            "index": In(index_bits(pattern)),
            "valid": In(1),
            "last": In(1),
            "pair": Out(pair_signature(pattern, _rank_bits(operand))),
            "nan": Out(1),
            **_encoding(operand),
            **enable_port(stalls),
        }

    def _sort(self, m: Module) -> None:
        keep = self.pattern.keep
        bits = _rank_bits(self.operand)
        held = [Signal(bits + index_bits(self.pattern), name=f"held_{p}") for p in range(keep)]
        following = [Signal.like(word, name=f"following_{p}") for p, word in enumerate(held)]
        used = Signal(keep)
        append, close_up = self._offer(m, held, used)

        for p, (word, target) in enumerate(zip(held, following, strict=True)):
            m.d.comb += target.eq(word)
            with m.If(append[p]):
                m.d.comb += target.eq(Cat(self.value, self.index))
            if p + 1 < keep:
                with m.Elif(close_up[p]):
                    m.d.comb += target.eq(held[p + 1])
            m.d.sync += word.eq(target)
        m.d.sync += used.eq(Mux(self.last, 0, used | append))
        self._leave(m, following, used | append)
        self._flag(m)

    def _offer(self, m: Module, held: list[Signal], used: Signal) -> tuple[Signal, Signal]:
        """Which register takes the offered value, and which take over from the next one.

        A value meets only the held ones. How those rank among each other is remembered: ``smaller[q, p]``, ``q`` before
        ``p``, from when the later of the two came.
        """
        keep, sign = len(held), _rank_bits(self.operand) - 1
        smaller = {(q, p): Signal(name=f"smaller_{q}_{p}") for p in range(keep) for q in range(p)}
        above, smallest, append, close_up = (
            Signal(keep, name=name) for name in ("above", "smallest", "append", "close_up")
        )
        beaten = Signal()
        m.d.comb += beaten.eq(self.valid & used[-1] & (smallest & above).any())
        for p, word in enumerate(held):
            m.d.comb += [
                above[p].eq(self.value[:sign] > word[:sign]),
                # Of equals the later one goes.
                smallest[p].eq(
                    Cat(C(1), *(smaller[p, r] for r in range(p + 1, keep)), *(~smaller[q, p] for q in range(p))).all()
                ),
                close_up[p].eq(beaten & smallest[: p + 1].any()),
                append[p].eq(self.valid & ~used[p] & (used[p - 1] if p else 1) | (beaten if p + 1 == keep else 0)),
            ]

        for (q, p), order in smaller.items():
            with m.If(append[p]):
                m.d.sync += order.eq(Mux(close_up[q], above[q + 1], above[q]))
            if p + 1 < keep:
                with m.Elif(close_up[p]):
                    m.d.sync += order.eq(Mux(close_up[q], smaller[q + 1, p + 1], smaller[q, p + 1]))
        return append, close_up

    def _leave(self, m: Module, words: list[Signal], used: Value) -> None:
        """Take the pairs of a closing group aside and send them out, first index first."""
        leaving = [Signal.like(word, name=f"leaving_{p}") for p, word in enumerate(words)]
        left = Signal(len(words))
        with m.If(self.last):
            m.d.sync += left.eq(used)
            m.d.sync += [target.eq(word) for target, word in zip(leaving, words, strict=True)]
        with m.Else():
            m.d.sync += left.eq(left >> 1)
            m.d.sync += [leaving[p].eq(leaving[p + 1]) for p in range(len(words) - 1)]
        m.d.comb += [Cat(self.pair.value, self.pair.index).eq(leaving[0]), self.pair.valid.eq(left[0])]

    def _flag(self, m: Module) -> None:
        seen = Signal()
        now = Signal()
        m.d.comb += now.eq(seen | (self.valid & _is_nan(self, self.value)))
        m.d.sync += seen.eq(now & ~self.last)
        with m.If(self.last):
            m.d.sync += self.nan.eq(now)


class NetworkLane(_Lane):
    """Two Batcher networks, by magnitude and, among the kept, by index: a group a cycle.

    ``valid`` has a bit for every element that the group has. The pairs and ``nan`` leave `latency` cycles later.

    With ``stalls`` everything holds in a cycle without ``en``.
    """

    @property
    def latency(self) -> int:
        """Cycles until a group leaves."""
        return network_latency(self.pattern)

    @staticmethod
    def ports(pattern: NMPattern, operand: OperandFormat = FP16, stalls: bool = False) -> dict[str, Any]:
        """Members of the signature."""
        return {
            "value": In(_rank_bits(operand)).array(pattern.group),
            "valid": In(pattern.group),
            "pair": Out(pair_signature(pattern, _rank_bits(operand))).array(pattern.keep),
            "nan": Out(1),
            **_encoding(operand),
            **enable_port(stalls),
        }

    def _sort(self, m: Module) -> None:
        width, bits = index_bits(self.pattern), _rank_bits(self.operand)
        # The index is inverted, so that of equal magnitudes the lower one ranks first.
        words = [
            Cat(value[bits - 1], C(~j, width), value[: bits - 1], self.valid[j])
            for j, value in enumerate(self.value[j] for j in range(self.pattern.group))
        ]
        ranked = sort_words(m, "by_magnitude", words, key=1)[: self.pattern.keep]
        turned = [Cat(w[1 + width : -1], w[0], w[1 : 1 + width], w[-1]) for w in ranked]
        for p, word in enumerate(sort_words(m, "by_index", turned, key=bits)[: self.pattern.keep]):
            pair = self.pair[p]
            m.d.comb += [pair.value.eq(word[:bits]), pair.index.eq(~word[bits:-1]), pair.valid.eq(word[-1])]
        holds_nan = Cat(self.valid[j] & _is_nan(self, self.value[j]) for j in range(self.pattern.group)).any()
        m.d.comb += self.nan.eq(_delay(m, "nan", holds_nan, self.latency))


class Sore(wiring.Component):
    """The engine: lanes side by side, one round of groups at a time.

    In a cycle with ``step``, lane ``i`` takes in ``value[i]``: one element of its group in a ``serial`` engine, where a
    round takes ``pattern.group`` steps, or all of them in a ``network`` engine, where it takes one. The bits of
    ``valid[i]`` tell which elements exist: those of a short group come first. ``leaving`` is high in the cycle in which
    the first pairs of a round leave, in a ``network`` engine all of them; ``nan`` is that round's then.

    With ``stalls`` everything holds in a cycle without ``en``, and ``pairs_leave`` tells in which cycles pairs of a
    round leave, in a ``serial`` engine whether or not there is one. With ``blackbox`` the lanes are instances of the
    module in `parts`.
    """

    def __init__(
        self, spec: AcceleratorSpec, pattern: NMPattern, *, stalls: bool = False, blackbox: bool = False
    ) -> None:
        spec.check_pattern(pattern)
        self.pattern = pattern
        self.operand = spec.pe.operand
        self.kind = spec.sore.kind
        self.lanes = spec.sore.lanes
        self.stalls = stalls
        self.blackbox = blackbox
        super().__init__(sore_signature(spec, pattern, stalls))

    @property
    def parts(self) -> dict[str, Any]:
        """The module that a black-boxed engine is made of, by name."""
        lane = SerialLane if self.kind == "serial" else NetworkLane
        return {_PART: lane(self.pattern, self.operand, self.stalls)} if self._part else {}

    @property
    def _part(self) -> str | None:
        # The network of 1:1 is nothing but wires: a module without the clock that an instance connects.
        wires = self.kind == "network" and not network_latency(self.pattern)
        return _PART if self.blackbox and not wires else None

    def elaborate(self, platform: Any) -> Any:
        m = Module()
        if self.kind == "serial":
            self._serial(m)
        else:
            self._network(m)
        if not self.stalls:
            return m
        later = _later(m, "pairs_leave", self.leaving, self.pattern.keep - 1 if self.kind == "serial" else 0)
        m.d.comb += self.pairs_leave.eq(Cat(self.leaving, *later).any())
        return EnableInserter(self.en)(m)

    def _lane(self, m: Module, i: int, kind: type[_Lane]) -> Any:
        of = (self.pattern, self.operand, self.stalls)
        lane = place(m, f"lane_{i}", kind, *of, module=self._part)
        if self.stalls:
            m.d.comb += lane.en.eq(self.en)
        return lane

    def _serial(self, m: Module) -> None:
        phase = Signal(index_bits(self.pattern))
        last = Signal()
        m.d.comb += last.eq(self.step & (phase == self.pattern.group - 1))
        with m.If(self.step):
            m.d.sync += phase.eq(Mux(last, 0, phase + 1))
        m.d.sync += self.leaving.eq(last)
        for i in range(self.lanes):
            lane = self._lane(m, i, SerialLane)
            m.d.comb += [
                lane.value.eq(_ranked(self.value[i][0], self.operand)),
                lane.index.eq(phase),
                lane.valid.eq(self.valid[i] & self.step),
                lane.last.eq(last),
                *_encoded(self, lane),
                self.nan[i].eq(lane.nan),
                *_copy(lane.pair, self.pair[i][0], self.operand),
            ]

    def _network(self, m: Module) -> None:
        for i in range(self.lanes):
            lane = self._lane(m, i, NetworkLane)
            m.d.comb += [lane.valid.eq(Mux(self.step, self.valid[i], 0)), self.nan[i].eq(lane.nan)]
            m.d.comb += _encoded(self, lane)
            m.d.comb += [lane.value[j].eq(_ranked(self.value[i][j], self.operand)) for j in range(self.pattern.group)]
            for p in range(self.pattern.keep):
                m.d.comb += _copy(lane.pair[p], self.pair[i][p], self.operand)
        m.d.comb += self.leaving.eq(_delay(m, "leaving", self.step, network_latency(self.pattern)))


def _copy(source: wiring.PureInterface, target: wiring.PureInterface, operand: OperandFormat) -> list[Value]:
    return [
        target.value.eq(_unranked(source.value, operand)),
        target.index.eq(source.index),
        target.valid.eq(source.valid),
    ]


def _is_nan(lane: _Lane, value: Value) -> Value:
    operand = lane.operand
    highest: Any = operand.highest
    if operand.gradient is not None:
        highest = Mux(lane.gradient, operand.gradient.highest, operand.highest)
    return value[: _rank_bits(operand) - 1] > highest


def _ranked(value: Value, operand: OperandFormat) -> Value:
    """What a lane ranks: an integer as its magnitude, which may take all of its bits, below its sign."""
    if not operand.integer:
        return value
    return Cat(Mux(value[-1], -value, value)[: operand.bits], value[-1])


def _unranked(word: Value, operand: OperandFormat) -> Value:
    if not operand.integer:
        return word
    return Mux(word[-1], -word[:-1], word[:-1])[: operand.bits]


def _encoded(engine: Sore, lane: Any) -> list[Value]:
    return [] if engine.operand.gradient is None else [lane.gradient.eq(engine.gradient)]


def _later(m: Module, name: str, signal: Value, cycles: int) -> list[Value]:
    """``signal`` of one cycle ago, and so on."""
    found: list[Value] = []
    for cycle in range(cycles):
        delayed = Signal(name=f"{name}_{cycle + 1}")
        m.d.sync += delayed.eq(found[-1] if found else signal)
        found.append(delayed)
    return found


def _delay(m: Module, name: str, signal: Value, cycles: int) -> Value:
    return [signal, *_later(m, name, signal, cycles)][-1]
