"""Totals and ratios with their bands, against tables whose figures are moved and against every corner."""

from __future__ import annotations

import random
from dataclasses import fields, is_dataclass, replace
from itertools import product
from typing import Any, TypeVar

import pytest
from hypothesis import given
from hypothesis import strategies as st

from weft.analysis.bands import Band, Joules, Spent, band_words, ratio_range, shipped_bands
from weft.analysis.dram_tensors import tensor_records
from weft.analysis.energy import energy
from weft.analysis.energy_table import EnergyFigure, Table, load_table, table_names
from weft.analysis.records import op_records, to_dict
from weft.analysis.savings import saving
from weft.dataflow.actions import Component
from weft.simulator.result import SimResult
from weft.workloads.errors import InputError
from weft.workloads.mark import Mark

T = TypeVar("T")


def band(low: float, high: float) -> Band:
    return Band(low=low, high=high, mark=Mark.ASSUMED, source="a test")


def figures_of(part: Any) -> list[EnergyFigure]:
    if isinstance(part, EnergyFigure):
        return [part]
    inside = part.values() if isinstance(part, dict) else []
    if is_dataclass(part):
        inside = [getattr(part, f.name) for f in fields(part)]
    return [figure for one in inside for figure in figures_of(one)]


def moved(part: T, end: str) -> T:
    """``part`` with every figure in it at one end of its bands, by nothing of the tariff."""
    if isinstance(part, EnergyFigure):
        common = 1.0 if part.scaling_band is None else getattr(part.scaling_band, end)
        return replace(part, value=part.value * getattr(part.own_band, end) * common)
    if isinstance(part, dict):
        return {name: moved(one, end) for name, one in part.items()}  # type: ignore[return-value]
    if is_dataclass(part):
        return replace(part, **{f.name: moved(getattr(part, f.name), end) for f in fields(part)})
    return part


@pytest.mark.parametrize("name", table_names())
def test_every_figure_of_every_table_has_a_band_with_its_source(name: str) -> None:
    figures = figures_of(load_table(name))

    assert len(figures) > 5
    for figure in figures:
        own = figure.own_band
        assert own.low < own.high and own.source and own.mark
        # Another node has the disagreement of models on top, of all logic.
        assert (figure.scaling == 1) or figure.scaling_band is not None


@pytest.mark.parametrize("name", ["asic-45nm", "asic-16nm", "asic-7nm", "fpga-ultrascale-plus"])
def test_a_total_ends_where_a_table_with_all_figures_at_their_ends_has_it(bdwp: SimResult, name: str) -> None:
    table = load_table(name)
    report, low, high = (energy(bdwp, one) for one in (table, moved(table, "low"), moved(table, "high")))

    assert report.band == (pytest.approx(low.joules), report.joules, pytest.approx(high.joules))
    assert report.band.low < report.joules < report.band.high
    for p, found in report.pass_bands.items():
        assert found == (pytest.approx(low.by_pass[p]), report.by_pass[p], pytest.approx(high.by_pass[p]))
    for i, found in enumerate(report.op_bands):
        assert found == pytest.approx((low.by_op[i], report.by_op[i], high.by_op[i]))
    for part, found in report.part_bands.items():
        assert found == pytest.approx((low.by_component[part], report.by_component[part], high.by_component[part]))


def test_records_have_the_band_and_it_adds_up(bdwp: SimResult) -> None:
    report, run = energy(bdwp), to_dict(bdwp)
    tensors = tensor_records(bdwp, report)
    for key, i in (("energy_low_j", 0), ("energy_j", 1), ("energy_high_j", 2)):
        assert run[key] == report.band[i]
        assert sum(p[key] for p in run["passes"].values()) == pytest.approx(report.band[i])
        assert sum(op[key] for op in op_records(bdwp)) == pytest.approx(report.band[i])
        assert sum(t[key] for t in tensors) == pytest.approx(report.part_bands[Component.DRAM][i])
        assert sum(getattr(r, name) for r in report.rows for name in [("low_joules", "joules", "high_joules")[i]]) == (
            pytest.approx(report.band[i])
        )


FIGURES = st.lists(
    st.tuples(st.floats(0, 100), st.floats(0, 100), st.floats(0.1, 1), st.floats(1, 10), st.sampled_from([None, 0, 1])),
    min_size=1,
    max_size=5,
)
COMMON = (band(0.5, 3.0), band(1.0, 1.9))


@given(FIGURES, st.randoms(use_true_random=False))
def test_the_ends_of_a_ratio_are_those_of_all_corners_and_nothing_lies_beyond(
    drawn: list[tuple[float, float, float, float, int | None]], draw: random.Random
) -> None:
    drawn = [*drawn, (1.0, 1.0, 0.5, 2.0, None)]
    above, below = (
        [
            Spent(f"figure {i}", band(low, high), None if c is None else COMMON[c], sides[side])
            for i, (*sides, low, high, c) in enumerate(drawn)
        ]
        for side in (0, 1)
    )

    def ratio(own: tuple[float, ...], common: tuple[float, ...]) -> float:
        factors = [f * (1.0 if c is None else common[c]) for f, (*_, c) in zip(own, drawn, strict=True)]
        sums = [sum(f * one[side] for f, one in zip(factors, drawn, strict=True)) for side in (0, 1)]
        return sums[0] / sums[1]

    ends = [(low, high) for _, _, low, high, _ in drawn]
    corners = [ratio(own, common) for own in product(*ends) for common in product(*((b.low, b.high) for b in COMMON))]
    low, high = ratio_range(above, below)

    assert (low, high) == (pytest.approx(min(corners)), pytest.approx(max(corners)))
    inside = ratio(tuple(draw.uniform(*end) for end in ends), tuple(draw.uniform(b.low, b.high) for b in COMMON))
    assert low * (1 - 1e-9) <= inside <= high * (1 + 1e-9)


def test_what_both_sides_rest_on_cancels() -> None:
    dram, logic = band(0.5, 2.0), band(0.1, 10.0)

    same = ratio_range([Spent("dram", dram, None, 2.0)], [Spent("dram", dram, None, 4.0)])
    assert same == (0.5, 0.5)
    assert ratio_range([Spent("dram", dram, None, 1.0)], [Spent("logic", logic, None, 1.0)]) == (0.05, 20.0)


def test_a_step_saves_nothing_over_itself_whatever_the_figures(bdwp: SimResult) -> None:
    found = saving(bdwp, bdwp)

    assert (found.low, found.high) == (pytest.approx(0, abs=1e-12), pytest.approx(0, abs=1e-12))


def test_a_saving_has_the_ends_that_no_table_drawn_within_the_bands_goes_beyond(
    bdwp: SimResult, dense: SimResult
) -> None:
    table, draw = load_table("asic-16nm"), random.Random(1)

    def drawn(part: T) -> T:
        if isinstance(part, EnergyFigure):
            own = part.own_band
            return replace(part, value=part.value * draw.choice([own.low, own.high, draw.uniform(own.low, own.high)]))
        if isinstance(part, dict):
            return {name: drawn(one) for name, one in part.items()}  # type: ignore[return-value]
        if is_dataclass(part):
            return replace(part, **{f.name: drawn(getattr(part, f.name)) for f in fields(part)})
        return part

    def share(one: Table) -> float:
        return 1 - energy(bdwp, one).joules / energy(dense, one).joules

    found, seen = saving(bdwp, dense), [share(drawn(table)) for _ in range(40)]
    assert bdwp.spec.technology == "asic-16nm"
    assert found.low <= min(seen) < found.share < max(seen) <= found.high


@pytest.mark.parametrize(
    ("found", "words"),
    [
        (Joules(24.2, 31.1, 52.0), "31.1 J, 24-52"),
        (Joules(0.000748, 0.001296, 0.0128), "1.30 mJ, 0.74-13"),
        (Joules(120e-6, 345e-6, 1234e-6), "345 µJ, 120-1300"),
        (Joules(0.275, 0.275, 0.9201), "275 mJ, 270-930"),
        (Joules(0.0, 2.0, 2.0), "2.00 J, 0-2"),
    ],
)
def test_words(found: Joules, words: str) -> None:
    assert band_words(found) == words


def test_a_band_that_is_none_is_refused() -> None:
    for low, high in ((0, 2), (1.1, 2), (0.5, 0.9), (0.5, float("inf")), (float("nan"), 2)):
        with pytest.raises(InputError, match=r"a band of .*: low must be in \(0, 1\], high at least 1"):
            band(low, high)
    for one in shipped_bands().values():
        assert one.source
