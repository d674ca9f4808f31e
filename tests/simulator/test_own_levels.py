"""Few values that a model itself makes, on the machine: packed as their readers want it, signs flipped or counted."""

from __future__ import annotations

import pytest
import torch
from torch import nn

import weft
from weft.dataflow.config_io import load_spec
from weft.dataflow.packing import packed_operand
from weft.dataflow.schedule import Schedule, schedule
from weft.dataflow.stce.counts import StceCounts
from weft.simulator.regions import lay_out
from weft.simulator.step import simulate
from weft.simulator.system import require_same, simulate_system
from weft.workloads.gemm import Pass
from weft.workloads.hashed_attention import HashedAttention
from weft.workloads.levels import Levels
from weft.workloads.own_levels import of_levels
from weft.workloads.step import MatrixOp, VectorOp


class Products(nn.Module):
    """Signs by numbers, and, where ``both``, signs by signs along two axes."""

    def __init__(self, both: bool) -> None:
        super().__init__()
        self.layer, self.both = nn.Linear(24, 24, bias=False), both

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        made: torch.Tensor = self.layer(x)
        signs = of_levels(torch.where(made >= 0, 1.0, -1.0), Levels.BINARY)
        numbers = signs.mT @ made
        return numbers.sum() + (signs @ signs.mT).sum() + (signs.mT @ signs).sum() if self.both else numbers.sum()


def plan_of(model: nn.Module, *shape: int, spec: str = "bnn-ecp5") -> Schedule:
    return schedule(weft.trace(model, torch.zeros(shape)), load_spec(spec))


def own(plan: Schedule) -> list[tuple[int, MatrixOp]]:
    return [
        (i, op)
        for i, op in enumerate(plan.as_run.ops)
        if isinstance(op, MatrixOp) and op.parameter is None and (op.a.levels or op.b.levels)
    ]


def test_signs_by_numbers_flip_them_and_signs_by_signs_are_counted() -> None:
    plan = plan_of(Products(both=True), 4, 6, 24)
    result = simulate(plan)
    engines = {}
    for i, op in own(plan):
        both, counts = op.a.levels is op.b.levels is Levels.BINARY, result.ops[i].counts
        engines[both] = engines.get(both, set()) | {isinstance(counts, StceCounts)}
        if isinstance(counts, StceCounts):
            assert counts.sign_flips == op.macs
    assert engines == {False: {True}, True: {False}}


@pytest.mark.parametrize(("both", "spec"), [(False, "bnn-ecp5"), (True, "bnn-ecp5"), (True, "tiny")])
def test_each_reader_finds_its_form_where_it_was_packed(both: bool, spec: str) -> None:
    plan = plan_of(Products(both), 4, 6, 24, spec=spec)
    result, run = simulate(plan), plan.as_run
    places, _ = lay_out(plan)
    (at,) = [i for i, op in enumerate(run.ops) if isinstance(op, VectorOp) and op.op == "pack"]
    pack, read = run.ops[at], set()
    assert isinstance(pack, VectorOp)
    written = {id(region) for region, _ in places[at].writes}
    for i, op in own(plan):
        assert at in run.after[i]
        for x, region in ((op.a, places[i].a), (op.b, places[i].b)):
            placement = plan.placements[i]
            if x.levels is not None and placement is not None:
                copy = packed_operand(op, x.role, placement, plan.spec)
                assert copy is not None
                assert copy.form in {one.form for one in pack.packs}
                assert id(region) in written
                read.add(id(region))
    assert read == written, "and nothing is packed that nobody reads"
    # 4 x 6 x 24 numbers of 16 bits are read; bits without padding are 72 bytes.
    assert result.ops[at].counts.dram_read_bytes == 1152
    assert result.ops[at].counts.dram_write_bytes == sum(copy.bytes for copy in pack.packs)
    assert sum(copy.bytes for copy in pack.packs if not copy.word_bits) == 72


def test_codes_of_hashed_attention_are_read_as_bits_in_both_passes() -> None:
    """K^T V, Q (K^T V), Q sum(K); backward of the three, by V, by K^T V and by the sum: 2 images, 2 heads, 6 tokens."""
    plan = plan_of(HashedAttention(8, 2, bits=16), 2, 6, 8)
    found = [(op.pass_, str(op.gemm), simulate(plan).ops[i].counts.sign_flips) for i, op in own(plan)]  # type: ignore[attr-defined]
    assert [(p, g) for p, g, _ in found] == [
        (Pass.FF, "4 x 16 x 6 x 4"),
        (Pass.FF, "4 x 6 x 16 x 4"),
        (Pass.FF, "4 x 6 x 16 x 1"),
        (Pass.BP, "4 x 16 x 6 x 1"),
        (Pass.BP, "4 x 16 x 6 x 4"),
        (Pass.BP, "4 x 6 x 16 x 4"),
    ]
    assert [flips for _, _, flips in found] == [1536, 1536, 384, 384, 1536, 1536]


def test_events_and_recurrence_agree() -> None:
    plan = plan_of(HashedAttention(8, 2), 2, 6, 8)
    require_same(simulate_system(plan), simulate_system(plan, witness=True))
