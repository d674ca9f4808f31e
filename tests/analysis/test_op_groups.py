"""Ops that are alike as one: each op in one group, sums exact, what loses most first."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from fractions import Fraction

import pytest

from weft.analysis.op_groups import op_groups
from weft.analysis.records import layer_of
from weft.analysis.report.data import RunData
from weft.analysis.report.folder import Run
from weft.analysis.roofline import farthest_below, group_point, roofline
from weft.simulator.result import SimResult
from weft.workloads.step import Op, UpdateOp, Workload

from .conftest import layer, relu, run


def blocks(count: int) -> Workload:
    """Blocks of one shape and a head of another."""
    ops: list[Op] = [op for i in range(count) for op in (*layer(f"net.{i}.fc", 8, 32, 64), relu(f"net.{i}.act", 512))]
    ops += [*layer("head", 8, 64, 16), UpdateOp(name="net.0.fc.weight", elements=32 * 64)]
    return Workload(model="blocks", batch=8, ops=tuple(ops))


@pytest.fixture(scope="module")
def repeated() -> SimResult:
    return run("bdwp", workload=blocks(5))


def test_every_op_is_in_one_group_and_sums_are_exact(repeated: SimResult, bdwp: SimResult) -> None:
    for result in (repeated, bdwp):
        groups = op_groups(result)
        assert sorted(n for group in groups for n in group.numbers) == list(range(len(result.ops)))
        assert sum(group.cycles.total for group in groups) == result.cycles.total
        assert sum(group.counts.dram_bytes for group in groups) == result.counts.dram_bytes
        macs = Fraction(result.counts.macs, result.spec.array.pes)
        assert sum(group.lost for group in groups) == result.cycles.total - macs
        for group in groups:
            assert all(result.ops[n] is r for n, r in zip(group.numbers, group.ops, strict=True))
            alike = {(r.op.pass_, r.op.kind, r.cycles, r.counts, r.mapping) for r in group.ops}
            assert len(alike) == 1 and group.layers == len({layer_of(r) for r in group.ops})


def test_products_come_first_and_what_loses_most(repeated: SimResult) -> None:
    groups = op_groups(repeated)
    products = [group for group in groups if group.is_matrix]

    assert groups[: len(products)] == tuple(products)
    for part in (products, groups[len(products) :]):
        assert [group.lost for group in part] == sorted((group.lost for group in part), reverse=True)


def test_layers_of_equal_shape_are_one_row_a_pass(repeated: SimResult) -> None:
    found = Counter(group.label for group in op_groups(repeated))

    # The first layer's update is all that tells its name from the others'.
    assert found == {"net.0-4.fc ×5": 3, "net.0-4.fc": 1, "net.0-4.act ×5": 1, "head": 3}


def test_a_point_of_a_group_is_that_of_each_op(repeated: SimResult) -> None:
    single = iter(roofline(repeated).points)
    points = {n: next(single) for n, r in enumerate(repeated.ops) if r.op.kind == "matrix"}
    for group in op_groups(repeated):
        point = group_point(repeated, group)
        if not group.is_matrix:
            assert point is None
            continue
        assert point is not None and point.cycles == sum(points[n].cycles for n in group.numbers)
        for n in group.numbers:
            assert replace(point, name="", cycles=0) == replace(points[n], name="", cycles=0)


def test_the_named_points_lose_most_below_their_roof(bdwp: SimResult) -> None:
    points = roofline(bdwp).points
    lost = sorted(p.cycles - p.cycles * p.gmacs / p.roof_gmacs for p in points)
    found = farthest_below(points, 3, least=0)

    assert [p.cycles - p.cycles * p.gmacs / p.roof_gmacs for p in found] == lost[:-4:-1]
    assert farthest_below(points, 3, least=1) == []


def test_a_bar_of_equal_layers_opens_into_their_work_and_one_of_several_into_groups(repeated: SimResult) -> None:
    bars = {bar.label: [part.label for part in bar.parts] for bar in _data(repeated).bars}
    assert bars["fc ×5"] == ["FF mm", "BP mm", "WU mm", "OPT update"]
    assert bars["head"] == ["FF mm", "BP mm", "WU mm"]

    # Too many shapes for a bar each: what is left has a row for layers of equal shape.
    shapes = [op for n in range(1, 31) for i in range(2) for op in layer(f"b{n}.{i}.fc", 8 * n, 8, 8)]
    wide = run("dense", workload=Workload(model="wide", batch=1, ops=tuple(shapes)))
    (rest,) = (bar for bar in _data(wide).bars if bar.label.startswith("other"))
    assert rest.layers == 12 and [part.label for part in rest.parts] == [f"b{n}.0-1.fc ×2" for n in range(1, 7)]


def _data(result: SimResult) -> RunData:
    return RunData(Run(place="", label="", name="", result=result, system=None, command="", weft_version=""))
