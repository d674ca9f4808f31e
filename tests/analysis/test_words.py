"""Shares as they are printed: together exactly a hundred, none off by a digit."""

from __future__ import annotations

import re
from fractions import Fraction
from itertools import pairwise, takewhile
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from weft.analysis.words import apportion, percents, percents_of
from weft.cli import main
from weft.workloads.io import save_workload

from .conftest import step

PART = st.one_of(st.integers(0, 2**62), st.floats(0, 1e12, allow_nan=False), st.fractions(0, 1000))
PARTS = st.lists(PART, min_size=1, max_size=40)


@given(PARTS)
def test_printed_shares_add_up_to_exactly_a_hundred(parts: list[float | Fraction]) -> None:
    shown = [Fraction(text) for text in percents(parts)]

    assert sum(shown) == (100 if any(parts) else 0)
    whole = sum(Fraction(part) for part in parts) or 1
    for part, share in zip(parts, shown, strict=True):
        assert abs(share - 100 * Fraction(part) / whole) < Fraction(1, 10)
        assert share == 0 or part


@given(PARTS, st.integers(0, 10**9))
def test_whole_numbers_are_shared_out_and_more_is_never_less(parts: list[float | Fraction], whole: int) -> None:
    given_out = apportion(whole, parts)

    assert sum(given_out) == (whole if any(parts) else 0)
    ordered = sorted(zip(map(Fraction, parts), given_out, strict=True))
    for (less, few), (more, many) in pairwise(ordered):
        assert few <= many or less == more


@given(st.lists(st.integers(0, 2**50), min_size=1, max_size=12))
def test_parts_that_are_whole_already_stay(parts: list[int]) -> None:
    assert apportion(sum(parts), parts) == parts


def test_by_hand() -> None:
    assert percents([1, 1, 1]) == ["33.4", "33.3", "33.3"]
    assert percents_of({"inferred": 996, "assumed": 4}) == {"inferred": "99.6", "assumed": "0.4"}
    assert percents([1, 2], 6) == ["16.7", "33.3"]
    assert percents([0, 0]) == ["0.0", "0.0"]


@pytest.mark.parametrize("share", [Fraction(1, 3), Fraction(584, 1000), Fraction(1)])
def test_columns_that_are_a_part_of_a_whole_add_up_to_it(share: Fraction) -> None:
    parts = [share * n / 10 for n in (1, 2, 3, 4)]

    assert sum(Fraction(text) for text in percents(parts, 1)) == Fraction(round(1000 * share), 10)


def shares_under(title: str, shown: str, column: int) -> list[Fraction]:
    """The shares of a table of the terminal, without its sum."""
    lines = shown[shown.index(title) :].splitlines()[4:]
    rows = (re.findall(r"(\d+\.\d) %", line) for line in takewhile(str.strip, lines) if not line.startswith(" step"))
    # A line without a share is the rest of a long word.
    return [Fraction(row[column]) for row in rows if row]


@pytest.mark.parametrize("scheme", ["dense", "bdwp", "bdwp-x"])
def test_tables_of_the_terminal_add_up(scheme: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    save_workload(step(), tmp_path / "step.json")
    given_ = [str(tmp_path / "step.json"), "--arch", "tiny"]
    assert main(["run", *given_, "--scheme", scheme]) == 0
    shown = capsys.readouterr().out
    for title in ("By pass", "By cause"):
        assert sum(shares_under(title, shown, 0)) == 100
    shares = " ".join(shown[shown.rindex("Energy: ") : shown.rindex("Table ")].split())
    assert sum(map(Fraction, re.findall(r"(\d+\.\d) %", shares))) == 100

    assert main(["explain", "energy", *given_, "--scheme", scheme]) == 0
    shown = capsys.readouterr().out
    for title in ("By action", "Rests on figures that are"):
        assert sum(shares_under(title, shown, 0)) == 100

    assert main(["compare", *given_, "--schemes", f"dense,{scheme}" if scheme != "dense" else "dense,srste"]) == 0
    shown = capsys.readouterr().out
    assert sum(shares_under("Where the cycles go", shown, 0)) == 100
    step_row = next(line for line in shown.splitlines() if line.startswith(" step "))
    assert sum(shares_under("Where the cycles go", shown, 1)) == Fraction(re.findall(r"(\d+\.\d) %", step_row)[1])
