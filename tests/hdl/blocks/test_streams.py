"""SORE and WUVE between streams, by hand; any waits: `tests/equivalence/test_rtl_engines.py`."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from amaranth.hdl import Assert, Cat, Fragment, Module, Signal
from amaranth.lib import wiring
from amaranth.lib.wiring import In

from weft.dataflow.accelerator import SoreSpec, WuveSpec
from weft.dataflow.config_io import load_spec
from weft.hdl.blocks.payload import payloads, places_of
from weft.hdl.blocks.skid import StreamSkid
from weft.hdl.blocks.streams import SoreStream, WuveStream
from weft.workloads.sparsity import NMPattern

from ..proof import mutant, proved
from ..stepping import step

ROOT = Path(__file__).parents[3]
ONE, TWO, THREE = 0x3C00, 0x4000, 0x4200


def packed(layout, **fields):
    places = places_of(layout)
    return sum(value << places[name][0] for name, value in fields.items())


def fields(layout, word):
    return {name: word >> first & ((1 << width) - 1) for name, (first, width) in places_of(layout).items()}


def test_pairs_wait_until_they_are_taken_and_the_next_group_with_them():
    """1:2, one lane: the pair of a group is there in the cycle behind it, and is taken three cycles late."""
    spec = replace(load_spec("tiny"), sore=SoreSpec(lanes=1))
    engine = SoreStream(spec, NMPattern(keep=1, group=2))
    into, out = payloads(engine).values()
    elements = [ONE, THREE, TWO, TWO, TWO, TWO, ONE]
    fed = [packed(into, value__0__0=word, valid__0=1) for word in elements]
    ready = [1, 1, 0, 0, 0, 1, 1, 1, 1]

    seen = step(engine, {"into__payload": fed, "into__valid": [1] * len(fed), "out__ready": ready}, 9)

    assert seen["into__ready"] == [1, 1, 1, 0, 0, 0, 1, 1, 1]
    assert seen["out__valid"] == [0, 0, 1, 1, 1, 1, 0, 1, 0]
    largest = {"pair__0__0__value": THREE, "pair__0__0__index": 1, "pair__0__0__valid": 1, "nan__0": 0, "leaving": 1}
    assert [fields(out, seen["out__payload"][t]) for t in range(2, 6)] == [largest] * 4
    # of equals the first: the elements of cycles 2 and 6, in which the engine ran
    assert fields(out, seen["out__payload"][7]) == largest | {"pair__0__0__value": TWO, "pair__0__0__index": 0}


def test_an_empty_beat_of_parameters_leaves_as_one():
    engine = WuveStream(replace(load_spec("tiny"), wuve=WuveSpec(lanes=2)))
    into, out = payloads(engine).values()
    depth = engine.engine.latency
    ready = [1] * depth + [1, 0, 1]
    fed = [packed(into, valid__0=0, valid__1=0), packed(into, valid__0=1, valid__1=0)]

    seen = step(engine, {"into__payload": fed, "into__valid": [1, 1], "out__ready": ready}, depth + 4)

    assert seen["out__valid"] == [0] * depth + [1, 1, 1, 0]
    lanes = [fields(out, word) for word in seen["out__payload"][depth : depth + 3]]
    assert [(at["leaving__0"], at["leaving__1"]) for at in lanes] == [(0, 0), (1, 0), (1, 0)]
    assert seen["into__ready"] == [1] * (depth + 2) + [0, 1]


def test_the_page_says_where_the_fields_are():
    engine = SoreStream(load_spec("tiny"), NMPattern(keep=2, group=8))
    assert Fragment.get(engine, None)  # one that is never elaborated is a warning
    layouts = payloads(engine)
    table = (ROOT / "docs" / "rtl.md").read_text().split("| port | from bit |")[1].split("\n\n")[0]
    said, port = {}, ""
    for name, first, field in re.findall(r"^\| (?:`(\w+)__payload`)? ?\| (\d+) \| `(\w+)`", table, re.MULTILINE):
        port = name or port
        said[port, field] = int(first)

    assert said == {(name, field): of.offset for name, layout in layouts.items() for field, of in layout}
    for layout in layouts.values():
        places = sorted(places_of(layout).values())
        assert [first for first, _ in places] == [sum(width for _, width in places[:i]) for i in range(len(places))]
        assert sum(width for _, width in places) == layout.size


class SkidContract(wiring.Component):
    """A block of two streams whose beats, numbered, leave in any cycle, and any receivers."""

    def __init__(self, skid: Any) -> None:
        self.skid = skid
        super().__init__({"leaves": In(2), "ready": In(2)})

    def elaborate(self, platform: object) -> Module:
        m, waiting = Module(), []
        m.submodules.skid = skid = self.skid({"a": 3, "b": 3})
        for i, name in enumerate("ab"):
            leaving, out = getattr(skid, f"{name}_leaving"), getattr(skid, name)
            each = (("made", 3), ("taken", 3), ("waits", 1))
            made, taken, waits = (Signal(bits, name=f"{of}_{name}") for of, bits in each)
            m.d.comb += [leaving.valid.eq(self.leaves[i]), leaving.payload.eq(made), out.ready.eq(self.ready[i])]
            m.d.sync += [
                made.eq(made + (skid.advance & leaving.valid)),
                taken.eq(taken + (out.valid & out.ready)),
                waits.eq(out.valid & ~out.ready),
            ]
            m.d.comb += [
                Assert(~out.valid | (out.payload == taken)),
                Assert(~waits | out.valid),
                Assert((made - taken)[:3] == waits),
            ]
            waiting.append(waits)
        m.d.comb += Assert(skid.advance == ~Cat(waiting).any())
        return m


def test_no_beat_is_lost_doubled_overtaken_or_changed(tmp_path):
    """And the block goes on in the cycle behind one in which all that is shown is taken, and in no other."""
    assert proved(SkidContract(StreamSkid), tmp_path, 4)


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("kept.eq(shown)", "kept.eq(came)"),
        ("shown.eq(Mux(advance, came, kept))", "shown.eq(came)"),
        ("out.valid.eq(Mux(advance, leaving.valid, full))", "out.valid.eq(leaving.valid | full)"),
        ("self.advance.eq(~Cat(waits).any())", "self.advance.eq(~Cat(waits[1:]).any())"),
        ("self.advance.eq(~Cat(waits).any())", "self.advance.eq(~Cat(waits).any() & self.advance)"),
    ],
)
def test_a_broken_skid_is_refuted(old, new, tmp_path):
    assert not proved(SkidContract(mutant(StreamSkid, old, new)), tmp_path, 4)
