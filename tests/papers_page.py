"""docs/papers.md as data: a row a paper, and what each of its rows runs."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

__all__ = ["PAGE", "Row", "rows"]

PAGE = Path(__file__).parents[1] / "docs" / "papers.md"


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """``runs``: what stands in backticks in the second column, which the command above the table takes, or which is a
    command itself; the column's own words where nothing is. ``cells``: by the head of their column."""

    section: str
    paper: str
    runs: tuple[str, ...]
    cells: dict[str, str]

    def __str__(self) -> str:
        return f"{self.paper.split(',')[0]}: {' + '.join(self.runs)}"

    def numbers(self, column: str, form: str) -> list[tuple[float, ...]]:
        """Whatever is of a ``form``, a regular expression, in the cell under a head that begins so."""
        cell = next(cell for head, cell in self.cells.items() if head.startswith(column))
        return [tuple(map(float, found.groups())) for found in re.finditer(form, cell)]


def rows() -> list[Row]:
    """Of all tables whose first column is of papers, in order."""
    found: list[Row] = []
    for part in PAGE.read_text(encoding="utf-8").split("\n## ")[1:]:
        section, lines = part.split("\n", 1)[0], [line for line in part.splitlines() if line.startswith("| ")]
        heads, *rest = (_cells(line) for line in lines) if lines else [[""]]
        if heads[0] != "paper":
            continue
        for cells in rest:
            assert len(cells) == len(heads), f"{section}: {cells[0]} has {len(cells)} cells of {len(heads)}"
            # What begins with a + is more of what stands before it.
            runs = tuple(re.findall(r"`([^`+][^`]*)`", cells[1])) or (cells[1],)
            found.append(Row(section=section, paper=cells[0], runs=runs, cells=dict(zip(heads, cells, strict=True))))
    return found


def _cells(line: str) -> list[str]:
    return [cell.strip() for cell in line.strip().strip("|").split("|")]
