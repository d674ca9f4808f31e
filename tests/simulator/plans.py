"""Steps of a few ops on small machines, orders among them, and memories under them, for Hypothesis."""

from __future__ import annotations

from dataclasses import replace
from typing import assert_never

import numpy as np
from hypothesis import assume
from hypothesis import strategies as st

from weft.dataflow.accelerator import AcceleratorSpec
from weft.dataflow.beside import vector_work
from weft.dataflow.engines import evaluate, place
from weft.dataflow.integers import ceil_div
from weft.dataflow.objective import Objective
from weft.dataflow.placement import Placement
from weft.dataflow.schedule import Schedule
from weft.simulator.order import Order
from weft.simulator.transfers import OneRate, Transfers, by_shape
from weft.workloads.copies import CompactCopy, PackedCopy
from weft.workloads.errors import InputError
from weft.workloads.gemm import Pass
from weft.workloads.levels import Levels
from weft.workloads.operand import Role
from weft.workloads.sparsity import NMPattern
from weft.workloads.step import MatrixOp, Op, UpdateOp, VectorOp, Workload
from weft.workloads.update_rule import UPDATE_RULES

from ..dataflow.problems import machines, mappings, matrix_ops


@st.composite
def vector_ops(draw: st.DrawFn) -> VectorOp:
    size = st.integers(0, 3000)
    return VectorOp(
        name="v",
        op="aten.relu",
        pass_=draw(st.sampled_from((Pass.FF, Pass.BP))),
        dtype="float16",
        elements=draw(size),
        read_bytes=2 * draw(size),
        write_bytes=2 * draw(st.integers(1, 3000)),
        packs=(draw(packed_copies(Role.ACTIVATION)),) * draw(st.integers(0, 1)),
        wide_read=draw(size),
        wide_write=draw(size),
    )


@st.composite
def _on_chip(draw: st.DrawFn, op: Op, spec: AcceleratorSpec) -> Op:
    """Of some, tensors or parts of them stay on chip."""
    match op:
        case VectorOp():
            work = vector_work(op, spec)
            read, write = draw(st.integers(0, work.read)), draw(st.integers(0, work.write))
            return replace(op, chip_read=read, chip_write=write) if draw(st.booleans()) else op
        case UpdateOp():
            parts = ("weight", "gradient", "state")
            return replace(op, on_chip=tuple(part for part in parts if draw(st.booleans())))
        case MatrixOp():
            return op
        case _:
            assert_never(op)


@st.composite
def packed_copies(draw: st.DrawFn, role: Role) -> PackedCopy:
    elements = draw(st.integers(1, 3000))
    run, word = draw(st.integers(1, elements)), draw(st.sampled_from((0, 8, 64)))
    levels = draw(st.sampled_from((Levels.BINARY, Levels.TERNARY, Levels.INT8)))
    return PackedCopy(role=role, levels=levels, pass_=Pass.FF, elements=elements, run=run, word_bits=word)


@st.composite
def update_ops(draw: st.DrawFn, spec: AcceleratorSpec) -> UpdateOp:
    elements = draw(st.integers(1, 3000))
    group = draw(st.integers(1, spec.pe.max_group))
    pattern = NMPattern(keep=draw(st.integers(1, group)), group=group)
    groups = ceil_div(elements, group)
    copy = CompactCopy(pattern=pattern, groups=groups, kept=min(groups * pattern.keep, elements))
    packed = draw(st.lists(packed_copies(Role.WEIGHT), max_size=2))
    return UpdateOp(
        name="w",
        elements=elements,
        copies=(*(copy,) * draw(st.integers(0, 2)), *packed),
        looks=draw(st.integers(0, 2)),
        scales=draw(st.integers(0, elements)),
    )


def _placed(draw: st.DrawFn, op: Op, spec: AcceleratorSpec) -> Placement | None:
    if not isinstance(op, MatrixOp):
        return None
    try:
        return evaluate(op, spec, draw(mappings(spec, op)))
    except InputError:
        pass
    try:
        return place(op, spec, Objective.CYCLES)
    except InputError:
        assume(False)
        raise


@st.composite
def plans(draw: st.DrawFn) -> Schedule:
    """Steps of a few ops of every kind on small machines."""
    spec = draw(machines())
    kinds = (matrix_ops(spec), matrix_ops(spec), vector_ops(), update_ops(spec))
    ops = tuple(draw(_on_chip(draw(kinds[draw(st.integers(0, 3))]), spec)) for _ in range(draw(st.integers(1, 7))))
    workload = Workload(model="m", batch=1, optimizer=draw(st.sampled_from(tuple(UPDATE_RULES))), ops=ops)
    placements = tuple(_placed(draw, op, spec) for op in ops)
    return Schedule(workload=workload, spec=spec, objective=Objective.CYCLES, placements=placements)


@st.composite
def orders(draw: st.DrawFn, plan: Schedule) -> Order:
    """Any order: nothing, everything or something waits."""
    count = len(plan.workload.ops)
    share = draw(st.sampled_from((0.0, 0.3, 1.0)))
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    after = tuple(tuple(j for j in range(i) if rng.random() < share) for i in range(count))
    return Order(after=after, weight_ready=tuple((rng.random(count) < 0.5).tolist()))


def memories(spec: AcceleratorSpec) -> st.SearchStrategy[Transfers]:
    """One rate, and each transfer by its shape in some memory, whatever the machine names."""
    real = (replace(spec, dram=replace(spec.dram, kind=kind)) for kind in ("ddr4-2400-x8", "hbm2"))
    return st.sampled_from((OneRate(), *map(by_shape, real)))
