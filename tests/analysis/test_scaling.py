"""Factors between nodes: the published numbers, their order, and the second opinions."""

from __future__ import annotations

from itertools import pairwise

import pytest

from weft.analysis.scaling import NODES, ONE_VOLTAGE, area_factor, deepscale_factor, describe, energy_factor


@pytest.mark.parametrize(("node", "factor"), [(45, 1.0), (28, 0.507), (16, 0.164), (7, 0.057)])
def test_the_factors_are_those_of_the_polynomials(node: int, factor: float) -> None:
    assert energy_factor(node) == pytest.approx(factor, abs=5e-4)


@pytest.mark.parametrize(("node", "factor"), [(28, 0.513), (16, 0.174), (7, 0.094)])
def test_at_one_voltage(node: int, factor: float) -> None:
    assert energy_factor(node, ONE_VOLTAGE) == pytest.approx(factor, abs=5e-4)


def test_one_polynomial_by_hand() -> None:
    def at(a: float, b: float, c: float, volts: float) -> float:
        return a * volts**2 + b * volts + c

    by_hand = at(0.2958, -0.1241, 0.03024, 0.85) / at(1.103, -0.362, 0.2767, 0.9)
    assert energy_factor(16) == pytest.approx(by_hand, rel=1e-12)


def test_a_smaller_node_is_never_dearer_or_larger() -> None:
    assert list(NODES) == sorted(NODES, reverse=True)
    for larger, smaller in pairwise(NODES):
        assert energy_factor(smaller) < energy_factor(larger)
        assert energy_factor(smaller, ONE_VOLTAGE) < energy_factor(larger, ONE_VOLTAGE)
        assert area_factor(smaller) < area_factor(larger)


def test_deepscaletool_starts_where_its_figure_does() -> None:
    assert deepscale_factor(45) is None and deepscale_factor(32) is None
    assert deepscale_factor(28) == pytest.approx(energy_factor(28))
    assert energy_factor(28) / (deepscale_factor(7) or 0) == pytest.approx(0.37 / 0.11)


@pytest.mark.parametrize("node", [n for n in NODES if n < 28])
def test_the_models_disagree_as_the_text_says(node: int) -> None:
    other = deepscale_factor(node)

    assert other is not None and 1.0 < other / energy_factor(node) < 3.0
    assert f"{other / energy_factor(node):.1f} times as much" in describe(node)
