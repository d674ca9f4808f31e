"""The published fronts are true: points scheduled again, none beats another, nothing of the space beats them."""

from __future__ import annotations

from dataclasses import replace
from functools import cache
from itertools import product

import numpy as np
import pandas as pd
import pytest

import weft
from weft.analysis.energy import energy
from weft.analysis.explore.sweep import sweep
from weft.benchmarks import optimisers
from weft.benchmarks.optimisers import Known
from weft.workloads.errors import InputError

from . import fronts_page
from .analysis.explore.spaces import space
from .fronts_page import SPACES, front, plan

SUB = {
    "front-resnet50": {
        "array.rows": [24, 64],
        "array.cols": [64],
        "array.w2e_words": [2, 4],
        "dram.bytes_per_second": [38_400_000_000, 76_800_000_000],
        "pe.accumulators": [8, 16],
        "buffers.w2e_bytes": [65536, 131072, 262144],
        "buffers.n2s_bytes": [65536, 131072],
        "buffers.output_bytes": [65536, 131072],
    },
    "front-vit": {
        "nm": ["2:8", "2:16"],
        "technology": ["asic-16nm"],
        "array.rows": [48, 64],
        "array.cols": [32, 64],
        "dram.bytes_per_second": [19_200_000_000, 38_400_000_000],
        "pe.accumulators": [4, 16],
        "pe.max_group": [8, 16],
        "buffers.w2e_bytes": [524288],
        "buffers.n2s_bytes": [524288, 1048576],
        "buffers.output_bytes": [262144],
    },
}
"""A part of each grid, of 192 and 128 points, where its front is thick."""


@cache
def step(name: str, nm: str):
    base = plan(name).space
    return weft.sparsify(weft.trace(base.model, batch=base.batch), base.scheme, nm)


def measured(name: str, at: dict) -> dict | None:
    """What a point has, by the calls that a user makes for one machine; none where it does not run."""
    nm, tables = at.get("nm", plan(name).space.nm), {}
    base = replace(weft.machine("sat-vcu1525"), technology=at.get("technology", "fpga-ultrascale-plus"))
    for path, value in at.items():
        if path not in ("nm", "technology"):
            table, field = path.split(".")
            tables.setdefault(table, {})[field] = value
    machine = replace(base, **{table: replace(getattr(base, table), **own) for table, own in tables.items()})
    try:
        result = weft.simulate(weft.schedule(step(name, nm), machine, "cycles"))
    except InputError:
        return None
    buffers = machine.buffers
    return {
        "cycles": result.cycles.total,
        "dram_bytes": result.counts.dram_bytes,
        "seconds": result.cycles.total / machine.clock_hz,
        "joules": energy(result).joules,
        "pes": machine.array.rows * machine.array.cols,
        "buffer_bytes": buffers.w2e_bytes + buffers.n2s_bytes + buffers.output_bytes,
    }


def axes_at(name: str, points: np.ndarray) -> list[dict]:
    columns = plan(name).axes.columns(np.asarray(points, np.int64))
    return [dict(zip(columns, row, strict=True)) for row in zip(*(c.tolist() for c in columns.values()), strict=True)]


def costs(name: str, rows: pd.DataFrame) -> np.ndarray:
    """Less of each is better."""
    assert all(m.direction == "min" for m in plan(name).objectives)
    return rows[[m.name for m in plan(name).objectives]].to_numpy(float)


def beats(rows: np.ndarray, others: np.ndarray) -> np.ndarray:
    """Whether a row dominates another, bool [rows, others], by the definition."""
    a, b = rows[:, None, :], others[None, :, :]
    return (a <= b).all(2) & (a < b).any(2)


@pytest.mark.parametrize("name", SPACES)
def test_points_of_a_front_are_what_a_schedule_has(name):
    rows = front(name)
    some = rows.iloc[np.random.default_rng(0).choice(len(rows), 10, replace=False)]

    for at, (_, row) in zip(axes_at(name, some["point"]), some.astype(object).iterrows(), strict=True):
        assert at == {axis: row[axis] for axis in at}
        found = measured(name, at)
        assert {key: row[key] for key in found if key in row} == {key: found[key] for key in found if key in row}


@pytest.mark.parametrize("name", SPACES)
def test_no_point_of_a_front_beats_or_repeats_another(name):
    rows = costs(name, front(name))

    assert len(rows) == fronts_page.came_to(name)["front"] >= 50
    assert not beats(rows, rows).any()
    assert len(np.unique(rows, axis=0)) == len(rows)


@pytest.mark.parametrize("name", SPACES)
def test_no_point_drawn_from_a_space_is_outside_of_its_front(name):
    best = costs(name, front(name))
    found = [measured(name, at) for at in axes_at(name, np.random.default_rng(1).choice(plan(name).size, 10))]
    drawn = costs(name, pd.DataFrame([one for one in found if one is not None]))

    assert len(drawn) >= 5
    assert (best[None] <= drawn[:, None]).all(2).any(1).all()


@pytest.mark.slow
@pytest.mark.parametrize("name", SPACES)
def test_a_part_of_a_grid_has_the_part_of_the_front(name):
    """All its points by hand; of equals the first, and none that a point of the front elsewhere beats."""
    axes, whole = plan(name).axes, front(name)
    own, numbers = SUB[name], []
    for values in product(*(own[axis.name] for axis in axes.axes)):
        places = [axis.values.index(value) for axis, value in zip(axes.axes, values, strict=True)]
        numbers.append(int(np.ravel_multi_index(places, [len(axis.values) for axis in axes.axes])))
    found = [(number, measured(name, at)) for number, at in zip(numbers, axes_at(name, numbers), strict=True)]
    rows = pd.DataFrame([{"point": number, **one} for number, one in found if one is not None]).sort_values("point")
    inside = whole["point"].isin(numbers)

    left, elsewhere = costs(name, rows), costs(name, whole[~inside])
    covered = beats(left, left).any(0) | (elsewhere[None] <= left[:, None]).all(2).any(1)
    first = ~pd.DataFrame(left).duplicated().to_numpy()

    assert inside.sum() >= 3
    assert rows["point"][~covered & first].tolist() == whole["point"][inside].tolist()


@pytest.mark.parametrize("name", SPACES)
def test_the_reference_and_the_hypervolume_belong_together(name):
    """Counted in cells between neighbouring values of the objectives."""
    said = fronts_page.came_to(name)
    corner = np.log2(list(said["reference"].values()))
    rows = np.log2(costs(name, front(name)))
    ends = [np.append(np.unique(rows[:, i]), corner[i]) for i in range(3)]
    hit = np.zeros([len(e) - 1 for e in ends], bool)
    for row in rows:
        hit[tuple(slice(np.searchsorted(e, value), None) for e, value in zip(ends, row, strict=True))] = True
    wide = [np.diff(e) for e in ends]

    assert (rows < corner).all()
    assert np.einsum("ijk,i,j,k->", hit, *wide) == pytest.approx(said["hypervolume"], rel=1e-9)


def test_the_page_has_the_tables_of_its_files():
    """`python -m weft.tests.fronts_page` writes them anew."""
    page = fronts_page.PAGE.read_text(encoding="utf-8")

    assert fronts_page.with_tables(page) == page


@pytest.fixture(scope="module")
def known(tmp_path_factory):
    folder = tmp_path_factory.mktemp("known")
    sweep(space(folder, objectives=["cycles", "pes"]), folder / "grid")
    return Known(folder / "grid")


def test_an_optimiser_is_told_the_points_that_it_asks_for(known):
    places = [np.array([0, len(axis.values) - 1]) for axis in known.plan.axes.axes]
    rows = known.answers(places)

    assert rows["point"].to_pylist() == [0, known.plan.size - 1]
    for name, column in known.plan.axes.at(places).items():
        assert rows[name].to_pylist() == column.tolist()


def test_who_asks_for_everything_misses_nothing(known):
    rows = known.frame.sample(frac=1, random_state=0)
    course = list(optimisers.course(known, rows))
    regret, found = [r for _, r, _ in course], [f for _, _, f in course]

    assert course[-1] == (len(rows), pytest.approx(0, abs=1e-12), len(known.front))
    assert regret == sorted(regret, reverse=True) and 1 > regret[0] > 0
    assert found == sorted(found) and found[0] < len(known.front)


def test_only_a_whole_grid_is_a_benchmark(tmp_path):
    sweep(space(tmp_path, sampler="latin", points=4), tmp_path / "out")

    with pytest.raises(InputError, match="whole grid"):
        Known(tmp_path / "out")
