"""The pruned search finds what costing every mapping finds: the same cost, bytes and mapping, tie rule included."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from weft.dataflow.accelerator import AcceleratorSpec
from weft.dataflow.config_io import load_spec
from weft.dataflow.objective import TIE
from weft.dataflow.prices import FREE, Prices
from weft.dataflow.problem import Problem, memory_machine, problem_of
from weft.dataflow.stce.pace import array_machine
from weft.dataflow.stce.search import CYCLES, EDP, ENERGY, THRIFT, Side, search, search_sides
from weft.dataflow.stce.space import FORMS, FREE_SPACE, Limits, Only
from weft.workloads.gemm import Gemm
from weft.workloads.operand import NMOperand
from weft.workloads.sparsity import NMPattern
from weft.workloads.step import MatrixOp

from ..examples_drawn import examples
from . import exhaustive
from .problems import convolutions, make_op

SAT = load_spec("sat-vcu1525")
PATTERNS = ("1:2", "2:4", "2:8", "1:8", "4:16")
FREE_PLACE = 2**62
"""Of no mapping."""


@st.composite
def machines(draw: st.DrawFn) -> AcceleratorSpec:
    """Of all sizes, with buffers from a few tiles to megabytes and memories from starved to unlimited."""
    power = lambda low, high: 2 ** draw(st.integers(low, high))  # noqa: E731
    return replace(
        SAT,
        array=replace(SAT.array, rows=draw(st.integers(1, 64)), cols=draw(st.integers(1, 64)), w2e_words=power(0, 3)),
        pe=replace(
            SAT.pe,
            accumulators=draw(st.integers(1, 16)),
            dense_words=draw(st.sampled_from((16, 32, 128))),
            weight_pairs=draw(st.integers(1, 8)),
            add_latency=draw(st.integers(1, 6)),
        ),
        buffers=replace(SAT.buffers, w2e_bytes=power(8, 21), n2s_bytes=power(8, 21), output_bytes=power(8, 21)),
        sore=replace(SAT.sore, lanes=power(0, 6), kind=draw(st.sampled_from(("serial", "network")))),
        wuve=replace(SAT.wuve, pregenerate=draw(st.booleans())),
        dram=replace(SAT.dram, bytes_per_second=draw(st.sampled_from((10**9, 19 * 10**9, 77 * 10**9, 10**13)))),
    )


@st.composite
def products(draw: st.DrawFn, spec: AcceleratorSpec) -> MatrixOp:
    """Products up to some thousand a side, dense and sparse, with operands of convolutions as well."""
    if draw(st.integers(0, 3)) == 0:
        return draw(convolutions(spec))[0]
    size = st.integers(1, 12).flatmap(lambda bits: st.integers(1, 2**bits))
    m, k, n = draw(size), draw(size), draw(size)
    op = make_op(Gemm(groups=draw(st.sampled_from((1, 1, 3))), m=m, k=k, n=n, run=k))
    if draw(st.booleans()):
        side, pattern = draw(st.sampled_from(("a", "b"))), NMPattern.parse(draw(st.sampled_from(PATTERNS)))
        op = replace(op, sparse=NMOperand(operand=side, pattern=pattern, online=draw(st.booleans())))
    return op


@st.composite
def problems(draw: st.DrawFn, spec: AcceleratorSpec) -> Problem:
    """A product in one choice of roles."""
    op = draw(products(spec))
    return problem_of(op, draw(st.sampled_from(("a", "b"))) if op.sparse is None else op.sparse.operand, spec)


@st.composite
def restrictions(draw: st.DrawFn, p: Problem) -> Only:
    """What a mapping file may ask for, and mostly nothing."""
    if draw(st.integers(0, 2)):
        return FREE_SPACE
    some = lambda most: np.array(sorted(draw(st.sets(st.integers(1, most), max_size=3))), np.int64)  # noqa: E731
    forms = draw(st.sampled_from((-1, 1, 0b100, 2 ** len(FORMS) - 1)))
    dataflows = draw(st.sampled_from((1, 2, 3, 4)))
    return Only(dataflows, some(8), some(4), some(p.rows), some(p.cols), forms)


@settings(max_examples=examples(300), deadline=None)
@given(data=st.data())
def test_the_search_is_that_of_all_mappings(data: st.DataObject) -> None:
    spec = data.draw(machines())
    p = data.draw(problems(spec))
    only = data.draw(restrictions(p))
    objective = data.draw(st.sampled_from((THRIFT, CYCLES, ENERGY, EDP)))
    cost = st.floats(0, 10, allow_subnormal=False)
    price = FREE if objective in (THRIFT, CYCLES) else Prices(*(data.draw(cost) for _ in Prices._fields))
    limits = Limits(spec.pe.accumulators, spec.pe.dense_words, spec.pe.weight_pairs, spec.pe.max_group)
    asked = p, array_machine(spec), memory_machine(spec), limits, price, objective, only

    found, wanted = search(*asked), exhaustive.search(*asked)

    assert found.status == wanted.status
    if found.tile.rows:
        assert found[:-1] == wanted[:-1]


@settings(max_examples=examples(200), deadline=None)
@given(data=st.data())
def test_both_roles_are_searched_as_one_space(data: st.DataObject) -> None:
    """The second role beside the first, which may be asked for other mappings."""
    spec = data.draw(machines())
    op = replace(data.draw(products(spec)), sparse=None)
    objective = data.draw(st.sampled_from((THRIFT, THRIFT, CYCLES, ENERGY, EDP)))
    cost = st.floats(0, 10, allow_subnormal=False)
    sides = list[Side]()
    for role in ("b", "a"):
        p = problem_of(op, role, spec)
        price = FREE if objective in (THRIFT, CYCLES) else Prices(*(data.draw(cost) for _ in Prices._fields))
        sides.append(Side(p, price, data.draw(restrictions(p))))
    limits = Limits(spec.pe.accumulators, spec.pe.dense_words, spec.pe.weight_pairs, spec.pe.max_group)
    machine = array_machine(spec), memory_machine(spec), limits

    best = search_sides((sides[0], sides[1]), *machine, objective)

    wanted_side, wanted = exhaustive.search_roles(sides, *machine, objective)
    assert (best.side, best.found.status) == (wanted_side, wanted.status)
    if wanted.tile.rows:
        assert best.found[:-1] == wanted[:-1]


def test_the_thriftier_role_is_taken_though_it_is_slower() -> None:
    """A weight gradient whose fastest mappings in the first role stream one operand again and again."""
    op = make_op(Gemm(groups=1, m=128, k=131072, n=1152, run=131072))
    limits = Limits(SAT.pe.accumulators, SAT.pe.dense_words, SAT.pe.weight_pairs, SAT.pe.max_group)
    machine = array_machine(SAT), memory_machine(SAT), limits
    sides = [Side(problem_of(op, role, SAT), FREE, FREE_SPACE) for role in ("b", "a")]

    alone = [search(one.p, *machine, FREE, THRIFT, FREE_SPACE) for one in sides]
    best = search_sides((sides[0], sides[1]), *machine, THRIFT)

    slower, faster = (alone[0], alone[1]) if alone[0].units > alone[1].units else (alone[1], alone[0])
    assert slower.moved < faster.moved and faster.units < slower.units <= faster.units + faster.units // TIE
    assert (best.found.units, best.found.moved) == (slower.units, slower.moved)


def test_a_machine_whose_registers_hold_nothing_has_no_mapping() -> None:
    p = problem_of(make_op(Gemm(groups=1, m=4, k=16, n=4, run=16)), "b", SAT)
    none = Limits(4, 0, 0, 16)

    found = search(p, array_machine(SAT), memory_machine(SAT), none, FREE, THRIFT, FREE_SPACE)

    assert found.tile.rows == 0 and found.place == FREE_PLACE
