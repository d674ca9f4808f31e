"""The way through SORE proved: no pair is taken before it is there, none makes way for another before it is taken."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from amaranth import Module, Mux, Signal
from amaranth.hdl import Assert, Assume
from amaranth.lib import stream, wiring
from amaranth.lib.wiring import In

from weft.dataflow.accelerator import SoreSpec
from weft.hdl.blocks.sorter import Sore, drive_sore
from weft.hdl.top.reduction import Reduction, elements_layout
from weft.workloads.sparsity import NMPattern

from ..proof import bounded, mutant
from .commands import TARGET
from .test_transfers_formal import Made

pytestmark = pytest.mark.slow

LANES, GROUP = 2, 2
STEPS = 16
"""Four rounds at their fastest, and what is left of any that waits."""


class Handed(wiring.Component):
    """Any elements, in any cycles, and any receiver."""

    def __init__(self, kind: str, reduction: Any = Reduction) -> None:
        spec = replace(TARGET.spec, sore=SoreSpec(lanes=LANES, kind=kind))  # type: ignore[arg-type]
        target = replace(TARGET, spec=spec, pattern=NMPattern(keep=2, group=GROUP))
        self.reduction, self.sore = reduction(target, LANES), Sore(spec, NMPattern(keep=2, group=GROUP))
        super().__init__(
            {"across": In(1), "columns": In(2), "elements": In(stream.Signature(elements_layout(LANES))), "take": In(2)}
        )

    def elaborate(self, platform: Any) -> Module:
        m, reduction, sore, of = Module(), self.reduction, self.sore, self.elements.payload
        made = Made(reduction)
        m.submodules.reduction, m.submodules.sore = made, sore
        m.d.comb += drive_sore(reduction.sore, sore)
        wiring.connect(m, wiring.flipped(self.elements), reduction.elements)
        begun, across, columns = Signal(), Signal(), Signal(2)
        m.d.sync += [begun.eq(1), across.eq(self.across), columns.eq(self.columns)]
        column = Signal(2)
        with m.If(self.elements.valid & self.elements.ready):
            m.d.sync += column.eq(0)
            with m.If(self.across & ~of.line_end):
                m.d.sync += column.eq(column + of.words)
        inside = (of.words != 0) & (of.words <= LANES) & (of.position + of.words <= GROUP)
        in_line = (of.words != 0) & (of.position < GROUP) & (of.line_end == (column + of.words == self.columns))
        m.d.comb += [
            Assume(~begun | ((across == self.across) & (columns == self.columns))),
            Assume((self.columns != 0) & (self.columns <= LANES)),
            Assume((self.across & in_line & (column + of.words <= self.columns)) | (~self.across & inside)),
            Assume(~of.closes | ~self.across | of.line_end),
            Assume(~of.last | of.closes),
            Assume(self.take <= reduction.left),
            reduction.runs.eq(1),
            reduction.across.eq(self.across),
            reduction.columns.eq(self.columns),
            reduction.take.eq(self.take & reduction.valid.replicate(2)),
        ]
        # rounds that SORE has taken in whole, that have left it, and whose last pair has been taken
        entered, came, gone, age = Signal(4), Signal(4), Signal(4), Signal(4)
        serial = reduction.sore_spec.kind == "serial"
        phase, whole, ends = Signal(range(GROUP)), Signal(), Signal()
        m.d.comb += [
            whole.eq(sore.step & ((phase == GROUP - 1) if serial else 1)),
            ends.eq(reduction.valid & made.inside["round_ends"] & (self.take == reduction.left)),
        ]
        m.d.sync += [
            phase.eq(phase + sore.step),
            entered.eq(entered + whole),
            came.eq(came + sore.leaving),
            gone.eq(gone + ends),
            age.eq(Mux(whole, 0, Mux(age == 15, 15, age + 1))),
        ]
        taken = reduction.valid & (self.take != 0)
        if serial:
            m.d.comb += [
                Assert(~whole | (entered == (gone + ends)[:4])),
                Assert(~taken | ((entered != gone) & (made.inside["leaving_pair"] <= age))),
            ]
        else:
            m.d.comb += [Assert(~whole | ((entered - gone - ends)[:4] <= 1)), Assert(~taken | (came != gone))]
        return m


@pytest.mark.parametrize("kind", ["serial", "network"])
def test_pairs_are_taken_once_they_are_there_and_before_others_come(kind: str, tmp_path: Path) -> None:
    assert bounded(Handed(kind), tmp_path, STEPS)


def test_a_round_that_does_not_wait_for_what_leaves_is_refuted(tmp_path: Path) -> None:
    hasty = mutant(Reduction, "(~sorts | (at == self.step - 1)) & drained", "(~sorts | (at == self.step - 1))")
    assert not bounded(Handed("serial", hasty), tmp_path, STEPS)
