"""Transfers proved: no word outside of the window, no burst across 4 KiB, no address or beat that AXI4 forbids."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from amaranth import Cat, Module, Mux, Signal
from amaranth.hdl import Assert, Assume, Elaboratable, Fragment
from amaranth.lib import data, stream, wiring
from amaranth.lib.wiring import In
from amaranth.utils import exact_log2

from weft.hdl.top import bursts as module
from weft.hdl.top.bursts import Bursts, Fence
from weft.hdl.top.lines import WORD
from weft.hdl.top.queue import Queue

from ..proof import bounded, mutant, proved

pytestmark = pytest.mark.slow  # its RTL is compiled for half a minute and more

BEAT = 8
SHIFT = exact_log2(BEAT)
LONGEST = 4
WIDTH = 3
"""Bits of a payload in a queue, which looks at none."""
NARROW = {"ADDRESS_BITS": 14, "OFFSET_BITS": 11, "words_bits": lambda _: 8, "BOUNDARY": 128}
"""Widths by which the proofs end in seconds; nothing in the design knows its own. A page has 16 beats here."""


@pytest.fixture(params=[NARROW, pytest.param({}, marks=pytest.mark.slow)], ids=["narrow", "whole"])
def widths(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of the design that is proved, as `hdl/top/bursts.py` names them."""
    for name, value in request.param.items():
        monkeypatch.setattr(module, name, value)
    line = {"address": module.OFFSET_BITS, "words": module.words_bits(WORD), "last": 1}
    monkeypatch.setattr(module, "line_layout", lambda _: data.StructLayout(line))


class Made(Elaboratable):
    """A component that is elaborated already; its signals by name, those of a submodule behind its name and a dot."""

    def __init__(self, component: Any) -> None:
        self.fragment = Fragment.get(component, None)
        self.inside = dict(_signals(self.fragment, ""))

    def elaborate(self, platform: Any) -> Any:
        return self.fragment


def _signals(fragment: Any, start: str) -> Iterator[tuple[str, Any]]:
    for statements in fragment.statements.values():
        yield from ((f"{start}{signal.name}", signal) for signal in statements._lhs_signals())
    for inner, name, _ in fragment.subfragments:
        yield from _signals(inner, f"{start}{name}.")


class FencedBursts(wiring.Component):
    """Any lines, any window that begins at a page, any receiver: what comes out is within, and in order.

    By whole beats: the beat in which a line begins or ends is asked for as a whole, the lanes that count are its own.
    """

    def __init__(self, fence: Any = Fence, bursts: Any = Bursts) -> None:
        self.fence, self.bursts = fence(), bursts(BEAT, LONGEST)
        super().__init__(
            {
                "page": In(module.ADDRESS_BITS),
                "bytes": In(module.OFFSET_BITS),
                "given": In(stream.Signature(module.line_layout(WORD))),
                "ready": In(1),
            }
        )

    def elaborate(self, platform: Any) -> Module:
        address_bits, offset_bits, page_bits = module.ADDRESS_BITS, module.OFFSET_BITS, exact_log2(module.BOUNDARY)
        m, fence, bursts = Module(), self.fence, self.bursts
        within, cut = Made(fence), Made(bursts)
        m.submodules.fence, m.submodules.bursts = within, cut
        wiring.connect(m, fence.lines, bursts.lines)
        wiring.connect(m, wiring.flipped(self.given), fence.inside)
        # the window is what it was in the first cycle
        before, page, size = Signal(), Signal(address_bits), Signal(offset_bits)
        m.d.sync += [before.eq(1), page.eq(self.page), size.eq(self.bytes)]
        m.d.comb += [
            Assume(~before | ((page == self.page) & (size == self.bytes))),
            Assume(self.page[:page_bits] == 0),
            Assume(self.page <= (1 << address_bits) - (1 << offset_bits)),
            Assume(~self.given.valid | (~self.given.payload.address[0] & (self.given.payload.words != 0))),
            fence.base.eq(self.page),
            fence.size.eq(self.bytes),
            bursts.bursts.ready.eq(self.ready),
        ]
        wide = address_bits + 2
        line, end, limit = fence.lines, Signal(wide), Signal(wide)
        start, stop = Signal(wide), Signal(wide)
        burst = bursts.bursts.payload
        beats_end, fits = Signal(wide), Signal()
        m.d.comb += [
            limit.eq(self.page + self.bytes),
            end.eq(line.payload.address + (line.payload.words << 1)),
            start.eq(burst.address + (burst.first << 1)),
            beats_end.eq(burst.address + ((burst.length + 1) << SHIFT)),
            stop.eq(beats_end - BEAT + ((burst.end + 1) << 1)),
            fits.eq((line.payload.address >= self.page) & (end <= limit) & (line.payload.words != 0)),
        ]
        # what the state says: a line lies within; a cut stands at a beat of it, with as many as are left
        going, at, left = (cut.inside[name] for name in ("going", "at", "left"))
        going_at, reaches = Signal(wide), Signal(wide)
        m.d.comb += [going_at.eq(at << SHIFT), reaches.eq((at + left) << SHIFT)]
        m.d.comb += [
            Assert(~line.valid | (fits & ~line.payload.address[0])),
            Assert(~going | (line.valid & (going_at > line.payload.address) & (left != 0))),
            Assert(~going | ((reaches >= end) & (reaches < end + BEAT) & (going_at < end))),
        ]
        valid = bursts.bursts.valid
        m.d.comb += [
            Assert(~valid | ((start >= self.page) & (stop <= limit) & (start < stop))),
            Assert(~valid | (burst.address[:SHIFT] == 0)),
            Assert(~valid | (burst.address[page_bits:] == (beats_end - 1)[page_bits:address_bits])),
            Assert(~valid | (burst.length < LONGEST)),
            Assert(~valid | (start == Mux(going, going_at, line.payload.address))),
            Assert(~(valid & burst.line_end) | (stop == end)),
            Assert(~(valid & ~burst.line_end) | (stop == beats_end)),
            Assert(~valid | (burst.last == (burst.line_end & line.payload.last))),
        ]
        # what passes is what was given, until the first that breaks; from then on nothing
        broken, passed = Signal(), Signal(data.StructLayout({"address": wide, "words": offset_bits, "last": 1}))
        with m.If(fence.inside.valid & fence.inside.ready):
            m.d.sync += [
                passed.address.eq(self.page + self.given.payload.address),
                passed.words.eq(self.given.payload.words),
                passed.last.eq(self.given.payload.last),
            ]
        m.d.sync += broken.eq(broken | fence.breaks)
        same = [getattr(line.payload, x) == getattr(passed, x) for x in ("address", "words", "last")]
        m.d.comb += [
            Assert(~line.valid | Cat(same).all()),
            Assert(broken == fence.outside),
            Assert(~broken | ~fence.inside.ready),
        ]
        # where one ends, the next begins
        follows, following = Signal(), Signal(wide)
        with m.If(valid & self.ready):
            m.d.sync += [follows.eq(~burst.line_end), following.eq(stop)]
        m.d.comb += [Assert(follows == going), Assert(~follows | (following == going_at))]
        stable(m, bursts.bursts, self.ready)
        return m


def stable(m: Module, port: Any, ready: Any) -> None:
    """What is valid stays as it is until it is taken (A3.2.1)."""
    name = f"stood_{id(port)}"
    stood, was = Signal(name=name), Signal(len(Cat(port.payload)), name=f"{name}_payload")
    now = Cat(port.payload)
    m.d.sync += [stood.eq(port.valid & ~ready), was.eq(now)]
    m.d.comb += Assert(~stood | (port.valid & (now == was)))


@pytest.mark.usefixtures("widths")
def test_nothing_outside_of_the_window_is_asked_for_and_no_burst_crosses_a_page(tmp_path: Path) -> None:
    assert proved(FencedBursts(), tmp_path, 2)


@pytest.mark.usefixtures("widths")
@pytest.mark.parametrize(
    ("component", "old", "new"),
    [
        (Fence, "(end > self.size)", "(end > self.size + 2)"),
        (Fence, "end = Signal(OFFSET_BITS + 1)", "end = Signal(OFFSET_BITS)"),
        (Fence, "self.outside.eq(self.breaks)", "self.outside.eq(0)"),
        (Fence, "self.base[page:] + given.address[page:]", "self.base[page:] | given.address[page:]"),
        (Fence, "self.inside.ready.eq(~self.outside & (~valid | self.lines.ready))", "self.inside.ready.eq(1)"),
        (Bursts, "(1 << page) - begin[:page]", "(1 << page)"),
        (Bursts, "some.eq(Mux(room < self.longest, room, self.longest))", "some.eq(room)"),
        (Bursts, "span.eq(lane + line.words + (lanes - 1))", "span.eq(line.words + (lanes - 1))"),
        (Bursts, "lane + line.words - 1, lanes - 1)", "lane + line.words, lanes - 1)"),
        (Bursts, "left.eq(beats - taken)", "left.eq(beats)"),
        (Bursts, "self.lines.ready.eq(self.bursts.ready & ends)", "self.lines.ready.eq(self.bursts.ready)"),
        (Bursts, "words_bits(self.word) + 1, reset_less=True", "words_bits(self.word) - 8, reset_less=True"),
    ],
)
def test_a_wrong_window_or_cut_is_refuted(component: Any, old: str, new: str, tmp_path: Path) -> None:
    broken = {"fence" if component is Fence else "bursts": mutant(component, old, new)}
    assert not proved(FencedBursts(**broken), tmp_path, 2)


class QueueContract(wiring.Component):
    """Any payloads, any receiver: one that is marked comes out in its turn, as it was; what is valid stays."""

    def __init__(self, queue: Any = Queue, depth: int = 3) -> None:
        self.queue, self.depth = queue(WIDTH, depth), depth
        super().__init__({"payload": In(WIDTH), "valid": In(1), "ready": In(1), "mark": In(1)})

    def elaborate(self, platform: Any) -> Module:
        m, queue = Module(), self.queue
        made = Made(queue)
        m.submodules.queue = made
        into, out = queue.into, queue.out
        m.d.comb += [into.payload.eq(self.payload), into.valid.eq(self.valid), out.ready.eq(self.ready)]
        comes, goes = Signal(), Signal()
        m.d.comb += [comes.eq(into.valid & into.ready), goes.eq(out.valid & out.ready)]
        # how many are inside, and how many of them are before the marked one
        inside, ahead = Signal(range(self.depth + 1)), Signal(range(self.depth + 1))
        follows, marked = Signal(), Signal(WIDTH)
        m.d.sync += inside.eq(inside + comes - goes)
        with m.If(~follows & self.mark & comes):
            m.d.sync += [follows.eq(1), marked.eq(self.payload), ahead.eq(inside - goes)]
        with m.Elif(follows & goes):
            m.d.sync += [follows.eq(ahead != 0), ahead.eq(ahead - 1)]
        m.d.comb += [
            Assert(inside <= self.depth),
            Assert(into.ready == (inside != self.depth)),
            Assert(out.valid == (inside != 0)),
            Assert(~follows | (ahead < inside)),
            Assert(~(follows & (ahead == 0)) | (out.payload == marked)),
        ]
        level = made.inside["level"]
        m.d.comb += Assert(level == inside)
        if self.depth > 2:  # those of a memory
            first, free = made.inside["first"], made.inside["free"]
            over = first + level
            m.d.comb += [Assert(first < self.depth), Assert(free < self.depth)]
            m.d.comb += Assert(free == Mux(over >= self.depth, over - self.depth, over))
        stable(m, out, self.ready)
        return m


@pytest.mark.parametrize("depth", [2, 3])
def test_a_queue_loses_and_doubles_nothing(depth: int, tmp_path: Path) -> None:
    """In the first 8 cycles, in which a queue of two or three fills, empties and wraps whichever way it may."""
    assert bounded(QueueContract(depth=depth), tmp_path, 8)


@pytest.mark.parametrize(
    ("depth", "old", "new"),
    [
        (3, "level != self.depth", "level != self.depth + 1"),
        (3, "gives.eq(self.out.valid & self.out.ready)", "gives.eq(self.out.ready)"),
        (3, "at == self.depth - 1", "at == self.depth"),
        (3, "write.en.eq(takes)", "write.en.eq(self.into.valid)"),
        (3, "read.addr.eq(first)", "read.addr.eq(free)"),
        (2, "gives | (level == 0)", "gives"),
        (2, "gives | (level == 0)", "gives | (level != 2)"),
        (2, "Mux(level == 2, second, self.into.payload)", "self.into.payload"),
        (2, "with m.If(level != 2):", "with m.If(level == 0):"),
    ],
)
def test_a_wrong_queue_is_refuted(depth: int, old: str, new: str, tmp_path: Path) -> None:
    assert not bounded(QueueContract(mutant(Queue, old, new), depth), tmp_path, 8)
