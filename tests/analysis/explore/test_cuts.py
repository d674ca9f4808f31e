"""Counts, fronts and bounds of many points against slow ones, in whatever parts the points come."""

from __future__ import annotations

from bisect import bisect_right
from collections import Counter
from collections.abc import Iterator, Sequence
from itertools import pairwise
from math import isfinite, isnan
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from weft.analysis.explore.page.cuts import Cuts, Pair, cut
from weft.analysis.explore.page.points import FramePoints
from weft.analysis.explore.page.scales import Bins, Levels, label_of, short_label
from weft.analysis.explore.page.staircase import Staircase
from weft.analysis.explore.page.summary import Objective, Summary
from weft.dataflow.batch.evaluate import Status, evaluate
from weft.workloads.errors import InputError
from weft.workloads.models import zoo
from weft.workloads.schemes.annotate import annotate
from weft.workloads.sparsity import NMPattern
from weft.workloads.strict import read_json
from weft.workloads.trace import trace_step

from .explored import BATCH, MOST_PES, large, machines, small, summary_of

PLACES = st.lists(st.tuples(st.integers(-6, 6), st.integers(-6, 6)), max_size=40)


class InParts(FramePoints):
    """The same points, few at a time."""

    def __init__(self, frame: pd.DataFrame, rows: int) -> None:
        super().__init__(frame)
        self.few = rows

    def parts(self, columns: Sequence[str]) -> Iterator[Any]:
        for part in super().parts(columns):
            for start in range(0, part.num_rows, self.few):
                yield part.slice(start, self.few)


@pytest.fixture(scope="module")
def frame() -> pd.DataFrame:
    return small()[0]


@pytest.fixture(scope="module")
def summary() -> Summary:
    return summary_of(small())


@pytest.fixture(scope="module")
def cuts(frame: pd.DataFrame, summary: Summary) -> Cuts:
    return cut(FramePoints(frame), summary)


def stairs(parts: Sequence[Sequence[tuple[int, int]]]) -> Staircase:
    made = Staircase()
    for part in parts:
        x, y = (np.array([p[i] for p in part], float) for i in (0, 1))
        made.add(x, y)
    return made


def corners(front: Staircase) -> list[tuple[float, float]]:
    return list(zip(front.x.tolist(), front.y.tolist(), strict=True))


@given(st.lists(PLACES, max_size=4))
def test_a_staircase_is_what_no_point_is_better_than(parts: list[list[tuple[int, int]]]) -> None:
    points = {p for part in parts for p in part}
    best = {(x, y) for x, y in points if not any(u <= x and v <= y and (u, v) != (x, y) for u, v in points)}

    assert corners(stairs(parts)) == sorted(best)


@given(PLACES.filter(bool), PLACES.filter(bool), st.integers(1, 6))
def test_fewer_corners_rule_out_less_and_claim_no_point(
    points: list[tuple[int, int]], asked: list[tuple[int, int]], most: int
) -> None:
    front = stairs([points])
    x, y = (np.array([p[i] for p in asked], float) for i in (0, 1))
    wide = Staircase()
    wide.x, wide.y = front.coarse(most)

    assert len(wide.x) <= most and not (front.reached(x, y) & ~wide.reached(x, y)).any()
    some = set(zip(*(a.tolist() for a in front.some(max(2, most))), strict=True))
    assert some <= set(corners(front)) and {corners(front)[0], corners(front)[-1]} <= some


def bin_of(bins: Bins, value: float) -> int:
    return min(bisect_right(bins.edges.tolist(), value) - 1, bins.count - 1)


def sign(pair: Pair) -> tuple[int, int]:
    return pair.x.sign, pair.y.sign


def test_every_count_is_that_of_a_walk_over_the_rows(frame: pd.DataFrame, cuts: Cuts) -> None:
    rows = frame.to_dict("records")
    assert cuts.points == len(rows) and cuts.seen.statuses == dict(Counter(row["status"] for row in rows))

    def place(column: Any, row: dict[str, Any]) -> int:
        scale = column.scale
        return bin_of(scale, row[column.name]) if isinstance(scale, Bins) else scale.values.index(row[column.name])

    ran = [row for row in rows if row["status"] == "runs"]
    for (left, right), counts in zip(pairwise(cuts.columns), cuts.links, strict=True):
        assert _counts(counts) == Counter((place(left, row), place(right, row)) for row in ran)
    for pair in cuts.pairs:
        scales = cuts.seen.objectives[pair.x], cuts.seen.objectives[pair.y]
        found = Counter((bin_of(scales[0], row[pair.x.name]), bin_of(scales[1], row[pair.y.name])) for row in ran)
        assert _counts(pair.runs) == found and sum(found.values()) == len(ran)
    names = list(cuts.seen.statuses)
    for axis, counts in cuts.by_status.items():
        values = cuts.seen.axes[axis]
        assert isinstance(values, Levels)
        assert _counts(counts) == Counter((values.values.index(row[axis]), names.index(row["status"])) for row in rows)
    for (axis, one), found in cuts.slices.items():
        values = cuts.seen.axes[axis].values
        for value, best in zip(values, found.best, strict=True):
            of = [row[one.name] for row in ran if row[axis] == value]
            assert best == (min(of) if one.sign > 0 else max(of)) if of else isnan(best)


def _counts(counts: Any) -> Counter[tuple[int, int]]:
    return Counter({(i, j): int(counts[i, j]) for i, j in zip(*np.nonzero(counts), strict=True)})


def test_parts_do_not_matter(frame: pd.DataFrame, summary: Summary, cuts: Cuts) -> None:
    other = cut(InParts(frame, 37), summary)

    assert other.seen == cuts.seen
    for one, same in zip(other.pairs, cuts.pairs, strict=True):
        assert (one.runs == same.runs).all() and (one.left_out == same.left_out).all()
        assert corners(one.front) == corners(same.front) and corners(one.bound) == corners(same.bound)
    assert all((one == same).all() for one, same in zip(other.links, cuts.links, strict=True))
    for key, same in cuts.slices.items():
        assert np.array_equal(other.slices[key].best, same.best, equal_nan=True)


def test_no_machine_is_where_the_bound_says_there_is_none(frame: pd.DataFrame, cuts: Cuts) -> None:
    """Those that were left out are scheduled for once."""
    work = annotate(trace_step(zoo.source("resnet9"), batch=BATCH), "bdwp", NMPattern.parse("2:8"))
    allowed = (frame["pes"] <= MOST_PES).to_numpy()
    specs = [spec for spec, may in zip(machines(), allowed, strict=True) if may]
    found = evaluate(work, specs, "cycles")
    runs = found.status == Status.RUNS
    true = frame[allowed][runs].assign(cycles=found.cycles[runs])
    true["samples_per_second"] = BATCH * specs[0].clock_hz / true["cycles"]
    assert (true["status"] == "left out").sum() > 100

    for pair in cuts.pairs:
        assert pair.bound is not None
        x, y = (s * true[o.name].to_numpy(float) for s, o in zip(sign(pair), (pair.x, pair.y), strict=True))
        # A rate is a quotient of two floats, here and there by another way.
        assert pair.bound.reached(x + 1e-9 * abs(x), y + 1e-9 * abs(y)).all()
        # And what was left out for the front is nowhere before it.
        assert pair.front.reached(x + 1e-9 * abs(x), y + 1e-9 * abs(y)).all()


def of_pair(cuts: Cuts, *names: str) -> Pair:
    return next(pair for pair in cuts.pairs if {pair.x.name, pair.y.name} == set(names))


def test_where_no_bound_is_known_it_says_why() -> None:
    frame, *_ = found = large(4000)
    made = cut(FramePoints(frame), summary_of(found))

    assert of_pair(made, "cycles", "pes").bound is not None
    # Machines of two arrangements of PEs may have two clocks.
    for other in ("joules", "samples_per_second"):
        pair = of_pair(made, "cycles", other)
        assert pair.bound is None and other.replace("_", " ") in pair.unbounded and not pair.left_out.any()
    alike = frame.assign(arch="sat")
    assert of_pair(cut(FramePoints(alike), summary_of(found)), "cycles", "samples_per_second").bound is not None
    lost = frame.assign(bound_cycles=np.where(frame["point"] == 7, 0, frame["bound_cycles"]))
    lost.loc[7, ["status", "cycles"]] = "left out", 0
    pair = of_pair(cut(FramePoints(lost), summary_of(found)), "cycles", "pes")
    assert pair.bound is None and "not known" in pair.unbounded


def test_a_clock_or_a_batch_that_is_an_axis_is_each_machines_own() -> None:
    frame = pd.DataFrame(
        {
            "point": [0, 1],
            "clock_hz": [100, 200],
            "batch": [1, 3],
            "status": ["runs", "left out"],
            "cycles": [100, 0],
            "bound_cycles": [100, 100],
            "seconds": [1.0, np.nan],
            "samples_per_second": [1.0, np.nan],
            "pes": [4, 2],
        }
    )
    text = (
        '{"axes": {"clock_hz": [100, 200], "batch": [1, 3]}, "objectives": [{"name": "seconds", "direction": "min"},'
        '{"name": "samples_per_second", "direction": "max"}]}'
    )
    (pair,) = cut(FramePoints(frame), read_json(Summary, text, "test")).pairs

    assert corners(pair.bound) == [(0.5, -6.0)] and corners(pair.front) == [(1.0, -1.0)]


def test_a_field_of_the_machine_is_an_objective_that_every_machine_has() -> None:
    frame, front, said = small()
    rate = {"name": "dram.bytes_per_second", "direction": "min", "unit": "bytes a second"}
    said = {**said, "objectives": [*said["objectives"], rate]}
    made = cut(FramePoints(frame), summary_of((frame, front, said)))
    pair = of_pair(made, "cycles", "dram.bytes_per_second")

    assert pair.bound is not None and pair.left_out.sum() == (frame["status"] == "left out").sum()
    assert [c.name for c in made.columns].count("dram.bytes_per_second") == 1


def test_what_is_not_there_is_said() -> None:
    frame, _, said = small()
    said = {**said, "objectives": [*said["objectives"], {"name": "cylces", "direction": "min", "unit": ""}]}
    said["objectives"].append({"name": "joules", "direction": "min", "unit": "J"})
    seen = cut(FramePoints(frame.drop(columns="array.rows")), summary_of((frame, None, said))).seen

    assert [one.name for one in seen.objectives] == ["cycles", "pes", "buffer_bytes", "samples_per_second"]
    assert any("cylces" in why and "did you mean 'cycles'" in why for why in seen.absent)
    assert any("no point that runs has a number of joules" in why for why in seen.absent)
    assert any("axis array.rows" in why for why in seen.absent)
    with pytest.raises(InputError, match="no column 'status'"):
        cut(FramePoints(frame.drop(columns="status")), summary_of(small()))


@example([1.0, 1.0000000000000002], 60)
@example([0.0], 2)
@given(st.lists(st.floats(-1e12, 1e12) | st.floats(1e-9, 1e9), min_size=1, max_size=30), st.integers(2, 60))
def test_every_number_is_in_the_bin_whose_edges_are_around_it(values: list[float], count: int) -> None:
    bins = Bins(min(values), max(values), count)
    found = bins.index(np.array([*values, np.nan, np.inf]))

    assert found[-2:].tolist() == [-1, -1]
    for value, i in zip(values, found.tolist(), strict=False):
        place = bins.place(value)
        assert 0 <= i < count and place is not None and 0 <= place <= 1
        if not bins.edges[i] <= value < bins.edges[i + 1]:
            raise AssertionError((bins.edges[i : i + 2], value))
    assert isfinite(bins.edges[0]) and (np.diff(bins.edges) > 0).all()


def test_values_of_axes_of_every_kind_have_a_place() -> None:
    for values, kind in (((None, 3, 8), pa.int64()), ((False, True), pa.bool_()), (("a", "b"), pa.string())):
        levels = Levels(values)
        column = pa.chunked_array([pa.array(values[::-1], kind), pa.array([values[0]], kind)])
        assert levels.index(column).tolist() == [*reversed(range(len(values))), 0]
    assert Levels(("a",)).index(pa.chunked_array([pa.array(["b"])])).tolist() == [-1]


@pytest.mark.parametrize(
    ("value", "long", "short"),
    [
        (131_072, "131,072", "128 Ki"),
        (3_200_000_000, "3,200,000,000", "3.2 G"),
        (2**21, "2,097,152", "2 Mi"),
        (9_999, "9,999", "9,999"),
        (59_226_009, "59,226,009", "59.23 M"),
        (0.00123456789, "0.00123457", "0.001235"),
        (-250_000, "-250,000", "-250 k"),
        (10**17, "100,000,000,000,000,000", "1e+05 T"),
        (True, "true", "true"),
        (None, "none", "none"),
        ("2:8", "2:8", "2:8"),
    ],
)
def test_values_are_written_as_people_do(value: Any, long: str, short: str) -> None:
    assert (label_of(value), short_label(value)) == (long, short)


@pytest.mark.parametrize(
    ("name", "unit", "label", "written"),
    [
        ("pes", "PEs", "PEs", "64"),
        ("cycles", "cycles", "cycles", "64"),
        ("seconds", "s", "seconds", "64 s"),
        ("buffer_bytes", "B", "buffer bytes", "64 B"),
        ("edp", "J s", "edp, J s", "64 J s"),
        ("lut", "", "lut", "64"),
        ("dram.bytes_per_second", "bytes a second", "dram.bytes_per_second, bytes a second", "64 bytes a second"),
    ],
)
def test_a_unit_is_said_once(name: str, unit: str, label: str, written: str) -> None:
    one = Objective(name, "min", unit)

    assert (one.label, one.with_unit("64")) == (label, written)
    assert Objective("buffer_bytes", "min", "B").with_unit("128 Ki") == "128 KiB"
