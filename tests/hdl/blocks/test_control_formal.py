"""The array's flow control proved: no word is lost at the southern edge, and the controller never deadlocks."""

from __future__ import annotations

from typing import Any

import pytest
from amaranth.hdl import Assert, Assume, C, Cat, Elaboratable, Fragment, Module, Mux, Signal, Value
from amaranth.lib import wiring
from amaranth.lib.wiring import In

from weft.dataflow.stce.spec import ArraySpec, PESpec
from weft.hdl.blocks.control import StceControl
from weft.hdl.blocks.skid import SouthSkid

from ...strategies import make_spec
from ..proof import bounded, mutant, proved

COLUMNS, WIDTH, NUMBER = 3, 4, 4


class SkidContract(wiring.Component):
    """Any words, any receivers, held at any time; one word of each column, any of them, is marked and followed.

    What comes from the array is numbered, and so is what is taken. The numbers are never more than one apart, so that
    nothing is lost or doubled; the word taken under the number of the marked one is the marked one.
    """

    def __init__(self, skid: Any) -> None:
        self.skid = skid
        each = {name: In(COLUMNS) for name in ("valid", "ready", "mark")}
        super().__init__({"word": In(WIDTH).array(COLUMNS), "hold": In(1), **each})

    def elaborate(self, platform: object) -> Module:
        m = Module()
        m.submodules.skid = skid = self.skid(COLUMNS, WIDTH)
        waiting = []
        for c in range(COLUMNS):
            leaving, south = skid.leaving[c], skid.south[c]
            m.d.comb += [leaving.valid.eq(self.valid[c]), leaving.word.eq(self.word[c]), south.ready.eq(self.ready[c])]
            waiting.append(self.column(m, skid.advance, leaving, south, self.mark[c], f"of_{c}"))
        held = Signal()
        m.d.sync += held.eq(self.hold)
        m.d.comb += [skid.hold.eq(self.hold), Assert(skid.advance == ~(Cat(waiting).any() | held))]
        ready_before, before = Signal(), Signal()
        m.d.sync += [ready_before.eq(self.ready.all()), before.eq(1)]
        m.d.comb += Assert(~(before & ready_before & ~held) | skid.advance)
        return m

    def column(self, m: Module, advance: Any, leaving: Any, south: Any, mark: Any, name: str) -> Any:
        """The claims of one column; whether a word of it waits."""
        sent, gone, number = (Signal(NUMBER, name=f"{what}_{name}") for what in ("sent", "gone", "number"))
        marked, followed = Signal(name=f"marked_{name}"), Signal(WIDTH, name=f"followed_{name}")
        comes, goes = advance & leaving.valid, south.valid & south.ready
        m.d.sync += [sent.eq(sent + comes), gone.eq(gone + goes)]
        waits, over = sent != gone, marked & (number == gone) & goes
        with m.If(mark & comes & ~(marked & ~over)):
            m.d.sync += [marked.eq(~goes), number.eq(sent), followed.eq(leaving.word)]
            # one that is taken in the cycle in which it comes is followed no further
            m.d.comb += Assert(~goes | (south.word == leaving.word))
        with m.Elif(over):
            m.d.sync += marked.eq(0)
        m.d.comb += [
            Assert(~waits | (sent == (gone + 1)[:NUMBER])),
            Assert(~(waits & comes)),
            Assert(south.valid == (waits | comes)),
            Assert(~marked | (waits & (number == gone) & (south.word == followed))),
        ]
        return waits


def test_no_word_is_lost_doubled_or_overtaken_at_the_southern_edge(tmp_path):
    """And a word stays until it is taken, the array moves on when all are, and always does once all are ready."""
    assert proved(SkidContract(SouthSkid), tmp_path, 4)


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("kept.eq(shown)", "kept.eq(came)"),
        ("shown.eq(Mux(advance, came, kept))", "shown.eq(came)"),
        ("out.valid.eq(Mux(advance, leaving.valid, full))", "out.valid.eq(leaving.valid | full)"),
        ("waits = out.valid & ~out.ready", "waits = out.valid & ~out.ready & advance"),
        ("(Cat(waits).any() | self.hold)", "Cat(waits).any()"),
        ("self.advance.eq(~(Cat(waits).any() | self.hold))", "self.advance.eq(~(Cat(waits[1:]).any() | self.hold))"),
        (
            "self.advance.eq(~(Cat(waits).any() | self.hold))",
            "self.advance.eq(~(Cat(waits).any() | self.hold) & self.advance)",
        ),
    ],
)
def test_a_broken_skid_buffer_is_refuted(old, new, tmp_path):
    assert not proved(SkidContract(mutant(SouthSkid, old, new)), tmp_path, 4)


SPEC = make_spec(
    array=ArraySpec(rows=2, cols=2, w2e_words=1),
    pe=PESpec(max_group=2, accumulators=3, dense_words=3, weight_pairs=2, multiply_latency=1, add_latency=2),
)
LONGEST_ECHO = 3
"""Cycles after which the step of row 0 comes back from the last row, at most."""
PATIENCE = 7
"""In any so many cycles a part is taken or a pair issued, while the controller is active; one fewer is not proved."""


class _Made(Elaboratable):
    def __init__(self, fragment: Any) -> None:
        self.fragment = fragment

    def elaborate(self, platform: object) -> Any:
        return self.fragment


class Progress(wiring.Component):
    """Runs of any legal registers, one after the other, the next at any time after the last; the last row repeats the
    steps of row 0 any constant number of cycles later, as the rows between do. ``only``: runs with these registers."""

    def __init__(self, control: Any, **only: int) -> None:
        self.control = control(SPEC)
        self.only = only
        super().__init__({"go": In(1), "run": In(self.control.format.run), "echo": In(range(LONGEST_ECHO + 1))})

    def elaborate(self, platform: object) -> Module:
        m, control = Module(), self.control
        fragment = Fragment.get(control, None)
        m.submodules.control = _Made(fragment)
        inside = {signal.name: signal for domain in ("comb", "sync") for signal in _driven(fragment, domain)}
        ones = ("interleave", "part_words", "rest_words", "part_pairs", "rest_pairs", "parts", "runs", "across", "down")
        held = Signal(control.format.run, init=dict.fromkeys(ones, 1))
        delay = Signal.like(self.echo, name="delay")
        active = inside["present"] | (inside["pairs_left"] != 0)
        m.d.comb += [control.en.eq(1), control.start.eq(self.go & ~control.busy), control.run.eq(held)]
        with m.If(control.start):
            m.d.sync += [Value.cast(held).eq(Value.cast(self.run)), delay.eq(self.echo)]
            m.d.comb += control.run.eq(self.run)

        took, returned = self.echoes(m, delay, control)
        m.d.comb += [control.taken.eq(_at(took, delay)), control.returned.eq(_at(returned, delay))]
        returning = [*returned, *(inside[f"returned_{i}"] for i in range(SPEC.pe.add_latency))]
        # a run starts when nothing of the last is on its way any more, which is long before its last word has left
        quiet = ~Cat(took, returning).any()
        chosen = Cat(C(1, 1), *(getattr(self.run, name) == value for name, value in self.only.items())).all()
        allowed = quiet & chosen & self.legal(self.run) & (self.echo <= LONGEST_ECHO)
        m.d.comb += Assume(~control.start | allowed)
        m.d.comb += Assert(self.legal(held) & (delay <= LONGEST_ECHO))
        self.progress(m, inside, active)
        self.paces(m, inside, held)
        within = [word & (delay >= i) for i, word in enumerate(took)]
        self.pairs(m, inside, held, within, active)
        within = [word & (delay >= i) for i, word in enumerate(returned)]
        self.sums(m, inside, held, [*within, *returning[len(returned) :]], active)
        return m

    def legal(self, run: Any) -> Any:
        pe, counts = SPEC.pe, (run.parts, run.runs, run.across, run.down)
        return (
            (run.interleave >= 1)
            & (run.interleave <= pe.accumulators)
            & (run.part_words >= 1)
            & (run.part_words <= pe.dense_words)
            & (run.rest_words >= 1)
            & (run.rest_words <= pe.dense_words)
            & (run.part_pairs >= 1)
            & (run.part_pairs <= pe.max_group)
            & (run.rest_pairs >= 1)
            & (run.rest_pairs <= pe.max_group)
            & Cat(count != 0 for count in counts).all()
            & (run.drain_words <= SPEC.array.rows * pe.accumulators)
            & (run.shift_pairs <= SPEC.array.rows * pe.weight_pairs)
        )

    def echoes(self, m: Module, delay: Any, control: Any) -> tuple[list[Any], list[Any]]:
        """Takeovers and returns that are on their way to the controller, the youngest first."""
        lines = []
        for name, bit in (("took", control.step.token.takeover), ("returned", control.step.token.returns)):
            line = [bit]
            for i in range(LONGEST_ECHO):
                line.append(Signal(name=f"{name}_{i}"))
                m.d.sync += line[-1].eq(line[-2])
            lines.append(line)
        return lines[0], lines[1]

    def progress(self, m: Module, inside: dict[str, Any], active: Any) -> None:
        """The claim: while the controller is active it does something; once it is not, ``busy`` runs out."""
        idle = Signal(range(PATIENCE + 2))
        m.d.sync += idle.eq(Mux(inside["takes"] | inside["issues"] | ~active, 0, idle + 1))
        m.d.comb += Assert(idle < PATIENCE)
        was_active, tail = Signal(), Signal.like(inside["tail"], name="tail_before")
        m.d.sync += [was_active.eq(active | self.control.start), tail.eq(inside["tail"])]
        m.d.comb += Assert(was_active | (inside["tail"] < tail) | (inside["tail"] == 0))

    def paces(self, m: Module, inside: dict[str, Any], run: Any) -> None:
        """Counters stay within their limits, and what is known of them ahead is true."""
        turn, present = inside["turn"], inside["present"]
        limits = {"part": run.parts, "run": run.runs, "across": run.across, "down": run.down}
        m.d.comb += [
            Assert((turn < run.interleave) | (turn < SPEC.pe.add_latency)),
            Assert((inside["pairs_left"] != 0) | (turn == 0)),
            *(Assert(~present | (inside[f"{name}_count"] < limit)) for name, limit in limits.items()),
        ]
        for name, limit in limits.items():
            count, last = inside[f"{name}_count"], inside[f"{name}_last"]
            foreseen = Mux(last, 1, count + 2) == limit
            m.d.comb += [
                Assert(~present | (inside[f"{name}_first"] == (count == 0))),
                Assert(~present | (last == (count + 1 == limit))),
                Assert(~present | (inside[f"{name}_last_next"] == foreseen)),
            ]

    def pairs(self, m: Module, inside: dict[str, Any], run: Any, took: list[Any], active: Any) -> None:
        """WS: pairs are awaited as long as one takeover is on its way, and for ever after that of the last tile."""
        applies = active & run.weight_stationary
        begun, pending = inside["ws_started"] | inside["ws_begins"], inside["ws_pending"]
        under_way = sum((Value.cast(bit) for bit in took), C(0, 1)) + inside["ws_started"] + inside["ws_begins"]
        last = pending & inside["ws_last_tile"] & ~begun
        at_begin = (inside["part_count"] == 0) & (inside["run_count"] == 0)
        in_last = (inside["across_count"] + 1 == run.across) & (inside["down_count"] + 1 == run.down)
        m.d.comb += [
            Assert(~applies | (under_way <= 1)),
            Assert(~applies | (under_way == 0) | pending),
            Assert(~applies | (under_way != 0) | ~pending | inside["ws_last_tile"]),
            Assert(~(applies & last & inside["present"]) | (in_last & ~at_begin)),
        ]

    def sums(self, m: Module, inside: dict[str, Any], run: Any, returned: list[Any], active: Any) -> None:
        """WS: tiles are waited for exactly as long as their sums are to be issued or on their way."""
        left, waiting = inside["pairs_left"], inside["waiting"]
        to_issue = inside["begins_kept"] & ((left > 1) | ((left == 1) & (inside["turn"] == 0)))
        under_way = sum((Value.cast(bit) for bit in returned), C(0, 1)) + to_issue
        applies = active & run.weight_stationary
        m.d.comb += [Assert(~applies | (waiting == under_way)), Assert(~applies | (waiting <= run.across))]


def _at(line: list[Any], delay: Any) -> Any:
    chosen = line[0]
    for i, bit in enumerate(line[1:], 1):
        chosen = Mux(delay == i, bit, chosen)
    return chosen


def _driven(fragment: Any, domain: str) -> Any:
    return fragment.statements[domain]._lhs_signals() if domain in fragment.statements else ()


@pytest.mark.slow
def test_the_controller_never_deadlocks(tmp_path):
    """Of every run, of however many parts and tiles, each step comes within ``PATIENCE`` array cycles of the last."""
    assert proved(Progress(StceControl), tmp_path, PATIENCE + 1)


SMALL = {
    "interleave": 1,
    "part_words": 1,
    "rest_words": 1,
    "part_pairs": 1,
    "rest_pairs": 1,
    "offset_step": 0,
    "parts": 1,
    "runs": 1,
    "across": 1,
    "down": 2,
    "row_delay": 1,
    "tap": 0,
    "tail_cycles": 1,
}
OS = {"weight_stationary": 0, "drain_words": 2, "shift_pairs": 0, **SMALL}
WS = {"weight_stationary": 1, "drain_words": 0, "shift_pairs": 2, **SMALL}


@pytest.mark.parametrize(
    ("run", "old", "new"),
    [
        pytest.param(OS, "chain - (chain != 0)", "chain", marks=pytest.mark.slow),
        (OS, "left - left_moved)", "left)"),
        (WS, "begins | (self.taken & ~last_tile)", "begins"),
        (WS, "(pending & ~begun)", "pending"),
    ],
)
def test_a_controller_that_deadlocks_is_refuted(run, old, new, tmp_path):
    """By a run that ends in the deadlock, not for want of an induction."""
    assert not bounded(Progress(mutant(StceControl, old, new), **run), tmp_path, 20)
