"""Every row of docs/papers.md runs, and every scheme, form and pattern that comes of a paper has a row."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import fields
from pathlib import Path
from typing import get_args

import pytest
import torch

from weft.workloads.blocks import SCATTERBRAIN, Pattern
from weft.workloads.levels import INTEGERS
from weft.workloads.row_forms import FORMS as ROW_FORMS
from weft.workloads.schemes.scheme import SCHEMES
from weft.workloads.schemes.scores import METHODS
from weft.workloads.shrinking import FORMS as SHRINKING_FORMS

from .papers_page import Row, rows
from .papers_runs import SECTIONS, run

ROOT = Path(__file__).parents[1]
ROWS = rows()
PATTERNS = {str(fields(kind)[0].default) for kind in get_args(get_args(Pattern)[0])}

KNOWN = {
    "N:M and masks without a pattern": set(SCHEMES),
    "Few values": set(SCHEMES),
    "Bits by layer": {*METHODS, *INTEGERS, "search_bits"},
    "Rows that tokens leave out": set(ROW_FORMS),
    "Attention": {*PATTERNS, SCATTERBRAIN, "all"},
    "Shapes that shrink": {*SHRINKING_FORMS, "LongConvolution"},
}
"""What the second column of a table may name."""


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    """Models this small wait for threads longer than they work."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def names(of: Row) -> list[str]:
    return [words.split()[0].partition("@")[0] for words in of.runs]


@pytest.mark.parametrize("row", ROWS, ids=str)
def test_a_row_names_what_there_is(row: Row) -> None:
    for name in names(row):
        if name.startswith("examples/"):
            assert (ROOT / name).is_file()
        elif name != "weft":
            assert name in KNOWN[row.section]


def test_what_comes_of_a_paper_has_a_row() -> None:
    named = {section: {name for row in ROWS if row.section == section for name in names(row)} for section in KNOWN}
    schemes = {name for name, scheme in SCHEMES.items() if scheme.paper not in ("", "this project")}
    rows_of = {name for name, form in ROW_FORMS.items() if form.paper}
    shrinking = {name for name, form in SHRINKING_FORMS.items() if form.paper != "-"}

    assert schemes - named["N:M and masks without a pattern"] - named["Few values"] == set()
    assert rows_of - named["Rows that tokens leave out"] == set()
    # That nobody sees what is to come is of no paper.
    assert {*PATTERNS, SCATTERBRAIN} - named["Attention"] == {"causal"}
    assert shrinking - named["Shapes that shrink"] == set()
    assert KNOWN.keys() == SECTIONS.keys() == {row.section for row in ROWS}


@pytest.mark.slow
@pytest.mark.parametrize("row", ROWS, ids=str)
def test_a_row_runs(row: Row, tmp_path: Path) -> None:
    run(row, tmp_path)
