"""Requests of a step: bytes as the step moves them, phase by phase; every element where it lies; regions apart."""

from __future__ import annotations

import itertools
from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from torch import nn

import weft
from weft.dataflow.accelerator import AcceleratorSpec
from weft.dataflow.config_io import load_spec
from weft.dataflow.engines import evaluate
from weft.dataflow.mapping import Mapping
from weft.dataflow.problem import memory_machine
from weft.dataflow.schedule import Schedule
from weft.simulator.reference import traffic_reference
from weft.simulator.regions import PAGE, OpRegions, Region, lay_out
from weft.simulator.step import simulate
from weft.simulator.step_requests import _lines, _matrix_phases, step_requests
from weft.workloads.errors import InputError
from weft.workloads.gemm import Pass
from weft.workloads.operand import Role
from weft.workloads.step import MatrixOp, Workload

from ..dataflow.problems import addresses_of, machines, mappings, matrix_ops
from ..examples_drawn import examples
from .reading import in_reading_order


@st.composite
def placed(draw: st.DrawFn, dense: bool = False) -> tuple[MatrixOp, AcceleratorSpec, Mapping]:
    spec = draw(machines())
    op = draw(matrix_ops(spec, size=24))
    if dense:
        g, sizes = op.gemm, {}
        for side, size in (("a", g.m * g.k), ("b", g.k * g.n), ("c", g.m * g.n)):
            operand = getattr(op, side)
            sizes[side] = replace(operand, dtype="float16", bytes=2 * g.groups * size)
        op = replace(op, sparse=None, convolution=False, **sizes)
    mapping = draw(mappings(spec, op))
    try:
        evaluate(op, spec, mapping)
    except InputError:
        assume(False)
    return op, spec, mapping


def regions(op: MatrixOp) -> OpRegions:
    made, at = {}, 0
    for side in ("a", "b", "c"):
        size = 2 * getattr(op, side).elements
        made[side] = Region(side, size, 0, 0, at)
        at += size
    room = 4 * op.gemm.groups * op.gemm.k * max(op.gemm.m, op.gemm.n)
    if op.sparse is not None and not op.sparse.online:
        # The compact copy of the weight lies where the operand would.
        made[op.sparse.operand] = Region("copy", room, 0, 0, at)
    return OpRegions(**made, compact=Region("compact", room, 0, 0, at + room) if op.sparse else None)


@settings(max_examples=examples(60))
@given(placed())
def test_phases_move_what_the_step_moves(case: tuple[MatrixOp, AcceleratorSpec, Mapping]) -> None:
    """Per phase against the element by element reference, and in time against the closed form."""
    op, spec, mapping = case
    cost = evaluate(op, spec, mapping)
    phases = list(_matrix_phases(op, mapping, regions(op), spec, in_order=False))

    moved = [(sum(m.size for m in p.moves if not m.write), sum(m.size for m in p.moves if m.write)) for p in phases]
    wanted = traffic_reference(spec, op, mapping, addresses_of(op)).phases
    assert moved == [(p.read, p.write) for p in wanted if p.read or p.write]
    assert sum(r for r, _ in moved) == cost.counts.dram_read_bytes
    rate_units = [(p.begin, p.begin + p.length) for p in phases]
    assert all(end <= begin for (_, end), (begin, _) in itertools.pairwise(rate_units))
    assert max((end for _, end in rate_units), default=0) <= cost.cycles.total * memory_machine(spec).rate


def places(op: MatrixOp, side: str) -> np.ndarray:  # type: ignore[type-arg]
    """Number of each element [groups, rows, cols] in its region: as docs/design/machine.md has them lie."""
    g = op.gemm
    shape = {"a": (g.m, g.k), "b": (g.k, g.n), "c": (g.m, g.n)}[side]
    turned = (side == "a" and op.pass_ is Pass.WU) or (side == "b" and op.pass_ is Pass.FF and op.b.role is Role.WEIGHT)
    if turned:
        return np.arange(g.groups * shape[0] * shape[1]).reshape(g.groups, shape[1], shape[0]).transpose(0, 2, 1)
    return np.arange(g.groups * shape[0] * shape[1]).reshape(g.groups, *shape)


@settings(max_examples=examples(60))
@given(placed(dense=True), st.booleans())
def test_every_element_is_asked_for_where_it_lies(
    case: tuple[MatrixOp, AcceleratorSpec, Mapping], in_order: bool
) -> None:
    """Macro-tile after macro-tile in plain Python: the elements that each loads and stores, at their places."""
    op, spec, mapping = case
    in_order = in_order and op.b.role is Role.WEIGHT
    # No trace is made of a machine that keeps tensors on chip.
    mapping = replace(mapping, on_chip=())
    where = regions(op)
    asked = [
        {(int(n), m.write) for m in phase.moves for _, line in _lines(m, 2) for n in line}
        for phase in _matrix_phases(op, mapping, where, spec, in_order=in_order)
    ]
    swap, g = mapping.n2s == "a", mapping.gemm
    a, b, c = (places(op, side) for side in "abc")
    b = in_reading_order(op, mapping) if in_order else b
    west, north, out = (b.transpose(0, 2, 1), a, c.transpose(0, 2, 1)) if swap else (a, b.transpose(0, 2, 1), c)
    at = {id(tensor): region.address // 2 for tensor, region in ((a, where.a), (b, where.b), (c, where.c)) if region}
    west_at, north_at = (at[id(b)], at[id(a)]) if swap else (at[id(a)], at[id(b)])

    tiles = [range(lo, min(lo + mapping.tile_rows, g.m)) for lo in range(0, g.m, mapping.tile_rows)]
    wide = [range(lo, min(lo + mapping.tile_cols, g.n)) for lo in range(0, g.n, mapping.tile_cols)]
    order = [(i, j) for i in range(len(tiles)) for j in range(len(wide))]
    order = order if mapping.order == "mn" else sorted(order, key=lambda ij: ij[::-1])
    macro = [(group, i, j) for group in range(g.groups) for i, j in order]
    phases: list[set[tuple[int, bool]]] = [set() for _ in range(len(macro) + 2)]
    held: tuple[object, object] = (None, None)
    for n, (group, i, j) in enumerate(macro):
        load = phases[n if mapping.resident else n + 1]
        if not mapping.resident or held[0] != (group, i):
            load |= {(int(e) + west_at, False) for e in west[group, tiles[i].start : tiles[i].stop].flat}
        if not mapping.resident or held[1] != (group, j):
            load |= {(int(e) + north_at, False) for e in north[group, wide[j].start : wide[j].stop].flat}
        held = ((group, i), (group, j))
        block = out[group, tiles[i].start : tiles[i].stop, wide[j].start : wide[j].stop]
        phases[n + 2] |= {(int(e) + at[id(c)], True) for e in block.flat}
    assert asked == [phase for phase in phases if phase]


# --- a step


def net() -> Schedule:
    model = nn.Sequential(
        nn.Conv2d(8, 16, 3, padding=1),
        nn.BatchNorm2d(16),
        nn.ReLU(),
        nn.Conv2d(16, 16, 3, stride=2),
        nn.Flatten(),
        nn.Linear(16 * 9, 64),
        nn.Linear(64, 64),
        nn.Linear(64, 8),
    )
    return weft.schedule(weft.sparsify(weft.trace(model, torch.empty(4, 8, 8, 8)), "bdwp-x", "2:8"), "tiny")


@pytest.fixture(scope="module")
def plan() -> Schedule:
    return net()


def test_regions_that_are_needed_together_lie_apart(plan: Schedule) -> None:
    _, found = lay_out(plan)
    assert all(r.address >= 0 and r.address % PAGE == 0 for r in found)
    for i, one in enumerate(found):
        for other in found[:i]:
            together = one.first <= other.last and other.first <= one.last
            apart = one.address + one.size <= other.address or other.address + other.size <= one.address
            assert apart or not together, (one, other)
    assert len({r.name for r in found if "6.weight compact" in r.name}) == 2, "a square weight, in FF and in BP"


def test_operands_are_where_they_were_made(plan: Schedule) -> None:
    """FF and WU read the same X, BP and WU the same dY; an update reads the gradient that WU wrote."""
    places, _ = lay_out(plan)
    ops = plan.workload.ops
    by_layer = {(op.name, op.pass_): place for op, place in zip(ops, places, strict=True) if isinstance(op, MatrixOp)}
    for name in ("3", "5", "6", "7"):
        forward, back, update = (by_layer[name, p] for p in (Pass.FF, Pass.BP, Pass.WU))
        assert forward.a is not None and forward.a in (update.a, update.b)
        assert back.a is not None and back.a in (update.a, update.b)
        written = next(
            p for op, p in zip(ops, places, strict=True) if op.kind == "update" and op.name == f"{name}.weight"
        )
        assert update.c in [region for region, _ in written.reads]


def test_requests_of_a_step(plan: Schedule) -> None:
    result = simulate(plan)
    found = step_requests(plan, result)
    parts = list(found.parts)
    time, line, write = (np.concatenate([getattr(p, name) for p in parts]) for name in ("time", "line", "write"))
    o = found.memory.organization
    assert (np.diff(time) >= 0).all() and len(line) >= found.at_least
    assert time[-1] <= -(-result.cycles.total * o.clock_hz // plan.spec.clock_hz)
    touched = {int(n) for n in line}
    inside = {
        n for r in found.regions for n in range(r.address // o.line_bytes, -(-(r.address + r.size) // o.line_bytes))
    }
    assert touched <= inside
    read, written = (int((write == w).sum()) * o.line_bytes for w in (False, True))
    assert read >= result.counts.dram_read_bytes and written >= result.counts.dram_write_bytes * 0.99
    assert result.counts.dram_bytes <= (read + written) < 3 * result.counts.dram_bytes


def test_a_step_without_a_trace_has_its_regions_too(plan: Schedule) -> None:
    work = replace(plan.workload, after=())
    bare = replace(plan, workload=work)
    assert sum(len(p) for p in step_requests(bare, simulate(bare)).parts) > 0


def test_no_room_is_refused() -> None:
    spec = load_spec("tiny")
    model = nn.Linear(2**17, 2**17, bias=False, device="meta")
    large = weft.trace(model, torch.empty(2**16, 2**17, device="meta"))
    plan = weft.schedule(large, spec)
    with pytest.raises(InputError, match="use a smaller batch or a larger memory"):
        step_requests(plan, simulate(plan))
    assert isinstance(large, Workload)
