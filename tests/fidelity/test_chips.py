"""The table of published chips in docs/validation.md is what `examples/chips.py` makes."""

from __future__ import annotations

import runpy
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
CHIPS = runpy.run_path(str(ROOT / "examples" / "chips.py"), run_name="chips")
PAGE = (ROOT / "docs" / "validation.md").read_text(encoding="utf-8")


def _line(chip):
    found = CHIPS["ours"](chip)
    said = "in our band" if found.low < chip.pj < found.high else f"{found.low / chip.pj:.2g} times below our least"
    return f"| {found.likely:.2f} | {found.low:.2f}-{found.high:.2f} | {said} |"


def test_a_small_chip_is_on_the_page_as_it_comes_out():
    chip = CHIPS["CHIPS"][0]

    assert chip.pj == pytest.approx(2 * 0.060 / 0.0585) and _line(chip) in PAGE


@pytest.mark.slow
def test_the_page_has_the_table():
    assert CHIPS["table"]() in PAGE
    assert [_line(chip).endswith("in our band |") for chip in CHIPS["CHIPS"]].count(False) == 1
    for chip in CHIPS["CHIPS"]:
        assert _line(chip) in PAGE
