"""The sequencer proved: whatever program, memory and units do, nothing follows an error and nothing hangs unseen."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from amaranth import Cat, Module, Mux, Signal
from amaranth.hdl import Assert, Assume
from amaranth.lib import wiring
from amaranth.lib.wiring import In

from weft.dataflow.program.isa import EVENTS, Unit
from weft.hdl.top.sequencer import FETCHED, Sequencer

from ..proof import mutant, proved
from .test_transfers_formal import Made, stable

NAMES = [unit.name.lower() for unit in Unit]
pytestmark = pytest.mark.slow
_BITS = 8
"""Of the numbers that count what flies; all of it is far below."""


class SequencerContract(wiring.Component):
    """Any words from a memory that answers what it was asked for, at any time; units that end what they began."""

    def __init__(self, sequencer: Any = Sequencer) -> None:
        self.sequencer = sequencer()
        members = {name: member for name, member in self.sequencer.signature.members.items() if name != "ar"}
        inputs = {name: member for name, member in members.items() if member.is_port and member.flow is In}
        super().__init__(
            {
                **inputs,
                "ar_ready": In(1),
                "r_valid": In(1),
                "r_word": In(64),
                "r_resp": In(2),
                "units_ready": In(len(NAMES)),
            }
        )
        self._inputs = list(inputs)

    def elaborate(self, platform: Any) -> Module:
        m, s = Module(), self.sequencer
        made = Made(s)
        m.submodules.sequencer, inside = made, made.inside
        m.d.comb += [getattr(s, name).eq(getattr(self, name)) for name in self._inputs]
        m.d.comb += [
            s.ar.ready.eq(self.ar_ready),
            s.r.valid.eq(self.r_valid),
            s.r.payload.data.eq(self.r_word),
            s.r.payload.resp.eq(self.r_resp),
            s.r.payload.last.eq(1),
        ]
        ports = [getattr(s, name) for name in NAMES]
        m.d.comb += [port.ready.eq(self.units_ready[i]) for i, port in enumerate(ports)]
        wrong = s.error != 0
        before = Signal()
        m.d.sync += before.eq(1)
        self.bus(m, s, inside)
        # an error stands, and nothing is executed or handed out from then on
        was = Signal(4)
        m.d.sync += was.eq(s.error)
        m.d.comb += [
            Assert(~(wrong & s.busy)),
            Assert((was == 0) | (s.error == was)),
            *(Assert(~(wrong & port.valid)) for port in ports),
            Assert(~(wrong & inside["goes"])),
        ]
        # what a unit does or waits for is of a program that runs
        for name in NAMES:
            waits = inside[f"{name}_queue.level"]
            m.d.comb += Assert(s.busy | wrong | ((waits == 0) & ~inside[f"{name}_running"]))
            m.d.comb += Assert(waits <= 2)
            m.d.comb += Assume(~getattr(s, f"{name}_done") | inside[f"{name}_running"])
        self.events(m, s, inside, wrong)
        # within the watchdog's cycles something ends, or the program is stopped
        held, quiet = Signal(32), Signal(32, name="cycles_without_an_end")
        ends = Cat(*[getattr(s, f"{name}_done") for name in NAMES]).any() | inside["goes"]
        m.d.sync += [held.eq(self.watchdog), quiet.eq(Mux(ends | ~s.busy, 0, quiet + 1))]
        m.d.comb += [
            Assume(~before | (held == self.watchdog)),
            Assume(self.watchdog != 0),
            Assert(quiet == inside["quiet"]),
            Assert(Mux(before, (quiet < held) | ((quiet == held) & ~s.busy), quiet == 0)),
        ]
        return m

    def bus(self, m: Module, s: Any, inside: dict[str, Any]) -> None:
        """An ask stands until it is taken; what is asked for has room, and what was asked for in vain is dropped."""
        stable(m, s.ar, self.ar_ready)
        out, of = Signal(_BITS), {name: inside[name] for name in ("flying", "drop", "fresh", "kept", "ask_stands")}
        stood = Signal()
        m.d.sync += [out.eq(out + (s.ar.valid & self.ar_ready) - self.r_valid), stood.eq(s.ar.valid & ~self.ar_ready)]
        flying = Signal(_BITS)
        m.d.comb += [
            flying.eq(out + of["ask_stands"]),
            Assume(~self.r_valid | (out != 0)),
            Assert(stood == of["ask_stands"]),
            Assert(flying[: len(of["flying"])] == of["flying"]),
            Assert((out <= 2 * FETCHED) & (flying <= 2 * FETCHED)),
            Assert(of["drop"] <= FETCHED),
            Assert(of["drop"] <= flying),
            Assert(of["fresh"] <= FETCHED),
            Assert(of["fresh"] + of["drop"] == of["kept"] + flying),
            Assert((of["drop"] == 0) | (of["kept"] == 0)),
            Assert(s.busy | (s.error != 0) | (of["drop"] == 0)),
            Assert(~inside["ended"] | (of["drop"] == 0)),
        ]

    def events(self, m: Module, s: Any, inside: dict[str, Any], wrong: Any) -> None:
        """From cycle to cycle an event moves by one a unit at most: so it never wraps, unless that is the error."""
        units = len(NAMES)
        starts = Signal()
        m.d.sync += starts.eq(inside["starts"])
        for e in range(EVENTS):
            event, last = inside[f"event_{e}"], Signal(9, name=f"event_{e}_before")
            m.d.sync += last.eq(event)
            near = (event <= last + units) & (last <= event + units)
            m.d.comb += Assert(wrong | starts | near)


def test_nothing_follows_an_error_no_event_wraps_and_the_watchdog_fires(tmp_path: Path) -> None:
    assert proved(SequencerContract(), tmp_path, 1)


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("Mux(stands, kept_address, fresh_address)", "fresh_address"),
        ("stands.eq(self.ar.valid & ~self.ar.ready)", "stands.eq(0)"),
        ("(fresh != FETCHED) & (at != self.length)", "(at != self.length)"),
        ("comes.eq(self.r.valid)", "comes.eq(self.r.valid & (drop == 0))"),
        ("~waits & ~runs & (self.error == 0)", "~waits & ~runs"),
        ("with m.If(after > EVENT_LIMIT):", "with m.If(after > EVENT_LIMIT + 1):"),
        ("with m.Elif(now.over):", "with m.Elif(now.over & goes):"),
        ("(quiet + 1)[:32] == self.watchdog", "(quiet + 1)[:32] == self.watchdog + 1"),
        ("idle.append(~queue.out.valid & (~runs | done))", "idle.append(~runs | done)"),
    ],
)
def test_a_wrong_sequencer_is_refuted(old: str, new: str, tmp_path: Path) -> None:
    assert not proved(SequencerContract(mutant(Sequencer, old, new)), tmp_path, 1)
