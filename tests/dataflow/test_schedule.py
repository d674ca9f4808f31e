"""The scheduler against an obvious search: every mapping of the stated space costed one by one in Python."""

from __future__ import annotations

import itertools
import re
from dataclasses import replace

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from weft.dataflow.accelerator import BufferSpec
from weft.dataflow.config_io import load_spec
from weft.dataflow.engine_time import compares_per_group
from weft.dataflow.engines import evaluate, place
from weft.dataflow.mapping import COMPACT, Mapping
from weft.dataflow.objective import TIE, Objective
from weft.dataflow.prices import Prices
from weft.dataflow.schedule import schedule
from weft.dataflow.stce.mapping import DENSE, ArrayMapping, Dataflow
from weft.dataflow.stce.spec import ArraySpec
from weft.workloads.errors import InputError
from weft.workloads.gemm import Gemm, Pass
from weft.workloads.operand import NMOperand
from weft.workloads.sparsity import NMPattern
from weft.workloads.step import Workload

from ..examples_drawn import examples
from .problems import machines, make_op, matrix_ops

PRICES = Prices(dram_byte=80.0, buffer_byte=1.0, w2e_word=1.2, n2s_pair=1.5, output_word=2.4, sore_group=0.0, fixed=0.0)
COMPARE = 0.1


def _extents(unit: int, size: int) -> list[int]:
    steps = sorted({1, *(2**i for i in range(1, 20)), *(3 * 2**i for i in range(19))})
    return [s * unit for s in steps if s * unit < size] + [size]


def _space(op, spec):
    pe = spec.pe
    for n2s in [op.sparse.operand] if op.sparse else ["b", "a"]:
        gemm = op.gemm if n2s == "b" else op.gemm.transposed
        for dataflow in (Dataflow.OS, Dataflow.WS):
            held = [2**i for i in range(6) if 2**i <= min(pe.weight_pairs, pe.max_group)]
            dense = [DENSE] if dataflow == Dataflow.OS else [NMPattern(keep=d, group=d) for d in held]
            for pattern, interleave in itertools.product(
                [op.sparse.pattern] if op.sparse else dense, range(1, pe.accumulators + 1)
            ):
                ws = dataflow == Dataflow.WS
                rows = _extents(interleave if ws else spec.array.rows, gemm.m)
                cols = _extents(spec.array.cols * (1 if ws else interleave), gemm.n)
                array = ArrayMapping(dataflow=dataflow, pattern=pattern, interleave=interleave)
                forms = itertools.product((True, False), ("mn", "nm"), COMPACT if _online(op, spec) else ("remade",))
                for r, c, (resident, order, compact) in itertools.product(rows, cols, tuple(forms)):
                    if compact == "buffer" and (resident or order == "mn"):
                        continue
                    yield Mapping(
                        array=array,
                        gemm=gemm,
                        n2s=n2s,
                        tile_rows=r,
                        tile_cols=c,
                        resident=resident,
                        order=order,
                        compact=compact,
                    )


def _online(op, spec) -> bool:
    return op.sparse is not None and (op.sparse.online or not spec.wuve.pregenerate)


def _cost(placement, objective: Objective) -> float:
    energy = _energy(placement)
    return energy if objective == Objective.ENERGY else energy * placement.cycles.total


def _energy(placement) -> float:
    n = placement.counts
    return (
        n.dram_bytes * (PRICES.dram_byte + PRICES.buffer_byte)
        + n.w2e_words * PRICES.w2e_word
        + n.n2s_pairs * PRICES.n2s_pair
        + n.output_words * PRICES.output_word
        + n.sore_compares * COMPARE
    )


def _all(op, spec):
    for mapping in _space(op, spec):
        try:
            yield evaluate(op, spec, mapping)
        except InputError:
            continue


@pytest.mark.parametrize("roomy", [(), ("w2e",), ("n2s",), ("output",), ("w2e", "output"), ("n2s", "output")])
def test_buffers_too_small_are_told_what_would_fit(roomy):
    sizes = {f"{name}_bytes": 2**20 if name in roomy else 64 for name in ("w2e", "n2s", "output")}
    spec = replace(load_spec("tiny"), array=ArraySpec(rows=8, cols=8, w2e_words=2), buffers=BufferSpec(**sizes))
    op = make_op(
        Gemm(m=40, k=64, n=40), sparse=NMOperand(operand="b", pattern=NMPattern(keep=2, group=8), online=False)
    )
    with pytest.raises(InputError, match="fits the buffers") as error:
        place(op, spec, Objective.CYCLES)
    enough = {name: int(size) for name, size in re.findall(r"buffers\.(\w+) = (\d+)", str(error.value))}

    assert enough
    place(op, replace(spec, buffers=BufferSpec(**sizes | enough)), Objective.CYCLES)
    # None of them is larger than it must be, to a factor of two.
    for name, size in enough.items():
        less = replace(spec, buffers=BufferSpec(**sizes | enough | {name: size // 2}))
        assert not list(_all(op, less))


@settings(max_examples=12)
@given(st.data(), st.sampled_from(Objective))
def test_finds_the_best_of_the_stated_space(data, objective):
    spec = data.draw(machines())
    op = data.draw(matrix_ops(spec, size=24))
    prices = PRICES
    if op.sparse is not None:
        prices = PRICES._replace(sore_group=COMPARE * compares_per_group(op.sparse.pattern, spec))
    placements = list(_all(op, spec))
    if not placements:
        with pytest.raises(InputError, match="fits the buffers"):
            place(op, spec, objective, lambda *_: prices)
        return

    found = place(op, spec, objective, lambda *_: prices)

    fastest = min(p.cycles.total for p in placements)
    if objective == Objective.CYCLES:
        assert found.cycles.total == fastest
    elif objective == Objective.THRIFT:
        assert found.cycles.total <= fastest * (1 + 1 / TIE) + 1
        # The check rounds times to whole cycles, so only the clearly faster ones must not be thriftier.
        equal = [p for p in placements if p.cycles.total <= (fastest - 1) * (1 + 1 / TIE) - 1]
        assert all(found.counts.dram_bytes <= p.counts.dram_bytes for p in equal)
    else:
        # EDP multiplies exact fractions of a cycle, the check whole ones.
        slack = 2 / found.cycles.total if objective == Objective.EDP else 1e-12
        assert _cost(found, objective) <= min(_cost(p, objective) for p in placements) * (1 + slack)


def test_equally_fast_mappings_move_the_fewest_bytes(sat):
    """A long product streams as fast as it blocks; blocking moves a fraction of the bytes."""
    op = make_op(Gemm(m=4096, k=1024, n=4096))

    found = place(op, sat, Objective.THRIFT)

    assert found.cycles.total <= found.bound_cycles * 1.002
    assert found.counts.dram_bytes < 2 * (2 * 4096 * 1024 * 2 + 4096 * 4096 * 2)


def test_equal_ops_are_scheduled_once(sat, monkeypatch):
    import weft.dataflow.schedule as module

    calls = []
    original = module.place
    monkeypatch.setattr(module, "place", lambda *a: calls.append(a) or original(*a))
    op = make_op(Gemm(m=64, k=64, n=64))

    plan = schedule(Workload(model="two", batch=1, ops=(op, op)), sat)

    assert len(calls) == 1
    assert plan.placements[0] is plan.placements[1]


def test_energy_needs_prices(sat):
    with pytest.raises(InputError, match="needs the energy of each action"):
        schedule(Workload(model="one", batch=1, ops=(make_op(Gemm(m=4, k=4, n=4)),)), sat, "energy")


def test_unknown_objective_is_refused(sat):
    with pytest.raises(InputError, match="objective is 'speed': did you mean 'edp'"):
        schedule(Workload(model="one", batch=1, ops=(make_op(Gemm(m=4, k=4, n=4)),)), sat, "speed")


def test_a_group_the_machine_cannot_hold_is_refused(sat):
    wide = NMOperand(operand="b", pattern=NMPattern(keep=2, group=32), online=False)

    with pytest.raises(InputError, match=r"pe\.max_group of 'sat-vcu1525' is 16"):
        place(make_op(Gemm(m=64, k=64, n=64), sparse=wide), sat, Objective.CYCLES)


@settings(max_examples=examples(30))
@given(st.data())
def test_more_bandwidth_is_never_slower(data):
    """Under the objective cycles; thrift may give away what it calls equal."""
    slow = data.draw(machines())
    op = data.draw(matrix_ops(slow))
    factor = data.draw(st.floats(1.0, 4.0))
    fast = replace(slow, dram=replace(slow.dram, bytes_per_second=int(slow.dram.bytes_per_second * factor)))
    try:
        before, after = (place(op, m, Objective.CYCLES).cycles.total for m in (slow, fast))
    except InputError:
        assume(False)

    assert after <= before


def test_thrift_may_take_longer_on_more_bandwidth_and_cycles_may_not(sat):
    """77 and 154 GB/s: bytes decide between mappings within 1/128 of the fastest."""
    op, fast = (
        make_op(Gemm(m=256, k=2000, n=384)),
        replace(sat, dram=replace(sat.dram, bytes_per_second=153_600_000_000)),
    )

    def cycles(spec, objective) -> int:
        return place(op, spec, objective).cycles.total

    assert (cycles(sat, Objective.THRIFT), cycles(fast, Objective.THRIFT)) == (192_367, 193_584)
    assert cycles(fast, Objective.CYCLES) <= cycles(sat, Objective.CYCLES) <= 192_367


def test_a_gradient_is_reduced_once(sat):
    """WU of a transformer layer: dY is sorted in 384 x 33,280 / 32 = 399,360 cycles, for 12 row tiles in 4,792,320."""
    gemm = Gemm(m=384, k=33_280, n=384)
    op = make_op(gemm, sparse=NMOperand(operand="b", pattern=NMPattern(keep=2, group=8), online=True), pass_=Pass.WU)
    found = place(op, sat, Objective.THRIFT)
    again = replace(found.mapping, compact="remade")

    assert found.mapping.compact != "remade"
    assert found.cycles.total < 1_500_000
    assert evaluate(op, sat, again).cycles.total > 4_792_320
    groups = gemm.n * gemm.k // 8
    assert found.counts.sore_compares == groups * compares_per_group(op.sparse.pattern, sat)
