"""SRAM banks: CACTI's points, the fit recomputed from them, and what lies beside and below."""

from __future__ import annotations

from itertools import pairwise
from math import sqrt

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from weft.analysis.scaling import NODES, energy_factor
from weft.analysis.sram import bank, sram_points
from weft.workloads.errors import InputError
from weft.workloads.mark import Mark

STORED = sram_points()


@pytest.mark.parametrize("fit", STORED.fits, ids=lambda fit: str(fit.node))
@pytest.mark.parametrize("direction", ["read", "write"])
def test_the_stored_fit_is_the_least_squares_of_the_points(fit, direction: str) -> None:  # type: ignore[no-untyped-def]
    points = [p for p in STORED.points if p[0] == fit.node]
    basis = np.array([[1, b / 64, sqrt(k / 64), b / 64 * sqrt(k / 64)] for _, b, k, *_ in points])
    pj = np.array([p[3] if direction == "read" else p[4] for p in points])
    found, *_ = np.linalg.lstsq(basis / pj[:, None], np.ones(len(pj)), rcond=None)
    error = 100 * (basis @ found / pj - 1)
    line = getattr(fit, direction)

    assert len(points) == 30
    assert line.coefficients == pytest.approx(found, abs=1e-4)
    assert line.rms_percent == pytest.approx(sqrt((error**2).mean()), abs=0.06)
    assert line.worst_percent == pytest.approx(abs(error).max(), abs=0.06)


def test_a_point_is_answered_as_printed() -> None:
    for node, bits, kib, read, write, leakage in STORED.points:
        found = bank(node, kib, bits)
        assert (found.read_pj, found.write_pj, found.leakage_uw) == (read, write, leakage)
        assert found.mark == Mark.MEASURED


@given(st.sampled_from(NODES), st.integers(8, 2048), st.sampled_from((32, 64, 96, 128)))
def test_the_fit_grows_with_size_and_port(node: int, kib: int, bits: int) -> None:
    fit = next(f for f in reversed(STORED.fits) if f.node >= node)
    for line in (fit.read, fit.write):
        assert 0 < line(kib, bits) < line(2 * kib, bits)
        assert line(kib, bits) < line(kib, bits + 32) or kib < 32


@pytest.mark.parametrize("kib", [64, 100, 1000])
def test_a_smaller_node_costs_less(kib: int) -> None:
    for larger, smaller in pairwise(NODES):
        assert bank(smaller, kib).read_pj < bank(larger, kib).read_pj
        assert bank(smaller, kib).write_pj < bank(larger, kib).write_pj


def test_sizes_at_other_nodes_keep_the_shape_of_their_fit() -> None:
    fit = next(f for f in STORED.fits if f.node == 22)
    ratio = bank(16).read_pj / next(p[3] for p in STORED.points if p[:3] == (22, 64, 64))

    assert bank(16, 256).read_pj == pytest.approx(fit.read(256, 64) * ratio)
    assert bank(16, 256).mark == Mark.INFERRED and "22 nm" in bank(16, 256).source


def test_below_16_nm_sram_follows_arithmetic() -> None:
    assert bank(7).read_pj == pytest.approx(4.84 * energy_factor(7) / energy_factor(16))


@pytest.mark.parametrize(("kib", "pj"), [(8, 10), (32, 20), (1024, 100)])
def test_horowitz_is_dearer_than_cacti_by_up_to_two_thirds(kib: int, pj: float) -> None:
    assert 1.0 < pj / bank(45, kib).read_pj < 1.67


def test_leakage_is_nearly_proportional_to_size() -> None:
    for node, bits, kib, _, _, leakage in STORED.points:
        assert leakage == pytest.approx(bank(node, 64, bits).leakage_uw * kib / 64, rel=0.3)
    assert bank(10).leakage_uw == bank(22).leakage_uw and bank(10).leakage_mark == Mark.ASSUMED


def test_what_the_fit_never_saw_is_refused() -> None:
    for wrong in (lambda: bank(16, 4), lambda: bank(16, 8192), lambda: bank(16, 64, 16)):
        with pytest.raises(InputError, match="outside the fit"):
            wrong()
    with pytest.raises(InputError, match="no SRAM of 5 nm"):
        bank(5)
