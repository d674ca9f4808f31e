"""The tables and pictures of docs/results/binary-study.md: `python -m weft.tests.study_page DIR` takes them from DIR.

DIR is the folder that `weft study -o DIR` wrote; the words round the tables stay as they are.
"""

from __future__ import annotations

import shutil
import sys
from pathlib import Path

ROOT = Path(__file__).parents[1]
PAGE = ROOT / "docs" / "results" / "binary-study.md"
PICTURES = {"study-costs.png": "binary-study.png", "study-costs-dark.png": "binary-study-dark.png"}
BEGIN, END = "<!-- what weft study wrote begins -->", "<!-- and ends -->"


def with_tables(page: str, tables: str) -> str:
    """``page`` with ``tables`` between its marks."""
    before, rest = page.split(BEGIN)
    return f"{before}{BEGIN}\n{tables.strip()}\n{END}{rest.split(END)[1]}"


def main(folder: Path) -> None:
    tables = (folder / "study.md").read_text(encoding="utf-8")
    PAGE.write_text(with_tables(PAGE.read_text(encoding="utf-8"), tables), encoding="utf-8")
    for name, ours in PICTURES.items():
        shutil.copyfile(folder / name, ROOT / "docs" / "images" / ours)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
