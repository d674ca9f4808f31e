"""Packed tensors and vector work of a step: bytes of a memory that counts them, op by op; nothing is read unwritten."""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

import weft
from weft.dataflow.beside import update_work
from weft.dataflow.config_io import load_spec
from weft.dataflow.engines import tiled
from weft.dataflow.packing import packed_operand, with_forms, word_bits
from weft.dataflow.schedule import Schedule, schedule
from weft.simulator.regions import lay_out
from weft.simulator.step import simulate
from weft.simulator.step_requests import step_requests
from weft.simulator.system import require_same, simulate_system
from weft.workloads.catalog import trace_module
from weft.workloads.copies import PackedCopy
from weft.workloads.gemm import Pass
from weft.workloads.levels import Levels
from weft.workloads.operand import Role
from weft.workloads.schemes.annotate import annotate
from weft.workloads.step import MatrixOp, UpdateOp, VectorOp

from ..examples_drawn import examples
from .packed_account import KINDS, Perceptron

BNN, STCE = load_spec("bnn-ecp5"), load_spec("tiny")


def plan_of(model: nn.Module, shape: tuple[int, ...], scheme: str, word: int) -> Schedule:
    traced = trace_module(model, torch.zeros(shape), loss=lambda y: y.sum())
    spec = replace(BNN, xnor=replace(BNN.xnor, word_bits=word)) if word and BNN.xnor else STCE
    return schedule(annotate(traced, scheme, None), spec)


def products(plan: Schedule) -> list[tuple[int, MatrixOp]]:
    return [(i, op) for i, op in enumerate(plan.as_run.ops) if isinstance(op, MatrixOp)]


@settings(max_examples=examples(30), deadline=None)
@given(st.data())
def test_every_byte_of_a_perceptron(data: st.DataObject) -> None:
    """Added ops and updates, none more and none less, against the account of real tensors; and what products read."""
    scheme, word = data.draw(st.sampled_from(sorted(KINDS))), data.draw(st.sampled_from((0, 8, 64)))
    sizes = data.draw(st.lists(st.integers(1, 150), min_size=4, max_size=5))
    batch = data.draw(st.integers(1, 9))
    model = nn.Sequential(*(nn.Linear(n, m, bias=False) for n, m in pairwise(sizes)))
    plan = plan_of(model, (batch, sizes[0]), scheme, word)
    first = 0 if scheme.startswith("bitnet") else 1
    at_work = list(range(first, len(sizes) - 2))
    engines = {int(op.name): plan.placements[i] for i, op in products(plan) if op.pass_ is Pass.FF and op.a.levels}
    account = Perceptron(scheme, sizes, batch, at_work, {i: word_bits(p, plan.spec) for i, p in engines.items() if p})
    account.step()

    result, found = simulate(plan), {}
    for r in result.ops:
        moved = r.counts.dram_read_bytes, r.counts.dram_write_bytes
        match r.op:
            case VectorOp(parameter=str()):
                found[r.op.name, str(r.op.pass_), r.op.op] = moved
            case UpdateOp() if int(r.op.name.split(".")[0]) in at_work:
                found[r.op.name.split(".")[0], "OPT", "update"] = moved
    wanted = {row: moved for row, moved in account.rows.items() if row[2] != "product"}
    assert found == wanted
    for i, op in products(plan):
        placement, name = plan.placements[i], op.name
        for role, tensor in ((Role.WEIGHT, "w"), (Role.ACTIVATION, "x")):
            copy = None if placement is None else packed_operand(op, role, placement, plan.spec)
            if copy is not None:
                form = f"{name} {tensor} {'words' if copy.word_bits else 'bits'}"
                assert account.memory.held[form].nbytes == copy.bytes


class Convolutions(nn.Module):
    """Strided, grouped and used twice."""

    def __init__(self, channels: int, groups: int, stride: int) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, channels, 3, padding=1)
        self.down = nn.Conv2d(channels, channels, 3, stride=stride, padding=1, groups=groups)
        self.twice = nn.Conv2d(channels, channels, 1)
        self.head = nn.Linear(channels, 5)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.twice(self.twice(self.down(self.stem(x))))
        made: torch.Tensor = self.head(x.mean((2, 3)))
        return made


@settings(max_examples=examples(20), deadline=None)
@given(st.data())
def test_what_is_read_was_written(data: st.DataObject) -> None:
    """Every packed operand in the form that its engine reads, by an op that the product waits for or by an update; and
    nothing is written that nobody reads."""
    groups = data.draw(st.integers(1, 3))
    channels = groups * data.draw(st.integers(1, 40))
    model = Convolutions(channels, groups, data.draw(st.integers(1, 2)))
    scheme, word = data.draw(st.sampled_from(("xnor", "biper-real", "bitnet"))), data.draw(st.sampled_from((0, 8, 128)))
    plan = plan_of(model, (2, 3, 6, 6), scheme, word)
    run, unread = plan.as_run, set()
    written = {(op.name, copy.form) for op in run.ops if isinstance(op, UpdateOp) for copy in op.copies
               if isinstance(copy, PackedCopy)}  # fmt: skip
    unread |= written
    for i, op in enumerate(run.ops):
        if isinstance(op, VectorOp):
            unread |= {(i, copy.form) for copy in op.packs}
    for i, op in products(plan):
        placement = plan.placements[i]
        assert placement is not None
        p = tiled(op, plan.spec, placement.mapping).problem
        for side, role in ((op.a, op.a.role), (op.b, op.b.role)):
            if side.levels is None:
                continue
            copy = packed_operand(op, role, placement, plan.spec)
            assert copy is not None and op.parameter is not None
            made = {(op.parameter, copy.form)} if role is Role.WEIGHT else {(j, copy.form) for j in run.after[i]}
            source = made & (written if role is Role.WEIGHT else {(j, f) for j, f in _packs(run.ops)})
            assert len(source) == 1, (op, copy)
            unread -= source
            west = (placement.mapping.n2s == "a") == (side is op.b)
            assert (p.west_tensor if west else p.north_tensor) <= copy.bytes
    assert not unread


def _packs(ops: tuple[object, ...]) -> set[tuple[int, tuple[object, ...]]]:
    return {(i, copy.form) for i, op in enumerate(ops) if isinstance(op, VectorOp) for copy in op.packs}


def mlp(scheme: str, spec: str = "bnn-ecp5") -> Schedule:
    return schedule(weft.sparsify(weft.trace("tfc", batch=4), scheme), load_spec(spec))


@pytest.mark.parametrize("scheme", ["xnor", "bitnet-median"])
def test_events_and_recurrence_agree(scheme: str) -> None:
    plan = mlp(scheme)
    require_same(simulate_system(plan), simulate_system(plan, witness=True))


@pytest.mark.parametrize(("scheme", "spec"), [("xnor", "bnn-ecp5"), ("bitnet", "bnn-ecp5"), ("reste", "tiny")])
def test_requests_of_packed_tensors(scheme: str, spec: str) -> None:
    """Work beside the array asks for its bytes, region by region; packed operands lie where they were written."""
    plan = mlp(scheme, spec)
    result = simulate(plan)
    places, _ = lay_out(plan)
    written = {id(region) for place in places for region, _ in place.writes}
    for op, place, r in zip(plan.as_run.ops, places, result.ops, strict=True):
        if not isinstance(op, MatrixOp):
            assert sum(size for _, size in place.reads) == r.counts.dram_read_bytes
            assert sum(size for _, size in place.writes) == r.counts.dram_write_bytes
            continue
        for operand, region in ((op.a, place.a), (op.b, place.b)):
            assert operand.levels is None or id(region) in written
    found = step_requests(plan, result)
    line = {int(n) for part in found.parts for n in part.line}
    size = found.memory.organization.line_bytes
    assert line <= {n for r in found.regions for n in range(r.address // size, -(-(r.address + r.size) // size))}


def test_an_update_of_packed_copies_by_hand() -> None:
    """100 weights under SGD: 10 bytes read and 8 written each, signs in 13 bytes, in 5 words, a scale; another trip."""
    copy = PackedCopy(role=Role.WEIGHT, levels=Levels.BINARY, pass_=Pass.FF, elements=100, run=20)
    words = replace(copy, word_bits=25 + 7)
    op = UpdateOp(name="w", elements=100, dense_copy=False, copies=(copy, words), scales=1)
    rule = weft.trace("tfc", batch=4).rule
    work = update_work(op, STCE, rule)
    assert (work.read, work.write) == (1000, 800 + 13 + 5 * 4 + 4)
    again = update_work(replace(op, looks=1), STCE, rule)
    assert (again.read, again.write, again.lanes) == (1200, work.write + 200, 2 * work.lanes)


def test_forms_are_left_alone_without_levels() -> None:
    plan = schedule(weft.sparsify(weft.trace("tfc", batch=4), "bdwp", "2:8"), STCE)
    assert with_forms(plan.as_run, plan.placements, STCE) is plan.as_run
