"""Which points a space has: grids, Latin hypercubes, lists, and what is refused."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from weft.analysis.explore.axes import axes_of
from weft.analysis.explore.space import read_space
from weft.workloads.errors import InputError

ROWS = {"array.rows": [4, 8, 16], "pe.accumulators": [2, 4], "batch": [1, 64]}


def points(space: dict[str, object]) -> list[tuple[object, ...]]:
    axes = axes_of(read_space({"model": "resnet9", **space}))
    columns = axes.columns(np.arange(axes.size))
    return list(zip(*(column.tolist() for column in columns.values()), strict=True))


def test_a_grid_has_every_combination_once():
    found = points({"axes": ROWS})

    assert len(found) == len(set(found)) == 12
    # Work first, capacities last: neighbours differ in what searches answer for anyway.
    assert found[:3] == [(1, 4, 2), (1, 4, 4), (1, 8, 2)]


def test_a_tied_axis_has_the_value_of_the_other():
    found = points({"axes": {"array.rows": [4, 8], "array.cols": "array.rows"}})

    assert found == [(4, 4), (8, 8)]


@given(st.integers(1, 300), st.integers(0, 2**32 - 1), st.integers(1, 40))
def test_a_latin_hypercube_takes_every_value_as_often_as_any_other(size, seed, values):
    axes = {"array.rows": list(range(1, values + 1)), "array.cols": {"first": 1, "last": 1024}}
    found = points({"axes": axes, "sampler": "latin", "points": size, "seed": seed})

    counts = np.bincount([row[0] for row in found], minlength=values + 1)[1:]
    assert counts.max() - counts.min() <= 1
    # As many strata as points, one point in each.
    strata = sorted((int(row[1]) - 1) * size // 1024 for row in found)
    assert all(abs(one - number) <= 1 for number, one in enumerate(strata))


def test_a_latin_hypercube_follows_its_seed_and_needs_no_other_point():
    space = {"axes": {"array.rows": {"first": 1, "last": 1024}, "array.cols": {"first": 1, "last": 1024}}}
    axes = axes_of(read_space({"model": "resnet9", **space, "sampler": "latin", "points": 10_000, "seed": 3}))
    whole, part = axes.columns(np.arange(10_000)), axes.columns(np.array([7, 9_999]))

    assert [column[[7, 9_999]].tolist() for column in whole.values()] == [c.tolist() for c in part.values()]
    assert abs(np.corrcoef(*whole.values())[0, 1]) < 0.05
    assert points({**space, "sampler": "latin", "points": 50, "seed": 1}) != points(
        {**space, "sampler": "latin", "points": 50, "seed": 2}
    )


def test_a_list_has_its_rows_in_order():
    rows = [{"array.rows": 8, "nm": "2:8"}, {"array.rows": 4, "nm": "2:4"}]

    assert points({"sampler": "list", "listed": rows}) == [(8, "2:8"), (4, "2:4")]


def test_spans():
    assert [row[0] for row in points({"axes": {"buffers.w2e_bytes": {"first": 64, "last": 300, "times": 2}}})] == [
        64,
        128,
        256,
    ]
    assert [row[0] for row in points({"axes": {"array.rows": {"first": 2, "last": 9, "step": 3}}})] == [2, 5, 8]
    assert points({"axes": {"dram.bytes_per_second": [1e9]}}) == [(10**9,)]


@pytest.mark.parametrize(
    ("space", "said"),
    [
        ({"axes": {"array.row": [4]}}, "did you mean 'array.rows'"),
        ({"axes": {"array.rows": [4, 5000]}}, "axes.array.rows must be an integer from 1 to 1024, not 5000"),
        ({"axes": {"array.rows": []}}, "axes.array.rows has no values"),
        ({"axes": {"array.rows": ["4"]}}, "axes.array.rows must be an integer"),
        ({"axes": {"array.rows": [4.5]}}, "must be an integer from 1 to 1024, not 4.5"),
        ({"axes": {"array.cols": "array.rows", "batch": [1]}}, "no axis of its own: name one of 'batch'"),
        ({"axes": {"array.rows": {"first": 9, "last": 2}}}, "goes from first = 9 to last = 2"),
        ({"axes": {"array.rows": {"first": 1, "last": 9, "times": 1}}}, "both must grow"),
        ({"axes": {"nm": ["2:4", "5:4"]}}, "axes.nm: N:M pattern 5:4"),
        ({"axes": {"scheme": ["bdvp"]}}, "did you mean 'bdwp'"),
        ({"axes": {"pe.format": ["fp17"]}}, "axes.pe.format has 'fp17'"),
        ({"axes": {"batch": [0]}}, "axes.batch must be an integer from 1"),
        ({"axes": {"array.rows": [4]}, "sampler": "latin"}, "needs a number of points"),
        ({"axes": {"array.rows": [4]}, "points": 3}, "points = 3 is for the samplers latin and search"),
        ({"sampler": "list", "listed": [{"array.rows": 4}, {"batch": 4}]}, "names the same fields"),
        ({"axes": {}}, "needs an axis at least"),
        (
            {
                "axes": {
                    name: {"first": 1, "last": 1024}
                    for name in ("array.rows", "array.cols", "sore.lanes", "vector.lanes", "wuve.lanes")
                }
            },
            "more than 2^40",
        ),
    ],
)
def test_what_is_refused(space, said):
    with pytest.raises(InputError) as refused:
        points(space)

    assert said in str(refused.value)
